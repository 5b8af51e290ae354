#!/usr/bin/env bash
# Installs what tests/node/package-lock.json pins (every version and hash) into .tools and prints the folder of the
# modules. Does nothing when they are already there. Without npm it prints nothing: the tests that need them then say
# that they were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v npm >/dev/null; then
    echo "setup-node: npm is missing; tests that need Azurite are skipped" >&2
    exit
fi
folder=$PWD/.tools/node-$(cat tests/node/package.json tests/node/package-lock.json | sha256sum | cut -c1-12)
mkdir -p .tools
exec 9>.tools/node.lock
flock 9
if [[ ! -f $folder/.complete ]]; then
    echo "setup-node: installing the pinned packages of tests/node into ${folder#"$PWD/"}" >&2
    rm -rf "$folder"
    mkdir "$folder"
    cp tests/node/package.json tests/node/package-lock.json "$folder"
    npm ci --prefix "$folder" --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error >&2
    touch "$folder/.complete"
fi
echo "$folder/node_modules"
