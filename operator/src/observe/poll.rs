//! Asks every sidecar of a writer that is Active, each at its own time, and tells what is new. One that is Pending is asked too,
//! once it has had time to start: it may wait for what only a person can give it.
//!
//! What it finds goes to the WalStorage controller, which is woken only for what it would show. What is not well goes to the
//! ledger too (`volumes[].state`), where the next leader finds it: that all is well is no reason to write.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use kube_runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walstorage_crds::config::DEFAULT_ADMIN_PORT;
use walstorage_crds::names;
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::ask::{self, NoAnswer};
use super::report::{self, Directory, HEALTHY, Observation};
use super::{Key, Observations};
use crate::process::cache::{Caches, Change, Changed, Kind};
use crate::process::controller::Context;
use crate::process::metrics::OfResult;
use crate::process::work::{self, Bounds, Outcome, Wait};

/// Keys that wait to be taken over by the queue.
const HANDED_IN: usize = 1024;
/// A writer that became Active is asked within this time.
const SOON: Duration = Duration::from_secs(1);
/// A sidecar that has not started within this time is asked why.
const START: Duration = Duration::from_secs(5);
/// What is not well is asked about sooner: in this part of the interval.
const SOONER: u32 = 3;
/// The first wait after a question in vain.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// So many intervals without an answer are a silence.
const SILENT: u32 = 2;
/// A silent sidecar is asked once in so many intervals.
const SELDOM: u32 = 4;

/// What the asking needs besides the caches, and whom it tells.
#[derive(Debug)]
pub(crate) struct Asking {
    /// Where answers are kept.
    pub(crate) observations: Observations,
    /// Takes storages of which something new is known: namespace and name.
    pub(crate) news: mpsc::Sender<Key>,
}

/// Asks until the token is cancelled.
///
/// # Errors
/// When the work panics.
pub(crate) async fn run(
    context: Context,
    caches: Caches,
    asking: Asking,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let options = &context.options;
    let interval = options.poll_interval;
    let bounds = Bounds {
        concurrency: usize::from(options.poll_concurrency),
        longest_wait: interval,
        deadline: options.reconcile_deadline,
    };
    let (hand_in, keys) = mpsc::channel(HANDED_IN);
    let feeder = tokio::spawn(feed(caches.clone(), asking.observations.clone(), hand_in, interval, stop.clone()));
    let poller = Arc::new(Poller { context, caches, asking, failing: Mutex::default() });
    let work = move |key: Key, _| {
        let poller = Arc::clone(&poller);
        async move { poller.look(&key).await }
    };
    let ended = work::run(keys, bounds, work, stop).await;
    feeder.await?;
    ended
}

/// Hands in writers whose pod has not been asked yet; the others are asked again by themselves.
async fn feed(
    caches: Caches,
    observations: Observations,
    keys: mpsc::Sender<(Key, Wait)>,
    interval: Duration,
    stop: CancellationToken,
) {
    let is_new = |writer: &WalWriter| {
        let known = observations.get(&key(writer));
        held(writer).is_some_and(|held| known.is_none_or(|known| held.is_new_after(&known)))
    };
    let mut changes = caches.changes();
    let mut change = Some(Change::Everything);
    while let Some(now) = change {
        let (found, within) = match now {
            Change::Everything => (caches.writers.state_filter(is_new), interval),
            Change::One(Changed { kind: Kind::Writer, namespace, name, .. }) => {
                let writer = caches.writers.get(&ObjectRef::new(&name).within(&namespace));
                (writer.into_iter().filter(|writer| is_new(writer)).collect(), SOON.min(interval))
            }
            Change::One(_) => (Vec::new(), Duration::ZERO),
        };
        for writer in found {
            // Spread, so that a thousand sidecars are not asked at once, now and ever after.
            let wait = within.mul_f64(rand::random_range(0.0..1.0));
            let starts = held(&writer).is_some_and(|held| held.starting);
            let wait = if starts { wait + START.min(interval) } else { wait };
            if keys.send((key(&writer), Wait::of(wait))).await.is_err() {
                return;
            }
        }
        change = tokio::select! {
            () = stop.cancelled() => None,
            change = changes.next() => change,
        };
    }
}

fn key(writer: &WalWriter) -> Key {
    (writer.namespace().unwrap_or_default(), writer.name_any())
}

/// A pod whose sidecar can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held<'w> {
    pod_uid: &'w str,
    /// It has not served yet.
    starting: bool,
}

impl Held<'_> {
    /// Whether it is another pod than the one that was asked, or has started since.
    fn is_new_after(self, known: &Observation) -> bool {
        self.pod_uid != known.pod_uid || known.starting && !self.starting
    }
}

