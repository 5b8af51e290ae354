//! The pure steps as tables: what was found, what is judged, built and said.

mod configs;
mod finalizers;
mod observed;
mod refusals;
mod statuses;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use walstorage_crds::walstorage::{WalStorage, WalStorageStatus};
use walstorage_crds::walwriter::WalWriter;

use super::build::{Built, ConfigStep};
use super::dereference::{ClassView, Found, FoundMap};
use super::pods::PodView;
use super::validate::Judged;
use super::{directories, judge, status};
use crate::webhook::patch::Settings;

/// How long a writer may be without a directory in these tests.
const GRACE: Duration = Duration::from_secs(60);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn storage(spec: Value) -> WalStorage {
    serde_json::from_value(json!({
        "apiVersion": "walstorage.dev/v1alpha1",
        "kind": "WalStorage",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "uid-1", "generation": 3, "resourceVersion": "7",
            "finalizers": ["walstorage.dev/in-use"]},
        "spec": spec,
    }))
    .unwrap()
}

fn settings() -> Settings {
    Settings { image: "registry.example/walstorage:1".to_owned(), pull_policy: "IfNotPresent".to_owned() }
}

/// A storage in a cluster with one good class, and nothing else.
pub(super) fn found(spec: Value) -> Found {
    let standard = ClassView { immediate: false, expands: true, default: true };
    Found {
        storage: Arc::new(storage(spec)),
        config_map: None,
        writers: Vec::new(),
        pods: Vec::new(),
        claims: Vec::new(),
        classes: [("standard".to_owned(), standard)].into(),
        namespace_ends: false,
        users: None,
        sidecar: Some(settings()),
        observed: std::collections::BTreeMap::new(),
        now: at(0),
    }
}

/// The same, with its ConfigMap as the operator would have made it.
fn settled(spec: Value) -> Found {
    let mut found = found(spec);
    found.config_map = Some(made(&judge(&found).1));
    found
}

/// The ConfigMap that a step makes, as it is read back.
fn made(built: &Built) -> FoundMap {
    let (ConfigStep::Create(map) | ConfigStep::Apply { map, .. }) = &built.config else { panic!("{built:?}") };
    let owner = &map.metadata.owner_references.as_ref().unwrap()[0];
    FoundMap {
        uid: "map-1".to_owned(),
        owner: Some((owner.kind.clone(), owner.name.clone(), owner.uid.clone())),
        deleting: false,
        text: map.data.as_ref().unwrap().get("config.toml").cloned(),
        labels: map.metadata.labels.clone().unwrap(),
        written_by: None,
    }
}

fn change(found: &mut Found, edit: impl FnOnce(&mut WalStorage)) {
    let mut storage = WalStorage::clone(&found.storage);
    edit(&mut storage);
    found.storage = Arc::new(storage);
}

/// A writer of the storage, with this status.
fn writer(name: &str, status: Value) -> Arc<WalWriter> {
    let writer: WalWriter = serde_json::from_value(json!({
        "apiVersion": "walstorage.dev/v1alpha1",
        "kind": "WalWriter",
        "metadata": {"name": format!("orders.{name}"), "namespace": "shop"},
        "spec": {"storage": "orders", "writer": name, "writerUid": "0d2f6f3e-9b1f-4b58-9c53-2f36f1b6a9aa", "identity": "Named",
            "workload": {"group": "apps", "kind": "StatefulSet", "name": "orders"}},
        "status": status,
    }))
    .unwrap();
    Arc::new(writer)
}

fn pod(name: &str) -> PodView {
    PodView {
        name: name.to_owned(),
        injected: true,
        live: true,
        ready: true,
        workload: Some("apps/StatefulSet/orders".to_owned()),
        ..PodView::default()
    }
}

fn text(judged: &Judged) -> &str {
    judged.text.as_deref().unwrap()
}

fn reasons(built: &Built) -> Vec<&'static str> {
    built.notes.iter().chain(&built.verdict).map(|note| note.reason).collect()
}

/// The status after a look.
fn looked(found: &Found) -> WalStorageStatus {
    let (judged, built) = judge(found);
    status::status(found, &judged, &built, None, GRACE).0
}

/// Status, reason and message of a condition.
fn said<'s>(status: &'s WalStorageStatus, kind: &str) -> (&'s str, &'s str, &'s str) {
    let conditions = status.conditions.as_ref().unwrap();
    let condition = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&condition.status, &condition.reason, &condition.message)
}
