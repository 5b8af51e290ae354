//! What Prometheus sees: counters and histograms that the hot path updates, and gauges filled from the engine's status
//! when somebody scrapes. No label names a collection. docs/metrics.md lists them, which a test holds it to.

mod gauges;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use walstorage_crds::url::WalUrl;

use self::gauges::Gauges;
use crate::engine::api::{Ack, EngineStatus};
use crate::engine::{FlushTold, Observer};
use crate::error::Reason;

/// The content type of [`Metrics::scrape`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AppendLabels {
    level: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectoryLabel {
    directory: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PutLabels {
    directory: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlushLabels {
    cause: &'static str,
    result: &'static str,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    /// Shown instead of URLs, where the operator gave names.
    names: BTreeMap<String, String>,
    appends: Family<AppendLabels, Counter>,
    /// The hot ones, without a look-up.
    durable: Level,
    buffered: Level,
    sync_seconds: Family<DirectoryLabel, Histogram>,
    group_entries: Histogram,
    gap_entries: Counter,
    flushes: Family<FlushLabels, Counter>,
    flushed_bytes: Counter,
    flush_seconds: Histogram,
    gauges: Gauges,
    /// Filling the gauges and printing them is one step.
    scraping: Mutex<()>,
    waiting: Mutex<BTreeMap<u64, Arc<AtomicU64>>>,
    waiting_next: AtomicU64,
    started: Instant,
}

struct Level {
    name: &'static str,
    ok: Counter,
    seconds: Histogram,
}

fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

impl Metrics {
    /// All metrics at zero. `names` gives the URLs that have one a name.
    #[must_use]
    pub fn new(names: BTreeMap<String, String>) -> Arc<Self> {
        let mut registry = Registry::with_prefix("walstorage");
        let appends = Family::<AppendLabels, Counter>::default();
        registry.register("appends", "Append requests answered, by level and result", appends.clone());
        let ack_seconds = Family::<LevelLabel, Histogram>::new_with_constructor(latency);
        registry.register("ack_seconds", "From a request's arrival to its acknowledgement", ack_seconds.clone());
        let sync_seconds = Family::<DirectoryLabel, Histogram>::new_with_constructor(latency);
        registry.register("sync_seconds", "Write and sync of one commit", sync_seconds.clone());
        let group_entries = Histogram::new(exponential_buckets(1.0, 4.0, 9));
        registry.register("group_entries", "Entries of one commit", group_entries.clone());
        let puts = Family::<PutLabels, Counter>::default();
        registry.register("puts", "PUT requests to buckets, by outcome", puts);
        let gap_entries = Counter::default();
        registry.register("gap_entries", "LSNs of gaps handed to readers", gap_entries.clone());
        let flushes = Family::<FlushLabels, Counter>::default();
        registry.register("flushes", "Flushes to segments, by cause and result", flushes.clone());
        let flushed_bytes = Counter::default();
        registry.register("flushed_bytes", "Bytes of entries written to segments", flushed_bytes.clone());
        let flush_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        registry.register("flush_seconds", "From the beginning of a flush until it was synced", flush_seconds.clone());
        let gauges = Gauges::default();
        gauges.register(&mut registry);
        let level = |name| {
            let seconds = ack_seconds.get_or_create(&LevelLabel { level: name }).clone();
            let ok = appends.get_or_create(&AppendLabels { level: name, result: "ok" }).clone();
            Level { name, ok, seconds }
        };
        Arc::new(Self {
            durable: level("durable"),
            buffered: level("buffered"),
            registry,
            names,
            appends,
            sync_seconds,
            group_entries,
            gap_entries,
            flushes,
            flushed_bytes,
            flush_seconds,
            gauges,
            scraping: Mutex::new(()),
            waiting: Mutex::new(BTreeMap::new()),
            waiting_next: AtomicU64::new(0),
            started: Instant::now(),
        })
    }

    /// An append was answered.
    pub fn appended(&self, level: Ack, result: Result<(), Reason>, arrived: Instant) {
        let level = match level {
            Ack::Durable => &self.durable,
            Ack::Buffered => &self.buffered,
        };
        match result {
            Ok(()) => {
                level.ok.inc();
                level.seconds.observe(arrived.elapsed().as_secs_f64());
            }
            Err(reason) => {
                self.appends.get_or_create(&AppendLabels { level: level.name, result: reason.as_str() }).inc();
            }
        }
    }

    /// A gap was handed to a reader.
    pub fn gap(&self, lsns: u64) {
        self.gap_entries.inc_by(lsns);
    }

    /// A place to note since when a client waits for its oldest append.
    pub fn waiting(self: &Arc<Self>) -> Waiting {
        let id = self.waiting_next.fetch_add(1, Ordering::Relaxed);
        let since = Arc::new(AtomicU64::new(u64::MAX));
        self.waiting.lock().insert(id, since.clone());
        Waiting { id, since, metrics: self.clone() }
    }

    fn directory(&self, url: &WalUrl) -> String {
        self.names.get(url.as_str()).cloned().unwrap_or_else(|| url.as_str().to_owned())
    }

    /// Everything as text.
    #[must_use]
    pub fn scrape(&self, status: &EngineStatus) -> String {
        let _one_at_a_time = self.scraping.lock();
        let oldest = self.waiting.lock().values().map(|since| since.load(Ordering::Relaxed)).min();
        let now = self.micros(Instant::now());
        let waited = oldest.filter(|since| *since != u64::MAX).map_or(0, |since| now.saturating_sub(since));
        self.gauges.fill(status, Duration::from_micros(waited), |url| self.directory(url));
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
            let _ = writeln!(text, "# EOF");
        }
        text
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Observer for Metrics {
    fn committed(&self, directory: &WalUrl, took: Duration, entries: u64, _acks: u64) {
        let label = DirectoryLabel { directory: self.directory(directory) };
        self.sync_seconds.get_or_create(&label).observe(took.as_secs_f64());
        self.group_entries.observe(entries as f64);
    }

    fn flushed(&self, flush: &FlushTold) {
        let FlushTold { cause, result, bytes, took } = *flush;
        self.flushes.get_or_create(&FlushLabels { cause, result }).inc();
        if result == "ok" {
            self.flushed_bytes.inc_by(bytes);
            self.flush_seconds.observe(took.as_secs_f64());
        }
    }
}

/// Since when one client waits for its oldest append; forgotten when dropped.
pub struct Waiting {
    id: u64,
    since: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Waiting {
    /// Since then; `None`: it does not wait.
    pub fn since(&self, at: Option<Instant>) {
        self.since.store(at.map_or(u64::MAX, |at| self.metrics.micros(at)), Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.metrics.waiting.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::engine::api::{DamageReport, DirectoryState, DirectoryStatus, JournalIo, Phase};
    use crate::types::{Epoch, Lsn};

    fn status(url: &WalUrl) -> EngineStatus {
        let directory = DirectoryStatus {
            uuid: None,
            url: url.clone(),
            state: DirectoryState::Full,
            reason: String::new(),
            remedy: String::new(),
            since: std::time::SystemTime::UNIX_EPOCH,
            device: String::new(),
            in_use: true,
            draining: false,
            capacity_bytes: 100,
            free_bytes: 40,
            pending_bytes: 7,
            journal_bytes: 1,
            journal_max_bytes: 4,
            evacuation_bytes_left: 0,
            commit_latency_us: 0.0,
            acks_per_sync: 0.0,
            io: Some(JournalIo::Direct),
            segments: 3,
            reserve_bytes: 8,
        };
        let damage = DamageReport {
            directory: url.clone(),
            file: "f".into(),
            offset: 0,
            what: "w".into(),
            lost: vec![(None, Some((Lsn(3), Lsn(5)))), (None, None)],
        };
        EngineStatus {
            writer_uid: None,
            writer_id: String::new(),
            epoch: Epoch(1),
            grant: 0,
            holder: String::new(),
            phase: Phase::Fenced,
            waiting_for: Vec::new(),
            replay_done_bytes: 10,
            replay_total_bytes: 30,
            directories: vec![directory],
            memory_used_bytes: 5,
            memory_limit_bytes: 6,
            collections: 1,
            unapplied_entries: 9,
            unapplied_bytes: 9,
            damage: vec![damage],
            warnings: Vec::new(),
        }
    }

    fn value(text: &str, series: &str) -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
    }

    #[test]
    fn a_scrape_shows_the_engine_as_it_is_under_the_operators_names() {
        let url = WalUrl::parse("file:///wal/nvme1").unwrap();
        let metrics = Metrics::new(BTreeMap::from([(url.as_str().to_owned(), "nvme1".to_owned())]));
        metrics.appended(Ack::Durable, Ok(()), Instant::now());
        metrics.appended(Ack::Buffered, Err(Reason::MemoryLimit), Instant::now());
        metrics.committed(&url, Duration::from_millis(1), 12, 3);
        metrics.gap(4);
        let flush = FlushTold { cause: "journal", result: "ok", bytes: 100, took: Duration::from_millis(5) };
        metrics.flushed(&flush);
        metrics.flushed(&FlushTold { cause: "due", result: "failed", ..flush });
        // Twice: what is a counter must not be counted again.
        let _ = metrics.scrape(&status(&url));
        let text = metrics.scrape(&status(&url));
        let expected = [
            ("walstorage_appends_total{level=\"durable\",result=\"ok\"}", 1.0),
            ("walstorage_appends_total{level=\"buffered\",result=\"MEMORY_LIMIT\"}", 1.0),
            ("walstorage_ack_seconds_count{level=\"durable\"}", 1.0),
            ("walstorage_sync_seconds_count{directory=\"nvme1\"}", 1.0),
            ("walstorage_group_entries_sum", 12.0),
            ("walstorage_queue_bytes", 7.0),
            ("walstorage_queue_oldest_seconds", 0.0),
            ("walstorage_directory_state{directory=\"nvme1\",state=\"full\"}", 1.0),
            ("walstorage_directory_state{directory=\"nvme1\",state=\"healthy\"}", 0.0),
            ("walstorage_directory_free_bytes{directory=\"nvme1\"}", 40.0),
            ("walstorage_directory_used_bytes{directory=\"nvme1\"}", 60.0),
            ("walstorage_directory_pending_bytes{directory=\"nvme1\"}", 7.0),
            ("walstorage_replay_remaining_bytes", 20.0),
            ("walstorage_damaged_entries_total", 3.0),
            ("walstorage_gap_entries_total", 4.0),
            ("walstorage_journal_used_ratio{directory=\"nvme1\"}", 0.25),
            ("walstorage_memory_used_bytes", 5.0),
            ("walstorage_memory_limit_bytes", 6.0),
            ("walstorage_unapplied_entries", 9.0),
            ("walstorage_fenced", 1.0),
            ("walstorage_flushes_total{cause=\"journal\",result=\"ok\"}", 1.0),
            ("walstorage_flushes_total{cause=\"due\",result=\"failed\"}", 1.0),
            ("walstorage_flushed_bytes_total", 100.0),
            ("walstorage_flush_seconds_count", 1.0),
            ("walstorage_segments{directory=\"nvme1\"}", 3.0),
            ("walstorage_directory_direct_io{directory=\"nvme1\"}", 1.0),
            ("walstorage_directory_reserve_bytes{directory=\"nvme1\"}", 8.0),
        ];
        for (series, expected) in expected {
            assert_eq!(value(&text, series), expected, "{series}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_documentation_names_every_metric_and_no_other() {
        let url = WalUrl::parse("file:///d").unwrap();
        let metrics = Metrics::new(BTreeMap::new());
        // What has labels is not there before it has counted something.
        metrics.committed(&url, Duration::from_millis(1), 1, 1);
        metrics.flushed(&FlushTold { cause: "due", result: "ok", bytes: 1, took: Duration::from_millis(1) });
        let text = metrics.scrape(&status(&url));
        let exported: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# HELP walstorage_")?.split(' ').next()).collect();
        let documented: BTreeSet<&str> = include_str!("../../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `walstorage_")?.split(['`', '{']).next())
            // The operator's stand in the same page.
            .filter(|name| !name.starts_with("operator_"))
            .map(|name| name.strip_suffix("_total").unwrap_or(name))
            .collect();
        assert_eq!(documented, exported);
    }

    #[test]
    fn the_oldest_waiting_append_counts_until_its_client_is_gone() {
        let url = WalUrl::parse("file:///d").unwrap();
        let metrics = Metrics::new(BTreeMap::new());
        let (old, young) = (metrics.waiting(), metrics.waiting());
        let before = metrics.started;
        old.since(Some(before));
        young.since(Some(before + Duration::from_secs(3600)));
        let waited = |text: String| value(&text, "walstorage_queue_oldest_seconds");
        assert!(waited(metrics.scrape(&status(&url))) > 0.0);
        drop(old);
        assert_eq!(waited(metrics.scrape(&status(&url))), 0.0);
        young.since(None);
        assert_eq!(waited(metrics.scrape(&status(&url))), 0.0);
    }
}
