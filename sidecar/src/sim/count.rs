//! What was done to machines, counted: the figures that a run prints, in a form that `make soak` adds up.

use std::collections::BTreeMap;
use std::fmt;

use super::world::World;

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
    /// A disk works again.
    Repaired,
    /// A directory was emptied, and its disk taken away.
    Evacuated,
    /// A disk came up empty.
    Wiped,
    /// A disk was not there when a process started.
    Absent,
    /// An administrator gave up a directory.
    GivenUp,
    /// A directory was to be emptied while a process served.
    Drained,
    /// The configuration was changed.
    Edited,
}

impl Event {
    /// Whether it ends a process.
    const fn is_an_end(self) -> bool {
        matches!(self, Self::Cut | Self::Kill | Self::CutInRecovery | Self::ShadowCut)
    }

    /// Whether something goes wrong with a disk or with time.
    const fn is_a_fault(self) -> bool {
        use Event::{Drained, Edited, Evacuated, GivenUp, Repaired, Stop};
        !self.is_an_end() && !matches!(self, Stop | Evacuated | Repaired | GivenUp | Drained | Edited)
    }

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
            Self::Repaired => "disks that worked again",
            Self::Evacuated => "emptied disks taken away",
            Self::Wiped => "disks that came up empty",
            Self::Absent => "disks missing at a start",
            Self::GivenUp => "directories given up",
            Self::Drained => "calls to empty a directory",
            Self::Edited => "edited configurations",
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

    /// How often it happened.
    pub(crate) fn of(&self, event: Event) -> u64 {
        self.0.get(&event).copied().unwrap_or_default()
    }

    fn sum(&self, counts: impl Fn(Event) -> bool) -> u64 {
        self.0.iter().filter(|(event, _)| counts(**event)).map(|(_, n)| n).sum()
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

/// What simulated worlds did together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    schedules: u64,
    lives: u64,
    steps: u64,
    effects: u64,
    acked: u64,
    counts: Counts,
}

impl Sum {
    /// Adds a world that has come to its end.
    pub(super) fn add(&mut self, world: &World) {
        self.schedules += 1;
        self.lives += world.lives;
        self.steps += world.steps;
        self.effects += world.machine.effects();
        self.acked += world.oracle.acked;
        self.counts.join(&world.machine.counts());
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schedules, lives, steps, effects, acked, counts } = self;
        let (ends, faults) = (counts.sum(Event::is_an_end), counts.sum(Event::is_a_fault));
        write!(
            f,
            "{schedules} schedules, {ends} kills and cuts, {faults} faults; {lives} lives, {steps} steps, {effects} effects \
             on disks, {acked} acknowledgements; {counts}"
        )
    }
}
