//! Draining to buckets: every directory that is no bucket is emptied while the process serves, so that the log can go on
//! without any disk.
//!
//! 1. It is what `drain = true` does ([`super::evacuate`], [`super::rewrite`]), asked for by a call and only as long as this
//!    process lives: the next start does what its configuration says.
//! 2. Nothing is left when every directory that stays says durably that the others are no members any more.

use std::time::Instant;

use super::collection::DirIx;
use super::journal::Journal;
use super::log::{Log, Stage};
use crate::error::{ApiError, Reason};

impl Journal {
    /// Whether it is to be emptied by a call and something still needs it.
    fn is_leaving(&self) -> bool {
        self.leaves && !self.is_evacuated() && (self.counts_as_in_use() || self.evacuation.is_some())
    }
}

impl Log {
    /// Begins to empty every directory that is no bucket, or goes on with it. Answers the bytes that are still to be moved; 0
    /// when nothing needs those directories any more, now and for every later start.
    ///
    /// # Errors
    /// INVALID_REQUEST where no bucket could take what they hold; NOT_READY; SHUTTING_DOWN; FENCED.
    pub(crate) fn drain(&mut self, now: Instant) -> Result<u64, ApiError> {
        self.check_open()?;
        let stays = |journal: &Journal| journal.of_objects && journal.position.is_some() && !journal.draining;
        if !self.journals.iter().any(stays) {
            let message = "nothing can be drained: no bucket is among wal_urls, or each is to be emptied itself; add an \
                           s3://, adls:// or gcs:// URL and restart";
            return Err(ApiError::new(Reason::InvalidRequest, message));
        }
        let disks: Vec<DirIx> = (0..self.journals.len()).filter(|dir| !self.journals[*dir].of_objects).collect();
        Ok(self.empty(&disks, now))
    }

    /// Empties directories as long as this process lives; the bytes that are left.
    pub(crate) fn empty(&mut self, dirs: &[DirIx], now: Instant) -> u64 {
        for &dir in dirs {
            let journal = &mut self.journals[dir];
            (journal.leaves, journal.draining) = (true, true);
        }
        self.begin_to_drain(now);
        self.left_to_drain()
    }

    /// Whether directories are emptied because somebody asked for it.
    pub(crate) fn drains(&self) -> bool {
        self.journals.iter().any(|journal| journal.leaves)
    }

    /// Directories may have to be emptied now: whoever has a part in that looks for it.
    pub(super) fn begin_to_drain(&mut self, now: Instant) {
        if self.stage != Stage::Serving || !self.journals.iter().any(|journal| journal.draining) {
            return;
        }
        self.tend_evacuations(now);
        for journal in &mut self.journals {
            journal.flusher.rewrite_at = None;
        }
        self.signal_all();
    }

    fn left_to_drain(&self) -> u64 {
        let leaving = self.journals.iter().enumerate().filter(|(_, journal)| journal.is_leaving());
        leaving
            .map(|(dir, journal)| {
                let entries = match &journal.evacuation {
                    Some(_) => journal.evacuation_bytes_left(),
                    None => self.left_in(dir).iter().map(|stretch| self.bytes_of(stretch)).sum(),
                };
                // Until the others say so it is not done, though all is moved.
                (entries + self.segment_bytes(dir)).max(1)
            })
            .sum()
    }

    /// Bytes of segments in `dir` that are needed.
    fn segment_bytes(&self, dir: DirIx) -> u64 {
        let needed = self.collections.iter().flatten().filter(|collection| !collection.delete_durable);
        let there = needed.flat_map(|collection| {
            let here = collection.segments.iter().filter(move |segment| segment.dir == dir);
            here.map(|segment| segment.live_bytes(collection.truncated_to))
        });
        there.sum()
    }
}
