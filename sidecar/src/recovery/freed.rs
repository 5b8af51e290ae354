//! Which files of a journal nothing needs any more, as what counts says.
//!
//! Each frame's head says how far its stream is freed, and which older ones are. To read a journal the highest word counts,
//! also that of a frame that is torn or damaged: its writer may have removed files by it. To remove files by it is another
//! thing: such a frame may be gone when the next start looks, and what it freed would be missed.

use crate::format::scan::SlotScan;
use crate::format::stream::{ClosedAt, Verdict};
use crate::types::Epoch;

/// What the frames that count say is freed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    /// Frames of their stream up to this one.
    floor: u64,
    /// Streams before this one.
    pub(super) oldest: (Epoch, u32),
}

impl Freed {
    pub(super) fn of(scans: &[SlotScan], verdict: &Verdict) -> Self {
        if mutant!(FreedByATornFrame) {
            return Self { floor: verdict.floor, oldest: verdict.oldest };
        }
        let heads = || verdict.accepted.iter().map(|at| &scans[at.scan].places[at.place].head.header);
        Self {
            floor: heads().map(|header| header.floor).max().unwrap_or(0),
            oldest: heads().map(|header| (header.oldest, header.oldest_session)).max().unwrap_or_default(),
        }
    }

    /// For each file of a stream whether a frame in it counts, or could tell something. Of a damaged stream every file is.
    pub(super) fn leaves(self, scans: &[SlotScan], verdict: &Verdict, close: Option<ClosedAt>) -> Vec<bool> {
        let whole = verdict.damage.is_empty() && scans.iter().all(|scan| scan.unreadable.is_empty());
        let over = |seq: u64| seq <= self.floor || close.is_some_and(|close| seq > close.frame_seq);
        let needed = |scan: &SlotScan| !scan.places.iter().all(|place| over(place.head.header.frame_seq));
        let blank = |scan: &SlotScan| scan.places.is_empty();
        let last = scans.iter().filter(|scan| !blank(scan)).map(|scan| scan.file).max();
        // A file without frames is a spare where it comes after the last one; before that it is a riddle, and stays.
        scans.iter().map(|scan| !whole || needed(scan) || (blank(scan) && Some(scan.file) < last)).collect()
    }
}
