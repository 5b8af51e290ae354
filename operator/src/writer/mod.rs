//! The WalWriter controller: the grant's protocol on a real API server.
//!
//! A run of [`crate::grant`] is given a view from the caches (`dereference`), decides (`validate` and `build` are the
//! protocol itself), and its calls are carried out one by one (`apply`), the status among them. Nothing is decided here.
//!
//! 1. A key is worked on by one task at a time; that two processes may work on it is the protocol's business.
//! 2. What a deleted pod said last comes from the event of its deletion, never from a cache
//!    (`process::last_words`).
//! 3. A run may be dropped at any point.

mod apply;
mod dereference;
mod own;
mod tell;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube_runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use walstorage_crds::names;
use walstorage_crds::walwriter::{Phase, WalWriter};

use crate::grant::{Key, LoserDelays, Run, Step, StorageView};
use crate::process::cache::{Caches, Change, Changed, Kind};
use crate::process::controller::Context;
use crate::process::metrics::OfReconcile;
use crate::process::work::{self, Bounds, Crowded, Outcome, Wait};

/// Keys that wait to be taken over by the queue.
const HANDED_IN: usize = 1024;
/// So long a writer waits for further changes that somebody waits for.
const SOON: Wait = Wait::of(Duration::from_millis(20));
/// And for those that nobody does: most are its own last run's, and a pod that starts makes a dozen.
const LATER: Wait = Wait { gather: Duration::from_millis(500), pace: Duration::from_secs(1) };

/// What the runs of one process share.
pub(crate) struct Shared {
    pub(crate) context: Context,
    pub(crate) caches: Caches,
    pub(crate) memory: Mutex<Memory>,
}

/// What is remembered between runs and lost with the process.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) delays: LoserDelays,
    /// Storages as the writers' runs saw them last.
    storages: HashMap<(String, String), StorageView>,
    /// Claims as they saw them.
    claims: own::Shown,
    /// Ledgers and pods that they wrote, by version: no two of a kind have the same. Whatever a run would do about what it
    /// wrote, it did, or it failed and is made again; what somebody wrote over it has another version.
    written: own::Recent<(Kind, String)>,
    /// Pods, by uid, that were told to wait.
    waiting: own::Recent<String>,
    /// Writers that have a ledger, as far as the last run of each knows.
    ledgers: HashSet<Key>,
}

impl Memory {
    /// Takes what a run has just done. Before the watch shows it, most of the time; where it is faster, another run is made.
    fn remember(&mut self, key: &Key, calls: &mut apply::Calls) {
        calls.written.drain(..).for_each(|written| self.written.add(written));
        for claim in calls.created.drain(..) {
            self.claims.is_news((key.namespace.clone(), claim.name.clone()), Some(&claim));
        }
        match &calls.writer {
            Some(_) => self.ledgers.insert(key.clone()),
            None => self.ledgers.remove(key),
        };
    }

    /// Whether a run would see another storage than the last time. Most changes of one are its status, which tells of pods and
    /// writers: to run for those would be a run of every writer for each step of one.
    fn is_news(&mut self, key: (String, String), now: Option<StorageView>) -> bool {
        match now {
            Some(now) if self.storages.get(&key) == Some(&now) => false,
            Some(now) => {
                self.storages.insert(key, now);
                true
            }
            None => {
                self.storages.remove(&key);
                true
            }
        }
    }
}

/// Runs until the token is cancelled. Starts when the caches are filled.
///
/// # Errors
/// When a run panics.
pub async fn run(context: Context, caches: Caches, stop: CancellationToken) -> anyhow::Result<()> {
    let options = &context.options;
    let bounds = Bounds {
        concurrency: usize::from(options.concurrency),
        longest_wait: options.backoff,
        deadline: options.reconcile_deadline,
    };
    let (hand_in, keys) = mpsc::channel(HANDED_IN);
    let mut changes = caches.changes();
    let shared = Arc::new(Shared { context, caches, memory: Mutex::default() });
    let feeder = {
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        async move {
            let mut pending = soon(all(&shared.caches, |_, _| true));
            loop {
                for one in pending.drain(..) {
                    if hand_in.send(one).await.is_err() {
                        return;
                    }
                }
                let change = tokio::select! {
                    () = stop.cancelled() => return,
                    change = changes.next() => change,
                };
                let Some(change) = change else { return };
                pending = concerned(&shared, &change);
            }
        }
    };
    let feeder = tokio::spawn(feeder);
    let done = work::run(keys, bounds, move |key, crowded| reconcile(Arc::clone(&shared), key, crowded), stop).await;
    feeder.await?;
    done
}

