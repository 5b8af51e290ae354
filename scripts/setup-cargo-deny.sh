#!/usr/bin/env bash
# Installs the pinned cargo-deny into .tools and prints its path. Built without optimisation: that takes a minute or
# two once, and the tool runs for a second.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
root=$PWD/.tools/cargo-deny-$version
mkdir -p .tools
exec 9>.tools/cargo-deny.lock
flock 9
if [[ ! -x $root/bin/cargo-deny ]]; then
    echo "setup-cargo-deny: building cargo-deny $version into .tools" >&2
    cargo install --quiet --locked --debug --config profile.dev.debug=false \
        cargo-deny --version "$version" --root "$root" >&2
fi
echo "$root/bin/cargo-deny"
