//! Disks that forget, fail, fill up, rot and stall, on a machine that can lose its power at any effect.
//!
//! 1. A sync of a file says nothing of other files, nor of names. A name is created, renamed or removed for certain only
//!    after a sync of its folder; until then each change of a name is there or not after a cut.
//! 2. Every effect is counted over all disks of the machine: a run can be repeated with the power failing at its k-th.
//! 3. Handles of a process that is gone do nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::count::{Counts, Event};
use super::file::{Content, Leaves};
use crate::directory::disk::{Disk, DiskFile, Entry, Lock, LockGuard, SharedDisk, Space};

/// Identity of a file below its names.
type Node = u64;

/// What goes wrong with a disk, and when: counts are of calls from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// Every call fails.
    pub(crate) dead: bool,
    /// This many syncs of files succeed, the next one fails: what it covered is partly on the device, and readable.
    pub(crate) syncs_left: Option<u64>,
    /// This many syncs of files succeed, then one fails although everything is on the device.
    pub(crate) syncs_until_landed: Option<u64>,
    /// This many writes are whole, the next one is cut in the middle.
    pub(crate) whole_writes_left: Option<u64>,
    /// This many writes go where they should, the next one so many bytes further.
    pub(crate) misdirect: Option<(u64, u64)>,
    /// This many calls that change something succeed, the next one fails.
    pub(crate) effects_left: Option<u64>,
    /// This many bytes can still be written, over old ones too.
    pub(crate) bytes_left: Option<u64>,
    /// Nothing is mounted there: the folder is empty and not the same.
    pub(crate) unmounted: bool,
    /// Files cannot be created.
    pub(crate) read_only: bool,
    /// Syncs do nothing and say that they did.
    pub(crate) lying_syncs: bool,
}

#[derive(Clone, Debug)]
enum Naming {
    Made(PathBuf, Node),
    Removed(PathBuf, Node),
    Renamed(PathBuf, PathBuf, Node),
}

impl Naming {
    fn is_in(&self, folder: &Path) -> bool {
        let (Self::Made(name, _) | Self::Removed(name, _) | Self::Renamed(_, name, _)) = self;
        name.parent() == Some(folder)
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
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
struct DiskState {
    number: u64,
    capacity: u64,
    faults: Faults,
    folders: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Node>,
    /// Names as of the last syncs of their folders.
    durable: BTreeMap<PathBuf, Node>,
    changes: Vec<Naming>,
    files: BTreeMap<Node, Content>,
    next_node: Node,
    locked_by: Option<u64>,
}

impl DiskState {
    fn used(&self) -> u64 {
        self.files.values().map(Content::len).sum()
    }

    /// Drops files that no name leads to any more, nor can again after a cut.
    fn forget_nameless(&mut self) {
        let changed = self.changes.iter().map(|change| match change {
            Naming::Made(_, node) | Naming::Removed(_, node) | Naming::Renamed(_, _, node) => node,
        });
        let named: BTreeSet<Node> = self.names.values().chain(self.durable.values()).chain(changed).copied().collect();
        self.files.retain(|node, _| named.contains(node));
    }

    fn cut(&mut self, random: &mut SmallRng) {
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
        self.disks.entry(root.to_owned()).or_insert_with(|| DiskState {
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
        })
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
        let mut state = self.0.lock();
        let State { random, disks, .. } = &mut *state;
        disks.values_mut().for_each(|disk| disk.cut(random));
        state.counts.add(Event::Cut);
        state.restart();
    }

    /// The process is killed: the page cache stays.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock();
        state.disks.values_mut().for_each(DiskState::forget_nameless);
        state.counts.add(Event::Kill);
        state.restart();
    }

    pub(crate) fn break_with(&self, root: &Path, faults: Faults) {
        self.0.lock().disk(root).faults = faults;
    }

    pub(crate) fn heal(&self) {
        for disk in self.0.lock().disks.values_mut() {
            disk.faults = Faults::default();
            disk.capacity = 1 << 40;
        }
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

    pub(crate) fn note(&self, event: Event) {
        self.0.lock().counts.add(event);
    }

    /// Files below a root that are there now, with their sizes.
    pub(crate) fn files(&self, root: &Path) -> Vec<(PathBuf, u64)> {
        let mut state = self.0.lock();
        let disk = state.disk(root);
        disk.names.iter().map(|(name, node)| (name.clone(), disk.files.get(node).map_or(0, Content::len))).collect()
    }

    /// A bit of a file flips.
    pub(crate) fn flip(&self, root: &Path, name: &Path, offset: u64, bit: u8) {
        let mut state = self.0.lock();
        let disk = state.disk(root);
        let node = disk.names.get(name).copied().unwrap_or_default();
        if let Some(file) = disk.files.get_mut(&node) {
            file.flip(offset as usize, bit);
        }
        state.counts.add(Event::Rot);
    }
}

impl State {
    fn restart(&mut self) {
        self.process += 1;
        self.off = false;
        self.cut_at = None;
        for disk in self.disks.values_mut() {
            disk.locked_by = None;
        }
    }
}

/// One disk of a machine, as one process sees it.
#[derive(Clone, Debug)]
struct SimDisk {
    machine: Machine,
    root: PathBuf,
    process: u64,
}

/// Whether an effect takes place, or the power goes while it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Power {
    Stays,
    Goes,
}

impl SimDisk {
    fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.machine.0.lock();
        if state.off || state.process != self.process {
            return Err(eio());
        }
        if state.disk(&self.root).faults.dead {
            state.counts.add(Event::DeadCall);
            return Err(eio());
        }
        Ok(state)
    }

