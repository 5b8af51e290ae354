//! The decision about one pod: which writer it is to be, and whether it can be.
//!
//! 1. Nothing is written to the cluster. A writer that was proposed is reserved in memory for a while, so that two pods of
//!    one burst get two; a dry run reserves nothing.
//! 2. What the caches say may be old: it costs a lost race, which the controller settles, and never an entry. Only a pod of
//!    a pool that would start with an empty log beside other writers of its workload makes the webhook look at the pods
//!    themselves: the one that it replaces may be on its way out, and its entries would wait for the next pod.
//! 3. What stands in a pod under our seal is kept; everything else in it is its user's.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use walstorage_crds::names::{ANNOTATION_WORKLOAD, LABEL_STORAGE};
use walstorage_crds::walstorage::{Effective, Place, WalStorage, validate};
use walstorage_crds::walwriter::{WalWriter, Workload};

use super::json::meta;
use super::patch::{Origin, Proposal, Settings, Storage, patch};
use super::refusal::Refusal;
use super::review::{Answer, Review};
use crate::identity::{
    Class, Lookup, Lookups, PodFacts, Pool, Reservations, Verdict, choose, classify, kept, to_drain,
};

/// Annotation of the pods that a kubelet has already started from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What the decision reads. Caches but for three questions.
pub trait Cluster: Send + Sync {
    /// A WalStorage, from the cache.
    fn storage(&self, namespace: &str, name: &str) -> Option<Arc<WalStorage>>;
    /// The same, from the API server: one that was made a moment ago.
    fn read_storage(
        &self,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<WalStorage>, String>> + Send;
    /// An object above a pod, from the API server or as it was a moment ago.
    fn look_up(&self, namespace: &str, what: &Lookup) -> impl Future<Output = Result<Option<Value>, String>> + Send;
    /// The writers of a namespace, from the cache.
    fn writers(&self, namespace: &str) -> Vec<Arc<WalWriter>>;
    /// The labelled pods of a namespace, from the cache.
    fn pods(&self, namespace: &str) -> Vec<Arc<PodFacts>>;
    /// Those of a storage, from the API server.
    fn read_pods(&self, namespace: &str, storage: &str) -> impl Future<Output = Result<Vec<PodFacts>, String>> + Send;
}

/// Decides about pods, one after the other or many at once.
pub struct Admission<C> {
    cluster: C,
    settings: Settings,
    reservations: Mutex<Reservations>,
    /// Since when workloads wait for one of their pods to be told to end.
    waiting: Mutex<HashMap<String, i64>>,
    hold_ms: i64,
}

/// Why there is no patch.
enum No {
    Refused(String),
    Failed(String),
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

impl<C: Cluster> Admission<C> {
    /// Decides from this cluster. A writer that was proposed is proposed to nobody else for `hold_ms` milliseconds.
    pub fn new(cluster: C, settings: Settings, hold_ms: i64) -> Self {
        let (reservations, waiting) = (Mutex::new(Reservations::new(hold_ms)), Mutex::default());
        Self { cluster, settings, reservations, waiting, hold_ms }
    }

    /// Decides about a request, at a time.
    pub async fn answer(&self, review: &Review, now: Timestamp) -> Answer {
        if !review.creates_pod || meta(&review.object, "labels", LABEL_STORAGE).is_none() {
            return Answer::Admit { warning: "" };
        }
        if meta(&review.object, "annotations", MIRROR).is_some() {
            return Answer::Admit {
                warning: "a static pod cannot have a write-ahead log: the label walstorage.dev/storage is ignored",
            };
        }
        match self.decide(review, now.as_millisecond()).await {
            Ok(patch) => Answer::Patch(patch),
            Err(No::Refused(sentence)) => Answer::Refuse(sentence),
            Err(No::Failed(sentence)) => Answer::Fail(sentence),
        }
    }

