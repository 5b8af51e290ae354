//! Finding and checking frames. A *head* is two numbers, 18 constant bytes and the struct whose `head_crc` holds, at the
//! place that it names: it proves that a frame of this stream was begun here. A *frame* is a head whose block is whole:
//! length, crc and marker hold.
//!
//! What to believe of a file's frames is not decided here but in [`super::stream`].

use super::cursor::DecodeError;
use super::frame::{
    CONSTANT, FRAME_MAGIC, FRAME_RECORD, FrameHeader, KNOWN_FLAGS, MAX_HEAD, STRUCT_LEN, block_crc, head_crc,
};
use super::header::{HeaderError, SlotHeader};
use super::limits::{MAX_FRAME, MAX_SLOT, PAGE};
use super::names::SlotName;
use super::record::{self, Kind, RecordRef};
use super::{Marker, StreamId, varint};
use crate::types::Epoch;

/// Bytes that a head needs at most.
pub const HEAD_BYTES: usize = MAX_HEAD;

/// Which heads are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The stream; `None` where no file of it has a readable header: then any stream of `epoch`.
    pub stream: Option<StreamId>,
    /// The epoch in the file's name, looked at only where the stream is not known.
    pub epoch: Epoch,
    /// The number in the file's name.
    pub file: u64,
}

/// A head that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it says.
    pub header: FrameHeader,
    /// DATA records in the frame.
    pub entries: u32,
    /// Bytes of the frame, from count through marker.
    pub length: u32,
    /// The frame's crc, as stored.
    pub crc: u32,
    /// Records in the frame, FRAME and PAD included; not covered by the head's checksum.
    pub count: u64,
    /// Bytes between the first two numbers and the marker; not covered by the head's checksum.
    pub size: u64,
    struct_at: usize,
}

impl Head {
    /// Bytes before the first record after FRAME.
    #[must_use]
    pub const fn records_at(&self) -> usize {
        self.struct_at + STRUCT_LEN
    }
}

/// A frame of this stream was written by a later version: nothing of the directory may be used or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "file {file}, offset {offset}: a frame has the flags {flags:#x}, of which this version knows {KNOWN_FLAGS:#x} only"
)]
pub struct UnknownFlags {
    /// Number of the file.
    pub file: u64,
    /// Where the frame stands in it.
    pub offset: u64,
    /// All its flags.
    pub flags: u32,
}

fn u32_at<const N: usize>(fields: &[u8; N], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&fields[at..at + 4]);
    u32::from_le_bytes(bytes)
}

