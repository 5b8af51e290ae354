//! Reading entries back from segments: the chain of indexes first, then blocks, each checked by the crc that its index
//! gives, each entry by its own. Blocks on the disk; callers keep it off the async runtime.

use std::io;

use uuid::Uuid;

use super::segment_file::{self, OpenSegment};
use crate::commit::read::{PART, SegmentRead};
use crate::directory::disk::Disk;
use crate::format::Marker;
use crate::format::header::Codec;
use crate::format::limits::MAX_FRAME;
use crate::format::record::Kind;
use crate::format::segment::{Block, Index, IndexedBlock};
use crate::types::Lsn;

/// Where the entries of one collection are in a segment.
#[derive(Clone, Debug)]
pub(crate) struct SegmentIndex {
    id: Uuid,
    length: u64,
    codec: Codec,
    marker: Marker,
    /// By LSN.
    blocks: Vec<IndexedBlock>,
}

/// Why a segment does not give an entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It lies under none of its names.
    #[error("{0}")]
    Gone(String),
    /// The device failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What is stored is not what was written.
    #[error("{file}, offset {offset}: {what}")]
    Damaged { file: String, offset: u64, what: String },
}

/// Entries of a segment: their records, where to go on, and what is known of the segment now.
pub(crate) struct Found {
    pub(crate) records: Vec<u8>,
    pub(crate) next: Lsn,
    pub(crate) index: SegmentIndex,
}

struct Reading<'a> {
    open: OpenSegment,
    file: String,
    wanted: &'a SegmentRead,
}

/// Reads entries from `wanted.from` on: at most 1 MiB unless one is larger, at most `limit`. `known` is what an earlier
/// read of the same segment found.
///
/// # Errors
/// See [`ReadError`].
pub(crate) fn read(
    disk: &dyn Disk,
    wanted: &SegmentRead,
    known: Option<SegmentIndex>,
    limit: u64,
) -> Result<Found, ReadError> {
    let open = segment_file::find(disk, &wanted.path, wanted.segment.id, false)?.map_err(ReadError::Gone)?;
    let file = disk.display(&open.path).display().to_string();
    let reading = Reading { open, file, wanted };
    let known = known.filter(|known| known.id == wanted.segment.id && known.length == wanted.segment.length);
    let index = match known {
        Some(known) => known,
        None => reading.index()?,
    };
    reading.entries(index, limit)
}

impl Reading<'_> {
    fn damaged<T>(&self, offset: u64, what: impl ToString) -> Result<T, ReadError> {
        Err(ReadError::Damaged { file: self.file.clone(), offset, what: what.to_string() })
    }

    /// Exactly these bytes.
    fn bytes(&self, offset: u64, length: u64) -> Result<Vec<u8>, ReadError> {
        if length > MAX_FRAME as u64 || offset.saturating_add(length) > self.wanted.segment.length {
            return self.damaged(offset, "what should be there does not fit into the file");
        }
        let mut bytes = vec![0; length as usize];
        let read = self.open.file.read_at(offset, &mut bytes)?;
        if read < bytes.len() {
            let end = offset + read as u64;
            return self.damaged(end, format!("the file ends here, it should have {}", self.wanted.segment.length));
        }
        Ok(bytes)
    }

    /// The blocks of the collection: from the last index back.
    fn index(&self) -> Result<SegmentIndex, ReadError> {
        let segment = &self.wanted.segment;
        let (codec, marker) = (self.open.header.codec, self.open.header.marker);
        let (mut at, mut end, mut crc) = (segment.index_offset, segment.length, Some(segment.index_crc));
        let mut blocks = Vec::new();
        loop {
            let Some(length) = end.checked_sub(at) else { return self.damaged(at, "the index ends before it begins") };
            let stored = self.bytes(at, length)?;
            let crc_or_any = crc.take().unwrap_or_else(|| crc32c::crc32c(&stored));
            let index = match Block::parse(&stored, crc_or_any, codec, &marker) {
                Ok(block) => match block.records().next() {
                    Some(Ok(record)) => Index::decode(&record).map_err(|error| error.to_string()),
                    Some(Err(error)) => Err(error.to_string()),
                    None => Err("it is empty".to_owned()),
                },
                Err(error) => Err(error.to_string()),
            };
            let index = match index {
                Ok(index) => index,
                Err(why) => return self.damaged(at, format!("the index cannot be read: {why}")),
            };
            let ours = |(name, incarnation): &(String, _)| {
                name == self.wanted.name.as_str() && *incarnation == self.wanted.incarnation
            };
            if let Some(ours) = index.names.iter().position(ours) {
                blocks.extend(index.blocks.iter().filter(|block| block.name as usize == ours).copied());
            }
            // An index ends where the blocks of the next flush begin.
            let first = index.blocks.iter().map(|block| block.offset).min().unwrap_or(at);
            if index.previous == 0 {
                break;
            }
            if index.previous >= first || first > at {
                return self.damaged(at, "the index does not lie behind the one before it");
            }
            (end, at) = (first, index.previous);
        }
        blocks.sort_unstable_by_key(|block| block.first);
        Ok(SegmentIndex { id: segment.id, length: segment.length, codec, marker, blocks })
    }

    fn entries(&self, index: SegmentIndex, limit: u64) -> Result<Found, ReadError> {
        let (mut next, mut count, mut records) = (self.wanted.from, 0, Vec::new());
        let start = index.blocks.partition_point(|block| block.last < next);
        'blocks: for block in &index.blocks[start..] {
            if next > self.wanted.to || count >= limit || records.len() >= PART {
                break;
            }
            let offset = block.offset;
            let stored = self.bytes(offset, block.length.into())?;
            let parsed = match Block::parse(&stored, block.crc, index.codec, &index.marker) {
                Ok(parsed) => parsed,
                Err(error) => return self.damaged(offset, error),
            };
            for record in parsed.records() {
                let record = match record {
                    Ok(record) => record,
                    Err(error) => return self.damaged(offset, error),
                };
                if record.lsn < next {
                    continue;
                }
                let full = !records.is_empty() && records.len() + record.raw().len() > PART;
                if record.lsn > self.wanted.to || count >= limit || full {
                    break 'blocks;
                }
                let ours = record.kind == Kind::Data
                    && record.collection_id == self.wanted.name.as_str()
                    && record.incarnation == self.wanted.incarnation;
                if !ours || record.lsn != next {
                    return self.damaged(offset, format!("LSN {next} should be there, not LSN {}", record.lsn));
                }
                records.extend_from_slice(record.raw());
                next = record.lsn.next();
                count += 1;
            }
        }
        if records.is_empty() {
            return self.damaged(self.wanted.segment.index_offset, format!("the index does not know LSN {next}"));
        }
        Ok(Found { records, next, index })
    }
}
