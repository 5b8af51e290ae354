#!/usr/bin/env bash
# Every check that runs no test: formats, linters, generated files, dependencies. Runs all of them, prints the time of
# each, names at the end those that failed.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

failed=()
step() {
    local name=$1 started=$SECONDS
    shift
    echo "--- $name"
    "$@" || failed+=("$name")
    echo "--- $name: $((SECONDS - started)) s"
}

# The profile and folder of the tests, so that nothing compiles twice.
profile=(--locked --profile ci --workspace)

no_paths_of_one_machine() {
    ! git grep -nIE '(^|[^[:alnum:]_.$}-])/(work|root)/' -- . ':!scripts/lint.sh'
}

go_format() {
    local unformatted
    unformatted=$(gofmt -l examples) || return
    [[ -z $unformatted ]] || { echo "gofmt would change: $unformatted" && return 1; }
}

dependencies() {
    local deny
    deny=$(scripts/setup-cargo-deny.sh) || return
    "$deny" --locked check --hide-inclusion-graph bans licenses sources
}

rustdoc() {
    RUSTDOCFLAGS="-D warnings --allow rustdoc::private_intra_doc_links" cargo doc "${profile[@]}" --no-deps --document-private-items
}

step "setup: python packages" scripts/setup-python.sh
tools=.tools/venv/bin
step "rust format" cargo fmt --all --check
step "rust format: bench" cargo fmt --manifest-path bench/Cargo.toml --check
step "python format" "$tools/ruff" format --check --quiet .
step "python lint" "$tools/ruff" check --quiet .
step "shell lint" "$tools/shellcheck" .ci/run scripts/*.sh
step "go format" go_format
step "go vet" go -C examples/clients/go vet ./...
step "generated clients" scripts/generate-clients.sh --check
step "generated charts" scripts/charts.py --check
step "no paths of one machine" no_paths_of_one_machine
step "setup: cargo-deny" scripts/setup-cargo-deny.sh
step "dependencies" dependencies
step "clippy" cargo clippy "${profile[@]}" --keep-going --all-targets --all-features -- -D warnings
step "rustdoc" rustdoc

if ((${#failed[@]})); then
    printf 'lint failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "lint passed"
