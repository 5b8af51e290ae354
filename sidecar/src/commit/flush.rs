//! What the flush worker of a directory does next: [`Log::poll_flush`] answers one piece of work, which the worker carries
//! out while frames are written, and reports ([`super::flushed`]). At most one piece is under way per directory.
//!
//! 1. Only what is durable is flushed, oldest first; one flush of a collection at a time, its facts included.
//! 2. Entries are copied out a piece at a time ([`Log::flush_piece`]): a flush holds no entry in memory longer than that.
//! 3. Nothing is released before the FLUSHED fact is durable.
//! 4. A segment that a fact speaks of is never written below its valid length, and never removed while it is needed.
//! 5. Journals and memory are bounded whatever clients do: flushing is what makes room when nobody truncates.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use rand::RngExt;
use uuid::Uuid;

use super::answer::ChangeWaiter;
use super::collection::{ColIx, Collection, DirIx};
use super::journal::{FrameKind, InFlight, Journal, Opening};
use super::log::{Log, Stage};
use super::read::SegmentRead;
use super::segments::{Doomed, Segment, SegmentPath, SharedFile, segment_id};
use crate::error::{ApiError, Reason};
use crate::format::StreamKey;
use crate::format::header::Codec;
use crate::types::{CollectionName, Incarnation, Lsn};

/// A collection that has enough for a flush is flushed this much later, so that a busy one is not flushed all the time.
pub(crate) const DUE_WAIT: Duration = Duration::from_secs(1);
/// Under pressure a collection with so many bytes gets a segment of its own.
pub(crate) const OWN_SEGMENT: u64 = 256 << 10;
/// So much is flushed at once at most, but for the last chunk of it.
pub(crate) const FLUSH_MOST: u64 = 16 << 20;
/// So long a stop flushes.
pub(crate) const STOP_FLUSH: Duration = Duration::from_secs(5);
/// Most bytes of a piece, unless one record is larger.
const PIECE: usize = 256 << 10;
/// Where there is pressure and little to flush, it is looked again this much later.
const LEISURE: Duration = Duration::from_millis(100);
/// Least bytes that are worth a flush at once.
const WORTH_IT: u64 = 1 << 20;
/// Most files to remove in one piece of work.
const REMOVE_MOST: usize = 64;

/// A flush that somebody waits for.
#[derive(Debug)]
pub(crate) struct FlushWish {
    pub(super) until: Lsn,
    pub(super) waiter: ChangeWaiter<Lsn>,
}

/// Where a collection is on its way to segments.
#[derive(Debug, Default)]
pub(crate) struct FlushState {
    /// A flush or a seal of it, or the fact of one, is under way.
    pub(super) busy: bool,
    /// The segment that this is about.
    pub(super) target: Option<Uuid>,
    /// It has enough for a flush of its own; where and when.
    pub(super) due: Option<(DirIx, Instant)>,
    /// It stands in a plan.
    pub(super) planned: bool,
    /// The last flush left something behind: the next one does not wait.
    pub(super) capped: bool,
    pub(super) wishes: Vec<FlushWish>,
}

/// Why a collection is in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody asked for it.
    Asked,
    /// It keeps a journal's file.
    Journal,
    /// Memory is short.
    Memory,
    /// The process ends.
    Stop,
}

/// One collection's part of a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushPart {
    pub(crate) collection: ColIx,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: CollectionName,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// The entries are not in memory but in this segment, which is rewritten.
    pub(crate) source: Option<Uuid>,
}

/// Where a flush goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Behind the valid part of the segment being written.
    Behind(Segment),
    /// A new segment of one collection; what lies at its name is not needed.
    New(Uuid),
    /// A new shared segment.
    Shared(Uuid, u64),
}

/// A flush to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushJob {
    pub(crate) number: u64,
    pub(crate) target: Target,
    /// One, unless the segment is shared.
    pub(crate) parts: Vec<FlushPart>,
    pub(crate) codec: Codec,
    pub(crate) key: StreamKey,
}

