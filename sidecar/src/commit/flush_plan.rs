//! What is to be flushed, and where to: collections that have enough, whatever fills memory, the oldest file of a journal
//! that is rather full, everything at a stop. [`super::flush`] takes what stands in the plan from there.
//!
//! 1. Only what is durable counts.
//! 2. A collection stands in one plan at most, and comes up for a flush of its own once.
//! 3. Where there is pressure and little to flush, nothing is planned for a while.
//! 4. One flush takes a dense run, but for gaps. After damage a start may find entries in a journal on both sides of some
//!    that only a segment holds: a segment that jumped over these would be taken for what holds them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::collection::{ColIx, Collection, DirIx};
use super::flush_jobs::{FlushPart, Why};
use super::log::{Log, Stage};
use crate::types::{Incarnation, Lsn};

/// A collection that has enough for a flush is flushed this much later, so that a busy one is not flushed all the time.
pub(crate) const DUE_WAIT: Duration = Duration::from_secs(1);
/// So much is flushed at once at most, but for the last chunk of it.
pub(crate) const FLUSH_MOST: u64 = 16 << 20;
/// Where there is pressure and little to flush, it is looked again this much later.
const LEISURE: Duration = Duration::from_millis(100);
/// Least bytes that are worth a flush at once.
const WORTH_IT: u64 = 1 << 20;

impl Log {
    /// A directory is back: what could not be flushed may be now.
    pub(super) fn look_at_flushing_again(&mut self) {
        self.flush.begun = false;
        self.signal_flushers();
    }

    /// What recovery found may be due, or more than fits.
    pub(super) fn begin_flushing(&mut self, now: Instant) {
        for ix in 0..self.collections.len() {
            if self.collections[ix].is_some() {
                self.look_whether_due(ix, now);
            }
        }
        self.look_at_memory();
    }

    /// Where a collection is flushed to: its home, or where that cannot be written another directory.
    pub(super) fn flush_dir(&self, collection: &Collection, now: Instant) -> Option<DirIx> {
        let writable = |ix: DirIx| {
            let journal = &self.journals[ix];
            let blocked = journal.flusher.blocked.as_ref().is_some_and(|(until, _)| *until > now);
            journal.position.is_some() && journal.takes_segments() && journal.in_use && !blocked
        };
        let home = collection.home;
        let others = || (0..self.journals.len()).find(|&ix| writable(ix) && !self.journals[ix].draining);
        if writable(home) && !self.journals[home].draining {
            return Some(home);
        }
        others().or_else(|| writable(home).then_some(home))
    }

    /// The LSNs and bytes that a flush of a collection would take now.
    pub(super) fn flushable(&self, ix: ColIx, incarnation: Incarnation) -> Option<(Lsn, Lsn, u64)> {
        let collection = self.collections.get(ix)?.as_ref()?;
        if collection.incarnation != incarnation || collection.deleted || collection.flush.busy {
            return None;
        }
        let joined = |first: Lsn, last: Lsn| collection.is_gap(first, last) || mutant!(HolesFlushedOver);
        let shelved = collection.shelf.extent(FLUSH_MOST, joined);
        shelved.or_else(|| collection.buffer.extent(collection.durable_head, FLUSH_MOST, joined))
    }

    /// A collection got durable entries, or a flush of it ended: is there enough for the next?
    pub(super) fn look_whether_due(&mut self, ix: ColIx, now: Instant) {
        let Some(collection) = self.collections[ix].as_ref() else { return };
        let enough = collection.buffer.bytes() >= self.settings.memory_flush_size;
        if !enough || collection.deleted || collection.flush.busy || collection.flush.due.is_some() {
            return;
        }
        let Some(dir) = self.flush_dir(collection, now) else { return };
        let at = if collection.flush.capped { now } else { now + DUE_WAIT };
        if let Some(collection) = self.collections[ix].as_mut() {
            collection.flush.due = Some((dir, at));
        }
        let flusher = &mut self.journals[dir].flusher;
        flusher.due.insert((at, ix));
        flusher.signalled = true;
    }

