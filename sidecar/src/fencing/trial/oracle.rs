//! What was promised to clients, and every promise that was broken.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::StreamKey;

/// What an entry is here.
pub type Entry = u64;

/// Knows what was acknowledged and who serves what.
#[derive(Debug, Default)]
pub struct Oracle {
    last: Entry,
    acknowledged: BTreeMap<Entry, StreamKey>,
    /// What each start had found when it began to serve.
    found: BTreeMap<StreamKey, BTreeSet<Entry>>,
    /// Acknowledged entries that a later start did not find.
    pub lost: Vec<String>,
    /// Acknowledgements of a writer from whom another had taken over.
    pub zombies: Vec<String>,
}

impl Oracle {
    pub(super) fn next_entry(&mut self) -> Entry {
        self.last += 1;
        self.last
    }

    /// How many starts came to serve.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.found.len()
    }

    /// How many entries were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    /// The promises that were broken.
    pub fn broken(&self) -> impl Iterator<Item = &String> {
        self.lost.iter().chain(&self.zombies)
    }

    /// A start begins to serve what it has found.
    pub(super) fn serves(&mut self, stream: StreamKey, found: &BTreeSet<Entry>) {
        for (entry, by) in &self.acknowledged {
            if *by <= stream && !found.contains(entry) {
                self.lost.push(format!("{stream} serves without entry {entry}, which {by} had acknowledged"));
            }
        }
        self.found.insert(stream, found.clone());
    }

    /// A client is told that an entry is durable.
    pub(super) fn acknowledges(&mut self, stream: StreamKey, entry: Entry) {
        for (later, found) in self.found.range(stream..).filter(|(later, _)| **later != stream) {
            if !found.contains(&entry) {
                self.zombies.push(format!("{stream} acknowledges entry {entry} while {later} serves without it"));
            }
        }
        self.acknowledged.insert(entry, stream);
    }
}
