//! Full disks. A directory is *full* from the moment that the device says so, or that its file system is used to 95 %,
//! until less than 85 % is measured to be used.
//!
//! 1. A full directory takes no entries; what was assigned goes elsewhere, or waits.
//! 2. Facts go on, so that truncation makes room whatever is left: in what is written ahead of the current file, in the
//!    last free file, as a new session where the stream ended, or in the 5 %.
//! 3. Nobody has to do anything but make room: it goes on by itself.
//! 4. Between the two marks journals are emptied into segments. A few entries keep a whole stream of an earlier start, and
//!    where that alone uses 85 % of the disk nothing else would ever make room.

use std::time::{Duration, Instant};

use super::collection::{ColIx, DirIx};
use super::journal::{Health, Journal};
use super::log::Log;
use super::outcome::Failure;
use crate::directory::disk::Space;

/// A device that says that it is full while its file system is not (a quota) is tried again after so long.
const DISTRUST: Duration = Duration::from_secs(60);

/// Why a directory takes no entries for want of space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) why: String,
    since: Instant,
    /// The file system was measured to be that full, or something was removed from it.
    measured: bool,
    /// The device said so: nothing may grow.
    pub(super) refused: bool,
}

impl Full {
    /// Files were removed: what is measured next can be believed.
    pub(super) fn made_room(&mut self) {
        self.measured = true;
    }
}

impl Space {
    fn used(&self) -> u64 {
        self.capacity.saturating_sub(self.free)
    }

    /// Whether `bytes` more leave the file system below the mark at which it counts as full.
    pub(crate) fn spares(&self, bytes: u64) -> bool {
        self.capacity == 0 || u128::from(self.used()) * 100 + u128::from(bytes) * 100 < u128::from(self.capacity) * 95
    }

    /// Whether a full file system has room again.
    fn has_room_again(&self) -> bool {
        u128::from(self.used()) * 100 < u128::from(self.capacity) * 85 || self.capacity == 0
    }
}

impl Journal {
    /// The space as measured now. Whether entries are taken again.
    pub(super) fn measured_space(&mut self, space: Space, now: Instant) -> bool {
        (self.space, self.grown) = (space, 0);
        let room_again = space.has_room_again();
        match &mut self.full {
            Some(full) => {
                full.measured |= !room_again;
                let trusted = full.measured || full.since + DISTRUST <= now;
                if room_again && trusted {
                    self.full = None;
                    return true;
                }
            }
            None => self.watch_space(now),
        }
        false
    }

    /// Files have grown by so much since the space was measured.
    pub(super) fn grew(&mut self, bytes: u64, now: Instant) {
        self.grown += bytes;
        if self.full.is_none() {
            self.watch_space(now);
        }
    }

    /// Full, when the file system is used to the mark.
    pub(crate) fn watch_space(&mut self, now: Instant) {
        if !self.space.spares(self.grown) {
            let used = self.space.used() + self.grown;
            let percent = used as f64 * 100.0 / self.space.capacity as f64;
            let why = format!("its file system is used to {percent:.1} %; entries are taken below 95 %");
            self.is_full(why, false, now);
        }
    }

    pub(super) fn is_full(&mut self, why: String, refused: bool, now: Instant) {
        let before = self.full.take();
        let refused = refused || before.as_ref().is_some_and(|full| full.refused);
        let measured = !refused || before.is_some_and(|full| full.measured);
        self.full = Some(Full { why, since: now, measured, refused });
        self.keep_what_is_made();
        self.since = std::time::SystemTime::now();
        (self.signalled, self.upkeep_signalled) = (true, true);
    }

    /// Whether a full disk has been measured to have room below the mark.
    pub(super) fn spares_a_segment(&self, full: &Full) -> bool {
        full.measured && self.space.spares(self.grown) && !mutant!(FullDisksTakeNoSegments)
    }