    /// Entries came: is memory short?
    pub(super) fn look_at_memory(&mut self) {
        let limit = self.settings.memory_limit;
        if self.flush.goal.is_none() && self.memory() > limit / 5 * 4 {
            self.flush.goal = Some(limit / 4 * 3);
            self.signal_flushers();
        }
    }

    /// Somebody was refused `bytes`.
    pub(super) fn memory_refused(&mut self, bytes: u64) {
        let limit = self.settings.memory_limit;
        let goal = (limit / 4 * 3).min(limit.saturating_sub(bytes));
        self.flush.goal = Some(self.flush.goal.map_or(goal, |before| before.min(goal)));
        self.signal_flushers();
    }

    /// Durable entries came under pressure: the flusher may have something to do now.
    pub(super) fn nudge_flusher(&mut self, ix: ColIx) {
        if (self.flush.goal.is_some() || self.flush.eager)
            && let Some(collection) = self.collections[ix].as_ref()
        {
            let home = collection.home;
            self.journals[home].flusher.signalled |= self.journals[home].flusher.plan_again.is_none();
        }
    }

    pub(super) fn memory_is_short(&mut self) -> bool {
        if self.flush.goal.is_some_and(|goal| self.memory() <= goal) {
            self.flush.goal = None;
        }
        self.flush.goal.is_some()
    }

    /// A collection of the plan, if it still is to be flushed here.
    pub(super) fn planned_part(
        &mut self,
        dir: DirIx,
        ix: ColIx,
        incarnation: Incarnation,
        why: Why,
        now: Instant,
    ) -> Option<(FlushPart, u64)> {
        self.live(ix, incarnation)?.flush.planned = false;
        if why == Why::Memory && !self.memory_is_short() && !self.flush.eager {
            return None;
        }
        let (first, last, bytes) = self.flushable(ix, incarnation)?;
        let collection = self.get(ix);
        let there = self.flush_dir(collection, now)?;
        if there != dir {
            self.plan(there, ix, incarnation, why);
            return None;
        }
        Some((
            FlushPart { collection: ix, incarnation, name: collection.name.clone(), first, last, source: None },
            bytes,
        ))
    }

    /// Puts a collection into the plan of a directory, once.
    pub(super) fn plan(&mut self, dir: DirIx, ix: ColIx, incarnation: Incarnation, why: Why) {
        let Some(collection) = self.live(ix, incarnation) else { return };
        let planned = std::mem::replace(&mut collection.flush.planned, true);
        let flusher = &mut self.journals[dir].flusher;
        match why {
            Why::Asked => flusher.plan.push_front((ix, incarnation, why)),
            _ if planned => return,
            Why::Journal | Why::Memory | Why::Recovery | Why::Stop | Why::Due | Why::Rewrite => {
                flusher.plan.push_back((ix, incarnation, why))
            }
        }
        flusher.signalled = true;
    }

    /// Puts a collection whose own path failed at the head of the plan: whether the directory takes a shared segment is
    /// known before the next collection finds out the same.
    pub(super) fn plan_detour(&mut self, dir: DirIx, ix: ColIx, incarnation: Incarnation, why: Why) {
        let Some(collection) = self.live(ix, incarnation) else { return };
        if collection.flush.busy || collection.flush.planned {
            return;
        }
        collection.flush.planned = true;
        let flusher = &mut self.journals[dir].flusher;
        flusher.plan.push_front((ix, incarnation, why));
        flusher.signalled = true;
    }

