//! What a directory cannot write goes to another: with the same LSNs, in the same order, to the same waiters.
//!
//! 1. Nothing that has an LSN is dropped: what was in flight goes back to the front of what its collection has pending.
//! 2. A collection whose home cannot be written gets another home; COLLECTION with the next move number stands in the
//!    same frame, before the entries.
//! 3. Where no directory can be written, whoever waits is told that the outcome is unknown, and the entries stay pending
//!    until one can.

use std::time::{Instant, SystemTime};

use super::answer::unknown;
use super::collection::{ColIx, DirIx};
use super::flush_jobs::Job;
use super::flushed::FlushFailure;
use super::journal::{Fact, Health, Journal};
use super::log::{Log, Stage};
use super::outcome::Failure;
use crate::error::{ApiError, Reason};
use crate::format::StreamKey;

impl Log {
    /// A write or sync of the stream `key` failed: it is over, where it is not already.
    pub(crate) fn failed(&mut self, dir: DirIx, key: StreamKey, failure: Failure, now: Instant) {
        let failure = match failure {
            // Whatever has become of the stream: somebody else has the log.
            Failure::Fenced(why) => return self.fence(why),
            failure => failure,
        };
        if self.is_over(dir, key) {
            return self.came_back(dir);
        }
        let failure = match failure {
            Failure::NoFile(why) if self.hold_for_a_free_file(dir, &why, now) => return,
            failure => failure,
        };
        self.note_full(dir, &failure, now);
        let (health, why) = match failure {
            Failure::Fenced(why) => return self.fence(why),
            Failure::Full(why) | Failure::NoFile(why) => (Health::Full(why.clone()), why),
            Failure::Failed(why) => (Health::Failed(why.clone()), why),
        };
        self.journals[dir].health = health;
        self.lose(dir, &why, now);
    }

    /// The stream of a directory is over, its health says why.
    pub(super) fn lose(&mut self, dir: DirIx, why: &str, now: Instant) {
        let rest = self.rest;
        let journal = &mut self.journals[dir];
        journal.since = SystemTime::now();
        journal.probe_at = now + rest;
        journal.upkeep_signalled = true;
        let why = format!("a write to {} failed ({why})", journal.url);
        self.take_back(dir, &why, now);
        if self.journals[dir].of_objects
            && let Some(Job::Flush(job)) = &self.journals[dir].flusher.job
        {
            // A store that gives no answer keeps the flusher for as long: what that has is flushed elsewhere. An object that
            // lands all the same has a name of its own.
            let number = job.number;
            self.flush_failed(dir, number, FlushFailure::Unusable(why.clone()), now);
        }
        // Whoever waits for room there looks elsewhere.
        self.freed = true;
        self.opened();
        self.stated(now);
        self.tend_evacuations(now);
        self.close_in_turn();
    }

    /// The stream of `dir` is over: all that was to be committed there is queued elsewhere.
    pub(super) fn take_back(&mut self, dir: DirIx, why: &str, now: Instant) {
        let journal = &mut self.journals[dir];
        journal.checkpoint = None;
        journal.commit_at = None;
        journal.pending_bytes = 0;
        let queued = std::mem::take(&mut journal.queue);
        let facts = std::mem::take(&mut journal.facts);
        let in_flight = journal.in_flight.take();
        journal.note_abandoned(in_flight.as_ref());
        self.go_on_with_facts(dir, now);
        let mut touched: Vec<ColIx> = Vec::new();
        if let Some(in_flight) = in_flight {
            for group in in_flight.groups {
                let Some(collection) = self.collections[group.collection].as_mut() else { continue };
                collection.in_flight = None;
                collection.announced &= !group.creates;
                collection.moved |= group.announces;
                for batch in group.batches.into_iter().rev() {
                    #[cfg(test)]
                    let batch = crate::sim::mutant::taken_back(batch, collection, &mut self.outbox);
                    collection.pending.push_front(batch);
                }
                touched.push(group.collection);
            }
            self.not_copied(in_flight.copies);
            for (ix, incarnation, wishes) in in_flight.truncates {
                if let Some(collection) = self.live(ix, incarnation) {
                    collection.truncates.extend(wishes);
                }
                self.queue_truncate(ix, now);
            }
            for (name, incarnation, waiter) in in_flight.deletes {
                self.queue_fact(dir, Fact::Delete { name, incarnation, waiter }, now);
            }
            for note in in_flight.flushed {
                self.queue_fact(dir, Fact::Flushed(Box::new(note)), now);
            }
        }
        for ix in touched.into_iter().chain(queued) {
            if let Some(collection) = self.collections[ix].as_mut() {
                collection.queued_on = None;
            }
            self.queue_again(ix, why, now);
            self.reap(ix);
        }
        for fact in facts {
            self.queue_fact_again(dir, fact, now);
        }
    }

