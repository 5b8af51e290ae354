#!/usr/bin/env bash
# Makes the committed Python and Go code of sidecar/proto/wal.proto with pinned generators: grpcio-tools (which carries
# protoc) and Go's two protoc plugins. `--check` writes nothing and fails when the committed code differs.
set -euo pipefail
cd "$(dirname "$0")/.."

go_plugin=v1.36.12
go_grpc_plugin=v1.6.2
go_package=github.com/walstorage/walstorage/examples/clients/go/walpb

python=$(scripts/setup-python.sh)

plugins=$PWD/.tools/go/$go_plugin-$go_grpc_plugin
if [[ ! -x $plugins/protoc-gen-go || ! -x $plugins/protoc-gen-go-grpc ]]; then
    echo "generate-clients: building protoc-gen-go $go_plugin and protoc-gen-go-grpc $go_grpc_plugin into .tools" >&2
    GOBIN=$plugins go install "google.golang.org/protobuf/cmd/protoc-gen-go@$go_plugin"
    GOBIN=$plugins go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$go_grpc_plugin"
fi

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
mkdir -p "$out/python" "$out/go/walpb"
"$python" -m grpc_tools.protoc -I sidecar/proto \
    --python_out="$out/python" --grpc_python_out="$out/python" \
    --plugin="$plugins/protoc-gen-go" --go_out="$out/go/walpb" \
    --go_opt=paths=source_relative --go_opt="Mwal.proto=$go_package" \
    --plugin="$plugins/protoc-gen-go-grpc" --go-grpc_out="$out/go/walpb" \
    --go-grpc_opt=paths=source_relative --go-grpc_opt="Mwal.proto=$go_package" \
    wal.proto

different=0
for file in python/wal_pb2.py python/wal_pb2_grpc.py go/walpb/wal.pb.go go/walpb/wal_grpc.pb.go; do
    committed=examples/clients/$file
    if [[ ${1:-} != --check ]]; then
        install -D -m 644 "$out/$file" "$committed"
    elif ! diff -u "$committed" "$out/$file"; then
        different=1
    fi
done
if ((different)); then
    echo "The committed client code is not what sidecar/proto/wal.proto gives: run 'make generate' and commit." >&2
    exit 1
fi
