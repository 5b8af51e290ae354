//! Lives of a log, one after the other, each ended by a power cut: the real state machine and the real recovery on
//! disks in memory, without threads, so that a seed gives the same lives every time. An oracle knows what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use super::committer::Writer;
use super::flusher::SegmentWriter;
use super::segment_read;
use super::upkeep::Keeper;
use super::*;
use crate::api::{Ack, NewEntry};
use crate::commit::flush_jobs::FlushWork;
use crate::commit::frames::Work;
use crate::commit::log::Start;
use crate::commit::read::{Piece, decode};
use crate::commit::upkeep::Upkeep;
use crate::directory::mem_disk::{Faults, MemDisk};
use crate::fencing::directory::Buckets;
use crate::format::frame::FrameBuilder;
use crate::recovery::{Context, Handle, Outcome, Progress, Ready, attempt};

#[derive(Clone, Default)]
pub(super) struct Disks(pub(super) Arc<Mutex<HashMap<PathBuf, MemDisk>>>);

impl Disks {
    pub(super) fn disk(&self, path: &Path) -> MemDisk {
        self.0.lock().entry(path.to_owned()).or_insert_with(|| MemDisk::new(path)).clone()
    }

    pub(super) fn context(&self, toml: &str) -> Context {
        let disks = self.clone();
        Context {
            config: Config::parse(toml, true).unwrap().config,
            require_mounts: false,
            grant: None,
            disks: Arc::new(move |path| Arc::new(disks.disk(path))),
            buckets: Arc::new(Buckets::none()),
            forget: BTreeSet::new(),
            memory_limit: 1 << 26,
        }
    }

    pub(super) fn break_all(&self, faults: Faults) {
        self.0.lock().values().for_each(|disk| disk.break_with(faults));
    }

    pub(super) fn after_cut(&self, random: &mut SmallRng) -> Self {
        let disks = self.0.lock();
        let mut left = HashMap::new();
        for path in disks.keys().collect::<BTreeSet<_>>() {
            left.insert(path.clone(), disks[path].after_cut(random.random()));
        }
        Self(Arc::new(Mutex::new(left)))
    }
}

pub(super) fn recover(context: &Context, what: &str) -> Ready {
    match attempt(context, &Progress::default()) {
        Outcome::Ready(ready) => *ready,
        Outcome::Waiting(waiting) => panic!("{what}: {:?}", waiting.reasons),
        Outcome::Ended(ended) => panic!("{what}: {ended:?}"),
    }
}

/// What was promised about one life of a name.
#[derive(Default)]
struct Promise {
    acked: BTreeMap<u64, Vec<u8>>,
    truncated: u64,
    truncate_asked: u64,
    deleted: bool,
    delete_asked: bool,
}

#[derive(Default)]
pub(super) struct Oracle(BTreeMap<CollectionName, BTreeMap<Incarnation, Promise>>);

impl Oracle {
    fn of(&mut self, name: &CollectionName, incarnation: Incarnation) -> &mut Promise {
        self.0.entry(name.clone()).or_default().entry(incarnation).or_default()
    }

    /// How many entries were acknowledged.
    pub(super) fn acked(&self) -> usize {
        self.0.values().flat_map(BTreeMap::values).map(|promise| promise.acked.len()).sum()
    }

    pub(super) fn check(&mut self, log: &Log, handles: &[Handle], what: &str) {
        for (name, lives) in &mut self.0 {
            let found = log.find(name).ok();
            for (incarnation, promise) in lives.iter() {
                if found.is_some_and(|found| found.incarnation == *incarnation) {
                    assert!(!promise.deleted, "{what}: {name} {incarnation:?} was deleted and is back");
                } else if found.is_none_or(|found| found.incarnation < *incarnation) {
                    let kept = promise.acked.is_empty() || promise.delete_asked;
                    assert!(kept, "{what}: {name} {incarnation:?} is gone");
                }
                let higher = found.is_some_and(|found| found.incarnation < *incarnation);
                assert!(!higher || promise.acked.is_empty(), "{what}: {name}: an earlier life is back");
            }
            let Some(found) = found else { continue };
            let promise = lives.entry(found.incarnation).or_default();
            let truncated = found.truncated_to.0;
            assert!(truncated >= promise.truncated, "{what}: {name}: {truncated} < {}", promise.truncated);
            assert!(truncated <= promise.truncate_asked, "{what}: {name}: truncated further than asked");
            let there = read_back(log, handles, name, what);
            assert!(
                there.keys().copied().eq(truncated + 1..=found.durable_head.0),
                "{what}: {name}: {:?}",
                there.keys()
            );
            for (lsn, payload) in promise.acked.range(truncated + 1..) {
                assert!(there.get(lsn) == Some(payload), "{what}: {name}: LSN {lsn} is another");
            }
            // What is there now must stay.
            promise.acked.extend(there);
            promise.truncated = truncated;
        }
    }
}

