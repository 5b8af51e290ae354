//! What was promised, and whether it is kept.
//!
//! 1. A DURABLE acknowledgement and everything that was ever read stays: readable, or in a reported gap. A gap stays one.
//! 2. One payload per (collection, incarnation, LSN); every payload is there once; batches are whole.
//! 3. LSNs are dense from the first readable one to the head. Truncations and deletions are never taken back, and nothing
//!    goes that nobody asked to go.
//! 4. Gaps come only where something was lost to what a log cannot survive: of a directory that is given up, only in
//!    collections that lived there.
//! 5. What a damaged segment holds is reported by whoever reads it, and stays promised.
//! 6. Where the fact is lost that something was deleted or truncated, that may come back, in pieces: its files may be gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use walstorage_crds::url::WalUrl;

use super::trace::trace;
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
    /// Up to here it may be in pieces: it was to go, and what said so is lost.
    owed_above: u64,
}

impl Promise {
    /// The last LSN that clients asked to go.
    fn to_go(&self) -> u64 {
        if self.delete_asked { u64::MAX } else { self.truncate_asked }
    }

    /// A start that may miss facts found it.
    fn found_without_facts(&mut self) {
        self.owed_above = self.owed_above.max(self.to_go());
        if self.delete_asked || self.gone {
            // Whatever there is of it begins anew.
            (self.deleted, self.gone, self.truncated) = (false, false, 0);
            self.known.clear();
            self.gaps.clear();
        }
    }

    /// A start that may miss facts did not find it.
    fn lost_with_its_facts(&mut self) {
        self.known.clear();
        self.truncated = 0;
    }

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
    /// First and last LSN of what readers were told cannot be read: segments may be on a disk that fails, or damaged.
    pub(super) unreadable: Vec<(u64, u64)>,
}

impl Found {
    fn is_unreadable(&self, lsn: u64) -> bool {
        self.unreadable.iter().any(|(first, last)| (*first..=*last).contains(&lsn))
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    names: BTreeMap<CollectionName, BTreeMap<Incarnation, Promise>>,
    /// Something happened that may cost entries, if the next start reports it; and facts, which then have to be said
    /// again.
    may_lose: bool,
    /// Of these it costs no entries.
    spared: BTreeSet<Incarnation>,
    /// First and last LSN of what lies in segments elsewhere than in what was given up, and was said there.
    flushed: Vec<(Incarnation, WalUrl, u64, u64)>,
    /// The last entries of these may be gone without a word.
    unheard: BTreeSet<Incarnation>,
    /// The last frame was damaged before anything proved it: what it held may be gone without a word.
    pub(super) may_vanish: bool,
    pub(super) acked: u64,
}

impl Oracle {
    fn of(&mut self, name: &CollectionName, incarnation: Incarnation) -> &mut Promise {
        self.names.entry(name.clone()).or_default().entry(incarnation).or_default()
    }

    /// A journal was damaged: any entry may be lost.
    pub(super) fn damaged(&mut self) {
        self.may_lose = true;
        self.spared.clear();
        self.flushed.clear();
    }

    /// A directory is given up in which none of the collections `spared` ever lived. Of those `unheard` no other directory
    /// had been told that they live there: what it held of them goes without a word.
    /// What lies in segments of other directories, as `flushed` says, is there all the same.
    pub(super) fn gave_up(
        &mut self,
        spared: &BTreeSet<Incarnation>,
        unheard: BTreeSet<Incarnation>,
        flushed: Vec<(Incarnation, WalUrl, u64, u64)>,
    ) {
        if std::mem::replace(&mut self.may_lose, true) {
            self.spared.retain(|incarnation| spared.contains(incarnation));
            self.flushed.retain(|kept| flushed.contains(kept));
        } else {
            self.spared.clone_from(spared);
            self.flushed = flushed;
        }
        self.unheard.extend(unheard);
    }

    fn flushed_of(&self, incarnation: Incarnation) -> impl Iterator<Item = (u64, u64)> {
        let its = self.flushed.iter().filter(move |(of, ..)| *of == incarnation);
        its.map(|(_, _, first, last)| (*first, *last))
    }

    /// Whether entries may be lost, and the next start has not said yet which.
    pub(super) fn may_lose(&self) -> bool {
        self.may_lose
    }

