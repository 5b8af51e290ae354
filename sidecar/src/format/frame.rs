//! A frame: one commit, one Avro block. [`FrameBuilder`] lays it out in one buffer that is used again and again.
//!
//! ```text
//! count, size        Avro longs
//! FRAME record       16 bytes, the payload's length (2 bytes), the 112 bytes of the struct
//! records            DATA, GAP, facts: whole batches
//! PAD record         in slots only: fills the last page
//! marker             16 bytes
//! ```

use super::limits::{MAX_FRAME, PAGE};
use super::record::put_number;
use super::{Marker, StreamId, varint};
use crate::types::Epoch;

/// The frame holds no entries.
pub const FLAG_CONTROL_ONLY: u32 = 1;
/// The last frame of a clean shutdown.
pub const FLAG_CLEAN_SHUTDOWN: u32 = 2;
/// Part of a checkpoint.
pub const FLAG_CHECKPOINT_PART: u32 = 4;
/// The last part of a checkpoint.
pub const FLAG_CHECKPOINT_END: u32 = 8;
/// A bucket's claim.
pub const FLAG_CLAIM: u32 = 16;
/// A bucket's fence.
pub const FLAG_FENCE: u32 = 32;
/// The flags that this version understands; any other must stop the reader.
pub const KNOWN_FLAGS: u32 = 63;

/// Starts the struct.
pub const FRAME_MAGIC: &[u8; 8] = b"WALFRM01";
/// Bytes of the struct.
pub const STRUCT_LEN: usize = 112;
/// What stands between count and size and the struct: the FRAME record's fixed part and its payload's length.
pub const CONSTANT: [u8; 18] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 1];
/// Bytes of the FRAME record.
pub const FRAME_RECORD: usize = CONSTANT.len() + STRUCT_LEN;
/// Most bytes before the first record: count, size and the FRAME record.
pub const MAX_HEAD: usize = 2 * varint::MAX_LEN + FRAME_RECORD;
const MARKER: usize = size_of::<Marker>();

/// What a frame says of itself and its stream. Fields in the order of the struct; those that follow from the content
/// (length, entries, checksums) are filled in by the builder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameHeader {
    /// `FLAG_…`.
    pub flags: u32,
    /// The stream.
    pub stream: StreamId,
    /// Number of the file in the stream.
    pub file: u64,
    /// Where the frame stands in the file.
    pub offset: u64,
    /// Number of the frame in the stream, dense, from 1.
    pub frame_seq: u64,
    /// The highest frame of the stream that was known durable when this one was built.
    pub durable_frame: u64,
    /// The crc of the frame before, 0 in the first.
    pub prev_crc: u32,
    /// The epoch of the process.
    pub epoch: Epoch,
    /// Frames up to this one of this stream may be gone.
    pub floor: u64,
    /// Streams of lower epochs may be gone.
    pub oldest: Epoch,
    /// Streams of epoch `oldest` and a lower session may be gone.
    pub oldest_session: u32,
}

/// A frame grew beyond [`MAX_FRAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes exceeds the limit of {MAX_FRAME}")]
pub struct FrameTooLong(pub usize);

/// A finished frame.
#[derive(Clone, Copy, Debug)]
pub struct BuiltFrame<'a> {
    /// All of it. Its first byte lies on a multiple of [`PAGE`] in memory.
    pub bytes: &'a [u8],
    /// `prev_crc` of the next one.
    pub crc: u32,
}

/// Fills the struct and both checksums of a block that is complete but for them. Answers crc.
pub(crate) fn seal(block: &mut [u8], struct_at: usize, header: &FrameHeader, entries: u32) -> u32 {
    let FrameHeader {
        flags,
        stream,
        file,
        offset,
        frame_seq,
        durable_frame,
        prev_crc,
        epoch,
        floor,
        oldest,
        oldest_session,
    } = header;
    let length = u32::try_from(block.len()).unwrap_or(u32::MAX);
    let mut fields = [0_u8; STRUCT_LEN];
    let mut put = |at: usize, bytes: &[u8]| fields[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, FRAME_MAGIC);
    put(12, &length.to_le_bytes());
    put(20, &flags.to_le_bytes());
    put(24, &stream.0);
    put(40, &file.to_le_bytes());
    put(48, &offset.to_le_bytes());
    put(56, &frame_seq.to_le_bytes());
    put(64, &durable_frame.to_le_bytes());
    put(72, &prev_crc.to_le_bytes());
    put(76, &entries.to_le_bytes());
    put(80, &epoch.0.to_le_bytes());
    put(88, &floor.to_le_bytes());
    put(96, &oldest.0.to_le_bytes());
    put(104, &oldest_session.to_le_bytes());
    let head = head_crc(&fields);
    fields[16..20].copy_from_slice(&head.to_le_bytes());
    block[struct_at..struct_at + STRUCT_LEN].copy_from_slice(&fields);
    let crc = block_crc(stream, *file, *offset, block, struct_at);
    block[struct_at + 8..struct_at + 12].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// CRC32C of the struct without `crc` and `head_crc`.
pub(crate) fn head_crc(fields: &[u8; STRUCT_LEN]) -> u32 {
    let crc = crc32c::crc32c(&fields[..8]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &fields[12..16]), &fields[20..])
}

