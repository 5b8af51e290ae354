//! The watchdog: a write that a device does not answer is abandoned, and goes elsewhere.
//!
//! 1. Time is counted in ticks that really ran, a second each: a process that was stopped, or a machine that slept, blames
//!    no device for it.
//! 2. A write is abandoned only when another directory completed a sync since it began: not when everything stalls. While the
//!    log opens, one that has done its part of the start is enough: it has nothing more to write.
//! 3. The last directory that can be written is never given up for a stall; while stopping it is, so that the process
//!    ends.

use std::time::{Instant, SystemTime};

use super::collection::DirIx;
use super::journal::{Closing, Health, Journal, Opening};
use super::log::{Log, Stage};

/// A write that has no answer for this many ticks is stalled.
pub(crate) const STALL: u32 = 10;

impl Log {
    /// A second has passed in which this process ran.
    pub(crate) fn watch(&mut self, now: Instant) {
        self.tend_evacuations(now);
        for dir in 0..self.journals.len() {
            let journal = &mut self.journals[dir];
            let Some(in_flight) = &mut journal.in_flight else { continue };
            in_flight.ticks = in_flight.ticks.saturating_add(1);
            let (ticks, built) = (in_flight.ticks, in_flight.built);
            if ticks < STALL {
                continue;
            }
            let others = self.journals.iter().enumerate().filter(|(other, journal)| *other != dir && journal.is_open());
            let opened = |journal: &Journal| {
                self.stage == Stage::Opening && matches!(journal.opening, Opening::FirstDone | Opening::Done)
            };
            let alive = others.clone().any(|(_, journal)| journal.synced > built || opened(journal));
            let others: Vec<DirIx> = others.map(|(other, _)| other).collect();
            if alive {
                self.stalled(dir, now);
            } else if self.stage == Stage::Stopping && others.iter().all(|other| self.journals[*other].is_silent()) {
                return self.give_up();
            } else {
                // Nothing was to be written there: whether they still answer is found out.
                others.into_iter().for_each(|other| self.state_members(other, now));
            }
        }
    }

    fn stalled(&mut self, dir: DirIx, now: Instant) {
        let journal = &mut self.journals[dir];
        let why = format!("a write has had no answer for {STALL} s");
        // A frame that is held for its file never went to the committer.
        journal.stalled = !journal.holds_a_frame();
        journal.health = Health::Failed(why.clone());
        self.lose(dir, &why, now);
    }

    /// Nothing that can be written answers, and the process is to end: who waits learns that the outcome is unknown.
    fn give_up(&mut self) {
        for journal in self.journals.iter_mut().filter(|journal| journal.is_open() && journal.is_silent()) {
            journal.stalled = !journal.holds_a_frame();
            journal.since = SystemTime::now();
            journal.health = Health::Failed("a write has had no answer, and the sidecar is stopping".to_owned());
            journal.stream.over = true;
            journal.closing = Closing::Closed;
        }
        self.abandon("the sidecar stopped while a device did not answer");
    }

    /// The committer of `dir` is back from a write that was abandoned.
    pub(super) fn came_back(&mut self, dir: DirIx) {
        let journal = &mut self.journals[dir];
        if std::mem::take(&mut journal.stalled) {
            journal.upkeep_signalled = true;
        }
    }

    /// Whether the workers of a directory may never answer again: nobody waits for them at the end.
    pub(crate) fn is_stalled(&self, dir: DirIx) -> bool {
        self.journals[dir].stalled
    }
}
