//! What a user does with WalStorage in a namespace: applies resources, waits for what they say, appends, reads back.
//!
//! Every step is an error that names what did not happen, so that `make demo` can print it and a test can unwrap it.

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Client;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use walstorage_crds::names::wal_writer;
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::{Phase, WalWriter};

use crate::numbered::Verdict;
use crate::{Cluster, images, pods, try_eventually};

/// The collection that the pods of [`stateful_set`] append to.
pub const COLLECTION: &str = "orders";

/// A namespace of a cluster with the charts.
pub struct Story<'a> {
    /// Where it is.
    pub cluster: &'a Cluster,
    /// Its own namespace.
    pub namespace: String,
    client: Client,
}

impl std::fmt::Debug for Story<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Story").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A WalStorage.
#[must_use]
pub fn storage(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage", "metadata": {"name": name}, "spec": spec})
}

/// A disk of a WalStorage, mounted at `/wal/<name>`.
#[must_use]
pub fn disk(name: &str, size: &str) -> Value {
    json!({"name": name, "url": format!("file:///wal/{name}"), "volume": {"size": size}})
}

/// A StatefulSet of pods that have the log of a WalStorage and append numbers to [`COLLECTION`] for ever, with further
/// arguments of `wal-app append`.
#[must_use]
pub fn stateful_set(name: &str, storage: &str, replicas: usize, args: &[&str]) -> Value {
    let args: Vec<&str> = ["append", COLLECTION].iter().chain(args).copied().collect();
    let pod = json!(pods::pod(name, images::APP, &args));
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "walstorage.dev/storage": storage}},
                "spec": pod["spec"],
            },
        },
    })
}

impl<'a> Story<'a> {
    /// Begins in a new namespace whose name begins with `prefix`.
    pub async fn begin(cluster: &'a Cluster, prefix: &str) -> Self {
        let namespace = cluster.namespace(prefix).await;
        cluster.accounts(&namespace).await;
        Self { cluster, namespace, client: cluster.client() }
    }