/// CRC32C of stream, file, offset and the block up to its marker, with the crc field as zero. `block` must hold the
/// struct and the marker.
pub(crate) fn block_crc(stream: &StreamId, file: u64, offset: u64, block: &[u8], struct_at: usize) -> u32 {
    let mut place = [0; 32];
    place[..16].copy_from_slice(&stream.0);
    place[16..24].copy_from_slice(&file.to_le_bytes());
    place[24..].copy_from_slice(&offset.to_le_bytes());
    let (before, rest) = block.split_at(struct_at + 8);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&place), before);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &rest[4..rest.len() - MARKER])
}

/// How a frame is laid out.
#[derive(Clone, Copy)]
struct Layout {
    /// From count through marker.
    length: usize,
    /// What `count` says.
    count: u64,
    /// What `size` says.
    size: usize,
    /// Bytes of the PAD record, 0 without one.
    pad: usize,
}

fn number_len(value: usize) -> usize {
    varint::len(i64::try_from(value).unwrap_or(i64::MAX))
}

/// Bytes of the payload of a PAD record of `total` bytes; `None` where there is no such record.
fn pad_payload(total: usize) -> Option<usize> {
    let rest = total.checked_sub(16)?;
    (1..=varint::MAX_LEN).find_map(|digits| {
        let payload = rest.checked_sub(digits)?;
        (number_len(payload) == digits).then_some(payload)
    })
}

impl Layout {
    /// In a slot: the least number of pages for which there is a PAD of the needed size.
    fn slot(records: u64, bytes: usize) -> Self {
        let count = records + 2;
        let count_len = varint::len(i64::try_from(count).unwrap_or(i64::MAX));
        let mut pages = (count_len + 1 + FRAME_RECORD + bytes + MARKER).div_ceil(PAGE);
        loop {
            let length = pages * PAGE;
            let found = (1..=varint::MAX_LEN).find_map(|digits| {
                let size = length.checked_sub(count_len + digits + MARKER)?;
                let pad = size.checked_sub(FRAME_RECORD + bytes)?;
                (number_len(size) == digits && pad_payload(pad).is_some()).then_some((size, pad))
            });
            if let Some((size, pad)) = found {
                return Self { length, count, size, pad };
            }
            pages += 1;
        }
    }

    /// In a bucket's object: as long as it is.
    fn object(records: u64, bytes: usize) -> Self {
        let count = records + 1;
        let size = FRAME_RECORD + bytes;
        let length = varint::len(i64::try_from(count).unwrap_or(i64::MAX)) + number_len(size) + size + MARKER;
        Self { length, count, size, pad: 0 }
    }

    fn head_len(&self) -> usize {
        varint::len(i64::try_from(self.count).unwrap_or(i64::MAX)) + number_len(self.size) + FRAME_RECORD
    }
}

/// Bytes from the start of `buf` to the first multiple of [`PAGE`] in memory.
pub(crate) fn page_offset(buf: &[u8]) -> usize {
    // `align_offset` may answer usize::MAX where it cannot be known: then nothing is aligned, and nothing else breaks.
    match buf.as_ptr().align_offset(PAGE) {
        offset if offset < PAGE => offset,
        _ => 0,
    }
}

/// Bytes of the frame in a slot that holds so many records of so many bytes together.
#[must_use]
pub fn slot_frame_len(records: u64, bytes: usize) -> usize {
    Layout::slot(records, bytes).length
}