/// Every durable entry of a collection, from memory and from segments.
fn read_back(log: &Log, handles: &[Handle], name: &CollectionName, what: &str) -> BTreeMap<u64, Vec<u8>> {
    let mut cursor = log.read_from(name, Lsn::ZERO).unwrap();
    let mut entries = BTreeMap::new();
    let mut index = None;
    while cursor.next <= cursor.head {
        let part = log.read_part(name, cursor.incarnation, cursor.next, Some(cursor.head), u64::MAX).unwrap();
        let (mut pieces, mut next) = (part.pieces, part.next);
        if let Some(wanted) = part.segment {
            let disk = handles[wanted.segment.dir].disk.0.as_ref();
            let found = segment_read::read(disk, &wanted, index.take(), u64::MAX)
                .unwrap_or_else(|error| panic!("{what}: {name}: LSN {} in {:?}: {error}", wanted.from, wanted.segment));
            (pieces, next) = (vec![Piece::Records(found.records)], found.next);
            index = Some(found.index);
        }
        assert!(!pieces.is_empty(), "{what}: {name}: LSN {} is nowhere", cursor.next);
        for item in decode(pieces).unwrap() {
            let crate::api::Item::Entry(entry) = item else { panic!("{what}: {name}: {item:?}") };
            entries.insert(entry.lsn.0, entry.payload.to_vec());
        }
        cursor.next = next;
    }
    entries
}

enum Asked {
    Truncate(CollectionName, Incarnation, oneshot::Receiver<Result<Lsn, ApiError>>),
    Delete(CollectionName, Incarnation, oneshot::Receiver<Result<Incarnation, ApiError>>),
}

pub(super) struct Life<'a> {
    pub(super) log: Log,
    pub(super) now: Instant,
    writers: Vec<Writer<'a>>,
    pub(super) keepers: Vec<Keeper<'a>>,
    pub(super) flushers: Vec<SegmentWriter<'a>>,
    /// A flush that is written at the next step of its directory.
    pub(super) flushing: Vec<Option<FlushWork>>,
    builders: Vec<FrameBuilder>,
    /// A frame that is written at the next step of its directory.
    under_way: Vec<Option<crate::commit::frames::FrameJob>>,
    answers: Arc<CompletionQueue>,
    sent: HashMap<u64, (CollectionName, Incarnation, Vec<Vec<u8>>)>,
    asked: Vec<Asked>,
    /// Files that were stamped again.
    recycled: u64,
}

impl<'a> Life<'a> {
    pub(super) fn begin(start: Start, handles: &'a [Handle]) -> Self {
        let count = handles.len();
        let disks: Vec<_> = handles.iter().map(|handle| Arc::clone(&handle.disk.0)).collect();
        Self {
            log: Log::new(start),
            now: Instant::now(),
            writers: handles.iter().map(Writer::new).collect(),
            keepers: handles.iter().map(Keeper::new).collect(),
            flushers: handles.iter().map(|handle| SegmentWriter::new(handle, disks.clone())).collect(),
            flushing: vec![None; count],
            builders: (0..count).map(|_| FrameBuilder::new()).collect(),
            under_way: vec![None; count],
            answers: CompletionQueue::new(),
            sent: HashMap::new(),
            asked: Vec::new(),
            recycled: 0,
        }
    }

    pub(super) fn step(&mut self, dir: usize) {
        if let Some(job) = self.under_way[dir].take() {
            match self.writers[dir].write(&job, &mut self.builders[dir]) {
                Ok(done) => drop(self.log.committed(dir, job.key, done, self.now)),
                Err(failure) => self.log.failed(dir, job.key, failure, self.now),
            }
            return;
        }
        match self.log.poll(dir, self.now, &mut self.builders[dir]) {
            Work::Frame(job) => self.under_way[dir] = Some(job),
            Work::Wait(_) | Work::End => self.now += Duration::from_millis(50),
        }
    }

