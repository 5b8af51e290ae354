//! Which WalStorages have settled, as a watch tells of it: to list them over and over would be work that no cluster has.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, pin_mut};
use kube::{Api, Client, ResourceExt as _};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{Config, watcher};
use tokio::task::JoinSet;
use walstorage_crds::walstorage::WalStorage;

/// Those whose status says that all their pods are ready and hold their writers.
#[derive(Debug)]
pub(crate) struct Storages {
    settled: Arc<Mutex<HashSet<(String, String)>>>,
    /// Ends with this.
    _work: JoinSet<()>,
}

impl Storages {
    /// Follows all storages, each with so many pods, until this is dropped.
    pub(crate) fn follow(client: Client, replicas: usize) -> Self {
        let settled = Arc::default();
        let mut work = JoinSet::new();
        work.spawn(watch(client, replicas, Arc::clone(&settled)));
        Self { settled, _work: work }
    }

    /// How many have settled.
    pub(crate) fn settled(&self) -> usize {
        lock(&self.settled).len()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(client: Client, replicas: usize, settled: Arc<Mutex<HashSet<(String, String)>>>) {
    let changed = watcher(Api::<WalStorage>::all(client), Config::default()).default_backoff().applied_objects();
    pin_mut!(changed);
    while let Some(storage) = changed.next().await {
        // It begins anew.
        let Ok(storage) = storage else { continue };
        let key = (storage.namespace().unwrap_or_default(), storage.name_any());
        let mut settled = lock(&settled);
        if is_settled(&storage, replicas) {
            settled.insert(key);
        } else {
            settled.remove(&key);
        }
    }
}

fn is_settled(storage: &WalStorage, replicas: usize) -> bool {
    let Some(status) = &storage.status else { return false };
    let active = status.writers.as_ref().and_then(|writers| writers.active);
    let ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    status.summary == Some(format!("{replicas}/{replicas}")) && ready && active == i64::try_from(replicas).ok()
}
