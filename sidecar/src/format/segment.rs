//! Segments: object container files of entries, with an index at the end of each flush.
//!
//! After the header stand blocks of consecutive entries of one collection, at most [`SEGMENT_BLOCK`] plain bytes each
//! unless one entry is larger, then one block with the INDEX record of the flush; the next flush goes on behind it. What
//! counts is not what the file holds but what a FLUSHED fact says: its length, and offset and crc of its last INDEX.

use std::borrow::Cow;

use super::codec::CodecError;
use super::cursor::{Cursor, DecodeError};
use super::header::Codec;
use super::limits::SEGMENT_BLOCK;
use super::record::{self, Fields, Kind, RecordRef, put_number};
use super::{Marker, varint};
use crate::types::{Epoch, Incarnation, Lsn};

/// Starts the payload of an INDEX record.
pub const INDEX_MAGIC: &[u8; 8] = b"WALIDX01";
/// Bytes of a block's entry in an index.
const BLOCK_ENTRY: usize = 44;
const MARKER: usize = size_of::<Marker>();

/// Where a block is and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexedBlock {
    /// Where its count stands in the file.
    pub offset: u64,
    /// Bytes from its count through its marker.
    pub length: u32,
    /// Entries in it.
    pub count: u32,
    /// LSN of the first.
    pub first: Lsn,
    /// LSN of the last.
    pub last: Lsn,
    /// CRC32C of the `length` stored bytes.
    pub crc: u32,
    /// Index into [`Index::names`].
    pub name: u32,
}

/// The index of one flush.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Where the index of the flush before stands in the file; 0 = there is none.
    pub previous: u64,
    /// The collections in this flush.
    pub names: Vec<(String, Incarnation)>,
    /// Its blocks, in the order of the file.
    pub blocks: Vec<IndexedBlock>,
}

impl Index {
    fn payload(&self) -> Vec<u8> {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut rest = Vec::with_capacity(32 + self.blocks.len() * BLOCK_ENTRY);
        rest.extend_from_slice(&count(self.blocks.len()));
        rest.extend_from_slice(&count(self.names.len()));
        rest.extend_from_slice(&self.previous.to_le_bytes());
        for (name, incarnation) in &self.names {
            rest.extend_from_slice(&count(name.len()));
            rest.extend_from_slice(name.as_bytes());
            rest.extend_from_slice(&incarnation.0.to_le_bytes());
        }
        for IndexedBlock { offset, length, count, first, last, crc, name } in &self.blocks {
            rest.extend_from_slice(&offset.to_le_bytes());
            rest.extend_from_slice(&length.to_le_bytes());
            rest.extend_from_slice(&count.to_le_bytes());
            rest.extend_from_slice(&first.0.to_le_bytes());
            rest.extend_from_slice(&last.0.to_le_bytes());
            rest.extend_from_slice(&crc.to_le_bytes());
            rest.extend_from_slice(&name.to_le_bytes());
        }
        [&INDEX_MAGIC[..], &crc32c::crc32c(&rest).to_le_bytes(), &rest].concat()
    }

    /// Appends the INDEX record. Its `lsn` is the highest LSN of the flush; name and incarnation are those of the one
    /// collection, empty and 0 in a shared segment.
    pub fn encode(&self, buf: &mut Vec<u8>, shared: bool, epoch: Epoch) -> usize {
        let (name, incarnation) = match self.names.first() {
            Some((name, incarnation)) if !shared => (name.as_str(), *incarnation),
            _ => ("", Incarnation(0)),
        };
        let lsn = self.blocks.iter().map(|block| block.last).max().unwrap_or_default();
        let payload = self.payload();
        let kind = Kind::Index;
        let fields =
            Fields { kind, collection_id: name, incarnation, lsn, epoch, payload: &payload, ..Fields::default() };
        record::encode(buf, &fields, [])
    }

