//! What comes back from the disks: a frame became durable, a write failed, files are gone, the journal was listed.

use std::time::{Duration, Instant};

use super::answer::unknown;
use super::collection::{ColIx, DirIx, PendingBatch, TruncateWish};
use super::frames::IDLE;
use super::journal::{Closing, Fact, FrameKind, Group, InFlight, Journal, Opening, SlotUse};
use super::log::{Log, Stage, Tombstone};
use super::pace::WEIGHT;
use super::wear::Wear;
use crate::api::{Ack, Appended};
use crate::format::StreamKey;
use crate::types::{Incarnation, Lsn};

/// A frame that is written and synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Its bytes in the file.
    pub(crate) len: u64,
    pub(crate) crc: u32,
    /// Write and sync.
    pub(crate) took: Duration,
    /// The reserve that stood in the job is written too.
    pub(crate) reserved: bool,
}

/// Why work could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// ENOSPC, EDQUOT.
    Full(String),
    /// ENOSPC, EDQUOT while the frame's file was made: nothing of the frame is written, and nothing is at the file's place.
    NoFile(String),
    /// Anything else, short writes included.
    Failed(String),
    /// The first file of our stream exists: somebody else made it.
    Fenced(String),
}

/// What a durable frame held, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) entries: u64,
    pub(crate) acks: u64,
    /// A stream began, or who the members are was stated: others may wait for it.
    pub(crate) opening: bool,
}

