//! What a run is given from caches and clocks.

use std::collections::{BTreeMap, BTreeSet};

use walstorage_crds::walstorage::{Effective, WhenDeleted, WhenDrained};
use walstorage_crds::walwriter::WalWriter;

use super::call::ClaimFacts;
use crate::identity::PodFacts;

/// What the caches and the clock say as the run begins. It may be late; a run never lets a pod go, releases a holder or
/// deletes anything by it alone.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Milliseconds.
    pub now: i64,
    /// How long things take.
    pub timing: Timing,
    /// The storage, if there is one.
    pub storage: Option<StorageView>,
    /// The namespace is being deleted: nothing new can be made in it, and all goes by itself.
    pub namespace_ends: bool,
    /// A ledger of the writer was seen. Where none was, there may be one all the same.
    pub has_ledger: bool,
    /// The ledger as the cache has it.
    pub ledger: Option<Box<WalWriter>>,
    /// The pods that name the writer, gated or not.
    pub pods: Vec<PodFacts>,
    /// The writer's claims by name.
    pub claims: BTreeMap<String, ClaimFacts>,
    /// Pods of the writer as DELETED events had them: the last that was ever stored of each. Never one that a cache had.
    /// Whoever has left `pods` is here, but for what an interrupted watch missed.
    pub last_words: Vec<PodFacts>,
    /// So old a loser of this workload must be before it is deleted, in milliseconds.
    pub loser_delay: i64,
    /// Other writers of the workload have entries and cannot be proposed.
    pub others_hold_data: usize,
    /// The uid of a writer that is created in this run.
    pub fresh_uid: String,
    /// Other writers wait for this run to end.
    pub crowded: bool,
}

/// How long things take, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// So long past its grace period a pod is waited for.
    pub handover: i64,
    /// So long a writer is Released before it is Orphaned.
    pub orphan_after: i64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { handover: 120_000, orphan_after: 300_000 }
    }
}

/// The storage, as its own reconciliation left it.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageView {
    /// With every default filled in; or the sentence that refuses it.
    pub effective: Result<Effective, String>,
    /// Its ConfigMap stands as rendered from this generation.
    pub config_rendered: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// The claims of drained writers.
    pub when_drained: WhenDrained,
    /// All claims, once it is deleted.
    pub when_deleted: WhenDeleted,
    /// How long a drained writer keeps its claims, in milliseconds.
    pub drained_after: i64,
    /// Names of the URLs whose class binds a claim before the pod has a node.
    pub immediate: BTreeSet<String>,
}
