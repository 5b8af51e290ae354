//! Who the members are may change while running: that is an EPOCH in every directory that can be written, and takes
//! effect when it is durable in all of them.
//!
//! 1. The version rises with every change; of two statements about the members the one with the higher version counts,
//!    in whatever directory it stands.
//! 2. Nothing is placed in a directory before every directory that can be written says that it is in use.
//! 3. A group goes to another directory than its collection's home only after every one says that this may be so.

use std::time::Instant;

use super::collection::DirIx;
use super::journal::{Fact, Journal};
use super::log::Log;

impl Log {
    /// The members have changed: every directory that can be written says so in its next frame.
    pub(super) fn restate(&mut self, now: Instant) {
        self.version += 1;
        for dir in 0..self.journals.len() {
            self.state_members(dir, now);
        }
        self.stated(now);
    }

    /// Queues an EPOCH in one directory.
    pub(super) fn state_members(&mut self, dir: DirIx, now: Instant) {
        let journal = &mut self.journals[dir];
        if journal.takes_facts() && !journal.facts.iter().any(|fact| matches!(fact, Fact::Members)) {
            journal.facts.push_back(Fact::Members);
            journal.due(now);
        }
    }

    /// The version that every directory which can be written has stated durably; 0 with none.
    pub(crate) fn settled_version(&self) -> u64 {
        self.journals.iter().filter(|journal| journal.takes_facts()).map(|journal| journal.stated).min().unwrap_or(0)
    }

    /// A statement became durable, or a directory went that others waited for: what waited for that takes effect.
    pub(super) fn stated(&mut self, now: Instant) {
        let settled = self.settled_version();
        let mut joined = false;
        for journal in &mut self.journals {
            if journal.joins.is_some_and(|version| version <= settled) {
                journal.joins = None;
                journal.in_use = true;
                joined = true;
            }
        }
        if self.scatters.is_some_and(|version| version <= settled) {
            self.scatters = None;
            self.settings.affinity = false;
        }
        if joined {
            self.resume(now);
        }
    }

    /// Without affinity groups go wherever placement says, once every directory says that they may be anywhere.
    pub(super) fn set_affinity(&mut self, affinity: bool, now: Instant) {
        if affinity {
            self.settings.affinity = true;
            self.scatters = None;
            return;
        }
        if self.journals.iter().all(|journal| journal.mixed) && self.scatters.is_none() {
            self.settings.affinity = false;
            return;
        }
        self.settings.affinity = true;
        self.journals.iter_mut().for_each(|journal| journal.mixed = true);
        self.scatters = Some(self.version + 1);
        self.restate(now);
    }
}

impl Journal {
    /// Whether it is, or is being said to be, a member that may hold what is acknowledged.
    pub(super) fn counts_as_in_use(&self) -> bool {
        self.in_use || self.joins.is_some()
    }
}
