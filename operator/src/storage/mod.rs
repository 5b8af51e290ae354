//! The WalStorage controller: what a user wrote becomes the ConfigMap that sidecars read, and what happens in the cluster
//! becomes the status that a user reads.
//!
//! One look at a WalStorage is five steps, a module each: [`dereference`] reads, [`validate`] judges, [`build`] makes the
//! objects, [`apply`] writes them, [`status`] says how it is. Only the first and the last two talk to the API server.
//!
//! 1. A refused spec changes nothing but the status: ConfigMap and pods stay as they are.
//! 2. A stranger's ConfigMap is never written.
//! 3. A removed URL stays in `config.toml`, draining, until no WalWriter may have entries there; the last look at that is
//!    never answered by a cache.
//! 4. The finalizer goes only when a list that no cache answered has no live injected pod, and the policy is done.
//! 5. The same input gives the same objects, byte for byte.
//! 6. Secrets are never read; nobody's pod is ever restarted.

pub mod apply;
pub mod build;
pub mod claims;
pub mod conditions;
pub mod dereference;
pub mod directories;
pub mod finalizer;
mod gauges;
mod memory;
pub mod outdated;
pub mod pods;
pub mod status;
mod told;
pub mod validate;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Resource as _;
use kube_runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use walstorage_crds::walstorage::{Effective, Reason, WalStorage};

use self::apply::Applied;
use self::build::Built;
use self::dereference::Found;
use self::memory::{Maps, Own, Starting, Written};
use self::told::Told;
use self::validate::Judged;
use crate::observe::Observations;
use crate::process::cache::{Caches, Change, Kind};
use crate::process::controller::Context;
use crate::process::metrics::OfReconcile;
use crate::process::work::{self, Bounds, Outcome, Wait};

/// How long changes wait that only show in the status: thousands of small steps while pods start, and each look may write.
const SHOWN: Wait = Wait { gather: Duration::from_millis(500), pace: Duration::from_secs(2) };

/// The same while writers of the storage wait for their pods to start, each of which gets there by a dozen steps.
const ON_THEIR_WAY: Wait = Wait { gather: Duration::from_millis(500), pace: Duration::from_secs(10) };

/// How often a ConfigMap that is in the way is looked at again.
const CONFLICT: Duration = Duration::from_secs(10);

/// A WalStorage: namespace and name.
pub type Key = (String, String);

/// Keys, and how long each may wait.
type Keys = mpsc::Sender<(Key, Wait)>;

/// Works on every WalStorage until the token is cancelled. `observations` is what sidecars said, `heard` of which storages
/// that is news.
///
/// # Errors
/// When the work panics.
pub async fn run(
    context: Context,
    caches: Caches,
    observations: Observations,
    heard: mpsc::Receiver<Key>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let bounds = Bounds {
        concurrency: usize::from(context.options.concurrency),
        longest_wait: context.options.backoff,
        deadline: context.options.reconcile_deadline,
    };
    let (sender, keys) = mpsc::channel(1024);
    let own = Arc::new(Mutex::new(Own::default()));
    let feeder = tokio::spawn(feed(caches.clone(), Arc::clone(&own), heard, sender, stop.clone()));
    let gauges = tokio::spawn(gauges::run(Arc::clone(&context.metrics), caches.clone(), stop.clone()));
    let controller = Arc::new(Controller {
        context,
        caches,
        observations,
        unwritable: Mutex::default(),
        told: Mutex::default(),
        maps: Mutex::default(),
        own,
    });
    let work = move |key: Key, _| {
        let controller = Arc::clone(&controller);
        async move { controller.look(&key).await }
    };
    let ended = work::run(keys, bounds, work, stop).await;
    feeder.await?;
    gauges.await?;
    ended
}

/// Hands in the keys that a change concerns, or what a sidecar said.
async fn feed(
    caches: Caches,
    own: Arc<Mutex<Own>>,
    mut heard: mpsc::Receiver<Key>,
    keys: Keys,
    stop: CancellationToken,
) {
    let (mut changes, mut written, mut starting) = (caches.changes(), Written::default(), Starting::default());
    let mut change = Some(Change::Everything);
    while let Some(now) = change {
        let concerned: Vec<(Key, Wait)> = match now {
            Change::Everything => {
                starting = Starting::of(&caches.writers.state());
                all(&caches, |_| true)
            }
            Change::One(changed) => match (changed.kind, changed.storage) {
                (Kind::Storage, Some(storage)) => {
                    let found = caches.storage(&changed.namespace, &storage);
                    let key = (changed.namespace, storage);
                    if written.is_news(&key, found.as_deref()) {
                        vec![(key, Wait::NONE)]
                    } else if found.is_some_and(|found| own.lock().is(&key, &found)) {
                        Vec::new()
                    } else {
                        vec![starting.paced(key)]
                    }
                }
                (Kind::ConfigMap, Some(storage)) => vec![((changed.namespace, storage), Wait::NONE)],
                (kind @ (Kind::Writer | Kind::Pod | Kind::Claim), Some(storage)) => {
                    let key = (changed.namespace, storage);
                    if kind == Kind::Writer {
                        let writer = caches.writers.get(&ObjectRef::new(&changed.name).within(&key.0));
                        starting.take(&key, &changed.name, writer.as_deref());
                    }
                    vec![starting.paced(key)]
                }
                (Kind::Namespace, _) => {
                    all(&caches, |storage| storage.metadata.namespace.as_ref() == Some(&changed.name))
                }
                (Kind::Class, _) => all(&caches, |_| true),
                (Kind::Storage | Kind::ConfigMap | Kind::Writer | Kind::Pod | Kind::Claim, None) => Vec::new(),
            },
        };
        for key in concerned {
            if keys.send(key).await.is_err() {
                return;
            }
        }
        change = loop {
            tokio::select! {
                () = stop.cancelled() => break None,
                change = changes.next() => break change,
                Some(key) = heard.recv() => if keys.send(starting.paced(key)).await.is_err() {
                    return;
                },
            }
        };
    }
}

