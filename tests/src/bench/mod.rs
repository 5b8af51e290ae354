//! Measurements of speed, with their spread, against what the same disk does in the same run.
//!
//! 1. Every figure is measured in rounds; a report gives the median and the lowest and highest round.
//! 2. Scenarios take turns within a round, and the raw floor is measured in every round, so that a slow minute of the
//!    machine touches all alike.
//! 3. Nothing is typed by hand: the report says what ran, on what, and all its numbers.

pub mod floor;
pub mod load;
pub mod machine;
pub mod memory;
pub mod recovery;
pub mod report;
pub mod spread;

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of everything, at least 5 for a report.
    pub rounds: usize,
    /// How long one load runs in one round.
    pub load: Duration,
    /// Synced appends for the floor in one round.
    pub floor: usize,
    /// Sizes of journals to recover, in MiB.
    pub journals: &'static [u64],
}

impl Effort {
    /// For a report.
    pub const FULL: Self = Self { rounds: 5, load: Duration::from_secs(2), floor: 1000, journals: &[64, 512] };
    /// To see that everything works.
    pub const QUICK: Self = Self { rounds: 1, load: Duration::from_millis(200), floor: 100, journals: &[8] };
}
