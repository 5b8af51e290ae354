//! One frame: a block that starts at a page with a FRAME record, ends at a page with a PAD record and the marker, and
//! says of itself which stream, file and offset it was written for.

use super::avro::{Cursor, crc};
use super::header::PAGE;
use super::record::{self, Record, kind};

/// The FRAME record up to its payload: kind 2, all else empty or zero, then the length 112.
const FIXED: [u8; 18] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0x01];
const STRUCT: usize = 112;
const KNOWN_FLAGS: u32 = 63;

/// The 112 bytes of a FRAME record whose own checksum holds: a frame was begun here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Checksum of the whole block.
    pub crc: u32,
    /// From count through marker.
    pub length: usize,
    /// What the frame is for.
    pub flags: u32,
    /// The stream it was written for.
    pub stream: [u8; 16],
    /// The file it was written for.
    pub file: u64,
    /// The offset it was written for.
    pub offset: u64,
    /// Its number in the stream, from 1.
    pub seq: u64,
    /// The highest frame known durable when it was built.
    pub durable_frame: u64,
    /// `crc` of the frame before.
    pub prev_crc: u32,
    /// Number of DATA records.
    pub entries: u32,
    /// The process start.
    pub epoch: u64,
    /// Frames up to here may be gone.
    pub floor: u64,
    /// Streams of lower epochs may be gone.
    pub oldest: u64,
    /// Lower sessions of epoch `oldest` may be gone.
    pub oldest_session: u32,
    /// Where the struct starts in the block.
    struct_at: usize,
    /// What the block's count says.
    count: u64,
    /// What the block's size says.
    size: u64,
}

/// Finds a head at `offset` of a file. Stream, file and offset are the caller's to compare.
#[must_use]
pub fn head_at(bytes: &[u8], offset: usize) -> Option<Head> {
    let mut cursor = Cursor::new(bytes, offset);
    let count = cursor.natural()?;
    let size = cursor.natural()?;
    if cursor.take(FIXED.len())? != FIXED {
        return None;
    }
    let struct_at = cursor.at() - offset;
    let s: [u8; STRUCT] = cursor.fixed()?;
    let u32_at = |at: usize| u32::from_le_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let sound = &s[..8] == b"WALFRM01" && u32_at(16) == crc(&[&s[..8], &s[12..16], &s[20..]]) && u32_at(108) == 0;
    sound.then(|| {
        let mut stream = [0; 16];
        stream.copy_from_slice(&s[24..40]);
        Head {
            crc: u32_at(8),
            length: u32_at(12) as usize,
            flags: u32_at(20),
            stream,
            file: u64_at(40),
            offset: u64_at(48),
            seq: u64_at(56),
            durable_frame: u64_at(64),
            prev_crc: u32_at(72),
            entries: u32_at(76),
            epoch: u64_at(80),
            floor: u64_at(88),
            oldest: u64_at(96),
            oldest_session: u32_at(104),
            struct_at,
            count,
            size,
        }
    })
}

/// Reads the records of a frame whose every check but `frame_seq` and `prev_crc` holds (those need its neighbours).
#[must_use]
pub fn records(bytes: &[u8], head: &Head, marker: &[u8; 16]) -> Option<Vec<Record>> {
    let at = usize::try_from(head.offset).ok()?;
    let block = bytes.get(at..at.checked_add(head.length)?)?;
    let body = head.length.checked_sub(16)?;
    let crc_at = head.struct_at + 8;
    let computed = crc(&[
        &head.stream,
        &head.file.to_le_bytes(),
        &head.offset.to_le_bytes(),
        &block[..crc_at],
        &[0; 4],
        &block[crc_at + 4..body],
    ]);
    let sound = head.length.is_multiple_of(PAGE)
        && head.flags & !KNOWN_FLAGS == 0
        && block[body..] == marker[..]
        && computed == head.crc
        && (head.struct_at - FIXED.len()) as u64 + head.size == body as u64;
    if !sound {
        return None;
    }
    let mut cursor = Cursor::new(&block[..body], head.struct_at + STRUCT);
    let mut records = Vec::new();
    for _ in 0..head.count.checked_sub(2)? {
        records.push(record::parse(block, &mut cursor).filter(|r| r.crc_holds && r.kind != kind::PAD)?);
    }
    let pad = record::parse(block, &mut cursor).filter(|r| r.kind == kind::PAD && r.crc == 0)?;
    let entries = records.iter().filter(|r| r.kind == kind::DATA).count();
    let whole = cursor.at() == body
        && pad.payload.iter().all(|byte| *byte == 0)
        && entries == usize::try_from(head.entries).ok()?;
    whole.then_some(records)
}

/// The records of a damaged frame whose own checksum holds, as far as the block can still be walked.
#[must_use]
pub fn survivors(bytes: &[u8], head: &Head) -> Vec<Record> {
    let at = head.offset as usize;
    let end = at.saturating_add(head.length).min(bytes.len());
    let Some(block) = bytes.get(at..end) else { return Vec::new() };
    let mut cursor = Cursor::new(block, head.struct_at + STRUCT);
    let mut kept = Vec::new();
    while let Some(record) = record::parse(block, &mut cursor) {
        if record.kind == kind::PAD {
            break;
        }
        if record.crc_holds {
            kept.push(record);
        }
    }
    kept
}
