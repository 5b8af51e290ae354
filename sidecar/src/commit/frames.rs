//! What a directory does next: [`Log::poll`] looks at everything that waits and answers one piece of work; the caller
//! carries it out and reports it ([`super::outcome`]). At most one piece is under way per directory.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::collection::{ColIx, DirIx};
use super::copies::Copied;
use super::journal::{Closing, Fact, FlushedNote, FrameKind, Group, InFlight, Opening};
use super::log::{Log, Stage};
use super::reserve::ReserveJob;
use super::segments::Segment;
use super::stream::Place;
use crate::format::facts::{self, EpochFact, Fact as _, Member, Subject};
use crate::format::frame::{FLAG_CLEAN_SHUTDOWN, FLAG_CONTROL_ONLY, FrameBuilder, FrameHeader};
use crate::format::limits::GROUP_CUT;
use crate::format::{Marker, StreamKey};
use crate::types::{CollectionName, Incarnation, Lsn};

/// The last frame is proven by an empty one after this long without a commit; the journal is listed this often.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// A frame to write: the builder holds its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameJob {
    /// The stream it belongs to: the report names it, and counts only while that stream is not over.
    pub(crate) key: StreamKey,
    pub(crate) place: Place,
    pub(crate) header: FrameHeader,
    /// The marker of the new file where that is a spare, stamped already; else it is made for this frame.
    pub(crate) prepared: Option<Marker>,
    /// To be written behind the frame, before that is reported.
    pub(crate) reserve: Option<ReserveJob>,
}

/// What to do for a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Write what the builder holds, sync, report to [`Log::committed`] or [`Log::failed`].
    Frame(FrameJob),
    /// Nothing until something is queued, or until then.
    Wait(Option<Instant>),
    /// Nothing ever again.
    End,
}

/// The records of a frame being put together, before the builder has them.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) bytes: Vec<u8>,
    records: u64,
    pub(super) in_flight: Option<InFlight>,
}

impl Draft {
    pub(super) fn add(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> usize) {
        encode(&mut self.bytes);
        self.records += 1;
    }
}

impl Log {
    /// What `dir` does next. While a frame is in flight: wait.
    pub(crate) fn poll(&mut self, dir: DirIx, now: Instant, builder: &mut FrameBuilder) -> Work {
        let work = self.next_work(dir, now, builder);
        if matches!(work, Work::Frame(_)) {
            self.paced(dir, now);
        }
        work
    }

    fn next_work(&mut self, dir: DirIx, now: Instant, builder: &mut FrameBuilder) -> Work {
        let journal = &self.journals[dir];
        if matches!(self.stage, Stage::Fenced(_)) || journal.closing == Closing::Closed {
            return Work::End;
        }
        if journal.stream.over {
            // Until the next session begins.
            return if self.stage == Stage::Stopping { Work::End } else { Work::Wait(None) };
        }
        if journal.in_flight.is_some() {
            return self.held_frame(dir);
        }
        match journal.opening {
            Opening::First | Opening::Second => return self.opening_frame(dir, builder),
            Opening::FirstDone => return Work::Wait(None),
            Opening::Done => {}
        }
        if let Some(at) = self.pace(dir, now) {
            return Work::Wait(Some(at));
        }
        let stopping = self.stage == Stage::Stopping;
        if !self.journals[dir].queue.is_empty() && self.journals[dir].is_for_facts_only() {
            self.take_off_entries(dir, now);
        }
        let journal = &self.journals[dir];
        let work_waits = !journal.queue.is_empty() || !journal.facts.is_empty();
        let due = work_waits && (stopping || journal.commit_at.is_some_and(|at| at <= now));
        if due && (stopping || journal.yield_to_normal) {
            return self.normal_frame(dir, now, builder);
        }
        // What keeps the journal in order is not put off by a directory that is never idle: both take turns. One that came
        // back, and has not heard what happened meanwhile, is told before a stop too.
        let told = self.journals[dir].since_checkpoint < u64::MAX || mutant!(StoppedUntold);
        if !stopping || !told {
            self.maybe_start_checkpoint(dir);
            if self.journals[dir].checkpoint.is_some() {
                return self.checkpoint_frame(dir, builder);
            }
        }
        if !stopping && let Some(copies) = self.copies_frame(dir, builder) {
            return copies;
        }
        if due {
            return self.normal_frame(dir, now, builder);
        }
        let journal = &self.journals[dir];
        if stopping {
            if self.others_commit(dir) {
                return Work::Wait(None);
            }
            return self.closing_frame(dir, now, builder);
        }
        let idle_at = journal.last_commit + IDLE;
        // Files that may go wait for a frame that says so.
        let frees = journal.stream.floor > journal.acked_floor || journal.stream.oldest > journal.acked_oldest;
        if frees || (!journal.proven && idle_at <= now) {
            let draft = self.draft(dir, FrameKind::Empty);
            return self.seal(dir, draft, FLAG_CONTROL_ONLY, builder);
        }
        let proof_at = (!journal.proven).then_some(idle_at);
        let commit_at = journal.commit_at.filter(|_| work_waits);
        Work::Wait(proof_at.into_iter().chain(commit_at).min())
    }

