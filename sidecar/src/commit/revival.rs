//! How a directory that failed comes back: after a minute and a probe it goes on in a new session.
//!
//! 1. A directory whose committer is still in the kernel with an abandoned write is not probed: that write may yet land,
//!    and the committer is what writes the next session.
//! 2. It is written to again as what it was: a member that was in use takes entries as soon as its first frame is
//!    durable, another one only when every directory says that it is in use; one that was emptied to go, never.
//! 3. It missed what was said meanwhile: its session begins with a checkpoint of everything.

use std::time::{Duration, Instant, SystemTime};

use super::collection::DirIx;
use super::journal::Health;
use super::log::{Log, Stage};

/// A directory that failed is left alone for this long, and as long again after each probe that fails.
pub(crate) const REST: Duration = Duration::from_secs(60);

impl Log {
    /// When `dir` is to be probed, where it is.
    pub(super) fn probe_at(&self, dir: DirIx) -> Option<Instant> {
        let journal = &self.journals[dir];
        let failed = matches!(journal.health, Health::Failed(_)) && journal.stream.over;
        let given_up = self.forgotten.contains(&journal.id);
        (failed && !journal.stalled && !given_up && self.stage == Stage::Serving).then_some(journal.probe_at)
    }

    /// What a probe (write, sync, read back, delete) showed.
    pub(crate) fn probed(&mut self, dir: DirIx, result: Result<(), String>, now: Instant) {
        if self.probe_at(dir).is_none() {
            return;
        }
        let rest = self.rest;
        let journal = &mut self.journals[dir];
        match result {
            Ok(()) => {
                journal.health = Health::Healthy;
                journal.not_mounted = false;
                journal.since = SystemTime::now();
                self.restart_stream(dir, now);
                self.journals[dir].since_checkpoint = u64::MAX;
            }
            Err(why) => {
                journal.health = Health::Failed(why);
                journal.probe_at = now + rest;
            }
        }
    }

    /// The session's first frame is durable.
    pub(super) fn revived(&mut self, dir: DirIx, now: Instant) {
        if mutant!(ReturnedUnannounced) {
            self.journals[dir].in_use = true;
        }
        // One that was emptied to go stays out: only it could say that it is back, and no configuration may name it. And a
        // process that ends needs no other one: whoever was told that it may be taken away may do so.
        let stays_out = self.journals[dir].draining || self.stage == Stage::Stopping;
        if !self.journals[dir].in_use && !stays_out {
            self.journals[dir].joins = Some(self.version + 1);
            self.restate(now);
        }
        self.resume(now);
    }
}
