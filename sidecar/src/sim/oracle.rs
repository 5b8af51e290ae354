//! What was promised, and whether it is kept.
//!
//! 1. A DURABLE acknowledgement and everything that was ever read stays: readable, or in a reported gap. A gap stays one.
//! 2. One payload per (collection, incarnation, LSN); every payload is there once; batches are whole.
//! 3. LSNs are dense from the first readable one to the head. Truncations and deletions are never taken back, and nothing
//!    goes that nobody asked to go.
//! 4. Gaps come only where something was lost to what a log cannot survive.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::api::{Ack, Appended, Item, NewEntry};
use crate::types::{CollectionName, Incarnation, Lsn};

/// One request as a client remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) token: u64,
    pub(super) entries: usize,
    pub(super) size: usize,
}

impl Sent {
    /// A payload that no other entry has.
    fn payload(&self, index: usize) -> Vec<u8> {
        let mut payload = format!("{}.{index}.{}:", self.token, self.entries).into_bytes();
        payload.resize(payload.len().max(self.size), b'.');
        payload
    }

    pub(super) fn to_entries(&self) -> Vec<NewEntry> {
        let entry = |index| NewEntry { payload: Bytes::from(self.payload(index)), ..NewEntry::default() };
        (0..self.entries).map(entry).collect()
    }
}

/// A payload of [`Sent`], read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stored {
    token: u64,
    index: u64,
    of: u64,
}

fn parse(payload: &[u8]) -> Option<Stored> {
    let end = payload.iter().position(|byte| *byte == b':')?;
    let text = std::str::from_utf8(&payload[..end]).ok()?;
    let mut numbers = text.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let stored = Stored { token: next()?, index: next()?, of: next()? };
    payload[end + 1..].iter().all(|byte| *byte == b'.').then_some(stored)
}

/// What was promised about one life of a name.
#[derive(Clone, Debug, Default)]
struct Promise {
    /// What must stay.
    known: BTreeMap<u64, Stored>,
    /// First and last LSN of what was reported lost.
    gaps: Vec<(u64, u64)>,
    truncated: u64,
    truncate_asked: u64,
    deleted: bool,
    delete_asked: bool,
    /// A start did not find it.
    gone: bool,
}

impl Promise {
    fn all_in_gaps(&self, mut first: u64, last: u64) -> bool {
        while first <= last {
            match self.gaps.iter().find(|gap| (gap.0..=gap.1).contains(&first)) {
                Some(gap) => first = gap.1 + 1,
                None => return false,
            }
        }
        true
    }

    fn in_gap(&self, lsn: u64) -> bool {
        self.gaps.iter().any(|(first, last)| (*first..=*last).contains(&lsn))
    }
}

/// A collection as a client finds it.
pub(super) struct Found {
    pub(super) name: CollectionName,
    pub(super) incarnation: Incarnation,
    pub(super) truncated_to: Lsn,
    pub(super) durable_head: Lsn,
    pub(super) items: Vec<Item>,
    /// Whether all of it could be read: segments may be on a disk that fails.
    pub(super) whole: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    names: BTreeMap<CollectionName, BTreeMap<Incarnation, Promise>>,
    /// Something happened that may cost entries, if the next start reports it; and facts, which then have to be said
    /// again.
    pub(super) may_lose: bool,
    /// The last frame was damaged before anything proved it: what it held may be gone without a word.
    pub(super) may_vanish: bool,
    /// Segments may be damaged: that is found by whoever reads them, now or later.
    pub(super) may_be_unreadable: bool,
    pub(super) acked: u64,
}

impl Oracle {
    fn of(&mut self, name: &CollectionName, incarnation: Incarnation) -> &mut Promise {
        self.names.entry(name.clone()).or_default().entry(incarnation).or_default()
    }

    pub(super) fn truncate_asked(&mut self, name: &CollectionName, incarnation: Incarnation, to: Lsn) {
        let promise = self.of(name, incarnation);
        promise.truncate_asked = promise.truncate_asked.max(to.0);
    }

    pub(super) fn truncated(&mut self, name: &CollectionName, incarnation: Incarnation, to: Lsn) {
        let promise = self.of(name, incarnation);
        promise.truncated = promise.truncated.max(to.0);
    }

    pub(super) fn delete_asked(&mut self, name: &CollectionName, incarnation: Incarnation) {
        self.of(name, incarnation).delete_asked = true;
    }

    pub(super) fn deleted(&mut self, name: &CollectionName, incarnation: Incarnation) {
        self.of(name, incarnation).deleted = true;
    }

    /// An acknowledgement.
    pub(super) fn acked(&mut self, name: &CollectionName, incarnation: Incarnation, sent: &Sent, answer: &Appended) {
        if answer.duplicate && answer.first_lsn == Lsn::ZERO {
            return;
        }
        let count = answer.last_lsn.0 - answer.first_lsn.0 + 1;
        assert_eq!(count, sent.entries as u64, "{name}: {sent:?} was answered with {answer:?}");
        if answer.ack != Ack::Durable {
            return;
        }
        self.acked += 1;
        let promise = self.of(name, incarnation);
        for (lsn, index) in (answer.first_lsn.0..).zip(0..count) {
            let stored = Stored { token: sent.token, index, of: count };
            if lsn <= promise.truncated || promise.in_gap(lsn) {
                continue;
            }
            let before = promise.known.insert(lsn, stored);
            let same = before.is_none() || before == Some(stored);
            assert!(same, "{name}: LSN {lsn} was given to {before:?} and to {stored:?}");
        }
    }

