//! The calls of one process to an open file.

use std::io;

use super::calls::{Power, SimDisk, outcome};
use super::faults::{Admitted, Verdict};
use super::names::Node;
use super::{State, eio};
use crate::directory::disk::DiskFile;
use crate::sim::file::{Content, Leaves};

/// Within so many bytes a frame is told from zeros.
const HEAD: usize = 64;

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) node: Node,
    /// It was opened for reading.
    pub(super) to_read: bool,
}

impl DiskFile for SimFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.enter()?;
        let power = self.disk.effect(&mut state)?;
        let Admitted { node, at, fits } = state.admit(&self.disk.root, self.node, offset, bytes.len() as u64)?;
        if let Some(file) = state.disk(&self.disk.root).files.get_mut(&node) {
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
        let verdict = state.verdict(&self.disk.root);
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
        let Admitted { node, at, fits } = state.admit(&self.disk.root, self.node, offset, bytes.len() as u64)?;
        let (at, part, whole) = (at as usize, &bytes[..fits as usize], fits as usize == bytes.len());
        let answer = if mutant!(ShortWriteTaken) { bytes.len() } else { part.len() };
        let bytes = part;
        let synced = if at == 0 { !mutant!(HeaderNotSynced) } else { !mutant!(NoSync) };
        if mutant!(AckBeforeSync)
            && let Some(file) = state.disk(&self.disk.root).files.get_mut(&node)
        {
            file.sync();
        }
        if power == Power::Goes || !whole {
            if let Some(file) = state.disk(&self.disk.root).files.get_mut(&node) {
                file.write(at, bytes);
            }
            return outcome(power).map(|()| answer);
        }
        let verdict = state.verdict(&self.disk.root);
        let State { random, disks, .. } = &mut *state;
        let Some(disk) = disks.get_mut(&self.disk.root) else { return Err(eio()) };
        let in_place = (node, at as u64) == (self.node, offset);
        let is_a_frame = at > 0 && bytes.iter().take(HEAD).any(|byte| *byte != 0) && disk.is_of_a_journal(node);
        disk.unproven &= !(in_place && is_a_frame && verdict == Verdict::Done);
        let Some(file) = disk.files.get_mut(&node) else { return Err(eio()) };
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
