#!/usr/bin/env bash
# Fetches the servers that `make bench` compares with, and prints the folder of those it built: etcd and NATS by the Go
# module proxy, as bench/peers/go.mod and go.sum pin them; Redis as the distribution's package. What cannot be had is left
# out with a word on standard error, and the report names it as absent.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

folder=$PWD/.tools/peers-$(cat bench/peers/go.mod bench/peers/go.sum | sha256sum | cut -c1-12)
mkdir -p "$folder"
exec 9>.tools/peers.lock
flock 9

build() {
    [[ -x $folder/$1 ]] || go -C bench/peers build -mod=readonly -o "$folder/$1" "$2" >&2 ||
        echo "setup-peers: $1 cannot be built here" >&2
}
build etcd go.etcd.io/etcd/server/v3
build nats-server github.com/nats-io/nats-server/v2

if ! command -v redis-server >/dev/null || ! command -v redis-benchmark >/dev/null; then
    # Installed for its programs: no Redis is to run by itself.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends redis-server redis-tools >&2 ||
        echo "setup-peers: Redis cannot be installed here" >&2
fi
echo "$folder"
