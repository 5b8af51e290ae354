//! Evacuation: what only one directory holds is committed again elsewhere, so that it can be removed. A directory that
//! failed is evacuated from memory, one that is draining likewise while it still works.
//!
//! 1. Entries go with the same LSNs and the same bytes, oldest first, whole batches; they take turns with what clients
//!    append, and acknowledge nothing.
//! 2. Facts go by a checkpoint in every other directory, begun when all entries are durable there and the directory has
//!    written its last frame with any.
//! 3. Only then do the members say that the directory is not in use; and only when that is durable everywhere may it be
//!    removed. Whatever lies in it is never read again: a later use begins anew.
//! 4. A directory that comes back before that keeps what it holds; the copies made meanwhile do no harm.
//! 5. A copy counts only in another directory. Where none has room, what is left waits; and what is copied into a directory
//!    that is being emptied itself goes on from there.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::collection::{ColIx, Collection, DirIx};
use super::journal::{Health, InFlight, Journal};
use super::log::{Log, Stage};
use crate::format::limits::GROUP_CUT;
use crate::types::{DirectoryId, Incarnation, Lsn};

/// Entries of a collection that are to be committed elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) collection: ColIx,
    pub(super) incarnation: Incarnation,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
}

/// How far the evacuation of a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Entries,
    /// Every other directory writes a checkpoint that begins at this tick or later.
    Facts(u64),
    /// Every directory states this version of the members.
    Members(u64),
    /// It may be removed.
    Done,
}

/// The evacuation of one directory.
#[derive(Debug)]
pub(crate) struct Evacuation {
    step: Step,
    pub(super) queue: VecDeque<Stretch>,
    /// Copied, or found truncated, up to here.
    pub(super) done: HashMap<Incarnation, Lsn>,
    pub(super) in_flight: usize,
    pub(super) bytes_left: u64,
}

impl Evacuation {
    /// Copies have become durable here, of so many bytes. What is copied from here may be newer and further already: how far that
    /// is does not say that these were copied.
    pub(super) fn goes_on(&mut self, stretch: Stretch, bytes: usize) {
        if mutant!(CopiesOvertaken) {
            if let Some(done) = self.done.get_mut(&stretch.incarnation) {
                *done = (*done).min(Lsn(stretch.first.0 - 1));
            }
            return;
        }
        self.queue.push_front(stretch);
        self.bytes_left += bytes as u64;
        self.begin_again();
    }

    /// The directory took more: checkpoints that the others have begun do not say what is in it.
    fn begin_again(&mut self) {
        if matches!(self.step, Step::Facts(_)) {
            self.step = Step::Entries;
        }
    }
}

impl Journal {
    /// Bytes that are still to be committed elsewhere before the directory may be removed.
    pub(crate) fn evacuation_bytes_left(&self) -> u64 {
        self.evacuation.as_ref().map_or(0, |evacuation| evacuation.bytes_left)
    }

    /// Whether everything it held is elsewhere, and every other directory says so.
    pub(crate) fn is_evacuated(&self) -> bool {
        self.evacuation.as_ref().is_some_and(|evacuation| evacuation.step == Step::Done)
    }

    /// Whether it is a member no more: it was to be emptied, and is.
    pub(super) fn has_left(&self) -> bool {
        let emptied = |evacuation: &Evacuation| matches!(evacuation.step, Step::Members(_) | Step::Done);
        self.draining && !self.counts_as_in_use() && self.evacuation.as_ref().is_some_and(emptied)
    }

    /// Whether it failed, or is to be emptied. One that has not even space for facts is emptied as one that failed.
    fn is_left(&self) -> bool {
        let failed = match &self.health {
            Health::Failed(_) => self.stream.over,
            Health::Full(_) => self.stream.over && self.draining && !mutant!(FullIsNotEmptied),
            Health::Healthy => false,
        };
        failed || (self.draining && self.takes_facts())
    }

