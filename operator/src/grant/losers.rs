//! How long a pod that lost a race is left alone, so that a workload does not make pods as fast as they are deleted.

use std::collections::HashMap;

/// The first delay.
const FIRST_MS: i64 = 2_000;
/// The longest.
const LONGEST_MS: i64 = 30_000;

/// The delays of the workloads, in memory: after a restart they begin anew.
#[derive(Clone, Debug, Default)]
pub struct LoserDelays {
    of: HashMap<String, i64>,
}

impl LoserDelays {
    /// So old a loser must be, in milliseconds.
    #[must_use]
    pub fn delay(&self, workload: &str) -> i64 {
        self.of.get(workload).copied().unwrap_or(FIRST_MS)
    }

    /// One was deleted: the next waits longer.
    pub fn lost(&mut self, workload: &str) {
        let delay = self.delay(workload);
        self.of.insert(workload.to_owned(), (delay * 2).min(LONGEST_MS));
    }

    /// One was granted: the storm is over.
    pub fn granted(&mut self, workload: &str) {
        self.of.remove(workload);
    }
}
