//! The reserve of a directory: small files written ahead that entries never take, so that facts go on when nothing can
//! grow any more, also after a start on the full disk. Each session that begins on a full disk uses one up.
//!
//! 1. The first piece of the first file is written with the first frame of a stream, before the directory takes entries:
//!    a disk that is filled from outside at any later time still takes truncations.
//! 2. That piece grows with the collections: a checkpoint of all of them fits. One that was used up, or is too small by
//!    now, is made good as soon as there is space, whether or not the stream is used.
//! 3. The rest is written when the stream is used; where the disk gets full before, what there is of a file is the reserve.
//! 4. Where files are not written ahead (copy on write, network), or the space is short already, there is none.

use std::time::Instant;

use super::collection::DirIx;
use super::journal::{Journal, Opening};
use super::log::Log;
use super::outcome::Failure;
use super::slots::{FILL_EVERY, FILL_PIECE, FreeSlot, RETRY};
use super::wear::Wear;
use crate::format::limits::PAGE;

/// What a checkpoint says of a collection: its facts with a few producers and segments.
const PER_COLLECTION: u64 = 512;
/// A file of a reserve grows with the collections in steps of so many bytes.
const STEP: u64 = 64 << 10;
/// Files in a reserve.
const RESERVES: usize = 2;
/// How their names begin: no name of a slot does.
const PREFIX: &str = "reserve-";

/// Whether a file of this name is, or was to become, one of a reserve. It holds nothing.
pub(crate) fn is_reserve(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// A file of the reserve being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Making {
    file: String,
    len: u64,
    due: Instant,
    /// Bytes that are being written behind `len`; 0: none.
    under_way: u64,
}

/// The reserve of one directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reserve {
    pub(super) files: Vec<FreeSlot>,
    making: Option<Making>,
    /// Files begun by this process.
    begun: u64,
    /// What a checkpoint speaks of: collections, and those deleted.
    stated: u64,
}

impl Reserve {
    /// Whether nothing of it is missing.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.files.len() == RESERVES
    }

    /// Bytes of its files, the one being written included.
    pub(crate) fn bytes(&self) -> u64 {
        let making = self.making.as_ref().map_or(0, |making| making.len + making.under_way);
        self.files.iter().map(|file| file.bytes).sum::<u64>() + making
    }

    /// Bytes of the largest part that is written.
    fn largest(&self) -> u64 {
        let making = self.making.as_ref().map(|making| making.len);
        self.files.iter().map(|file| file.bytes).chain(making).max().unwrap_or(0)
    }

    /// The largest file of less than `enough` bytes, to be gone on with.
    fn reopen(&mut self, enough: u64, now: Instant) -> Option<Making> {
        let small = self.files.iter().enumerate().filter(|(_, file)| file.bytes < enough);
        let (at, _) = small.max_by_key(|(_, file)| file.bytes)?;
        let FreeSlot { name, bytes, wear: _ } = self.files.swap_remove(at);
        Some(Making { file: name, len: bytes, due: now, under_way: 0 })
    }

    /// Takes the file in which most fits.
    pub(super) fn take_largest(&mut self) -> Option<FreeSlot> {
        let (at, _) = self.files.iter().enumerate().max_by_key(|(_, file)| file.bytes)?;
        Some(self.files.swap_remove(at))
    }
}