    pub(super) fn draft(&self, dir: DirIx, kind: FrameKind) -> Draft {
        let stream = &self.journals[dir].stream;
        Draft {
            in_flight: Some(InFlight {
                kind,
                built: self.tick,
                ticks: 0,
                states: 0,
                place: Place { file: 0, offset: 0, new_file: false },
                begins: None,
                held: false,
                spare: None,
                floor: stream.floor,
                oldest: stream.oldest,
                groups: Vec::new(),
                copies: Vec::new(),
                truncates: Vec::new(),
                deletes: Vec::new(),
                flushed: Vec::new(),
            }),
            ..Draft::default()
        }
    }

    /// Puts the draft and its groups into the builder and notes what is in flight.
    pub(super) fn seal(&mut self, dir: DirIx, mut draft: Draft, flags: u32, builder: &mut FrameBuilder) -> Work {
        let Some(mut in_flight) = draft.in_flight.take() else { return Work::Wait(None) };
        let entries = |group: &Group| group.batches.iter().map(|batch| batch.last.0 - batch.first.0 + 1).sum::<u64>();
        let copied = |of: fn(&Copied) -> u64| in_flight.copies.iter().map(of).sum::<u64>();
        let data =
            in_flight.groups.iter().map(|group| group.bytes).sum::<usize>() + copied(|c| c.bytes as u64) as usize;
        let count = in_flight.groups.iter().map(entries).sum::<u64>() + copied(|copied| copied.entries);
        builder.start(draft.records + count, draft.bytes.len() + data);
        builder.push(&draft.bytes, draft.records, 0);
        for group in &in_flight.groups {
            let (Some(first), Some(last)) = (group.batches.first(), group.batches.last()) else { continue };
            let buffer = &self.get(group.collection).buffer;
            let entries = entries(group);
            builder.push_with(entries, entries as u32, |out| buffer.copy(first.first, last.last, out));
        }
        for copied in &in_flight.copies {
            let buffer = &self.get(copied.collection).buffer;
            let entries = copied.entries;
            builder.push_with(entries, entries as u32, |out| buffer.copy(copied.first, copied.last, out));
        }
        let journal = &mut self.journals[dir];
        let place = journal.stream.place(builder.slot_len() as u64, journal.file_limit());
        let control_only = if count == 0 { FLAG_CONTROL_ONLY } else { 0 };
        let header = journal.stream.header(place, flags | control_only);
        let job = FrameJob { key: journal.stream.key, place, header, prepared: None, reserve: None };
        (in_flight.place, in_flight.held) = (place, place.new_file);
        in_flight.begins = place.new_file.then(|| job.clone());
        journal.in_flight = Some(in_flight);
        if place.new_file { self.held_frame(dir) } else { Work::Frame(job) }
    }

