//! The log of one writer as a state machine: what is assigned, what is durable, what each directory does next. No I/O,
//! no clock, no threads: callers bring the time and carry out the work that [`Log::poll`] answers.
//!
//! Invariants, each with a test of that name in `commit/tests`:
//! 1. An append is refused before it has an LSN, or answered; never both, never neither.
//! 2. An acknowledged entry was written and synced in one directory, and every lower LSN of its collection too.
//! 3. A collection has at most one group in flight.
//! 4. A fact states only what is durable when its frame is built or lies earlier in the same frame.
//! 5. A file is removed only after a frame that says so is durable, and only when all in it is truncated or deleted as
//!    of a complete durable checkpoint behind it.
//! 6. After a failed write nothing more goes to that stream, and nothing that was assigned is skipped.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use uuid::Uuid;
use walstorage_crds::config::{Compression, Config, DistributionStrategy};
use walstorage_crds::url::WalUrl;

use super::answer::Outbox;
use super::collection::{ColIx, Collection, DirIx};
use super::flush::STOP_FLUSH;
use super::flush_jobs::Flushing;
use super::journal::{Fact, Journal};
use super::names::Names;
use super::revival::REST;
use super::segments::{Segment, SharedFile};
use crate::error::{ApiError, Reason};
use crate::format::header::Codec;
use crate::placement::{self, Candidate};
use crate::types::{CollectionName, DirectoryId, Epoch, Incarnation, Lsn};

/// The settings that may change while running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) strategy: DistributionStrategy,
    pub(crate) affinity: bool,
    /// Bound of the memory that entries hold, bytes.
    pub(crate) memory_limit: u64,
    pub(crate) buffered_interval: Duration,
    /// Between the starts of two commits to a bucket.
    pub(crate) bucket_interval: Duration,
    /// A collection with so many bytes in memory is flushed.
    pub(crate) memory_flush_size: u64,
    /// A segment of so many bytes is sealed.
    pub(crate) segment_size: u64,
    /// Of new segments.
    pub(crate) codec: Codec,
}

impl Settings {
    /// What a configuration says; memory is bounded by `memory_limit` bytes.
    pub(crate) fn of(config: &Config, memory_limit: u64) -> Self {
        let wal = &config.wal;
        Self {
            strategy: wal.distribution_strategy,
            affinity: wal.collection_affinity,
            memory_limit,
            buffered_interval: wal.buffered_commit_interval,
            bucket_interval: wal.bucket_commit_interval,
            memory_flush_size: wal.memory_flush_size.0,
            segment_size: wal.segment_size.0,
            codec: match wal.compression {
                Compression::Null => Codec::Null,
                Compression::Snappy => Codec::Snappy,
                Compression::Zstandard => Codec::Zstandard,
            },
        }
    }
}

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) writer: Uuid,
    pub(crate) writer_id: String,
    pub(crate) epoch: Epoch,
    pub(crate) run: Uuid,
    pub(crate) grant: u64,
    pub(crate) holder: String,
}

/// Where the process is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first frames are being written.
    Opening,
    Serving,
    Stopping,
    /// Another process has taken over; the sentence says how that was seen.
    Fenced(String),
}

/// The workers of a directory: each asks the log for work of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worker {
    /// Writes and syncs frames.
    Commit,
    /// Lists, measures, removes.
    Upkeep,
    /// Writes segments.
    Flush,
}

impl Worker {
    pub(crate) const COUNT: usize = 3;
}

/// A deletion that checkpoints still have to state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone {
    pub(crate) incarnation: Incarnation,
    /// When it became durable, in ticks: needed while a file from before is left.
    pub(crate) tick: u64,
}

