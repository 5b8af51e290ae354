//! One directory as the log sees it: health, its stream, what its files hold, what waits to be committed there.

use std::collections::{HashMap, VecDeque};
use std::time::{Instant, SystemTime};

use walstorage_crds::url::WalUrl;

use super::answer::ChangeWaiter;
use super::collection::{ColIx, PendingBatch, TruncateWish};
use super::flush_jobs::Flusher;
use super::frames::IDLE;
use super::segments::Segment;
use super::slots::{Pool, Prepared};
use super::space::Full;
use super::stream::Stream;
use super::wear::Wear;
use crate::api::JournalIo;
use crate::directory::disk::Space;
use crate::format::StreamKey;
use crate::types::{CollectionName, DirectoryId, Incarnation, Lsn};

/// How much better than the best of the others a directory is taken to be that has had nothing to do for long: enough to
/// pass the hysteresis of a group without affinity.
const TRIED_AGAIN: f64 = 0.7;

/// Whether a directory can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Healthy,
    /// No space left; over for this process.
    Full(String),
    /// A write or sync failed; over for this process.
    Failed(String),
}

/// A slot of the current stream.
#[derive(Debug, Default)]
pub(crate) struct SlotUse {
    pub(crate) file: u64,
    /// Header and frames.
    pub(crate) bytes: u64,
    /// Size of the file: more, where it was written ahead.
    pub(crate) len: u64,
    pub(crate) wear: Wear,
    pub(crate) last_frame: u64,
    /// When its first frame was built, in the log's ticks.
    pub(crate) made: u64,
    /// It has nothing but what keeps the journal itself in order.
    pub(crate) upkeep: bool,
    /// The highest LSN of each collection in it.
    pub(crate) heads: HashMap<Incarnation, Lsn>,
    /// The lowest.
    pub(crate) firsts: HashMap<Incarnation, Lsn>,
}

/// A stream that is over, of an earlier start or an earlier session; freed as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct OldStream {
    pub(crate) key: StreamKey,
    /// File names and sizes.
    pub(crate) files: Vec<(String, u64)>,
    /// The highest LSN of each collection in it.
    pub(crate) heads: HashMap<Incarnation, Lsn>,
    /// The lowest.
    pub(crate) firsts: HashMap<Incarnation, Lsn>,
}

impl OldStream {
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// A fact that waits for a frame; its bytes are made when the frame is built, so that it states what is durable then.
#[derive(Debug)]
pub(crate) enum Fact {
    /// COLLECTION of a creation or move.
    Announce(ColIx, Incarnation),
    /// EPOCH: who the members are.
    Members,
    /// TRUNCATE for the wishes of a collection.
    Truncate(ColIx, Incarnation),
    /// DELETE.
    Delete { name: CollectionName, incarnation: Incarnation, waiter: Option<ChangeWaiter<Incarnation>> },
    /// FLUSHED of a segment that is written and synced.
    Flushed(Box<FlushedNote>),
}

/// A segment of a collection, as it is on its disk; its fact is not durable yet.
#[derive(Debug)]
pub(crate) struct FlushedNote {
    pub(crate) collection: ColIx,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: CollectionName,
    pub(crate) segment: Segment,
}

/// A checkpoint being written.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) collections: VecDeque<(ColIx, Incarnation)>,
    pub(crate) tombstones: VecDeque<(CollectionName, Incarnation)>,
    /// Segments that are still to be removed.
    pub(crate) doomed: VecDeque<uuid::Uuid>,
    pub(crate) begun: bool,
    /// When it began, in ticks: what it states is not older.
    pub(crate) since: u64,
    pub(crate) bytes: u64,
    /// What may be gone when it is durable.
    pub(crate) floor: u64,
    pub(crate) oldest: StreamKey,
}

/// One collection's part of a frame.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) collection: ColIx,
    /// COLLECTION stands before its entries.
    pub(crate) announces: bool,
    /// No frame before said that it exists.
    pub(crate) creates: bool,
    pub(crate) bytes: usize,
    pub(crate) batches: Vec<PendingBatch>,
}