    /// The lowest and highest LSN of each collection that its files may hold.
    fn stretches(&self) -> HashMap<Incarnation, (Lsn, Lsn)> {
        let mut stretches: HashMap<Incarnation, (Lsn, Lsn)> = HashMap::new();
        let slots = self.slots.iter().map(|slot| (&slot.firsts, &slot.heads));
        for (firsts, heads) in slots.chain(self.old.iter().map(|old| (&old.firsts, &old.heads))) {
            for (incarnation, last) in heads {
                let first = firsts.get(incarnation).copied().unwrap_or(Lsn(1));
                let known = stretches.entry(*incarnation).or_insert((first, *last));
                *known = (known.0.min(first), known.1.max(*last));
            }
        }
        stretches
    }
}

impl Log {
    /// Takes the evacuations as far as they go now.
    pub(super) fn tend_evacuations(&mut self, now: Instant) {
        for dir in 0..self.journals.len() {
            self.tend_evacuation(dir, now);
        }
    }

    fn tend_evacuation(&mut self, dir: DirIx, now: Instant) {
        let Some(step) = self.journals[dir].evacuation.as_ref().map(|evacuation| evacuation.step) else {
            return self.begin_evacuation(dir);
        };
        let journal = &self.journals[dir];
        if journal.in_flight.is_some() && !journal.is_left() {
            return;
        }
        if !journal.is_left() {
            // What is empty and closes with the process has not come back: it may be gone by the next start.
            let began = matches!(step, Step::Entries | Step::Facts(_));
            if !began && self.stage == Stage::Stopping && !mutant!(EmptiedAgainInUse) {
                return;
            }
            // It is as good as before, or joins anew.
            self.journals[dir].evacuation = None;
            if !began {
                self.rejoin(dir, now);
            }
            return;
        }
        match step {
            Step::Entries => self.tend_entries(dir),
            Step::Facts(since) => self.tend_facts(dir, since, now),
            Step::Members(version) => {
                if self.all_witnesses(dir, |witness| witness.stated >= version) {
                    self.set_step(dir, Step::Done);
                }
            }
            Step::Done => {}
        }
    }

    fn set_step(&mut self, dir: DirIx, step: Step) {
        if let Some(evacuation) = &mut self.journals[dir].evacuation {
            evacuation.step = step;
        }
    }

    /// Whether something holds of all those by which a later start knows what became of `dir`, and there is one: the other
    /// members in use that can be written. One that has left is not looked for.
    fn all_witnesses(&self, dir: DirIx, holds: impl Fn(&Journal) -> bool) -> bool {
        let others = self.journals.iter().enumerate().filter(|(other, _)| *other != dir).map(|(_, other)| other);
        let witnesses = others.filter(|other| other.takes_facts() && (other.in_use || mutant!(TheLeftAreWitnesses)));
        let mut witnesses = witnesses.peekable();
        witnesses.peek().is_some() && witnesses.all(holds)
    }

    /// Whether another directory takes what `dir` holds.
    fn has_refuge(&self, dir: DirIx) -> bool {
        let refuge = |(other, journal): (DirIx, &Journal)| other != dir && journal.takes_collections();
        self.journals.iter().enumerate().any(refuge)
    }

    fn begin_evacuation(&mut self, dir: DirIx) {
        let journal = &self.journals[dir];
        if self.stage != Stage::Serving || !journal.in_use || !journal.is_left() || !self.has_refuge(dir) {
            return;
        }
        self.journals[dir].evacuation = Some(Evacuation {
            step: Step::Entries,
            queue: VecDeque::new(),
            done: HashMap::new(),
            in_flight: 0,
            bytes_left: 0,
        });
        // What clients wait for goes first.
        self.journals.iter_mut().for_each(|journal| journal.yield_to_normal = true);
        self.tend_entries(dir);
    }

