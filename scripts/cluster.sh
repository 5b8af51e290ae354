#!/usr/bin/env bash
# cluster.sh TARGET COMMAND: builds what a cluster needs and runs `walstorage-cluster COMMAND` on it, for `make TARGET`.
# With sudo everything is built as the user who called it, whose caches and toolchains are used.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$1 command=$2
if ((EUID)); then
    echo "a node of Kubernetes needs root: sudo make $target" >&2
    exit 2
fi
as_user() {
    if [[ ${SUDO_USER:-root} != root ]]; then
        # shellcheck disable=SC2016 # for the inner shell
        runuser -u "$SUDO_USER" -- bash -lc 'cd "$0" && exec "$@"' "$PWD" "$@"
    else
        "$@"
    fi
}

scripts/setup-system.sh >/dev/null
tools=$(as_user scripts/setup-cluster-tools.sh)
# As the image's programs are built, or everything of ours would be compiled twice.
export RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/static-rustc.sh
image=$(as_user scripts/image.py)
as_user cargo build --locked --profile ci --workspace --bin walstorage-cluster --bin wal-app
export WALSTORAGE_CLUSTER_TOOLS=$tools WALSTORAGE_IMAGE=$image WALSTORAGE_BIN_DIR=$PWD/target/ci
# The death of make is seen by whoever is its child.
exec target/ci/walstorage-cluster "$command"
