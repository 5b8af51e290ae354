//! The operator's own metrics, prefix `walstorage_operator_`. Each command registers what it has: a series that nobody
//! writes would read as zero.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A gauge of a fraction or of seconds.
pub type GaugeF64 = Gauge<f64, AtomicU64>;

/// A registry with the prefix of all our metrics.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix("walstorage_operator")
}

/// Of one storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfStorage {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub storage: String,
}

/// Of the writers of one storage in one phase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPhase {
    /// The storage's namespace.
    pub namespace: String,
    /// The storage's name.
    pub storage: String,
    /// The phase.
    pub phase: &'static str,
}

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfResult {
    /// In one word.
    pub result: &'static str,
}

/// Of one kind of object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// The kind.
    pub kind: &'static str,
}

/// How the reconciliation of a kind ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfReconcile {
    /// The kind.
    pub kind: &'static str,
    /// `ok`, `refused` or `error`.
    pub result: &'static str,
}

/// What the controller counts.
#[derive(Clone, Debug, Default)]
pub struct ControllerMetrics {
    /// Whether this replica leads.
    pub leader: Gauge,
    /// Writers, by phase.
    pub writers: Family<OfPhase, Gauge>,
    /// Writers whose pod does not end, long after it should have.
    pub stuck_writers: Family<OfStorage, Gauge>,
    /// Entries that no application has applied, as far as they are known.
    pub unapplied_entries: Family<OfStorage, Gauge>,
    /// Age of the pod that waits longest for its writer; zero when none waits.
    pub gated_pod_oldest_seconds: GaugeF64,
    /// Grants, by result.
    pub grants: Family<OfResult, Counter>,
    /// Pods with another sidecar than they would get now.
    pub pods_outdated: Family<OfStorage, Gauge>,
    /// Reconciliations, by kind and result.
    pub reconciles: Family<OfReconcile, Counter>,
    /// Changes by others to what is ours that were reverted.
    pub drift_reverted: Family<OfKind, Counter>,
    /// Writers whose entries somebody gave up.
    pub abandoned_writers: Counter,
    /// Events that could not be published.
    pub events_dropped: Counter,
    /// Questions to sidecars, by result.
    pub polls: Family<OfResult, Counter>,
}

impl ControllerMetrics {
    /// Metrics that are exposed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self::default();
        let Self {
            leader,
            writers,
            stuck_writers,
            unapplied_entries,
            gated_pod_oldest_seconds,
            grants,
            pods_outdated,
            reconciles,
            drift_reverted,
            abandoned_writers,
            events_dropped,
            polls,
        } = metrics.clone();
        registry.register("leader", "Whether this replica leads", leader);
        registry.register("writers", "Writers, by phase", writers);
        registry.register("stuck_writers", "Writers whose pod does not end, long after it should have", stuck_writers);
        registry.register(
            "unapplied_entries",
            "Entries that no application has applied, as far as known",
            unapplied_entries,
        );
        registry.register(
            "gated_pod_oldest_seconds",
            "Age of the pod that waits longest for its writer",
            gated_pod_oldest_seconds,
        );
        registry.register("grants", "Grants, by result", grants);
        registry.register("pods_outdated", "Pods with another sidecar than they would get now", pods_outdated);
        registry.register("reconciles", "Reconciliations, by kind and result", reconciles);
        registry.register("drift_reverted", "Changes by others to what is the operator's, reverted", drift_reverted);
        registry.register("abandoned_writers", "Writers whose entries somebody gave up", abandoned_writers);
        registry.register("events_dropped", "Events that could not be published", events_dropped);
        registry.register("polls", "Questions to the admin ports of sidecars, by result", polls);
        Arc::new(metrics)
    }
}

/// What the webhook counts.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    /// Requests, by result.
    pub requests: Family<OfResult, Counter>,
    /// Time to answer, in seconds.
    pub seconds: Histogram,
}

impl WebhookMetrics {
    /// Metrics that are exposed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let buckets = [0.000_5, 0.001, 0.002_5, 0.005, 0.007_5, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
        let metrics = Self { requests: Family::default(), seconds: Histogram::new(buckets) };
        let Self { requests, seconds } = metrics.clone();
        registry.register("webhook_requests", "Admission requests, by result", requests);
        registry.register("webhook_seconds", "Time to answer an admission request that was received", seconds);
        Arc::new(metrics)
    }
}