fn held(writer: &WalWriter) -> Option<Held<'_>> {
    let status = writer.status.as_ref()?;
    let starting = match status.phase? {
        Phase::Active => false,
        Phase::Pending => true,
        Phase::Releasing | Phase::Released | Phase::Orphaned | Phase::Drained | Phase::Reclaiming | Phase::Lost => {
            return None;
        }
    };
    status.holder.as_ref().map(|holder| Held { pod_uid: &holder.pod_uid, starting })
}

struct Poller {
    context: Context,
    caches: Caches,
    asking: Asking,
    /// Who has not answered, and since when.
    failing: Mutex<HashMap<Key, Failing>>,
}

/// Questions in vain to one pod.
#[derive(Clone, Debug, PartialEq)]
struct Failing {
    pod_uid: String,
    times: u32,
    since: Instant,
}

impl Poller {
    async fn look(&self, key: &Key) -> Outcome {
        let (namespace, name) = key;
        let writer = self.caches.writers.get(&ObjectRef::new(name).within(namespace));
        let held = writer.as_ref().and_then(|writer| Some((writer, held(writer)?)));
        let Some((writer, Held { pod_uid, starting })) = held else {
            self.failing.lock().remove(key);
            self.asking.observations.remove(key);
            return Outcome::Done;
        };
        let interval = self.context.options.poll_interval;
        let pod = writer.status.as_ref().and_then(|status| {
            let name = &status.holder.as_ref()?.pod_name;
            self.caches.pods.get(&ObjectRef::new(name).within(namespace))
        });
        let answer = match target(pod.as_deref(), pod_uid, self.port_now(namespace, &writer.spec.storage)) {
            Target::None => return Outcome::Again(spread(interval)),
            Target::Nowhere(why) => Err(NoAnswer::Unreachable(why)),
            Target::At(addresses) => hear(&addresses, &writer.spec.writer_uid, self.context.options.poll_timeout).await,
        };
        self.context.metrics.polls.get_or_create(&OfResult { result: result(&answer) }).inc();
        if starting && answer.is_err() {
            // Its container is not there yet, or has just begun: nobody misses its answer.
            return Outcome::Again(spread(START.min(interval)));
        }
        let known = self.asking.observations.get(key).filter(|known| known.pod_uid == pod_uid);
        let before =
            known.clone().unwrap_or_else(|| Observation { pod_uid: pod_uid.to_owned(), ..Observation::default() });
        let failing = self.failing.lock().remove(key).filter(|failing| failing.pod_uid == pod_uid);
        let (mut observation, failing, wait) = follow(&before, failing, answer, Instant::now(), interval);
        observation.starting = starting;
        let wait = if starting { wait.min(interval / SOONER) } else { wait };
        if let Some(failing) = failing {
            self.failing.lock().insert(key.clone(), failing);
        }
        let is_news = observation.is_news(&before);
        if is_news || known.is_none_or(|known| known.starting != starting) {
            self.asking.observations.set(key, observation.clone());
        }
        if is_news {
            // Nobody listens only at the end.
            let _ = self.asking.news.send((namespace.clone(), writer.spec.storage.clone())).await;
        }
        if let Some(patch) = ledger_patch(writer, &observation) {
            self.write(key, patch).await;
        }
        Outcome::Again(spread(wait))
    }

    /// The admin port of the spec; a container that started again may have it already.
    fn port_now(&self, namespace: &str, storage: &str) -> Option<u16> {
        let storage = self.caches.storage(namespace, storage)?;
        let port = storage.spec.sidecar.as_ref().and_then(|sidecar| sidecar.admin_port);
        port.map_or(Some(DEFAULT_ADMIN_PORT), |port| u16::try_from(port).ok().filter(|port| *port != 0))
    }

    async fn write(&self, (namespace, name): &Key, patch: Value) {
        let Ok(patch) = serde_json::from_value(patch) else { return };
        let writers: Api<WalWriter> = Api::namespaced(self.context.client.clone(), namespace);
        let by_us = PatchParams { field_manager: Some(names::CONTROLLER.to_owned()), ..PatchParams::default() };
        // It is tried again with the next answer, from a newer copy of the ledger.
        if let Err(error) = writers.patch_status(name, &by_us, &Patch::Json::<()>(patch)).await {
            tracing::debug!(namespace, writer = name, %error, "states of directories were not written");
        }
    }
}

/// Whom to ask.
#[derive(Debug, PartialEq)]
enum Target {
    /// There is no admin port.
    None,
    /// It cannot be asked yet.
    Nowhere(String),
    /// At one of these, in this order.
    At(Vec<SocketAddr>),
}

