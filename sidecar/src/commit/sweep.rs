//! Segments that no fact speaks of, in the folders of collections that are deleted: a crash during a first flush, or
//! before its FLUSHED was durable, leaves a file there that nobody would ever look for again.
//!
//! 1. Only a file goes whose header names this directory, the collection and an incarnation that a durable DELETE covers;
//!    or an empty one where no collection of that name lives. Everything else is left alone.
//! 2. A deletion is stated by checkpoints until its folder was looked at in every directory: after a crash the next start
//!    looks again.

use std::collections::HashSet;

use super::collection::DirIx;
use super::flush_jobs::FlushWork;
use super::log::Log;
use crate::types::{CollectionName, Incarnation};

/// Most folders to look at in one piece of work.
const SWEEP_MOST: usize = 64;

/// A folder to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SweepJob {
    pub(crate) name: CollectionName,
    /// This life of the name and all before it are deleted.
    pub(crate) incarnation: Incarnation,
    /// There is a later one.
    pub(crate) lives: bool,
}

impl Log {
    /// A deletion is durable: what it left is looked for.
    pub(super) fn sweep_after(&mut self, name: &CollectionName, incarnation: Incarnation) {
        for journal in &mut self.journals {
            journal.flusher.sweep.push_back((name.clone(), incarnation));
            journal.flusher.signalled = true;
        }
    }

    pub(super) fn next_sweep(&mut self, dir: DirIx) -> Option<FlushWork> {
        if !self.journals[dir].removes_segments() {
            return None;
        }
        let flusher = &mut self.journals[dir].flusher;
        let count = flusher.sweep.len().min(SWEEP_MOST);
        if count == 0 {
            return None;
        }
        flusher.sweeping = flusher.sweep.drain(..count).collect();
        let jobs = self.journals[dir].flusher.sweeping.iter().map(|(name, incarnation)| SweepJob {
            name: name.clone(),
            incarnation: *incarnation,
            lives: self.by_name.get(name).is_some(),
        });
        Some(FlushWork::Sweep(jobs.collect()))
    }

    /// The folders were looked at; what could not be removed stays.
    pub(crate) fn swept(&mut self, dir: DirIx) {
        let flusher = &mut self.journals[dir].flusher;
        flusher.sweeping.clear();
        flusher.signalled = true;
    }

    /// The collections whose folders are still to be looked at.
    pub(super) fn unswept_names(&self) -> HashSet<CollectionName> {
        let there = self.journals.iter().filter(|journal| journal.in_use || journal.joins.is_some());
        let waiting = there.flat_map(|journal| journal.flusher.sweep.iter().chain(&journal.flusher.sweeping));
        waiting.map(|(name, _)| name.clone()).collect()
    }
}