/// Lays frames out, one after the other, in one buffer.
///
/// The width of a frame's first two numbers depends on its content, and its first byte is placed on a multiple of
/// [`PAGE`] in memory (as O_DIRECT wants it). With the right numbers given to [`Self::start`] the records are copied once,
/// into their place; with other numbers they may be moved once more at the end.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    buf: Vec<u8>,
    records_at: usize,
    records: u64,
    entries: u32,
}

impl FrameBuilder {
    /// An empty one, without a buffer yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a frame that will hold so many records of so many bytes together; forgets what was there.
    pub fn start(&mut self, records: u64, bytes: usize) {
        let layout = Layout::slot(records, bytes);
        self.buf.clear();
        self.buf.reserve(layout.length + PAGE);
        self.records_at = self.aligned() + layout.head_len();
        self.buf.resize(self.records_at, 0);
        self.records = 0;
        self.entries = 0;
    }

    fn aligned(&self) -> usize {
        page_offset(&self.buf)
    }

    /// Adds encoded records: how many they are, and how many of them are DATA.
    pub fn push(&mut self, encoded: &[u8], records: u64, entries: u32) {
        self.buf.extend_from_slice(encoded);
        self.records += records;
        self.entries = self.entries.saturating_add(entries);
    }

    /// Adds encoded records that `copy` appends: how many they are, and how many of them are DATA.
    pub fn push_with(&mut self, records: u64, entries: u32, copy: impl FnOnce(&mut Vec<u8>)) {
        copy(&mut self.buf);
        self.records += records;
        self.entries = self.entries.saturating_add(entries);
    }

    /// Adds one record that is not DATA, as `encode` appends it.
    pub fn push_fact(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.buf);
        self.records += 1;
    }

    /// Bytes of the records so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buf.len() - self.records_at
    }

    /// Records so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// DATA records so far.
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.entries
    }

    /// Bytes that the frame would have in a slot if it were finished now.
    #[must_use]
    pub fn slot_len(&self) -> usize {
        slot_frame_len(self.records, self.bytes())
    }

    /// Finishes the frame for a slot: padded to whole pages. Call [`Self::start`] before the next one.
    ///
    /// # Errors
    /// When it is longer than [`MAX_FRAME`].
    pub fn finish_slot(&mut self, header: &FrameHeader, marker: &Marker) -> Result<BuiltFrame<'_>, FrameTooLong> {
        self.finish(Layout::slot(self.records, self.bytes()), header, marker)
    }

    /// Finishes the frame for a bucket's object: without PAD.
    ///
    /// # Errors
    /// When it is longer than [`MAX_FRAME`].
    pub fn finish_object(&mut self, header: &FrameHeader, marker: &Marker) -> Result<BuiltFrame<'_>, FrameTooLong> {
        self.finish(Layout::object(self.records, self.bytes()), header, marker)
    }

    fn finish(
        &mut self,
        layout: Layout,
        header: &FrameHeader,
        marker: &Marker,
    ) -> Result<BuiltFrame<'_>, FrameTooLong> {
        if layout.length > MAX_FRAME {
            return Err(FrameTooLong(layout.length));
        }
        let bytes = self.bytes();
        // After this the buffer does not move any more.
        self.buf.reserve((layout.length + PAGE).saturating_sub(self.buf.len()));
        let start = self.aligned();
        let records_at = start + layout.head_len();
        if records_at != self.records_at {
            self.buf.resize(self.buf.len().max(records_at + bytes), 0);
            self.buf.copy_within(self.records_at..self.records_at + bytes, records_at);
            self.records_at = records_at;
        }
        self.buf.truncate(start + layout.head_len() + bytes);
        if let Some(payload) = pad_payload(layout.pad) {
            self.buf.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            put_number(&mut self.buf, payload as u64);
            self.buf.resize(start + layout.length - MARKER, 0);
        }
        self.buf.extend_from_slice(marker);

        let mut head = Vec::with_capacity(MAX_HEAD);
        put_number(&mut head, layout.count);
        put_number(&mut head, layout.size as u64);
        head.extend_from_slice(&CONSTANT);
        let struct_at = head.len();
        self.buf[start..start + struct_at].copy_from_slice(&head);
        let block = &mut self.buf[start..];
        let crc = seal(block, struct_at, header, self.entries);
        Ok(BuiltFrame { bytes: block, crc })
    }
}

#[cfg(test)]
mod tests;