    /// Queues what is left; when nothing is, the facts are next.
    fn tend_entries(&mut self, dir: DirIx) {
        let idle = |evacuation: &Evacuation| evacuation.queue.is_empty() && evacuation.in_flight == 0;
        if self.journals[dir].evacuation.as_ref().is_some_and(idle) && self.has_refuge(dir) {
            self.move_off(dir);
            let queue = self.left_in(dir);
            let bytes = queue.iter().map(|stretch| self.bytes_of(stretch)).sum();
            let journal = &self.journals[dir];
            let busy = journal.in_flight.is_some() || !journal.queue.is_empty();
            let at_rest = queue.is_empty() && !busy;
            if let Some(evacuation) = &mut self.journals[dir].evacuation {
                evacuation.queue = queue.into();
                evacuation.bytes_left = bytes;
            }
            if at_rest {
                self.tick += 1;
                self.set_step(dir, Step::Facts(self.tick));
                self.ask_for_checkpoints(dir, self.tick);
            }
        }
        for (other, journal) in self.journals.iter_mut().enumerate() {
            journal.signalled |= other != dir;
        }
    }

    /// Collections that live in `dir` live elsewhere from now on, where another directory has room; whether one does.
    fn move_off(&mut self, dir: DirIx) -> bool {
        let mut moved = false;
        for ix in 0..self.collections.len() {
            let lives = |collection: &Collection| collection.home == dir && !collection.delete_durable;
            if self.collections[ix].as_ref().is_some_and(lives) {
                moved |= self.home_beside(dir, ix).is_some();
            }
        }
        moved
    }

    /// Where a collection lives from now on that must not live in `dir`. `None`: no other directory has room for it.
    pub(super) fn home_beside(&mut self, dir: DirIx, ix: ColIx) -> Option<DirIx> {
        let Collection { home, name, .. } = self.collections[ix].as_ref()?;
        if *home != dir {
            return Some(*home);
        }
        let name = name.clone();
        self.turn += 1;
        let placed = self
            .place(&name, self.turn, None, GROUP_CUT as u64)
            .or_else(|| self.place(&name, self.turn, None, 0))
            .filter(|placed| *placed != dir)?;
        self.move_home(ix, placed);
        Some(placed)
    }

    /// What `dir` holds that is needed and was not committed elsewhere, oldest first.
    pub(super) fn left_in(&self, dir: DirIx) -> Vec<Stretch> {
        let journal = &self.journals[dir];
        if mutant!(EvacuatedWithoutEntries) {
            return Vec::new();
        }
        let evacuation = journal.evacuation.as_ref();
        let done = |incarnation: Incarnation| {
            evacuation.and_then(|evacuation| evacuation.done.get(&incarnation)).copied().unwrap_or_default()
        };
        let mut left: Vec<Stretch> = journal
            .stretches()
            .into_iter()
            .filter_map(|(incarnation, (first, last))| {
                let collection = *self.by_incarnation.get(&incarnation)?;
                let known = self.collections[collection].as_ref()?;
                let first = first.max(done(incarnation).next()).max(known.buffer.first()?);
                let last = last.min(known.durable_head);
                // Until its deletion is durable a crash brings it back.
                let needed = first <= last && !known.delete_durable && known.truncated_to < last;
                needed.then_some(Stretch { collection, incarnation, first, last })
            })
            .collect();
        // Incarnations rise with time.
        left.sort_by_key(|stretch| stretch.incarnation);
        left
    }

    pub(super) fn bytes_of(&self, stretch: &Stretch) -> u64 {
        let collection = self.collections[stretch.collection].as_ref();
        collection.map_or(0, |collection| collection.buffer.bytes_between(stretch.first, stretch.last))
    }

    /// A frame of `dir` with entries or facts is durable.
    pub(super) fn evacuate_more(&mut self, dir: DirIx) {
        if let Some(evacuation) = &mut self.journals[dir].evacuation
            && !mutant!(EvacuatedWithoutLastFacts)
        {
            evacuation.begin_again();
        }
    }

    /// Every other directory writes a checkpoint begun at `since` or later.
    fn ask_for_checkpoints(&mut self, dir: DirIx, since: u64) {
        for (other, journal) in self.journals.iter_mut().enumerate() {
            if other != dir && journal.takes_facts() && journal.checkpointed < since && journal.checkpoint.is_none() {
                journal.since_checkpoint = u64::MAX;
                journal.signalled = true;
            }
        }
    }

