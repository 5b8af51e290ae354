//! What recovery left in the journals of earlier processes, because it is more than memory may hold: for each collection
//! where its entries lie. They go to segments before anything is served.
//!
//! 1. Only recovery fills a shelf, and then leaves the buffer of every collection empty.
//! 2. The log serves when every shelf is empty: who appends, reads, truncates or evacuates never meets one.
//! 3. A shelf lets go of entries when the FLUSHED fact of their segment is durable; until then nothing in the journal's
//!    file is dead, so that it is neither removed nor used again.

use std::collections::VecDeque;
use std::time::Instant;

use super::buffer::is_apart;
use super::collection::{ColIx, Collection, DirIx};
use super::flush_jobs::{FlushWork, Piece, Why};
use super::log::{Log, Stage};
use crate::format::names::SlotName;
use crate::types::{CollectionName, Incarnation, Lsn};

/// Consecutive entries of one collection, side by side in a journal's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) dir: DirIx,
    pub(crate) file: SlotName,
    /// Where they begin; entries below `first` may stand there before them.
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

/// The entries of one collection that are in journals only: rising, disjoint stretches.
#[derive(Debug, Default)]
pub(crate) struct Shelf(VecDeque<Stretch>);

/// Entries to be read from a journal's file.
#[derive(Clone, Debug)]
pub(crate) struct JournalRead {
    pub(crate) name: CollectionName,
    pub(crate) incarnation: Incarnation,
    pub(crate) stretch: Stretch,
    pub(crate) from: Lsn,
    pub(crate) to: Lsn,
}

impl Shelf {
    pub(crate) fn new(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        Self(stretches.into_iter().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn first(&self) -> Option<Lsn> {
        self.0.front().map(|stretch| stretch.first)
    }

    /// Encoded bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|stretch| u64::from(stretch.length)).sum()
    }

    /// The LSNs of the first entries, cut behind the stretch that brings them to `most` bytes, and before a hole that does not
    /// count as `joined`, and their bytes.
    pub(crate) fn extent(&self, most: u64, joined: impl Fn(Lsn, Lsn) -> bool) -> Option<(Lsn, Lsn, u64)> {
        let mut extent: Option<(Lsn, Lsn, u64)> = None;
        for stretch in &self.0 {
            let held = extent.map_or(0, |(_, _, bytes)| bytes);
            if held >= most || extent.is_some_and(|(_, last, _)| is_apart(last, stretch.first, &joined)) {
                break;
            }
            let first = extent.map_or(stretch.first, |(first, ..)| first);
            extent = Some((first, stretch.last, held + u64::from(stretch.length)));
        }
        extent
    }

    /// Where the first entries of `from..=to` are.
    fn at(&self, from: Lsn, to: Lsn) -> Option<(&Stretch, Lsn, Lsn)> {
        let start = self.0.partition_point(|stretch| stretch.last < from);
        let stretch = self.0.get(start)?;
        let (from, to) = (from.max(stretch.first), to.min(stretch.last));
        (from <= to).then_some((stretch, from, to))
    }

    /// Forgets the entries up to `to`.
    fn truncate_to(&mut self, to: Lsn) {
        while self.0.pop_front_if(|stretch| stretch.last <= to).is_some() {}
        if let Some(stretch) = self.0.front_mut() {
            stretch.first = stretch.first.max(to.next());
        }
    }
}

impl Collection {
    /// The next piece of what is on its shelf.
    pub(super) fn shelf_piece(&self, from: Lsn, to: Lsn) -> Option<Piece> {
        let (stretch, from, to) = self.shelf.at(from, to)?;
        let (name, incarnation) = (self.name.clone(), self.incarnation);
        Some(Piece::Journal(Box::new(JournalRead { name, incarnation, stretch: stretch.clone(), from, to })))
    }
}

impl Log {
    /// What the flush worker of `dir` does before the log serves.
    pub(super) fn poll_shelves(&mut self, dir: DirIx, now: Instant) -> FlushWork {
        if !self.has_shelves() || !self.all_opened() || self.journals[dir].flusher.job.is_some() {
            return FlushWork::Wait(None);
        }
        let _ = self.journals[dir].flusher.blocked.take_if(|(until, _)| *until <= now);
        if let Some(work) = self.next_seal(dir) {
            return work;
        }
        if !self.journals[dir].takes_segments() {
            return FlushWork::Wait(None);
        }
        if self.journals[dir].flusher.plan.is_empty() {
            self.plan_shelves(dir, now);
        }
        while let Some((ix, incarnation, why)) = self.journals[dir].flusher.plan.pop_front() {
            if let Some(part) = self.planned_part(dir, ix, incarnation, why, now) {
                return self.flush_planned(dir, part, why, now);
            }
        }
        FlushWork::Wait(self.journals[dir].flusher.blocked.as_ref().map(|(until, _)| *until))
    }

