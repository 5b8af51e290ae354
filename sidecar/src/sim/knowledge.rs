//! What the directories of a process know when it ends: what another one's loss cannot take with it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use walstorage_crds::url::WalUrl;

use super::life::Life;
use crate::commit::journal::{Journal, Opening};
use crate::types::Incarnation;

impl Life<'_> {
    /// The directory in use that can be written, where there is one only; all that are in use, where none can.
    pub(super) fn alone(&self) -> BTreeSet<PathBuf> {
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

    /// First and last LSN of what is in segments, where the directory of the segment has heard of it.
    pub(super) fn flushed(&self) -> Vec<(Incarnation, WalUrl, u64, u64)> {
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
