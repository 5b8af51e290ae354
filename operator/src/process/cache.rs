//! What the leader knows of the cluster: one watch for each kind, shared by all controllers.
//!
//! 1. A cache may be old. Nothing that loses entries is decided by it: grants compare-and-swap, deletions list anew.
//! 2. Controllers start when every cache was filled once ([`Caches::start`] returns then).
//! 3. A subscriber that falls behind is told so, and looks at everything ([`Change::Everything`]).
//! 4. Of pods only what concerns a writer is kept: two thousand of them fit into a few megabytes.
//! 5. A deleted pod is among the [`LastWords`] before it leaves the cache.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt as _};
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::watcher::{self, Event};
use kube_runtime::{WatchStreamExt as _, watcher as watch};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch as latest};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use walstorage_crds::names::{CONTAINER, LABEL_MANAGED_BY, LABEL_STORAGE, LABEL_WRITER, MANAGED_BY};
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::WalWriter;

use super::index::Index;
use super::last_words::LastWords;

/// Changes that a subscriber may be behind.
const BEHIND: usize = 8192;

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// WalStorage.
    Storage,
    /// WalWriter.
    Writer,
    /// A pod with our label.
    Pod,
    /// A claim of ours.
    Claim,
    /// A ConfigMap of ours.
    ConfigMap,
    /// A namespace.
    Namespace,
    /// A StorageClass.
    Class,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// One object.
    One(Changed),
    /// Perhaps anything: a watch began anew, or the subscriber fell behind.
    Everything,
}

/// An object that changed or is gone.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for those without.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The storage that it is of, by its label or its spec.
    pub storage: Option<String>,
    /// The writer that it is of, without the storage, by its label or its spec.
    pub writer: Option<String>,
}

/// All caches. Cloned freely.
#[derive(Clone, Debug)]
pub struct Caches {
    /// Every WalStorage.
    pub storages: Store<WalStorage>,
    /// Every WalWriter.
    pub writers: Store<WalWriter>,
    /// Pods with our label, cut down to what concerns a writer.
    pub pods: Store<Pod>,
    /// The last of pods that are not among them any more.
    pub last_words: LastWords,
    /// Claims of ours.
    pub claims: Store<PersistentVolumeClaim>,
    /// Every StorageClass.
    pub classes: Store<StorageClass>,
    /// Every namespace, its metadata alone.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// ConfigMaps of ours, their metadata alone.
    pub config_maps: Store<PartialObjectMeta<ConfigMap>>,
    by_storage: ByStorage,
    changes: broadcast::Sender<Change>,
}

/// Whose the objects are.
#[derive(Clone, Debug, Default)]
struct ByStorage {
    writers: Index,
    pods: Index,
    claims: Index,
}

/// A subscription to changes.
#[derive(Debug)]
pub struct Changes {
    receiver: broadcast::Receiver<Change>,
}