    /// Frame 1: who is there, how the predecessors ended, what recovery decided. Frame 2: new members are in use.
    fn opening_frame(&mut self, dir: DirIx, builder: &mut FrameBuilder) -> Work {
        let mut draft = self.draft(dir, FrameKind::Opening);
        self.draft_members(dir, &mut draft);
        if self.journals[dir].opening == Opening::First && !mutant!(DecisionsNotWritten) {
            draft.bytes.extend_from_slice(&self.opening_records);
            draft.records += self.opening_record_count;
        }
        self.seal(dir, draft, FLAG_CONTROL_ONLY, builder)
    }

    /// EPOCH: who the members are.
    pub(super) fn draft_members(&self, dir: DirIx, draft: &mut Draft) {
        let fact = self.epoch_fact(dir);
        draft.add(|out| fact.encode_record(out));
        if let Some(in_flight) = &mut draft.in_flight {
            in_flight.states = fact.version;
        }
    }

    /// The EPOCH record of a directory's stream as of now.
    fn epoch_fact(&self, dir: DirIx) -> EpochFact {
        let journal = &self.journals[dir];
        // One that is open for longer and is not in use was emptied, and stays out.
        let opens = |other: &super::journal::Journal| match other.opening {
            Opening::First => false,
            Opening::FirstDone | Opening::Second => true,
            Opening::Done => self.stage == Stage::Opening || mutant!(EmptiedBackInUse),
        };
        let first_is_durable = |other: &super::journal::Journal| opens(other) && other.is_healthy();
        EpochFact {
            key: journal.stream.key,
            run: self.identity.run,
            format: 1,
            grant: self.identity.grant,
            holder: self.identity.holder.clone(),
            members: self
                .journals
                .iter()
                .filter(|other| !other.has_left() && !self.forgotten.contains(&other.id))
                .map(|other| Member {
                    uuid: other.id.0,
                    url: other.url.as_str().to_owned(),
                    // A member is stated to be in use only when its own frame 1 is durable.
                    in_use: other.counts_as_in_use() || (journal.opening != Opening::First && first_is_durable(other)),
                })
                .collect(),
            forgotten: self.forgotten.iter().map(|id| id.0).collect(),
            closes: if mutant!(NoCloses) { Vec::new() } else { journal.closes.clone() },
            accepted: journal.accepted_damage.clone(),
            version: self.version,
            mixed: self.journals.iter().filter(|other| other.mixed).map(|other| other.id.0).collect(),
        }
    }

    /// Facts and entries that wait.
    fn normal_frame(&mut self, dir: DirIx, now: Instant, builder: &mut FrameBuilder) -> Work {
        let mut draft = self.draft(dir, FrameKind::Normal);
        self.draft_facts(dir, &mut draft);
        self.draft_groups(dir, &mut draft);
        let journal = &mut self.journals[dir];
        journal.yield_to_normal = false;
        journal.commit_at = (!journal.queue.is_empty() || !journal.facts.is_empty()).then_some(now);
        if draft.records == 0 && draft.in_flight.as_ref().is_some_and(|in_flight| in_flight.groups.is_empty()) {
            // All that waited has become void.
            return self.next_work(dir, now, builder);
        }
        self.seal(dir, draft, 0, builder)
    }

