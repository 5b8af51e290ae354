//! What was promised to clients, and whether it holds.

use std::collections::{BTreeMap, BTreeSet};

use super::writer::Entry;
use crate::format::StreamKey;

/// Knows what was acknowledged and who serves what.
#[derive(Default)]
pub(super) struct Oracle {
    last: Entry,
    pub(super) acknowledged: BTreeMap<Entry, StreamKey>,
    /// What each start has found when it began to serve.
    found: BTreeMap<StreamKey, BTreeSet<Entry>>,
}

impl Oracle {
    pub(super) fn next_entry(&mut self) -> Entry {
        self.last += 1;
        self.last
    }

    /// How many starts came to serve.
    pub(super) fn starts(&self) -> usize {
        self.found.len()
    }

    /// A start begins to serve what it has found.
    pub(super) fn serves(&mut self, stream: StreamKey, found: &BTreeSet<Entry>) {
        for (entry, by) in &self.acknowledged {
            assert!(
                *by > stream || found.contains(entry),
                "{stream} serves without entry {entry}, which {by} had acknowledged"
            );
        }
        self.found.insert(stream, found.clone());
    }

    /// A client is told that an entry is durable.
    pub(super) fn acknowledged(&mut self, stream: StreamKey, entry: Entry) {
        for (later, found) in self.found.range(stream..).filter(|(later, _)| **later != stream) {
            assert!(found.contains(&entry), "{stream} acknowledges entry {entry} while {later} serves without it");
        }
        assert!(self.acknowledged.insert(entry, stream).is_none(), "entry {entry} is acknowledged once");
    }
}