impl Changes {
    /// The next change; nothing once the caches have ended.
    pub async fn next(&mut self) -> Option<Change> {
        match self.receiver.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Everything),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Caches {
    /// Starts the watches and waits until each cache was filled once; nothing when the token is cancelled before. The tasks
    /// end with the token.
    pub async fn start(client: &Client, tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Option<Self> {
        let (changes, _) = broadcast::channel(BEHIND);
        let last_words = LastWords::default();
        let by_storage = ByStorage::default();
        let feed = Feed {
            changes: changes.clone(),
            last_words: last_words.clone(),
            by_storage: by_storage.clone(),
            stop: stop.clone(),
        };
        let plain = watcher::Config::default();
        let ours = plain.clone().labels(&format!("{LABEL_MANAGED_BY}={MANAGED_BY}"));
        let labelled = plain.clone().labels(LABEL_STORAGE);
        let (storages, a) = feed.follow(tasks, Kind::Storage, Api::all(client.clone()), &plain, of_storage, no_cut);
        let (writers, b) = feed.follow(tasks, Kind::Writer, Api::all(client.clone()), &plain, of_writer, no_cut);
        let (pods, c) = feed.follow(tasks, Kind::Pod, Api::all(client.clone()), &labelled, by_label, cut_pod);
        let (claims, d) = feed.follow(tasks, Kind::Claim, Api::all(client.clone()), &ours, by_label, no_cut);
        let (classes, e) = feed.follow(tasks, Kind::Class, Api::all(client.clone()), &plain, by_label, no_cut);
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let (namespaces, f) = feed.follow(tasks, Kind::Namespace, namespaces, &plain, by_label, no_cut);
        let maps: Api<PartialObjectMeta<ConfigMap>> = Api::all(client.clone());
        let (config_maps, g) = feed.follow(tasks, Kind::ConfigMap, maps, &ours, by_label, no_cut);
        for mut filled in [a, b, c, d, e, f, g] {
            let wait = filled.wait_for(|filled| *filled);
            tokio::select! {
                () = stop.cancelled() => return None,
                done = wait => { done.ok()?; }
            }
        }
        tracing::info!(
            storages = storages.len(),
            writers = writers.len(),
            pods = pods.len(),
            claims = claims.len(),
            "the caches are filled"
        );
        Some(Self {
            storages,
            writers,
            pods,
            last_words,
            claims,
            classes,
            namespaces,
            config_maps,
            by_storage,
            changes,
        })
    }

    /// Changes from now on. Subscribe first, then look at everything once.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes { receiver: self.changes.subscribe() }
    }

    /// A storage.
    #[must_use]
    pub fn storage(&self, namespace: &str, name: &str) -> Option<Arc<WalStorage>> {
        self.storages.get(&ObjectRef::new(name).within(namespace))
    }

    /// The metadata of a ConfigMap of ours.
    #[must_use]
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<PartialObjectMeta<ConfigMap>>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    /// The writers of a storage.
    #[must_use]
    pub fn writers_of(&self, namespace: &str, storage: &str) -> Vec<Arc<WalWriter>> {
        found(&self.writers, &self.by_storage.writers, namespace, storage, of_writer)
    }

    /// The pods that ask for a storage.
    #[must_use]
    pub fn pods_of(&self, namespace: &str, storage: &str) -> Vec<Arc<Pod>> {
        found(&self.pods, &self.by_storage.pods, namespace, storage, by_label)
    }

    /// The claims of a storage.
    #[must_use]
    pub fn claims_of(&self, namespace: &str, storage: &str) -> Vec<Arc<PersistentVolumeClaim>> {
        found(&self.claims, &self.by_storage.claims, namespace, storage, by_label)
    }

    /// Whether a namespace is being deleted.
    #[must_use]
    pub fn is_terminating(&self, namespace: &str) -> bool {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace));
        namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }
}

/// The objects of a storage, sorted by name.
fn found<K>(store: &Store<K>, index: &Index, namespace: &str, storage: &str, of: Of<K>) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let names = index.of(namespace, storage);
    let objects = names.iter().filter_map(|name| store.get(&ObjectRef::new(name).within(namespace)));
    objects.filter(|object| of(object).0.as_deref() == Some(storage)).collect()
}

/// Storage and writer of an object.
type Of<K> = fn(&K) -> (Option<String>, Option<String>);

fn of_storage(storage: &WalStorage) -> (Option<String>, Option<String>) {
    (storage.metadata.name.clone(), None)
}

fn of_writer(writer: &WalWriter) -> (Option<String>, Option<String>) {
    (Some(writer.spec.storage.clone()), Some(writer.spec.writer.clone()))
}

fn by_label<K: Resource>(object: &K) -> (Option<String>, Option<String>) {
    let labels = object.meta().labels.as_ref();
    let label = |key| labels.and_then(|labels| labels.get(key)).cloned();
    (label(LABEL_STORAGE), label(LABEL_WRITER))
}

