//! What comes back from flushing: a flush is written and synced, its facts are durable, segments and files are not needed
//! any more.
//!
//! 1. A segment counts for reads, memory and the journal only when its FLUSHED fact is durable.
//! 2. It is said in the segment's own directory before the journal of its collection says it, where these differ: whoever
//!    loses the one still has the entries in the other.
//! 3. A fact that was put into a frame is never given up: the frame may have landed. Until it is durable somewhere nothing
//!    is written to its segment, and the segment is not removed.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::collection::{ColIx, DirIx};
use super::flush_jobs::{FlushJob, FlushPart, Job, Target, Why};
use super::journal::{Fact, FlushedNote};
use super::log::{Log, Stage};
use super::segments::{Segment, SharedFile};
use crate::error::{ApiError, Reason};
use crate::format::segment::Flushed;
use crate::types::{Incarnation, Lsn};

/// After a failed flush nothing is flushed to that directory for so long.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// What a flush wrote of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartDone {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Encoded bytes.
    pub(crate) bytes: u64,
}

/// A flush that is written and synced, its file's name included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushDone {
    pub(crate) number: u64,
    pub(crate) flushed: Flushed,
    /// Of each part of the job; `None` where nothing was left of it.
    pub(crate) parts: Vec<Option<PartDone>>,
}

/// Why a flush was not written. What it made is gone again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FlushFailure {
    /// Nothing was left to flush, or the log said stop.
    Void,
    /// The segment to write to has its final name already.
    IsSealed,
    /// The segment to write to is not as its fact says; nothing can be added to it.
    Unusable(String),
    /// A segment that was to be rewritten cannot be read.
    Unreadable(Incarnation, Uuid, String),
    /// The device failed.
    Device(String),
}

/// How an attempt to seal ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SealOutcome {
    Sealed,
    /// There is no such file.
    Missing(String),
    /// The device failed.
    Device(String),
}

impl Log {
    fn take_flush(&mut self, dir: DirIx, number: u64) -> Option<FlushJob> {
        match self.journals[dir].flusher.job.take() {
            Some(Job::Flush(job)) if job.number == number => Some(job),
            other => {
                self.journals[dir].flusher.job = other;
                None
            }
        }
    }

    /// A flush is written and synced: its facts go to the journal.
    pub(crate) fn flushed(&mut self, dir: DirIx, done: &FlushDone, now: Instant) {
        let Some(job) = self.take_flush(dir, done.number) else { return };
        self.journals[dir].flusher.signalled = true;
        let Flushed { length, index_offset, index_crc } = done.flushed;
        if let Target::Shared(id, number) = job.target {
            let users = done.parts.iter().flatten().count() as u64;
            let total = done.parts.iter().flatten().map(|part| part.bytes).sum();
            self.flush.shared.insert(id, SharedFile { dir, number, total, users });
        }
        for (part, written) in job.parts.iter().zip(&done.parts) {
            let Some(written) = written else {
                self.flush_is_over(part.collection, part.incarnation, now);
                continue;
            };
            let fresh = Segment {
                id: job.target.id(),
                dir,
                first: written.first,
                last: written.last,
                length,
                index_offset,
                index_crc,
                bytes: written.bytes,
                // An object is whole from the start.
                sealed: matches!(job.target, Target::Shared(..)) || self.journals[dir].of_objects,
                shared: matches!(job.target, Target::Shared(..)),
                closed: false,
                not_found: false,
            };
            let segment = match &job.target {
                Target::Behind(before) => Segment { first: before.first, bytes: before.bytes + written.bytes, ..fresh },
                Target::New(_) | Target::Shared(..) => fresh,
            };
            let capped = written.bytes >= super::flush_plan::FLUSH_MOST;
            if let Some(collection) = self.live(part.collection, part.incarnation) {
                collection.flush.capped = capped;
            }
            if mutant!(MemoryFreedBeforeFlushed)
                && let Some(collection) = self.live(part.collection, part.incarnation)
            {
                collection.buffer.truncate_to(written.last);
            }
            self.queue_flushed(part, segment, now);
        }
    }

