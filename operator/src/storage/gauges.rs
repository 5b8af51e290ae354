//! Gauges over all storages, from the caches.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
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

/// Keeps the gauges true until the token is cancelled.
pub(super) async fn run(metrics: Arc<ControllerMetrics>, caches: Caches, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    let mut shown = Shown::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
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
        let oldest = caches.pods.state().iter().filter_map(waits_since).min();
        let waited = oldest.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
        metrics.gated_pod_oldest_seconds.set(waited);
    }
}

/// When a pod that waits for its writer was made.
fn waits_since(pod: &Arc<k8s_openapi::api::core::v1::Pod>) -> Option<Timestamp> {
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