fn all(caches: &Caches, of: impl Fn(&WalStorage) -> bool) -> Vec<(Key, Wait)> {
    let storages = caches.storages.state_filter(of);
    let keys = storages.iter().filter_map(|storage| {
        let metadata = &storage.metadata;
        Some(((metadata.namespace.clone()?, metadata.name.clone()?), Wait::of(SHOWN.gather)))
    });
    keys.collect()
}

struct Controller {
    context: Context,
    caches: Caches,
    observations: Observations,
    /// Since when a storage has a writer that can write nowhere.
    unwritable: Mutex<HashMap<Key, Timestamp>>,
    /// What Events said last of directories that are not well.
    told: Mutex<HashMap<Key, Told>>,
    /// ConfigMaps as they were read last.
    maps: Mutex<Maps>,
    /// Statuses as they were written last.
    own: Arc<Mutex<Own>>,
}

impl Controller {
    async fn look(&self, key: &Key) -> Outcome {
        let (outcome, result) = match self.reconcile(key).await {
            Ok((outcome, result)) => (outcome, result),
            // Somebody else wrote first: the watch brings what it was.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                tracing::debug!(
                    namespace = key.0,
                    storage = key.1,
                    message = status.message,
                    "written by somebody else"
                );
                (Outcome::Failed, "conflict")
            }
            Err(error) => {
                tracing::warn!(namespace = key.0, storage = key.1, %error, "not reconciled, tried again");
                (Outcome::Failed, "error")
            }
        };
        self.context.metrics.reconciles.get_or_create(&OfReconcile { kind: "WalStorage", result }).inc();
        outcome
    }

    async fn reconcile(&self, key: &Key) -> Result<(Outcome, &'static str), kube::Error> {
        let client = &self.context.client;
        let Some(mut found) = dereference::read(client, &self.caches, &self.maps, key, Timestamp::now()).await? else {
            self.unwritable.lock().remove(key);
            self.told.lock().remove(key);
            self.maps.lock().keep(key, None);
            self.own.lock().wrote(key, None);
            return Ok((Outcome::Done, "gone"));
        };
        found.sidecar = self.context.options.sidecar();
        let names = found.writers.iter().filter_map(|writer| writer.metadata.name.as_deref());
        found.observed = self.observations.of(&key.0, names);
        let (mut judged, mut built) = judge(&found);
        if !built.let_go.is_empty() {
            found.writers = dereference::writers(client, key).await?;
            (judged, built) = judge(&found);
        }
        let applied = apply::apply(client, &found, &built).await?;
        let object = found.storage.object_ref(&());
        for note in built.notes.iter().cloned() {
            self.context.events.publish(object.clone(), note);
        }
        if let Some(kind) = built.drift() {
            self.context.metrics.drift_reverted.get_or_create(&kind).inc();
        }
        let Applied::Stands(version) = applied else { return Ok((Outcome::Done, "ok")) };
        let unwritable = self.unwritable_since(key, &found);
        let grace = self.context.options.unwritable_after;
        let (status, next) = status::status(&found, &judged, &built, unwritable, grace);
        if let Some(version) = status::write(client, &found, version, status).await? {
            self.own.lock().wrote(key, Some(version));
        }
        if let Some(verdict) = built.verdict {
            self.context.events.publish(object, verdict);
        }
        if let Ok(effective) = &judged.effective {
            self.tell(key, &found, effective);
        }
        let next = next.unwrap_or(self.context.options.resync).min(self.context.options.resync);
        match &judged.effective {
            Ok(_) => Ok((Outcome::Again(next), "ok")),
            // Nobody tells when a stranger's ConfigMap goes: it has no label of ours to watch for.
            Err(refused) if refused.reason == Reason::NameConflict => {
                Ok((Outcome::Again(next.min(CONFLICT)), "refused"))
            }
            Err(_) => Ok((Outcome::Again(next), "refused")),
        }
    }

    /// Events about directories, where there is something new to say of them.
    fn tell(&self, key: &Key, found: &Found, effective: &Effective) {
        let unhealthy = directories::unhealthy(found, effective);
        let notes = {
            let mut told = self.told.lock();
            let before = told.remove(key).unwrap_or_default();
            let (next, notes) = before.next(found, &unhealthy, &directories::healthy(found, effective));
            if !next.is_empty() {
                told.insert(key.clone(), next);
            }
            notes
        };
        for (object, note) in notes {
            self.context.events.publish(object, note);
        }
    }

    /// Since when a writer of this storage can write nowhere.
    fn unwritable_since(&self, key: &Key, found: &Found) -> Option<Timestamp> {
        let mut known = self.unwritable.lock();
        if directories::unwritable(found).is_empty() {
            known.remove(key);
            return None;
        }
        Some(*known.entry(key.clone()).or_insert(found.now))
    }
}

fn judge(found: &Found) -> (Judged, Built) {
    let judged = validate::judge(found);
    let built = build::build(found, &judged);
    (judged, built)
}

#[cfg(test)]
mod tests;