    /// Every collection with a shelf that `dir` takes, largest first.
    fn plan_shelves(&mut self, dir: DirIx, now: Instant) {
        let mut found: Vec<(u64, ColIx, Incarnation)> = Vec::new();
        for (ix, collection) in self.collections.iter().enumerate() {
            let Some(collection) = collection.as_ref() else { continue };
            let waits = !collection.shelf.is_empty() && !collection.flush.busy && !collection.flush.planned;
            if waits && self.flush_dir(collection, now) == Some(dir) {
                found.push((collection.shelf.bytes(), ix, collection.incarnation));
            }
        }
        found.sort_unstable_by_key(|(bytes, _, incarnation)| (std::cmp::Reverse(*bytes), *incarnation));
        for (_, ix, incarnation) in found {
            self.plan(dir, ix, incarnation, Why::Recovery);
        }
    }

    /// What is durable in segments leaves the shelf of a collection.
    pub(super) fn unshelve(&mut self, ix: ColIx, to: Lsn) {
        let collection = self.get_mut(ix);
        if collection.shelf.is_empty() {
            return;
        }
        collection.shelf.truncate_to(to);
        if collection.shelf.is_empty() {
            self.flush.shelved -= 1;
        }
    }

    /// Whether something is still on a shelf.
    pub(crate) const fn has_shelves(&self) -> bool {
        self.flush.shelved > 0
    }

    /// Why the log does not serve though its first frames are durable: a sentence for people.
    pub(crate) fn waits_for_shelves(&self) -> Option<String> {
        if self.stage != Stage::Opening || !self.has_shelves() {
            return None;
        }
        let left: u64 = self.collections.iter().flatten().map(|collection| collection.shelf.bytes()).sum();
        let limit = self.settings.memory_limit;
        let mut sentence = format!(
            "the journals hold more than the {limit} bytes that memory may hold: {left} bytes are still to be written to \
             segments before anything is served"
        );
        let troubled = self.journals.iter().filter_map(|journal| {
            let flush = journal.flusher.blocked.as_ref().map(|(_, why)| format!("{}: {why}", journal.url));
            let unfit = || (!journal.takes_segments()).then(|| format!("{} {}", journal.url, journal.condition()));
            flush.or_else(unfit)
        });
        let troubles: Vec<String> = troubled.collect();
        if !troubles.is_empty() {
            sentence += &format!("; {}; make room or repair it, or raise global_flush_threshold", troubles.join("; "));
        }
        Some(sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::StreamKey;
    use crate::types::Epoch;

    fn stretch(first: u64, last: u64, length: u32) -> Stretch {
        let file = SlotName { key: StreamKey { epoch: Epoch(1), session: 0 }, file: 1 };
        Stretch { first: Lsn(first), last: Lsn(last), dir: 0, file, offset: first * 4096, length }
    }

    #[test]
    fn a_shelf_is_taken_from_its_front_a_stretch_at_a_time() {
        let mut shelf = Shelf::new([stretch(1, 4, 100), stretch(5, 6, 50), stretch(9, 9, 10)]);
        assert_eq!(shelf.extent(1, |_, _| true), Some((Lsn(1), Lsn(4), 100)));
        assert_eq!(shelf.extent(101, |_, _| true), Some((Lsn(1), Lsn(6), 150)));
        assert_eq!(shelf.extent(u64::MAX, |_, _| true), Some((Lsn(1), Lsn(9), 160)));
        let at = |shelf: &Shelf, from, to| shelf.at(Lsn(from), Lsn(to)).map(|(s, from, to)| (s.first.0, from.0, to.0));
        assert_eq!(at(&shelf, 3, 9), Some((1, 3, 4)));
        assert_eq!(at(&shelf, 7, 9), Some((9, 9, 9)));
        assert_eq!(at(&shelf, 7, 8), None);
        shelf.truncate_to(Lsn(5));
        assert_eq!(at(&shelf, 1, 9), Some((6, 6, 6)));
        assert!(!shelf.is_empty());
        shelf.truncate_to(Lsn(9));
        assert!(shelf.is_empty());
    }
}
