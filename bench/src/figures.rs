//! Everything that was measured, round by round.

use std::collections::{BTreeMap, HashMap};

use crate::effort::Effort;
use crate::measured::Measured;
use crate::spread::Spread;
use crate::syncs::Syncs;
use crate::{failure, recovery, server, subject};

/// Who takes a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    InProcess(subject::Kind),
    Server(server::Kind),
    /// Our sidecar through tonic.
    StockClient,
    /// Redis through `redis-benchmark`.
    RedisBenchmark,
}

impl Who {
    /// As the report shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::InProcess(kind) => kind.name(),
            Self::Server(kind) => kind.name(),
            Self::StockClient => "our sidecar, clients with tonic",
            Self::RedisBenchmark => "Redis, by `redis-benchmark`",
        }
    }
}

/// A closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    pub(crate) who: Who,
    /// Threads, or connections.
    pub(crate) clients: usize,
    /// Appends under way for each.
    pub(crate) in_flight: usize,
    pub(crate) collections: usize,
}

impl Load {
    /// One append under way for each client, all to one collection.
    pub(crate) const fn plain(who: Who, clients: usize) -> Self {
        Self { who, clients, in_flight: 1, collections: 1 }
    }
}

/// All rounds of one load.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) p50: Spread,
    pub(crate) p99: Spread,
    pub(crate) rate: Spread,
    /// Of the log's process for each, µs.
    pub(crate) cpu: Spread,
}

impl Rounds {
    fn add(&mut self, measured: Measured) {
        self.p50.add(measured.p50);
        self.p99.add(measured.p99);
        self.rate.add(measured.rate);
        self.cpu.add(measured.cpu);
    }
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) effort: Effort,
    pub(crate) only_appends: bool,
    pub(crate) machine: Vec<(&'static str, String)>,
    /// Of the servers that are on this machine.
    pub(crate) versions: BTreeMap<server::Kind, String>,
    /// `None`: calls could not be recorded.
    pub(crate) syncs: Option<HashMap<&'static str, Syncs>>,
    pub(crate) loads: BTreeMap<Load, Rounds>,
    pub(crate) recoveries: BTreeMap<u64, Vec<recovery::Measured>>,
    /// Start time in ms by entries, or why there is none.
    pub(crate) starts: Result<BTreeMap<u64, Spread>, String>,
    /// Each round of a disk that dies, or why there is none.
    pub(crate) failures: Result<Vec<failure::Measured>, String>,
    /// Resident memory of an idle sidecar, MiB.
    pub(crate) idle: Spread,
    /// Acknowledgements per second on one device and on two; empty where there are not two.
    pub(crate) two_devices: Vec<(f64, f64)>,
}

impl Figures {
    pub(crate) fn add(&mut self, load: Load, measured: Measured) {
        self.loads.entry(load).or_default().add(measured);
    }

    pub(crate) fn get(&self, load: Load) -> Option<&Rounds> {
        self.loads.get(&load)
    }

    /// The median rate of one append in flight for each client.
    pub(crate) fn rate(&self, who: Who, clients: usize) -> Option<f64> {
        Some(self.get(Load::plain(who, clients))?.rate.median())
    }
}