    fn draft_facts(&mut self, dir: DirIx, draft: &mut Draft) {
        while draft.bytes.len() < GROUP_CUT {
            let Some(fact) = self.journals[dir].facts.pop_front() else { break };
            let epoch = self.identity.epoch;
            match fact {
                Fact::Announce(ix, incarnation) => {
                    if self.live(ix, incarnation).is_some_and(|collection| !collection.delete_durable) {
                        self.draft_collection(ix, draft);
                    }
                }
                Fact::Members => self.draft_members(dir, draft),
                Fact::Truncate(ix, incarnation) => {
                    let Some(collection) = self.live(ix, incarnation) else { continue };
                    collection.truncate_queued = false;
                    let head = collection.durable_head;
                    let ready =
                        |wish: &super::collection::TruncateWish| wish.up_to <= head || mutant!(TruncateNotAwaited);
                    let (wishes, later): (Vec<_>, Vec<_>) =
                        std::mem::take(&mut collection.truncates).into_iter().partition(ready);
                    collection.truncates = later;
                    let Some(lsn) = wishes.iter().map(|wish| wish.up_to).max() else { continue };
                    let name = collection.name.clone();
                    if mutant!(SegmentGoneBeforeTruncation) {
                        self.doom_to(ix, lsn);
                    }
                    let subject = Subject { collection_id: name.as_str(), incarnation, lsn };
                    draft.add(|out| facts::TruncateFact { head }.encode(out, subject, epoch));
                    if let Some(in_flight) = &mut draft.in_flight {
                        in_flight.truncates.push((ix, incarnation, wishes));
                    }
                }
                Fact::Delete { name, incarnation, waiter } => {
                    let head = self
                        .by_incarnation
                        .get(&incarnation)
                        .and_then(|&ix| self.collections[ix].as_ref())
                        .map_or(Lsn::ZERO, |collection| collection.durable_head);
                    let subject = Subject { collection_id: name.as_str(), incarnation, lsn: head };
                    draft.add(|out| facts::DeleteFact.encode(out, subject, epoch));
                    if let Some(in_flight) = &mut draft.in_flight {
                        in_flight.deletes.push((name, incarnation, waiter));
                    }
                }
                Fact::Flushed(note) => {
                    let FlushedNote { collection, incarnation, name, segment } = &*note;
                    if self.live(*collection, *incarnation).is_none_or(|collection| collection.delete_durable) {
                        self.doom(name, *incarnation, segment.clone());
                        continue;
                    }
                    // A directory in which its collection does not live has not heard of it.
                    let home = self.get(*collection).home;
                    if self.commit_journal(home) != dir && self.get(*collection).announced {
                        self.draft_collection(*collection, draft);
                    }
                    self.draft_flushed(name, *incarnation, segment, draft);
                    if let Some(in_flight) = &mut draft.in_flight {
                        in_flight.flushed.push(*note);
                    }
                }
            }
        }
    }

    /// FLUSHED of one collection's part of a segment.
    pub(super) fn draft_flushed(
        &self,
        name: &CollectionName,
        incarnation: Incarnation,
        segment: &Segment,
        draft: &mut Draft,
    ) {
        let subject = Subject { collection_id: name.as_str(), incarnation, lsn: segment.last };
        let fact = segment.fact(self.journals[segment.dir].id.0);
        draft.add(|out| fact.encode(out, subject, self.identity.epoch));
    }

    /// COLLECTION and TRUNCATE of one collection, as durable as they are now.
    pub(super) fn draft_collection(&self, ix: ColIx, draft: &mut Draft) {
        self.draft_announcement(ix, draft);
        let collection = self.get(ix);
        if collection.truncated_to > Lsn::ZERO && !mutant!(CheckpointWithoutTruncates) {
            let fact = facts::TruncateFact { head: collection.durable_head };
            let (name, incarnation) = (collection.name.as_str(), collection.incarnation);
            let subject = Subject { collection_id: name, incarnation, lsn: collection.truncated_to };
            draft.add(|out| fact.encode(out, subject, self.identity.epoch));
        }
    }

    /// COLLECTION of one collection, as durable as it is now.
    pub(super) fn draft_announcement(&self, ix: ColIx, draft: &mut Draft) {
        let collection = self.get(ix);
        let (home, move_number) = collection.home_to_say();
        let fact = facts::CollectionFact {
            home: self.journals[home].id.0,
            move_number,
            placement: collection.placement,
            producers: collection
                .producers
                .durable_table()
                .map(|(id, request)| facts::Producer {
                    id: id.to_vec(),
                    last_seq: request.seq,
                    first_lsn: request.first,
                    count: request.count,
                })
                .collect(),
        };
        let subject = Subject {
            collection_id: collection.name.as_str(),
            incarnation: collection.incarnation,
            lsn: collection.durable_head,
        };
        draft.add(|out| fact.encode(out, subject, self.identity.epoch));
    }

