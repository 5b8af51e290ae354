//! How a simulated writer is configured.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::SmallRng;
use walstorage_crds::config::Config;

/// A configuration, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) directories: usize,
    /// These of them have left the configuration.
    pub(super) without: BTreeSet<usize>,
    /// These are to be emptied.
    pub(super) draining: BTreeSet<usize>,
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
            without: BTreeSet::new(),
            draining: BTreeSet::new(),
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

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Where the n-th directory lies.
pub(super) fn root(n: usize) -> PathBuf {
    Path::new("/m").join(NAMES[n])
}

/// Where the directory lies that takes all commits.
pub(super) const JOURNAL_ROOT: &str = "/m/j";

impl Shape {
    /// So many directories there can be.
    pub(super) const MOST: usize = NAMES.len();

    pub(super) fn draw(random: &mut SmallRng) -> Self {
        Self {
            directories: random.random_range(1..=3),
            without: BTreeSet::new(),
            draining: BTreeSet::new(),
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

    /// Where its directories lie, those included that have left the configuration.
    pub(super) fn roots(&self) -> Vec<PathBuf> {
        (0..self.directories).map(root).chain([JOURNAL_ROOT.into()]).collect()
    }

    /// Where the directories lie that it names, and whether they are to be emptied.
    pub(super) fn named(&self) -> Vec<(PathBuf, bool)> {
        let own = (0..self.directories).filter(|n| !self.without.contains(n));
        let own = own.map(|n| (root(n), self.draining.contains(&n)));
        own.chain(self.journal.then(|| (JOURNAL_ROOT.into(), false))).collect()
    }

    pub(super) fn to_config(&self) -> Config {
        let url = |n: usize| format!("\"file://{}\"", root(n).display());
        let urls: Vec<String> = (0..self.directories).filter(|n| !self.without.contains(n)).map(url).collect();
        let drained = self.draining.difference(&self.without);
        let options: Vec<String> =
            drained.map(|n| format!("[storage.wal_config.url_options.{}]\ndrain = true\n", url(*n))).collect();
        let journal = if self.journal { "journal_url = \"file:///m/j\"\n" } else { "" };
        let text = format!(
            "[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [{}]\ncollection_affinity = {}\n\
             distribution_strategy = \"{}\"\njournal_max_bytes = \"{}Ki\"\non_damage = \"{}\"\n\
             memory_flush_size_bytes = {}\nsegment_size_bytes = {}\ncompression = \"{}\"\n{journal}{}",
            urls.join(", "),
            self.affinity,
            self.strategy,
            self.journal_max >> 10,
            if self.gaps { "gap" } else { "fail" },
            self.flush_size,
            self.segment_size,
            self.codec,
            options.concat(),
        );
        Config::parse(&text, true).unwrap_or_else(|error| panic!("{error}:\n{text}")).config
    }
}
