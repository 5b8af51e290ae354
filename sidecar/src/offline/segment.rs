//! One segment as far as a FLUSHED fact vouches for it: its indexes from the last one back, then its blocks.
//!
//! Only the newest INDEX has its crc in a fact. Those before it are held by their own checksum and by their place: each
//! flush begins where the one before ended, so every byte from the header to the valid length belongs to one block.

use super::OfflineError;
use super::place::FileAt;
use super::source::FileSource;
use crate::format::codec::MAX_PLAIN;
use crate::format::cursor::Cursor;
use crate::format::facts::FlushedFact;
use crate::format::header::{HeaderError, MAX_HEADER, SegmentHeader};
use crate::format::record::{Kind, RecordRef};
use crate::format::scan::{ReadFailed, Source as _};
use crate::format::segment::{BLOCK_HEAD, Block, BlockError, Index, IndexedBlock};
use crate::types::Incarnation;

/// Longest stored block: no codec makes the largest one an eighth longer.
pub(super) const MAX_STORED: u64 = (MAX_PLAIN + MAX_PLAIN / 8 + BLOCK_HEAD + 16) as u64;

/// What does not hold, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) offset: Option<u64>,
    pub(super) what: String,
}

impl Wrong {
    fn new(offset: u64, what: impl Into<String>) -> Self {
        Self { offset: Some(offset), what: what.into() }
    }
}

/// Where a segment is now that was at `path` and is there no more: beside a running sidecar it is sealed under a new name
/// at any moment.
pub(super) fn renamed(at: &FileAt, is: impl Fn(&SegmentHeader) -> bool) -> Option<FileAt> {
    if at.is_object() {
        return None;
    }
    let here = std::fs::read_dir(at.parent()?).ok()?;
    let mut others = here.flatten().map(|entry| FileAt::file(entry.path()));
    others.find(|other| matches!(OpenSegment::open(other), Ok(Ok(segment)) if is(&segment.header)))
}

/// Bytes that end with the file's marker where a block should.
pub(super) struct Stored<'a> {
    pub(super) bytes: &'a [u8],
    header: &'a SegmentHeader,
}

impl Stored<'_> {
    pub(super) fn crc(&self) -> u32 {
        crc32c::crc32c(self.bytes)
    }

    pub(super) fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn parse(&self) -> Result<Block<'_>, BlockError> {
        Block::parse(self.bytes, self.crc(), self.header.codec, &self.header.marker)
    }
}

/// An open segment whose header holds.
pub(super) struct OpenSegment {
    pub(super) header: SegmentHeader,
    /// Where its first block starts.
    start: u64,
    source: FileSource,
}

