//! What the flush worker of a directory does next: [`Log::poll_flush`] answers one piece of work, which the worker carries
//! out while frames are written, and reports ([`super::flushed`]). At most one piece is under way per directory.
//!
//! 1. Only what is durable is flushed, oldest first; one flush of a collection at a time, its facts included.
//! 2. Entries are copied out a piece at a time ([`Log::flush_piece`]): a flush holds no entry in memory longer than that.
//! 3. Nothing is released before the FLUSHED fact is durable.
//! 4. A segment that a fact speaks of is never written below its valid length, and never removed while it is needed.
//! 5. Journals and memory are bounded whatever clients do: flushing is what makes room when nobody truncates.
//! 6. A collection whose own path cannot be written goes to shared segments, until that works again.

use std::time::{Duration, Instant};

use rand::RngExt;
use uuid::Uuid;

use super::answer::ChangeWaiter;
use super::collection::{ColIx, Collection, DirIx};
use super::flush_jobs::{FlushJob, FlushPart, FlushWish, FlushWork, Job, Piece, SealJob, Target, Why};
use super::flush_plan::FLUSH_MOST;
use super::journal::{FrameKind, InFlight, Journal, Opening};
use super::log::{Log, Stage};
use super::segments::{Segment, SegmentPath, segment_id};
use crate::error::{ApiError, Reason};
use crate::types::{CollectionName, Lsn};

/// Under pressure a collection with so many bytes gets a segment of its own.
pub(crate) const OWN_SEGMENT: u64 = 256 << 10;
/// So long a stop flushes.
pub(crate) const STOP_FLUSH: Duration = Duration::from_secs(5);
/// After its own path could not be written a collection goes to shared segments for so long.
pub(super) const DETOUR: Duration = Duration::from_secs(60);
/// Most bytes of a piece, unless one record is larger.
const PIECE: usize = 256 << 10;
/// Most files to remove in one piece of work.
const REMOVE_MOST: usize = 64;