/// A piece of a reserve's file to be written with zeros and synced; the first piece makes the file. Report to
/// [`Log::reserved`], or with the frame that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReserveJob {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Journal {
    fn quarter(&self) -> u64 {
        (self.slot_limit() / 4 / PAGE as u64).max(4) * PAGE as u64
    }

    /// The least that is of use: a checkpoint fits. Half a slot at most, so that a small journal has room for entries.
    fn first_piece(&self) -> u64 {
        let page = PAGE as u64;
        let facts = self.pool.reserve.stated * PER_COLLECTION / STEP * STEP;
        (FILL_PIECE.min(self.quarter()) + facts).min(self.slot_limit() / 2 / page * page)
    }

    /// Bytes of each whole file of the reserve.
    fn reserve_size(&self) -> u64 {
        self.quarter().max(self.first_piece())
    }

    /// Keeps a file for the reserve, where it is one: a part of one is gone on with.
    pub(super) fn keep_in_reserve(&mut self, name: &str, bytes: u64) -> bool {
        let (size, full) = (self.reserve_size(), self.full.is_some());
        let reserve = &mut self.pool.reserve;
        if !is_reserve(name) || !self.pool.in_place || reserve.files.len() >= RESERVES {
            return false;
        }
        // One that was written for more collections than there are now is as good.
        if bytes >= size || (full && bytes > PAGE as u64) {
            reserve.files.push(FreeSlot { name: name.to_owned(), bytes, wear: Wear::default() });
            return true;
        }
        let goes_on = bytes > PAGE as u64 && bytes.is_multiple_of(PAGE as u64);
        if goes_on && reserve.making.is_none() {
            let due = self.last_commit;
            reserve.making = Some(Making { file: name.to_owned(), len: bytes, due, under_way: 0 });
            return true;
        }
        false
    }

    /// The disk is full: as far as a file came it is better than nothing.
    pub(super) fn keep_what_is_made(&mut self) {
        if let Some(Making { file, len, .. }) = self.pool.reserve.making.take_if(|making| making.under_way == 0)
            && !self.keep_in_reserve(&file, len)
            && len > 0
        {
            self.garbage.push((file, len));
        }
    }

    /// Whether `bytes` more of a reserve leave journal and file system within their bounds.
    fn spares_a_reserve(&self, bytes: u64) -> bool {
        self.pool.in_place
            && !self.draining
            && self.full.is_none()
            && self.journal_bytes() + bytes <= self.journal_max
            && self.space.spares(self.grown + bytes)
    }

    fn name_reserve(&mut self) -> String {
        self.pool.reserve.begun += 1;
        let Reserve { begun, .. } = &self.pool.reserve;
        format!("{PREFIX}{:013}-{begun}", self.stream.key.epoch.0)
    }

    /// The first piece of a reserve, for the frame that begins a stream, where there is nothing of one.
    pub(super) fn first_reserve(&mut self) -> Option<ReserveJob> {
        let len = self.first_piece();
        let none = self.pool.reserve.files.is_empty() && self.pool.reserve.making.is_none();
        (none && self.spares_a_reserve(len)).then(|| ReserveJob { file: self.name_reserve(), offset: 0, len })
    }

    /// The first piece is written.
    pub(super) fn reserve_begun(&mut self, job: &ReserveJob, now: Instant) {
        self.pool.reserve.making = Some(Making { file: job.file.clone(), len: 0, due: now, under_way: job.len });
        self.reserve_grew(job, now);
    }

    fn reserve_grew(&mut self, job: &ReserveJob, now: Instant) {
        let whole = job.offset + job.len >= self.reserve_size();
        if let Some(making) = &mut self.pool.reserve.making {
            (making.len, making.due, making.under_way) = (job.offset + job.len, now + FILL_EVERY, 0);
        }
        self.grew(job.len, now);
        if (whole || self.full.is_some())
            && let Some(Making { file, len, .. }) = self.pool.reserve.making.take()
            && !self.keep_in_reserve(&file, len)
        {
            self.garbage.push((file, len));
        }
    }

    /// The next thing to do for the reserve; what is not needed at once can wait for the spare.
    pub(super) fn reserve_work(&mut self, now: Instant, spare_waits: bool) -> Option<ReserveJob> {
        let (size, enough) = (self.reserve_size(), self.first_piece());
        if let Some(whole) = self.pool.reserve.making.take_if(|making| making.under_way == 0 && making.len >= size)
            && !self.keep_in_reserve(&whole.file, whole.len)
        {
            self.garbage.push((whole.file, whole.len));
        }
        let there = self.pool.reserve.files.len();
        let short = self.pool.reserve.largest() < enough;
        let small = self.pool.reserve.files.iter().any(|file| file.bytes < enough);
        let wanted = short || there == 0 || (!spare_waits && (there < RESERVES || small));
        let possible = self.opening == Opening::Done
            && if short { self.may_write_ahead(now) } else { self.is_worth_writing_ahead(now) };
        if !wanted || !possible {
            return None;
        }
        let goal = if short { enough } else { size };
        let begun = match &self.pool.reserve.making {
            Some(making) if making.under_way > 0 || making.due > now => return None,
            Some(making) => Some(making.len),
            None => self.pool.reserve.files.iter().map(|file| file.bytes).filter(|bytes| *bytes < enough).max(),
        };
        let rest = goal.saturating_sub(begun.unwrap_or(0));
        if rest == 0 || !self.spares_a_reserve(rest) {
            return None;
        }
        // The first piece is whole, or there is none.
        let under_way = if short && begun.is_none() { rest } else { FILL_PIECE.min(rest) };
        let making = match self.pool.reserve.making.take() {
            Some(making) => Making { under_way, ..making },
            None => self.pool.reserve.reopen(enough, now).map_or_else(
                || Making { file: self.name_reserve(), len: 0, due: now, under_way },
                |making| Making { under_way, ..making },
            ),
        };
        let job = ReserveJob { file: making.file.clone(), offset: making.len, len: under_way };
        self.pool.reserve.making = Some(making);
        Some(job)
    }

    /// When the next thing is to be done for the reserve.
    pub(super) fn reserve_due(&self, now: Instant) -> Option<Instant> {
        let making = self.pool.reserve.making.as_ref().filter(|making| making.under_way == 0)?;
        (making.due > now).then_some(making.due)
    }
}

impl Log {
    /// How much a reserve has to hold.
    pub(super) fn measure_reserve(&mut self, dir: DirIx) {
        self.journals[dir].pool.reserve.stated = (self.by_name.len() + self.tombstones.len()) as u64;
    }

    /// A piece of the reserve is written, or could not be. For want of space: what was there before is the reserve. Else
    /// nothing is left of the file.
    pub(crate) fn reserved(&mut self, dir: DirIx, job: &ReserveJob, outcome: Result<(), Failure>, now: Instant) {
        let journal = &mut self.journals[dir];
        journal.upkeep_signalled = true;
        if journal.pool.reserve.making.as_ref().is_none_or(|making| making.file != job.file) {
            return;
        }
        match outcome {
            Ok(()) => {
                journal.reserve_grew(job, now);
                // The stream may have ended meanwhile for want of this.
                self.go_on_with_facts(dir, now);
            }
            Err(failure) => {
                let kept = |_: &mut Making| matches!(failure, Failure::Full(_)) && job.offset > 0;
                let kept = journal.pool.reserve.making.take_if(kept);
                journal.pool.reserve.making = kept.map(|making| Making { under_way: 0, ..making });
                journal.pool.retry_at = Some(now + RETRY);
                if let Failure::Full(why) = failure {
                    journal.is_full(why, true, now);
                }
            }
        }
    }
}
