//! A [`Log`] with directories in memory: each frame is decoded as it is built, and made durable or failed by the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;
use walstorage_crds::config::DistributionStrategy;
use walstorage_crds::url::WalUrl;

use super::segments::Files;
use crate::api::{Ack, Append, Appended, CompletionQueue, NewEntry, ProducerStamp};
use crate::commit::append::{Admission, Caller, check_request};
use crate::commit::collection::{Collection, DirIx};
use crate::commit::frames::{FrameJob, Work};
use crate::commit::journal::{Journal, OldStream};
use crate::commit::log::{Identity, Log, Settings, Stage, Start};
use crate::commit::outcome::{Committed, Failure};
use crate::commit::slots::{FillJob, Pool, StampJob};
use crate::commit::stream::Stream;
use crate::commit::upkeep::{Listing, Upkeep};
use crate::directory::disk::Space;
use crate::error::{ApiError, Reason};
use crate::format::frame::{FrameBuilder, FrameHeader};
use crate::format::header::Codec;
use crate::format::record::Kind;
use crate::format::scan::{Expected, parse_frame, parse_head};
use crate::format::{StreamId, StreamKey};
use crate::types::{CollectionName, DirectoryId, Epoch, Incarnation, Lsn};

/// A record of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rec {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    pub(super) lsn: u64,
}

/// A frame as it went to a directory.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) header: FrameHeader,
    pub(super) records: Vec<Rec>,
    pub(super) len: u64,
    crc: u32,
}

impl Seen {
    /// LSNs of the DATA of a collection.
    pub(super) fn data(&self, name: &str) -> Vec<u64> {
        self.of(Kind::Data, name)
    }

    /// What the records of one kind of a collection say.
    pub(super) fn of(&self, kind: Kind, name: &str) -> Vec<u64> {
        self.records.iter().filter(|r| r.kind == kind && r.name == name).map(|r| r.lsn).collect()
    }
}

/// How the rig is set up.
pub(super) struct Setup {
    pub(super) directories: usize,
    /// The last directory is the journal.
    pub(super) journal_url: bool,
    pub(super) affinity: bool,
    pub(super) strategy: DistributionStrategy,
    pub(super) journal_max: u64,
    pub(super) memory_limit: u64,
    pub(super) in_use: bool,
    /// Slots are filled ahead and recycled.
    pub(super) in_place: bool,
    pub(super) old: Vec<OldStream>,
    pub(super) collections: Vec<Collection>,
    pub(super) tombstones: BTreeMap<CollectionName, Incarnation>,
    /// Flush workers work.
    pub(super) flushes: bool,
    pub(super) memory_flush_size: u64,
    pub(super) segment_size: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            directories: 1,
            journal_url: false,
            affinity: true,
            strategy: DistributionStrategy::RoundRobin,
            journal_max: 64 << 20,
            memory_limit: 512 << 20,
            in_use: true,
            in_place: false,
            old: Vec::new(),
            collections: Vec::new(),
            tombstones: BTreeMap::new(),
            flushes: false,
            memory_flush_size: 1 << 20,
            segment_size: 64 << 20,
        }
    }
}

pub(super) struct Rig {
    pub(super) log: Log,
    pub(super) now: Instant,
    pub(super) answers: Arc<CompletionQueue>,
    builders: Vec<FrameBuilder>,
    under_way: Vec<Option<Seen>>,
    /// Durable frames of each directory.
    pub(super) frames: Vec<Vec<Seen>>,
    /// Files removed in each directory.
    pub(super) unlinked: Vec<Vec<String>>,
    pub(super) listings: u64,
    /// No file can be made.
    pub(super) no_new_files: bool,
    files_refused: u64,
    pub(super) stamped: Vec<Vec<StampJob>>,
    pub(super) filled: Vec<Vec<FillJob>>,
    /// How long a write and its sync take in each directory.
    pub(super) took: Vec<Duration>,
    /// What the next listings say of the space of each directory.
    pub(super) space: Vec<Option<Space>>,
    flushes: bool,
    /// Nothing can be written at the own paths of collections; among shared segments.
    pub(super) own_blocked: bool,
    pub(super) shared_blocked: bool,
    /// Segments that cannot be read.
    pub(super) unreadable: BTreeSet<Uuid>,
    /// Segments as they lie in each directory.
    pub(super) segments: Vec<Files>,
    /// Flushes written.
    pub(super) flushed: u64,
    answered: BTreeMap<u64, Result<Appended, ApiError>>,
    next_token: u64,
}