/// Where the sidecar of the holder listens: as its container says, else as the spec does now.
fn target(pod: Option<&Pod>, uid: &str, port_now: Option<u16>) -> Target {
    let Some(pod) = pod.filter(|pod| pod.metadata.uid.as_deref() == Some(uid)) else {
        return Target::Nowhere("its pod is not there".to_owned());
    };
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecar = inits.into_iter().find(|container| container.name == names::CONTAINER);
    let ports = sidecar.iter().flat_map(|container| container.ports.iter().flatten());
    let port = ports.into_iter().find(|port| port.name.as_deref() == Some(names::ADMIN_PORT_NAME));
    let Some(port) = port.and_then(|port| u16::try_from(port.container_port).ok()) else { return Target::None };
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()?.parse::<IpAddr>().ok());
    let Some(ip) = ip else { return Target::Nowhere("its pod has no address".to_owned()) };
    let mut ports = vec![port];
    ports.extend(port_now.filter(|now| *now != port));
    Target::At(ports.into_iter().map(|port| SocketAddr::new(ip, port)).collect())
}

/// What the first that is there says.
async fn hear(addresses: &[SocketAddr], writer_uid: &str, longest: Duration) -> Result<Vec<Directory>, NoAnswer> {
    let mut nobody = NoAnswer::Unreachable("there is no address".to_owned());
    for address in addresses {
        match ask::status(*address, longest).await {
            Ok(body) => {
                let read = report::read(&body, writer_uid);
                return read.map_err(|why| NoAnswer::Unusable(format!("{address}: {why}")));
            }
            Err(NoAnswer::Unusable(why)) => return Err(NoAnswer::Unusable(format!("{address}: {why}"))),
            Err(NoAnswer::Unreachable(why)) => nobody = NoAnswer::Unreachable(format!("{address}: {why}")),
        }
    }
    Err(nobody)
}

fn result(answer: &Result<Vec<Directory>, NoAnswer>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(NoAnswer::Unreachable(_)) => "unreachable",
        Err(NoAnswer::Unusable(_)) => "unusable",
    }
}

/// What is known after an answer, whether it was in vain, and when to ask again. Pure.
fn follow(
    before: &Observation,
    failing: Option<Failing>,
    answer: Result<Vec<Directory>, NoAnswer>,
    now: Instant,
    interval: Duration,
) -> (Observation, Option<Failing>, Duration) {
    let pod_uid = before.pod_uid.clone();
    let why = match answer {
        Ok(directories) => {
            let unwell = directories.iter().any(|directory| directory.state != HEALTHY);
            let wait = if unwell { interval / SOONER } else { interval };
            return (Observation { pod_uid, directories, ..Observation::default() }, None, wait);
        }
        Err(NoAnswer::Unreachable(why) | NoAnswer::Unusable(why)) => why,
    };
    let (times, since) = failing.map_or((0, now), |failing| (failing.times, failing.since));
    let failing = Failing { pod_uid: pod_uid.clone(), times: times.saturating_add(1), since };
    let doubled = FIRST_WAIT.min(interval).saturating_mul(1_u32.checked_shl(times).unwrap_or(u32::MAX));
    let is_silent = now.duration_since(since) >= interval * SILENT;
    let longest = if is_silent { interval * SELDOM } else { interval };
    let observation =
        if is_silent { Observation { pod_uid, silent: Some(why), ..Observation::default() } } else { before.clone() };
    (observation, Some(failing), doubled.min(longest))
}

/// A little earlier or later, so that those who began together do not stay together.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.1))
}

/// Writes the states of the ledger's directories, if they are not what was heard: on the very writer and pod that were
/// asked, whatever else changed meanwhile. One that is healthy has none.
fn ledger_patch(writer: &WalWriter, heard: &Observation) -> Option<Value> {
    if !heard.is_known() {
        return None;
    }
    let volumes = writer.status.as_ref()?.volumes.as_deref().unwrap_or_default();
    let changes: Vec<Value> = volumes
        .iter()
        .enumerate()
        .filter_map(|(at, volume)| {
            let directory = heard.directories.iter().find(|directory| directory.url == volume.url);
            let unwell = |state: &&str| *state != HEALTHY;
            let state = directory.map(|directory| directory.state.as_str()).filter(unwell);
            // An operator that wrote this word as well may have been here: it says no more than none.
            let before = volume.state.as_deref().filter(unwell);
            let path = format!("/status/volumes/{at}/state");
            let change = match (before, state) {
                (before, now) if before == now => return None,
                (_, Some(state)) => json!({"op": "add", "path": path, "value": state}),
                (_, None) => json!({"op": "remove", "path": path}),
            };
            let name = json!({"op": "test", "path": format!("/status/volumes/{at}/name"), "value": volume.name});
            Some([name, change])
        })
        .flatten()
        .collect();
    if changes.is_empty() {
        return None;
    }
    let tests = [
        json!({"op": "test", "path": "/metadata/uid", "value": writer.metadata.uid}),
        json!({"op": "test", "path": "/status/phase", "value": writer.status.as_ref()?.phase}),
        json!({"op": "test", "path": "/status/holder/podUid", "value": heard.pod_uid}),
    ];
    Some(Value::Array(tests.into_iter().chain(changes).collect()))
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;
