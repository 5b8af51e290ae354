//! What a journal still holds and nobody needs: entries that are truncated, or in segments of directories that are here.
//! They are left out while the journal is read, so that recovery needs no more memory than the process before it did,
//! however much went through its journal.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::content::StreamContent;
use crate::format::facts::FlushedFact;
use crate::types::{Incarnation, Lsn};

/// The LSNs of one incarnation that need not be kept in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Released {
    truncated_to: Lsn,
    /// What segments hold; sorted by the order in which it was heard of.
    flushed: Vec<(Lsn, Lsn)>,
    /// The highest of all.
    to: Lsn,
}

impl Released {
    pub(crate) fn has(&self, lsn: Lsn) -> bool {
        let inside = |(first, last): &(Lsn, Lsn)| *first <= lsn && lsn <= *last;
        lsn <= self.to && (lsn <= self.truncated_to || self.flushed.iter().any(inside))
    }

    pub(crate) fn truncate(&mut self, to: Lsn) {
        self.truncated_to = self.truncated_to.max(to);
        self.to = self.to.max(to);
    }

    pub(crate) fn flush(&mut self, first: Lsn, last: Lsn) {
        match self.flushed.last_mut() {
            Some((before, end)) if *before <= first && first <= end.next() => *end = last.max(*end),
            _ => self.flushed.push((first, last)),
        }
        self.to = self.to.max(last);
    }
}

/// What is known before a stream is read: which directories are here, and what newer streams released.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    here: Arc<HashSet<Uuid>>,
    newer: Arc<HashMap<Incarnation, Released>>,
}

impl Known {
    pub(crate) fn new(here: &Arc<HashSet<Uuid>>) -> Self {
        Self { here: Arc::clone(here), newer: Arc::default() }
    }

    /// Whether the segment that a fact speaks of can be read.
    pub(crate) fn is_here(&self, fact: &FlushedFact) -> bool {
        self.here.contains(&fact.directory)
    }

    /// What newer streams say of an incarnation.
    pub(crate) fn of(&self, incarnation: Incarnation) -> Released {
        self.newer.get(&incarnation).cloned().unwrap_or_default()
    }

    /// Adds what a stream said, for those that are older.
    pub(crate) fn add(&mut self, content: &StreamContent) {
        let newer = Arc::make_mut(&mut self.newer);
        for (incarnation, found) in &content.found {
            let known = newer.entry(*incarnation).or_default();
            let truncated_to = if found.deleted { Lsn(u64::MAX) } else { found.truncated_to };
            known.truncate(truncated_to);
            for (fact, last) in found.segments.0.values().filter(|(fact, _)| self.here.contains(&fact.directory)) {
                known.flush(fact.first_lsn, *last);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_truncated_or_flushed_is_released_and_nothing_between() {
        let mut released = Released::default();
        assert!(!released.has(Lsn(1)));
        released.truncate(Lsn(5));
        released.flush(Lsn(8), Lsn(10));
        released.flush(Lsn(8), Lsn(14));
        released.flush(Lsn(20), Lsn(20));
        let has: Vec<u64> = (1..=22).filter(|lsn| released.has(Lsn(*lsn))).collect();
        assert_eq!(has, [1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 20]);
    }
}