pub(super) const MARKER: [u8; 16] = [7; 16];

pub(super) fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

pub(super) fn batch(collection: &str, payloads: &[&[u8]]) -> Append {
    let entry = |payload: &&[u8]| NewEntry { payload: Bytes::copy_from_slice(payload), ..NewEntry::default() };
    Append {
        collection: name(collection),
        entries: payloads.iter().map(entry).collect(),
        ack: Ack::Durable,
        producer: None,
    }
}

pub(super) fn stamped(request: Append, seq: u64) -> Append {
    Append { producer: Some(ProducerStamp { id: Bytes::from_static(b"p"), seq }), ..request }
}

pub(super) fn failed() -> Failure {
    Failure::Failed("test".into())
}

fn journal(index: usize, setup: &Setup, now: Instant) -> Journal {
    let is_journal = setup.journal_url && index + 1 == setup.directories;
    let key = StreamKey { epoch: Epoch(5), session: 0 };
    let oldest = setup.old.iter().map(|old| old.key).chain([key]).min().unwrap();
    let stream = Stream::new(StreamId([index as u8 + 1; 16]), key, oldest);
    let id = DirectoryId(Uuid::from_u128(index as u128 + 1));
    let url = WalUrl::parse(&format!("file:///wal/{index}")).unwrap();
    Journal {
        position: (!is_journal).then_some(index),
        takes_all_commits: is_journal,
        in_use: setup.in_use,
        pool: Pool { in_place: setup.in_place, ..Pool::default() },
        device: (index as u64, String::new()),
        space: Space { capacity: 1 << 40, free: 1 << 39 },
        journal_max: setup.journal_max,
        old: if index == 0 { setup.old.clone() } else { Vec::new() },
        ..Journal::new(id, url, stream, now)
    }
}

impl Rig {
    /// A log whose first frames are not written yet.
    pub(super) fn closed(mut setup: Setup) -> Self {
        let now = Instant::now();
        let count = setup.directories;
        let log = Log::new(Start {
            settings: Settings {
                strategy: setup.strategy,
                affinity: setup.affinity,
                memory_limit: setup.memory_limit,
                buffered_interval: Duration::from_millis(100),
                bucket_interval: Duration::from_millis(250),
                memory_flush_size: setup.memory_flush_size,
                segment_size: setup.segment_size,
                codec: Codec::Null,
            },
            identity: Identity {
                writer: Uuid::from_u128(99),
                writer_id: String::new(),
                epoch: Epoch(5),
                run: Uuid::from_u128(98),
                grant: 0,
                holder: String::new(),
            },
            journals: (0..count).map(|index| journal(index, &setup, now)).collect(),
            forgotten: Vec::new(),
            collections: std::mem::take(&mut setup.collections),
            untold: Vec::new(),
            tombstones: std::mem::take(&mut setup.tombstones),
            dead_segments: Vec::new(),
            shared: Vec::new(),
            opening_records: Vec::new(),
            opening_record_count: 0,
            seed: 1,
        });
        Self {
            log,
            now,
            answers: CompletionQueue::new(),
            builders: (0..count).map(|_| FrameBuilder::new()).collect(),
            under_way: vec![None; count],
            frames: vec![Vec::new(); count],
            unlinked: vec![Vec::new(); count],
            listings: 0,
            no_new_files: false,
            files_refused: 0,
            stamped: vec![Vec::new(); count],
            filled: vec![Vec::new(); count],
            took: vec![Duration::from_micros(300); count],
            space: vec![None; count],
            flushes: setup.flushes,
            own_blocked: false,
            shared_blocked: false,
            unreadable: BTreeSet::new(),
            segments: (0..count).map(|_| Files::default()).collect(),
            flushed: 0,
            answered: BTreeMap::new(),
            next_token: 1,
        }
    }

    /// A log that serves.
    pub(super) fn new(setup: Setup) -> Self {
        let mut rig = Self::closed(setup);
        rig.settle();
        assert_eq!(rig.log.stage, Stage::Serving);
        rig
    }

