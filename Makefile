# Every target that a person types; `make` alone prints them. What they do is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help quickstart test image lint fmt generate bench bucket-bench scale soak advisories cluster demo

BENCH_ARGS = --report docs/benchmarks.md
SCALE_ARGS = --report docs/benchmarks-operator.md
BUCKET_ARGS = --report docs/benchmarks-buckets.md
# So long the simulator runs in a soak.
SIM_SECONDS = 300

# One profile for quickstart, tests and lints: nothing compiles twice.
CI_BUILD = cargo build --locked --profile ci --workspace

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: ## the main job on local folders: build, append real lines, kill, recover, compare (about 5 minutes, then seconds)
	@$(CI_BUILD) --bins
	@WALSTORAGE_BIN_DIR=$(CURDIR)/target/ci target/ci/quickstart

cluster: ## Kubernetes on this machine with WalStorage in it, until Ctrl-C (needs root; the first time about 15 minutes, then one)
	@scripts/cluster.sh cluster up

demo: ## the main job on such a cluster: install, append, kill, grow, scale, read back, count (needs root)
	@scripts/cluster.sh demo demo

test: ## build and run every suite; the last line counts
	@scripts/run_tests.py

image: ## write the container image as an OCI archive to target/image
	@scripts/image.py --profile release

lint: ## formats, linters, generated files, dependencies
	@scripts/lint.sh

fmt: ## format everything
	cargo fmt --all
	@python=$$(scripts/setup-python.sh) && $$python -m ruff format --quiet . && $$python -m ruff check --quiet --fix .
	gofmt -w examples/clients/go

generate: ## write the committed generated files anew
	scripts/generate-clients.sh
	$(CI_BUILD) --bins
	target/ci/walstorage-operator crds --dir crds
	scripts/charts.py

bench: ## measure beside peers and write docs/benchmarks.md (12 minutes; BENCH_ARGS=--quick: 3, and print), then buckets and scale
	cargo build --locked --release -p walstorage-sidecar
	cargo build --release --manifest-path bench/Cargo.toml --target-dir target
	peers=$$(scripts/setup-peers.sh) && WALSTORAGE_BIN_DIR=$(CURDIR)/target/release \
	    target/release/walstorage-bench --peers "$$peers" $(BENCH_ARGS)
	$(MAKE) bucket-bench
	$(MAKE) scale

bucket-bench: ## measure a bucket that is some way off and write docs/benchmarks-buckets.md (3 minutes; BUCKET_ARGS=--quick)
	$(CI_BUILD) --bins
	@WALSTORAGE_BIN_DIR=$(CURDIR)/target/ci target/ci/bucket_bench $(BUCKET_ARGS)

# A dozen programs share the processors. As batch work none takes one from another just because something came in for it,
# which is a good part of what they cost; and those in Go collect garbage less often.
scale: ## measure the operator with 2,000 pods and write docs/benchmarks-operator.md (SCALE_ARGS=...)
	@scripts/setup-cluster-tools.sh >/dev/null
	cargo build --locked --release -p walstorage-operator -p walstorage-cluster-tests --bins
	@GOGC=1000 WALSTORAGE_BIN_DIR=$(CURDIR)/target/release chrt --batch 0 target/release/walstorage-scale $(SCALE_ARGS)

soak: ## simulate (SIM_SECONDS=...), then kill, cut, fill, fail and stall over and over (SOAK_ARGS=...); sum what ran
	@SIM_SECONDS=$(SIM_SECONDS) scripts/soak.sh $(SOAK_ARGS)

advisories: ## check dependencies against the advisory database, which is fetched from the internet
	"$$(scripts/setup-cargo-deny.sh)" check advisories
