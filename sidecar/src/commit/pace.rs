//! The pace of buckets: what differs between a directory of objects and one of files where frames are made.
//!
//! 1. Between the starts of two frames at least `bucket_commit_interval_ms` pass, whatever the number of collections: each
//!    costs a request that is paid for. The first frame after a while is begun at once; so is one for which [`AT_ONCE`] waits.
//! 2. An object is there as a whole or not at all: no frame proves another.
//! 3. A frame is a file of its own.
//! 4. A log that nothing is written to writes nothing. A checkpoint is an object itself, often more than one: at leisure it is
//!    written only where it frees something that is no such object.
//! 5. A start reads every object above the floor, however small: each counts as [`WEIGHT`] bytes of the journal, so that the
//!    bound of its bytes bounds their number too.

use std::time::{Duration, Instant};

use super::collection::DirIx;
use super::frames::IDLE;
use super::journal::{Journal, SlotUse};
use super::log::{Log, Stage};
use crate::format::limits::GROUP_CUT;

/// So many bytes of entries start a commit at once, and fit into one.
pub(crate) const AT_ONCE: usize = 8 << 20;
/// So many bytes of the journal an object is counted as, at least: reading one takes as long as reading so much.
pub(crate) const WEIGHT: u64 = 64 << 10;
/// Between looks whether a later start has claimed the bucket. It costs a request, and prevents nothing: that the next commit
/// finds its number taken does.
const LIST_EVERY: Duration = Duration::from_secs(60);

impl Journal {
    /// Most bytes of entries in a frame, but for one batch that is larger.
    pub(super) const fn group_cut(&self) -> usize {
        if self.of_objects { AT_ONCE } else { GROUP_CUT }
    }

    /// Where a file is full: an object is by its first frame.
    pub(super) fn file_limit(&self) -> u64 {
        if self.of_objects { 0 } else { self.slot_limit() }
    }

    /// Whether it is worth a checkpoint to let go of what is up to this frame of the stream.
    pub(super) fn is_worth_freeing(&self, floor: u64) -> bool {
        let freed = |slot: &&SlotUse| slot.last_frame > self.stream.floor && slot.last_frame <= floor;
        let mut freed = self.slots.iter().filter(freed);
        floor > self.stream.floor && (!self.of_objects || freed.any(|slot| !slot.upkeep))
    }

    /// Between looks at the directory.
    pub(super) const fn list_every(&self) -> Duration {
        if self.of_objects { LIST_EVERY } else { IDLE }
    }
}

impl Log {
    /// When the next frame of `dir` may begin, where that is not now.
    pub(super) fn pace(&self, dir: DirIx, now: Instant) -> Option<Instant> {
        let journal = &self.journals[dir];
        let waits = journal.of_objects
            && journal.frame_at > now
            && journal.pending_bytes < AT_ONCE as u64
            && self.stage == Stage::Serving;
        waits.then_some(journal.frame_at)
    }

    /// A frame of `dir` begins.
    pub(super) fn paced(&mut self, dir: DirIx, now: Instant) {
        self.journals[dir].frame_at = now + self.settings.bucket_interval;
    }
}
