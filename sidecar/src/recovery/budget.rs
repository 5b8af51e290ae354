//! The memory that entries may take while journals are read, over all directories.
//!
//! 1. While there is room entries are kept as they are read. When there is none everything read is given up, and all
//!    journals are read again: then only the places of entries are noted ([`super::noted`]). Where files are much larger
//!    than the memory that is not even tried.
//! 2. What a large batch took above the bound while it was appended it may take here.
//! 3. What is read of a bucket before it is needed counts too: where entries leave no room, nothing is read ahead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::fencing::directory::Room;
use crate::format::limits::{GROUP_CUT, MAX_FRAME};

/// Beyond what is cut as a group, a frame has at most so many bytes of head, padding and facts that were queued.
const BESIDE: u64 = 2 * GROUP_CUT as u64;

/// Files of so many times the memory hardly fit into it.
const TOO_MANY: u64 = 2;

/// How entries are kept.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    /// Of all that is in memory, whether entries are kept or not.
    bound: u64,
    used: AtomicU64,
    /// Read, or being read, before it is needed.
    ahead: AtomicU64,
    /// Bytes of all files.
    files: AtomicU64,
    /// The longest frame.
    longest: AtomicU64,
    over: AtomicBool,
    noting: bool,
}

impl Budget {
    /// Entries are kept up to `limit` bytes of memory.
    pub(crate) const fn keeping(limit: u64) -> Self {
        let [used, ahead, files, longest] = [const { AtomicU64::new(0) }; 4];
        Self { limit, bound: limit, used, ahead, files, longest, over: AtomicBool::new(false), noting: false }
    }

    /// Only the places of entries are noted; what is read ahead is within `bound`.
    pub(crate) const fn noting(bound: u64) -> Self {
        Self { noting: true, bound, ..Self::keeping(u64::MAX) }
    }

    /// Whether only places are noted.
    pub(crate) const fn notes(&self) -> bool {
        self.noting
    }

    /// A directory's files have so many bytes. Whether it is worth to keep what is in them.
    pub(crate) fn expects(&self, bytes: u64) -> bool {
        let files = self.files.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.over.fetch_or(files > self.limit.saturating_mul(TOO_MANY), Ordering::Relaxed);
        !self.is_over()
    }

    /// What a stream holds has changed, after a frame of `length` bytes. Whether there is still room.
    pub(crate) fn changed(&self, before: u64, after: u64, length: u64) -> bool {
        self.longest.fetch_max(length, Ordering::Relaxed);
        let used = if after >= before {
            self.used.fetch_add(after - before, Ordering::Relaxed) + (after - before)
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed) - (before - after)
        };
        if used > self.limit.saturating_add(self.allowance()) {
            self.over.store(true, Ordering::Relaxed);
        }
        !self.is_over()
    }

    /// Whether there was no room once.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) && !self.noting
    }

    /// So much above the bound the largest batch may have been.
    fn allowance(&self) -> u64 {
        let longest = self.longest.load(Ordering::Relaxed);
        if longest > BESIDE { longest.min(MAX_FRAME as u64) } else { 0 }
    }

    /// Whether `bytes` of memory for all entries are within the bound.
    pub(crate) fn has_room(&self, limit: u64, bytes: u64) -> bool {
        bytes <= limit.saturating_add(self.allowance())
    }
}

impl Room for Budget {
    fn take(&self, bytes: u64) -> bool {
        let kept = if self.noting { 0 } else { self.used.load(Ordering::Relaxed) };
        let most = self.bound.saturating_sub(kept);
        let more = |ahead: u64| ahead.checked_add(bytes).filter(|ahead| *ahead <= most);
        self.ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.ahead.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_until_all_directories_together_hold_more_than_the_limit() {
        let budget = Budget::keeping(1000);
        assert!(budget.changed(0, 600, 4096));
        assert!(budget.changed(600, 100, 4096), "what is let go of makes room");
        assert!(budget.changed(0, 900, 4096));
        assert!(!budget.changed(900, 901, 4096));
        assert!(!budget.changed(901, 0, 4096), "what was given up stays given up");
        assert!(Budget::noting(1000).changed(0, u64::MAX, 4096));
    }

    #[test]
    fn files_of_more_than_twice_the_limit_are_not_kept() {
        let budget = Budget::keeping(1000);
        assert!(budget.expects(2000));
        assert!(!budget.expects(1));
        assert!(Budget::noting(1000).expects(u64::MAX) && Budget::keeping(u64::MAX).expects(u64::MAX));
    }

    #[test]
    fn what_is_read_ahead_fits_beside_what_is_kept() {
        let budget = Budget::keeping(1000);
        assert!(budget.changed(0, 300, 4096));
        assert!(budget.take(400) && !budget.take(400) && budget.take(300));
        budget.give_back(700);
        assert!(budget.changed(300, 900, 4096));
        assert!(!budget.take(400) && budget.take(100));
        let noting = Budget::noting(1000);
        assert!(noting.changed(0, 9000, 4096));
        assert!(noting.take(1000) && !noting.take(1));
    }

    #[test]
    fn a_large_batch_may_stand_above_the_limit_as_it_did_when_it_was_appended() {
        let budget = Budget::keeping(1000);
        assert!(budget.changed(0, 16 << 20, (16 << 20) + 8192));
        assert!(!budget.changed(0, 16 << 20, 4096));
        assert!(budget.has_room(1000, 16 << 20) && !budget.has_room(1000, 32 << 20));
    }
}
