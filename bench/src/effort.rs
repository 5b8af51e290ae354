//! How much is measured.

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of everything.
    pub(crate) rounds: usize,
    /// How long one load runs in one round.
    pub(crate) load: Duration,
    /// How long each log is warmed up before the first round: files are prepared, caches filled.
    pub(crate) warm_up: Duration,
    /// Sizes of journals to recover, MiB.
    pub(crate) journals: &'static [u64],
    /// Entries in segments when a start is measured.
    pub(crate) histories: &'static [u64],
}

impl Effort {
    /// For a report.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        load: Duration::from_millis(1500),
        warm_up: Duration::from_millis(1500),
        journals: &[64, 512],
        histories: &[1_000, 10_000, 100_000, 1_000_000],
    };
    /// To see where things are.
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        load: Duration::from_millis(600),
        warm_up: Duration::from_millis(1000),
        journals: &[64],
        histories: &[1_000, 100_000],
    };
}
