//! The cluster as the webhook sees it: three watches, and three kinds of questions to the API server.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectMeta};
use kube::{Api, Client, Error};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::watcher::{self, Event, watcher};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use walstorage_crds::names::LABEL_STORAGE;
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::WalWriter;

use super::admission::Cluster;
use super::cache::{Cache, Kept, kept};
use crate::identity::{Lookup, PodFacts};
use crate::process::health::{Gate, Health};

/// How long what is above a pod is believed: a rollout asks for the same Deployment with every pod.
const BELIEVED: Duration = Duration::from_secs(1);

/// The caches, and the API server behind them. Cloned freely.
#[derive(Clone)]
pub struct Live {
    client: Client,
    /// How long a question may take; the API server itself waits only so long for the webhook.
    answer: Duration,
    storages: Arc<Cache<WalStorage>>,
    writers: Arc<Cache<WalWriter>>,
    pods: Arc<Cache<PodFacts>>,
    /// Objects above pods, by their path.
    above: Arc<Mutex<HashMap<String, (Instant, Value)>>>,
}

impl Live {
    /// Empty caches.
    #[must_use]
    pub fn new(client: Client, answer: Duration) -> Self {
        Self {
            client,
            answer,
            storages: Arc::default(),
            writers: Arc::default(),
            pods: Arc::default(),
            above: Arc::default(),
        }
    }

    /// Fills the caches and keeps them so until the token is cancelled. Each is a part of the process's health: closed until
    /// its first list was read.
    pub fn watch(&self, health: &Arc<Health>, stop: &CancellationToken) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let all = watcher::Config::default();
        let gate = |name| health.gate(name, "not listed yet");
        let storages: Api<WalStorage> = Api::all(self.client.clone());
        let storages = watcher(storages, all.clone()).default_backoff();
        tasks.spawn(follow(storages, Arc::clone(&self.storages), gate("walstorages"), stop.clone(), keep));
        let writers: Api<WalWriter> = Api::all(self.client.clone());
        let writers = watcher(writers, all.clone()).default_backoff();
        tasks.spawn(follow(writers, Arc::clone(&self.writers), gate("walwriters"), stop.clone(), keep));
        // Raw, so that what a newer API server adds to pods is in nobody's way.
        let pods: Api<DynamicObject> = Api::all_with(self.client.clone(), &pod());
        let pods = watcher(pods, all.labels(LABEL_STORAGE)).default_backoff();
        tasks.spawn(follow(pods, Arc::clone(&self.pods), gate("pods"), stop.clone(), facts));
        tasks
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
        match timeout(self.answer, question).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer in {:?}", self.answer)),
        }
    }
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

fn pod() -> ApiResource {
    resource("", "v1", "Pod", "pods")
}

/// Keeps a cache as the API server has it. The events of a burst are there at once, and each takes a while to decode: what
/// else runs on the same threads, the answers before all, has its turn after each of them.
async fn follow<K, T>(
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    cache: Arc<Cache<T>>,
    gate: Gate,
    stop: CancellationToken,
    keep: fn(K) -> Option<Kept<T>>,
) {
    let mut events = pin!(events);
    let mut synced = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.next() => event,
        };
        match event {
            // A watcher has no end.
            None => return,
            Some(Ok(event)) => {
                if kept(event, keep).is_some_and(|event| cache.take(event)) && !synced {
                    synced = true;
                    gate.open();
                }
            }
            // It begins anew by itself; what is known stays.
            Some(Err(error)) => {
                if !synced {
                    gate.close(error.to_string());
                }
                tracing::warn!(%error, "a watch broke");
            }
        }
        yield_now().await;
    }
}

fn keep<K: kube::Resource>(object: K) -> Option<Kept<K>> {
    let (namespace, name) = (object.meta().namespace.clone()?, object.meta().name.clone()?);
    Some(Kept { namespace, name, value: object })
}

fn facts(pod: DynamicObject) -> Option<Kept<PodFacts>> {
    let DynamicObject { types: _, metadata, data: mut pod } = pod;
    // Who wrote which field is half of a pod, and nothing to a writer.
    let metadata = ObjectMeta { managed_fields: None, ..metadata };
    pod.as_object_mut()?.insert("metadata".to_owned(), serde_json::to_value(metadata).ok()?);
    let value = PodFacts::of(&pod, "");
    Some(Kept { namespace: value.namespace.clone(), name: value.name.clone(), value })
}

impl Cluster for Live {
    fn storage(&self, namespace: &str, name: &str) -> Option<Arc<WalStorage>> {
        self.storages.get(namespace, name)
    }

    async fn read_storage(&self, namespace: &str, name: &str) -> Result<Option<WalStorage>, String> {
        let api: Api<WalStorage> = Api::namespaced(self.client.clone(), namespace);
        self.ask(api.get_opt(name)).await
    }

    async fn look_up(&self, namespace: &str, what: &Lookup) -> Result<Option<Value>, String> {
        let key = format!("{}/{namespace}/{}/{}", what.group, what.plural, what.name);
        let now = Instant::now();
        let known = {
            let mut above = self.above.lock();
            above.retain(|_, (read, _)| now < *read + BELIEVED);
            above.get(&key).map(|(_, object)| object.clone())
        };
        if known.is_some() {
            return Ok(known);
        }
        let kind = resource(what.group, "v1", what.kind, what.plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let found = self.ask(api.get_opt(&what.name)).await?;
        let found = found.map(serde_json::to_value).transpose().map_err(|error| error.to_string())?;
        if let Some(object) = &found {
            self.above.lock().insert(key, (now, object.clone()));
        }
        Ok(found)
    }

    fn writers(&self, namespace: &str) -> Vec<Arc<WalWriter>> {
        self.writers.all(namespace)
    }

    fn pods(&self, namespace: &str) -> Vec<Arc<PodFacts>> {
        self.pods.all(namespace)
    }

    async fn read_pods(&self, namespace: &str, storage: &str) -> Result<Vec<PodFacts>, String> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &pod());
        let labelled = ListParams::default().labels(&format!("{LABEL_STORAGE}={storage}"));
        let pods = self.ask(api.list(&labelled)).await?;
        Ok(pods.into_iter().filter_map(facts).map(|kept| kept.value).collect())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn an_answer_has_its_turn_after_each_event_of_a_burst() {
        const BURST: usize = 100;
        let cache = Arc::new(Cache::default());
        let events = (0..BURST).map(|number| Ok(Event::Apply(number)));
        let keep = |number: usize| Some(Kept { namespace: String::new(), name: number.to_string(), value: number });
        let gate = Health::new().gate("numbers", "not listed yet");
        let following =
            tokio::spawn(follow(stream::iter(events), Arc::clone(&cache), gate, CancellationToken::new(), keep));
        let mut seen = Vec::new();
        while !following.is_finished() {
            seen.push(cache.all("").len());
            yield_now().await;
        }
        assert_eq!(seen, (0..=BURST).collect::<Vec<_>>());
    }
}