/// The start of a directory: frame 1 states who is there, frame 2, where one is needed, that new members are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    First,
    FirstDone,
    Second,
    Done,
}

/// What the frame in flight does beside its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Normal,
    Opening,
    CheckpointPart,
    CheckpointEnd,
    /// Copies of what another directory holds.
    Copies,
    /// Proves the frame before it.
    Empty,
    /// The very last.
    Clean,
}

impl FrameKind {
    /// Whether it is written for the sake of the journal only.
    pub(super) const fn is_upkeep(self) -> bool {
        match self {
            Self::Opening | Self::CheckpointPart | Self::CheckpointEnd | Self::Empty | Self::Clean => true,
            Self::Normal | Self::Copies => false,
        }
    }
}

/// The frame being written.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) kind: FrameKind,
    /// The log's tick when it was built: what it states is not newer.
    pub(crate) built: u64,
    /// Ticks of the watchdog since then.
    pub(crate) ticks: u32,
    /// The version of the members that an EPOCH in it states; 0 without one.
    pub(crate) states: u64,
    pub(crate) place: super::stream::Place,
    /// The job, where it begins a file.
    pub(crate) begins: Option<super::frames::FrameJob>,
    /// It waits until there is a file for it.
    pub(crate) held: bool,
    /// The spare that it begins.
    pub(crate) spare: Option<Prepared>,
    pub(crate) floor: u64,
    pub(crate) oldest: StreamKey,
    pub(crate) groups: Vec<Group>,
    pub(crate) copies: Vec<super::copies::Copied>,
    pub(crate) truncates: Vec<(ColIx, Incarnation, Vec<TruncateWish>)>,
    pub(crate) deletes: Vec<(CollectionName, Incarnation, Option<ChangeWaiter<Incarnation>>)>,
    pub(crate) flushed: Vec<FlushedNote>,
}

impl InFlight {
    /// Whether there is more in it than what only its own stream needs.
    pub(crate) fn carries(&self) -> bool {
        let Self { groups, truncates, deletes, flushed, .. } = self;
        !(groups.is_empty() && truncates.is_empty() && deletes.is_empty() && flushed.is_empty())
    }
}

/// How far the end of a directory's stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Open,
    CleanWritten,
    Closed,
}

