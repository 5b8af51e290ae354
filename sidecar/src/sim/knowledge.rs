//! What the directories of a process know when it ends: what another one's loss cannot take with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use walstorage_crds::url::WalUrl;

use super::life::Life;
use crate::commit::journal::{Journal, Opening};
use crate::types::Incarnation;

/// What is known when a process ends.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    /// Directories in use.
    pub(super) in_use: BTreeSet<WalUrl>,
    /// The one of them that can be written, where there is one only; all, where none can.
    pub(super) alone: BTreeSet<PathBuf>,
    /// First and last LSN of what is in segments, where the directory of the segment has heard of it.
    pub(super) flushed: Vec<(Incarnation, WalUrl, u64, u64)>,
}

impl Life<'_> {
    pub(super) fn knowledge(&self) -> Knowledge {
        let in_use = self.log.journals.iter().filter(|journal| journal.in_use);
        let in_use = in_use.map(|journal| journal.url.clone()).collect();
        Knowledge { in_use, alone: self.alone(), flushed: self.flushed() }
    }

    fn alone(&self) -> BTreeSet<PathBuf> {
        let has_heard = |journal: &Journal| journal.is_open() && journal.opening == Opening::Done;
        let in_use: Vec<usize> = (0..self.directories()).filter(|dir| self.log.journals[*dir].in_use).collect();
        let open: Vec<usize> = in_use.iter().copied().filter(|dir| has_heard(&self.log.journals[*dir])).collect();
        let alone = match open.len() {
            0 => in_use,
            1 => open,
            _ => Vec::new(),
        };
        alone.into_iter().map(|dir| self.root(dir).to_owned()).collect()
    }

    fn flushed(&self) -> Vec<(Incarnation, WalUrl, u64, u64)> {
        let mut flushed = Vec::new();
        for collection in self.log.iter().filter(|collection| !collection.deleted) {
            for segment in &collection.segments {
                let journal = &self.log.journals[segment.dir];
                let has_heard = journal.opening == Opening::Done && journal.since_checkpoint < u64::MAX;
                if journal.is_open() && journal.in_use && has_heard {
                    flushed.push((collection.incarnation, journal.url.clone(), segment.first.0, segment.last.0));
                }
            }
        }
        flushed
    }
}
