//! What goes wrong with a disk, and what becomes of a write or a sync that it happens to.

use std::io;
use std::path::Path;

use super::State;
use super::names::Node;
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
    /// Locks hold nobody back.
    pub(crate) no_locks: bool,
    /// Syncs do nothing and say that they did.
    pub(crate) lying_syncs: bool,
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
    /// Where a write takes place, and how much of it.
    pub(super) fn admit(&mut self, root: &Path, node: Node, offset: u64, len: u64) -> io::Result<(u64, u64)> {
        let disk = self.disk(root);
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
        Ok((at, fits))
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