    fn tend_facts(&mut self, dir: DirIx, since: u64, now: Instant) {
        let brings = |frame: &InFlight| frame.carries() || !frame.copies.is_empty();
        if !self.left_in(dir).is_empty() || self.journals[dir].in_flight.as_ref().is_some_and(brings) {
            // A draining directory took more meanwhile.
            return self.set_step(dir, Step::Entries);
        }
        self.ask_for_checkpoints(dir, since);
        let told = self.all_witnesses(dir, |witness| witness.checkpointed >= since) || mutant!(EvacuatedWithoutFacts);
        let bare = self.segments_in(dir) == 0 || mutant!(EvacuatedWithSegments);
        if !told || !bare || !self.has_refuge(dir) {
            return;
        }
        if self.is_home(dir) {
            // What had no room elsewhere may have it now: then the others are told so before this one leaves.
            if self.move_off(dir) {
                self.set_step(dir, Step::Entries);
            }
            return;
        }
        let journal = &mut self.journals[dir];
        journal.in_use = false;
        for heads in journal.slots.iter_mut().map(|slot| &mut slot.heads) {
            heads.clear();
        }
        journal.old.iter_mut().for_each(|old| old.heads.clear());
        let facts: Vec<_> = journal.facts.drain(..).collect();
        for fact in facts {
            self.queue_fact_again(dir, fact, now);
        }
        self.restate(now);
        self.set_step(dir, Step::Members(self.version));
    }

    /// Whether a collection still lives in `dir`, or is being written there.
    fn is_home(&self, dir: DirIx) -> bool {
        let lives = |collection: &Collection| {
            (collection.home == dir && !collection.delete_durable)
                || collection.in_flight == Some(dir)
                || collection.queued_on == Some(dir)
        };
        self.collections.iter().flatten().any(lives)
    }

    /// Segments that lie in `dir` and are needed, those included that are being written there.
    pub(crate) fn segments_in(&self, dir: DirIx) -> usize {
        let needed = self.collections.iter().flatten().filter(|collection| !collection.delete_durable);
        let there = needed.flat_map(|collection| &collection.segments).filter(|segment| segment.dir == dir).count();
        there + self.flushes_into(dir)
    }

    /// A directory that had been emptied is to be used again: what lies in it does not count.
    fn rejoin(&mut self, dir: DirIx, now: Instant) {
        let serves = self.stage == Stage::Serving;
        let journal = &mut self.journals[dir];
        if serves && journal.takes_facts() && !journal.in_use && journal.joins.is_none() {
            let facts: Vec<_> = journal.facts.drain(..).collect();
            for fact in facts {
                self.queue_fact_again(dir, fact, now);
            }
            self.restart_stream(dir, now);
        }
    }

    /// A directory that failed and is emptied is given up for good; the version of the members that says so.
    ///
    /// # Errors
    /// A sentence, when it is not one.
    pub(crate) fn forget(&mut self, directory: DirectoryId, now: Instant) -> Result<u64, String> {
        if self.forgotten.contains(&directory) {
            return Ok(self.version);
        }
        let Some(journal) = self.journals.iter().find(|journal| journal.id == directory) else {
            return Err(format!("{directory} is no directory of this writer; see: walctl directory list"));
        };
        if journal.is_healthy() {
            return Err(format!("directory {directory} is present and well: only what is lost can be forgotten"));
        }
        if !journal.is_evacuated() {
            let left = journal.evacuation_bytes_left();
            return Err(format!(
                "directory {directory} failed in this process, and what it held is still read from memory ({left} bytes \
                 are to be committed elsewhere): forget it when that is done, or restart the sidecar and forget it if it \
                 fails again"
            ));
        }
        self.forgotten.push(directory);
        self.restate(now);
        Ok(self.version)
    }
}