    pub(super) fn one() -> Self {
        Self::new(Setup::default())
    }

    pub(super) fn two() -> Self {
        Self::new(Setup { directories: 2, ..Setup::default() })
    }

    /// Polls a directory; a frame is decoded and stays under way.
    pub(super) fn poll(&mut self, dir: DirIx) -> Work {
        let work = self.log.poll(dir, self.now, &mut self.builders[dir]);
        if let Work::Frame(FrameJob { key, place, prepared: None, .. }) = &work
            && place.new_file
            && self.no_new_files
        {
            self.log.failed(dir, *key, Failure::NoFile("no space left".into()), self.now);
            self.deliver();
            self.files_refused += 1;
            return self.poll(dir);
        }
        if let Work::Frame(FrameJob { header, .. }) = &work {
            let built = self.builders[dir].finish_slot(header, &MARKER).unwrap();
            let expected = Expected { stream: Some(header.stream), epoch: header.epoch, file: header.file };
            let head = parse_head(built.bytes, &expected, header.offset).unwrap().unwrap();
            let frame = parse_frame(built.bytes, &head, &MARKER).unwrap();
            let records = frame.records().map(|record| {
                let record = record.unwrap();
                Rec {
                    kind: record.kind,
                    name: record.collection_id.to_owned(),
                    incarnation: record.incarnation,
                    lsn: record.lsn.0,
                }
            });
            let records = records.collect();
            let (len, crc) = (built.bytes.len() as u64, built.crc);
            self.under_way[dir] = Some(Seen { header: head.header, records, len, crc });
        }
        work
    }

    /// Polls a directory that must have a frame to write.
    pub(super) fn frame(&mut self, dir: DirIx) -> Seen {
        let work = self.poll(dir);
        assert!(matches!(work, Work::Frame(_)), "{work:?}");
        self.under_way[dir].clone().unwrap()
    }

    /// The frame under way is durable.
    pub(super) fn durable(&mut self, dir: DirIx) {
        let seen = self.under_way[dir].take().unwrap();
        let done = Committed { len: seen.len, crc: seen.crc, took: self.took[dir], reserved: true };
        self.frames[dir].push(seen);
        self.log.committed(dir, self.key(dir), done, self.now);
        self.deliver();
    }

    /// The frame under way failed.
    pub(super) fn fail(&mut self, dir: DirIx) {
        self.under_way[dir] = None;
        self.log.failed(dir, self.key(dir), failed(), self.now);
        self.deliver();
    }

    /// The device has had no answer for the frame under way for long enough, while others answered. It stays in the
    /// kernel.
    pub(super) fn stall(&mut self, dir: DirIx) {
        for _ in 0..crate::commit::watch::STALL {
            self.log.watch(self.now);
        }
        for other in (0..self.frames.len()).filter(|other| *other != dir) {
            self.settle_only(other);
        }
        self.log.watch(self.now);
        assert!(self.log.is_stalled(dir));
        self.deliver();
    }

    /// The frame that was abandoned is out of the kernel, whatever became of it.
    pub(super) fn forget_under_way(&mut self, dir: DirIx) {
        self.under_way[dir] = None;
    }

    /// Works until one directory waits.
    pub(super) fn settle_only(&mut self, dir: DirIx) {
        for _ in 0..10_000 {
            if !self.step(dir) {
                return;
            }
        }
        panic!("the log never comes to rest");
    }

    /// The frame under way came to nothing, and the log knows.
    pub(super) fn forget_frame(&mut self, dir: DirIx) {
        self.under_way[dir] = None;
        self.deliver();
    }

    /// Does one piece of work of each worker; whether there was one.
    pub(super) fn step(&mut self, dir: DirIx) -> bool {
        let flushed = (self.flushes || self.log.stage == Stage::Stopping) && self.flush(dir);
        // The committer may have made work for upkeep.
        self.upkeep(dir) | self.commit(dir) | self.upkeep(dir) | flushed
    }

    /// Does one piece of the committer's work; whether there was one.
    pub(super) fn commit(&mut self, dir: DirIx) -> bool {
        let refused = self.files_refused;
        let works = self.under_way[dir].is_some() || matches!(self.poll(dir), Work::Frame(_));
        if works {
            self.durable(dir);
        }
        works || self.files_refused > refused
    }

