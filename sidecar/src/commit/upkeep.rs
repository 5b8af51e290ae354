//! What keeps a directory's journal in order beside its commits: [`Log::poll_upkeep`] answers one piece of work for the
//! upkeep worker, which carries it out while the committer writes frames. At most one piece is under way per directory.
//!
//! 1. Nothing here writes to the stream: what upkeep does needs no frame, and no frame waits for it, unless it needs the
//!    very file that upkeep is stamping.
//! 2. A file is removed only when [`super::outcome`] has made it garbage.

use std::time::Instant;

use super::collection::DirIx;
use super::journal::{Closing, Health, Opening};
use super::log::{Log, Stage};
use super::reserve::ReserveJob;
use super::slots::{FillJob, SpareWork, StampJob};
use crate::directory::disk::Space;
use crate::format::StreamKey;

/// What the upkeep worker does for a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// List the journal, measure the space, report to [`Log::listed`].
    List,
    /// Remove these files of the journal, report to [`Log::unlinked`].
    Unlink(Vec<String>),
    /// Make the next file of the stream, report to [`Log::stamped`].
    Stamp(StampJob),
    /// Write and sync zeros, report to [`Log::filled`].
    Fill(FillJob),
    /// Write and sync zeros in a file of the reserve, report to [`Log::reserved`].
    Reserve(ReserveJob),
    /// Find out whether a directory that failed can be written again, report to [`Log::probed`].
    Probe,
    /// Nothing until it is signalled, or until then.
    Wait(Option<Instant>),
    /// Nothing ever again.
    End,
}

/// What a listing of a journal shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The newest stream of which there is a file.
    pub(crate) newest: Option<StreamKey>,
    /// `None` where it could not be measured.
    pub(crate) space: Option<Space>,
    /// The folder that was opened is not there any more.
    pub(crate) gone: Option<Gone>,
}

/// What is where a directory was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Nothing,
    /// Another folder: a volume was taken away, or mounted over it.
    Another,
}

/// Most objects to delete in one piece of work: between two of them it is looked whether somebody else writes.
const UNLINK_MOST: usize = 256;

impl Gone {
    const fn why(self) -> &'static str {
        match self {
            Self::Nothing => "its folder has vanished while the sidecar runs",
            Self::Another => "another folder is at its place since the sidecar started",
        }
    }
}

impl Log {
    /// What the upkeep worker of `dir` does next.
    pub(crate) fn poll_upkeep(&mut self, dir: DirIx, now: Instant) -> Upkeep {
        if let Some(at) = self.probe_at(dir) {
            return if at <= now { Upkeep::Probe } else { Upkeep::Wait(Some(at)) };
        }
        self.measure_reserve(dir);
        let journal = &mut self.journals[dir];
        let stopping = self.stage == Stage::Stopping;
        if matches!(self.stage, Stage::Fenced(_)) || (stopping && !journal.is_healthy()) {
            return Upkeep::End;
        }
        let dead = !journal.is_healthy();
        if dead && !matches!(journal.health, Health::Full(_)) {
            return Upkeep::Wait(None);
        }
        if !dead && (!stopping || journal.holds_a_frame()) {
            match journal.ahead_work(now) {
                Some(SpareWork::Reserve(job)) => return Upkeep::Reserve(job),
                Some(SpareWork::Stamp(job)) => return Upkeep::Stamp(job),
                Some(SpareWork::Fill(job)) => return Upkeep::Fill(job),
                None => {}
            }
        }
        // A directory that could not even begin for want of space is looked at all the same.
        if !dead && journal.opening != Opening::Done {
            return Upkeep::Wait(None);
        }
        if !stopping && journal.list_at <= now {
            return Upkeep::List;
        }
        journal.release_free(now);
        if !journal.garbage.is_empty() {
            let most = if journal.of_objects { UNLINK_MOST } else { usize::MAX };
            let files: Vec<_> = journal.garbage.drain(..most.min(journal.garbage.len())).collect();
            journal.unlinking = files.iter().map(|(_, bytes)| bytes).sum();
            return Upkeep::Unlink(files.into_iter().map(|(name, _)| name).collect());
        }
        if journal.closing == Closing::Closed {
            return Upkeep::End;
        }
        let due = [Some(journal.list_at), journal.spare_due(), journal.reserve_due(now), journal.release_at()];
        Upkeep::Wait(due.into_iter().flatten().min().filter(|_| !stopping))
    }

    /// What is written there now would not be found by the next start.
    fn gone(&mut self, dir: DirIx, gone: Gone, now: Instant) {
        let journal = &mut self.journals[dir];
        if !journal.is_open() {
            return;
        }
        journal.not_mounted = true;
        journal.stalled = journal.in_flight.is_some() && !journal.holds_a_frame();
        journal.health = Health::Failed(gone.why().to_owned());
        self.lose(dir, gone.why(), now);
    }

    /// Files of the journal are gone.
    pub(crate) fn unlinked(&mut self, dir: DirIx) {
        let journal = &mut self.journals[dir];
        journal.unlinking = 0;
        if let Some(full) = &mut journal.full {
            full.made_room();
        }
        self.freed = true;
    }

    /// The journal was listed: a newer stream than ours is somebody else's.
    pub(crate) fn listed(&mut self, dir: DirIx, listing: Listing, now: Instant) {
        // Also where nothing comes of it: a full directory may be gone for long.
        self.journals[dir].list_at = now + self.journals[dir].list_every();
        if let Some(gone) = listing.gone {
            return self.gone(dir, gone, now);
        }
        let best_us = self.best_latency_us(Some(dir));
        let journal = &mut self.journals[dir];
        journal.age(best_us, now);
        journal.look_for_free = true;
        journal.signalled = true;
        journal.pressed |= journal.full.as_ref().is_some_and(|full| !full.refused);
        let ours = journal.stream.key;
        if let Some(newest) = listing.newest.filter(|newest| *newest > ours) {
            let why = format!(
                "{} holds a stream of epoch {newest}, ours is {ours}: another process has taken over this writer",
                journal.url
            );
            return self.fence(why);
        }
        if let Some(space) = listing.space {
            self.space_measured(dir, space, now);
        }
    }
}