    /// Memory is short, or the process ends: everything that `dir` can flush, largest first.
    pub(super) fn plan_for_memory(&mut self, dir: DirIx, now: Instant) {
        let why = if self.stage == Stage::Stopping {
            Why::Stop
        } else if self.flush.eager || self.memory_is_short() {
            Why::Memory
        } else {
            return;
        };
        let flusher = &mut self.journals[dir].flusher;
        if why == Why::Memory && flusher.plan_again.is_some_and(|at| at > now) {
            return;
        }
        flusher.plan_again = None;
        let mut found: Vec<(u64, ColIx, Incarnation)> = Vec::new();
        for (ix, collection) in self.collections.iter().enumerate() {
            let Some(collection) = collection.as_ref().filter(|collection| !collection.flush.planned) else { continue };
            let Some((_, _, bytes)) = self.flushable(ix, collection.incarnation) else { continue };
            if self.flush_dir(collection, now) == Some(dir) {
                found.push((bytes, ix, collection.incarnation));
            }
        }
        found.sort_unstable_by_key(|(bytes, _, incarnation)| (std::cmp::Reverse(*bytes), *incarnation));
        let total: u64 = found.iter().map(|(bytes, ..)| bytes).sum();
        if why == Why::Memory && total < WORTH_IT {
            // What fills the memory cannot be flushed: not a flush for each commit because of that.
            let wait = if self.flush.eager { DUE_WAIT } else { LEISURE };
            self.journals[dir].flusher.plan_again = Some(now + wait);
            if found.is_empty() && self.memory() <= self.settings.memory_limit / 5 * 4 {
                self.flush.goal = None;
            }
        }
        for (_, ix, incarnation) in found {
            self.plan(dir, ix, incarnation, why);
        }
    }

    /// A journal is rather full: what lives in its oldest file goes to segments.
    pub(super) fn plan_for_journals(&mut self, now: Instant) {
        for dir in 0..self.journals.len() {
            if self.journals[dir].stream.over {
                continue;
            }
            if !self.wants_cleaning(dir) {
                self.journals[dir].flusher.clean = false;
                continue;
            }
            let mut found: Vec<(u64, ColIx, Incarnation)> = self
                .oldest_in_need(dir)
                .filter_map(|incarnation| {
                    let &ix = self.by_incarnation.get(&incarnation)?;
                    let (_, _, bytes) = self.flushable(ix, incarnation)?;
                    Some((bytes, ix, incarnation))
                })
                .collect();
            found.sort_unstable_by_key(|(bytes, _, incarnation)| (std::cmp::Reverse(*bytes), *incarnation));
            for (_, ix, incarnation) in found {
                if let Some(there) = self.flush_dir(self.get(ix), now) {
                    self.plan(there, ix, incarnation, Why::Journal);
                }
            }
        }
    }

    /// Whether a journal is over its mark, what can go already not counted. On a full disk everything is.
    fn wants_cleaning(&self, dir: DirIx) -> bool {
        let journal = &self.journals[dir];
        let mark = if journal.flusher.clean || journal.full.is_some() { 0 } else { journal.cleaning_mark() };
        if journal.used_bytes() <= mark {
            return false;
        }
        let old = journal.old.iter().filter(|old| !self.all_dead(&old.heads)).map(super::journal::OldStream::bytes);
        let slots = journal.slots.iter().skip_while(|slot| self.all_dead(&slot.heads)).map(|slot| slot.bytes);
        old.chain(slots).sum::<u64>() > mark
    }

    /// The collections with live entries in the oldest file of a journal that has any.
    fn oldest_in_need(&self, dir: DirIx) -> impl Iterator<Item = Incarnation> {
        let journal = &self.journals[dir];
        let mut old: Vec<_> = journal.old.iter().collect();
        old.sort_unstable_by_key(|old| old.key);
        let mut units = old.into_iter().map(|old| &old.heads).chain(journal.slots.iter().map(|slot| &slot.heads));
        let heads = units.find(|heads| !self.all_dead(heads));
        heads.into_iter().flatten().filter(|(i, head)| !self.is_dead(**i, **head)).map(|(&i, _)| i)
    }

    pub(super) fn all_dead(&self, heads: &HashMap<Incarnation, Lsn>) -> bool {
        heads.iter().all(|(&incarnation, &head)| self.is_dead(incarnation, head))
    }

    /// Flushes whatever there is from now on, without waiting for a threshold.
    pub(crate) fn flush_eagerly(&mut self) {
        self.flush.eager = true;
        self.signal_flushers();
    }
}
