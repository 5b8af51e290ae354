//! One disk: its names, the files below them, and what a power cut leaves of both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::faults::Faults;
use crate::directory::identity::JOURNAL;
use crate::sim::file::{Content, Leaves};

/// Identity of a file below its names.
pub(super) type Node = u64;

#[derive(Clone, Debug)]
pub(super) enum Naming {
    Made(PathBuf, Node),
    Removed(PathBuf, Node),
    Renamed(PathBuf, PathBuf, Node),
}

impl Naming {
    pub(super) fn is_in(&self, folder: &Path) -> bool {
        let (Self::Made(name, _) | Self::Removed(name, _) | Self::Renamed(_, name, _)) = self;
        name.parent() == Some(folder)
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        let mut remove = |name: &PathBuf, node: &Node| {
            if names.get(name) == Some(node) {
                names.remove(name);
            }
        };
        match self {
            Self::Made(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Removed(name, node) => remove(name, node),
            Self::Renamed(from, to, node) => {
                remove(from, node);
                names.insert(to.clone(), *node);
            }
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct DiskState {
    pub(super) number: u64,
    pub(super) capacity: u64,
    pub(super) faults: Faults,
    pub(super) folders: BTreeSet<PathBuf>,
    pub(super) names: BTreeMap<PathBuf, Node>,
    /// Names as of the last syncs of their folders.
    pub(super) durable: BTreeMap<PathBuf, Node>,
    pub(super) changes: Vec<Naming>,
    pub(super) files: BTreeMap<Node, Content>,
    pub(super) next_node: Node,
    pub(super) locked_by: Option<u64>,
    /// A write went astray, and no frame was written since that proves what was there.
    pub(super) unproven: bool,
}

impl DiskState {
    /// An empty disk.
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            capacity: 1 << 40,
            faults: Faults::default(),
            folders: BTreeSet::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            changes: Vec::new(),
            files: BTreeMap::new(),
            next_node: 1,
            locked_by: None,
            unproven: false,
        }
    }

    /// Files of journals and segments.
    pub(super) fn files_of_the_log(&self) -> impl Iterator<Item = Node> {
        self.names.iter().filter(|(name, _)| name.extension().is_some_and(|end| end == "avro")).map(|(_, node)| *node)
    }

    pub(super) fn is_of_the_log(&self, node: Node) -> bool {
        self.files_of_the_log().any(|other| other == node)
    }

    /// Whether it is a file of a journal.
    pub(super) fn is_of_a_journal(&self, node: Node) -> bool {
        self.names.iter().any(|(name, other)| *other == node && name.starts_with(JOURNAL))
    }

    pub(super) fn used(&self) -> u64 {
        self.files.values().map(Content::len).sum()
    }

    /// Drops files that no name leads to any more, nor can again after a cut.
    pub(super) fn forget_nameless(&mut self) {
        let changed = self.changes.iter().map(|change| match change {
            Naming::Made(_, node) | Naming::Removed(_, node) | Naming::Renamed(_, _, node) => node,
        });
        let named: BTreeSet<Node> = self.names.values().chain(self.durable.values()).chain(changed).copied().collect();
        self.files.retain(|node, _| named.contains(node));
    }

    pub(super) fn cut(&mut self, random: &mut SmallRng) {
        let leaves = Leaves::draw(random);
        if random.random_bool(0.5) {
            // A journalling file system keeps the order of what happened to names.
            let kept = match leaves {
                Leaves::Nothing => 0,
                Leaves::Everything | Leaves::Heads => self.changes.len(),
                Leaves::Some(_) => random.random_range(0..=self.changes.len()),
            };
            self.changes.drain(..).take(kept).for_each(|change| change.apply(&mut self.durable));
        } else {
            let changes = std::mem::take(&mut self.changes);
            changes.iter().filter(|_| leaves.keeps(random)).for_each(|change| change.apply(&mut self.durable));
        }
        self.names = self.durable.clone();
        let parents = self.names.keys().flat_map(|name| name.ancestors().skip(1));
        self.folders.extend(parents.map(Path::to_owned));
        self.forget_nameless();
        for file in self.files.values_mut() {
            file.cut(leaves, random);
        }
    }
}
