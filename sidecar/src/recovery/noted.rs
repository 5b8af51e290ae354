//! Entries of which only the place in a journal is known: what a journal holds that does not fit into memory. A run is a
//! number of consecutive entries of one collection, side by side in one file.
//!
//! 1. Memory: 48 bytes for each run and 4 for each entry. A run ends where another collection's entry, another frame or
//!    256 KiB come between.
//! 2. Which of several copies of an entry counts is decided by checksum and epoch ([`resolve`]), never by order.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::format::StreamKey;
use crate::format::names::SlotName;
use crate::format::record::RecordRef;
use crate::types::{CollectionName, Epoch, Lsn};

/// Bytes in a run, unless one entry is larger: what is read at once later.
const RUN: u32 = 256 << 10;

/// Where a record's bytes begin in a stream's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) file: u64,
    pub(crate) offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    first: Lsn,
    epoch: Epoch,
    spot: Spot,
    length: u32,
    count: u32,
}

impl Run {
    const fn last(&self) -> Lsn {
        Lsn(self.first.0 + self.count as u64 - 1)
    }
}

/// The entries of one collection in one stream, in the order of the stream.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    runs: VecDeque<Run>,
    /// The checksum of each entry of all runs.
    crcs: VecDeque<u32>,
}

impl Noted {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Notes an entry that stands at `spot`.
    pub(crate) fn push(&mut self, record: &RecordRef<'_>, spot: Spot) {
        // A frame has at most 48 MiB.
        let length = record.raw().len() as u32;
        self.crcs.push_back(record.crc);
        if let Some(run) = self.runs.back_mut()
            && run.last().next() == record.lsn
            && run.epoch == record.epoch
            && run.spot.file == spot.file
            && run.spot.offset + u64::from(run.length) == spot.offset
            && run.length.saturating_add(length) <= RUN
        {
            run.length += length;
            run.count += 1;
            return;
        }
        self.runs.push_back(Run { first: record.lsn, epoch: record.epoch, spot, length, count: 1 });
    }

    /// Lets go of the runs between `first` and `last`, as far as they are the first ones.
    pub(crate) fn release(&mut self, first: Lsn, last: Lsn) {
        while let Some(run) = self.runs.pop_front_if(|run| first <= run.first && run.last() <= last) {
            self.crcs.drain(..run.count as usize);
        }
    }

    /// The lowest and the highest LSN noted.
    pub(crate) fn span(&self) -> Option<(Lsn, Lsn)> {
        let first = self.runs.iter().map(|run| run.first).min()?;
        let last = self.runs.iter().map(Run::last).max()?;
        Some((first, last))
    }
}

/// Where consecutive entries of a collection lie, and which LSNs of what lies there count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whereabouts {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) directory: Uuid,
    pub(crate) file: SlotName,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    /// Entries there, those included that do not count.
    count: u32,
}

impl Whereabouts {
    /// Bytes of the entries that count, as if all had one size.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.length) * (self.last.0 - self.first.0 + 1) / u64::from(self.count)
    }
}

/// A run with what is needed to compare it.
struct Candidate<'a> {
    run: Run,
    directory: Uuid,
    key: StreamKey,
    crcs: &'a [u32],
}

impl Candidate<'_> {
    fn crc(&self, lsn: Lsn) -> u32 {
        self.crcs[(lsn.0 - self.run.first.0) as usize]
    }

    fn to(&self, first: Lsn, last: Lsn) -> Whereabouts {
        let Run { spot, length, count, .. } = self.run;
        let file = SlotName { key: self.key, file: spot.file };
        Whereabouts { first, last, directory: self.directory, file, offset: spot.offset, length, count }
    }
}

/// The whereabouts of the entries above `below`, rising and disjoint: of copies with one checksum any, of two contents the
/// one of the higher epoch, which is reported.
pub(crate) fn resolve(
    name: &CollectionName,
    parts: &mut [(Uuid, StreamKey, Noted)],
    below: Lsn,
    contradictions: &mut Vec<String>,
) -> Vec<Whereabouts> {
    let mut all: Vec<Candidate<'_>> = Vec::new();
    for (directory, key, noted) in parts {
        let mut rest: &[u32] = noted.crcs.make_contiguous();
        for run in &noted.runs {
            let (crcs, others) = rest.split_at(run.count as usize);
            rest = others;
            if run.last() > below {
                all.push(Candidate { run: *run, directory: *directory, key: *key, crcs });
            }
        }
    }
    // The order of directories and streams must not matter.
    all.sort_unstable_by_key(|one| (one.run.first, one.directory, one.key, one.run.spot.file, one.run.spot.offset));
    let mut found: Vec<(usize, Whereabouts)> = Vec::new();
    let mut active: Vec<usize> = Vec::new();
    let (mut next, mut lsn) = (0, below.next());
    loop {
        active.retain(|&index| all[index].run.last() >= lsn);
        if active.is_empty() {
            let Some(one) = all.get(next) else { break };
            lsn = lsn.max(one.run.first);
        }
        while let Some(one) = all.get(next).filter(|one| one.run.first <= lsn) {
            if one.run.last() >= lsn {
                active.push(next);
            }
            next += 1;
        }
        let Some(&first) = active.first() else { continue };
        let (chosen, to) = if active.len() == 1 {
            // Nobody else's until the next run begins.
            let before_next = all.get(next).map_or(Lsn(u64::MAX), |one| Lsn(one.run.first.0 - 1));
            (first, all[first].run.last().min(before_next))
        } else {
            (choose(name, &all, &active, lsn, contradictions), lsn)
        };
        match found.last_mut() {
            Some((index, before)) if *index == chosen && before.last.next() == lsn => before.last = to,
            _ => found.push((chosen, all[chosen].to(lsn, to))),
        }
        lsn = to.next();
    }
    found.into_iter().map(|(_, found)| found).collect()
}

