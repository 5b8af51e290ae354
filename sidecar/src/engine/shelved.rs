//! What a flush takes from journals of earlier processes. Each piece lies in an object of its own where the journal is a
//! bucket's, so several are asked for together.

use std::collections::VecDeque;

use crate::commit::flush_jobs::Piece;
use crate::commit::flushed::FlushFailure;
use crate::commit::shelf::JournalRead;
use crate::directory::disk::SharedDisk;
use crate::fencing::directory::READ_AHEAD;
use crate::recovery::shelf;
use crate::types::Lsn;

/// Pieces of one part of a flush.
#[derive(Default)]
pub(super) struct Shelved {
    /// Records that were read, and the LSNs of the first and the last.
    read: VecDeque<(Vec<u8>, Lsn, Lsn)>,
    /// The piece behind those.
    behind: Option<Piece>,
}

impl Shelved {
    /// The next piece, which begins at `from`: what `piece` answers, read where that lies in a journal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn next(
        &mut self,
        disks: &[SharedDisk],
        from: Lsn,
        mut piece: impl FnMut(Lsn) -> Piece,
    ) -> Result<Piece, FlushFailure> {
        if let Some((records, first, last)) = self.read.pop_front() {
            return Ok(Piece::Records(records, first, last));
        }
        let wanted = match self.behind.take().unwrap_or_else(|| piece(from)) {
            Piece::Journal(wanted) => *wanted,
            other => return Ok(other),
        };
        let gone = || FlushFailure::Device("a journal's directory is not here".into());
        let disk = disks.get(wanted.stretch.dir).ok_or_else(gone)?;
        let most = if disk.objects().is_some() { READ_AHEAD } else { 1 };
        let mut next = wanted.to.next();
        let mut together = vec![wanted];
        while together.len() < most && self.behind.is_none() {
            match piece(next) {
                Piece::Journal(wanted) => {
                    next = wanted.to.next();
                    together.push(*wanted);
                }
                other => self.behind = Some(other),
            }
            let fits = shelf::together(&together);
            self.behind =
                together.drain(fits..).next().map(|wanted| Piece::Journal(Box::new(wanted))).or(self.behind.take());
        }
        let unreadable = |why: String| FlushFailure::Device(format!("what is to be flushed: {why}"));
        let read = shelf::read_some(disk.as_ref(), &together).map_err(unreadable)?;
        let firsts = together.into_iter().map(|JournalRead { from, .. }| from);
        self.read = firsts.zip(read).map(|(first, (records, last))| (records, first, last)).collect();
        let next = self.read.pop_front();
        Ok(next.map_or(Piece::End, |(records, first, last)| Piece::Records(records, first, last)))
    }
}