/// The log of one writer.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) stage: Stage,
    pub(crate) journals: Vec<Journal>,
    pub(crate) forgotten: Vec<DirectoryId>,
    /// Records that go into frame 1 of every directory behind its EPOCH: gaps and moves decided by recovery.
    pub(crate) opening_records: Vec<u8>,
    pub(crate) opening_record_count: u64,

    pub(super) collections: Vec<Option<Collection>>,
    pub(super) free: Vec<ColIx>,
    pub(super) by_name: Names,
    pub(super) by_incarnation: HashMap<Incarnation, ColIx>,
    pub(super) tombstones: BTreeMap<CollectionName, Tombstone>,

    /// The next incarnation.
    pub(super) next_incarnation: u64,
    /// The highest placement number given.
    pub(super) placements: u64,
    /// RoundRobin without affinity: a counter in memory.
    pub(super) turn: u64,
    /// Rises with every durable frame: orders deletions and files.
    pub(super) tick: u64,
    pub(super) memory_used: u64,
    /// Bytes of requests being received.
    pub(super) receiving: u64,
    /// Memory or journal space was freed since the last look.
    pub(super) freed: bool,
    /// Rises with every change of the members.
    pub(super) version: u64,
    /// Affinity ends when this version is stated everywhere.
    pub(super) scatters: Option<u64>,
    /// How long a directory that failed is left alone.
    pub(crate) rest: Duration,
    /// Facts that no directory can take now.
    pub(super) parked_facts: Vec<Fact>,
    pub(super) flush: Flushing,
    pub(super) outbox: Outbox,
    pub(super) entropy: SmallRng,
}

/// What a log starts from.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) journals: Vec<Journal>,
    pub(crate) forgotten: Vec<DirectoryId>,
    pub(crate) collections: Vec<Collection>,
    /// Directories that have not heard of a collection yet.
    pub(crate) untold: Vec<(DirIx, Incarnation)>,
    pub(crate) tombstones: BTreeMap<CollectionName, Incarnation>,
    /// Own segments that are not needed any more, with their collections.
    pub(crate) dead_segments: Vec<(CollectionName, Incarnation, Segment)>,
    /// Shared segments that are there.
    pub(crate) shared: Vec<(Uuid, SharedFile)>,
    pub(crate) opening_records: Vec<u8>,
    pub(crate) opening_record_count: u64,
    pub(crate) seed: u64,
}

impl Log {
    /// A log as recovery found it; serves once the first frames are durable.
    pub(crate) fn new(start: Start) -> Self {
        let mut log = Self {
            next_incarnation: start.identity.epoch.0 << 20,
            settings: start.settings,
            identity: start.identity,
            stage: Stage::Opening,
            journals: start.journals,
            forgotten: start.forgotten,
            opening_records: start.opening_records,
            opening_record_count: start.opening_record_count,
            collections: Vec::new(),
            free: Vec::new(),
            by_name: Names::default(),
            by_incarnation: HashMap::new(),
            tombstones: start
                .tombstones
                .into_iter()
                .map(|(name, incarnation)| (name, Tombstone { incarnation, tick: 1 }))
                .collect(),
            placements: 0,
            turn: 0,
            tick: 1,
            memory_used: 0,
            receiving: 0,
            freed: false,
            version: 1,
            scatters: None,
            rest: REST,
            parked_facts: Vec::new(),
            flush: Flushing::default(),
            outbox: Outbox::default(),
            entropy: SmallRng::seed_from_u64(start.seed),
        };
        for journal in &mut log.journals {
            journal.mixed |= journal.takes_all_commits || !log.settings.affinity;
        }
        for mut collection in start.collections {
            collection.announced = true;
            log.placements = log.placements.max(collection.placement);
            log.memory_used += collection.memory() as u64;
            log.flush.shelved += usize::from(!collection.shelf.is_empty());
            log.insert(collection);
        }
        log.found_segments(start.shared, start.dead_segments);
        for (name, tombstone) in &log.tombstones {
            for journal in &mut log.journals {
                journal.flusher.sweep.push_back((name.clone(), tombstone.incarnation));
            }
        }
        for (dir, incarnation) in start.untold {
            if let Some(&ix) = log.by_incarnation.get(&incarnation) {
                let journal = &mut log.journals[dir];
                journal.facts.push_back(Fact::Announce(ix, incarnation));
                journal.commit_at = Some(journal.last_commit);
            }
        }
        log
    }

    /// Adds a collection to the index.
    pub(super) fn insert(&mut self, collection: Collection) -> ColIx {
        let (name, incarnation) = (collection.name.clone(), collection.incarnation);
        let ix = match self.free.pop() {
            Some(ix) => {
                self.collections[ix] = Some(collection);
                ix
            }
            None => {
                self.collections.push(Some(collection));
                self.collections.len() - 1
            }
        };
        self.by_name.insert(name, ix);
        self.by_incarnation.insert(incarnation, ix);
        ix
    }