impl Log {
    /// What the flush worker of `dir` does next. While something is under way: wait.
    pub(crate) fn poll_flush(&mut self, dir: DirIx, now: Instant) -> FlushWork {
        match self.stage {
            Stage::Opening => return self.poll_shelves(dir, now),
            Stage::Serving | Stage::Stopping => {}
            Stage::Fenced(_) => return FlushWork::End,
        }
        let blocked = &mut self.journals[dir].flusher.blocked;
        if blocked.take_if(|(until, _)| *until <= now).is_some() || !std::mem::replace(&mut self.flush.begun, true) {
            self.begin_flushing(now);
        }
        let flusher = &self.journals[dir].flusher;
        if flusher.job.is_some() || !flusher.removing.is_empty() || !flusher.sweeping.is_empty() {
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
        if let Some(work) =
            self.next_removal(dir).or_else(|| self.next_sweep(dir)).or_else(|| self.next_rewrite(dir, now))
        {
            return work;
        }
        let flusher = &self.journals[dir].flusher;
        let retry = flusher.blocked.as_ref().map(|(at, _)| *at).filter(|at| *at > now);
        if !self.journals[dir].takes_segments() {
            // What is due stays so; who finds room signals.
            return FlushWork::Wait(retry);
        }
        let due = flusher.due.first().map(|(at, _)| *at);
        let again = flusher.plan_again.filter(|_| self.flush.goal.is_some() || self.flush.eager);
        FlushWork::Wait(due.into_iter().chain(again).chain(retry).chain(flusher.rewrite_at).min())
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

    pub(super) fn next_seal(&mut self, dir: DirIx) -> Option<FlushWork> {
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
        if !self.journals[dir].removes_segments() {
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
        while let Some(due) = self.journals[dir].flusher.due.first().copied().filter(|(at, _)| *at <= now) {
            if let Some((part, bytes)) = self.due_part(dir, due, now) {
                if !self.takes_a_detour(dir, part.collection, now) {
                    return Some(self.own_flush(dir, part, Why::Due, now));
                }
                let parts = self.with_others_on_a_detour(dir, part, bytes, now);
                return Some(self.shared_flush(dir, parts, Why::Due));
            }
        }
        None
    }

    /// A collection that was to be flushed to `dir` by now, if it still is. It is due no more.
    fn due_part(&mut self, dir: DirIx, due: (Instant, ColIx), now: Instant) -> Option<(FlushPart, u64)> {
        self.journals[dir].flusher.due.remove(&due);
        let (at, ix) = due;
        let collection = self.collections[ix].as_mut()?;
        collection.flush.due.take_if(|known| *known == (dir, at))?;
        let incarnation = collection.incarnation;
        let enough = collection.buffer.bytes() >= self.settings.memory_flush_size;
        let (first, last, bytes) = self.flushable(ix, incarnation).filter(|_| enough)?;
        let collection = self.get(ix);
        if self.flush_dir(collection, now) != Some(dir) {
            self.look_whether_due(ix, now);
            return None;
        }
        let name = collection.name.clone();
        Some((FlushPart { collection: ix, incarnation, name, first, last, source: None }, bytes))
    }

    /// Collections on a detour that are due, too: one file for all, not one for each.
    fn with_others_on_a_detour(&mut self, dir: DirIx, first: FlushPart, bytes: u64, now: Instant) -> Vec<FlushPart> {
        let due = self.journals[dir].flusher.due.iter().copied().take_while(|(at, _)| *at <= now);
        let on_a_detour = |(_, ix): &(Instant, ColIx)| {
            let there = self.collections[*ix].is_some() && self.takes_a_detour(dir, *ix, now);
            there && *ix != first.collection
        };
        let others: Vec<(Instant, ColIx)> = due.filter(on_a_detour).collect();
        let (mut parts, mut bytes) = (vec![first], bytes);
        for due in others {
            if bytes >= FLUSH_MOST {
                break;
            }
            if let Some((part, more)) = self.due_part(dir, due, now) {
                bytes += more;
                parts.push(part);
            }
        }
        parts
    }

    /// A large one alone, small ones together.
    pub(super) fn flush_planned(&mut self, dir: DirIx, first: (FlushPart, u64), why: Why, now: Instant) -> FlushWork {
        let (part, mut bytes) = first;
        let alone = |log: &Self, ix: ColIx, why: Why, bytes: u64| {
            (why == Why::Asked || bytes >= OWN_SEGMENT) && !log.takes_a_detour(dir, ix, now)
        };
        if alone(self, part.collection, why, bytes) {
            return self.own_flush(dir, part, why, now);
        }
        let mut parts = vec![part];
        while bytes < FLUSH_MOST
            && let Some((ix, incarnation, why)) = self.journals[dir].flusher.plan.pop_front()
        {
            let Some((part, more)) = self.planned_part(dir, ix, incarnation, why, now) else { continue };
            if alone(self, ix, why, more) {
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
            Some(only) if parts.is_empty() => self.own_flush(dir, only, why, now),
            last => {
                parts.extend(last);
                self.shared_flush(dir, parts, why)
            }
        }
    }

    /// Whether a collection goes to shared segments of `dir` because its own path there could not be written.
    fn takes_a_detour(&self, dir: DirIx, ix: ColIx, now: Instant) -> bool {
        self.get(ix).flush.detour.is_some_and(|(there, until)| there == dir && until > now)
    }

    /// Behind the collection's segment being written, or in a new one. What stands in the way is sealed first.
    fn own_flush(&mut self, dir: DirIx, part: FlushPart, why: Why, now: Instant) -> FlushWork {
        if self.takes_a_detour(dir, part.collection, now) {
            return self.shared_flush(dir, vec![part], why);
        }
        let collection = self.get(part.collection);
        let own = |segment: &&Segment| segment.dir == dir && !(segment.sealed || segment.shared || segment.not_found);
        let size = self.settings.segment_size;
        let follows = |segment: &Segment| {
            let next = segment.last.next();
            let gap = || next < part.first && collection.is_gap(next, Lsn(part.first.0 - 1));
            next == part.first || gap() || (next < part.first && mutant!(TruncatedFlushedOver))
        };
        let open = |segment: &&Segment| own(segment) && !segment.closed && segment.length < size && follows(segment);
        let behind = collection.segments.last().filter(open).cloned();
        let id = behind.as_ref().map(|segment| segment.id);
        let in_the_way = collection.segments.iter().filter(own).find(|segment| Some(segment.id) != id).cloned();
        if let Some(segment) = in_the_way {
            // When that is done the flush does not wait any longer.
            self.get_mut(part.collection).flush.capped = true;
            return self.seal_job(dir, part.collection, segment);
        }
        let replaced = mutant!(UnreadableSegmentReplaced);
        if behind.is_none()
            && !replaced
            && collection.segments.iter().any(|segment| segment.dir == dir && segment.not_found)
        {
            // The name of the next one may lead to it, and it may be readable again one day.
            return self.shared_flush(dir, vec![part], why);
        }
        let target = behind.map_or(Target::New(Uuid::nil()), Target::Behind);
        self.begin_flush(dir, target, vec![part], why)
    }

    /// In a new shared segment.
    fn shared_flush(&mut self, dir: DirIx, parts: Vec<FlushPart>, why: Why) -> FlushWork {
        let number = &mut self.journals[dir].flusher.last_shared;
        *number += 1;
        let target = Target::Shared(Uuid::nil(), *number);
        self.begin_flush(dir, target, parts, why)
    }

    pub(super) fn begin_flush(&mut self, dir: DirIx, target: Target, parts: Vec<FlushPart>, why: Why) -> FlushWork {
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
        let job = FlushJob { number, why, target, parts, codec: self.settings.codec, key };
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
            Stage::Opening | Stage::Serving => false,
            Stage::Stopping => self.flush.until.is_none_or(|until| until <= now),
            Stage::Fenced(_) => true,
        };
        if over || !self.journals[dir].takes_segments() {
            return Piece::Stop;
        }
        let collection = self.collections.get(part.collection).and_then(Option::as_ref);
        let Some(collection) = collection.filter(|c| c.incarnation == part.incarnation && !c.deleted) else {
            return Piece::End;
        };
        // A truncation has come between: what lies behind it goes to a segment of its own, so that no segment has LSNs in it that
        // only a journal knows to be truncated.
        let behind =
            matches!(&self.journals[dir].flusher.job, Some(Job::Flush(job)) if matches!(job.target, Target::Behind(_)));
        if from <= collection.truncated_to && (behind || from > part.first) && !mutant!(TruncatedFlushedOver) {
            return Piece::End;
        }
        if let Some(source) = part.source {
            return self.rewrite_piece(collection, source, from, part.last);
        }
        if let Some(piece) = collection.shelf_piece(from, part.last) {
            return piece;
        }
        let mut bytes = Vec::new();
        match collection.buffer.copy_some(from, part.last, PIECE, &mut bytes) {
            Some((first, last)) => Piece::Records(bytes, first, last),
            None => Piece::End,
        }
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
        let Some(ix) = self.by_name.get(name) else { return Ok(()) };
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
}