    /// Queues the FLUSHED of a segment: first in the segment's own directory, so that who has that knows what is in it.
    fn queue_flushed(&mut self, part: &FlushPart, segment: Segment, now: Instant) {
        let (ix, incarnation) = (part.collection, part.incarnation);
        match self.live(ix, incarnation).map(|collection| collection.home) {
            Some(home) => {
                let (own, facts) = (segment.dir, self.commit_journal(home));
                let first = if self.journals[own].hears() && !mutant!(FlushedSaidElsewhere) { own } else { facts };
                let fact = FlushedNote { collection: ix, incarnation, name: part.name.clone(), segment };
                self.queue_fact(first, Fact::Flushed(Box::new(fact)), now);
            }
            // Deleted under way; no fact ever spoke of what is new.
            None => self.doom(&part.name, incarnation, segment),
        }
    }

    /// A flush was not written.
    pub(crate) fn flush_failed(&mut self, dir: DirIx, number: u64, failure: FlushFailure, now: Instant) {
        let Some(job) = self.take_flush(dir, number) else { return };
        self.journals[dir].flusher.signalled = true;
        let own = !matches!(job.target, Target::Shared(..)) && !mutant!(OwnPathOnly);
        let detour = own && matches!(failure, FlushFailure::Device(_));
        if let FlushFailure::Device(why) = &failure
            && !detour
        {
            self.block_flusher(dir, why, now);
        }
        if job.parts.iter().any(|part| part.source.is_some()) {
            self.not_rewritten(dir, &job.parts, &failure, now);
        }
        for part in &job.parts {
            let (ix, incarnation) = (part.collection, part.incarnation);
            let refusal = self.no_directory_to_flush_to(now);
            let Some(collection) = self.live(ix, incarnation) else { continue };
            if let Target::Behind(segment) = &job.target
                && let Some(segment) = collection.segments.iter_mut().find(|known| known.id == segment.id)
            {
                match &failure {
                    FlushFailure::Void | FlushFailure::Unreadable(..) => {}
                    FlushFailure::IsSealed => {
                        let segment = Segment { sealed: true, ..segment.clone() };
                        collection.flush.capped = true;
                        self.queue_flushed(part, segment, now);
                        continue;
                    }
                    FlushFailure::Unusable(_) | FlushFailure::Device(_) => segment.closed = true,
                }
            }
            if detour {
                // Whether that is its own path only, or the directory, its next flush finds out.
                collection.flush.detour = Some((dir, now + super::flush::DETOUR));
            } else if let FlushFailure::Device(_) = &failure {
                let waiters = std::mem::take(&mut collection.flush.wishes);
                for wish in waiters {
                    self.outbox.truncated(wish.waiter, Err(refusal.clone()));
                }
            }
            self.flush_is_over(ix, incarnation, now);
            if detour {
                self.plan_detour(dir, ix, incarnation, job.why);
            }
        }
    }

    /// The worker of `dir` gave its work up.
    pub(crate) fn flusher_gave_up(&mut self, dir: DirIx, why: &str, now: Instant) {
        match self.journals[dir].flusher.job.as_ref() {
            Some(Job::Flush(job)) => self.flush_failed(dir, job.number, FlushFailure::Device(why.to_owned()), now),
            Some(Job::Seal(job)) => self.sealed(dir, job.number, SealOutcome::Device(why.to_owned()), now),
            None => {
                self.removed(dir, &self.journals[dir].flusher.removing.clone());
                self.swept(dir);
            }
        }
    }

