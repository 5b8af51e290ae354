#!/usr/bin/env bash
# Runs a command against a sidecar of its own: `with-sidecar.sh COMMAND [ARGUMENT...]`. The sidecar writes to one new
# temporary folder, which goes when the command ends; the command finds the socket in $WALSTORAGE_SOCKET. Exits with
# the command's status. The binaries are those of $WALSTORAGE_BIN_DIR (default: target/ci).
set -euo pipefail

bin=${WALSTORAGE_BIN_DIR:-$(cd "$(dirname "$0")/.." && pwd)/target/ci}
dir=$(mktemp -d)
sidecar=
# shellcheck disable=SC2329 # the trap calls it
stop() {
    if [[ -n $sidecar ]]; then
        kill "$sidecar" 2>/dev/null || true
        wait "$sidecar" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cat >"$dir/config.toml" <<TOML
[storage.wal_config]
wal_urls = ["file://$dir/wal"]

[sidecar]
socket = "$dir/wal.sock"
admin_address = "off"
TOML
"$bin/walstorage-sidecar" serve --config "$dir/config.toml" >"$dir/log" 2>&1 &
sidecar=$!

# Every try asks the sidecar itself; what ends the loop is its answer, its death, or a deadline that only a hang meets.
deadline=$((SECONDS + 60))
until "$bin/walstorage-sidecar" check ready --socket "$dir/wal.sock" >/dev/null 2>&1; do
    if ! kill -0 "$sidecar" 2>/dev/null || ((SECONDS > deadline)); then
        echo "with-sidecar: the sidecar is not ready; its log:" >&2
        cat "$dir/log" >&2
        exit 1
    fi
    sleep 0.05
done

status=0
WALSTORAGE_SOCKET=$dir/wal.sock "$@" || status=$?
if ((status)); then
    echo "with-sidecar: the command failed; the sidecar's log:" >&2
    cat "$dir/log" >&2
fi
exit "$status"
