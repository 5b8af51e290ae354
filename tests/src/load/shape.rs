//! What a writer under the loop looks like, and what its disks do to it.

use super::trouble::Trouble;
use crate::emulators::proxy::Proxy;
use crate::harness::Setup;

/// Where directories are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Folders: the process can be killed.
    Folders,
    /// Disks whose power can be cut, and that make trouble.
    Twins,
    /// ext4 on disks whose power can be cut.
    Ext4,
}

/// A writer.
pub struct Shape {
    /// How it is started.
    pub setup: Setup,
    /// Number of directories with a journal: `d1`, `d2`, …
    pub directories: usize,
    /// Number of collections.
    pub collections: usize,
    /// Where its directories are.
    pub ground: Ground,
    /// What those disks do under load; one of them in some rounds.
    pub troubles: &'static [Trouble],
    /// At most so many entries are acknowledged before a round ends.
    pub entries: u64,
    /// What is between it and its bucket: while it starts and works, one of ten requests meets a fault.
    pub way: Option<Proxy>,
}

impl Shape {
    fn new(setup: Setup, directories: usize, collections: usize) -> Self {
        Self { setup, directories, collections, ground: Ground::Folders, troubles: &[], entries: 600, way: None }
    }

    /// One directory.
    #[must_use]
    pub fn one_directory() -> Self {
        Self::new(Setup::new(1), 1, 4)
    }

    /// A bucket behind a proxy, and no disk.
    #[must_use]
    pub fn in_a_bucket(setup: Setup, way: Proxy) -> Self {
        Self { way: Some(way), entries: 300, ..Self::new(setup, 0, 3) }
    }

    /// Three directories in turn.
    #[must_use]
    pub fn three_directories() -> Self {
        Self::new(Setup::new(3).set(r#"distribution_strategy = "RoundRobin""#), 3, 7)
    }

    /// A collection's groups go to different directories.
    #[must_use]
    pub fn without_affinity() -> Self {
        let setup = Setup::new(2).set(r#"distribution_strategy = "Hash""#).set("collection_affinity = false");
        Self::new(setup, 2, 3)
    }

    /// All commits go to a directory of their own.
    #[must_use]
    pub fn own_journal() -> Self {
        let setup = Setup::new(2);
        let journal = setup.url("d3");
        Self::new(setup.set(&format!("journal_url = {journal:?}")), 3, 3)
    }

    /// Writes segments all the time: its thresholds are tiny.
    #[must_use]
    pub fn flushing(self) -> Self {
        self.set("memory_flush_size_bytes = 2048").set("global_flush_threshold = 524288")
    }

    /// Puts the directories on disks whose power is cut, too.
    #[must_use]
    pub fn on_twins(self) -> Self {
        Self { ground: Ground::Twins, ..self }
    }

    /// Has rounds that are long enough for slots to be prepared, filled and recycled.
    #[must_use]
    pub fn long(self) -> Self {
        Self { entries: 20_000, ..self }
    }

    /// Puts the directories on ext4, on disks whose power is cut, too.
    #[must_use]
    pub fn on_ext4(self) -> Self {
        Self { ground: Ground::Ext4, ..self }
    }

    /// Adds a line to `[storage.wal_config]`.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.setup.add(line);
        self
    }

    /// Puts them on disks that make trouble.
    #[must_use]
    pub fn with(self, troubles: &'static [Trouble]) -> Self {
        Self { ground: Ground::Twins, troubles, ..self }
    }
}
