#!/usr/bin/env bash
# soak.sh [ARGUMENTS OF soak]: the simulator's schedules by name, its explorer for SIM_SECONDS, the model of buckets, then the kill loop; the last
# line sums what all of them did.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
WALSTORAGE_SIM_SECONDS=${SIM_SECONDS:-300} cargo test --locked --profile ci --workspace --lib -- --nocapture \
    fencing::model sim::schedules sim::explore::no_promise_is_broken_whatever_fails_in_whatever_order 2>&1 | tee "$log"
cargo build --locked --profile ci --workspace
WALSTORAGE_BIN_DIR=$PWD/target/ci target/ci/soak "$@" | tee -a "$log"
awk 'match($0, /[0-9]+ schedules, [0-9]+ kills and cuts, [0-9]+ faults/) {
         split(substr($0, RSTART, RLENGTH), n, /[^0-9]+/)
         schedules += n[1]; ends += n[2]; faults += n[3]
     }
     END { printf "in all: %d schedules, %d kills and cuts, %d faults\n", schedules, ends, faults }' "$log"