/// Which of several runs counts for an LSN.
fn choose(
    name: &CollectionName,
    all: &[Candidate<'_>],
    active: &[usize],
    lsn: Lsn,
    contradictions: &mut Vec<String>,
) -> usize {
    let mut chosen = active[0];
    for &other in &active[1..] {
        let (known, one) = (&all[chosen], &all[other]);
        if known.crc(lsn) != one.crc(lsn) {
            contradictions.push(contradiction(name, lsn, known.run.epoch, one.run.epoch));
        }
        if one.run.epoch > known.run.epoch {
            chosen = other;
        }
    }
    chosen
}

/// What is said of an LSN that was found with two contents.
pub(super) fn contradiction(name: &CollectionName, lsn: Lsn, one: Epoch, other: Epoch) -> String {
    let name = name.as_str();
    format!("LSN {lsn} of {name:?} was found with two contents, of epochs {} and {}: the higher counts", one.0, other.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::format::fixture::{DIRECTORY, entry};
    use crate::format::record;
    use crate::types::Incarnation;

    fn note(noted: &mut Noted, lsn: u64, epoch: u64, payload: &[u8], spot: Spot) -> u64 {
        let raw = entry("c", Incarnation(1 << 20), lsn, Epoch(epoch), payload);
        noted.push(&record::decode(&raw).unwrap().0, spot);
        raw.len() as u64
    }

    fn key(epoch: u64) -> StreamKey {
        StreamKey { epoch: Epoch(epoch), session: 0 }
    }

    #[test]
    fn neighbours_are_one_run_and_what_is_released_from_the_front_goes() {
        let mut noted = Noted::default();
        let mut offset = 4096;
        for lsn in 1..=3 {
            offset += note(&mut noted, lsn, 1, b"x", Spot { file: 1, offset });
        }
        note(&mut noted, 4, 1, b"x", Spot { file: 1, offset: offset + 1 });
        note(&mut noted, 9, 1, b"x", Spot { file: 2, offset: 4096 });
        assert_eq!((noted.runs.len(), noted.span()), (3, Some((Lsn(1), Lsn(9)))));
        noted.release(Lsn(0), Lsn(2));
        assert_eq!(noted.runs.len(), 3, "a run goes as a whole");
        noted.release(Lsn(0), Lsn(4));
        assert_eq!((noted.runs.len(), noted.crcs.len(), noted.span()), (1, 1, Some((Lsn(9), Lsn(9)))));
    }

    proptest! {
        /// Each copy: first LSN, entries, epoch, content (1 is the true one), directory.
        #[test]
        fn every_entry_is_found_once_where_the_right_copy_of_it_lies(
            copies in proptest::collection::vec((1_u64..30, 1_u64..12, 1_u64..4, 0_u8..6, 0_u128..3), 1..12),
            below in 0_u64..10,
        ) {
            let name = CollectionName::new("c").unwrap();
            let mut model: BTreeMap<u64, Vec<(u64, u8, SlotName, Uuid)>> = BTreeMap::new();
            let mut parts = Vec::new();
            for (file, (first, count, epoch, content, directory)) in (1_u64..).zip(&copies) {
                // Contents differ only between epochs.
                let content = if *content == 0 { *epoch as u8 } else { 9 };
                let directory = Uuid::from_u128(DIRECTORY.as_u128() + directory);
                let (mut noted, mut offset) = (Noted::default(), 4096);
                for lsn in *first..first + count {
                    offset += note(&mut noted, lsn, *epoch, &[content], Spot { file, offset });
                    let at = (*epoch, content, SlotName { key: key(*epoch), file }, directory);
                    model.entry(lsn).or_default().push(at);
                }
                parts.push((directory, key(*epoch), noted));
            }
            let mut contradictions = Vec::new();
            let found = resolve(&name, &mut parts, Lsn(below), &mut contradictions);
            let mut seen = below;
            for part in &found {
                prop_assert!(part.first.0 > seen && part.last >= part.first);
                seen = part.last.0;
                for lsn in part.first.0..=part.last.0 {
                    let copies = &model[&lsn];
                    let here = copies.iter().find(|(_, _, file, dir)| (*file, *dir) == (part.file, part.directory));
                    let here = here.expect("an entry lies where it was said to lie");
                    prop_assert_eq!(Some(here.0), copies.iter().map(|(epoch, ..)| *epoch).max());
                }
            }
            let covered: Vec<u64> = found.iter().flat_map(|part| part.first.0..=part.last.0).collect();
            let want: Vec<u64> = model.keys().copied().filter(|lsn| *lsn > below).collect();
            prop_assert_eq!(covered, want);
            let doubtful = |lsn: &u64| model[lsn].iter().any(|copy| copy.1 != model[lsn][0].1);
            let doubtful = model.keys().filter(|lsn| **lsn > below && doubtful(lsn)).count();
            prop_assert_eq!(doubtful > 0, !contradictions.is_empty());
            parts.reverse();
            let turned = resolve(&name, &mut parts, Lsn(below), &mut Vec::new());
            prop_assert_eq!(found, turned);
        }
    }
}
