#!/usr/bin/env bash
# Makes the virtual environment .tools/venv from tests/python/requirements.txt (every version and hash pinned) and
# prints the path of its python. Does nothing when it is already there and the pins have not changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$PWD/.tools/venv
requirements=tests/python/requirements.txt
mkdir -p .tools

# Two callers at once: the second waits and then finds the work done.
exec 9>.tools/venv.lock
flock 9

want="$(python3 --version) $(sha256sum <"$requirements")"
if [[ ! -f $venv/.complete || $(<"$venv/.complete") != "$want" ]]; then
    echo "setup-python: installing the pinned packages of $requirements into .tools/venv" >&2
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        -r "$requirements" >&2
    printf '%s\n' "$want" >"$venv/.complete"
fi
echo "$venv/bin/python"