/// A segment to seal: give it its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealJob {
    pub(crate) number: u64,
    pub(crate) collection: ColIx,
    pub(crate) incarnation: Incarnation,
    pub(crate) segment: Segment,
    pub(crate) path: SegmentPath,
}

/// What the flush worker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FlushWork {
    /// Write it, report to [`Log::flushed`] or [`Log::flush_failed`].
    Flush(FlushJob),
    /// Rename it, report to [`Log::sealed`].
    Seal(SealJob),
    /// Remove these files if they are the ones named, report to [`Log::removed`].
    Remove(Vec<(Uuid, SegmentPath)>),
    /// Nothing until it is signalled, or until then.
    Wait(Option<Instant>),
    /// Nothing ever again.
    End,
}

/// A piece of a part to flush.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Records, and the LSNs of the first and the last.
    Records(Vec<u8>, Lsn, Lsn),
    /// To be read from a segment.
    Read(Box<SegmentRead>),
    /// There is no more of this part.
    End,
    /// Give the flush up.
    Stop,
}

/// The work under way.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Flush(FlushJob),
    Seal(SealJob),
}

/// One directory's side of flushing.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    /// The worker has to be woken.
    pub(crate) signalled: bool,
    pub(crate) job: Option<Job>,
    pub(crate) due: BTreeSet<(Instant, ColIx)>,
    pub(crate) plan: VecDeque<(ColIx, Incarnation, Why)>,
    pub(crate) seals: VecDeque<(ColIx, Incarnation, Uuid)>,
    pub(crate) remove: VecDeque<Uuid>,
    pub(crate) removing: Vec<Uuid>,
    /// The last work was a removal: something else goes first.
    pub(crate) removed: bool,
    /// A flush failed: nothing goes here until then; and why.
    pub(crate) blocked: Option<(Instant, String)>,
    /// Number of the last shared segment.
    pub(crate) last_shared: u64,
    /// The plan was made for little: not again before.
    pub(crate) plan_again: Option<Instant>,
    /// Somebody was refused for want of journal space, though the journal is not over its mark.
    pub(crate) clean: bool,
    /// When to look for segments to rewrite, where there may be any.
    pub(crate) rewrite_at: Option<Instant>,
    /// A stop has nothing more to flush here.
    pub(crate) finished: bool,
}

/// The log's side of flushing.
#[derive(Debug, Default)]
pub(crate) struct Flushing {
    /// Memory is short: flush until this is left at most.
    pub(super) goal: Option<u64>,
    /// Flush whatever there is.
    pub(super) eager: bool,
    /// A stop flushes until then.
    pub(super) until: Option<Instant>,
    pub(super) shared: HashMap<Uuid, SharedFile>,
    pub(super) doomed: BTreeMap<Uuid, Doomed>,
    pub(super) segments: u64,
    pub(super) jobs: u64,
    /// What recovery left was looked at.
    pub(super) begun: bool,
}

