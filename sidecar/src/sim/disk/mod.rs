//! Disks that forget, fail, fill up, rot and stall, on a machine that can lose its power at any effect.
//!
//! 1. A sync of a file says nothing of other files, nor of names. A name is created, renamed or removed for certain only
//!    after a sync of its folder; until then each change of a name is there or not after a cut.
//! 2. Every effect is counted over all disks of the machine: a run can be repeated with the power failing at its k-th.
//! 3. Handles of a process that is gone do nothing.

mod calls;
mod faults;
mod handle;
mod names;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use self::calls::SimDisk;
pub(crate) use self::faults::{Astray, Faults};
use self::names::DiskState;
use super::count::{Counts, Event};
use super::file::Content;
use super::trace::trace;
use crate::directory::disk::SharedDisk;

#[derive(Clone, Debug)]
struct State {
    random: SmallRng,
    disks: BTreeMap<PathBuf, DiskState>,
    /// Effects so far.
    effects: u64,
    /// The power goes with this effect.
    cut_at: Option<u64>,
    off: bool,
    /// Counts processes.
    process: u64,
    counts: Counts,
}

impl State {
    fn disk(&mut self, root: &Path) -> &mut DiskState {
        let number = self.disks.len() as u64;
        self.disks.entry(root.to_owned()).or_insert_with(|| DiskState::new(number))
    }

    fn restart(&mut self) {
        self.process += 1;
        self.off = false;
        self.cut_at = None;
        for disk in self.disks.values_mut() {
            disk.locked_by = None;
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// A machine with disks, by path; clones are the same machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine(Arc<Mutex<State>>);

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: SmallRng::seed_from_u64(seed),
            disks: BTreeMap::new(),
            effects: 0,
            cut_at: None,
            off: false,
            process: 0,
            counts: Counts::default(),
        })))
    }

    /// The disk at `root` for the process that runs now.
    pub(crate) fn disk(&self, root: &Path) -> SharedDisk {
        let mut state = self.0.lock();
        state.disk(root);
        Arc::new(SimDisk { machine: self.clone(), root: root.to_owned(), process: state.process })
    }

    /// A machine of its own with the same disks: what happens to one does not happen to the other.
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    pub(crate) fn effects(&self) -> u64 {
        self.0.lock().effects
    }

    /// The power goes with the effect of this number.
    pub(crate) fn cut_at(&self, effect: Option<u64>) {
        self.0.lock().cut_at = effect;
    }

    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// The power goes and comes back: every disk holds what a cut leaves.
    pub(crate) fn cut(&self) {
        trace(|| "the power goes".to_owned());
        let mut state = self.0.lock();
        let State { random, disks, .. } = &mut *state;
        disks.values_mut().for_each(|disk| disk.cut(random));
        state.counts.add(Event::Cut);
        state.restart();
    }

    /// The process is killed: the page cache stays.
    pub(crate) fn kill(&self) {
        trace(|| "the process is killed".to_owned());
        let mut state = self.0.lock();
        state.disks.values_mut().for_each(DiskState::forget_nameless);
        state.counts.add(Event::Kill);
        state.restart();
    }

    pub(crate) fn break_with(&self, root: &Path, faults: Faults) {
        trace(|| format!("{}: {faults:?}", root.display()));
        self.0.lock().disk(root).faults = faults;
    }

    pub(crate) fn heal(&self) {
        for disk in self.0.lock().disks.values_mut() {
            (disk.faults, disk.capacity) = (Faults::default(), 1 << 40);
        }
    }

    /// A disk works as well as a new one does, and keeps what is on it.
    pub(crate) fn repair(&self, root: &Path) {
        trace(|| format!("{}: works again", root.display()));
        let mut state = self.0.lock();
        let disk = state.disk(root);
        (disk.faults, disk.capacity) = (Faults::default(), 1 << 40);
    }

    /// There is a new disk at the place of another.
    pub(crate) fn wipe(&self, root: &Path) {
        trace(|| format!("{}: is a new disk", root.display()));
        let mut state = self.0.lock();
        let number = state.disk(root).number;
        state.disks.insert(root.to_owned(), DiskState::new(number));
    }

    /// Gives a disk a size, at least what is on it.
    pub(crate) fn set_capacity(&self, root: &Path, capacity: u64) {
        let mut state = self.0.lock();
        let disk = state.disk(root);
        disk.capacity = capacity.max(disk.used());
    }

    pub(crate) fn used(&self, root: &Path) -> u64 {
        self.0.lock().disk(root).used()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().counts.clone()
    }

    /// How often it happened.
    pub(crate) fn count(&self, event: Event) -> u64 {
        self.0.lock().counts.of(event)
    }

    pub(crate) fn note(&self, event: Event) {
        trace(|| format!("{event:?}"));
        self.0.lock().counts.add(event);
    }

    /// Files below a root that are there now, with their sizes.
    pub(crate) fn files(&self, root: &Path) -> Vec<(PathBuf, u64)> {
        let mut state = self.0.lock();
        let disk = state.disk(root);
        disk.names.iter().map(|(name, node)| (name.clone(), disk.files.get(node).map_or(0, Content::len))).collect()
    }

    /// Whether a file that is there does not hold what was written to it. Of a name that is not there: one in its folder.
    pub(crate) fn is_harmed(&self, root: &Path, name: &Path) -> bool {
        let mut state = self.0.lock();
        let disk = state.disk(root);
        let harmed = |node| disk.files.get(node).is_some_and(|file: &Content| file.harmed);
        match disk.names.get(name) {
            Some(node) => harmed(node),
            None => disk.names.iter().any(|(other, node)| other.parent() == name.parent() && harmed(node)),
        }
    }

    /// Whether a write went astray, and nothing was written since that proves what was there.
    pub(crate) fn is_unproven(&self) -> bool {
        self.0.lock().disks.values().any(|disk| disk.unproven)
    }

    /// A bit of a file flips.
    pub(crate) fn flip(&self, root: &Path, name: &Path, offset: u64, bit: u8) {
        trace(|| format!("{}: bit {bit} at {offset} of {} flips", root.display(), name.display()));
        let mut state = self.0.lock();
        let disk = state.disk(root);
        let node = disk.names.get(name).copied().unwrap_or_default();
        if let Some(file) = disk.files.get_mut(&node) {
            file.flip(offset as usize, bit);
        }
        state.counts.add(Event::Rot);
    }
}