impl Log {
    /// The frame in flight of the stream `key` is durable. Void when that stream is over.
    pub(crate) fn committed(&mut self, dir: DirIx, key: StreamKey, done: Committed, now: Instant) -> Tally {
        if self.is_over(dir, key) {
            self.came_back(dir);
            return Tally::default();
        }
        self.tick += 1;
        let tick = self.tick;
        let Some(in_flight) = self.journals[dir].in_flight.take() else { return Tally::default() };
        let opening = self.stage == Stage::Opening;
        if in_flight.carries() {
            self.evacuate_more(dir);
        }
        let InFlight {
            kind,
            built,
            ticks: _,
            states,
            place,
            begins,
            held: _,
            spare,
            floor,
            oldest,
            groups,
            copies,
            truncates,
            deletes,
            flushed,
        } = in_flight;
        let acks_before = self.outbox.acks();
        let journal = &mut self.journals[dir];
        journal.stream.advance(place, done.len, done.crc);
        if place.new_file {
            let begun = SlotUse::begun(place.file, key.session, built, spare);
            journal.slots.push_back(SlotUse { upkeep: true, ..begun });
        }
        if let Some(slot) = journal.slots.back_mut() {
            slot.upkeep &= kind.is_upkeep();
            let before = if place.new_file && spare.is_none() { 0 } else { slot.len };
            slot.bytes += done.len;
            slot.len = slot.len.max(slot.bytes);
            if journal.of_objects {
                (slot.bytes, slot.len) = (slot.bytes.max(WEIGHT), slot.len.max(WEIGHT));
            }
            let grown = slot.len - before;
            slot.last_frame = journal.stream.durable_frame;
            journal.grew(grown, now);
        }
        if place.new_file && !journal.of_objects {
            // At each rotation: does somebody else write here?
            journal.list_at = now;
            journal.upkeep_signalled = true;
        }
        if let Some(job) = begins.and_then(|job| job.reserve).filter(|_| done.reserved) {
            journal.reserve_begun(&job, now);
        }
        journal.last_commit = now;
        journal.synced = tick;
        journal.stated = journal.stated.max(states);
        let counted = if journal.of_objects { done.len.max(WEIGHT) } else { done.len };
        journal.since_checkpoint = journal.since_checkpoint.saturating_add(counted);
        journal.proven = journal.of_objects || matches!(kind, FrameKind::Empty | FrameKind::Clean);
        self.free_files(dir, floor, oldest);
        let mut entries = 0;
        for group in groups {
            entries += self.group_durable(dir, group, now);
        }
        for (ix, incarnation, wishes) in truncates {
            self.truncates_durable(ix, incarnation, wishes);
        }
        for note in flushed {
            self.flushed_said(dir, note, now);
        }
        for (name, incarnation, waiter) in deletes {
            self.sweep_after(&name, incarnation);
            // The deletion of an earlier life may be durable after that of a later one.
            let before = self.tombstones.get(&name).filter(|_| !mutant!(TombstonesOverwritten));
            let latest = before.map_or(incarnation, |before| before.incarnation.max(incarnation));
            self.tombstones.insert(name, Tombstone { incarnation: latest, tick });
            if let Some(waiter) = waiter {
                self.outbox.deleted(waiter, Ok(incarnation));
            }
            if let Some(&ix) = self.by_incarnation.get(&incarnation) {
                if let Some(collection) = self.collections[ix].as_mut() {
                    collection.delete_durable = true;
                }
                self.doom_all(ix);
                self.reap(ix);
            }
        }
        let journal = &mut self.journals[dir];
        match kind {
            FrameKind::Normal | FrameKind::Empty => {}
            FrameKind::CheckpointPart | FrameKind::Copies => journal.yield_to_normal = true,
            FrameKind::CheckpointEnd => {
                journal.yield_to_normal = false;
                if let Some(checkpoint) = journal.checkpoint.take() {
                    journal.stream.floor = journal.stream.floor.max(checkpoint.floor);
                    journal.stream.oldest = journal.stream.oldest.max(checkpoint.oldest);
                    journal.checkpointed = checkpoint.since;
                    journal.checkpoint_size = checkpoint.bytes;
                    journal.since_checkpoint = 0;
                    if mutant!(FreedBeforeFloor) {
                        self.free_files(dir, checkpoint.floor, checkpoint.oldest);
                    }
                }
            }
            FrameKind::Clean => journal.closing = Closing::CleanWritten,
            FrameKind::Opening => {
                // A later session joins those that serve.
                let first = journal.opening == Opening::First && key.session == 0;
                journal.opening = if first { Opening::FirstDone } else { Opening::Done };
                journal.upkeep_signalled = true;
                self.opened();
                if key.session > 0 && self.journals[dir].takes_facts() {
                    self.revived(dir, now);
                }
            }
        }
        if states > 0 {
            self.stated(now);
        }
        if !copies.is_empty() || states > 0 || kind == FrameKind::CheckpointEnd {
            self.copied(dir, copies, now);
        }
        if self.stage == Stage::Opening {
            // The last of what recovery left in the journals may be in segments now.
            self.opened();
        }
        self.close_in_turn();
        if place.new_file && self.journals[dir].used_bytes() > self.journals[dir].cleaning_mark() {
            self.signal_flushers();
        }
        let acks = self.outbox.acks() - acks_before;
        if entries > 0 {
            self.journals[dir].pool.taken += done.len;
            self.journals[dir].measured(done.took.as_secs_f64() * 1e6, acks, now);
        }
        let opened = opening && self.stage != Stage::Opening;
        Tally { entries, acks, opening: opened || kind == FrameKind::Opening || states > 0 }
    }

    /// Everything a durable frame declared gone goes.
    fn free_files(&mut self, dir: DirIx, floor: u64, oldest: StreamKey) {
        let journal = &mut self.journals[dir];
        let used = journal.used_bytes();
        journal.acked_floor = journal.acked_floor.max(floor);
        journal.acked_oldest = journal.acked_oldest.max(oldest);
        let key = journal.stream.key;
        while journal.slots.len() > 1
            && let Some(slot) = journal.slots.pop_front_if(|slot| slot.last_frame <= journal.acked_floor)
        {
            let name = crate::format::names::SlotName { key, file: slot.file };
            journal.discard(name.to_string(), slot.len, slot.wear);
        }
        let acked = journal.acked_oldest;
        let (gone, kept) = std::mem::take(&mut journal.old).into_iter().partition(|old| old.key < acked);
        journal.old = kept;
        let gone: Vec<super::journal::OldStream> = gone;
        for old in gone {
            for (name, bytes) in old.files {
                if old.key.epoch < key.epoch {
                    journal.discard(name, bytes, Wear::default());
                } else {
                    // Which numbers it had is not known any more.
                    journal.garbage.push((name, bytes));
                    journal.upkeep_signalled = true;
                }
            }
        }
        // What is kept to be used again makes room at once, what is to be removed when it is.
        self.freed |= journal.used_bytes() < used && !mutant!(KeptFilesUnsaid);
    }

