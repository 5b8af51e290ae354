//! The files of a journal that hold no needed frame: *free* ones, kept to be used again, and the *spare*, the stream's
//! next file, made ready while frames still go to the current one. Overwriting a file that is written to its end costs
//! less than growing one, and needs no space.
//!
//! 1. A file is written only by the process and for the stream that stamped it: renamed to its new name, the folder
//!    synced, its first page written and synced, in this order. What it held before is then no frame of any stream:
//!    stream, file number and offset stand in every head.
//! 2. Where no header of a session can be read, the stream in a head tells nothing: so a file never gets a number again
//!    that it had in another session of the same epoch ([`Wear`]).
//! 3. Only a file that nothing needs is stamped: its frames are below the floor, or beyond the end of a closed stream.
//! 4. While upkeep works on the next file, no frame goes there: a frame that needs it is held, and goes when it is told.
//! 5. Spares, free files and the reserve never bring the journal above its bound.

use std::time::{Duration, Instant};

use super::collection::DirIx;
use super::frames::{FrameJob, Work};
use super::journal::{InFlight, Journal, Opening, SlotUse};
use super::log::Log;
use super::outcome::Failure;
use super::reserve::{Reserve, ReserveJob};
use super::wear::Wear;
use crate::format::limits::PAGE;
use crate::format::names::SlotName;
use crate::format::{Marker, StreamId, StreamKey};

/// Free files that are kept, the spare not counted.
const KEEP_FREE: usize = 2;
/// No spare is made before a stream has taken this much: most processes write little.
const WORTH_A_SPARE: u64 = 256 << 10;
/// A spare is filled in pieces of so many bytes, each synced.
pub(crate) const FILL_PIECE: u64 = 256 << 10;
/// The time between two pieces: frames go between them.
pub(super) const FILL_EVERY: Duration = Duration::from_millis(5);
/// Free files go when nothing was committed for so long.
const IDLE_SLOTS: Duration = Duration::from_secs(60);
/// After a spare could not be made.
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// A file that nothing needs, whole and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FreeSlot {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) wear: Wear,
}

/// The next file of the stream, where it is stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub(crate) marker: Marker,
    /// Bytes of it that are written.
    pub(crate) len: u64,
    pub(crate) wear: Wear,
}

/// How far the next file of the stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spare {
    #[default]
    None,
    /// It is being stamped; the free file it is made of.
    Stamping(Option<FreeSlot>),
    /// It is stamped and being filled: the next piece is due then, or under way.
    Filling {
        file: Prepared,
        goal: u64,
        due: Instant,
        under_way: bool,
    },
    Ready(Prepared),
}

impl Spare {
    fn bytes(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Stamping(source) => source.as_ref().map_or(PAGE as u64, |free| free.bytes),
            Self::Filling { file, goal, .. } => (file.len + FILL_PIECE).min(*goal),
            Self::Ready(file) => file.len,
        }
    }
}

/// Free files and the spare of one directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    /// Overwriting is worth it on this file system.
    pub(crate) in_place: bool,
    pub(crate) free: Vec<FreeSlot>,
    pub(crate) spare: Spare,
    pub(crate) reserve: Reserve,
    /// Bytes of entries that the stream took.
    pub(crate) taken: u64,
    /// No spare is made before.
    pub(crate) retry_at: Option<Instant>,
}

/// A file to be stamped as the next one of a stream; report to [`super::log::Log::stamped`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StampJob {
    pub(crate) key: StreamKey,
    pub(crate) stream: StreamId,
    pub(crate) file: u64,
    /// The free file to rename; `None`: a new one.
    pub(crate) from: Option<String>,
}

/// A piece of a spare to be written with zeros and synced; report to [`super::log::Log::filled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FillJob {
    pub(crate) name: SlotName,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// It is whole then.
    pub(crate) last: bool,
}

/// What a frame that begins a file goes to.
pub(super) enum NextFile {
    /// One that is made for it.
    New,
    Spare(Prepared),
    /// Upkeep is working on it.
    Busy,
}

impl SlotUse {
    /// A file whose first frame was built at `made`: the spare, or one that was made for it.
    pub(super) fn begun(file: u64, session: u32, made: u64, spare: Option<Prepared>) -> Self {
        let page = PAGE as u64;
        let (len, wear) = spare.map_or((page, Wear::default()), |spare| (spare.len, spare.wear));
        Self { file, bytes: page, len, wear: wear.with(session, file), made, ..Self::default() }
    }
}