    /// Enters for a call by path.
    fn enter_by_name(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.enter()?;
        if state.disk(&self.root).faults.unmounted {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(state)
    }

    fn effect(&self, state: &mut State) -> io::Result<Power> {
        state.effects += 1;
        if state.cut_at == Some(state.effects) {
            state.off = true;
            return Ok(Power::Goes);
        }
        if let Some(left) = &mut state.disk(&self.root).faults.effects_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    state.counts.add(Event::FailedCall);
                    return Err(eio());
                }
            }
        }
        Ok(Power::Stays)
    }

    fn open_node(&self, path: &Path, to_read: bool) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.enter_by_name()?;
        let node = *state.disk(&self.root).names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), node, to_read }))
    }

    fn refuse_read_only(&self, state: &mut State) -> io::Result<()> {
        if state.disk(&self.root).faults.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }
}

/// The outcome of an effect that took place.
fn outcome(power: Power) -> io::Result<()> {
    if power == Power::Goes { Err(eio()) } else { Ok(()) }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: Node,
    /// It was opened for reading.
    to_read: bool,
}

impl SimFile {
    /// How much of a write takes place, and where.
    fn admit(state: &mut State, root: &Path, node: Node, offset: u64, len: u64) -> io::Result<(u64, u64)> {
        let disk = state.disk(root);
        let (used, capacity) = (disk.used(), disk.capacity);
        let here = disk.files.get(&node).map_or(0, Content::len);
        let faults = &mut disk.faults;
        let (mut fits, mut at) = (len, offset);
        let mut event = None;
        if let Some((left, further)) = faults.misdirect {
            faults.misdirect = left.checked_sub(1).map(|left| (left, further));
            if left == 0 {
                at += further;
                event = Some(Event::Misdirected);
            }
        }
        match faults.whole_writes_left {
            Some(0) => {
                fits /= 2;
                faults.whole_writes_left = None;
                event = Some(Event::ShortWrite);
            }
            Some(left) => faults.whole_writes_left = Some(left - 1),
            None => {}
        }
        let room = here.saturating_sub(at).saturating_add(capacity.saturating_sub(used));
        let room = room.min(faults.bytes_left.unwrap_or(u64::MAX));
        if fits > room {
            state.counts.add(Event::Full);
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            fits = room;
        }
        if let Some(left) = &mut state.disk(root).faults.bytes_left {
            *left -= fits;
        }
        if let Some(event) = event {
            state.counts.add(event);
        }
        Ok((at, fits))
    }
}

/// How a sync ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Done,
    /// It says that it is done.
    Lied,
    Failed,
    /// It says that it failed, and everything is on the device.
    Landed,
}

