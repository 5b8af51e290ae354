//! What a user does with WalStorage in a namespace: applies resources, waits for what they say, appends, reads back.
//!
//! Every step is an error that names what did not happen, so that `make demo` can print it and a test can unwrap it.

use std::ops::Deref;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, ListParams};
use serde_json::Value;
use walstorage_crds::names::wal_writer;
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::{Phase, WalWriter};

use crate::numbered::Verdict;
pub use crate::objects::{disk, storage};
use crate::team::Team;
use crate::{Cluster, objects, pods, try_eventually};

/// The collection that the pods of [`stateful_set`] append to.
pub const COLLECTION: &str = "orders";

/// A namespace of a cluster with the charts, what a team does there, and what it is told.
#[derive(Debug)]
pub struct Story<'a> {
    team: Team<'a>,
}

impl<'a> Deref for Story<'a> {
    type Target = Team<'a>;

    fn deref(&self) -> &Team<'a> {
        &self.team
    }
}

/// A StatefulSet of pods that have the log of a WalStorage and append numbers to [`COLLECTION`] for ever, with further
/// arguments of `wal-app append`.
#[must_use]
pub fn stateful_set(name: &str, storage: &str, replicas: usize, args: &[&str]) -> Value {
    let args: Vec<&str> = ["append", COLLECTION].iter().chain(args).copied().collect();
    objects::stateful_set(name, replicas, &objects::template(name, storage, &args, None))
}

impl<'a> Story<'a> {
    /// Begins in a new namespace whose name begins with `prefix`.
    pub async fn begin(cluster: &'a Cluster, prefix: &str) -> Self {
        Self { team: Team::unrestricted(cluster, prefix).await }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster().client(), self.namespace())
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

    /// The namespace's claims.
    #[must_use]
    pub fn claims(&self) -> Api<PersistentVolumeClaim> {
        self.api()
    }

    /// The namespace's WalStorages.
    #[must_use]
    pub fn storages(&self) -> Api<WalStorage> {
        self.api()
    }

    /// The namespace's WalWriters.
    #[must_use]
    pub fn writers(&self) -> Api<WalWriter> {
        self.api()
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
        let events: Api<Event> = self.api();
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

    /// Reads a pod's log back through its socket: it must have every number up to `acknowledged`, once and in order.
    ///
    /// # Errors
    /// When it is not whole, or cannot be read.
    pub async fn check(&self, pod: &str, acknowledged: u64) -> Result<Verdict> {
        self.read_back(pod, COLLECTION, acknowledged).await
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