impl Log {
    /// The frame that waits for a file, where there is one now.
    pub(super) fn held_frame(&mut self, dir: DirIx) -> Work {
        self.measure_reserve(dir);
        let journal = &mut self.journals[dir];
        if !journal.holds_a_frame() {
            return Work::Wait(None);
        }
        let spare = match journal.take_next_file() {
            NextFile::Busy => return Work::Wait(None),
            NextFile::New if journal.full.is_some() && journal.has_source() => {
                journal.upkeep_signalled = true;
                return Work::Wait(None);
            }
            NextFile::New => None,
            NextFile::Spare(spare) => Some(spare),
        };
        let begins = journal.in_flight.as_ref().and_then(|in_flight| in_flight.begins.clone());
        let Some(job) = begins else { return Work::Wait(None) };
        let reserve = if job.place.file == 1 { journal.first_reserve() } else { None };
        let job = FrameJob { prepared: spare.map(|spare| spare.marker), reserve, ..job };
        if let Some(in_flight) = &mut journal.in_flight {
            (in_flight.spare, in_flight.held, in_flight.begins) = (spare, false, Some(job.clone()));
        }
        Work::Frame(job)
    }

    /// The committer could not make the next file for want of space: nothing of its frame is written. Whether the frame
    /// goes to a free file instead: where it holds no entries, for which the last one is not.
    pub(super) fn hold_for_a_free_file(&mut self, dir: DirIx, why: &str, now: Instant) -> bool {
        let journal = &mut self.journals[dir];
        let source = journal.has_source();
        let facts_only = |in_flight: &&mut InFlight| source && in_flight.groups.is_empty();
        let Some(in_flight) = journal.in_flight.as_mut().filter(facts_only) else { return false };
        in_flight.held = true;
        journal.is_full(why.to_owned(), true, now);
        true
    }

    /// A spare is stamped, or could not be.
    pub(crate) fn stamped(&mut self, dir: DirIx, job: &StampJob, outcome: Result<Marker, NotStamped>, now: Instant) {
        let over = self.is_over(dir, job.key);
        let journal = &mut self.journals[dir];
        if over {
            if outcome.is_ok() {
                journal.garbage.push((SlotName { key: job.key, file: job.file }.to_string(), PAGE as u64));
            }
            return;
        }
        match outcome {
            Ok(marker) => journal.spare_stamped(marker, now),
            Err(failure) => self.spare_failed(dir, job.key, failure, now),
        }
    }

    /// A piece of the spare is filled, or could not be.
    pub(crate) fn filled(&mut self, dir: DirIx, job: &FillJob, outcome: Result<(), NotStamped>, now: Instant) {
        if self.is_over(dir, job.name.key) {
            return;
        }
        match outcome {
            Ok(()) => self.journals[dir].spare_filled(job, now),
            Err(failure) => self.spare_failed(dir, job.name.key, failure, now),
        }
    }

    fn spare_failed(&mut self, dir: DirIx, key: StreamKey, failed: NotStamped, now: Instant) {
        let NotStamped { failure, removed } = failed;
        let journal = &mut self.journals[dir];
        if let Failure::Full(why) = &failure {
            journal.is_full(why.clone(), true, now);
            if journal.keep_what_is_filled() {
                return;
            }
        }
        match failure {
            // What a device refuses to a file that nobody needs it may still do for frames; they will see.
            Failure::Full(_) | Failure::Failed(_) if removed => self.journals[dir].spare_given_up(now),
            failure => self.failed(dir, key, failure, now),
        }
    }
}

/// Why there is no spare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotStamped {
    pub(crate) failure: Failure,
    /// Nothing is left under the name of the next file.
    pub(crate) removed: bool,
}

impl Journal {
    /// The name of the next file of the stream.
    fn next_name(&self) -> SlotName {
        SlotName { key: self.stream.key, file: self.stream.file + 1 }
    }

    /// Takes the spare for a frame.
    pub(super) fn take_next_file(&mut self) -> NextFile {
        match std::mem::take(&mut self.pool.spare) {
            Spare::None => NextFile::New,
            Spare::Ready(file) | Spare::Filling { file, under_way: false, .. } => NextFile::Spare(file),
            busy @ (Spare::Stamping(_) | Spare::Filling { .. }) => {
                self.pool.spare = busy;
                NextFile::Busy
            }
        }
    }