/// One run: from the view to its end.
async fn reconcile(shared: Arc<Shared>, key: Key, Crowded(crowded): Crowded) -> Outcome {
    let view = dereference::view(&shared, &key, crowded);
    let resync = shared.context.options.resync;
    let within = |ms: i64| u64::try_from(ms).map_or(resync, Duration::from_millis).min(resync);
    let ledger = view.ledger.as_deref().cloned();
    let mut calls = apply::Calls::new(shared.context.client.clone(), key.clone(), ledger);
    let mut run = Run::new(key.clone(), view);
    let mut answer = None;
    let outcome = loop {
        let step = run.step(answer.take());
        tell::notes(&shared, &key, &calls, run.notes()).await;
        match step {
            Step::Call(call) => {
                answer = Some(calls.make(call).await);
                shared.memory.lock().remember(&key, &mut calls);
            }
            Step::Done(outcome) => break outcome,
        }
    };
    let (result, again) = match outcome {
        crate::grant::Outcome::Settled(after) => ("ok", Outcome::Again(after.map_or(resync, within))),
        crate::grant::Outcome::WhenIdle(after) => ("ok", Outcome::WhenIdle(within(after))),
        // The queue's first wait is short, and whoever meets another again and again should back off.
        crate::grant::Outcome::Again => ("ok", Outcome::Failed),
        crate::grant::Outcome::Failed(why) => {
            tracing::warn!(writer = key.name(), namespace = key.namespace, why, "a run ended early and is tried again");
            ("error", Outcome::Failed)
        }
    };
    shared.context.metrics.reconciles.get_or_create(&OfReconcile { kind: "WalWriter", result }).inc();
    again
}