    pub(super) fn queue_fact_again(&mut self, dir: DirIx, fact: Fact, now: Instant) {
        match fact {
            Fact::Truncate(ix, incarnation) => {
                if let Some(collection) = self.live(ix, incarnation) {
                    collection.truncate_queued = false;
                    self.queue_truncate(ix, now);
                }
            }
            fact @ (Fact::Delete { .. } | Fact::Flushed(_)) => self.queue_fact(dir, fact, now),
            // The other directories were told each on their own; this one is when it comes back.
            Fact::Announce(..) | Fact::Members => {}
        }
    }

    /// Queues what a collection has pending wherever it can be written now.
    pub(super) fn queue_again(&mut self, ix: ColIx, why: &str, now: Instant) {
        let Some(collection) = self.collections[ix].as_ref() else { return };
        let Some(due) = collection.pending.iter().map(|batch| batch.due).min() else { return };
        let bytes = collection.pending.iter().map(|batch| batch.bytes as u64).sum();
        if self.any_takes_data() {
            self.enqueue(ix, bytes, due.max(now));
        } else {
            self.park(ix, why);
        }
    }

    /// A directory can be written again: what waited for one goes there.
    pub(crate) fn resume(&mut self, now: Instant) {
        for ix in 0..self.collections.len() {
            if self.collections[ix].as_ref().is_some_and(|collection| collection.is_parked()) {
                self.queue_again(ix, "no directory can be written", now);
            }
        }
        for fact in std::mem::take(&mut self.parked_facts) {
            self.queue_fact(0, fact, now);
        }
        self.look_at_flushing_again();
        self.freed = true;
    }

    /// Whether any directory takes entries.
    pub(super) fn any_takes_data(&self) -> bool {
        self.journals.iter().any(Journal::takes_data)
    }

    /// Nobody can be told when these entries will be durable. They stay pending: their LSNs are neither skipped nor
    /// given again.
    pub(super) fn park(&mut self, ix: ColIx, why: &str) {
        let Some(collection) = self.collections[ix].as_mut() else { return };
        collection.in_flight = None;
        collection.queued_on = None;
        let head = collection.durable_head;
        let waiters: Vec<_> = collection.pending.iter_mut().filter_map(|batch| batch.waiter.take()).collect();
        let duplicates = std::mem::take(&mut collection.duplicates);
        let (kept, hopeless): (Vec<_>, Vec<_>) =
            std::mem::take(&mut collection.truncates).into_iter().partition(|wish| wish.up_to <= head);
        collection.truncates = kept;
        for waiter in waiters.into_iter().chain(duplicates.into_iter().map(|duplicate| duplicate.waiter)) {
            self.outbox.append(waiter, Err(unknown(why)));
        }
        for wish in hopeless {
            let message = format!("LSN {} is not durable yet: {why}", wish.up_to);
            self.outbox.truncated(wish.waiter, Err(ApiError::new(Reason::NoHealthyDirectory, message)));
        }
    }

    /// The collection lives in `to` from now on, and its next frame says so.
    pub(super) fn move_home(&mut self, ix: ColIx, to: DirIx) {
        if let Some(collection) = self.collections[ix].as_mut()
            && collection.home != to
        {
            if !collection.moved {
                collection.before = (collection.home, collection.move_number);
            }
            collection.home = to;
            collection.move_number += 1;
            collection.moved = true;
        }
    }

    /// While stopping: whether another directory still has to commit something, which would come here if it failed.
    pub(super) fn others_commit(&self, dir: DirIx) -> bool {
        let commits = |journal: &Journal| {
            let carries = journal.in_flight.as_ref().is_some_and(super::journal::InFlight::carries);
            !journal.stream.over && (carries || !journal.queue.is_empty() || !journal.facts.is_empty())
        };
        self.journals.iter().enumerate().any(|(ix, journal)| ix != dir && commits(journal))
    }

    /// While stopping: whoever waited for another directory, or for a flush, to be done looks again.
    pub(super) fn close_in_turn(&mut self) {
        if self.stage == Stage::Stopping {
            self.signal_all();
        }
    }
}
