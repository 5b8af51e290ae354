//! The words of flushing: what a flush worker is told to do, what it is asked for, and what a directory and the log keep
//! of it. What is done when is in [`super::flush`] and [`super::flush_plan`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use super::answer::ChangeWaiter;
use super::collection::{ColIx, DirIx};
use super::read::SegmentRead;
use super::segments::{Doomed, Segment, SegmentPath, SharedFile};
use super::shelf::JournalRead;
use super::sweep::SweepJob;
use crate::format::StreamKey;
use crate::format::header::Codec;
use crate::types::{CollectionName, Incarnation, Lsn};

/// A flush that somebody waits for.
#[derive(Debug)]
pub(crate) struct FlushWish {
    pub(super) until: Lsn,
    pub(super) waiter: ChangeWaiter<Lsn>,
}

/// Where a collection is on its way to segments.
#[derive(Debug, Default)]
pub(crate) struct FlushState {
    /// A flush or a seal of it, or the fact of one, is under way.
    pub(super) busy: bool,
    /// The segment that this is about.
    pub(super) target: Option<Uuid>,
    /// It has enough for a flush of its own; where and when.
    pub(super) due: Option<(DirIx, Instant)>,
    /// It stands in a plan.
    pub(super) planned: bool,
    /// Its own path in this directory could not be written: until then it goes to shared segments there.
    pub(super) detour: Option<(DirIx, Instant)>,
    /// The last flush left something behind: the next one does not wait.
    pub(super) capped: bool,
    pub(super) wishes: Vec<FlushWish>,
}

/// Why something is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody asked for it.
    Asked,
    /// It keeps a journal's file.
    Journal,
    /// Memory is short.
    Memory,
    /// Recovery left it in the journals.
    Recovery,
    /// The process ends.
    Stop,
    /// It has enough.
    Due,
    /// Little of a segment is needed, or nothing is to stay where it is.
    Rewrite,
}

impl Why {
    /// The name used in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Journal => "journal",
            Self::Memory => "memory",
            Self::Recovery => "recovery",
            Self::Stop => "stop",
            Self::Due => "due",
            Self::Rewrite => "rewrite",
        }
    }
}

/// One collection's part of a flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushPart {
    pub(crate) collection: ColIx,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: CollectionName,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// The entries are not in memory but in this segment, which is rewritten.
    pub(crate) source: Option<Uuid>,
}

/// Where a flush goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Behind the valid part of the segment being written.
    Behind(Segment),
    /// A new segment of one collection; what lies at its name is not needed.
    New(Uuid),
    /// A new shared segment.
    Shared(Uuid, u64),
}

/// A flush to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FlushJob {
    pub(crate) number: u64,
    pub(crate) why: Why,
    pub(crate) target: Target,
    /// One, unless the segment is shared.
    pub(crate) parts: Vec<FlushPart>,
    pub(crate) codec: Codec,
    pub(crate) key: StreamKey,
}

/// A segment to seal: give it its final name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealJob {
    pub(crate) number: u64,
    pub(crate) collection: ColIx,
    pub(crate) incarnation: Incarnation,
    pub(crate) segment: Segment,
    pub(crate) path: SegmentPath,
}

/// What the flush worker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FlushWork {
    /// Write it, report to [`Log::flushed`](super::log::Log::flushed) or
    /// [`Log::flush_failed`](super::log::Log::flush_failed).
    Flush(FlushJob),
    /// Rename it, report to [`Log::sealed`](super::log::Log::sealed).
    Seal(SealJob),
    /// Remove these files if they are the ones named, report to [`Log::removed`](super::log::Log::removed).
    Remove(Vec<(Uuid, SegmentPath)>),
    /// Look for files of deleted collections that no fact speaks of, report to [`Log::swept`].
    ///
    /// [`Log::swept`]: super::log::Log::swept
    Sweep(Vec<SweepJob>),
    /// Nothing until it is signalled, or until then.
    Wait(Option<Instant>),
    /// Nothing ever again.
    End,
}

/// A piece of a part to flush.
#[derive(Debug)]
pub(crate) enum Piece {
    /// Records, and the LSNs of the first and the last.
    Records(Vec<u8>, Lsn, Lsn),
    /// To be read from a segment.
    Read(Box<SegmentRead>),
    /// To be read from a journal of an earlier process.
    Journal(Box<JournalRead>),
    /// There is no more of this part.
    End,
    /// Give the flush up.
    Stop,
}

/// The work under way.
#[derive(Clone, Debug)]
pub(crate) enum Job {
    Flush(FlushJob),
    Seal(SealJob),
}

/// One directory's side of flushing.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    /// The worker has to be woken.
    pub(crate) signalled: bool,
    pub(crate) job: Option<Job>,
    pub(crate) due: BTreeSet<(Instant, ColIx)>,
    pub(crate) plan: VecDeque<(ColIx, Incarnation, Why)>,
    pub(crate) seals: VecDeque<(ColIx, Incarnation, Uuid)>,
    pub(crate) remove: VecDeque<Uuid>,
    pub(crate) removing: Vec<Uuid>,
    /// Deletions after which the folder is to be looked at; and those under way.
    pub(crate) sweep: VecDeque<(CollectionName, Incarnation)>,
    pub(crate) sweeping: Vec<(CollectionName, Incarnation)>,
    /// The last work was a removal: something else goes first.
    pub(crate) removed: bool,
    /// A flush failed: nothing goes here until then; and why.
    pub(crate) blocked: Option<(Instant, String)>,
    /// Number of the last shared segment.
    pub(crate) last_shared: u64,
    /// The plan was made for little: not again before.
    pub(crate) plan_again: Option<Instant>,
    /// Somebody was refused for want of journal space, though the journal is not over its mark.
    pub(crate) clean: bool,
    /// When to look for segments to rewrite, where there may be any.
    pub(crate) rewrite_at: Option<Instant>,
    /// A stop has nothing more to flush here.
    pub(crate) finished: bool,
}

/// An attempt to rewrite a segment.
#[derive(Debug)]
pub(crate) struct Tried {
    /// It is not tried again before.
    pub(super) again: Instant,
    /// Why it could not be read.
    pub(super) unreadable: Option<String>,
}

/// The log's side of flushing.
#[derive(Debug, Default)]
pub(crate) struct Flushing {
    /// Memory is short: flush until this is left at most.
    pub(super) goal: Option<u64>,
    /// Flush whatever there is.
    pub(super) eager: bool,
    /// A stop flushes until then.
    pub(super) until: Option<Instant>,
    pub(super) shared: HashMap<Uuid, SharedFile>,
    pub(super) doomed: BTreeMap<Uuid, Doomed>,
    /// Segments of collections that were to be rewritten and are still needed.
    pub(super) tried: HashMap<(Incarnation, Uuid), Tried>,
    pub(super) segments: u64,
    pub(super) jobs: u64,
    /// Collections with something on their shelf.
    pub(super) shelved: usize,
    /// What recovery left was looked at.
    pub(super) begun: bool,
}

impl Target {
    /// The segment.
    pub(crate) const fn id(&self) -> Uuid {
        match self {
            Self::Behind(segment) => segment.id,
            Self::New(id) | Self::Shared(id, _) => *id,
        }
    }
}