impl Log {
    /// What the flush worker of `dir` does next. While something is under way: wait.
    pub(crate) fn poll_flush(&mut self, dir: DirIx, now: Instant) -> FlushWork {
        match self.stage {
            Stage::Opening => return FlushWork::Wait(None),
            Stage::Serving | Stage::Stopping => {}
            Stage::Fenced(_) => return FlushWork::End,
        }
        let blocked = &mut self.journals[dir].flusher.blocked;
        if blocked.take_if(|(until, _)| *until <= now).is_some() || !std::mem::replace(&mut self.flush.begun, true) {
            self.begin_flushing(now);
        }
        let flusher = &self.journals[dir].flusher;
        if flusher.job.is_some() || !flusher.removing.is_empty() {
            return FlushWork::Wait(None);
        }
        let stopping = self.stage == Stage::Stopping;
        if stopping && (self.flush.until.is_none_or(|until| until <= now) || !self.journals[dir].takes_segments()) {
            return self.finish_flushing(dir);
        }
        if !stopping
            && !std::mem::take(&mut self.journals[dir].flusher.removed)
            && let Some(work) = self.next_removal(dir)
        {
            return work;
        }
        if let Some(work) = self.next_seal(dir).or_else(|| self.next_flush(dir, now)) {
            return work;
        }
        if stopping {
            if self.nothing_to_flush() {
                return self.finish_flushing(dir);
            }
            return FlushWork::Wait(self.flush.until);
        }
        if let Some(work) = self.next_removal(dir).or_else(|| self.next_rewrite(dir, now)) {
            return work;
        }
        let flusher = &self.journals[dir].flusher;
        let rewrite = flusher.rewrite_at;
        let due = flusher.due.first().map(|(at, _)| *at);
        let again = flusher.plan_again.filter(|_| self.flush.goal.is_some() || self.flush.eager);
        let retry = flusher.blocked.as_ref().map(|(at, _)| *at).filter(|at| *at > now);
        FlushWork::Wait(due.into_iter().chain(again).chain(retry).chain(rewrite).min())
    }

    /// A directory is back: what could not be flushed may be now.
    pub(super) fn look_at_flushing_again(&mut self) {
        self.flush.begun = false;
        self.signal_flushers();
    }

    /// What recovery found may be due, or more than fits.
    fn begin_flushing(&mut self, now: Instant) {
        for ix in 0..self.collections.len() {
            if self.collections[ix].is_some() {
                self.look_whether_due(ix, now);
            }
        }
        self.look_at_memory();
    }

    fn finish_flushing(&mut self, dir: DirIx) -> FlushWork {
        if !std::mem::replace(&mut self.journals[dir].flusher.finished, true) {
            self.signal_all();
        }
        FlushWork::End
    }

    /// Whether a stop has flushed what it will flush: the last frames may be written.
    pub(super) fn flushing_is_over(&self, now: Instant) -> bool {
        self.flush.until.is_none_or(|until| until <= now)
            || self.journals.iter().all(|journal| journal.flusher.finished || !journal.takes_segments())
    }

    pub(super) fn signal_all(&mut self) {
        for journal in &mut self.journals {
            (journal.signalled, journal.flusher.signalled) = (true, true);
        }
    }

    pub(super) fn signal_flushers(&mut self) {
        for journal in &mut self.journals {
            journal.flusher.signalled = true;
        }
    }

