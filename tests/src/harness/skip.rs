//! Loud skipping: what a machine cannot run is named on standard error and in a file that the runner counts.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Whether loads have the size, and waits the length, that the design names: `WALSTORAGE_FULL_SIZE`.
#[must_use]
pub fn full_size() -> bool {
    std::env::var_os("WALSTORAGE_FULL_SIZE").is_some()
}

/// Records that `test` did not run. `make test` names the file in `WALSTORAGE_SKIPPED_FILE`, counts its lines as
/// skipped, and fails on any with `CI=true`.
pub fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("WALSTORAGE_SKIPPED_FILE") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of skipped tests");
        file.write_all(line.as_bytes()).expect("one line");
    }
}