    pub(super) fn flush(&mut self, dir: usize) {
        let Some(work) = self.flushing[dir].take() else {
            match self.log.poll_flush(dir, self.now) {
                FlushWork::Wait(_) | FlushWork::End => {}
                work => self.flushing[dir] = Some(work),
            }
            return;
        };
        let (log, now) = (&self.log, self.now);
        let done = self.flushers[dir].carry_out(&work, |part, from| log.flush_piece(dir, part, from, now));
        done.report(&mut self.log, dir, self.now);
    }

    pub(super) fn upkeep(&mut self, dir: usize) {
        match self.log.poll_upkeep(dir, self.now) {
            Upkeep::Wait(_) | Upkeep::End => {}
            work => {
                self.recycled += u64::from(matches!(&work, Upkeep::Stamp(job) if job.from.is_some()));
                self.keepers[dir].carry_out(&work).report(&mut self.log, dir, self.now);
            }
        }
    }

    pub(super) fn client(&mut self, oracle: &mut Oracle, random: &mut SmallRng, token: u64) {
        let name = CollectionName::new(&format!("c{}", random.random_range(0..5))).unwrap();
        let known = self.log.find(&name).ok().map(|c| (c.incarnation, c.assigned_head.0, c.durable_head.0));
        match (random.random_range(0..20), known) {
            (0, Some((incarnation, ..))) => {
                let (waiter, answer) = oneshot::channel();
                if self.log.delete(&name, waiter, self.now).is_ok() {
                    oracle.of(&name, incarnation).delete_asked = true;
                    self.asked.push(Asked::Delete(name, incarnation, answer));
                }
            }
            (1..=4, Some((incarnation, assigned, durable))) => {
                let head = if random.random_bool(0.2) { assigned } else { durable };
                let up_to = if random.random_bool(0.5) { head } else { random.random_range(0..=head) };
                let (waiter, answer) = oneshot::channel();
                if self.log.truncate(&name, Lsn(up_to), waiter, self.now).is_ok() {
                    let promise = oracle.of(&name, incarnation);
                    promise.truncate_asked = promise.truncate_asked.max(up_to);
                    self.asked.push(Asked::Truncate(name, incarnation, answer));
                }
            }
            _ => {
                let size = if random.random_bool(0.1) { 30_000 } else { 200 };
                let payloads: Vec<Vec<u8>> =
                    (0..random.random_range(1..4)).map(|n| format!("{token}.{n:0size$}").into_bytes()).collect();
                let entry = |p: &Vec<u8>| NewEntry { payload: Bytes::from(p.clone()), ..NewEntry::default() };
                let ack = if random.random_bool(0.2) { Ack::Buffered } else { Ack::Durable };
                let entries = payloads.iter().map(entry).collect();
                let request = Append { collection: name.clone(), entries, ack, producer: None };
                let caller = Caller { answers: &self.answers, token, now: self.now, wall_micros: 1 };
                if matches!(self.log.append(&request, &caller), Ok(Admission::Accepted)) {
                    let incarnation = self.log.find(&name).unwrap().incarnation;
                    self.sent.insert(token, (name, incarnation, payloads));
                }
            }
        }
    }