/// Every writer that there is or that a pod names, of these namespaces and storages.
fn all(caches: &Caches, of: impl Fn(&str, &str) -> bool) -> Vec<Key> {
    let writers = caches.writers.state();
    let known = writers.iter().filter_map(|writer| {
        let namespace = writer.metadata.namespace.as_deref()?;
        if of(namespace, &writer.spec.storage) { Key::of(namespace, writer.metadata.name.as_deref()?) } else { None }
    });
    let pods = caches.pods.state();
    let named = pods.iter().filter_map(|pod| {
        let labels = pod.metadata.labels.as_ref()?;
        let (namespace, storage) = (pod.metadata.namespace.as_deref()?, labels.get(names::LABEL_STORAGE)?);
        let writer = labels.get(names::LABEL_WRITER).filter(|_| of(namespace, storage))?;
        Some(Key { namespace: namespace.to_owned(), storage: storage.clone(), writer: writer.clone() })
    });
    let mut keys: Vec<Key> = known.chain(named).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn soon(keys: Vec<Key>) -> Vec<(Key, Wait)> {
    keys.into_iter().map(|key| (key, SOON)).collect()
}

/// The writers that a change concerns, and how long they may wait.
fn concerned(shared: &Shared, change: &Change) -> Vec<(Key, Wait)> {
    let Shared { context: _, caches, memory } = shared;
    let changed = match change {
        Change::Everything => return soon(all(caches, |_, _| true)),
        Change::One(changed) => changed,
    };
    let Changed { kind, namespace, name, storage, writer } = changed;
    match kind {
        Kind::Writer => {
            let ledger = caches.writers.get(&ObjectRef::new(name).within(namespace));
            let version = ledger.and_then(|ledger| ledger.resource_version());
            let own = version.is_some_and(|version| memory.lock().written.has(&(*kind, version)));
            Key::of(namespace, name).into_iter().filter(|_| !own).map(|key| (key, LATER)).collect()
        }
        Kind::Pod | Kind::Claim => match (storage, writer) {
            (Some(storage), Some(writer)) => {
                let key = Key { namespace: namespace.clone(), storage: storage.clone(), writer: writer.clone() };
                let wait = if *kind == Kind::Pod { of_pod(shared, &key, name) } else { of_claim(shared, &key, name) };
                wait.into_iter().map(|wait| (key.clone(), wait)).collect()
            }
            _ => Vec::new(),
        },
        Kind::Storage => {
            let found = caches.storage(namespace, name);
            let view = found.map(|storage| dereference::storage_view(&storage, &caches.classes.state()));
            if !memory.lock().is_news((namespace.clone(), name.clone()), view) {
                return Vec::new();
            }
            soon(all(caches, |of, storage| of == namespace && storage == name))
        }
        Kind::Namespace => soon(all(caches, |of, _| of == name)),
        Kind::Class => soon(all(caches, |_, _| true)),
        Kind::ConfigMap => Vec::new(),
    }
}

/// How long the writer of a pod that changed may wait; nothing where a run made the change.
fn of_pod(shared: &Shared, key: &Key, name: &str) -> Option<Wait> {
    let Shared { context: _, caches, memory } = shared;
    let pod = caches.pods.get(&ObjectRef::new(name).within(&key.namespace));
    let version = pod.as_ref().and_then(|pod| pod.resource_version());
    if version.is_some_and(|version| memory.lock().written.has(&(Kind::Pod, version))) {
        return None;
    }
    let ledger = caches.writers.get(&ObjectRef::new(&key.name()).within(&key.namespace));
    Some(if hurries(pod.as_deref(), ledger.as_deref()) { SOON } else { LATER })
}

/// The same of a claim; nothing where a run would see what the last one saw.
fn of_claim(shared: &Shared, key: &Key, name: &str) -> Option<Wait> {
    let claim = shared.caches.claims.get(&ObjectRef::new(name).within(&key.namespace));
    let claim = claim.map(|claim| dereference::claim_facts(&claim));
    let news = shared.memory.lock().claims.is_news((key.namespace.clone(), name.to_owned()), claim.as_ref());
    news.then_some(LATER)
}

/// Whether somebody waits for what a run makes of this pod: itself behind its gate, the next one where it ends or is gone, a
/// user where it serves and its ledger does not say so. A pod that is on its way to a node, or that serves, changes often.
fn hurries(pod: Option<&Pod>, writer: Option<&WalWriter>) -> bool {
    let Some(pod) = pod else { return true };
    let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    let status = pod.status.as_ref();
    let ended = matches!(status.and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"));
    let sidecars = status.into_iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let started = sidecars.into_iter().any(|one| one.name == names::CONTAINER && one.started == Some(true));
    let active = writer.and_then(|writer| writer.status.as_ref()?.phase) == Some(Phase::Active);
    gates.into_iter().any(|gate| gate.name == names::GATE)
        || pod.metadata.deletion_timestamp.is_some()
        || ended
        || started && !active
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use walstorage_crds::walstorage::WalStorage;

    use super::*;

    fn view(conditions: Value, summary: &str, generation: i64) -> StorageView {
        let storage: WalStorage = serde_json::from_value(json!({
            "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage",
            "metadata": {"name": "orders", "namespace": "shop", "generation": generation}, "spec": {},
            "status": {"summary": summary, "conditions": conditions},
        }))
        .unwrap();
        dereference::storage_view(&storage, &[])
    }

    #[test]
    fn somebody_waits_for_a_pod_behind_its_gate_for_its_end_and_for_its_start_to_be_seen() {
        let pod = |spec: Value, status: Value, deleted: bool| -> Pod {
            let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": status});
            if let Some(spec) = spec.as_object() {
                pod["spec"].as_object_mut().unwrap().extend(spec.clone());
            }
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(pod).unwrap()
        };
        let sidecar = |started: bool| {
            json!({"phase": "Running", "initContainerStatuses": [{"name": "walstorage", "started": started, "ready": started,
                "restartCount": 0, "image": "i", "imageID": "i"}]})
        };
        let writer = |phase: &str| -> WalWriter {
            serde_json::from_value(json!({
                "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalWriter", "metadata": {"name": "orders.p"},
                "spec": {"storage": "orders", "writer": "p", "writerUid": "u", "identity": "Named",
                    "workload": {"group": "apps", "kind": "StatefulSet", "name": "p"}},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let gates = |name: &str| json!({"schedulingGates": [{"name": name}]});
        assert!(hurries(None, Some(&writer("Active"))), "it is gone");
        for (pod, phase, expected) in [
            (pod(gates(names::GATE), json!({}), false), "Drained", true),
            (pod(gates("other"), json!({}), false), "Pending", false),
            (pod(json!({"nodeName": "n"}), sidecar(false), false), "Pending", false),
            (pod(json!({"nodeName": "n"}), sidecar(true), false), "Pending", true),
            (pod(json!({"nodeName": "n"}), sidecar(true), false), "Active", false),
            (pod(json!({"nodeName": "n"}), sidecar(true), true), "Active", true),
            (pod(json!({"nodeName": "n"}), json!({"phase": "Succeeded"}), false), "Active", true),
        ] {
            assert_eq!(hurries(Some(&pod), Some(&writer(phase))), expected, "{pod:?} {phase}");
        }
    }

    #[test]
    fn writers_are_looked_at_for_what_a_grant_rests_on_and_not_for_what_is_counted() {
        let condition = |kind: &str, is: &str| {
            json!({"type": kind, "status": is, "reason": "R", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let good = || json!([condition("Accepted", "True"), condition("ConfigRendered", "True")]);
        let key = || ("shop".to_owned(), "orders".to_owned());
        let mut memory = Memory::default();
        assert!(memory.is_news(key(), Some(view(json!([]), "0/0", 1))));
        assert!(memory.is_news(key(), Some(view(good(), "0/0", 1))), "it is accepted");
        assert!(!memory.is_news(key(), Some(view(good(), "1/3", 1))));
        let more =
            json!([condition("Accepted", "True"), condition("ConfigRendered", "True"), condition("Ready", "False")]);
        assert!(!memory.is_news(key(), Some(view(more, "2/3", 1))));
        assert!(memory.is_news(key(), Some(view(good(), "2/3", 2))), "the conditions are of another spec");
        assert!(memory.is_news(key(), None));
        assert!(memory.is_news(key(), Some(view(good(), "2/3", 2))), "it is there again");
    }
}
