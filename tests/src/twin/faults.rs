//! What goes wrong on a disk, and when.

use std::ffi::OsStr;
use std::time::Duration;

use rustix::io::Errno;

/// A kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Finding a name, or attributes.
    Look,
    /// Creating a file or folder.
    Create,
    /// Opening what is there.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Changing the length.
    SetLen,
    /// Syncing a file.
    Sync,
    /// Syncing a folder.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing a name.
    Unlink,
    /// Listing a folder.
    List,
    /// Asking for the space.
    Space,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing is done, and this error returned. A sync that fails loses what was to be synced, though it stays readable.
    Error(Errno),
    /// It is done, and this error returned all the same.
    DoneAndError(Errno),
    /// Half of a write is done and counted.
    Short,
    /// A sync answers success and does nothing.
    Lie,
    /// The call returns only after [`super::TwinDisk::heal`].
    Stall,
    /// It is done so much later.
    Slow(Duration),
}

/// A fault and when it strikes.
#[derive(Clone, Debug)]
pub struct Rule {
    ops: &'static [Op],
    /// Part of the file's name; empty for every file.
    part: &'static str,
    /// So many calls pass before.
    after: u64,
    /// So many are struck then.
    times: u64,
    what: What,
}

impl Rule {
    /// Strikes every call of these kinds; of every kind if none is named.
    #[must_use]
    pub const fn new(ops: &'static [Op], what: What) -> Self {
        Self { ops, part: "", after: 0, times: u64::MAX, what }
    }

    /// A disk that is dead: EIO on every call.
    #[must_use]
    pub const fn dead() -> Self {
        Self::new(&[], What::Error(Errno::IO))
    }

    /// Only where the file's name has this in it.
    #[must_use]
    pub const fn on(mut self, part: &'static str) -> Self {
        self.part = part;
        self
    }

    /// Lets so many calls pass first.
    #[must_use]
    pub const fn after(mut self, calls: u64) -> Self {
        self.after = calls;
        self
    }

    /// Strikes so often only.
    #[must_use]
    pub const fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Rule>,
    pub(super) struck: u64,
}

impl Faults {
    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    /// What happens to this call: the first rule that applies decides.
    pub(super) fn strike(&mut self, op: Op, name: &OsStr) -> Option<What> {
        for rule in &mut self.rules {
            let meant = rule.ops.is_empty() || rule.ops.contains(&op);
            if !meant || !name.to_string_lossy().contains(rule.part) {
                continue;
            }
            if rule.after > 0 {
                rule.after -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                self.struck += 1;
                return Some(rule.what);
            }
        }
        None
    }
}