    /// Runs `kubectl` in the namespace and returns what it prints.
    ///
    /// # Errors
    /// With its standard error when it fails.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], args].concat())
    }

    /// Applies objects as a user does.
    ///
    /// # Errors
    /// With what `kubectl` says.
    pub fn apply(&self, objects: &[Value]) -> Result<()> {
        self.cluster.apply(&self.namespace, objects)
    }

    /// Runs a command line that a message told its reader to run: words, `kubectl` first, without quotes.
    ///
    /// # Errors
    /// When it is none, or fails.
    pub fn obey(&self, command: &str) -> Result<String> {
        let mut words = command.split_whitespace();
        ensure!(words.next() == Some("kubectl"), "no command of kubectl: {command}");
        // A message that names no namespace is read by somebody who is in the right one.
        self.kubectl(&words.collect::<Vec<_>>())
    }

    /// The namespace's pods.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace's claims.
    #[must_use]
    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace's WalStorages.
    #[must_use]
    pub fn storages(&self) -> Api<WalStorage> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The namespace's WalWriters.
    #[must_use]
    pub fn writers(&self) -> Api<WalWriter> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a WalStorage's status speaks of its newest spec and a condition is so; gives the condition.
    ///
    /// # Errors
    /// With its conditions.
    pub async fn condition(&self, storage: &str, kind: &str, is: &str, reason: &str) -> Result<Condition> {
        let storages = self.storages();
        try_eventually(&format!("{kind} of {storage} is {is} ({reason})"), || async {
            let storage = storages.get(storage).await?;
            let status = storage.status.unwrap_or_default();
            ensure!(status.observed_generation == storage.metadata.generation, "an old status: {status:?}");
            let conditions = status.conditions.unwrap_or_default();
            let found = conditions.iter().find(|it| it.type_ == kind && it.status == is && it.reason == reason);
            found.cloned().with_context(|| format!("{conditions:?}"))
        })
        .await
    }

    /// Waits until a writer is in a phase; gives it.
    ///
    /// # Errors
    /// With what it is instead.
    pub async fn phase(&self, storage: &str, writer: &str, phase: Phase) -> Result<WalWriter> {
        let (writers, name) = (self.writers(), wal_writer(storage, writer));
        try_eventually(&format!("{name} is {}", phase.as_str()), || async {
            let writer = writers.get(&name).await?;
            let is = writer.status.as_ref().and_then(|status| status.phase);
            if is == Some(phase) { Ok(writer) } else { bail!("{:?}", writer.status) }
        })
        .await
    }

    /// Waits for an event of an object, given its kind and name, and gives what it says.
    ///
    /// # Errors
    /// With the events that there are.
    pub async fn event(&self, kind: &str, name: &str, reason: &str) -> Result<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        try_eventually(&format!("an event {reason} of {kind} {name}"), || async {
            let all = events.list(&ListParams::default()).await?.items;
            let of = |event: &&Event| {
                let regarding = event.regarding.as_ref();
                let about = regarding.and_then(|it| Some((it.kind.as_deref()?, it.name.as_deref()?)));
                about == Some((kind, name)) && event.reason.as_deref() == Some(reason)
            };
            let found = all.iter().find(of).map(|event| event.note.clone().unwrap_or_default());
            found.with_context(|| {
                let seen: Vec<_> = all.iter().map(|event| (&event.reason, &event.note)).collect();
                format!("{seen:?}")
            })
        })
        .await
    }

    /// Waits until a pod is ready; gives it.
    ///
    /// # Errors
    /// With its status.
    pub async fn ready(&self, name: &str) -> Result<Pod> {
        pods::try_ready(&self.pods(), name).await
    }

    /// Waits until another pod has the name of `before`, and is ready; gives it.
    ///
    /// # Errors
    /// With what is there instead.
    pub async fn another(&self, before: &Pod) -> Result<Pod> {
        let (pods, name) = (self.pods(), before.metadata.name.as_deref().context("a name")?);
        try_eventually(&format!("another {name}"), || async {
            let pod = pods.get(name).await?;
            ensure!(pod.metadata.uid != before.metadata.uid, "the old one: {}", serde_json::to_string(&pod.status)?);
            Ok(())
        })
        .await?;
        self.ready(name).await
    }

    /// Waits until nothing is there under a name, given a type that `kubectl` knows.
    ///
    /// # Errors
    /// With what is there.
    pub async fn gone(&self, kind: &str, name: &str) -> Result<()> {
        try_eventually(&format!("{kind} {name} is gone"), || async {
            let found = self.kubectl(&["get", kind, name, "--ignore-not-found", "--output", "yaml"])?;
            ensure!(found.is_empty(), "{found}");
            Ok(())
        })
        .await
    }

    /// The last number that the log of a pod says was acknowledged.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn acknowledged(&self, pod: &str) -> Result<u64> {
        let log = self.kubectl(&["logs", pod, "--container", "app"])?;
        Ok(log.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0))
    }

    /// Waits until a pod has appended up to a number; gives the last that was acknowledged.
    ///
    /// # Errors
    /// With how far it is.
    pub async fn append_until(&self, pod: &str, number: u64) -> Result<u64> {
        try_eventually(&format!("{pod} has appended {number} entries"), || async {
            let acknowledged = self.acknowledged(pod)?;
            ensure!(acknowledged >= number, "{acknowledged}");
            Ok(acknowledged)
        })
        .await
    }

    /// Reads a pod's log back through its socket: it must have every number up to `acknowledged`, once and in order.
    ///
    /// # Errors
    /// When it is not whole, or cannot be read.
    pub async fn check(&self, pod: &str, acknowledged: u64) -> Result<Verdict> {
        let acknowledged = acknowledged.to_string();
        let command = ["/wal-app", "check", COLLECTION, "--acknowledged", &acknowledged];
        let said = pods::exec(&self.pods(), pod, "app", &command).await;
        let said = said.with_context(|| format!("{pod} is not whole"))?;
        Ok(serde_json::from_str(said.trim())?)
    }

    /// What the sidecar of a pod says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn sidecar(&self, pod: &str) -> Result<Value> {
        let said = self.walctl(pod, &["status", "--output", "json"]).await?;
        Ok(serde_json::from_str(&said)?)
    }

    /// Runs `walctl` in the sidecar of a pod.
    ///
    /// # Errors
    /// With its standard error when it fails.
    pub async fn walctl(&self, pod: &str, args: &[&str]) -> Result<String> {
        let command: Vec<&str> = std::iter::once("/walctl").chain(args.iter().copied()).collect();
        pods::exec(&self.pods(), pod, "walstorage", &command).await
    }

    /// Waits until what the sidecar of a pod says of a directory, given its URL, meets a condition; gives it.
    ///
    /// # Errors
    /// With what it says instead.
    pub async fn directory(&self, pod: &str, url: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        try_eventually(&format!("{url} of {pod} is {what}"), || async {
            let status = self.sidecar(pod).await?;
            let found = status["directories"].as_array().into_iter().flatten().find(|it| it["url"] == url);
            found.filter(|it| is(it)).cloned().with_context(|| status.to_string())
        })
        .await
    }

    /// Waits until a directory is full, for as long as the app that fills it gets on: how fast disks are is their own affair.
    ///
    /// # Errors
    /// When the app stands still and the directory is not full.
    pub async fn filled(&self, pod: &str, url: &str) -> Result<Value> {
        let mut before = 0;
        loop {
            let full = self.directory(pod, url, "full", |it| it["state"] == "full").await;
            let acknowledged = self.acknowledged(pod)?;
            if full.is_ok() || acknowledged <= before {
                return full;
            }
            before = acknowledged;
        }
    }

    /// Waits until the app of a pod is refused; gives what it was told.
    ///
    /// # Errors
    /// When it is not.
    pub async fn refused(&self, pod: &str) -> Result<String> {
        try_eventually("the application is refused", || async {
            let log = self.kubectl(&["logs", pod, "--container", "app"])?;
            let refused = log.lines().rev().find_map(|line| line.strip_prefix("wal-app: "));
            anyhow::Ok(refused.context("not yet")?.to_owned())
        })
        .await
    }
}