    /// Segments in `dir` that no durable fact speaks of yet.
    pub(super) fn flushes_into(&self, dir: DirIx) -> usize {
        let queued = |fact: &Fact| matches!(fact, Fact::Flushed(note) if note.segment.dir == dir);
        let facts = self.journals.iter().flat_map(|journal| &journal.facts).chain(&self.parked_facts);
        let in_flight = self.journals.iter().filter_map(|journal| journal.in_flight.as_ref());
        usize::from(self.journals[dir].flusher.job.is_some())
            + facts.filter(|fact| queued(fact)).count()
            + in_flight.flat_map(|in_flight| &in_flight.flushed).filter(|note| note.segment.dir == dir).count()
    }

    /// Files of segments in `dir` that are needed.
    pub(crate) fn segment_files(&self, dir: DirIx) -> u64 {
        let all = self.collections.iter().flatten().flat_map(|collection| &collection.segments);
        let own = all.filter(|segment| segment.dir == dir && !segment.shared).count();
        let shared = self.flush.shared.values().filter(|file| file.dir == dir && file.users > 0).count();
        (own + shared) as u64
    }

    fn block_flusher(&mut self, dir: DirIx, why: &str, now: Instant) {
        self.journals[dir].flusher.blocked = Some((now + RETRY, why.to_owned()));
        // What was to go here may go elsewhere.
        let flusher = &mut self.journals[dir].flusher;
        let (due, plan) = (std::mem::take(&mut flusher.due), std::mem::take(&mut flusher.plan));
        for (_, ix) in due {
            if let Some(collection) = self.collections[ix].as_mut() {
                collection.flush.due = None;
                self.look_whether_due(ix, now);
            }
        }
        for (ix, incarnation, why) in plan {
            let Some(collection) = self.live(ix, incarnation) else { continue };
            collection.flush.planned = false;
            if let Some(there) = self.flush_dir(self.get(ix), now) {
                self.plan(there, ix, incarnation, why);
            }
        }
    }

    /// A segment was to be sealed.
    pub(crate) fn sealed(&mut self, dir: DirIx, number: u64, outcome: SealOutcome, now: Instant) {
        let job = match self.journals[dir].flusher.job.take() {
            Some(Job::Seal(job)) if job.number == number => job,
            other => {
                self.journals[dir].flusher.job = other;
                return;
            }
        };
        self.journals[dir].flusher.signalled = true;
        let Some(collection) = self.live(job.collection, job.incarnation) else { return };
        let name = collection.name.clone();
        let Some(segment) = collection.segments.iter_mut().find(|known| known.id == job.segment.id) else {
            return self.flush_is_over(job.collection, job.incarnation, now);
        };
        match outcome {
            SealOutcome::Sealed => {
                let segment = Segment { sealed: true, ..segment.clone() };
                let (collection, incarnation) = (job.collection, job.incarnation);
                let (first, last) = (segment.first, segment.last);
                let part = FlushPart { collection, incarnation, name, first, last, source: None };
                return self.queue_flushed(&part, segment, now);
            }
            // It is in nobody's way; whoever reads it learns that it is gone.
            SealOutcome::Missing(_) => segment.not_found = true,
            SealOutcome::Device(why) => {
                segment.closed = true;
                if mutant!(OwnPathOnly) {
                    self.block_flusher(dir, &why, now);
                } else {
                    collection.flush.detour = Some((dir, now + super::flush::DETOUR));
                }
            }
        }
        self.flush_is_over(job.collection, job.incarnation, now);
    }

    /// A FLUSHED is durable in `dir`. It counts when the journal says so too to which the facts of its collection go.
    pub(super) fn flushed_said(&mut self, dir: DirIx, note: FlushedNote, now: Instant) {
        let facts = self.live(note.collection, note.incarnation).map(|collection| collection.home);
        let facts =
            facts.map(|home| self.commit_journal(home)).filter(|facts| *facts != dir && self.journals[*facts].hears());
        match facts {
            Some(facts) => self.queue_fact(facts, Fact::Flushed(Box::new(note)), now),
            None => self.flushed_durable(note, now),
        }
    }

