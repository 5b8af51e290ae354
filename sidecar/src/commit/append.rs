//! Taking appends: judge, assign LSNs, encode once, queue. Everything that can refuse a request does so before the first
//! LSN is assigned.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::answer::{AppendWaiter, unknown};
use super::collection::{ColIx, Collection, DirIx, DuplicateWaiter, PendingBatch};
use super::journal::Journal;
use super::log::{Log, Stage};
use super::producers::{LastRequest, Stamp};
use crate::api::{Ack, Append, Appended, CompletionQueue};
use crate::error::{ApiError, Reason};
use crate::format::limits::{GROUP_CUT, HEADER_OVERHEAD, MAX_BATCH_ENCODED, MAX_ENTRY, MAX_FRAME};
use crate::format::record::{self, Fields, Kind};
use crate::types::{Epoch, Incarnation, Lsn};

/// What becomes of a request that was not refused for good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It will be answered.
    Accepted,
    /// Not now: memory or journal space is used up. Nothing happened; try again when some is freed.
    Wait(ApiError),
}

/// Who appended, and when.
pub(crate) struct Caller<'a> {
    pub(crate) answers: &'a Arc<CompletionQueue>,
    pub(crate) token: u64,
    pub(crate) now: Instant,
    /// Microseconds since 1970.
    pub(crate) wall_micros: i64,
}

/// Checks what needs no state: sizes and the stamp.
///
/// # Errors
/// INVALID_REQUEST, ENTRY_TOO_LARGE.
pub(crate) fn check_request(request: &Append) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::new(Reason::InvalidRequest, message));
    if request.entries.is_empty() {
        return invalid("entries is empty: a batch has at least one entry".into());
    }
    if let Some(stamp) = &request.producer {
        if stamp.id.is_empty() || stamp.id.len() > 64 {
            return invalid(format!("producer_id has {} bytes: 1 to 64 are allowed", stamp.id.len()));
        }
        if stamp.seq == 0 {
            return invalid("producer_seq is 0: sequences start at 1".into());
        }
        if i64::try_from(stamp.seq).is_err() {
            return invalid(format!("producer_seq is {}: at most {} is allowed", stamp.seq, i64::MAX));
        }
    }
    for (index, entry) in request.entries.iter().enumerate() {
        let headers: usize = entry.headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD).sum();
        let size = entry.payload.len() + entry.key.as_ref().map_or(0, Bytes::len) + headers;
        if size > MAX_ENTRY {
            return Err(ApiError::new(
                Reason::EntryTooLarge,
                format!(
                    "entry {index} has {size} bytes (payload + key + name, value and {HEADER_OVERHEAD} for each header): \
                     at most {MAX_ENTRY} are allowed; split it"
                ),
            ));
        }
    }
    Ok(())
}

/// The encoded form of a request at its place.
struct Encoder<'a> {
    request: &'a Append,
    incarnation: Incarnation,
    first: Lsn,
    timestamp: i64,
    epoch: Epoch,
}

impl<'a> Encoder<'a> {
    fn lsn(&self, index: usize) -> Lsn {
        Lsn(self.first.0 + index as u64)
    }

    fn last(&self) -> Lsn {
        self.lsn(self.request.entries.len() - 1)
    }

    fn fields(&self, index: usize) -> Fields<'a> {
        let entry = &self.request.entries[index];
        let stamp = self.request.producer.as_ref();
        Fields {
            kind: Kind::Data,
            collection_id: self.request.collection.as_str(),
            incarnation: self.incarnation,
            lsn: self.lsn(index),
            timestamp: self.timestamp,
            key: entry.key.as_deref(),
            producer_id: stamp.map_or(&[], |stamp| &stamp.id),
            producer_seq: stamp.map_or(0, |stamp| stamp.seq),
            batch_end: if self.request.entries.len() > 1 { self.last() } else { Lsn::ZERO },
            ext: &[],
            epoch: self.epoch,
            payload: &entry.payload,
        }
    }

    fn headers(&self, index: usize) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> {
        self.request.entries[index].headers.iter().map(|(name, value)| (name.as_str(), &value[..]))
    }

    fn len(&self, index: usize) -> usize {
        record::encoded_len(&self.fields(index), self.headers(index))
    }

    fn total(&self) -> usize {
        (0..self.request.entries.len()).map(|index| self.len(index)).sum()
    }
}

