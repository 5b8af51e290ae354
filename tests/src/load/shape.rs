//! What a writer under the loop looks like, and what its disks do to it.

use super::trouble::Trouble;
use crate::harness::{Namespace, Setup};
use crate::twin::TwinDisk;

/// A writer.
pub struct Shape {
    /// How it is started.
    pub setup: Setup,
    /// Number of directories with a journal: `d1`, `d2`, …
    pub directories: usize,
    /// Number of collections.
    pub collections: usize,
    /// Its directories, where they are disks whose power can be cut.
    pub twins: Option<(Namespace, Vec<TwinDisk>)>,
    /// What those disks do under load; one of them in some rounds.
    pub troubles: &'static [Trouble],
}

impl Shape {
    fn new(setup: Setup, directories: usize, collections: usize) -> Self {
        Self { setup, directories, collections, twins: None, troubles: &[] }
    }

    /// One directory.
    #[must_use]
    pub fn one_directory() -> Self {
        Self::new(Setup::new(1), 1, 4)
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

    /// Puts the directories on disks whose power is cut, too.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn on_twins(self) -> Result<Self, String> {
        let namespace = Namespace::of_root()?;
        let mount = |n| TwinDisk::mount(&namespace, &self.setup.path(&format!("d{n}")), 1 << 30);
        let disks = (1..=self.directories).map(mount).collect::<Result<_, _>>()?;
        Ok(Self { twins: Some((namespace, disks)), ..self })
    }

    /// Adds a line to `[storage.wal_config]`.
    #[must_use]
    pub fn set(mut self, line: &str) -> Self {
        self.setup.add(line);
        self
    }

    /// Has disks that make trouble; they must be twins.
    #[must_use]
    pub fn with(self, troubles: &'static [Trouble]) -> Self {
        Self { troubles, ..self }
    }
}