/// One directory.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) id: DirectoryId,
    pub(crate) url: WalUrl,
    /// Its place in `wal_urls`; `None`: no segments go there (the journal, a removed URL).
    pub(crate) position: Option<usize>,
    /// It is `journal_url`: all commits go here.
    pub(crate) takes_all_commits: bool,
    pub(crate) draining: bool,
    /// It was asked to be emptied, and is while this process lives, whatever the configuration says.
    pub(crate) leaves: bool,
    pub(crate) health: Health,
    pub(crate) since: SystemTime,
    pub(crate) in_use: bool,
    /// It is in use once this version of the members is stated everywhere.
    pub(crate) joins: Option<u64>,
    /// It may hold entries of collections whose home it is not.
    pub(crate) mixed: bool,
    /// The version of the members that it states durably.
    pub(crate) stated: u64,
    /// Its folder is not there any more, or is another.
    pub(crate) not_mounted: bool,
    /// Its committer is in the kernel with a write that was abandoned.
    pub(crate) stalled: bool,
    /// What it holds is being committed elsewhere.
    pub(crate) evacuation: Option<super::evacuate::Evacuation>,
    /// When it is probed after a failure.
    pub(crate) probe_at: Instant,
    pub(crate) device: (u64, String),
    pub(crate) space: Space,
    pub(crate) io: JournalIo,
    pub(crate) journal_max: u64,
    /// It is a bucket: each frame and each segment is an object of its own.
    pub(crate) of_objects: bool,
    /// Where it is a bucket: no frame is begun before, unless much waits.
    pub(crate) frame_at: Instant,

    pub(crate) opening: Opening,
    pub(crate) closing: Closing,
    pub(crate) stream: Stream,
    pub(crate) closes: Vec<crate::format::facts::Close>,
    pub(crate) accepted_damage: Vec<crate::format::facts::AcceptedDamage>,
    pub(crate) slots: VecDeque<SlotUse>,
    pub(crate) old: Vec<OldStream>,
    /// Files that nothing needs.
    pub(crate) garbage: Vec<(String, u64)>,
    pub(crate) unlinking: u64,
    pub(crate) pool: Pool,
    /// The file system has no space for entries; why that is known.
    pub(crate) full: Option<Full>,
    /// Bytes by which files have grown since the space was measured.
    pub(crate) grown: u64,
    pub(crate) acked_floor: u64,
    pub(crate) acked_oldest: StreamKey,

    pub(crate) queue: VecDeque<ColIx>,
    pub(crate) pending_bytes: u64,
    pub(crate) facts: VecDeque<Fact>,
    /// When the next commit is due.
    pub(crate) commit_at: Option<Instant>,
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) since_checkpoint: u64,
    /// The tick at which its last complete checkpoint began.
    pub(crate) checkpointed: u64,
    pub(crate) checkpoint_size: u64,
    /// The last work was upkeep: a normal frame goes first.
    pub(crate) yield_to_normal: bool,
    /// Somebody was refused for want of journal space.
    pub(crate) pressed: bool,
    /// Look whether a checkpoint would free files.
    pub(crate) look_for_free: bool,
    /// Its committer has to be woken.
    pub(crate) signalled: bool,
    /// Its upkeep worker has to be woken.
    pub(crate) upkeep_signalled: bool,
    pub(crate) flusher: Flusher,
    pub(crate) last_commit: Instant,
    /// The tick of its last durable frame.
    pub(crate) synced: u64,
    /// The last frame proves all before it and nothing has to be proven.
    pub(crate) proven: bool,
    pub(crate) list_at: Instant,

    /// EWMA of commit latency; 0 before the first commit.
    pub(crate) latency_us: f64,
    pub(crate) measured_at: Instant,
    pub(crate) acks_per_sync: f64,
}

impl Journal {
    /// A directory whose stream has no frame yet: healthy, empty, in no list of places, not in use, unbounded.
    pub(crate) fn new(id: DirectoryId, url: WalUrl, stream: Stream, now: Instant) -> Self {
        Self {
            id,
            url,
            position: None,
            takes_all_commits: false,
            draining: false,
            leaves: false,
            health: Health::Healthy,
            since: SystemTime::now(),
            in_use: false,
            joins: None,
            mixed: false,
            stated: 0,
            not_mounted: false,
            stalled: false,
            evacuation: None,
            probe_at: now,
            device: (0, String::new()),
            space: Space::default(),
            io: JournalIo::Buffered,
            journal_max: u64::MAX,
            of_objects: false,
            frame_at: now,
            opening: Opening::First,
            closing: Closing::Open,
            acked_floor: stream.floor,
            acked_oldest: stream.oldest,
            stream,
            closes: Vec::new(),
            accepted_damage: Vec::new(),
            slots: VecDeque::new(),
            old: Vec::new(),
            garbage: Vec::new(),
            unlinking: 0,
            pool: Pool::default(),
            full: None,
            grown: 0,
            queue: VecDeque::new(),
            pending_bytes: 0,
            facts: VecDeque::new(),
            commit_at: None,
            in_flight: None,
            checkpoint: None,
            since_checkpoint: 0,
            checkpointed: 0,
            checkpoint_size: 0,
            yield_to_normal: false,
            pressed: false,
            look_for_free: true,
            signalled: false,
            upkeep_signalled: false,
            flusher: Flusher::default(),
            last_commit: now,
            synced: 0,
            proven: false,
            list_at: now + IDLE,
            latency_us: 0.0,
            measured_at: now,
            acks_per_sync: 0.0,
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.health == Health::Healthy
    }

    /// Whether it has a stream that can be written.
    pub(crate) fn is_open(&self) -> bool {
        self.is_healthy() && !self.stream.over
    }

    /// Whether its device has had no answer for too long.
    pub(super) fn is_silent(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.ticks >= super::watch::STALL)
    }

    /// Whether entries may be committed here.
    pub(crate) fn takes_data(&self) -> bool {
        self.hears() && self.full.is_none()
    }