    /// A FLUSHED is durable: what it speaks of leaves memory.
    fn flushed_durable(&mut self, note: FlushedNote, now: Instant) {
        let FlushedNote { collection: ix, incarnation, name, segment } = note;
        let Some(collection) = self.live(ix, incarnation).filter(|collection| !collection.delete_durable) else {
            return self.doom(&name, incarnation, segment);
        };
        let before = collection.memory();
        // What lies before it may be nowhere else, where only a start with damage has found it.
        if collection.first_unflushed().is_none_or(|first| first >= segment.first) {
            collection.flushed_to = collection.flushed_to.max(segment.last);
            collection.buffer.truncate_to(segment.last);
            self.unshelve(ix, segment.last);
        }
        let freed = (before - self.get(ix).memory()) as u64;
        let (id, full) = (segment.id, !segment.sealed && segment.length >= self.settings.segment_size);
        let dir = segment.dir;
        let collection = self.get_mut(ix);
        match collection.segments.iter_mut().find(|known| known.id == id) {
            Some(known) => *known = segment,
            None => {
                let at = collection.segments.partition_point(|known| known.first < segment.first);
                collection.segments.insert(at, segment);
            }
        }
        self.memory_used -= freed;
        self.freed = true;
        self.doom_rewritten(ix, id);
        self.look_for_more_to_rewrite(now);
        if full {
            self.journals[dir].flusher.seals.push_back((ix, incarnation, id));
            self.journals[dir].flusher.signalled = true;
        }
        for journal in &mut self.journals {
            journal.pressed |= journal.flusher.clean;
            let look = journal.pressed || !journal.old.is_empty() || journal.used_bytes() > journal.cleaning_mark();
            journal.look_for_free |= look;
            journal.signalled |= look;
        }
        self.flush_is_over(ix, incarnation, now);
    }

    /// Answers who waits for a flush of entries that are in memory no more: they are in segments, or truncated.
    pub(super) fn answer_flushes(&mut self, ix: ColIx) {
        let collection = self.get_mut(ix);
        let left = collection.buffer.first();
        let done = |until: Lsn| left.is_none_or(|first| first > until);
        let (ready, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut collection.flush.wishes).into_iter().partition(|wish| done(wish.until));
        collection.flush.wishes = waiting;
        for wish in ready {
            self.outbox.truncated(wish.waiter, Ok(wish.until));
        }
    }

    /// Nothing of the collection is being flushed any more: what came meanwhile is looked at.
    fn flush_is_over(&mut self, ix: ColIx, incarnation: Incarnation, now: Instant) {
        let Some(collection) = self.live(ix, incarnation) else { return };
        (collection.flush.busy, collection.flush.target) = (false, None);
        self.answer_flushes(ix);
        self.doom_dead(ix);
        if !self.get(ix).flush.wishes.is_empty() {
            match self.flush_dir(self.get(ix), now) {
                Some(dir) => self.plan(dir, ix, incarnation, Why::Asked),
                None => {
                    let refusal = self.no_directory_to_flush_to(now);
                    for wish in std::mem::take(&mut self.get_mut(ix).flush.wishes) {
                        self.outbox.truncated(wish.waiter, Err(refusal.clone()));
                    }
                }
            }
        }
        self.look_whether_due(ix, now);
        self.get_mut(ix).flush.capped = false;
        if matches!(self.stage, Stage::Opening | Stage::Stopping) || self.flush.goal.is_some() {
            self.signal_flushers();
        }
    }

    /// Nobody waits any longer for a flush of a collection that is deleted.
    pub(super) fn refuse_flushes(&mut self, ix: ColIx) {
        let Some(collection) = self.collections[ix].as_mut() else { return };
        let message = format!("collection {:?} was deleted during the flush", collection.name.as_str());
        for wish in std::mem::take(&mut collection.flush.wishes) {
            self.outbox.truncated(wish.waiter, Err(ApiError::new(Reason::CollectionNotFound, message.clone())));
        }
    }
}