impl SimFile {
    fn verdict(state: &mut State, root: &Path) -> Verdict {
        let faults = &mut state.disk(root).faults;
        let is_due = |left: &mut Option<u64>| match left {
            Some(0) => left.take().is_some(),
            Some(more) => {
                *more -= 1;
                false
            }
            None => false,
        };
        if is_due(&mut faults.syncs_until_landed) {
            state.counts.add(Event::LandedSync);
            return Verdict::Landed;
        }
        if is_due(&mut faults.syncs_left) {
            state.counts.add(Event::FailedSync);
            return Verdict::Failed;
        }
        if faults.lying_syncs { Verdict::Lied } else { Verdict::Done }
    }
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.enter()?;
        let power = self.disk.effect(&mut state)?;
        let (at, fits) = Self::admit(&mut state, &self.disk.root, self.node, offset, bytes.len() as u64)?;
        if let Some(file) = state.disk(&self.disk.root).files.get_mut(&self.node) {
            file.write(at as usize, &bytes[..fits as usize]);
        }
        outcome(power).map(|()| fits as usize)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.to_read && mutant!(ReadUnsynced) {
            return Ok(());
        }
        let mut state = self.disk.enter()?;
        let power = self.disk.effect(&mut state)?;
        if power == Power::Goes {
            // It had begun: anything may be there.
            return Err(eio());
        }
        let verdict = Self::verdict(&mut state, &self.disk.root);
        let State { random, disks, .. } = &mut *state;
        let Some(disk) = disks.get_mut(&self.disk.root) else { return Err(eio()) };
        let Some(file) = disk.files.get_mut(&self.node) else { return Err(eio()) };
        match verdict {
            Verdict::Done => file.sync(),
            Verdict::Lied => {}
            Verdict::Landed => {
                file.sync();
                return Err(eio());
            }
            Verdict::Failed => {
                file.fail_sync(Leaves::draw(random), random);
                return Err(eio());
            }
        }
        Ok(())
    }

    /// Makes durable what it writes, and nothing else of the file.
    fn write_sync_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.enter()?;
        let power = self.disk.effect(&mut state)?;
        let (at, fits) = Self::admit(&mut state, &self.disk.root, self.node, offset, bytes.len() as u64)?;
        let (at, part, whole) = (at as usize, &bytes[..fits as usize], fits as usize == bytes.len());
        let answer = if mutant!(ShortWriteTaken) { bytes.len() } else { part.len() };
        let bytes = part;
        let synced = if at == 0 { !mutant!(HeaderNotSynced) } else { !mutant!(NoSync) };
        if mutant!(AckBeforeSync)
            && let Some(file) = state.disk(&self.disk.root).files.get_mut(&self.node)
        {
            file.sync();
        }
        if power == Power::Goes || !whole {
            if let Some(file) = state.disk(&self.disk.root).files.get_mut(&self.node) {
                file.write(at, bytes);
            }
            return outcome(power).map(|()| answer);
        }
        let verdict = Self::verdict(&mut state, &self.disk.root);
        let State { random, disks, .. } = &mut *state;
        let Some(disk) = disks.get_mut(&self.disk.root) else { return Err(eio()) };
        let Some(file) = disk.files.get_mut(&self.node) else { return Err(eio()) };
        match verdict {
            Verdict::Done if synced && !mutant!(AckBeforeSync) => file.write_sync(at, bytes),
            Verdict::Done | Verdict::Lied => file.write(at, bytes),
            Verdict::Landed => {
                file.write_sync(at, bytes);
                return Err(eio());
            }
            Verdict::Failed => {
                file.write(at, bytes);
                file.fail_sync(Leaves::draw(random), random);
                if !mutant!(FailedSyncRetried) {
                    return Err(eio());
                }
            }
        }
        Ok(answer)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.enter()?;
        let Some(file) = state.disk(&self.disk.root).files.get(&self.node) else { return Err(eio()) };
        let rest = file.visible().get(offset as usize..).unwrap_or_default();
        let n = rest.len().min(bytes.len());
        bytes[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.enter()?;
        let power = self.disk.effect(&mut state)?;
        if let Some(file) = state.disk(&self.disk.root).files.get_mut(&self.node) {
            file.set_len(len as usize);
        }
        outcome(power)
    }

    fn drop_cache(&self) -> io::Result<()> {
        if mutant!(ReadFromCache) {
            return Ok(());
        }
        if let Some(file) = self.disk.enter()?.disk(&self.disk.root).files.get_mut(&self.node) {
            file.drop_cache();
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.enter()?.disk(&self.disk.root).files.get(&self.node).map_or(0, Content::len))
    }
}