    /// What is wrong with the directory, for messages.
    pub(super) fn condition(&self) -> String {
        match (&self.health, &self.full) {
            (Health::Failed(why), _) => format!("has failed: {why}"),
            (Health::Full(why), _) | (Health::Healthy, Some(Full { why, .. })) => format!("is full: {why}"),
            (Health::Healthy, None) => "is well".to_owned(),
        }
    }

    /// Bytes that can be written without growing anything.
    fn ahead(&self) -> u64 {
        self.slots.back().map_or(0, |slot| slot.len - slot.bytes)
    }

    /// Whether `bytes` more of entries, with those that wait, leave the file system below the mark.
    pub(super) fn disk_has_room(&self, bytes: u64) -> bool {
        let grows = (self.pending_bytes + bytes).saturating_sub(self.ahead() + self.pool_bytes());
        self.space.spares(self.grown + grows)
    }

    /// Whether what is queued must not be written here: it would take what is kept for facts.
    pub(super) fn is_for_facts_only(&self) -> bool {
        self.full.as_ref().is_some_and(|full| full.refused) && self.pending_bytes + self.slot_limit() / 4 > self.ahead()
    }

    /// Whether the next session can begin in a file that is there. One that had the first number before is none: a session
    /// begun for it would find nothing, end for want of space, and be followed by the next.
    fn has_reserve(&self) -> bool {
        let there = !self.pool.free.is_empty() || !self.pool.reserve.files.is_empty();
        self.can_make(self.stream.key.session + 1, 1) || (there && mutant!(SessionsWithoutFiles))
    }
}

impl Log {
    /// The stream of `dir` is over for want of space, and what it had is taken back: facts go on in a free file.
    pub(super) fn go_on_with_facts(&mut self, dir: DirIx, now: Instant) {
        let journal = &mut self.journals[dir];
        if !matches!(journal.health, Health::Full(_)) {
            return;
        }
        journal.retire_spare();
        // Where that is refused too, one file less is there for the next: it ends.
        if journal.has_reserve() {
            journal.health = Health::Healthy;
            self.begin_again(dir, now);
        }
    }

    /// A new session, which begins with a checkpoint: what was to be said in the one that ended is not known any more.
    fn begin_again(&mut self, dir: DirIx, now: Instant) {
        self.restart_stream(dir, now);
        self.journals[dir].since_checkpoint = u64::MAX;
    }

    /// What is queued for a full directory goes elsewhere, or waits.
    pub(super) fn take_off_entries(&mut self, dir: DirIx, now: Instant) {
        let journal = &mut self.journals[dir];
        let why = format!("{} is full", journal.url);
        journal.pending_bytes = 0;
        let queued: Vec<ColIx> = journal.queue.drain(..).collect();
        for ix in queued {
            if let Some(collection) = self.collections[ix].as_mut() {
                collection.queued_on = None;
            }
            self.queue_again(ix, &why, now);
        }
    }

    /// The space of `dir` was measured.
    pub(super) fn space_measured(&mut self, dir: DirIx, space: Space, now: Instant) {
        let journal = &mut self.journals[dir];
        let more = space.free > journal.space.free;
        let again = journal.measured_space(space, now);
        if !again {
            // Who waits may have been too large for what was left, here or in another directory that is full now.
            self.freed |= more;
            if journal.full.is_some() && journal.takes_segments() {
                journal.pressed = true;
                self.signal_flushers();
            }
            return;
        }
        tracing::info!(directory = %journal.url, "there is room again");
        if matches!(journal.health, Health::Full(_)) {
            journal.health = Health::Healthy;
            journal.since = std::time::SystemTime::now();
            self.begin_again(dir, now);
        } else if journal.takes_data() {
            self.resume(now);
        }
    }

    /// A failure that was a lack of space.
    pub(super) fn note_full(&mut self, dir: DirIx, failure: &Failure, now: Instant) {
        if let Failure::Full(why) | Failure::NoFile(why) = failure {
            self.journals[dir].is_full(why.clone(), true, now);
        }
    }
}
