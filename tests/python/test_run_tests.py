"""The counting of scripts/run_tests.py and the matching of scripts/readme_test.py."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import readme_test
import run_tests
from run_tests import Counts, Suite


@pytest.mark.parametrize(
    ("count", "line", "counts"),
    [
        (
            run_tests.cargo_line,
            "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            Counts(12, 0, 0),
        ),
        (
            run_tests.cargo_line,
            "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            Counts(3, 2, 1),
        ),
        (run_tests.cargo_line, "test engine::commit::a_torn_frame_is_cut ... ok", Counts()),
        (run_tests.pytest_line, "11 passed in 0.41s", Counts(11)),
        (
            run_tests.pytest_line,
            "==== 2 failed, 5 passed, 1 skipped, 1 warning in 61.20s (0:01:01) ====",
            Counts(5, 2, 1),
        ),
        (run_tests.pytest_line, "1 passed, 2 errors in 0.10s", Counts(1, 2, 0)),
        (run_tests.pytest_line, "no tests ran in 0.00s", Counts()),
        (run_tests.go_line, '{"Action":"pass","Package":"p","Test":"TestA/sub","Elapsed":0}', Counts(1)),
        (run_tests.go_line, '{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0}', Counts(0, 1)),
        (run_tests.go_line, '{"Action":"skip","Package":"p","Test":"TestA","Elapsed":0}', Counts(0, 0, 1)),
        (run_tests.go_line, '{"Action":"pass","Package":"p","Elapsed":0.5}', Counts()),
        (run_tests.go_line, "client.go:1:1: syntax error", Counts()),
        (run_tests.plain_line, "7 passed, 1 failed", Counts(7, 1)),
        (run_tests.plain_line, "7 passed, 1 failed, 2 skipped", Counts(7, 1, 2)),
    ],
)
def test_result_lines_are_counted(count, line, counts):
    assert count(line) == counts


@pytest.mark.parametrize(
    ("script", "counts"),
    [
        ("echo 3 passed, 0 failed", Counts(3, 0)),
        ("echo 3 passed, 2 failed; exit 1", Counts(3, 2)),
        ("echo 3 passed, 0 failed; exit 1", Counts(3, 1)),
        ("true", Counts(0, 1)),
        ("exit 7", Counts(0, 1)),
    ],
)
def test_a_suite_that_breaks_or_runs_nothing_is_a_failure(script, counts, monkeypatch):
    monkeypatch.setattr(sys, "stdout", open("/dev/null", "w"))  # noqa: SIM115
    assert run_tests.run(Suite("x", ["bash", "-c", script], run_tests.plain_line), {}) == counts


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ([], "", True),
        ([], "noise\n", False),
        (["a", "b"], "a\nb\n", True),
        (["a", "b"], "a\nb\nc\n", False),
        (["a … c"], "a 17 c\n", True),
        (["a … c"], "a\nc\n", False),
        (["a", "…", "z"], "a\nb\nc\nz\n", True),
        (["a.c"], "abc\n", False),
    ],
)
def test_output_is_compared_with_the_document(expected, printed, same):
    assert readme_test.matches(expected, printed) == same


def test_only_console_blocks_are_examples():
    text = "```sh\n$ not me\n```\n```console\n$ cat <<END\n> x\n> END\nx\n$ true\n```\n$ nor me\n"
    found = readme_test.examples(text)
    assert [(e.line, e.command, e.expected) for e in found] == [(5, "cat <<END\nx\nEND", ["x"]), (9, "true", [])]
