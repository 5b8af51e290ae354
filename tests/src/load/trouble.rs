//! What a disk does under load, short of losing its power.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use rustix::io::Errno;

use crate::twin::{Op, Rule, TwinDisk, What};

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// One sync fails; its pages stay readable.
    FailedSync,
    /// One write fails, and has left nothing.
    FailedWrite,
    /// One write or sync fails, and was done all the same.
    FailedButDone,
    /// One write is short.
    ShortWrite,
    /// Every call fails until the round ends.
    Dead,
    /// No space left until the round ends.
    Full,
    /// Names cannot be made, changed or synced until the round ends.
    NoNames,
    /// Every sync takes 20 ms longer.
    Slow,
    /// Every write and sync stalls until the round ends.
    Stall,
    /// Syncs say that they are done, and do nothing. No sidecar can live with that: it shows that the loop would see it.
    Lies,
}

impl Trouble {
    /// All that a writer must live with and that is over in a moment.
    pub const QUICK: &[Self] = &[
        Self::FailedSync,
        Self::FailedWrite,
        Self::FailedButDone,
        Self::ShortWrite,
        Self::Dead,
        Self::Full,
        Self::NoNames,
        Self::Slow,
    ];

    /// Failures of calls.
    pub const FAILURES: &[Self] =
        &[Self::FailedSync, Self::FailedWrite, Self::FailedButDone, Self::ShortWrite, Self::Dead, Self::NoNames];

    /// Begins; [`TwinDisk::heal`] ends it, except that a full disk has to get its capacity back.
    pub fn begin(self, disk: &TwinDisk, rng: &mut StdRng) {
        const WRITES: &[Op] = &[Op::Write];
        const SYNCS: &[Op] = &[Op::Sync];
        const BOTH: &[Op] = &[Op::Write, Op::Sync];
        const NAMES: &[Op] = &[Op::Create, Op::Rename, Op::Unlink, Op::SyncDir];
        let after = u64::from(rng.next_u32() % 8);
        let failed = What::Error(Errno::IO);
        let rule = match self {
            Self::FailedSync => Rule::new(SYNCS, failed).times(1),
            Self::FailedWrite => Rule::new(WRITES, failed).times(1),
            Self::FailedButDone => Rule::new(BOTH, What::DoneAndError(Errno::IO)).times(1),
            Self::ShortWrite => Rule::new(WRITES, What::Short).times(1),
            Self::Dead => Rule::dead(),
            Self::NoNames => Rule::new(NAMES, failed),
            Self::Slow => Rule::new(SYNCS, What::Slow(Duration::from_millis(20))),
            Self::Stall => Rule::new(BOTH, What::Stall),
            Self::Lies => Rule::new(SYNCS, What::Lie),
            Self::Full => {
                let (capacity, free) = disk.space();
                return disk.set_capacity(capacity - free + rng.random_range(0..100_000));
            }
        };
        disk.inject(if self == Self::Lies { rule } else { rule.after(after) });
    }
}
