//! How far a tool has come, over all files of all directories.

use super::{OnProgress, Progress};

/// Counts bytes and tells.
pub(super) struct Meter<'p> {
    done: u64,
    total: u64,
    tell: OnProgress<'p>,
}

impl<'p> Meter<'p> {
    pub(super) fn new(tell: OnProgress<'p>) -> Self {
        Self { done: 0, total: 0, tell }
    }

    /// So much is to be read.
    pub(super) fn expect(&mut self, total: u64) {
        (self.done, self.total) = (0, total);
    }

    /// What is read now.
    pub(super) fn at(&mut self, what: &str) {
        // A file that a sidecar appends to grows while it is read.
        let done = self.done.min(self.total);
        (self.tell)(Progress { done, total: self.total, at: what });
    }

    /// So much more is read.
    pub(super) fn add(&mut self, bytes: u64, what: &str) {
        self.done += bytes;
        self.at(what);
    }

    /// Everything is read.
    pub(super) fn end(&mut self) {
        self.done = self.total;
        self.at("");
    }
}