    async fn decide(&self, review: &Review, now: i64) -> Result<json_patch::Patch, No> {
        let namespace = review.namespace.as_str();
        let pod = PodFacts::of(&review.object, namespace);
        let (verdict, most) = self.verdict(namespace, &pod).await?;
        let name = pod.storage().unwrap_or_default();
        let storage = self.find_storage(namespace, name).await?;
        let writers = self.cluster.writers(namespace);
        let writers: Vec<&WalWriter> =
            writers.iter().map(Arc::as_ref).filter(|writer| writer.spec.storage == name).collect();
        let effective = judge(name, &storage, &writers)?;

        let (writer, workload) = match verdict {
            Verdict::Refused(refused) => return Err(No::Refused(refused.to_string())),
            Verdict::Named { writer, workload } => (writer, workload),
            Verdict::Drains { writer_uid, workload } => {
                if !has_bucket(&effective) {
                    return Err(Refusal::NowhereToDrain { storage: name.to_owned() }.into());
                }
                let writer =
                    to_drain(&writers, name, &writer_uid).map_err(|refused| No::Refused(refused.to_string()))?;
                (writer.to_owned(), workload)
            }
            Verdict::Pooled { workload } => {
                let writer = match kept(&pod) {
                    Some(writer) => writer.to_owned(),
                    None => self.choose(review, name, &workload, most, &writers, now).await?,
                };
                (writer, workload)
            }
        };
        let origin = if kept(&pod) == Some(writer.as_str()) {
            Origin::Sealed
        } else if pod.is_rendered() {
            Origin::Rendered
        } else {
            Origin::User
        };
        let ledger = writers.iter().find(|one| one.spec.writer == writer).and_then(|one| one.status.as_ref());
        let proposal = Proposal {
            namespace,
            writer: &writer,
            workload: &written(&workload),
            // A pod with the label has a storage, and so a seal.
            seal: &pod.seal_for(&writer).unwrap_or_default(),
            ledger: ledger.and_then(|status| status.volumes.as_deref()).unwrap_or_default(),
        };
        let storage = Storage { name, effective: &effective };
        let patch = patch(&review.object, origin, storage, &proposal, &self.settings)?;
        tracing::debug!(
            namespace,
            pod = pod.name,
            generate_name = pod.generate_name,
            storage = name,
            writer,
            ?origin,
            "proposed"
        );
        Ok(patch)
    }

    /// Who the pod is, after reading what is above it; and how many of its kind there may be, where that is bounded.
    async fn verdict(&self, namespace: &str, pod: &PodFacts) -> Result<(Verdict, Option<usize>), No> {
        let mut lookups = Lookups::of(pod);
        while let Some(what) = lookups.next() {
            let found = self.cluster.look_up(namespace, &what).await;
            let found = found.map_err(|error| {
                No::Failed(format!("{} {} cannot be read now, try again: {error}", what.kind, what.name))
            })?;
            lookups.answer(found.as_ref());
        }
        match classify(pod, lookups.above()) {
            Verdict::Refused(refused) => Err(No::Refused(refused.to_string())),
            verdict => Ok((verdict, lookups.above().most)),
        }
    }

    async fn find_storage(&self, namespace: &str, name: &str) -> Result<Arc<WalStorage>, No> {
        let storage = match self.cluster.storage(namespace, name) {
            Some(storage) => storage,
            None => {
                let read = self.cluster.read_storage(namespace, name).await;
                let read = read
                    .map_err(|error| No::Failed(format!("WalStorage {name} cannot be read now, try again: {error}")))?;
                let unknown = || Refusal::UnknownStorage { storage: name.to_owned(), namespace: namespace.to_owned() };
                Arc::new(read.ok_or_else(unknown)?)
            }
        };
        if storage.metadata.deletion_timestamp.is_some() {
            return Err(Refusal::StorageDeleted { storage: name.to_owned() }.into());
        }
        Ok(storage)
    }

