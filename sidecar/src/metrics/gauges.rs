//! What is filled from the engine's status when somebody scrapes.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use walstorage_crds::url::WalUrl;

use super::DirectoryLabel;
use crate::engine::api::{DirectoryState, EngineStatus, JournalIo, Phase};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    directory: String,
    state: &'static str,
}

#[derive(Default)]
pub(super) struct Gauges {
    queue_bytes: Gauge,
    queue_oldest_seconds: Gauge<f64, AtomicU64>,
    directory_state: Family<StateLabels, Gauge>,
    directory_free_bytes: Family<DirectoryLabel, Gauge>,
    directory_used_bytes: Family<DirectoryLabel, Gauge>,
    directory_pending_bytes: Family<DirectoryLabel, Gauge>,
    replay_remaining_bytes: Gauge,
    damaged_entries: Counter,
    journal_used_ratio: Family<DirectoryLabel, Gauge<f64, AtomicU64>>,
    memory_used_bytes: Gauge,
    memory_limit_bytes: Gauge,
    unapplied_entries: Gauge,
    fenced: Gauge,
    directory_direct_io: Family<DirectoryLabel, Gauge>,
    directory_reserve_bytes: Family<DirectoryLabel, Gauge>,
    segments: Family<DirectoryLabel, Gauge>,
}

impl Gauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("queue_bytes", "Bytes assigned and not yet durable", self.queue_bytes.clone());
        registry.register(
            "queue_oldest_seconds",
            "Age of the oldest append that is not answered",
            self.queue_oldest_seconds.clone(),
        );
        registry.register("directory_state", "1 for the state of a directory", self.directory_state.clone());
        registry.register("directory_free_bytes", "Free on the file system", self.directory_free_bytes.clone());
        registry.register("directory_used_bytes", "Used on the file system", self.directory_used_bytes.clone());
        registry.register(
            "directory_pending_bytes",
            "Bytes assigned to a directory and not yet durable",
            self.directory_pending_bytes.clone(),
        );
        registry.register(
            "replay_remaining_bytes",
            "Journal bytes that recovery has still to read",
            self.replay_remaining_bytes.clone(),
        );
        registry.register("damaged_entries", "Entries found damaged", self.damaged_entries.clone());
        registry.register("journal_used_ratio", "Journal bytes by their bound", self.journal_used_ratio.clone());
        registry.register("memory_used_bytes", "Memory that entries hold", self.memory_used_bytes.clone());
        registry.register("memory_limit_bytes", "The bound of that memory", self.memory_limit_bytes.clone());
        registry.register("unapplied_entries", "Entries not truncated", self.unapplied_entries.clone());
        registry.register("fenced", "1 when another process has taken over", self.fenced.clone());
        registry.register(
            "directory_direct_io",
            "1 where journal files are written around the page cache",
            self.directory_direct_io.clone(),
        );
        registry.register(
            "directory_reserve_bytes",
            "Bytes written ahead for facts, so that a full file system takes truncations",
            self.directory_reserve_bytes.clone(),
        );
        registry.register("segments", "Files of segments that are needed", self.segments.clone());
    }

    /// Takes everything from a status; `waited`: the age of the oldest append that is not answered; `name`: how a
    /// directory is shown.
    pub(super) fn fill(&self, status: &EngineStatus, waited: Duration, name: impl Fn(&WalUrl) -> String) {
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.queue_oldest_seconds.set(waited.as_secs_f64());
        self.queue_bytes.set(signed(status.directories.iter().map(|d| d.pending_bytes).sum()));
        self.replay_remaining_bytes.set(signed(status.replay_total_bytes.saturating_sub(status.replay_done_bytes)));
        self.memory_used_bytes.set(signed(status.memory_used_bytes));
        self.memory_limit_bytes.set(signed(status.memory_limit_bytes));
        self.unapplied_entries.set(signed(status.unapplied_entries));
        self.fenced.set((status.phase == Phase::Fenced).into());
        let lost = |range: &Option<_>| {
            range.map_or(0, |(first, last): (crate::types::Lsn, crate::types::Lsn)| last.0.saturating_sub(first.0) + 1)
        };
        let damaged: u64 = status.damage.iter().flat_map(|report| &report.lost).map(|(_, range)| lost(range)).sum();
        self.damaged_entries.inc_by(damaged.saturating_sub(self.damaged_entries.get()));
        self.directory_state.clear();
        self.directory_free_bytes.clear();
        self.directory_used_bytes.clear();
        self.directory_pending_bytes.clear();
        self.journal_used_ratio.clear();
        self.directory_direct_io.clear();
        self.directory_reserve_bytes.clear();
        self.segments.clear();
        for status in &status.directories {
            let directory = name(&status.url);
            for state in DirectoryState::ALL {
                let labels = StateLabels { directory: directory.clone(), state: state.as_str() };
                self.directory_state.get_or_create(&labels).set((state == status.state).into());
            }
            let label = DirectoryLabel { directory };
            self.directory_free_bytes.get_or_create(&label).set(signed(status.free_bytes));
            let used = status.capacity_bytes.saturating_sub(status.free_bytes);
            self.directory_used_bytes.get_or_create(&label).set(signed(used));
            self.directory_pending_bytes.get_or_create(&label).set(signed(status.pending_bytes));
            self.directory_direct_io.get_or_create(&label).set((status.io == Some(JournalIo::Direct)).into());
            self.directory_reserve_bytes.get_or_create(&label).set(signed(status.reserve_bytes));
            self.segments.get_or_create(&label).set(signed(status.segments));
            let bound = status.journal_max_bytes.max(1) as f64;
            self.journal_used_ratio.get_or_create(&label).set(status.journal_bytes as f64 / bound);
        }
    }
}