    /// Takes a deleted collection out of memory once nothing refers to it.
    pub(super) fn reap(&mut self, ix: ColIx) {
        if self.collections[ix].as_ref().is_some_and(Collection::is_gone)
            && let Some(collection) = self.collections[ix].take()
        {
            self.memory_used -= collection.memory() as u64;
            self.by_incarnation.remove(&collection.incarnation);
            self.freed = true;
            self.free.push(ix);
        }
    }

    /// The collection at `ix` if it still is the one with this incarnation.
    pub(super) fn live(&mut self, ix: ColIx, incarnation: Incarnation) -> Option<&mut Collection> {
        self.collections.get_mut(ix)?.as_mut().filter(|collection| collection.incarnation == incarnation)
    }

    /// A collection by name.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND.
    pub(crate) fn find(&self, name: &CollectionName) -> Result<&Collection, ApiError> {
        self.by_name.get(name).and_then(|ix| self.collections[ix].as_ref()).ok_or_else(|| {
            ApiError::new(
                Reason::CollectionNotFound,
                format!("there is no collection {:?}; an append creates it", name.as_str()),
            )
        })
    }

    /// All collections in the index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Collection> {
        self.by_name.iter().filter_map(|ix| self.collections[ix].as_ref())
    }

    /// Collections after `name`, by name.
    pub(super) fn after(&self, name: Option<&str>) -> impl Iterator<Item = &Collection> {
        self.by_name.after(name).filter_map(|ix| self.collections[ix].as_ref())
    }

    /// Refuses calls that change something while the log cannot take them.
    pub(super) fn check_open(&self) -> Result<(), ApiError> {
        match &self.stage {
            Stage::Serving => Ok(()),
            Stage::Opening => Err(ApiError::new(Reason::NotReady, "the first frames are being written; try again")),
            Stage::Stopping => Err(ApiError::new(Reason::ShuttingDown, "the sidecar is stopping; try the next one")),
            Stage::Fenced(why) => Err(ApiError::new(Reason::Fenced, why.clone())),
        }
    }

    /// The directory that takes the commits of a collection whose home is `home`: the journal for all while it can be
    /// written, else the home itself.
    pub(super) fn commit_journal(&self, home: DirIx) -> DirIx {
        self.journals.iter().position(|j| j.takes_all_commits && j.takes_data() && !j.draining).unwrap_or(home)
    }

    /// Chooses a home among the healthy directories of `wal_urls`.
    pub(super) fn place(
        &mut self,
        name: &CollectionName,
        turn: u64,
        current: Option<DirIx>,
        bytes: u64,
    ) -> Option<DirIx> {
        let candidates: Vec<Candidate> = self
            .journals
            .iter()
            .filter_map(|journal| {
                let position = journal.position?;
                Some(Candidate {
                    id: journal.id,
                    position,
                    healthy: journal.takes_collections() && journal.has_room(bytes),
                    tier: u8::from(journal.of_objects),
                    device: journal.device.0,
                    queued_bytes: journal.pending_bytes,
                    latency_us: journal.latency_us,
                    free_bytes: journal.space.free,
                    capacity_bytes: journal.space.capacity,
                    used_bytes: journal.journal_bytes(),
                })
            })
            .collect();
        let current = current.map(|ix| self.journals[ix].id);
        let strategy = self.settings.strategy;
        let entropy = &mut self.entropy;
        let chosen = placement::choose(strategy, &candidates, name, turn, current, |n| entropy.random_range(0..n))?;
        self.journals.iter().position(|journal| journal.id == chosen)
    }

    /// Any healthy directory, `preferred` first: for facts.
    pub(super) fn healthy_for_facts(&self, preferred: DirIx) -> Option<DirIx> {
        let all = || std::iter::once(preferred).chain(0..self.journals.len());
        // One that is beginning its next session takes them in a moment.
        let begins = |journal: &Journal| {
            journal.is_healthy() && journal.in_use && !journal.stream.over && journal.stream.key.session > 0
        };
        all()
            .find(|&ix| self.journals[ix].hears())
            .or_else(|| all().find(|&ix| begins(&self.journals[ix]) && self.stage == Stage::Serving))
    }

    /// The lowest latency of any directory but `except`, microseconds; the greatest number where none is measured.
    pub(crate) fn best_latency_us(&self, except: Option<DirIx>) -> f64 {
        let others = self.journals.iter().enumerate().filter(|(dir, _)| Some(*dir) != except);
        others.map(|(_, journal)| journal.latency_us).filter(|us| *us > 0.0).fold(f64::MAX, f64::min)
    }

    /// The URL that stands for a directory in answers.
    pub(super) fn url(&self, dir: DirIx) -> WalUrl {
        self.journals[dir].url.clone()
    }

    /// Takes what is to be answered; deliver it without the lock.
    pub(crate) fn take_outbox(&mut self) -> Outbox {
        std::mem::take(&mut self.outbox)
    }

    /// The workers that have to be woken since the last call.
    pub(crate) fn take_signals(&mut self) -> impl Iterator<Item = (DirIx, Worker)> {
        self.journals.iter_mut().enumerate().flat_map(|(ix, journal)| {
            let commit = std::mem::take(&mut journal.signalled).then_some((ix, Worker::Commit));
            let upkeep = std::mem::take(&mut journal.upkeep_signalled).then_some((ix, Worker::Upkeep));
            let flush = std::mem::take(&mut journal.flusher.signalled).then_some((ix, Worker::Flush));
            commit.into_iter().chain(upkeep).chain(flush)
        })
    }

    /// Whether memory or journal space was freed since the last call.
    pub(crate) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// Memory that entries and requests being received hold, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory_used + self.receiving
    }

    /// Counts a request being received, where there is room.
    pub(crate) fn receive(&mut self, bytes: u64) -> bool {
        let room = self.receiving == 0 || self.memory() + bytes <= self.settings.memory_limit;
        if room {
            self.receiving += bytes;
        } else {
            self.memory_refused(bytes);
        }
        room
    }

    /// What to tell a caller for whom there is no memory.
    pub(crate) fn memory_refusal(&self) -> ApiError {
        let (used, limit) = (self.memory(), self.settings.memory_limit);
        ApiError::new(
            Reason::MemoryLimit,
            format!(
                "entries in memory use {used} of {limit} bytes: truncate what is applied, or raise global_flush_threshold"
            ),
        )
        .with("usedBytes", used)
        .with("limitBytes", limit)
    }

    /// A counted request is here or gone.
    pub(crate) fn received(&mut self, bytes: u64) {
        self.receiving -= bytes;
        self.freed = true;
    }

    /// Applies settings that may change while running; the bounds of journals in the order of the directories.
    pub(crate) fn reconfigure(&mut self, settings: Settings, drains: impl Fn(&Journal) -> (bool, u64), now: Instant) {
        let affinity = settings.affinity;
        self.settings = settings;
        self.set_affinity(affinity, now);
        for journal in &mut self.journals {
            let (drains, most) = drains(journal);
            (journal.draining, journal.journal_max) =
                (drains || (journal.leaves && !mutant!(DrainEndsWithAnEdit)), most);
        }
        self.freed = true;
        self.begin_to_drain(now);
    }

    /// Refuses new calls from now on; what is under way is committed.
    pub(crate) fn stop(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Opening | Stage::Serving) {
            self.stage = Stage::Stopping;
            self.flush.until = Some(now + STOP_FLUSH);
            self.signal_flushers();
            for journal in &mut self.journals {
                journal.due(now);
                journal.upkeep_signalled = true;
            }
            for collection in self.collections.iter().flatten() {
                collection.changed.notify_waiters();
            }
        }
    }

    /// The next placement number.
    pub(super) fn next_placement(&mut self) -> u64 {
        self.placements += 1;
        self.placements
    }

    /// A new incarnation. The counter may run into the epoch's bits: the next epoch is above what was seen.
    pub(super) fn new_incarnation(&mut self) -> Incarnation {
        let incarnation = Incarnation(self.next_incarnation);
        self.next_incarnation += 1;
        incarnation
    }

    /// Whether everything of `incarnation` up to `head` is truncated, flushed or deleted, durably.
    pub(super) fn is_dead(&self, incarnation: Incarnation, head: Lsn) -> bool {
        self.by_incarnation.get(&incarnation).and_then(|&ix| self.collections[ix].as_ref()).is_none_or(|collection| {
            let gone = collection.truncated_to.max(collection.flushed_to) >= head
                || (mutant!(SlotFreedBeforeFlushed) && collection.flush.busy);
            gone && !collection.deleted
        }) || mutant!(AliveIsFreed)
    }
}
