#!/usr/bin/env python3
"""Runs every suite and counts: `make test`.

Each suite's own result lines are parsed and summed; the last line printed is `N passed, N failed, N skipped`. A suite
that ends with an error beyond its failed tests, or that ran no test, counts one failure. A test that could not run
says so in the file $WALSTORAGE_SKIPPED_FILE and counts as skipped. With CI=true a skip is an error.
"""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "target" / "ci"
# Ends a suite that hangs; nothing is judged by it otherwise.
HANG_SECONDS = 25 * 60


@dataclass
class Counts:
    """What a suite reported."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def cargo_line(line: str) -> Counts:
    """One `test result:` line of cargo test; there is one per test binary."""
    match = re.match(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;", line)
    return Counts(*map(int, match.groups())) if match else Counts()


def pytest_line(line: str) -> Counts:
    """The closing line of pytest: `2 failed, 5 passed, 1 skipped in 0.12s`."""
    if not re.fullmatch(r"(=+ )?\d+ \w+(, \d+ \w+)* in [\d.]+s.*", line.strip()):
        return Counts()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", line.split(" in ", maxsplit=1)[0])}
    errors = counts.get("error", 0) + counts.get("errors", 0)
    skipped = sum(counts.get(word, 0) for word in ("skipped", "xfailed", "deselected"))
    return Counts(counts.get("passed", 0), counts.get("failed", 0) + errors + counts.get("xpassed", 0), skipped)


def go_line(line: str) -> Counts:
    """One event of `go test -json`; only those of tests count, not those of packages."""
    try:
        event = json.loads(line)
    except ValueError:
        return Counts()
    if not isinstance(event, dict) or "Test" not in event:
        return Counts()
    action = event.get("Action")
    return Counts(action == "pass", action == "fail", action == "skip")


def plain_line(line: str) -> Counts:
    """A line that is nothing but counts."""
    match = re.fullmatch(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?", line.strip())
    return Counts(*(int(number or 0) for number in match.groups())) if match else Counts()


def go_text(line: str) -> str:
    """What a person wants to see of a `go test -json` event."""
    try:
        event = json.loads(line)
    except ValueError:
        return line
    return event.get("Output", "") if isinstance(event, dict) else line


@dataclass(frozen=True)
class Suite:
    """A command and how its output is counted; `count = None`: one test, that it succeeds."""

    name: str
    command: list[str]
    count: Callable[[str], Counts] | None = None
    show: Callable[[str], str] = str


# Suites that run on Kubernetes, and what their files in tests/cluster/tests begin with.
TIERS = {"T1": "t1_", "T2": "t2_", "T3": "t3_"}
IMAGE = ROOT / "target" / "image" / "tests.tar"
CLUSTER_TOOLS = [str(ROOT / "scripts" / "setup-cluster-tools.sh")]


def tier(name: str) -> Suite:
    """The suites of a tier, which only the feature builds."""
    files = sorted(path.stem for path in (ROOT / "tests" / "cluster" / "tests").glob(f"{TIERS[name]}*.rs"))
    command = ["cargo", "test", "--locked", "--profile", "ci", "--workspace", "--no-fail-fast"]
    command += ["--features", "walstorage-cluster-tests/suites", *(f"--test={file}" for file in files)]
    # They wait more than they compute.
    return Suite(name, [*command, "--", "--test-threads=8"], cargo_line)


def suites(python: str) -> list[Suite]:
    """Every suite, in order; binaries are built before."""
    with_sidecar = str(ROOT / "scripts" / "with-sidecar.sh")
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return [
        Suite("rust", ["cargo", "test", "--locked", "--profile", "ci", "--workspace", "--no-fail-fast"], cargo_line),
        Suite("scripts", [*pytest, "tests/python"], pytest_line),
        Suite("python client", [with_sidecar, *pytest, "examples/clients/python"], pytest_line),
        Suite(
            "go client",
            [with_sidecar, "go", "-C", "examples/clients/go", "test", "-json", "-count=1", "./..."],
            go_line,
            go_text,
        ),
        Suite("java reader", [python, "scripts/java_reader.py"], plain_line),
        Suite("readme", [python, "scripts/readme_test.py", "README.md"], plain_line),
        Suite("quickstart", [str(BIN / "quickstart")]),
        # Waits for the build that began with the run.
        Suite("cluster tools", CLUSTER_TOOLS),
        tier("T1"),
        tier("T2"),
        # What T3 runs is what is shipped.
        Suite("image", [python, "scripts/image.py", "--output", str(IMAGE)]),
        tier("T3"),
    ]


def run(suite: Suite, environment: dict[str, str]) -> Counts:
    """Runs one suite, shows its output as it comes, and counts it."""
    counts = Counts()
    process = subprocess.Popen(
        suite.command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    hang = threading.Timer(HANG_SECONDS, lambda: os.killpg(process.pid, signal.SIGKILL))
    hang.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(suite.show(line))
            sys.stdout.flush()
            if suite.count:
                counts += suite.count(line)
        status = process.wait()
    finally:
        hang.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    if suite.count is None:
        return Counts(passed=int(status == 0), failed=int(status != 0))
    if (status and not counts.failed) or counts == Counts():
        print(f"{suite.name}: exit status {status} with {counts}: counted as one failure")
        counts.failed += 1
    return counts


def prepare(name: str, command: list[str], environment: dict[str, str]) -> str:
    """Runs what the suites need; a failure ends everything."""
    started = time.monotonic()
    print(f"--- {name}", flush=True)
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        print(done.stdout, end="")
        print(f"{name} failed")
        finish(Counts(failed=1), [])
    print(f"--- {name}: {time.monotonic() - started:.0f} s", flush=True)
    return done.stdout.strip()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it started, if it is still there: after a failed build nobody waits for it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def finish(total: Counts, skips: list[str]) -> None:
    """Prints the counts as the last line, keeps them for .ci/run, and exits."""
    in_ci = os.environ.get("CI") == "true"
    for line in skips:
        print(line)
    if skips and in_ci:
        print("a skipped test is an error with CI=true")
    (ROOT / "target").mkdir(exist_ok=True)
    (ROOT / "target" / "test-counts").write_text(f"{total}\n")
    print(total, flush=True)
    sys.exit(1 if total.failed or total.passed == 0 or (total.skipped and in_ci) else 0)


def main() -> None:
    environment = dict(os.environ, WALSTORAGE_BIN_DIR=str(BIN), PYTHONDONTWRITEBYTECODE="1")
    environment.pop("WALSTORAGE_SOCKET", None)
    environment["WALSTORAGE_IMAGE"] = str(IMAGE)
    # All suites run the programs as they are shipped, so that the image needs no build of its own.
    environment["RUSTC_WORKSPACE_WRAPPER"] = str(ROOT / "scripts" / "static-rustc.sh")
    print(prepare("setup: system packages", ["scripts/setup-system.sh"], environment))
    chosen = sys.argv[1:]
    if "T3" in chosen:
        chosen.append("image")
    if not chosen or {"cluster tools", *TIERS} & set(chosen):
        # Minutes once per machine, while other suites run; what it says stands between their output.
        tools = subprocess.Popen(
            CLUSTER_TOOLS, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        atexit.register(end, tools)
    python = prepare("setup: python packages", ["scripts/setup-python.sh"], environment)
    environment["WALSTORAGE_PYTHON"] = python
    modules = prepare("setup: node packages", ["scripts/setup-node.sh"], environment)
    environment["WALSTORAGE_NODE_MODULES"] = modules
    build = ["cargo", "build", "--locked", "--profile", "ci", "--workspace", "--all-targets"]
    prepare("build", build, environment)

    total, skips, report = Counts(), [], []
    with tempfile.TemporaryDirectory() as folder:
        skipped_file = Path(folder) / "skipped"
        environment["WALSTORAGE_SKIPPED_FILE"] = str(skipped_file)
        for suite in suites(python):
            if chosen and suite.name not in chosen:
                continue
            print(f"--- {suite.name}", flush=True)
            started = time.monotonic()
            skipped_file.write_text("")
            counts = run(suite, environment)
            lines = [line for line in skipped_file.read_text().splitlines() if line.strip()]
            # A test that could not run has passed as far as its runner knows.
            counts.skipped += len(lines)
            counts.passed -= min(len(lines), counts.passed)
            skips += lines
            report.append(f"{suite.name:<14} {counts}  {time.monotonic() - started:.0f} s")
            total += counts
    print("---")
    print("\n".join(report))
    finish(total, skips)


if __name__ == "__main__":
    main()
