//! How a simulated writer is configured.

use rand::RngExt;
use rand::rngs::SmallRng;
use walstorage_crds::config::Config;

/// A configuration, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) directories: usize,
    /// This one of them has left the configuration.
    pub(super) without: Option<usize>,
    /// Commits go to a directory of their own.
    pub(super) journal: bool,
    pub(super) affinity: bool,
    pub(super) strategy: &'static str,
    /// Bytes.
    pub(super) journal_max: u64,
    pub(super) memory_limit: u64,
    /// A collection with so many bytes in memory is flushed.
    pub(super) flush_size: u64,
    pub(super) segment_size: u64,
    pub(super) codec: &'static str,
    /// Damage becomes gaps instead of a start that waits.
    pub(super) gaps: bool,
    /// How many collections clients use.
    pub(super) collections: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            directories: 1,
            without: None,
            journal: false,
            affinity: true,
            strategy: "RoundRobin",
            journal_max: 1 << 20,
            memory_limit: 1 << 26,
            flush_size: 1 << 20,
            segment_size: 1 << 26,
            codec: "null",
            gaps: false,
            collections: 5,
        }
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

impl Shape {
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        Self {
            directories: random.random_range(1..=3),
            without: None,
            journal: random.random_bool(0.3),
            affinity: random.random_bool(0.6),
            strategy: ["RoundRobin", "Hash", "LoadBalanced"][random.random_range(0..3)],
            journal_max: 1 << random.random_range(20..23),
            memory_limit: 1 << random.random_range(19..24),
            flush_size: [2_000, 20_000, 1 << 20][random.random_range(0..3)],
            segment_size: 1 << 16,
            codec: ["null", "snappy", "zstandard"][random.random_range(0..3)],
            gaps: random.random_bool(0.5),
            collections: random.random_range(1..8),
        }
    }

    pub(super) fn to_config(&self) -> Config {
        let named = NAMES[..self.directories].iter().enumerate().filter(|(n, _)| Some(*n) != self.without);
        let urls: Vec<String> = named.map(|(_, name)| format!("\"file:///m/{name}\"")).collect();
        let journal = if self.journal { "journal_url = \"file:///m/j\"\n" } else { "" };
        let text = format!(
            "[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [{}]\ncollection_affinity = {}\n\
             distribution_strategy = \"{}\"\njournal_max_bytes = \"{}Ki\"\non_damage = \"{}\"\n\
             memory_flush_size_bytes = {}\nsegment_size_bytes = {}\ncompression = \"{}\"\n{journal}",
            urls.join(", "),
            self.affinity,
            self.strategy,
            self.journal_max >> 10,
            if self.gaps { "gap" } else { "fail" },
            self.flush_size,
            self.segment_size,
            self.codec,
        );
        Config::parse(&text, true).unwrap_or_else(|error| panic!("{error}:\n{text}")).config
    }
}
