//! The calls of one process to a disk, but for those to open files.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::MutexGuard;

use super::handle::SimFile;
use super::names::{Naming, Node};
use super::{Machine, State, eio};
use crate::directory::disk::{Disk, DiskFile, Entry, Lock, LockGuard, Space};
use crate::sim::count::Event;
use crate::sim::file::Content;

/// One disk of a machine, as one process sees it.
#[derive(Clone, Debug)]
pub(super) struct SimDisk {
    pub(super) machine: Machine,
    pub(super) root: PathBuf,
    pub(super) process: u64,
}

/// Whether an effect takes place, or the power goes while it does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    Stays,
    Goes,
}

impl SimDisk {
    pub(super) fn enter(&self) -> io::Result<MutexGuard<'_, State>> {
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

    pub(super) fn effect(&self, state: &mut State) -> io::Result<Power> {
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
pub(super) fn outcome(power: Power) -> io::Result<()> {
    if power == Power::Goes { Err(eio()) } else { Ok(()) }
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
        if disk.locked_by.is_some() && !disk.faults.no_locks {
            return Ok(Lock::Busy(Some(1)));
        }
        disk.locked_by = Some(process);
        Ok(Lock::Held(Box::new(SimLock(self.clone()))))
    }
}
