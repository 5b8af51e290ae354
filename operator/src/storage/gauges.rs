//! Gauges over all storages, from the caches.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::pods::PodView;
use super::status::left_behind;
use crate::process::cache::Caches;
use crate::process::metrics::{ControllerMetrics, OfPhase, OfStorage};

/// How often they are looked at: well below any interval of a scraper.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps the gauges true until the token is cancelled. Then they are taken back: another replica counts from now on, and
/// what this one saw last would be alerted on for ever.
pub(super) async fn run(metrics: Arc<ControllerMetrics>, caches: Caches, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    let mut shown = Shown::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return shown.take_back(&metrics),
            _ = ticks.tick() => shown.show(&metrics, &caches, Timestamp::now()),
        }
    }
}

/// What was shown last, so that what is gone is removed.
#[derive(Default)]
struct Shown {
    phases: HashSet<OfPhase>,
    unapplied: HashSet<OfStorage>,
    stuck: HashSet<OfStorage>,
    outdated: HashSet<OfStorage>,
}

impl Shown {
    fn show(&mut self, metrics: &ControllerMetrics, caches: &Caches, now: Timestamp) {
        let mut phases = BTreeMap::new();
        let (mut unapplied, mut stuck, mut outdated) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for storage in caches.storages.state() {
            let key = (storage.namespace().unwrap_or_default(), storage.name_any());
            let counted = storage.status.as_ref().and_then(|status| status.pods.as_ref()?.outdated);
            outdated.insert(key.clone(), counted.unwrap_or_default());
            unapplied.insert(key.clone(), 0);
            stuck.insert(key, 0);
        }
        for writer in caches.writers.state() {
            let key = (writer.namespace().unwrap_or_default(), writer.spec.storage.clone());
            if let Some(phase) = writer.status.as_ref().and_then(|status| status.phase) {
                *phases.entry((key.clone(), name(phase))).or_insert(0) += 1;
            }
            *unapplied.entry(key.clone()).or_default() += left_behind(&writer);
            *stuck.entry(key).or_default() += i64::from(is_stuck(&writer));
        }
        let of = |(namespace, storage): (String, String)| OfStorage { namespace, storage };
        let phase = |((namespace, storage), phase)| OfPhase { namespace, storage, phase };
        set(&metrics.writers, &mut self.phases, phases.into_iter().map(|(key, count)| (phase(key), count)));
        set(
            &metrics.unapplied_entries,
            &mut self.unapplied,
            unapplied.into_iter().map(|(key, count)| (of(key), count)),
        );
        set(&metrics.stuck_writers, &mut self.stuck, stuck.into_iter().map(|(key, count)| (of(key), count)));
        set(&metrics.pods_outdated, &mut self.outdated, outdated.into_iter().map(|(key, count)| (of(key), count)));
        metrics.gated_pod_oldest_seconds.set(oldest_wait(&caches.pods.state(), now));
    }

    fn take_back(&mut self, metrics: &ControllerMetrics) {
        set(&metrics.writers, &mut self.phases, std::iter::empty());
        set(&metrics.unapplied_entries, &mut self.unapplied, std::iter::empty());
        set(&metrics.stuck_writers, &mut self.stuck, std::iter::empty());
        set(&metrics.pods_outdated, &mut self.outdated, std::iter::empty());
        metrics.gated_pod_oldest_seconds.set(0.0);
    }
}

/// Seconds that the pod has waited that waits longest for its writer; 0 when none waits.
fn oldest_wait(pods: &[Arc<Pod>], now: Timestamp) -> f64 {
    let oldest = pods.iter().filter_map(waits_since).min();
    oldest.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0))
}

/// When a pod that waits for its writer was made.
fn waits_since(pod: &Arc<Pod>) -> Option<Timestamp> {
    let view = PodView::of(pod);
    let waits = view.gated && view.live && pod.metadata.deletion_timestamp.is_none();
    pod.metadata.creation_timestamp.as_ref().filter(|_| waits).map(|time| time.0)
}

fn is_stuck(writer: &WalWriter) -> bool {
    let conditions = writer.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Stuck" && condition.status == "True")
}

const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Active => "Active",
        Phase::Releasing => "Releasing",
        Phase::Released => "Released",
        Phase::Orphaned => "Orphaned",
        Phase::Drained => "Drained",
        Phase::Reclaiming => "Reclaiming",
        Phase::Lost => "Lost",
    }
}

/// Sets what is there, then removes what is there no more: a scrape between sees no hole.
fn set<L>(family: &Family<L, Gauge>, shown: &mut HashSet<L>, now: impl Iterator<Item = (L, i64)>)
where
    L: Clone + Eq + Hash + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    let mut next = HashSet::new();
    for (labels, value) in now {
        family.get_or_create(&labels).set(value);
        next.insert(labels);
    }
    for gone in shown.difference(&next) {
        family.remove(gone);
    }
    *shown = next;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(created: &str, more: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": "p", "creationTimestamp": created},
            "spec": {"containers": [], "schedulingGates": [{"name": "walstorage.dev/writer"}],
                "initContainers": [{"name": "walstorage", "restartPolicy": "Always"}]},
        });
        json_patch::merge(&mut pod, &more);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_pod_that_waits_longest_for_its_writer_counts_and_no_other() {
        let now = "2026-01-01T00:10:00Z".parse().unwrap();
        let waits = |created: &str| pod(created, json!({}));
        assert_eq!(oldest_wait(&[], now), 0.0);
        assert_eq!(oldest_wait(&[waits("2026-01-01T00:09:00Z"), waits("2026-01-01T00:04:59Z")], now), 301.0);
        // Granted; held by a gate of others; ending; ended.
        let others = [
            json!({"spec": {"schedulingGates": null}}),
            json!({"spec": {"schedulingGates": [{"name": "example.com/gate"}]}}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:09:59Z"}}),
            json!({"status": {"phase": "Failed"}}),
        ];
        for other in others {
            let pods = [pod("2026-01-01T00:00:00Z", other), waits("2026-01-01T00:09:50Z")];
            assert_eq!(oldest_wait(&pods, now), 10.0);
        }
        // The clocks of two machines.
        assert_eq!(oldest_wait(&[waits("2026-01-01T00:11:00Z")], now), 0.0);
    }

    #[test]
    fn one_that_leads_no_more_alerts_nobody() {
        let metrics = ControllerMetrics::default();
        let of = OfStorage { namespace: "shop".to_owned(), storage: "orders".to_owned() };
        let mut shown = Shown::default();
        set(&metrics.stuck_writers, &mut shown.stuck, [(of, 1)].into_iter());
        metrics.gated_pod_oldest_seconds.set(301.0);
        shown.take_back(&metrics);
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register("stuck", "Stuck", metrics.stuck_writers.clone());
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &registry).unwrap();
        assert!(!out.contains("orders"), "{out}");
        assert_eq!(metrics.gated_pod_oldest_seconds.get(), 0.0);
    }
}