    pub(super) fn hear(&mut self, oracle: &mut Oracle) {
        self.log.take_outbox().deliver();
        for completion in self.answers.take() {
            let (name, incarnation, payloads) = self.sent.remove(&completion.token).expect("answered once");
            let Ok(answer) = completion.result else { continue };
            if answer.ack == Ack::Durable {
                for (lsn, payload) in (answer.first_lsn.0..).zip(payloads) {
                    let before = oracle.of(&name, incarnation).acked.insert(lsn, payload);
                    assert_eq!(before, None, "an LSN was given twice");
                }
            }
        }
        self.asked.retain_mut(|asked| match asked {
            Asked::Truncate(name, incarnation, answer) => match answer.try_recv() {
                Ok(Ok(to)) => {
                    let promise = oracle.of(name, *incarnation);
                    promise.truncated = promise.truncated.max(to.0);
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                _ => false,
            },
            Asked::Delete(name, incarnation, answer) => match answer.try_recv() {
                Ok(Ok(_)) => {
                    oracle.of(name, *incarnation).deleted = true;
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                _ => false,
            },
        });
    }
}

/// How many files were used again.
fn lives(seed: u64) -> u64 {
    let mut recycled = 0;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut disks = Disks::default();
    let mut oracle = Oracle::default();
    let mut token = 0;
    for life in 0..6 {
        let affinity = random.random_bool(0.6);
        let journal = if seed.is_multiple_of(3) { "journal_url = \"file:///m/j\"" } else { "" };
        let flush_size = [2000, 20_000, 1 << 20][random.random_range(0..3)];
        let codec = ["null", "snappy", "zstandard"][random.random_range(0..3)];
        let text = format!(
            "[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [\"file:///m/a\", \"file:///m/b\"]\n\
             collection_affinity = {affinity}\njournal_max_bytes = \"1Mi\"\n{journal}\n\
             memory_flush_size_bytes = {flush_size}\nsegment_size_bytes = 65536\ncompression = \"{codec}\"\n"
        );
        let mut context = disks.context(&text);
        context.memory_limit = [1 << 17, 1 << 19, 1 << 26][random.random_range(0..3)];
        let what = format!("seed {seed}, life {life}");
        let Ready { start, handles, .. } = recover(&context, &what);
        let count = handles.len();
        let mut lived = Life::begin(start, &handles);
        // What is more than memory may hold is on its way to segments before anything is served.
        let mut unchecked = lived.log.has_shelves();
        if !unchecked {
            oracle.check(&lived.log, &handles, &what);
        }
        let steps = random.random_range(5..1500);
        let fails_at = random.random_range(0..3000);
        for step in 0..steps {
            if step == fails_at {
                let broken = random.random_range(0..count);
                let faults = match random.random_range(0..3) {
                    0 => Faults { bytes_left: Some(random.random_range(0..600_000)), ..Faults::default() },
                    _ => Faults { syncs_left: Some(0), ..Faults::default() },
                };
                disks.disk(&context.config.wal.wal_urls[broken % 2].file_path().unwrap()).break_with(faults);
            }
            if random.random_bool(0.4) {
                token += 1;
                lived.client(&mut oracle, &mut random, token);
            } else {
                lived.step(random.random_range(0..count));
            }
            if random.random_bool(0.2) {
                lived.upkeep(random.random_range(0..count));
            }
            if random.random_bool(0.2) {
                lived.flush(random.random_range(0..count));
            }
            lived.hear(&mut oracle);
            if unchecked && lived.log.stage == Stage::Serving {
                unchecked = false;
                oracle.check(&lived.log, &handles, &what);
            }
        }
        if random.random_bool(0.3) {
            lived.log.stop(lived.now);
            for _ in 0..500 {
                (0..count).for_each(|dir| lived.step(dir));
                (0..count).for_each(|dir| lived.upkeep(dir));
                (0..count).for_each(|dir| lived.flush(dir));
                lived.hear(&mut oracle);
            }
            (0..count).for_each(|dir| assert_eq!(lived.log.poll(dir, lived.now, &mut lived.builders[dir]), Work::End));
            lived.log.abandon("stopped");
            lived.hear(&mut oracle);
            assert!(lived.sent.is_empty(), "{what}: a stop left somebody without an answer");
        }
        // What was being written when the power went is there in part.
        for dir in 0..count {
            if let Some(work) = lived.flushing[dir].take() {
                let calls_left = Some(random.random_range(0..24));
                disks.break_all(Faults { calls_left, ..Faults::default() });
                let log = &lived.log;
                let _ = lived.flushers[dir].carry_out(&work, |part, from| log.flush_piece(dir, part, from, lived.now));
            }
        }
        disks.break_all(Faults { syncs_left: Some(0), ..Faults::default() });
        for dir in 0..count {
            if let Some(job) = lived.under_way[dir].take() {
                let _ = lived.writers[dir].write(&job, &mut lived.builders[dir]);
            }
        }
        recycled += lived.recycled;
        drop(lived);
        disks = disks.after_cut(&mut random);
    }
    recycled
}

#[test]
fn no_promise_is_broken_by_power_cuts_failures_deletions_and_full_journals() {
    let first: u64 = std::env::var("WALSTORAGE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seeds: u64 = std::env::var("WALSTORAGE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let recycled: u64 = (first..first + seeds).map(lives).sum();
    assert!(recycled > 0, "no file was used again");
}
