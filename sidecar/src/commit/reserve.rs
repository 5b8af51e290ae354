//! The reserve of a directory: small files written ahead that entries never take, so that facts go on when nothing can
//! grow any more, also after a start on the full disk. Each session that begins on a full disk uses one up.

use std::time::Instant;

use super::collection::DirIx;
use super::journal::{Journal, Opening};
use super::log::Log;
use super::outcome::Failure;
use super::slots::{FILL_EVERY, FILL_PIECE, FreeSlot, RETRY};
use super::wear::Wear;
use crate::format::limits::PAGE;

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
    under_way: bool,
}

/// The reserve of one directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reserve {
    pub(super) files: Vec<FreeSlot>,
    making: Option<Making>,
    /// Files begun by this process.
    begun: u64,
}

impl Reserve {
    /// Whether nothing of it is missing.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.files.len() == RESERVES
    }

    pub(super) fn bytes(&self) -> u64 {
        let making = self.making.as_ref().map_or(0, |making| making.len + FILL_PIECE);
        self.files.iter().map(|file| file.bytes).sum::<u64>() + making
    }
}

/// A piece of a reserve's file to be written with zeros and synced; the first piece makes the file. Report to
/// [`Log::reserved`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReserveJob {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Journal {
    /// Bytes of each file of the reserve: a checkpoint of many collections fits.
    fn reserve_size(&self) -> u64 {
        (self.slot_limit() / 4 / PAGE as u64).max(4) * PAGE as u64
    }

    /// Keeps a file for the reserve, where it is one.
    pub(super) fn keep_in_reserve(&mut self, name: &str, bytes: u64) -> bool {
        let of_use = bytes == self.reserve_size() || (self.full.is_some() && bytes > PAGE as u64);
        let keep = is_reserve(name) && of_use && self.pool.in_place && self.pool.reserve.files.len() < RESERVES;
        if keep {
            self.pool.reserve.files.push(FreeSlot { name: name.to_owned(), bytes, wear: Wear::default() });
        }
        keep
    }

    /// The next thing to do for the reserve; the second file can wait for the spare.
    pub(super) fn reserve_work(&mut self, now: Instant, spare_waits: bool) -> Option<ReserveJob> {
        let (size, full) = (self.reserve_size(), self.full.is_some());
        if let Some(making) = &mut self.pool.reserve.making {
            if making.under_way || (making.due > now && !full) {
                return None;
            }
            if full {
                // As far as it came it is better than nothing.
                let Making { file, len, .. } = self.pool.reserve.making.take()?;
                if !self.keep_in_reserve(&file, len) && len > 0 {
                    self.garbage.push((file, len));
                }
                return None;
            }
            making.under_way = true;
            let len = FILL_PIECE.min(size.saturating_sub(making.len));
            return Some(ReserveJob { file: making.file.clone(), offset: making.len, len });
        }
        let there = self.pool.reserve.files.len();
        let wanted = there == 0 || (there < RESERVES && !spare_waits);
        let possible = self.opening == Opening::Done
            && !full
            && self.is_worth_writing_ahead(now)
            && self.journal_bytes() + size <= self.journal_max
            && self.space.spares(self.grown + size);
        if !wanted || !possible {
            return None;
        }
        self.pool.reserve.begun += 1;
        let file = format!("{PREFIX}{:013}-{}", self.stream.key.epoch.0, self.pool.reserve.begun);
        self.pool.reserve.making = Some(Making { file: file.clone(), len: 0, due: now, under_way: true });
        Some(ReserveJob { file, offset: 0, len: FILL_PIECE.min(size) })
    }

    /// When the next thing is to be done for the reserve.
    pub(super) fn reserve_due(&self) -> Option<Instant> {
        self.pool.reserve.making.as_ref().filter(|making| !making.under_way).map(|making| making.due)
    }
}

impl Log {
    /// A piece of the reserve is written, or could not be: then nothing is left of the file.
    pub(crate) fn reserved(&mut self, dir: DirIx, job: &ReserveJob, outcome: Result<(), Failure>, now: Instant) {
        let journal = &mut self.journals[dir];
        journal.upkeep_signalled = true;
        let Some(making) = journal.pool.reserve.making.as_mut().filter(|making| making.file == job.file) else {
            return;
        };
        match outcome {
            Ok(()) => {
                making.len = job.offset + job.len;
                (making.due, making.under_way) = (now + FILL_EVERY, false);
                let len = making.len;
                journal.grew(job.len, now);
                if len >= journal.reserve_size() {
                    journal.pool.reserve.making = None;
                    if !journal.keep_in_reserve(&job.file, len) {
                        journal.garbage.push((job.file.clone(), len));
                    }
                }
            }
            Err(failure) => {
                journal.pool.reserve.making = None;
                journal.pool.retry_at = Some(now + RETRY);
                if let Failure::Full(why) = failure {
                    journal.is_full(why, true, now);
                }
            }
        }
    }
}
