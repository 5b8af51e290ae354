//! What goes wrong with a disk, and what becomes of a write or a sync that it happens to.
//!
//! A write that goes astray is acknowledged. Both files are noted as harmed: the one that does not hold what was written to
//! it, and the one that holds it instead. Until a frame of a journal on this disk was written where it belongs, nothing may
//! prove what was there.

use std::io;
use std::path::Path;

use super::State;
use super::names::Node;
use crate::format::limits::PAGE;
use crate::sim::count::Event;
use crate::sim::file::Content;

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
    /// This many writes of journals and segments go where they should, the next one astray.
    pub(crate) misdirect: Option<(u64, Astray)>,
    /// This many calls that change something succeed, the next one fails.
    pub(crate) effects_left: Option<u64>,
    /// This many bytes can still be written, over old ones too.
    pub(crate) bytes_left: Option<u64>,
    /// Nothing is mounted there: the folder is empty and not the same.
    pub(crate) unmounted: bool,
    /// Files cannot be created.
    pub(crate) read_only: bool,
    /// Locks hold nobody back.
    pub(crate) no_locks: bool,
    /// Syncs do nothing and say that they did.
    pub(crate) lying_syncs: bool,
}

/// Where a write goes that does not go where it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Astray {
    /// So many bytes further in the same file.
    Further(u64),
    /// To the same offset of another file of journals and segments: the n-th, as if they stood in a circle.
    Another(usize),
}

/// Where a write takes place, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) node: Node,
    pub(super) at: u64,
    pub(super) fits: u64,
}

/// How a sync ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// It says that it is done.
    Lied,
    Failed,
    /// It says that it failed, and everything is on the device.
    Landed,
}

impl State {
    /// Where a write goes astray that is to go to `node`, if it is time for that.
    fn astray(&mut self, root: &Path, node: Node, offset: u64) -> Option<(Node, u64)> {
        let disk = self.disk(root);
        if !disk.is_of_the_log(node) {
            return None;
        }
        let (left, astray) = disk.faults.misdirect?;
        disk.faults.misdirect = left.checked_sub(1).map(|left| (left, astray));
        if left > 0 {
            return None;
        }
        let others: Vec<Node> = disk.files_of_the_log().filter(|other| *other != node).collect();
        let (victim, at) = match astray {
            Astray::Another(n) if !others.is_empty() => (others[n % others.len()], offset),
            Astray::Another(_) => (node, offset + PAGE as u64),
            Astray::Further(further) => (node, offset + further),
        };
        for node in [node, victim] {
            if let Some(file) = disk.files.get_mut(&node) {
                file.harmed = true;
            }
        }
        disk.unproven = true;
        self.counts.add(Event::Misdirected);
        Some((victim, at))
    }

    /// Where a write takes place, and how much of it.
    pub(super) fn admit(&mut self, root: &Path, node: Node, offset: u64, len: u64) -> io::Result<Admitted> {
        let (node, at) = self.astray(root, node, offset).unwrap_or((node, offset));
        let disk = self.disk(root);
        let (used, capacity) = (disk.used(), disk.capacity);
        let here = disk.files.get(&node).map_or(0, Content::len);
        let faults = &mut disk.faults;
        let mut fits = len;
        let mut event = None;
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
            self.counts.add(Event::Full);
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            fits = room;
        }
        if let Some(left) = &mut self.disk(root).faults.bytes_left {
            *left -= fits;
        }
        if let Some(event) = event {
            self.counts.add(event);
        }
        Ok(Admitted { node, at, fits })
    }

    /// How a sync ends now.
    pub(super) fn verdict(&mut self, root: &Path) -> Verdict {
        let faults = &mut self.disk(root).faults;
        let is_due = |left: &mut Option<u64>| match left {
            Some(0) => left.take().is_some(),
            Some(more) => {
                *more -= 1;
                false
            }
            None => false,
        };
        if is_due(&mut faults.syncs_until_landed) {
            self.counts.add(Event::LandedSync);
            return Verdict::Landed;
        }
        if is_due(&mut faults.syncs_left) {
            self.counts.add(Event::FailedSync);
            return Verdict::Failed;
        }
        if faults.lying_syncs { Verdict::Lied } else { Verdict::Done }
    }
}