    /// Chooses a writer for a pod of a pool.
    async fn choose(
        &self,
        review: &Review,
        storage: &str,
        workload: &Workload,
        most: Option<usize>,
        writers: &[&WalWriter],
        now: i64,
    ) -> Result<String, No> {
        let namespace = review.namespace.as_str();
        let pods = self.cluster.pods(namespace);
        let pods: Vec<&PodFacts> = pods.iter().map(Arc::as_ref).collect();
        let pool = Pool { namespace, storage, workload, writers, pods: &pods, listed: false, now };
        let has_others = writers.iter().any(|writer| writer.spec.workload == *workload);
        let worst = if has_others { Class::Drained } else { Class::Fresh };
        let of_workload = written(workload);
        let waits = format!("{namespace}/{storage}/{of_workload}");
        if let Some(writer) = self.reserve(&pool, review.dry_run, worst, true) {
            self.waiting.lock().remove(&waits);
            return Ok(writer);
        }
        let pods = self.cluster.read_pods(namespace, storage).await.map_err(|error| {
            No::Failed(format!("the pods of WalStorage {storage} cannot be read now, try again: {error}"))
        })?;
        // One that was taken out of its ReplicaSet by its labels, to look into it, is replaced and stays.
        let counts = |pod: &&PodFacts| {
            !pod.is_ending()
                && pod.controller.is_some()
                && pod.annotation(ANNOTATION_WORKLOAD) == Some(of_workload.as_str())
        };
        let staying = pods.iter().filter(counts).count();
        let pool = Pool { pods: &pods.iter().collect::<Vec<_>>(), listed: true, ..pool };
        // A rollout makes a pod in place of one that it has not told to end yet: the log of that one is what it is to have.
        let most = most.filter(|most| staying >= *most && self.may_wait(&waits, now));
        let worst = if most.is_some() { Class::Drained } else { Class::Fresh };
        // One that was proposed a moment ago to a pod that is not there: it is coming, or was refused after us.
        let kept = self.reservations.lock().keep_entries(&pool) && self.may_wait(&waits, now);
        let Some(writer) = self.reserve(&pool, review.dry_run, worst, kept) else {
            return Err(No::Failed(match most {
                _ if kept => format!(
                    "a writer of {} {} with entries was proposed to a pod that is not there yet, try again",
                    workload.kind, workload.name
                ),
                Some(most) => format!(
                    "{} {} asks for {most} pods and has {staying}: this one is to have the log of one that ends, try again",
                    workload.kind, workload.name
                ),
                None => "no writer can be chosen now, try again".to_owned(),
            }));
        };
        self.waiting.lock().remove(&waits);
        Ok(writer)
    }

    /// Whether a workload may wait for one of its pods to end: not longer than for a proposal, without one that got on.
    fn may_wait(&self, workload: &str, now: i64) -> bool {
        let mut waiting = self.waiting.lock();
        // What waits no more has not got a pod either: it is gone, or has given up.
        waiting.retain(|_, since| now - *since < self.hold_ms.saturating_mul(10));
        now - *waiting.entry(workload.to_owned()).or_insert(now) < self.hold_ms
    }

    /// Chooses and reserves in one step, so that two requests at once get two; nothing where all is worse than `worst`, or
    /// where it is without entries and `kept` asks for those that wait for a pod that nobody has seen.
    fn reserve(&self, pool: &Pool<'_>, dry_run: bool, worst: Class, kept: bool) -> Option<String> {
        let mut reservations = self.reservations.lock();
        let chosen = choose(pool, &reservations, &mut |below| rand::random_range(0..below.max(1)));
        if chosen.class > worst || kept && chosen.class > Class::Handover && reservations.keep_entries(pool) {
            return None;
        }
        if !dry_run {
            reservations.reserve(pool, &chosen.writer);
        }
        Some(chosen.writer)
    }
}

/// The spec as it holds, or the sentence of the condition `Accepted`.
fn judge(name: &str, storage: &WalStorage, writers: &[&WalWriter]) -> Result<Effective, No> {
    validate(name, &storage.spec, writers.iter().copied()).map_err(|refusals| {
        let problems: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        Refusal::StorageRefused { storage: name.to_owned(), problems: problems.join("; ") }.into()
    })
}

fn has_bucket(effective: &Effective) -> bool {
    effective.urls.iter().any(|url| matches!(url.place, Place::Bucket(_)))
}

/// The annotation `walstorage.dev/workload`; the core group is called `core`.
fn written(workload: &Workload) -> String {
    let group = if workload.group.is_empty() { "core" } else { &workload.group };
    format!("{group}/{}/{}", workload.kind, workload.name)
}

#[cfg(test)]
mod tests;