    /// Holds what is found to what was promised. What is found has been read: it must stay from now on. What a start does
    /// not find must not come back.
    pub(super) fn check(&mut self, found: &[Found], at_start: bool) {
        let by_name: HashMap<&CollectionName, &Found> = found.iter().map(|found| (&found.name, found)).collect();
        for (name, lives) in &mut self.names {
            let found = by_name.get(name).map(|found| found.incarnation);
            for (incarnation, promise) in lives {
                if found == Some(*incarnation) {
                    let back = !self.may_lose && (promise.deleted || promise.gone);
                    assert!(!back, "{name}: {incarnation:?} was deleted or lost, and is back");
                } else if found.is_none_or(|found| found < *incarnation) {
                    let empty = promise.known.is_empty() && promise.truncated == 0;
                    let kept = empty || promise.delete_asked || self.may_lose;
                    assert!(kept, "{name}: {incarnation:?} is gone, {found:?} is there");
                    let back = found.is_some() && !promise.known.is_empty() && !self.may_lose;
                    assert!(!back, "{name}: {found:?} is back, which came before {incarnation:?}");
                }
                promise.gone |= at_start && found != Some(*incarnation);
            }
        }
        for found in found {
            self.check_one(found);
        }
        if at_start && found.iter().all(|found| found.whole) {
            // It has reported all that it ever will.
            (self.may_lose, self.may_vanish) = (false, false);
        }
    }

    fn check_one(&mut self, found: &Found) {
        let (may_lose, may_vanish) = (self.may_lose, self.may_vanish);
        let Found { name, incarnation, truncated_to, durable_head, items, whole } = found;
        let promise = self.of(name, *incarnation);
        let truncated = truncated_to.0;
        let kept = truncated >= promise.truncated || may_lose;
        assert!(kept, "{name}: truncated to {truncated}, {} was promised", promise.truncated);
        let asked = promise.truncate_asked;
        assert!(truncated <= asked, "{name}: truncated to {truncated}, at most {asked} was asked for");
        promise.truncated = truncated;
        promise.known = promise.known.split_off(&(truncated + 1));
        promise.gaps.retain(|(_, last)| *last > truncated);
        let mut there = BTreeMap::new();
        let mut next = truncated + 1;
        for item in items {
            match item {
                Item::Entry(entry) => {
                    let lsn = entry.lsn.0;
                    assert_eq!(lsn, next, "{name}: {lsn} was read where {next} was expected");
                    let stored = parse(&entry.payload)
                        .unwrap_or_else(|| panic!("{name}: LSN {lsn} holds what nobody sent: {:?}", entry.payload));
                    assert!(!promise.in_gap(lsn), "{name}: LSN {lsn} was reported lost and is served");
                    if let Some(known) = promise.known.get(&lsn) {
                        assert_eq!(stored, *known, "{name}: LSN {lsn} has changed");
                    }
                    there.insert(lsn, stored);
                    next = lsn + 1;
                }
                Item::Gap { first, last, .. } => {
                    let known = promise.all_in_gaps(first.0, last.0);
                    assert!(known || may_lose, "{name}: LSNs {first} to {last} are reported lost for no reason");
                    assert_eq!(first.0, next, "{name}: a gap begins at {first} where {next} was expected");
                    if !known {
                        promise.gaps.push((first.0, last.0));
                    }
                    next = last.0 + 1;
                }
            }
        }
        if may_vanish {
            promise.known.retain(|lsn, _| *lsn <= durable_head.0);
        }
        if !whole {
            return;
        }
        assert_eq!(next, durable_head.0 + 1, "{name}: the read ends before {next}, the head is {durable_head}");
        let gaps = std::mem::take(&mut promise.gaps);
        let lost = |lsn: &u64| gaps.iter().any(|(first, last)| (*first..=*last).contains(lsn));
        promise.known.retain(|lsn, _| !lost(lsn));
        for (lsn, stored) in &promise.known {
            assert_eq!(there.get(lsn), Some(stored), "{name}: LSN {lsn} is lost, the head is {durable_head}");
        }
        let mut tokens: HashMap<u64, Vec<(u64, Stored)>> = HashMap::new();
        for (lsn, stored) in &there {
            tokens.entry(stored.token).or_default().push((*lsn, *stored));
        }
        for (token, found) in tokens {
            let (first, start) = found[0];
            for (n, (lsn, stored)) in found.iter().enumerate() {
                let right = *lsn == first + n as u64 && stored.index == start.index + n as u64;
                assert!(right, "{name}: the batch of token {token} is doubled, torn or out of order: {found:?}");
            }
            let cut = first == truncated + 1 || lost(&(first - 1));
            assert!(start.index == 0 || cut, "{name}: the start of a batch is missing: {found:?}");
            let last = first + found.len() as u64;
            let whole = start.index + found.len() as u64 == start.of;
            assert!(whole || lost(&last), "{name}: the end of a batch is missing: {found:?}");
        }
        promise.gaps = gaps;
        // What is there now must stay.
        promise.known = there;
    }
}