    /// One collection's part of a durable frame; answers the number of entries.
    fn group_durable(&mut self, dir: DirIx, group: Group, now: Instant) -> u64 {
        let Group { collection: ix, announces, creates, bytes, batches } = group;
        let directory = self.url(dir);
        let epoch = self.identity.epoch;
        let Some(collection) = self.collections[ix].as_mut() else { return 0 };
        let before = collection.durable_head;
        for batch in batches {
            let PendingBatch { first, last, bytes: _, due: _, stamp, waiter } = batch;
            collection.durable_head = last;
            if let Some((id, request)) = stamp {
                collection.producers.durable(&id, request);
            }
            if let Some(waiter) = waiter {
                let (ack, directory) = (Ack::Durable, directory.clone());
                let answer = Appended { first_lsn: first, last_lsn: last, ack, epoch, duplicate: false, directory };
                self.outbox.append(waiter, Ok(answer));
            }
        }
        let head = collection.durable_head;
        collection.in_flight = None;
        if collection.delete_durable
            && let Some(tombstone) = self.tombstones.get_mut(&collection.name)
        {
            // What was under way when the deletion became durable lies in a younger file than the deletion.
            tombstone.tick = self.tick;
        }
        collection.changed.notify_waiters();
        let incarnation = collection.incarnation;
        let (answered, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut collection.duplicates).into_iter().partition(|duplicate| duplicate.until <= head);
        collection.duplicates = later;
        let truncates = !collection.truncate_queued && collection.truncates.iter().any(|wish| wish.up_to <= head);
        let pending = !collection.pending.is_empty();
        for duplicate in answered {
            self.answer_one_duplicate(ix, duplicate);
        }
        let journal = &mut self.journals[dir];
        journal.pending_bytes = journal.pending_bytes.saturating_sub(bytes as u64);
        if let Some(slot) = journal.slots.back_mut() {
            slot.heads.insert(incarnation, head);
            slot.firsts.entry(incarnation).or_insert(before.next());
        }
        if announces {
            self.announce_elsewhere(dir, ix, incarnation, now);
        }
        if announces && !creates && !mutant!(MovesSaidOnce) {
            self.say_again(dir, ix, incarnation, now);
        }
        if truncates {
            self.queue_truncate(ix, now);
        }
        if pending {
            self.requeue(ix, dir, now);
        }
        self.reap(ix);
        self.look_whether_due(ix, now);
        self.nudge_flusher(ix);
        head.0 - before.0
    }

    /// Queues a collection that got more while its group was in flight; without affinity perhaps elsewhere.
    fn requeue(&mut self, ix: ColIx, from: DirIx, now: Instant) {
        let bytes: u64 = self.get(ix).pending.iter().map(|batch| batch.bytes as u64).sum();
        let journal = &mut self.journals[from];
        journal.pending_bytes = journal.pending_bytes.saturating_sub(bytes);
        let due = self.get(ix).pending.iter().map(|batch| batch.due).min().unwrap_or(now);
        self.enqueue(ix, bytes, due);
    }

    /// Tells the other directories of a new collection, without waiting: in their next frame.
    pub(super) fn announce_elsewhere(&mut self, dir: DirIx, ix: ColIx, incarnation: Incarnation, now: Instant) {
        for (other, journal) in self.journals.iter_mut().enumerate() {
            if other != dir && journal.is_healthy() {
                journal.facts.push_back(Fact::Announce(ix, incarnation));
                journal.due(now + IDLE);
            }
        }
    }

    /// A move that only one frame says is lost with it, and nobody knows whose entries that had: the next frame says it too, and is
    /// written at once.
    fn say_again(&mut self, dir: DirIx, ix: ColIx, incarnation: Incarnation, now: Instant) {
        let journal = &mut self.journals[dir];
        journal.facts.push_front(Fact::Announce(ix, incarnation));
        journal.yield_to_normal = true;
        journal.due(now);
    }