    /// A file that nothing needs any more: kept where it is whole and of use, else removed.
    pub(crate) fn discard(&mut self, name: String, bytes: u64, wear: Wear) {
        self.upkeep_signalled = true;
        if self.keep_in_reserve(&name, bytes) {
            return;
        }
        // On a full disk a part of one is better than nothing.
        let of_use = bytes == self.slot_limit() || (self.full.is_some() && self.pool.free.is_empty());
        let keep = self.pool.in_place && of_use && self.pool.free.len() < KEEP_FREE;
        if keep && !self.draining {
            self.pool.free.push(FreeSlot { name, bytes, wear });
        } else {
            self.garbage.push((name, bytes));
        }
    }

    /// Bytes of files that are there for frames to come.
    pub(crate) fn pool_bytes(&self) -> u64 {
        self.pool.free.iter().map(|free| free.bytes).sum::<u64>() + self.pool.spare.bytes()
    }

    /// Whether there is a free file that the next one can be made of.
    fn has_source(&self) -> bool {
        let name = self.next_name();
        self.can_make(name.key.session, name.file)
    }

    /// Whether a file that is there may become number `file` of `session`.
    pub(super) fn can_make(&self, session: u32, file: u64) -> bool {
        let mut sources = self.pool.reserve.files.iter().chain(&self.pool.free);
        self.pool.in_place && sources.any(|free| free.wear.allows(session, file))
    }