    /// Whether new collections may live here.
    pub(super) fn takes_collections(&self) -> bool {
        self.position.is_some() && self.takes_data() && !self.draining
    }

    /// Whether facts may be committed here.
    pub(crate) fn takes_facts(&self) -> bool {
        self.is_open() && self.opening == Opening::Done && self.closing == Closing::Open
    }

    /// Whether it can be told what happens elsewhere, and a later start asks it.
    pub(crate) fn hears(&self) -> bool {
        self.takes_facts() && self.in_use
    }

    /// Whether segments may be written here: whatever becomes of its stream, its files can be written. On a full disk, too,
    /// as far as it has room below the mark: what goes to a segment frees more in a journal.
    pub(crate) fn takes_segments(&self) -> bool {
        self.is_healthy() && self.full.as_ref().is_none_or(|full| self.spares_a_segment(full))
    }

    /// Whether segments may be removed here: also where there is no space, which is what that makes.
    pub(crate) fn removes_segments(&self) -> bool {
        !matches!(self.health, Health::Failed(_))
    }

    /// Bytes of journal files, those to be removed and those kept for frames to come included.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let ahead = self.slots.back().map_or(0, |slot| slot.len - slot.bytes);
        self.used_bytes() + ahead + self.pool_bytes()
    }

    /// Bytes of journal files that no frame can take. Objects that nothing needs are none: they take no room from others, and
    /// no start reads them.
    pub(crate) fn used_bytes(&self) -> u64 {
        let ahead = self.slots.back().map_or(0, |slot| slot.len - slot.bytes);
        let to_go = self.garbage.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.unlinking;
        self.slots.iter().map(|slot| slot.len).sum::<u64>() - ahead
            + self.old.iter().map(OldStream::bytes).sum::<u64>()
            + if self.of_objects { 0 } else { to_go }
            + self.pool.reserve.bytes()
    }

    /// Where a file is full: a small journal has smaller slots, so that some can be freed; so has one on a small file
    /// system, so that the current one and the reserve leave room.
    pub(crate) fn slot_limit(&self) -> u64 {
        let page = crate::format::limits::PAGE as u64;
        let volume = if self.space.capacity == 0 { u64::MAX } else { self.space.capacity / 8 };
        (self.journal_max / 4).min(volume).clamp(16 * page, crate::format::limits::SLOT_NOMINAL) / page * page
    }

    /// Above this many bytes what lives in the oldest file is flushed.
    pub(crate) fn cleaning_mark(&self) -> u64 {
        (self.journal_max / 4 * 3).min(self.journal_max.saturating_sub(2 * self.slot_limit()))
    }

    /// Whether `bytes` more of entries fit below the part that is kept for facts.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.full.is_none()
            && self.used_bytes() + self.pending_bytes + bytes + self.slot_limit() <= self.journal_max
            && self.disk_has_room(bytes)
    }

    /// The earlier of what is due and `at`.
    pub(crate) fn due(&mut self, at: Instant) {
        self.commit_at = Some(self.commit_at.map_or(at, |due| due.min(at)));
        self.signalled |= !mutant!(NoWakeUp);
    }

    /// A new commit took this long and answered this many.
    pub(crate) fn measured(&mut self, took_us: f64, acks: u64, now: Instant) {
        self.measured_at = now;
        let blend = |before: &mut f64, now: f64| {
            *before = if *before == 0.0 { now } else { 0.8 * *before + 0.2 * now };
        };
        blend(&mut self.latency_us, took_us);
        blend(&mut self.acks_per_sync, acks as f64);
    }

    /// A directory that nothing was committed to has an old measurement: a fifth of it is forgotten, down to a little
    /// less than the best of the others, so that one that was slow once is tried again.
    pub(crate) fn age(&mut self, best_of_others_us: f64, now: Instant) {
        let floor = TRIED_AGAIN * best_of_others_us;
        if now >= self.measured_at + IDLE && self.latency_us > floor {
            self.latency_us = (0.8 * self.latency_us).max(floor);
        }
    }
}
