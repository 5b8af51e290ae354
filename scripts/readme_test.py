#!/usr/bin/env python3
"""Runs the ```console blocks of a document as one shell session and compares what they print: `readme_test.py FILE`.

A line that begins with `$ ` is a command, `> ` continues it; the lines below are what it must print (output and errors
together), where `…` stands for anything within a line and a line of `…` alone for any lines. Each command is one test.
The session begins in the repository's root, in a process group of its own that is ended with it.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HANG_SECONDS = 300


@dataclass
class Example:
    """A command and what the document says it prints."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)


def examples(text: str) -> list[Example]:
    """The commands of all console blocks."""
    found: list[Example] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = not inside and line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Example(number, line[2:]))
        elif inside and (line + " ").startswith("> ") and not found[-1].expected:
            found[-1].command += "\n" + line[2:]
        elif inside:
            found[-1].expected.append(line)
    return found


def matches(expected: list[str], printed: str) -> bool:
    """Whether the output is what the document shows."""
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(".*".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), printed.rstrip() + "\n" if printed.strip() else "") is not None


def run(shell: subprocess.Popen, example: Example) -> tuple[str, int | None]:
    """Runs one command in the session; the status is `None` when the session ended."""
    mark = f"--- end of line {example.line}:"
    shell.stdin.write(f"{example.command}\nprintf '\\n{mark} %d\\n' $?\n")
    shell.stdin.flush()
    printed = []
    for line in shell.stdout:
        if line.startswith(mark):
            # The newline before the mark is ours.
            return "".join(printed).removesuffix("\n"), int(line.removeprefix(mark))
        printed.append(line)
    return "".join(printed), None


def main() -> None:
    document = Path(sys.argv[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WALSTORAGE_")}
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    hang = threading.Timer(HANG_SECONDS, lambda: os.killpg(shell.pid, signal.SIGKILL))
    hang.start()
    passed = failed = 0
    try:
        for example in examples(document.read_text()):
            printed, status = run(shell, example)
            if status == 0 and matches(example.expected, printed):
                passed += 1
                continue
            failed += 1
            print(f"{document}:{example.line}: $ {example.command}")
            print(f"exit status {status}; printed:\n{printed}\nthe document says:\n" + "\n".join(example.expected))
            if status is None:
                break
    finally:
        hang.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
