//! What happens in a run, line by line on standard error, when somebody replays a seed with WALSTORAGE_TRACE=1.

use std::sync::LazyLock;

static WANTED: LazyLock<bool> = LazyLock::new(|| std::env::var_os("WALSTORAGE_TRACE").is_some());

/// Prints a line where lines are wanted.
pub(super) fn trace(line: impl FnOnce() -> String) {
    if *WANTED {
        eprintln!("{}", line());
    }
}