impl Log {
    /// Takes one request that passed [`check_request`].
    ///
    /// # Errors
    /// Whatever refuses it for good; nothing was assigned then.
    pub(crate) fn append(&mut self, request: &Append, caller: &Caller<'_>) -> Result<Admission, ApiError> {
        self.check_open()?;
        let known = self.by_name.get(&request.collection);
        if let (Some(ix), Some(stamp)) = (known, &request.producer) {
            let judged = self.get(ix).producers.judge(&stamp.id, stamp.seq);
            match judged {
                Stamp::New => {}
                Stamp::Last(last) => return self.answer_duplicate(ix, request.ack, Some(last), last.last(), caller),
                Stamp::Older(before) => {
                    return self.answer_duplicate(ix, request.ack, None, Lsn(before.0.saturating_sub(1)), caller);
                }
                Stamp::Skipped(last) => {
                    return Err(ApiError::new(
                        Reason::OutOfSequence,
                        format!(
                            "producer_seq {} follows {last} of this producer: the next is {}; send what is missing first",
                            stamp.seq,
                            last + 1
                        ),
                    )
                    .with("lastSeq", last));
                }
            }
        }
        let home = match known {
            Some(ix) => self.check_appendable(ix)?,
            None => self.home_of_new(request)?,
        };
        let (incarnation, first) = match known {
            Some(ix) => (self.get(ix).incarnation, self.get(ix).assigned_head.next()),
            // What it will be, if nothing refuses the request.
            None => (Incarnation(self.next_incarnation), Lsn(1)),
        };
        let epoch = self.identity.epoch;
        let encoder = Encoder { request, incarnation, first, timestamp: caller.wall_micros, epoch };
        let total = encoder.total();
        if total > MAX_BATCH_ENCODED {
            return Err(ApiError::new(
                Reason::BatchTooLarge,
                format!("the batch has {total} bytes encoded: at most {MAX_BATCH_ENCODED} are allowed; split it"),
            ));
        }
        if let Some(refused) = self.room_for(known, home, total, request.entries.len(), caller.now) {
            return Ok(Admission::Wait(refused));
        }
        let ix = match known {
            Some(ix) => ix,
            None => {
                let placement = self.next_placement();
                let incarnation = self.new_incarnation();
                self.insert(Collection::new(request.collection.clone(), incarnation, home, placement))
            }
        };
        self.assign(ix, &encoder, total, caller);
        Ok(Admission::Accepted)
    }

    /// A collection that is known to be there.
    pub(super) fn get(&self, ix: ColIx) -> &Collection {
        #[allow(clippy::expect_used, reason = "indices come from by_name, which holds live collections only")]
        self.collections[ix].as_ref().expect("indexed collections are there")
    }

    /// Answers a request that was sent before, at once or when the original is durable.
    fn answer_duplicate(
        &mut self,
        ix: ColIx,
        ack: Ack,
        original: Option<LastRequest>,
        until: Lsn,
        caller: &Caller<'_>,
    ) -> Result<Admission, ApiError> {
        let (first, last) = original.map_or((Lsn::ZERO, Lsn::ZERO), |request| (request.first, request.last()));
        let waiter = AppendWaiter::new(caller.answers, caller.token);
        let duplicate = DuplicateWaiter { until, first, last, ack, waiter };
        let collection = self.get(ix);
        if ack == Ack::Buffered || collection.durable_head >= until || mutant!(DuplicateAnsweredEarly) {
            self.answer_one_duplicate(ix, duplicate);
        } else if collection.is_parked() {
            let why = unknown("the original has its LSNs, and no directory can be written now");
            self.outbox.append(duplicate.waiter, Err(why));
        } else if let Some(collection) = self.collections[ix].as_mut() {
            collection.duplicates.push(duplicate);
        }
        Ok(Admission::Accepted)
    }

    /// The answer to a duplicate whose original is as durable as asked for.
    pub(super) fn answer_one_duplicate(&mut self, ix: ColIx, duplicate: DuplicateWaiter) {
        let directory = self.url(self.commit_journal(self.get(ix).home));
        let DuplicateWaiter { until: _, first, last, ack, waiter } = duplicate;
        let epoch = self.identity.epoch;
        let answer = Appended { first_lsn: first, last_lsn: last, ack, epoch, duplicate: true, directory };
        self.outbox.append(waiter, Ok(answer));
    }