impl OpenSegment {
    /// Opens a file; the inner error is what is wrong with its header.
    pub(super) fn open(path: &FileAt) -> Result<Result<Self, HeaderError>, OfflineError> {
        let mut source = FileSource::open(path)?;
        let parsed = match source.exactly(0, MAX_HEADER) {
            Ok(bytes) => SegmentHeader::parse(bytes),
            Err(failed) => return Err(OfflineError::io("reading", path)(std::io::Error::other(failed.0))),
        };
        match parsed {
            Ok((header, length)) => Ok(Ok(Self { header, start: length as u64, source })),
            Err(error) if error.must_stop() => Err(OfflineError::later(path, error)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Where its first block starts.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// The bytes that should be a block at `at`; none where nothing there can be one.
    pub(super) fn stored(&mut self, at: u64) -> std::io::Result<Option<Stored<'_>>> {
        let Self { header, source, .. } = self;
        let failed = |failed: ReadFailed| std::io::Error::other(failed.0);
        let mut head = Cursor::new(source.read(at, BLOCK_HEAD).map_err(failed)?);
        let (Ok(count), Ok(size)) = (head.number("block"), head.number("block")) else { return Ok(None) };
        let length = size.saturating_add((head.at() + header.marker.len()) as u64);
        if count == 0 || length > MAX_STORED {
            return Ok(None);
        }
        let bytes = source.read(at, length as usize).map_err(failed)?;
        let whole = bytes.len() as u64 == length && bytes.ends_with(&header.marker);
        Ok(whole.then_some(Stored { bytes, header }))
    }

    pub(super) fn len(&self) -> u64 {
        self.source.len()
    }

    /// The indexes up to a fact's length, oldest first; where they stop being readable, those behind that place only.
    pub(super) fn indexes(&mut self, fact: &FlushedFact) -> (Vec<Index>, Option<Wrong>) {
        let mut indexes = Vec::new();
        let len = self.len();
        let mut wrong = None;
        if len < fact.length {
            let what = format!("the file ends after {len} bytes, and the journal says that {} are valid", fact.length);
            wrong = Some(Wrong::new(len, what));
        }
        let (mut at, mut end, mut crc) = (fact.index_offset, fact.length, Some(fact.index_crc));
        while wrong.is_none() {
            match self.index(at, end, crc) {
                Ok(index) => {
                    let begin = index.blocks.first().map_or(at, |block| block.offset);
                    let previous = index.previous;
                    indexes.push(index);
                    if previous == 0 {
                        break;
                    }
                    (at, end, crc) = (previous, begin, None);
                }
                Err(error) => wrong = Some(error),
            }
        }
        indexes.reverse();
        (indexes, wrong)
    }

    /// The index at `at`, whose block must end at `end`.
    fn index(&mut self, at: u64, end: u64, crc: Option<u32>) -> Result<Index, Wrong> {
        let wrong = |what: &str| Wrong::new(at, format!("the INDEX block {what}"));
        let length = end.checked_sub(at).filter(|length| at >= self.start && *length <= MAX_STORED);
        let Some(length) = length else { return Err(wrong("cannot be there")) };
        let Self { header, source, start } = self;
        let stored =
            source.exactly(at, length as usize).map_err(|failed| wrong(&format!("cannot be read: {}", failed.0)))?;
        if stored.len() as u64 != length {
            return Err(wrong("is cut short"));
        }
        let crc = crc.unwrap_or_else(|| crc32c::crc32c(stored));
        let block = Block::parse(stored, crc, header.codec, &header.marker)
            .map_err(|error| wrong(&format!("is none: {error}")))?;
        let mut records = block.records();
        let index = match (records.next(), records.next()) {
            (Some(Ok(record)), None) => Index::decode(&record).map_err(|error| wrong(&format!("is none: {error}")))?,
            (Some(Err(error)), _) => return Err(wrong(&format!("is none: {error}"))),
            _ => return Err(wrong("does not hold one record")),
        };
        let first = index.blocks.first().map_or(at, |block| block.offset);
        let follows = if index.previous == 0 { first == *start } else { (*start..first).contains(&index.previous) };
        let mut next = first;
        for block in &index.blocks {
            if block.offset != next || u64::from(block.length) > MAX_STORED {
                return Err(wrong("names blocks that do not follow one another"));
            }
            next += u64::from(block.length);
        }
        if follows && next == at { Ok(index) } else { Err(wrong("does not follow its blocks")) }
    }

    /// Reads one block; `visit` sees its entries in order, all of them or those before the first that is wrong.
    pub(super) fn block(
        &mut self,
        at: &IndexedBlock,
        (name, incarnation): (&str, Incarnation),
        mut visit: impl FnMut(&RecordRef<'_>),
    ) -> Result<(), Wrong> {
        let wrong = |what: String| Wrong::new(at.offset, what);
        let Self { header, source, .. } = self;
        let length = at.length as usize;
        let stored = source.read(at.offset, length).map_err(|failed| wrong(format!("cannot be read: {}", failed.0)))?;
        if stored.len() != length {
            return Err(wrong("the block is cut short".into()));
        }
        let block =
            Block::parse(stored, at.crc, header.codec, &header.marker).map_err(|error| wrong(error.to_string()))?;
        let (mut count, mut last) = (0, None);
        for record in block.records() {
            let record = record.map_err(|error| wrong(error.to_string()))?;
            let mine = record.kind == Kind::Data && record.collection_id == name && record.incarnation == incarnation;
            if !mine {
                return Err(wrong(format!("the block holds a {} that is not of {name:?}", record.kind.as_str())));
            }
            if last.map_or(record.lsn != at.first, |last| record.lsn <= last) || record.lsn > at.last {
                return Err(wrong(format!("the block holds {} where its INDEX says otherwise", record.lsn)));
            }
            visit(&record);
            (count, last) = (count + 1, Some(record.lsn));
        }
        if (count, last) == (at.count, Some(at.last)) {
            Ok(())
        } else {
            Err(wrong("the block does not hold what its INDEX says".into()))
        }
    }
}