    /// Reads the index that a record carries.
    ///
    /// # Errors
    /// When the record is no INDEX, its checksum does not hold, or a block names no collection.
    pub fn decode(record: &RecordRef<'_>) -> Result<Self, DecodeError> {
        if record.kind != Kind::Index {
            return Err(DecodeError::Range { field: "kind", value: i64::from(record.kind.number()) });
        }
        let mut at = Cursor::new(record.payload);
        let magic = at.fixed::<8>("index magic")?;
        let crc = u32_of(&mut at)?;
        if magic != *INDEX_MAGIC || crc != crc32c::crc32c(at.rest()) {
            return Err(DecodeError::Checksum("the index"));
        }
        let blocks = u32_of(&mut at)?;
        let names = u32_of(&mut at)?;
        let mut index = Self { previous: u64_of(&mut at)?, ..Self::default() };
        for _ in 0..names {
            let length = u32_of(&mut at)? as usize;
            let name =
                std::str::from_utf8(at.take(length, "index name")?).map_err(|_| DecodeError::Utf8("index name"))?;
            index.names.push((name.to_owned(), Incarnation(u64_of(&mut at)?)));
        }
        for _ in 0..blocks {
            let block = IndexedBlock {
                offset: u64_of(&mut at)?,
                length: u32_of(&mut at)?,
                count: u32_of(&mut at)?,
                first: Lsn(u64_of(&mut at)?),
                last: Lsn(u64_of(&mut at)?),
                crc: u32_of(&mut at)?,
                name: u32_of(&mut at)?,
            };
            if block.name >= names {
                return Err(DecodeError::Range { field: "index block name", value: block.name.into() });
            }
            index.blocks.push(block);
        }
        if !at.rest().is_empty() {
            return Err(DecodeError::Length("the index"));
        }
        Ok(index)
    }
}

fn u32_of(at: &mut Cursor<'_>) -> Result<u32, DecodeError> {
    at.fixed("index").map(u32::from_le_bytes)
}

fn u64_of(at: &mut Cursor<'_>) -> Result<u64, DecodeError> {
    at.fixed("index").map(u64::from_le_bytes)
}

/// Appends one block. Answers its length and the CRC32C of its stored bytes.
///
/// # Errors
/// When the records are more than a block can hold.
pub fn put_block(
    out: &mut Vec<u8>,
    count: u32,
    records: &[u8],
    codec: Codec,
    marker: &Marker,
) -> Result<(u32, u32), CodecError> {
    let data = codec.compress(records)?;
    let start = out.len();
    put_number(out, count.into());
    put_number(out, data.len() as u64);
    out.extend_from_slice(&data);
    out.extend_from_slice(marker);
    let stored = &out[start..];
    Ok((u32::try_from(stored.len()).map_err(|_| CodecError::TooLong)?, crc32c::crc32c(stored)))
}

/// Why stored bytes are not a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// They are not those that were written.
    #[error("the block's crc does not hold")]
    Crc,
    /// They do not have the form of a block.
    #[error("the block is malformed")]
    Malformed,
    /// The file's marker does not end it.
    #[error("the block does not end with the file's marker")]
    Marker,
    /// The codec says no.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A record does not decode.
    #[error(transparent)]
    Record(#[from] DecodeError),
}

/// A block whose stored bytes are those that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    count: u64,
    plain: Cow<'a, [u8]>,
}

impl<'a> Block<'a> {
    /// Reads a block from exactly its stored bytes, whose crc an index or a FLUSHED fact gives.
    ///
    /// # Errors
    /// What does not hold.
    pub fn parse(stored: &'a [u8], crc: u32, codec: Codec, marker: &Marker) -> Result<Self, BlockError> {
        if crc32c::crc32c(stored) != crc && !mutant!(SegmentReadUnchecked) {
            return Err(BlockError::Crc);
        }
        let mut at = Cursor::new(stored);
        let mut number = || at.number("block").map_err(|_| BlockError::Malformed);
        let (count, size) = (number()?, number()?);
        let rest = at.rest();
        let split = rest.len().checked_sub(MARKER).ok_or(BlockError::Malformed)?;
        let (data, end) = rest.split_at(split);
        if data.len() as u64 != size {
            return Err(BlockError::Malformed);
        }
        if end != marker {
            return Err(BlockError::Marker);
        }
        Ok(Self { count, plain: codec.decompress(data)? })
    }