    /// A stop: every frame that waits is written, and no flush or fact of one is under way.
    fn nothing_to_flush(&self) -> bool {
        let nothing = |in_flight: &InFlight| matches!(in_flight.kind, FrameKind::Empty | FrameKind::Clean);
        let quiet = |journal: &Journal| {
            journal.stream.over
                || (journal.queue.is_empty()
                    && journal.facts.is_empty()
                    && journal.in_flight.as_ref().is_none_or(nothing)
                    && journal.opening == Opening::Done)
        };
        self.journals.iter().all(quiet) && self.collections.iter().flatten().all(|collection| !collection.flush.busy)
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
    fn flushable(&self, ix: ColIx, incarnation: Incarnation) -> Option<(Lsn, Lsn, u64)> {
        let collection = self.collections.get(ix)?.as_ref()?;
        if collection.incarnation != incarnation || collection.deleted || collection.flush.busy {
            return None;
        }
        collection.buffer.extent(collection.durable_head, FLUSH_MOST)
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

    fn memory_is_short(&mut self) -> bool {
        if self.flush.goal.is_some_and(|goal| self.memory() <= goal) {
            self.flush.goal = None;
        }
        self.flush.goal.is_some()
    }

    fn next_seal(&mut self, dir: DirIx) -> Option<FlushWork> {
        while let Some((ix, incarnation, id)) = self.journals[dir].flusher.seals.pop_front() {
            let Some(collection) = self.live(ix, incarnation) else { continue };
            let segment = collection.segments.iter().find(|segment| segment.id == id && !segment.sealed).cloned();
            if let Some(segment) = segment.filter(|_| !collection.flush.busy) {
                return Some(self.seal_job(dir, ix, segment));
            }
        }
        None
    }

    fn seal_job(&mut self, dir: DirIx, ix: ColIx, segment: Segment) -> FlushWork {
        self.flush.jobs += 1;
        let number = self.flush.jobs;
        let Some(collection) = self.collections[ix].as_mut() else { return FlushWork::Wait(None) };
        (collection.flush.busy, collection.flush.target) = (true, Some(segment.id));
        let path = SegmentPath::own(&collection.name, segment.first, segment.last);
        let job = SealJob { number, collection: ix, incarnation: collection.incarnation, segment, path };
        self.journals[dir].flusher.job = Some(Job::Seal(job.clone()));
        FlushWork::Seal(job)
    }

    fn next_removal(&mut self, dir: DirIx) -> Option<FlushWork> {
        if !self.journals[dir].takes_segments() {
            return None;
        }
        let flusher = &mut self.journals[dir].flusher;
        let count = flusher.remove.len().min(REMOVE_MOST);
        let ids: Vec<Uuid> = flusher.remove.drain(..count).collect();
        let paths: Vec<_> = ids.iter().filter_map(|id| Some((*id, self.flush.doomed.get(id)?.path.clone()))).collect();
        if paths.is_empty() {
            return None;
        }
        let flusher = &mut self.journals[dir].flusher;
        flusher.removing = ids;
        flusher.removed = true;
        Some(FlushWork::Remove(paths))
    }

    fn next_flush(&mut self, dir: DirIx, now: Instant) -> Option<FlushWork> {
        if !self.journals[dir].takes_segments() {
            return None;
        }
        if self.journals[dir].flusher.plan.is_empty() {
            if self.stage == Stage::Serving {
                self.plan_for_journals(now);
            }
            self.plan_for_memory(dir, now);
        }
        while let Some((ix, incarnation, why)) = self.journals[dir].flusher.plan.pop_front() {
            if let Some(part) = self.planned_part(dir, ix, incarnation, why, now) {
                return Some(self.flush_planned(dir, part, why, now));
            }
        }
        while let Some(&(at, ix)) = self.journals[dir].flusher.due.first() {
            if at > now {
                break;
            }
            self.journals[dir].flusher.due.pop_first();
            let size = self.settings.memory_flush_size;
            let Some(collection) = self.collections[ix].as_mut() else { continue };
            if collection.flush.due != Some((dir, at)) {
                continue;
            }
            collection.flush.due = None;
            let incarnation = collection.incarnation;
            let found = self.flushable(ix, incarnation).filter(|_| self.get(ix).buffer.bytes() >= size);
            let Some((first, last, _)) = found else { continue };
            let collection = self.get(ix);
            match self.flush_dir(collection, now) {
                Some(there) if there == dir => {
                    let part = FlushPart {
                        collection: ix,
                        incarnation,
                        name: collection.name.clone(),
                        first,
                        last,
                        source: None,
                    };
                    return Some(self.own_flush(dir, part));
                }
                _ => self.look_whether_due(ix, now),
            }
        }
        None
    }

    /// A collection of the plan, if it still is to be flushed here.
    fn planned_part(
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

    /// A large one alone, small ones together.
    fn flush_planned(&mut self, dir: DirIx, first: (FlushPart, u64), why: Why, now: Instant) -> FlushWork {
        let (part, mut bytes) = first;
        if why == Why::Asked || bytes >= OWN_SEGMENT {
            return self.own_flush(dir, part);
        }
        let mut parts = vec![part];
        while bytes < FLUSH_MOST
            && let Some((ix, incarnation, why)) = self.journals[dir].flusher.plan.pop_front()
        {
            let Some((part, more)) = self.planned_part(dir, ix, incarnation, why, now) else { continue };
            if why == Why::Asked || more >= OWN_SEGMENT {
                // Its turn comes next.
                self.get_mut(ix).flush.planned = true;
                self.journals[dir].flusher.plan.push_front((ix, incarnation, why));
                break;
            }
            if parts.iter().all(|known| known.collection != ix) {
                bytes += more;
                parts.push(part);
            }
        }
        match parts.pop() {
            Some(only) if parts.is_empty() => self.own_flush(dir, only),
            last => {
                parts.extend(last);
                let number = &mut self.journals[dir].flusher.last_shared;
                *number += 1;
                let target = Target::Shared(Uuid::nil(), *number);
                self.begin_flush(dir, target, parts)
            }
        }
    }

    /// Behind the collection's segment being written, or in a new one. What stands in the way is sealed first.
    fn own_flush(&mut self, dir: DirIx, part: FlushPart) -> FlushWork {
        let collection = self.get(part.collection);
        let own = |segment: &&Segment| segment.dir == dir && !segment.sealed && !segment.shared;
        let size = self.settings.segment_size;
        let open =
            |segment: &&Segment| own(segment) && !segment.closed && segment.length < size && segment.last < part.first;
        let behind = collection.segments.last().filter(open).cloned();
        let id = behind.as_ref().map(|segment| segment.id);
        let in_the_way = collection.segments.iter().filter(own).find(|segment| Some(segment.id) != id).cloned();
        if let Some(segment) = in_the_way {
            // When that is done the flush does not wait any longer.
            self.get_mut(part.collection).flush.capped = true;
            return self.seal_job(dir, part.collection, segment);
        }
        let target = behind.map_or(Target::New(Uuid::nil()), Target::Behind);
        self.begin_flush(dir, target, vec![part])
    }

    pub(super) fn begin_flush(&mut self, dir: DirIx, target: Target, parts: Vec<FlushPart>) -> FlushWork {
        self.flush.jobs += 1;
        let number = self.flush.jobs;
        let target = match target {
            Target::Behind(segment) => Target::Behind(segment),
            Target::New(_) => Target::New(self.new_segment()),
            Target::Shared(_, number) => Target::Shared(self.new_segment(), number),
        };
        let id = target.id();
        for part in &parts {
            let collection = self.get_mut(part.collection);
            collection.flush.busy = true;
            collection.flush.target = Some(id);
        }
        let key = self.journals[dir].stream.key;
        let job = FlushJob { number, target, parts, codec: self.settings.codec, key };
        self.journals[dir].flusher.job = Some(Job::Flush(job.clone()));
        FlushWork::Flush(job)
    }

    fn new_segment(&mut self) -> Uuid {
        let counter = self.flush.segments;
        self.flush.segments += 1;
        segment_id(self.identity.epoch, counter, self.entropy.random())
    }

    /// The next piece of a part of the flush under way, from `from` on.
    pub(crate) fn flush_piece(&self, dir: DirIx, part: &FlushPart, from: Lsn, now: Instant) -> Piece {
        let over = match self.stage {
            Stage::Serving => false,
            Stage::Stopping => self.flush.until.is_none_or(|until| until <= now),
            Stage::Opening | Stage::Fenced(_) => true,
        };
        if over || !self.journals[dir].takes_segments() {
            return Piece::Stop;
        }
        let collection = self.collections.get(part.collection).and_then(Option::as_ref);
        let Some(collection) = collection.filter(|c| c.incarnation == part.incarnation && !c.deleted) else {
            return Piece::End;
        };
        if let Some(source) = part.source {
            return self.rewrite_piece(collection, source, from, part.last);
        }
        let mut bytes = Vec::new();
        match collection.buffer.copy_some(from, part.last, PIECE, &mut bytes) {
            Some((first, last)) => Piece::Records(bytes, first, last),
            None => Piece::End,
        }
    }

    /// Puts a collection into the plan of a directory, once.
    pub(super) fn plan(&mut self, dir: DirIx, ix: ColIx, incarnation: Incarnation, why: Why) {
        let Some(collection) = self.live(ix, incarnation) else { return };
        let planned = std::mem::replace(&mut collection.flush.planned, true);
        let flusher = &mut self.journals[dir].flusher;
        match why {
            Why::Asked => flusher.plan.push_front((ix, incarnation, why)),
            _ if planned => return,
            Why::Journal | Why::Memory | Why::Stop => flusher.plan.push_back((ix, incarnation, why)),
        }
        flusher.signalled = true;
    }

    /// Memory is short, or the process ends: everything that `dir` can flush, largest first.
    fn plan_for_memory(&mut self, dir: DirIx, now: Instant) {
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
    fn plan_for_journals(&mut self, now: Instant) {
        for dir in 0..self.journals.len() {
            if self.journals[dir].stream.over || !self.wants_cleaning(dir) {
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
            if self.oldest_in_need(dir).next().is_none() {
                self.journals[dir].flusher.clean = false;
            }
            found.sort_unstable_by_key(|(bytes, _, incarnation)| (std::cmp::Reverse(*bytes), *incarnation));
            for (_, ix, incarnation) in found {
                if let Some(there) = self.flush_dir(self.get(ix), now) {
                    self.plan(there, ix, incarnation, Why::Journal);
                }
            }
        }
    }

    /// Whether a journal is over its mark, what can go already not counted.
    fn wants_cleaning(&self, dir: DirIx) -> bool {
        let journal = &self.journals[dir];
        let mark = if journal.flusher.clean { 0 } else { journal.cleaning_mark() };
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

    pub(super) fn get_mut(&mut self, ix: ColIx) -> &mut Collection {
        #[allow(clippy::expect_used, reason = "asked for collections that were just found")]
        self.collections[ix].as_mut().expect("a collection that is there")
    }

    /// Asks for everything durable now of a collection to be in segments; `waiter` is answered when it is.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY.
    pub(crate) fn flush(
        &mut self,
        name: &CollectionName,
        waiter: ChangeWaiter<Lsn>,
        now: Instant,
    ) -> Result<(), ApiError> {
        self.check_open()?;
        let collection = self.find(name)?;
        let until = collection.durable_head;
        if collection.buffer.first().is_none_or(|first| first > until) {
            self.outbox.truncated(waiter, Ok(until));
            return Ok(());
        }
        let Some(dir) = self.flush_dir(collection, now) else { return Err(self.no_directory_to_flush_to(now)) };
        let (incarnation, busy) = (collection.incarnation, collection.flush.busy);
        let Some(&ix) = self.by_name.get(name) else { return Ok(()) };
        self.get_mut(ix).flush.wishes.push(FlushWish { until, waiter });
        if !busy {
            self.plan(dir, ix, incarnation, Why::Asked);
        }
        Ok(())
    }

    pub(super) fn no_directory_to_flush_to(&self, now: Instant) -> ApiError {
        let whys: Vec<String> = self
            .journals
            .iter()
            .filter(|journal| journal.position.is_some())
            .map(|journal| match &journal.flusher.blocked {
                Some((until, why)) if *until > now => format!("{}: {why}", journal.url),
                _ => format!("{} is {:?}", journal.url, journal.health),
            })
            .collect();
        let message = format!("no directory takes segments now: {}; nothing is lost, try again", whys.join(", "));
        ApiError::new(Reason::NoHealthyDirectory, message)
    }

    /// Flushes whatever there is from now on, without waiting for a threshold.
    pub(crate) fn flush_eagerly(&mut self) {
        self.flush.eager = true;
        self.signal_flushers();
    }
}

impl Target {
    /// The segment.
    pub(crate) const fn id(&self) -> Uuid {
        match self {
            Self::Behind(segment) => segment.id,
            Self::New(id) | Self::Shared(id, _) => *id,
        }
    }
}