fn u64_at<const N: usize>(fields: &[u8; N], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&fields[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// The head at the start of `bytes` (the first [`HEAD_BYTES`] matter), if there is one that stands at `offset`.
///
/// # Errors
/// When there is one and it has flags that this version does not know.
pub fn parse_head(bytes: &[u8], expected: &Expected, offset: u64) -> Result<Option<Head>, UnknownFlags> {
    let Some(head) = head(bytes) else { return Ok(None) };
    let FrameHeader { stream, file, offset: said, epoch, flags, .. } = head.header;
    let ours = match expected.stream {
        Some(known) => stream == known,
        None => epoch == expected.epoch,
    };
    if !ours || file != expected.file || said != offset {
        return Ok(None);
    }
    if flags & !KNOWN_FLAGS != 0 {
        return Err(UnknownFlags { file, offset, flags });
    }
    Ok(Some(head))
}

fn head(bytes: &[u8]) -> Option<Head> {
    let (count, count_len) = varint::get(bytes).ok()?;
    let (size, size_len) = varint::get(bytes.get(count_len..)?).ok()?;
    let constant_at = count_len + size_len;
    let struct_at = constant_at + CONSTANT.len();
    if bytes.get(constant_at..struct_at)? != CONSTANT {
        return None;
    }
    let fields: &[u8; STRUCT_LEN] = bytes.get(struct_at..struct_at + STRUCT_LEN)?.try_into().ok()?;
    if fields[..8] != *FRAME_MAGIC || u32_at(fields, 16) != head_crc(fields) || u32_at(fields, 108) != 0 {
        return None;
    }
    let mut stream = StreamId::default();
    stream.0.copy_from_slice(&fields[24..40]);
    let header = FrameHeader {
        flags: u32_at(fields, 20),
        stream,
        file: u64_at(fields, 40),
        offset: u64_at(fields, 48),
        frame_seq: u64_at(fields, 56),
        durable_frame: u64_at(fields, 64),
        prev_crc: u32_at(fields, 72),
        epoch: Epoch(u64_at(fields, 80)),
        floor: u64_at(fields, 88),
        oldest: Epoch(u64_at(fields, 96)),
        oldest_session: u32_at(fields, 104),
    };
    Some(Head {
        header,
        entries: u32_at(fields, 76),
        length: u32_at(fields, 12),
        crc: u32_at(fields, 8),
        count: u64::try_from(count).ok()?,
        size: u64::try_from(size).ok()?,
        struct_at,
    })
}

/// Why a block behind a head is not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The file ends inside it.
    #[error("the file ends inside a frame of {length} bytes, after {found}")]
    Short {
        /// What the head says.
        length: u32,
        /// What is there.
        found: u64,
    },
    /// Its length is none that a writer makes.
    #[error("a frame cannot have {0} bytes")]
    Length(u32),
    /// Its crc does not hold.
    #[error("the frame's crc does not hold")]
    Crc,
    /// It does not end with the file's marker.
    #[error("the frame does not end with the file's marker")]
    Marker,
    /// Reading it failed.
    #[error("the frame cannot be read")]
    Unreadable,
    /// The file's header is bad, so that nothing of the file counts.
    #[error("the header of the frame's file is bad")]
    FileHeader,
}

/// A frame that is whole.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its head.
    pub head: Head,
    block: &'a [u8],
}

/// Checks the block behind a head of a slot: `block` starts with the head's first byte and may reach beyond the frame.
///
/// # Errors
/// What does not hold.
pub fn parse_frame<'a>(block: &'a [u8], head: &Head, marker: &Marker) -> Result<Frame<'a>, FrameError> {
    if !(head.length as usize).is_multiple_of(PAGE) {
        return Err(FrameError::Length(head.length));
    }
    parse_block(block, head, Some(marker))
}

/// Checks the block behind the head of a bucket's object, which it must fill to the end.
///
/// # Errors
/// What does not hold.
pub fn parse_object_frame<'a>(block: &'a [u8], head: &Head, marker: &Marker) -> Result<Frame<'a>, FrameError> {
    if head.length as usize != block.len() {
        return Err(FrameError::Length(head.length));
    }
    parse_block(block, head, Some(marker))
}

/// Checks the block behind a head in a file whose header is bad: all but the marker. Its entries may be saved.
///
/// # Errors
/// What does not hold.
pub fn parse_without_marker<'a>(block: &'a [u8], head: &Head) -> Result<Frame<'a>, FrameError> {
    parse_block(block, head, None)
}

fn parse_block<'a>(block: &'a [u8], head: &Head, marker: Option<&Marker>) -> Result<Frame<'a>, FrameError> {
    let length = head.length as usize;
    let records_end = length.checked_sub(size_of::<Marker>()).ok_or(FrameError::Length(head.length))?;
    if length > MAX_FRAME || records_end < head.records_at() {
        return Err(FrameError::Length(head.length));
    }
    let FrameHeader { stream, file, offset, .. } = &head.header;
    let short = FrameError::Short { length: head.length, found: block.len() as u64 };
    let block = block.get(..length).ok_or(short)?;
    if block_crc(stream, *file, *offset, block, head.struct_at) != head.crc && !mutant!(TornFrameTaken) {
        return Err(FrameError::Crc);
    }
    if marker.is_some_and(|marker| block[records_end..] != *marker) {
        return Err(FrameError::Marker);
    }
    // What follows cannot fail after the crc held, unless a writer is wrong.
    let first = head.struct_at - CONSTANT.len();
    if head.size != (records_end - first) as u64 {
        return Err(FrameError::Length(head.length));
    }
    Ok(Frame { head: *head, block })
}