    /// Its records in order.
    ///
    /// # Errors
    /// When one does not decode, one's own crc does not hold, or they are not as many as the block says.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordRef<'_>, BlockError>> {
        let mut rest = &*self.plain;
        let mut left = self.count;
        std::iter::from_fn(move || {
            if left == 0 {
                let more = std::mem::take(&mut rest);
                return (!more.is_empty()).then_some(Err(BlockError::Malformed));
            }
            left -= 1;
            let result = match record::decode(rest) {
                Ok((record, length)) if record.crc_holds() || mutant!(SegmentReadUnchecked) => {
                    rest = rest.get(length..).unwrap_or_default();
                    Ok(record)
                }
                Ok(_) => Err(BlockError::Crc),
                Err(error) => Err(BlockError::Record(error)),
            };
            if result.is_err() {
                (left, rest) = (0, &[]);
            }
            Some(result)
        })
    }
}

/// What a FLUSHED fact needs to know of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Valid bytes of the file.
    pub length: u64,
    /// Where the INDEX block stands.
    pub index_offset: u64,
    /// CRC32C of its stored bytes.
    pub index_crc: u32,
}

/// Lays out one flush: blocks, then their index. Bytes can be taken out as they become ready.
#[derive(Debug)]
pub struct FlushBuilder {
    codec: Codec,
    marker: Marker,
    shared: bool,
    /// Where `out` starts in the file.
    at: u64,
    out: Vec<u8>,
    index: Index,
    plain: Vec<u8>,
    open: Option<IndexedBlock>,
}

impl FlushBuilder {
    /// A flush that starts at offset `at` of the file: behind its header, or behind the index at `previous`.
    #[must_use]
    pub fn new(codec: Codec, marker: Marker, shared: bool, at: u64, previous: u64) -> Self {
        let index = Index { previous, ..Index::default() };
        Self { codec, marker, shared, at, out: Vec::new(), index, plain: Vec::new(), open: None }
    }

    /// Adds an entry, as it stands in the journal. Entries of one collection come one after the other, in order.
    ///
    /// # Errors
    /// When the entry is larger than a block can be.
    pub fn push(&mut self, entry: &RecordRef<'_>) -> Result<(), CodecError> {
        let name = self.name(entry.collection_id, entry.incarnation);
        let fits = self.plain.len() + entry.raw().len() <= SEGMENT_BLOCK;
        let follows = |open: &IndexedBlock| open.name == name && open.last.next() == entry.lsn;
        if self.open.as_ref().is_some_and(|open| !follows(open) || !fits) {
            self.end_block()?;
        }
        let lsn = entry.lsn;
        let empty = IndexedBlock { offset: 0, length: 0, count: 0, first: lsn, last: lsn, crc: 0, name };
        let open = self.open.get_or_insert(empty);
        open.count += 1;
        open.last = lsn;
        self.plain.extend_from_slice(entry.raw());
        Ok(())
    }

    fn name(&mut self, name: &str, incarnation: Incarnation) -> u32 {
        let names = &mut self.index.names;
        let same = |(other, life): &(String, Incarnation)| other == name && *life == incarnation;
        // The last one first: entries come collection by collection.
        let at = names.iter().rposition(same).unwrap_or_else(|| {
            names.push((name.to_owned(), incarnation));
            names.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn end_block(&mut self) -> Result<(), CodecError> {
        let Some(block) = self.open.take() else { return Ok(()) };
        let offset = self.at + self.out.len() as u64;
        let (length, crc) = put_block(&mut self.out, block.count, &self.plain, self.codec, &self.marker)?;
        self.plain.clear();
        self.index.blocks.push(IndexedBlock { offset, length, crc, ..block });
        Ok(())
    }

    /// Takes the bytes that are ready, to be written where the last ones ended.
    pub fn take(&mut self) -> Vec<u8> {
        self.at += self.out.len() as u64;
        std::mem::take(&mut self.out)
    }

    /// Ends the flush with its index: the last bytes, and what the fact must say once they are synced.
    ///
    /// # Errors
    /// When the index is larger than a block can be.
    pub fn finish(mut self, epoch: Epoch) -> Result<(Vec<u8>, Flushed), CodecError> {
        self.end_block()?;
        let mut record = Vec::new();
        self.index.encode(&mut record, self.shared, epoch);
        let index_offset = self.at + self.out.len() as u64;
        let (length, index_crc) = put_block(&mut self.out, 1, &record, self.codec, &self.marker)?;
        Ok((self.out, Flushed { length: index_offset + u64::from(length), index_offset, index_crc }))
    }
}

/// Bytes of a block's count and size at most, for reading a block whose length is not known.
pub const BLOCK_HEAD: usize = 2 * varint::MAX_LEN;

#[cfg(test)]
mod tests;