#[derive(Debug)]
struct SimLock(SimDisk);

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.0.machine.0.lock();
        let disk = state.disk(&self.0.root);
        if disk.locked_by == Some(self.0.process) {
            disk.locked_by = None;
        }
    }
}

impl Disk for SimDisk {
    fn display(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn exists(&self) -> bool {
        self.enter_by_name().is_ok_and(|mut state| !state.disk(&self.root).folders.is_empty())
    }

    /// Durable at once: the contract asks every implementation to sync the parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter_by_name()?;
        self.refuse_read_only(&mut state)?;
        if self.effect(&mut state)? == Power::Goes {
            return Err(eio());
        }
        let folders = &mut state.disk(&self.root).folders;
        folders.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn create_excl(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.enter_by_name()?;
        self.refuse_read_only(&mut state)?;
        if state.disk(&self.root).names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|folder| state.disk(&self.root).folders.contains(folder)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let power = self.effect(&mut state)?;
        let disk = state.disk(&self.root);
        let node = disk.next_node;
        disk.next_node += 1;
        disk.names.insert(path.to_owned(), node);
        disk.files.insert(node, Content::default());
        disk.changes.push(Naming::Made(path.to_owned(), node));
        outcome(power)?;
        Ok(Box::new(SimFile { disk: self.clone(), node, to_read: false }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_node(path, true)
    }

    fn open_slot(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_node(path, false)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open_node(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter_by_name()?;
        self.refuse_read_only(&mut state)?;
        let disk = state.disk(&self.root);
        if disk.names.keys().any(|name| name.starts_with(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let power = self.effect(&mut state)?;
        let disk = state.disk(&self.root);
        // Where a cut brings one of its names back it brings the folder back too.
        if !disk.folders.remove(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        outcome(power)
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.enter_by_name()?;
        self.refuse_read_only(&mut state)?;
        if state.disk(&self.root).names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let power = self.effect(&mut state)?;
        let disk = state.disk(&self.root);
        let node = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), node);
        disk.changes.push(Naming::Renamed(from.to_owned(), to.to_owned(), node));
        outcome(power)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter_by_name()?;
        self.refuse_read_only(&mut state)?;
        let power = self.effect(&mut state)?;
        let disk = state.disk(&self.root);
        let node = disk.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        disk.changes.push(Naming::Removed(path.to_owned(), node));
        outcome(power)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.enter_by_name()?;
        let power = self.effect(&mut state)?;
        let disk = state.disk(&self.root);
        if power == Power::Goes {
            return Err(eio());
        }
        if !mutant!(FolderNotSynced) {
            let (inside, others) = std::mem::take(&mut disk.changes).into_iter().partition(|c: &Naming| c.is_in(path));
            disk.changes = others;
            inside.iter().for_each(|change| change.apply(&mut disk.durable));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.enter_by_name()?;
        let disk = state.disk(&self.root);
        if !disk.folders.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = disk.names.iter().filter(|(name, _)| name.parent() == Some(path));
        let entry = |(name, node): (&PathBuf, &Node)| {
            let len = disk.files.get(node).map_or(0, Content::len);
            Some(Entry { name: name.file_name()?.to_str()?.to_owned(), len })
        };
        Ok(inside.filter_map(entry).collect())
    }

    fn space(&self) -> io::Result<Space> {
        let mut state = self.enter()?;
        let disk = state.disk(&self.root);
        Ok(Space { capacity: disk.capacity, free: disk.capacity.saturating_sub(disk.used()) })
    }

    fn device_inode(&self) -> io::Result<(u64, u64)> {
        let mut state = self.enter()?;
        let disk = state.disk(&self.root);
        Ok((disk.number, 2 + u64::from(disk.faults.unmounted)))
    }

    fn lock(&self, _path: &Path) -> io::Result<Lock> {
        let mut state = self.enter_by_name()?;
        let process = self.process;
        let disk = state.disk(&self.root);
        if disk.locked_by.is_some() {
            return Ok(Lock::Busy(Some(1)));
        }
        disk.locked_by = Some(process);
        Ok(Lock::Held(Box::new(SimLock(self.clone()))))
    }
}