/// The content of a block whose crc does not hold, for saving what can be saved: the records after FRAME, as far as they
/// decode. Believe only those whose own crc holds.
#[must_use]
pub fn salvage<'a>(block: &'a [u8], head: &Head) -> Records<'a> {
    let end = (head.length as usize).min(block.len());
    let bytes = block.get(head.records_at()..end).unwrap_or_default();
    // The count is not covered by the head's checksum: what is damaged may be just that.
    Records { bytes, left: u64::MAX, strict: false }
}

impl<'a> Frame<'a> {
    /// All of its bytes.
    #[must_use]
    pub const fn block(&self) -> &'a [u8] {
        self.block
    }

    /// Its records in order, without FRAME and PAD. After an error nothing follows; none is possible unless a writer was
    /// wrong.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        let end = self.block.len() - size_of::<Marker>();
        let bytes = self.block.get(self.head.records_at()..end).unwrap_or_default();
        Records { bytes, left: self.head.count.saturating_sub(1), strict: true }
    }

    /// All its records in order, FRAME and PAD too.
    pub fn all_records(&self) -> impl Iterator<Item = Result<RecordRef<'a>, DecodeError>> + use<'a> {
        let end = self.block.len() - size_of::<Marker>();
        let mut bytes = self.block.get(self.head.struct_at - CONSTANT.len()..end).unwrap_or_default();
        (0..self.head.count).map_while(move |_| {
            if bytes.is_empty() {
                return None;
            }
            let record = record::decode(bytes);
            bytes = record.as_ref().ok().and_then(|(_, length)| bytes.get(*length..)).unwrap_or_default();
            Some(record.map(|(record, _)| record))
        })
    }
}

/// The records of a frame.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    left: u64,
    strict: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.left -= 1;
            match record::decode(self.bytes) {
                Ok((record, length)) => {
                    self.bytes = self.bytes.get(length..).unwrap_or_default();
                    if record.kind == Kind::Pad && !self.strict {
                        self.left = 0;
                    } else if !matches!(record.kind, Kind::Frame | Kind::Pad) {
                        return Some(Ok(record));
                    }
                }
                Err(error) => {
                    self.left = 0;
                    self.bytes = &[];
                    return self.strict.then_some(Err(error));
                }
            }
        }
        if self.strict && !self.bytes.is_empty() {
            self.bytes = &[];
            return Some(Err(DecodeError::Length("the frame's records")));
        }
        None
    }
}

impl std::iter::FusedIterator for Records<'_> {}

/// A read that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading failed: {0}")]
pub struct ReadFailed(pub String);

/// Where a scanner reads from: a slice, or a file behind a bounded buffer.
pub trait Source {
    /// Bytes in it.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `length` bytes from `offset`, or fewer where the source ends.
    ///
    /// # Errors
    /// When they cannot be read. The scanner then goes on behind the first page of them.
    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed>;
}

impl Source for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.get(from..).unwrap_or_default();
        Ok(rest.get(..length).unwrap_or(rest))
    }
}

/// A head found in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it stands.
    pub offset: u64,
    /// What it says.
    pub head: Head,
    /// Why the block behind it is no frame; `None` when it is one.
    pub fault: Option<FrameError>,
}

/// What a scan of one slot found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotScan {
    /// The number in the file's name.
    pub file: u64,
    /// Bytes in the file; what lies beyond the longest slot is not looked at.
    pub len: u64,
    /// The header, valid and of this name, or why it is not.
    pub header: Result<SlotHeader, HeaderError>,
    /// The heads of the stream, in order of their offsets.
    pub places: Vec<Place>,
    /// Ranges (from, to) that could not be read.
    pub unreadable: Vec<(u64, u64)>,
    /// From here to the end all bytes are zero.
    pub blank_from: u64,
    /// Frames of another stream or file were begun in it: it was used before, and what follows its frames is no sign of
    /// one that was torn.
    pub used_before: bool,
}