/// Where changes go.
#[derive(Clone)]
struct Feed {
    changes: broadcast::Sender<Change>,
    last_words: LastWords,
    by_storage: ByStorage,
    stop: CancellationToken,
}

/// Whether a cache was filled once.
type Filled = latest::Receiver<bool>;

impl Feed {
    fn follow<K>(
        &self,
        tasks: &mut JoinSet<()>,
        kind: Kind,
        api: Api<K>,
        config: &watcher::Config,
        of: Of<K>,
        cut: fn(&mut K),
    ) -> (Store<K>, Filled)
    where
        K: Resource<DynamicType = ()> + AsPod + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let stream = watch(api, config.clone());
        let (store, writer) = reflector::store();
        let (filled, is_filled) = latest::channel(false);
        let Self { changes, last_words, by_storage, stop } = self.clone();
        let index = match kind {
            Kind::Writer => by_storage.writers,
            Kind::Pod => by_storage.pods,
            Kind::Claim => by_storage.claims,
            Kind::Storage | Kind::Namespace | Kind::Class | Kind::ConfigMap => Index::default(),
        };
        let cut_all = move |object: &mut K| {
            object.meta_mut().managed_fields = None;
            cut(object);
        };
        tasks.spawn(async move {
            let stream = kept(stream.default_backoff().modify(cut_all), &last_words, (index, of), writer);
            pin_mut!(stream);
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = stream.next() => event,
                };
                let change = match event {
                    None => return,
                    Some(Ok(Event::Apply(object) | Event::Delete(object))) => Change::One(changed(kind, &object, of)),
                    Some(Ok(Event::Init | Event::InitApply(_))) => continue,
                    Some(Ok(Event::InitDone)) => {
                        filled.send_replace(true);
                        Change::Everything
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, ?kind, "a watch was interrupted and begins anew");
                        continue;
                    }
                };
                // Nobody subscribes before the caches are filled.
                let _ = changes.send(change);
            }
        });
        (store, is_filled)
    }
}

