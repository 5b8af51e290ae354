//! A collection's entries in order and once, whether journals or segments hold them: what an export writes.

use super::merge::Merged;
use super::place::{FileAt, Raw};
use super::segment::renamed;
use super::segments::{BlockAt, Winner};
use super::survey::EntryAt;
use crate::format::record;
use crate::format::segment::Block;

/// An entry or a block that could not be read again.
pub(super) struct Failed {
    /// Index into the files.
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) what: String,
}

/// Reads records again, one file open at a time.
pub(super) struct Pieces<'a> {
    files: &'a [FileAt],
    open: Option<(u32, Raw)>,
    pub(super) failed: Vec<Failed>,
}

impl<'a> Pieces<'a> {
    pub(super) const fn new(files: &'a [FileAt]) -> Self {
        Self { files, open: None, failed: Vec::new() }
    }

    /// Gives every entry's record to `write`; answers how many there were.
    pub(super) fn each(
        &mut self,
        collection: &Merged,
        mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<u64> {
        let mut journal = collection.entries.iter().peekable();
        let (mut next, mut count) = (0, 0);
        for block in &collection.blocks {
            if block.at.last.0 < next {
                continue;
            }
            let Some(stored) = self.stored(block) else { continue };
            let Some(plain) = self.whole(block, &stored) else { continue };
            for entry in plain.records() {
                let Ok(entry) = entry else { break };
                let lsn = entry.lsn.0;
                if lsn < next || !collection.wants(lsn) {
                    continue;
                }
                while let Some(before) = journal.next_if(|one| one.lsn < lsn) {
                    if before.lsn >= next
                        && let Some(bytes) = self.record(before)
                    {
                        write(&bytes)?;
                        count += 1;
                    }
                }
                let other =
                    collection.winners.get(&lsn).and_then(|winner| self.winner(*winner, block, collection, lsn));
                write(other.as_deref().unwrap_or(entry.raw()))?;
                count += 1;
                next = lsn + 1;
            }
        }
        for entry in journal.filter(|entry| entry.lsn >= next) {
            if let Some(bytes) = self.record(entry) {
                write(&bytes)?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// The copy that counts, where it is not the one of `block`.
    fn winner(&mut self, winner: Winner, block: &BlockAt, collection: &Merged, lsn: u64) -> Option<Vec<u8>> {
        match winner {
            Winner::Journal => {
                let at = collection.entries.binary_search_by_key(&lsn, |entry| entry.lsn).ok()?;
                self.record(&collection.entries[at])
            }
            Winner::Block(file, offset) if (file, offset) == (block.file, block.at.offset) => None,
            Winner::Block(file, offset) => {
                let is = |one: &&BlockAt| (one.file, one.at.offset) == (file, offset);
                let other = *collection.blocks.iter().find(is)?;
                let stored = self.stored(&other)?;
                let plain = self.whole(&other, &stored)?;
                let found = plain.records().flatten().find(|entry| entry.lsn.0 == lsn);
                found.map(|entry| entry.raw().to_vec())
            }
        }
    }

    fn fail(&mut self, file: u32, offset: u64, what: String) {
        self.failed.push(Failed { file, offset, what });
    }

    fn record(&mut self, entry: &EntryAt) -> Option<Vec<u8>> {
        let mut record = vec![0; entry.length as usize];
        let read = self.file(entry.file).and_then(|file| file.read_exact_at(&mut record, entry.offset));
        let decoded = record::decode(&record).map(|(record, _)| record);
        let same = decoded.is_ok_and(|record| record.crc == entry.crc && record.crc_holds());
        match read {
            Ok(()) if same => Some(record),
            Ok(()) => {
                self.fail(entry.file, entry.offset, "an entry changed while it was exported".into());
                None
            }
            Err(error) => {
                self.fail(entry.file, entry.offset, format!("an entry could not be read again: {error}"));
                None
            }
        }
    }

    fn stored(&mut self, block: &BlockAt) -> Option<Vec<u8>> {
        let mut stored = vec![0; block.at.length as usize];
        let opened = match self.file(block.file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.renamed(block),
            opened => opened,
        };
        let read = opened.and_then(|file| file.read_exact_at(&mut stored, block.at.offset));
        if let Err(error) = read {
            self.fail(block.file, block.at.offset, format!("a block could not be read again: {error}"));
            return None;
        }
        Some(stored)
    }

    fn whole<'b>(&mut self, block: &BlockAt, stored: &'b [u8]) -> Option<Block<'b>> {
        let parsed = Block::parse(stored, block.at.crc, block.codec, &block.marker);
        if let Err(error) = &parsed {
            self.fail(block.file, block.at.offset, format!("a block changed while it was exported: {error}"));
        }
        parsed.ok()
    }

    /// A segment that was sealed since it was found.
    fn renamed(&mut self, block: &BlockAt) -> std::io::Result<&mut Raw> {
        let path = renamed(&self.files[block.file as usize], |header| header.marker == block.marker);
        let file = path.ok_or(std::io::ErrorKind::NotFound)?.open()?;
        Ok(&mut self.open.insert((block.file, file)).1)
    }

    fn file(&mut self, index: u32) -> std::io::Result<&mut Raw> {
        let open = match self.open.take() {
            Some((at, file)) if at == index => (at, file),
            _ => (index, self.files[index as usize].open()?),
        };
        Ok(&mut self.open.insert(open).1)
    }
}
