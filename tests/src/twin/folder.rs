//! Names of a folder, now and as of its last sync, and what a cut leaves of those between.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::files::Ino;

/// A change that is certain only after the folder was synced.
#[derive(Clone, Debug)]
enum Change {
    Add(OsString, Ino),
    Remove(OsString),
    /// Both names or neither: file systems with a journal rename in one step.
    Rename(OsString, OsString, Ino),
}

/// A folder's names.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    now: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
    pending: Vec<Change>,
}

fn apply(names: &mut BTreeMap<OsString, Ino>, change: &Change) {
    match change {
        Change::Add(name, ino) => drop(names.insert(name.clone(), *ino)),
        Change::Remove(name) => drop(names.remove(name)),
        Change::Rename(from, to, ino) => {
            names.remove(from);
            names.insert(to.clone(), *ino);
        }
    }
}

impl Folder {
    pub(super) fn get(&self, name: &std::ffi::OsStr) -> Option<Ino> {
        self.now.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&OsString, Ino)> {
        self.now.iter().map(|(name, ino)| (name, *ino))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    pub(super) fn add(&mut self, name: OsString, ino: Ino) {
        self.change(Change::Add(name, ino));
    }

    pub(super) fn remove(&mut self, name: OsString) {
        self.change(Change::Remove(name));
    }

    pub(super) fn rename(&mut self, from: OsString, to: OsString, ino: Ino) {
        self.change(Change::Rename(from, to, ino));
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.now);
    }

    /// After a cut: each change since the last sync is there or not.
    pub(super) fn cut(&mut self, mut survives: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if survives() {
                apply(&mut self.durable, &change);
            }
        }
        self.now.clone_from(&self.durable);
    }

    /// Every file that a name can still lead to, before or after a cut.
    pub(super) fn reaches(&self) -> impl Iterator<Item = Ino> {
        let changed = self.pending.iter().filter_map(|change| match change {
            Change::Add(_, ino) | Change::Rename(_, _, ino) => Some(*ino),
            Change::Remove(_) => None,
        });
        self.now.values().chain(self.durable.values()).copied().chain(changed)
    }
}
