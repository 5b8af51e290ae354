//! Step 1: everything that the next steps look at, as plain values.
//!
//! Writers, pods and claims come from the caches: they only show in the status. What something is deleted or let go by is
//! read from the API server: the ConfigMap unless the watch shows the version that was read last, pods of a storage that goes,
//! writers before a URL is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::ListParams;
use kube::{Api, Client, Error, ResourceExt as _};
use parking_lot::Mutex;
use walstorage_crds::names::{CONFIG_FILE, CONTROLLER, LABEL_STORAGE, config_map};
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::WalWriter;

use super::Key;
use super::memory::Maps;
use super::pods::PodView;
use crate::observe::Observation;
use crate::process::cache::Caches;
use crate::webhook::patch::Settings;

/// What there is.
#[derive(Clone, Debug)]
pub struct Found {
    /// The resource.
    pub storage: Arc<WalStorage>,
    /// The ConfigMap of its name, whosever it is.
    pub config_map: Option<FoundMap>,
    /// Its writers, sorted by name.
    pub writers: Vec<Arc<WalWriter>>,
    /// The pods that ask for it, sorted by name.
    pub pods: Vec<PodView>,
    /// Its claims, sorted by name.
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    /// Every StorageClass.
    pub classes: BTreeMap<String, ClassView>,
    /// Its namespace is being deleted.
    pub namespace_ends: bool,
    /// Live injected pods by a list that no cache answered; only when the storage is being deleted.
    pub users: Option<Vec<String>>,
    /// What new sidecars are, if the controller was told.
    pub sidecar: Option<Settings>,
    /// What sidecars said last, by name of the WalWriter.
    pub observed: BTreeMap<String, Observation>,
    /// Now.
    pub now: Timestamp,
}

/// A ConfigMap that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundMap {
    /// Its uid.
    pub uid: String,
    /// Its controller: kind, name and uid.
    pub owner: Option<(String, String, String)>,
    /// It is being deleted.
    pub deleting: bool,
    /// Its `config.toml`.
    pub text: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Who else than this controller wrote the `config.toml` last.
    pub written_by: Option<String>,
}

/// What concerns us of a StorageClass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassView {
    /// It binds claims before their pod has a node.
    pub immediate: bool,
    /// Its claims can grow.
    pub expands: bool,
    /// It is the cluster's default.
    pub default: bool,
}

/// Reads everything; nothing when the storage is gone.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn read(
    client: &Client,
    caches: &Caches,
    maps: &Mutex<Maps>,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Found>, Error> {
    let (namespace, name) = key;
    let Some(storage) = caches.storage(namespace, name) else { return Ok(None) };
    let shown = caches.config_map(namespace, &config_map(name));
    let known = shown.and_then(|shown| maps.lock().get(key, &shown.metadata));
    let config_map = match known {
        Some(known) => Some(known),
        None => read_map(client, maps, key).await?,
    };
    let users = match storage.metadata.deletion_timestamp {
        None => None,
        Some(_) => Some(users(client, namespace, name).await?),
    };
    Ok(Some(Found {
        config_map,
        writers: caches.writers_of(namespace, name),
        pods: caches.pods_of(namespace, name).iter().map(PodView::of).collect(),
        claims: caches.claims_of(namespace, name),
        classes: caches.classes.state().iter().map(|class| (class.name_any(), class_view(class))).collect(),
        namespace_ends: caches.is_terminating(namespace),
        users,
        sidecar: None,
        observed: BTreeMap::new(),
        now,
        storage,
    }))
}

/// The ConfigMap of a storage's name, from the API server.
async fn read_map(client: &Client, maps: &Mutex<Maps>, key: &Key) -> Result<Option<FoundMap>, Error> {
    let (namespace, name) = key;
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let read = api.get_opt(&config_map(name)).await?;
    let read = read.map(|map| (map.resource_version().unwrap_or_default(), found_map(map)));
    maps.lock().keep(key, read.clone());
    Ok(read.map(|(_, map)| map))
}

/// The writers of a storage, from the API server.
///
/// # Errors
/// When it does not answer.
pub async fn writers(client: &Client, (namespace, name): &Key) -> Result<Vec<Arc<WalWriter>>, Error> {
    let api: Api<WalWriter> = Api::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default()).await?;
    let mut writers: Vec<_> =
        all.items.into_iter().filter(|writer| writer.spec.storage == *name).map(Arc::new).collect();
    writers.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    Ok(writers)
}

/// Names of the live injected pods, from the API server.
async fn users(client: &Client, namespace: &str, name: &str) -> Result<Vec<String>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let labelled = ListParams::default().labels(&format!("{LABEL_STORAGE}={name}"));
    let pods = api.list(&labelled).await?;
    let views = pods.items.into_iter().map(|pod| PodView::of(&Arc::new(pod))).filter(|pod| pod.live && pod.injected);
    Ok(views.map(|pod| pod.name).collect())
}

fn found_map(map: ConfigMap) -> FoundMap {
    let owners = map.metadata.owner_references.unwrap_or_default();
    let owner = owners.into_iter().find(|owner| owner.controller == Some(true));
    let managers = map.metadata.managed_fields.unwrap_or_default();
    let written_by = managers.into_iter().find_map(|entry| {
        let fields = entry.fields_v1?.0;
        let ours = entry.manager.as_deref() == Some(CONTROLLER);
        let wrote = fields.pointer(&format!("/f:data/f:{CONFIG_FILE}")).is_some();
        entry.manager.filter(|_| wrote && !ours)
    });
    FoundMap {
        uid: map.metadata.uid.unwrap_or_default(),
        owner: owner.map(|owner| (owner.kind, owner.name, owner.uid)),
        deleting: map.metadata.deletion_timestamp.is_some(),
        text: map.data.unwrap_or_default().remove(CONFIG_FILE),
        labels: map.metadata.labels.unwrap_or_default(),
        written_by,
    }
}

fn class_view(class: &StorageClass) -> ClassView {
    let annotations = class.metadata.annotations.as_ref();
    let default = annotations.and_then(|all| all.get("storageclass.kubernetes.io/is-default-class"));
    ClassView {
        // The API server's own default.
        immediate: class.volume_binding_mode.as_deref() != Some("WaitForFirstConsumer"),
        expands: class.allow_volume_expansion == Some(true),
        default: default.is_some_and(|value| value == "true"),
    }
}
