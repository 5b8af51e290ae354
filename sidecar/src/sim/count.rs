//! What was done to machines, counted: the figures that a run prints.

use std::collections::BTreeMap;
use std::fmt;

/// What a simulated machine or its environment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Cut,
    Kill,
    Stop,
    FailedSync,
    LandedSync,
    FailedCall,
    DeadCall,
    ShortWrite,
    Misdirected,
    Full,
    Rot,
    Stall,
    Unmount,
    TimeJump,
    ShadowCut,
    CutInRecovery,
}

impl Event {
    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "power cuts",
            Self::Kill => "kills",
            Self::Stop => "clean stops",
            Self::FailedSync => "failed syncs",
            Self::LandedSync => "failed syncs that had landed",
            Self::FailedCall => "failed calls",
            Self::DeadCall => "calls to dead disks",
            Self::ShortWrite => "short writes",
            Self::Misdirected => "misdirected writes",
            Self::Full => "writes to full disks",
            Self::Rot => "flipped bits",
            Self::Stall => "stalls",
            Self::Unmount => "lost mounts",
            Self::TimeJump => "jumps of time",
            Self::ShadowCut => "recoveries aside",
            Self::CutInRecovery => "cuts during recovery",
        }
    }
}

/// How often each happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<Event, u64>);

impl Counts {
    pub(crate) fn add(&mut self, event: Event) {
        *self.0.entry(event).or_default() += 1;
    }

    pub(crate) fn join(&mut self, others: &Self) {
        for (event, n) in &others.0 {
            *self.0.entry(*event).or_default() += n;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (event, count)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", event.name())?;
        }
        Ok(())
    }
}