    /// Where the next group of a known collection would go.
    fn check_appendable(&mut self, ix: ColIx) -> Result<DirIx, ApiError> {
        let dir = self.commit_journal(self.get(ix).home);
        if self.journals[dir].takes_data() {
            return Ok(dir);
        }
        self.rescue().ok_or_else(|| self.no_directory("entries"))
    }

    /// Why nothing can be appended.
    fn no_directory(&self, of: &str) -> ApiError {
        let states: Vec<String> =
            self.journals.iter().map(|journal| format!("{} {}", journal.url, journal.condition())).collect();
        let message = format!("no directory takes {of} now: {}", states.join(", "));
        ApiError::new(Reason::NoHealthyDirectory, message)
    }

    /// A directory that takes what lived in one that cannot be written: one that takes no new collections is better than
    /// none.
    fn rescue(&self) -> Option<DirIx> {
        self.placeable().next().or_else(|| self.journals.iter().position(Journal::takes_data))
    }

    /// Where a group without affinity may go: nowhere else where one directory takes all commits.
    fn placeable(&self) -> impl Iterator<Item = DirIx> {
        let one_takes_all = self.journals.iter().any(|journal| journal.takes_all_commits && journal.takes_data());
        self.journals
            .iter()
            .enumerate()
            .filter_map(move |(ix, journal)| (journal.takes_collections() && !one_takes_all).then_some(ix))
    }

    /// Chooses the home of a new collection.
    fn home_of_new(&mut self, request: &Append) -> Result<DirIx, ApiError> {
        let turn = self.placements + 1;
        // A home without room first: it waits for room, like any other append.
        let home = self
            .place(&request.collection, turn, None, GROUP_CUT as u64)
            .or_else(|| self.place(&request.collection, turn, None, 0))
            .or_else(|| self.journals.iter().position(Journal::takes_collections));
        home.ok_or_else(|| self.no_directory("new collections"))
    }

    /// Whether memory and journal have room; if not, what to tell a caller who cannot wait any longer.
    fn room_for(
        &mut self,
        known: Option<ColIx>,
        home: DirIx,
        bytes: usize,
        entries: usize,
        now: Instant,
    ) -> Option<ApiError> {
        let buffer = match known {
            Some(ix) => self.get(ix).buffer.growth(bytes),
            None => super::buffer::EntryBuffer::default().growth(bytes),
        };
        let growth = (buffer + entries * size_of::<u32>()) as u64;
        // A batch too large for a group may go one frame's worth above the bound: one, not one after the other.
        let alone = bytes > GROUP_CUT && self.memory_used <= self.settings.memory_limit;
        let allowance = if alone { MAX_FRAME as u64 } else { 0 };
        let limit = self.settings.memory_limit + allowance;
        if self.memory() + growth > limit {
            self.memory_refused(growth);
            return Some(self.memory_refusal());
        }
        let dir = self.commit_journal(home);
        let room = |ix: DirIx| self.journals[ix].takes_data() && self.journals[ix].has_room(bytes as u64);
        let free = !self.settings.affinity || known.is_some_and(|ix| self.commit_journal(self.get(ix).home) != dir);
        let elsewhere = free && self.placeable().any(room);
        if room(dir) || elsewhere {
            return None;
        }
        let others: Vec<DirIx> = if self.settings.affinity { Vec::new() } else { self.placeable().collect() };
        for ix in others.into_iter().chain([dir]) {
            let journal = &mut self.journals[ix];
            journal.pressed = true;
            journal.look_for_free = true;
            journal.signalled = true;
            journal.flusher.clean |= journal.used_bytes() <= journal.cleaning_mark();
        }
        self.signal_flushers();
        let journal = &mut self.journals[dir];
        let message = if journal.disk_has_room(bytes as u64) {
            let blocked = journal.flusher.blocked.as_ref();
            let blocked = blocked.map(|(_, why)| format!(" (it cannot be emptied into segments: {why})"));
            format!(
                "the journal of {} uses {} of {} bytes{}: truncate what is applied, or raise journal_max_bytes",
                journal.url,
                journal.journal_bytes(),
                journal.journal_max,
                blocked.unwrap_or_default()
            )
        } else {
            let why = format!("{bytes} bytes more would use its file system above 95 %");
            journal.is_full(why, false, now);
            format!("the file system of {} is full: truncate what is applied, or make room", journal.url)
        };
        let error = ApiError::new(Reason::JournalFull, message)
            .with("usedBytes", journal.journal_bytes())
            .with("limitBytes", journal.journal_max);
        Some(error)
    }