    fn truncates_durable(&mut self, ix: ColIx, incarnation: Incarnation, wishes: Vec<TruncateWish>) {
        let to = wishes.iter().map(|wish| wish.up_to).max().unwrap_or(Lsn::ZERO);
        let mut truncated_to = to;
        if let Some(collection) = self.live(ix, incarnation) {
            let freed = collection.truncate_to(to) as u64;
            truncated_to = collection.truncated_to;
            collection.changed.notify_waiters();
            self.answer_flushes(ix);
            self.doom_dead(ix);
            self.look_for_rewrites(ix);
            self.memory_used -= if mutant!(MemoryNotFreed) { 0 } else { freed };
            self.freed = true;
            for journal in &mut self.journals {
                journal.look_for_free |= journal.pressed;
                journal.signalled |= journal.pressed;
            }
        }
        for wish in wishes {
            self.outbox.truncated(wish.waiter, Ok(truncated_to));
        }
    }

    fn all_are_at(&self, step: &[Opening]) -> bool {
        self.journals.iter().all(|journal| !journal.is_healthy() || step.contains(&journal.opening))
    }

    /// Whether every directory that can be written has its first frames.
    pub(super) fn all_opened(&self) -> bool {
        self.all_are_at(&[Opening::Done])
    }

    /// When every directory has done its part of the start, the next part begins, then what recovery left in the journals
    /// goes to segments, then service.
    pub(super) fn opened(&mut self) {
        if self.all_are_at(&[Opening::FirstDone, Opening::Done]) {
            let newcomers = self.journals.iter().any(|journal| journal.is_healthy() && !journal.in_use);
            for journal in &mut self.journals {
                if journal.is_healthy() && journal.opening == Opening::FirstDone {
                    journal.opening = if newcomers { Opening::Second } else { Opening::Done };
                    (journal.signalled, journal.upkeep_signalled) = (true, true);
                }
            }
        }
        if self.stage == Stage::Opening && self.all_opened() {
            for journal in &mut self.journals {
                journal.in_use |= journal.is_healthy();
                // What failed on the way is probed from now on.
                journal.upkeep_signalled = true;
            }
            if !self.has_shelves() || mutant!(ShelvesNotAwaited) {
                self.stage = Stage::Serving;
                tracing::info!("serving");
            }
            self.signal_flushers();
        }
        if self.stage != Stage::Opening && self.journals.iter().any(Journal::takes_facts) {
            // What recovery decided is durable.
            (self.opening_records, self.opening_record_count) = (Vec::new(), 0);
        }
    }

    /// Another process owns the writer: nothing more is written, everything under way is unknown.
    pub(crate) fn fence(&mut self, why: String) {
        self.abandon(&why);
        self.stage = Stage::Fenced(why);
    }

    /// Nothing more will be written: whoever still waits learns that the outcome is unknown.
    pub(crate) fn abandon(&mut self, why: &str) {
        for dir in 0..self.journals.len() {
            let journal = &mut self.journals[dir];
            journal.queue.clear();
            journal.facts.clear();
            journal.checkpoint = None;
            journal.commit_at = None;
            if let Some(in_flight) = journal.in_flight.take() {
                for waiter in in_flight.groups.into_iter().flat_map(|g| g.batches).filter_map(|batch| batch.waiter) {
                    self.outbox.append(waiter, Err(unknown(why)));
                }
            }
        }
        for ix in 0..self.collections.len() {
            self.park(ix, why);
            if let Some(collection) = self.collections[ix].as_mut() {
                // The senders go away: their callers learn UNKNOWN_OUTCOME.
                collection.truncates.clear();
                collection.flush.wishes.clear();
                collection.changed.notify_waiters();
            }
        }
        self.parked_facts.clear();
        self.freed = true;
        for journal in &mut self.journals {
            (journal.signalled, journal.upkeep_signalled, journal.flusher.signalled) = (true, true, true);
        }
    }
}