    /// Does one piece of upkeep; whether there was one.
    pub(super) fn upkeep(&mut self, dir: DirIx) -> bool {
        match self.log.poll_upkeep(dir, self.now) {
            Upkeep::Unlink(files) => {
                self.unlinked[dir].extend(files);
                self.log.unlinked(dir);
            }
            Upkeep::List => {
                self.listings += 1;
                let listing = Listing { space: self.space[dir], ..Listing::default() };
                self.log.listed(dir, listing, self.now);
            }
            Upkeep::Stamp(job) => {
                let marker = MARKER;
                self.log.stamped(dir, &job, Ok(marker), self.now);
                self.stamped[dir].push(job);
            }
            Upkeep::Reserve(job) => self.log.reserved(dir, &job, Ok(()), self.now),
            Upkeep::Fill(job) => {
                self.log.filled(dir, &job, Ok(()), self.now);
                self.filled[dir].push(job);
            }
            Upkeep::Probe => self.log.probed(dir, Err("test".into()), self.now),
            Upkeep::Wait(_) | Upkeep::End => return false,
        }
        true
    }

    /// Works until every directory waits.
    pub(super) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut worked = false;
            for dir in 0..self.frames.len() {
                worked |= self.step(dir);
            }
            if !worked {
                return;
            }
        }
        panic!("the log never comes to rest");
    }

    /// Time passes, and everything that comes due with it is done.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    pub(super) fn deliver(&mut self) {
        self.log.take_outbox().deliver();
        for completion in self.answers.take() {
            let before = self.answered.insert(completion.token, completion.result);
            assert!(before.is_none(), "token {} was answered twice", completion.token);
        }
    }

    /// Submits; the token where it was accepted.
    pub(super) fn submit(&mut self, request: Append) -> Result<u64, ApiError> {
        let token = self.next_token;
        check_request(&request)?;
        let caller = Caller { answers: &self.answers, token, now: self.now, wall_micros: 1 };
        let admission = self.log.append(&request, &caller);
        self.deliver();
        match admission? {
            Admission::Accepted => {
                self.next_token += 1;
                Ok(token)
            }
            Admission::Wait(refused) => Err(refused),
        }
    }

    /// Submits a request that must be accepted.
    pub(super) fn send(&mut self, collection: &str, payloads: &[&[u8]]) -> u64 {
        self.submit(batch(collection, payloads)).unwrap()
    }

    pub(super) fn answer(&mut self, token: u64) -> Option<Result<Appended, ApiError>> {
        self.deliver();
        self.answered.get(&token).cloned()
    }

    /// The LSNs of an answer that must be there.
    pub(super) fn lsns(&mut self, token: u64) -> (u64, u64) {
        let answer = self.answer(token).expect("answered").expect("accepted");
        (answer.first_lsn.0, answer.last_lsn.0)
    }

    pub(super) fn reason(&mut self, token: u64) -> Reason {
        self.answer(token).expect("answered").unwrap_err().reason
    }

    pub(super) fn truncate(&mut self, collection: &str, to: u64) -> oneshot::Receiver<Result<Lsn, ApiError>> {
        let (waiter, answer) = oneshot::channel();
        self.log.truncate(&name(collection), Lsn(to), waiter, self.now).unwrap();
        self.deliver();
        answer
    }

    pub(super) fn delete(&mut self, collection: &str) -> oneshot::Receiver<Result<Incarnation, ApiError>> {
        let (waiter, answer) = oneshot::channel();
        self.log.delete(&name(collection), waiter, self.now).unwrap();
        answer
    }

    pub(super) fn home(&self, collection: &str) -> DirIx {
        self.log.find(&name(collection)).unwrap().home
    }

    /// All frames of a directory, the one under way too.
    pub(super) fn records(&self, dir: DirIx) -> impl Iterator<Item = &Rec> {
        self.frames[dir].iter().chain(&self.under_way[dir]).flat_map(|frame| &frame.records)
    }

    pub(super) fn key(&self, dir: DirIx) -> StreamKey {
        self.log.journals[dir].stream.key
    }
}