    /// Gives the request its LSNs, encodes it into the collection's buffer and queues it.
    fn assign(&mut self, ix: ColIx, encoder: &Encoder<'_>, total: usize, caller: &Caller<'_>) {
        let (request, epoch) = (encoder.request, self.identity.epoch);
        let (first, last) = (encoder.first, encoder.last());
        let Some(collection) = self.collections[ix].as_mut() else { return };
        let before = collection.memory();
        for index in 0..request.entries.len() {
            collection.buffer.push(encoder.lsn(index), encoder.len(index), |out| {
                record::encode(out, &encoder.fields(index), encoder.headers(index));
            });
        }
        collection.assigned_head = last;
        let stamp = request.producer.as_ref().map(|stamp| {
            let sent = LastRequest { seq: stamp.seq, first, count: request.entries.len() as u64 };
            collection.producers.assigned(&stamp.id, sent);
            (Bytes::copy_from_slice(&stamp.id), sent)
        });
        // Producers may be forgotten for a new one: the sum may shrink.
        self.memory_used = self.memory_used + collection.memory() as u64 - before as u64;
        let home = collection.home;
        self.look_at_memory();
        let waiter = AppendWaiter::new(caller.answers, caller.token);
        let waiter = match request.ack {
            Ack::Durable => Some(waiter),
            Ack::Buffered => {
                let directory = self.url(self.commit_journal(home));
                let (ack, duplicate) = (Ack::Buffered, false);
                let answer = Appended { first_lsn: first, last_lsn: last, ack, epoch, duplicate, directory };
                self.outbox.append(waiter, Ok(answer));
                None
            }
        };
        let due = match request.ack {
            Ack::Durable => caller.now,
            Ack::Buffered => caller.now + self.settings.buffered_interval,
        };
        if let Some(collection) = self.collections[ix].as_mut() {
            collection.pending.push_back(PendingBatch { first, last, bytes: total, due, stamp, waiter });
        }
        self.enqueue(ix, total as u64, due);
    }

    /// Puts a collection with pending batches into the queue of the directory that takes its next group. `added` bytes
    /// have just come.
    pub(super) fn enqueue(&mut self, ix: ColIx, added: u64, due: Instant) {
        let collection = self.get(ix);
        if let Some(dir) = collection.queued_on {
            self.journals[dir].pending_bytes += added;
            self.wake_at(dir, due);
            return;
        }
        if let Some(dir) = collection.in_flight.filter(|_| !mutant!(TwoGroupsInFlight)) {
            // Queued again when its group is done; until then its bytes wait where the group is.
            self.journals[dir].pending_bytes += added;
            return;
        }
        let Some(dir) = self.next_directory(ix, added) else {
            return self.park(ix, "no directory can be written");
        };
        if let Some(collection) = self.collections[ix].as_mut() {
            collection.queued_on = Some(dir);
        }
        let journal = &mut self.journals[dir];
        journal.pending_bytes += added;
        journal.queue.push_back(ix);
        self.wake_at(dir, due);
    }

    /// A full group does not wait for its time.
    fn wake_at(&mut self, dir: DirIx, due: Instant) {
        let journal = &mut self.journals[dir];
        journal.due(due);
        if journal.pending_bytes >= journal.group_cut() as u64 {
            journal.commit_at = journal.commit_at.map(|at| at.min(journal.last_commit));
        }
    }

    /// Where the next group of a collection goes: home, or without affinity wherever placement says now. Where home
    /// cannot be written, it moves. `None`: nothing can be written.
    fn next_directory(&mut self, ix: ColIx, bytes: u64) -> Option<DirIx> {
        let (home, name) = (self.get(ix).home, self.get(ix).name.clone());
        let commit = self.commit_journal(home);
        let fixed = self.settings.affinity || self.stage == Stage::Stopping || self.journals[commit].takes_all_commits;
        let leaves = self.journals[commit].draining && self.placeable().next().is_some();
        if fixed && !leaves && self.journals[commit].takes_data() {
            return Some(commit);
        }
        self.turn += 1;
        let stays = self.journals[home].takes_data() && !leaves;
        let placed = self
            .place(&name, self.turn, Some(home), bytes)
            .or_else(|| stays.then_some(home))
            .or_else(|| self.rescue())?;
        if !stays {
            self.move_home(ix, placed);
        } else if let Some(collection) = self.collections[ix].as_mut() {
            collection.home = placed;
        }
        Some(placed)
    }
}