    /// Takes batches of the queued collections in turn until the group is full; a larger batch goes alone.
    fn draft_groups(&mut self, dir: DirIx, draft: &mut Draft) {
        let cut = self.journals[dir].group_cut();
        let mut room = cut.saturating_sub(draft.bytes.len());
        let mut groups: Vec<Group> = Vec::new();
        while let Some(&ix) = self.journals[dir].queue.front() {
            let Some(collection) = self.collections[ix].as_mut() else {
                self.journals[dir].queue.pop_front();
                continue;
            };
            let mut group = Group { collection: ix, announces: false, creates: false, bytes: 0, batches: Vec::new() };
            while let Some(batch) = collection.pending.front() {
                let alone = groups.is_empty() && group.batches.is_empty();
                if batch.bytes > room && !(alone && draft.bytes.len() < cut) {
                    break;
                }
                room = room.saturating_sub(batch.bytes);
                group.bytes += batch.bytes;
                group.batches.extend(collection.pending.pop_front());
            }
            if group.batches.is_empty() && !collection.pending.is_empty() {
                break;
            }
            self.journals[dir].queue.pop_front();
            if group.batches.is_empty() {
                collection.queued_on = None;
                continue;
            }
            collection.queued_on = None;
            collection.in_flight = Some(dir);
            group.creates = !std::mem::replace(&mut collection.announced, true);
            let moved = std::mem::take(&mut collection.moved) && !mutant!(MoveNotAnnounced);
            group.announces = moved || group.creates;
            if group.announces && !mutant!(NoAnnouncement) {
                let before = draft.bytes.len();
                self.draft_announcement(ix, draft);
                room = room.saturating_sub(draft.bytes.len() - before);
            }
            groups.push(group);
        }
        if let Some(in_flight) = &mut draft.in_flight {
            in_flight.groups = groups;
        }
    }

    /// What another directory holds and this one is to hold too.
    fn copies_frame(&mut self, dir: DirIx, builder: &mut FrameBuilder) -> Option<Work> {
        let copies = self.draft_copies(dir);
        if copies.is_empty() {
            return None;
        }
        let mut draft = self.draft(dir, FrameKind::Copies);
        // Older entries behind a lost frame do not say that it held no newer ones: how far their collection goes does.
        let mut said = HashSet::new();
        for copied in copies.iter().filter(|copied| copied.announces || !mutant!(CopiesWithoutHeads)) {
            if said.insert(copied.incarnation) {
                self.draft_announcement(copied.collection, &mut draft);
            }
        }
        if let Some(in_flight) = &mut draft.in_flight {
            in_flight.copies = copies;
        }
        Some(self.seal(dir, draft, 0, builder))
    }

    /// The end of a stream: an empty frame that proves the last one, and when all is flushed the clean-shutdown frame.
    fn closing_frame(&mut self, dir: DirIx, now: Instant, builder: &mut FrameBuilder) -> Work {
        if self.journals[dir].proven && !self.flushing_is_over(now) {
            return Work::Wait(self.flush.until);
        }
        let journal = &mut self.journals[dir];
        if journal.closing == Closing::CleanWritten {
            journal.closing = Closing::Closed;
            journal.upkeep_signalled = true;
            return Work::End;
        }
        let (kind, flags) = if journal.proven {
            (FrameKind::Clean, FLAG_CLEAN_SHUTDOWN | FLAG_CONTROL_ONLY)
        } else {
            (FrameKind::Empty, FLAG_CONTROL_ONLY)
        };
        let draft = self.draft(dir, kind);
        self.seal(dir, draft, flags, builder)
    }
}