/// A watch whose objects are kept in a cache. A pod that leaves it is among the last words before.
fn kept<K>(
    stream: impl Stream<Item = watcher::Result<Event<K>>>,
    last_words: &LastWords,
    (index, of): (Index, Of<K>),
    cache: reflector::store::Writer<K>,
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + AsPod + Clone,
{
    let last_words = last_words.clone();
    let stream = stream.inspect_ok(move |event| {
        if let Event::Delete(object) = event
            && let Some(pod) = object.as_pod()
        {
            last_words.keep(pod);
        }
        index.take(event, |object| Some(((object.namespace().unwrap_or_default(), of(object).0?), object.name_any())));
    });
    stream.reflect(cache)
}

fn changed<K: Resource>(kind: Kind, object: &K, of: Of<K>) -> Changed {
    let (storage, writer) = of(object);
    Changed { kind, namespace: object.namespace().unwrap_or_default(), name: object.name_any(), storage, writer }
}

/// The object as a pod, where it is one.
trait AsPod {
    fn as_pod(&self) -> Option<Arc<Pod>> {
        None
    }
}

impl AsPod for Pod {
    fn as_pod(&self) -> Option<Arc<Pod>> {
        Some(Arc::new(self.clone()))
    }
}
impl AsPod for WalStorage {}
impl AsPod for WalWriter {}
impl AsPod for PersistentVolumeClaim {}
impl AsPod for StorageClass {}
impl<K> AsPod for PartialObjectMeta<K> {}

fn no_cut<K>(_: &mut K) {}

/// Names of containers, whether they are sidecars, and what they may use.
fn names(containers: &[Container]) -> Vec<Container> {
    let named = containers.iter().map(|container| Container {
        name: container.name.clone(),
        restart_policy: container.restart_policy.clone(),
        // With the class of the pod, these decide about the sidecar's own.
        resources: container.resources.clone(),
        // Where the sidecar is asked how it is.
        ports: container.ports.clone().filter(|_| container.name == CONTAINER),
        ..Container::default()
    });
    named.collect()
}

/// Leaves of a pod what concerns a writer: who it is, where it is, its gates and claims, and what its containers report.
fn cut_pod(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    spec.containers = names(&spec.containers);
    spec.init_containers = spec.init_containers.as_deref().map(names);
    spec.ephemeral_containers = None;
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| volume.persistent_volume_claim.is_some());
    }
    (spec.affinity, spec.tolerations, spec.topology_spread_constraints) = (None, None, None);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_in_the_cache_keeps_what_concerns_its_writer_and_nothing_else() {
        let whole = json!({
            "metadata": {"name": "orders-0", "namespace": "shop", "uid": "u", "labels": {"walstorage.dev/storage": "orders"},
                "annotations": {"walstorage.dev/writer": "orders.orders-0"}},
            "spec": {
                "nodeName": "node", "schedulingGates": [{"name": "walstorage.dev/writer"}], "terminationGracePeriodSeconds": 30,
                "initContainers": [{"name": "walstorage", "restartPolicy": "Always", "image": "x", "env": [{"name": "A", "value": "b"}],
                    "ports": [{"name": "wal-admin", "containerPort": 9465}]}],
                "containers": [{"name": "app", "image": "y", "command": ["z"], "ports": [{"containerPort": 80}]}],
                "volumes": [{"name": "wal-orders--data", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "e", "emptyDir": {}}],
                "tolerations": [{"key": "k"}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "initContainerStatuses": [{"name": "walstorage", "started": true,
                "ready": true, "restartCount": 0, "image": "x", "imageID": "i"}]},
        });
        let mut pod: Pod = serde_json::from_value(whole.clone()).unwrap();
        cut_pod(&mut pod);
        let kept = serde_json::to_value(&pod).unwrap();
        for field in
            ["/metadata", "/status", "/spec/nodeName", "/spec/schedulingGates", "/spec/terminationGracePeriodSeconds"]
        {
            assert_eq!(kept.pointer(field), whole.pointer(field), "{field}");
        }
        let ports = json!([{"name": "wal-admin", "containerPort": 9465}]);
        let sidecar = json!([{"name": "walstorage", "restartPolicy": "Always", "ports": ports}]);
        assert_eq!(kept["spec"]["initContainers"], sidecar);
        assert_eq!(kept["spec"]["containers"], json!([{"name": "app"}]));
        assert_eq!(kept["spec"]["volumes"].as_array().map(Vec::len), Some(1));
        assert_eq!(kept["spec"]["tolerations"], json!(null));
    }

    #[tokio::test]
    async fn a_pod_that_leaves_the_cache_is_among_the_last_words() {
        let pod = |message: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "labels": {LABEL_STORAGE: "s", LABEL_WRITER: "w"}},
                "status": {"message": message},
            }))
            .unwrap()
        };
        let (store, writer) = reflector::store();
        let words = LastWords::default();
        let events = [Event::Apply(pod("it runs")), Event::Delete(pod("it ended"))];
        let events = futures_util::stream::iter(events.map(Ok::<_, watcher::Error>));
        let index = Index::default();
        let events = kept(events, &words, (index.clone(), by_label), writer);
        pin_mut!(events);
        events.next().await.unwrap().unwrap();
        assert_eq!((store.len(), words.of("n", "s", "w").len()), (1, 0), "one that is there has no last words");
        assert_eq!(found(&store, &index, "n", "s", by_label).len(), 1);
        assert_eq!(found(&store, &index, "n", "other", by_label).len(), 0);
        events.next().await.unwrap().unwrap();
        let last = words.of("n", "s", "w").pop().unwrap();
        assert_eq!((store.len(), last.status.as_ref().unwrap().message.as_deref()), (0, Some("it ended")));
    }
}
