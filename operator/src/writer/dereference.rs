//! The view of a run, from the caches.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use walstorage_crds::names;
use walstorage_crds::walstorage::{Effective, Place, ReclaimPolicy, WalStorage, validate};
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::Shared;
use crate::grant::{ClaimFacts, Key, StorageView, View};
use crate::identity::PodFacts;

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

pub(super) fn view(shared: &Shared, key: &Key, crowded: bool) -> View {
    let Shared { context, caches, memory } = shared;
    let (namespace, storage) = (key.namespace.as_str(), key.storage.as_str());
    let name = key.name();
    let writers = caches.writers_of(namespace, storage);
    let names_it = |pod: &Pod| pod.metadata.annotations.as_ref()?.get(names::ANNOTATION_WRITER).cloned();
    let pods = caches.pods_of(namespace, storage);
    let pods = pods.iter().filter(|pod| names_it(pod).as_ref() == Some(&name));
    let pods: Vec<PodFacts> = pods.map(|pod| facts(pod, namespace)).collect();
    // After the pods: one that has left them meanwhile is here.
    let last_words = caches.last_words.of(namespace, storage, &key.writer);
    let labelled = |claim: &PersistentVolumeClaim| {
        claim.metadata.labels.as_ref().and_then(|labels| labels.get(names::LABEL_WRITER)) == Some(&key.writer)
    };
    let claims = caches.claims_of(namespace, storage);
    let claims = claims.iter().filter(|claim| labelled(claim)).map(|claim| claim_facts(claim));
    let workload = pods.first().and_then(|pod| pod.annotation(names::ANNOTATION_WORKLOAD)).unwrap_or_default();
    let ledger = writers.iter().find(|writer| writer.metadata.name.as_deref() == Some(&name));
    let memory = memory.lock();
    View {
        now: Timestamp::now().as_millisecond(),
        timing: context.options.timing(),
        storage: caches.storage(namespace, storage).map(|storage| storage_view(&storage, &caches.classes.state())),
        namespace_ends: caches.is_terminating(namespace),
        has_ledger: memory.ledgers.contains(key) || ledger.is_some(),
        ledger: ledger.map(|writer| Box::new(WalWriter::clone(writer))),
        claims: claims.map(|claim| (claim.name.clone(), claim)).collect(),
        last_words: last_words.iter().map(|pod| facts(pod, namespace)).collect(),
        loser_delay: memory.delays.delay(&format!("{namespace}/{workload}")),
        others_hold_data: others(&writers, &name, workload),
        fresh_uid: uuid::Uuid::new_v4().to_string(),
        crowded,
        pods,
    }
}

/// A pod of the API.
pub(super) fn facts(pod: &Pod, namespace: &str) -> PodFacts {
    // Typed objects always have a JSON form.
    PodFacts::of(&serde_json::to_value(pod).unwrap_or_default(), namespace)
}

/// A claim of the API.
pub(super) fn claim_facts(claim: &PersistentVolumeClaim) -> ClaimFacts {
    let meta = &claim.metadata;
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    ClaimFacts {
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        annotations: meta.annotations.clone().unwrap_or_default(),
        deleting: meta.deletion_timestamp.is_some(),
        bound: claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref()).is_some_and(|name| !name.is_empty()),
        size: requests.and_then(|requests| requests.get("storage")).map(|size| size.0.clone()).unwrap_or_default(),
    }
}

/// Writers of the workload with entries that nobody can take over now.
fn others(writers: &[std::sync::Arc<WalWriter>], name: &str, workload: &str) -> usize {
    let of_workload = |writer: &WalWriter| {
        let of = &writer.spec.workload;
        let group = if of.group.is_empty() { "core" } else { &of.group };
        format!("{group}/{}/{}", of.kind, of.name) == workload
    };
    let held = writers.iter().filter(|writer| {
        let phase = writer.status.as_ref().and_then(|status| status.phase);
        matches!(phase, Some(Phase::Released | Phase::Orphaned | Phase::Lost))
            && writer.metadata.name.as_deref() != Some(name)
    });
    held.filter(|writer| of_workload(writer)).count()
}

/// The storage as its own reconciliation left it: its conditions speak of this generation, or of none.
pub(super) fn storage_view(storage: &WalStorage, classes: &[std::sync::Arc<StorageClass>]) -> StorageView {
    let conditions = storage.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let generation = storage.metadata.generation;
    let current = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.observed_generation == generation)
    };
    let name = storage.metadata.name.as_deref().unwrap_or_default();
    let effective = match current("Accepted") {
        // The ledger was judged by whoever set the condition.
        Some(accepted) if accepted.status == "True" => validate(name, &storage.spec, &[])
            .map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        Some(refused) => Err(refused.message.clone()),
        None => Err("it has not been looked at yet".to_owned()),
    };
    let ReclaimPolicy { when_drained, when_deleted, drained_after_seconds } =
        storage.spec.reclaim_policy.clone().unwrap_or_default();
    let default = i64::from(walstorage_crds::walstorage::DEFAULT_DRAINED_AFTER_SECONDS);
    StorageView {
        config_rendered: current("ConfigRendered").is_some_and(|rendered| rendered.status == "True"),
        deleting: storage.metadata.deletion_timestamp.is_some(),
        when_drained: when_drained.unwrap_or_default(),
        when_deleted: when_deleted.unwrap_or_default(),
        drained_after: drained_after_seconds.unwrap_or(default).saturating_mul(1000),
        immediate: effective.as_ref().map(|effective| immediate(effective, classes)).unwrap_or_default(),
        effective,
    }
}

/// The URLs whose class binds a claim before the pod has a node; where no class is named, the cluster's default.
fn immediate(effective: &Effective, classes: &[std::sync::Arc<StorageClass>]) -> BTreeSet<String> {
    let is_default = |class: &StorageClass| {
        let annotations: Option<&BTreeMap<String, String>> = class.metadata.annotations.as_ref();
        annotations.and_then(|annotations| annotations.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
    };
    let urls = effective.urls.iter().chain(&effective.journal);
    let binds_at_once = urls.filter(|url| {
        let Place::Disk(volume) = &url.place else { return false };
        let class = classes.iter().find(|class| match &volume.storage_class_name {
            Some(name) => class.metadata.name.as_ref() == Some(name),
            None => is_default(class),
        });
        class.is_some_and(|class| class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer"))
    });
    binds_at_once.map(|url| url.name.clone()).collect()
}