    /// Up to which LSN a collection may be in pieces.
    pub(super) fn owed_above(&self, name: &CollectionName, incarnation: Incarnation) -> u64 {
        let promise = self.names.get(name).and_then(|lives| lives.get(&incarnation));
        promise.map_or(0, |promise| promise.owed_above.max(if self.may_lose { promise.to_go() } else { 0 }))
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
                if self.may_lose && at_start && found == Some(*incarnation) {
                    promise.found_without_facts();
                }
                if found == Some(*incarnation) {
                    let back = !self.may_lose && (promise.deleted || promise.gone);
                    assert!(!back, "{name}: {incarnation:?} was deleted or lost, and is back");
                } else if found.is_none_or(|found| found < *incarnation) {
                    let empty = promise.known.is_empty() && promise.truncated == 0;
                    let lost = self.may_lose && !self.spared.contains(incarnation);
                    let kept = empty || promise.delete_asked || lost;
                    assert!(kept, "{name}: {incarnation:?} is gone, {found:?} is there");
                    let back = found.is_some() && !promise.known.is_empty() && !self.may_lose;
                    assert!(!back, "{name}: {found:?} is back, which came before {incarnation:?}");
                    if self.may_lose && at_start {
                        promise.lost_with_its_facts();
                    }
                }
                // Until a deletion that clients asked for is durable a crash brings it back.
                promise.gone |= at_start && found != Some(*incarnation) && !promise.delete_asked;
            }
        }
        for found in found {
            self.check_one(found);
        }
        if at_start {
            // It has reported all that it ever will.
            (self.may_lose, self.may_vanish) = (false, false);
            self.spared.clear();
            self.flushed.clear();
            self.unheard.clear();
        }
    }

    fn check_one(&mut self, found: &Found) {
        let may_lose = self.may_lose;
        let may_vanish = self.may_vanish || self.unheard.contains(&found.incarnation);
        let spared = self.spared.contains(&found.incarnation);
        let flushed: Vec<(u64, u64)> = self.flushed_of(found.incarnation).collect();
        let Found { name, incarnation, truncated_to, durable_head, items, unreadable } = found;
        // The first LSN from there on that can be read.
        let readable =
            |lsn: u64| unreadable.iter().fold(lsn, |lsn, range| if lsn == range.0 { range.1 + 1 } else { lsn });
        let promise = self.of(name, *incarnation);
        let truncated = truncated_to.0;
        trace(|| format!("{name}, {incarnation:?}: found from {truncated} to {durable_head}, gaps {:?}", promise.gaps));
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
            next = readable(next);
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
                        let mut lost = promise.known.range(first.0..=last.0);
                        assert!(
                            !spared || lost.next().is_none(),
                            "{name}: LSNs {first} to {last} never were in what is lost"
                        );
                        let kept = flushed.iter().flat_map(|(from, to)| promise.known.range(*from..=*to));
                        let kept = kept.map(|(lsn, _)| *lsn).find(|lsn| (first.0..=last.0).contains(lsn));
                        assert_eq!(kept, None, "{name}: {first} to {last} are said to be lost, and in segments");
                        trace(|| format!("{name}: LSN {first} to {last} are said to be lost"));
                        promise.gaps.push((first.0, last.0));
                    }
                    next = last.0 + 1;
                }
            }
        }
        if may_vanish {
            promise.known.retain(|lsn, _| *lsn <= durable_head.0);
        }
        next = readable(next);
        assert_eq!(next, durable_head.0 + 1, "{name}: the read ends before {next}, the head is {durable_head}");
        let gaps = std::mem::take(&mut promise.gaps);
        let lost = |lsn: &u64| gaps.iter().any(|(first, last)| (*first..=*last).contains(lsn));
        promise.known.retain(|lsn, _| !lost(lsn));
        let (unread, known) =
            std::mem::take(&mut promise.known).into_iter().partition(|(lsn, _)| found.is_unreadable(*lsn));
        promise.known = unread;
        for (lsn, stored) in &known {
            assert_eq!(there.get(lsn), Some(stored), "{name}: LSN {lsn} is lost, the head is {durable_head}");
        }
        let mut tokens: HashMap<u64, Vec<(u64, Stored)>> = HashMap::new();
        for (lsn, stored) in &there {
            tokens.entry(stored.token).or_default().push((*lsn, *stored));
        }
        let missing = |lsn: u64| lost(&lsn) || found.is_unreadable(lsn);
        for (token, stored) in tokens {
            let (first, start) = stored[0];
            for pair in stored.windows(2) {
                let [(before, one), (lsn, other)] = [pair[0], pair[1]];
                let between = (before + 1..lsn).all(|lsn| found.is_unreadable(lsn));
                let right = other.index > one.index && lsn - before == other.index - one.index && between;
                assert!(right, "{name}: the batch of token {token} is doubled, torn or out of order: {stored:?}");
            }
            let cut = first == truncated + 1 || missing(first - 1);
            assert!(start.index == 0 || cut, "{name}: the start of a batch is missing: {stored:?}");
            let (last, end) = stored[stored.len() - 1];
            let whole = end.index + 1 == end.of;
            assert!(whole || missing(last + 1), "{name}: the end of a batch is missing: {stored:?}");
        }
        promise.gaps = gaps;
        // What is there now must stay.
        promise.known.extend(there);
    }
}