/// What is known of the webhook's certificate.
#[derive(Clone, Debug, Default)]
pub struct CertificateMetrics {
    /// When it ends, in seconds since 1970.
    pub expiry: GaugeF64,
}

impl CertificateMetrics {
    /// Metrics that are exposed.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self::default();
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the webhook's certificate ends",
            metrics.expiry.clone(),
        );
        Arc::new(metrics)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;

    /// What is exposed when everything was counted at least once.
    fn exposed() -> String {
        let mut registry = registry();
        let controller = ControllerMetrics::register(&mut registry);
        let webhook = WebhookMetrics::register(&mut registry);
        CertificateMetrics::register(&mut registry).expiry.set(1.5e9);
        let storage = OfStorage { namespace: "shop".to_owned(), storage: "orders".to_owned() };
        controller.unapplied_entries.get_or_create(&storage).set(3);
        controller.pods_outdated.get_or_create(&storage).set(1);
        controller.stuck_writers.get_or_create(&storage).set(0);
        let phase = OfPhase { namespace: "shop".to_owned(), storage: "orders".to_owned(), phase: "Orphaned" };
        controller.writers.get_or_create(&phase).set(2);
        controller.grants.get_or_create(&OfResult { result: "granted" }).inc();
        controller.reconciles.get_or_create(&OfReconcile { kind: "WalStorage", result: "ok" }).inc();
        controller.drift_reverted.get_or_create(&OfKind { kind: "ConfigMap" }).inc();
        controller.polls.get_or_create(&OfResult { result: "unreachable" }).inc();
        webhook.requests.get_or_create(&OfResult { result: "allowed" }).inc();
        webhook.seconds.observe(0.002);
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        out
    }

    #[test]
    fn metrics_have_the_names_that_alerts_and_dashboards_use() {
        let out = exposed();
        for line in [
            "walstorage_operator_writers{namespace=\"shop\",storage=\"orders\",phase=\"Orphaned\"} 2",
            "walstorage_operator_unapplied_entries{namespace=\"shop\",storage=\"orders\"} 3",
            "walstorage_operator_gated_pod_oldest_seconds 0.0",
            "walstorage_operator_grants_total{result=\"granted\"} 1",
            "walstorage_operator_pods_outdated{namespace=\"shop\",storage=\"orders\"} 1",
            "walstorage_operator_webhook_requests_total{result=\"allowed\"} 1",
            "walstorage_operator_webhook_seconds_count 1",
            "walstorage_operator_certificate_expiry_timestamp_seconds 1500000000.0",
            "walstorage_operator_reconciles_total{kind=\"WalStorage\",result=\"ok\"} 1",
            "walstorage_operator_drift_reverted_total{kind=\"ConfigMap\"} 1",
            "walstorage_operator_abandoned_writers_total 0",
            "walstorage_operator_polls_total{result=\"unreachable\"} 1",
        ] {
            assert!(out.lines().any(|found| found == line), "{line} is not in\n{out}");
        }
    }

    #[test]
    fn every_metric_is_documented_and_every_documented_one_is_there() {
        let out = exposed();
        let types = out.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut exposed: Vec<String> = types
            .map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
            .collect();
        let documented = include_str!("../../../docs/metrics.md").lines();
        let mut documented: Vec<&str> = documented
            .filter_map(|line| line.strip_prefix("| `")?.split(['{', '`']).next())
            .filter(|name| name.starts_with("walstorage_operator_"))
            .collect();
        exposed.sort_unstable();
        documented.sort_unstable();
        assert_eq!(documented, exposed);
    }

    #[test]
    fn every_alert_asks_for_a_metric_that_there_is() {
        let documented = include_str!("../../../docs/metrics.md");
        let rules = include_str!("../../../charts/walstorage/templates/prometheus-rule.yaml");
        let mut asked = 0;
        for expression in rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
            let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for name in words.filter(|word| word.starts_with("walstorage_")) {
                assert!(documented.contains(&format!("| `{name}")), "{name}: {expression}");
                asked += 1;
            }
        }
        assert!(asked >= 7, "{asked} metrics in {rules}");
    }
}