/// Why a scan must stop altogether: a later version wrote the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MustStop {
    /// By a flag of a frame.
    #[error(transparent)]
    Flags(#[from] UnknownFlags),
    /// By the header.
    #[error("the header: {0}")]
    Header(HeaderError),
}

/// Reads the header of a slot and checks it against the slot's name.
///
/// # Errors
/// When reading failed; the header's own errors are inside.
pub fn read_header(source: &mut impl Source, name: SlotName) -> Result<Result<SlotHeader, HeaderError>, ReadFailed> {
    let header = SlotHeader::parse_slot(source.read(0, PAGE)?);
    Ok(header.and_then(|header| {
        if header.key == name.key && header.file == name.file {
            Ok(header)
        } else {
            Err(HeaderError::Place { key: header.key, file: header.file })
        }
    }))
}

/// Scans a slot: its header, then every page for heads, skipping what whole frames cover. `visit` sees each whole frame
/// as it is found; whether it counts is known only after [`super::stream::classify`]. `stream` is what other files of the
/// same epoch and session (or the successor's `closes`) say, where that is known. Reads each byte once, and holds one frame at a time.
///
/// # Errors
/// When a later version wrote the file.
pub fn scan_slot(
    source: &mut impl Source,
    name: SlotName,
    stream: Option<StreamId>,
    mut visit: impl FnMut(&Frame<'_>),
) -> Result<SlotScan, MustStop> {
    let len = source.len().min(MAX_SLOT);
    let mut unreadable = Vec::new();
    let header = match read_header(source, name) {
        Ok(Ok(header)) if stream.is_some_and(|stream| stream != header.stream) => {
            Err(HeaderError::Stream(header.stream))
        }
        Ok(header) => header,
        Err(ReadFailed(_)) => {
            unreadable.push((0, PAGE as u64));
            Err(HeaderError::Short(0))
        }
    };
    if let Err(error) = &header
        && error.must_stop()
    {
        return Err(MustStop::Header(error.clone()));
    }
    let marker = header.as_ref().ok().map(|header| header.marker);
    let stream = header.as_ref().ok().map(|header| header.stream).or(stream);
    let expected = Expected { stream, epoch: name.key.epoch, file: name.file };
    let mut places = Vec::new();
    let mut offset = PAGE as u64;
    let mut blank_from = offset;
    let mut used_before = false;
    while offset < len {
        let next = offset + PAGE as u64;
        let page = match source.read(offset, PAGE) {
            Ok(page) => page,
            Err(ReadFailed(_)) => {
                add_unreadable(&mut unreadable, offset, next.min(len));
                blank_from = next;
                offset = next;
                continue;
            }
        };
        let Some(head) = parse_head(page, &expected, offset)? else {
            if !is_blank(page) {
                blank_from = next;
                used_before |= head(page).is_some();
            }
            offset = next;
            continue;
        };
        let length = head.length as usize;
        let fault = if length > MAX_FRAME {
            Some(FrameError::Length(head.length))
        } else {
            match source.read(offset, length.max(FRAME_RECORD)) {
                Err(ReadFailed(_)) => Some(FrameError::Unreadable),
                Ok(block) => {
                    let frame = match &marker {
                        Some(marker) => parse_frame(block, &head, marker),
                        None => Err(FrameError::FileHeader),
                    };
                    frame.map(|frame| visit(&frame)).err()
                }
            }
        };
        offset = if fault.is_none() { offset + u64::from(head.length) } else { next };
        blank_from = offset;
        places.push(Place { offset: head.header.offset, head, fault });
    }
    let blank_from = blank_from.min(len);
    Ok(SlotScan { file: name.file, len, header, places, unreadable, blank_from, used_before })
}

fn add_unreadable(ranges: &mut Vec<(u64, u64)>, from: u64, to: u64) {
    match ranges.last_mut() {
        Some((_, end)) if *end == from => *end = to,
        _ => ranges.push((from, to)),
    }
}

fn is_blank(page: &[u8]) -> bool {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    ZEROS.get(..page.len()).is_some_and(|zeros| zeros == page)
}

#[cfg(test)]
mod tests;