    /// Whether a frame is held until there is a next file.
    pub(super) fn holds_a_frame(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.held)
    }

    /// Whether the committer itself is making the next file.
    fn makes_a_file(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.place.new_file && !in_flight.held)
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.last_commit + IDLE_SLOTS <= now
    }

    /// Gives up free files of which none is to be used soon, and those that the bound has no room for.
    pub(super) fn release_free(&mut self, now: Instant) {
        let (in_place, limit) = (self.pool.in_place, self.slot_limit());
        let mut over = self.journal_bytes().saturating_sub(self.journal_max);
        while over > 0
            && let Some(free) = self.pool.free.pop()
        {
            over = over.saturating_sub(free.bytes);
            self.garbage.push((free.name, free.bytes));
        }
        // One stays for a full disk, where there is neither spare nor reserve; of any size, where the disk is full.
        let full = self.full.is_some();
        let spend = full || self.is_idle(now);
        let bare = self.pool.spare == Spare::None && self.pool.reserve.files.is_empty();
        let mut stay = if spend { usize::from(bare) } else { KEEP_FREE };
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pool.free).into_iter().partition(|free| {
            let keep = in_place && (full || free.bytes == limit) && stay > 0;
            stay -= usize::from(keep);
            keep
        });
        self.pool.free = kept;
        self.garbage.extend(gone.into_iter().map(|free| (free.name, free.bytes)));
    }

    /// When free files go if nothing happens.
    pub(super) fn release_at(&self) -> Option<Instant> {
        let at = self.last_commit + IDLE_SLOTS;
        let bare = self.pool.spare == Spare::None && self.pool.reserve.files.is_empty();
        (self.pool.free.len() > usize::from(bare)).then_some(at)
    }

    /// Whether what is written ahead will be used.
    pub(super) fn is_worth_writing_ahead(&self, now: Instant) -> bool {
        self.may_write_ahead(now) && self.pool.taken >= WORTH_A_SPARE.min(self.slot_limit() / 4) && !self.is_idle(now)
    }

    /// Whether anything can be written ahead here.
    pub(super) fn may_write_ahead(&self, now: Instant) -> bool {
        self.pool.in_place && self.pool.retry_at.is_none_or(|at| at <= now) && !self.draining
    }

    /// The next thing to do for the spare and the reserve.
    pub(super) fn ahead_work(&mut self, now: Instant) -> Option<SpareWork> {
        if !self.holds_a_frame()
            && let Some(job) = self.reserve_work(now, !matches!(self.pool.spare, Spare::Ready(_)))
        {
            return Some(SpareWork::Reserve(job));
        }
        self.spare_work(now)
    }

    fn spare_work(&mut self, now: Instant) -> Option<SpareWork> {
        let held = self.holds_a_frame();
        let name = self.next_name();
        if let Spare::Filling { file, goal, due, under_way } = &mut self.pool.spare {
            if *under_way || *due > now || held {
                return None;
            }
            *under_way = true;
            let len = FILL_PIECE.min(*goal - file.len);
            let last = file.len + len >= *goal;
            return Some(SpareWork::Fill(FillJob { name, offset: file.len, len, last }));
        }
        if self.pool.spare != Spare::None || self.makes_a_file() || !self.pool.in_place {
            return None;
        }
        let worth = self.opening == Opening::Done && self.is_worth_writing_ahead(now);
        if !held && !worth {
            return None;
        }
        let (session, limit) = (name.key.session, self.slot_limit());
        let fits = |free: &FreeSlot| free.wear.allows(session, name.file) && (held || free.bytes == limit);
        let reserve = (held && self.full.is_some()).then(|| self.pool.reserve.take_largest()).flatten();
        let source = reserve.or_else(|| self.pool.free.iter().position(fits).map(|at| self.pool.free.swap_remove(at)));
        let room = self.full.is_none()
            && self.journal_bytes() + limit <= self.journal_max
            && self.space.spares(self.grown + limit);
        if source.is_none() && (held || !room) {
            return None;
        }
        let from = source.as_ref().map(|free| free.name.clone());
        self.pool.spare = Spare::Stamping(source);
        Some(SpareWork::Stamp(StampJob { key: name.key, stream: self.stream.id, file: name.file, from }))
    }

    /// When the next thing is to be done for a spare.
    pub(super) fn spare_due(&self) -> Option<Instant> {
        match &self.pool.spare {
            Spare::Filling { due, under_way: false, .. } => Some(*due),
            Spare::None => self.pool.retry_at,
            Spare::Stamping(_) | Spare::Filling { .. } | Spare::Ready(_) => None,
        }
    }

    /// The spare is stamped. It is filled where it is not whole.
    pub(super) fn spare_stamped(&mut self, marker: Marker, now: Instant) {
        let Spare::Stamping(source) = std::mem::take(&mut self.pool.spare) else { return };
        if source.is_none() {
            self.grew(PAGE as u64, now);
        }
        self.pool.spare = match source {
            Some(free) => Spare::Ready(Prepared { marker, len: free.bytes, wear: free.wear }),
            None => {
                let file = Prepared { marker, len: PAGE as u64, wear: Wear::default() };
                Spare::Filling { file, goal: self.slot_limit(), due: now, under_way: false }
            }
        };
        self.spare_changed();
    }

    /// A piece of the spare is filled.
    pub(super) fn spare_filled(&mut self, job: &FillJob, now: Instant) {
        self.grew(job.len, now);
        if let Spare::Filling { file, goal, due, under_way } = &mut self.pool.spare {
            file.len = job.offset + job.len;
            (*due, *under_way) = (now + FILL_EVERY, false);
            if file.len >= *goal {
                self.pool.spare = Spare::Ready(*file);
            }
        }
        self.spare_changed();
    }

    /// What is filled of a spare is the reserve of a full disk.
    fn keep_what_is_filled(&mut self) -> bool {
        let Spare::Filling { file, .. } = self.pool.spare else { return false };
        if file.len > PAGE as u64 {
            self.pool.spare = Spare::Ready(file);
            self.spare_changed();
        }
        file.len > PAGE as u64
    }

    /// A spare could not be made, and there is nothing at its place.
    pub(super) fn spare_given_up(&mut self, now: Instant) {
        self.pool.spare = Spare::None;
        self.pool.retry_at = Some(now + RETRY);
        self.spare_changed();
    }

    /// A held frame may go; a file that grows is left as soon as there is one that does not.
    fn spare_changed(&mut self) {
        let limit = self.slot_limit();
        let grows = self.slots.back().is_some_and(|slot| slot.len < limit);
        self.stream.rotate |= grows && matches!(&self.pool.spare, Spare::Ready(file) if file.len >= limit);
        (self.signalled, self.upkeep_signalled) = (true, true);
    }

    /// The stream is over: its spare can be the next one's, but not under this name.
    pub(super) fn retire_spare(&mut self) {
        let name = self.next_name().to_string();
        match std::mem::take(&mut self.pool.spare) {
            Spare::Ready(file) => self.discard(name, file.len, file.wear),
            Spare::Filling { file, .. } if file.len <= PAGE as u64 => self.garbage.push((name, file.len)),
            Spare::Filling { file, .. } => self.discard(name, file.len, file.wear),
            // Its report names the stream that is over.
            Spare::None | Spare::Stamping(_) => {}
        }
        (self.pool.taken, self.pool.retry_at) = (0, None);
    }
}

/// A piece of work for a spare.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SpareWork {
    Stamp(StampJob),
    Fill(FillJob),
    Reserve(ReserveJob),
}
