//! One record: an entry, or a fact, as Avro binary of the schema.
//!
//! `crc` is CRC32C of the bytes from `kind` through `ext`, then of the payload's length and bytes: `epoch` stands outside
//! it, so that a copy written by a later epoch equals its original.

use super::cursor::{Cursor, DecodeError};
use super::varint;
use crate::types::{Epoch, Incarnation, Lsn};

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Written by nobody.
    Unknown,
    /// An entry of a collection.
    Data,
    /// The first record of a frame.
    Frame,
    /// The last record of a frame in a slot.
    Pad,
    /// A start of the writer.
    Epoch,
    /// Where a collection lives, and its producers.
    Collection,
    /// Everything up to an LSN is forgotten.
    Truncate,
    /// Everything up to an LSN is in segments.
    Flushed,
    /// LSNs that are lost.
    Gap,
    /// Where the blocks of a segment are.
    Index,
    /// A collection is deleted.
    Delete,
    /// A kind of a later version (11 to 15), which this one may skip: what must be understood is announced by
    /// `wal.features` and by a frame's flags.
    Reserved(u8),
}

impl Kind {
    /// Its index in the schema's enum.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Data => 1,
            Self::Frame => 2,
            Self::Pad => 3,
            Self::Epoch => 4,
            Self::Collection => 5,
            Self::Truncate => 6,
            Self::Flushed => 7,
            Self::Gap => 8,
            Self::Index => 9,
            Self::Delete => 10,
            Self::Reserved(number) => number,
        }
    }

    /// The kind with this index, `None` above 15.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::Unknown,
            1 => Self::Data,
            2 => Self::Frame,
            3 => Self::Pad,
            4 => Self::Epoch,
            5 => Self::Collection,
            6 => Self::Truncate,
            7 => Self::Flushed,
            8 => Self::Gap,
            9 => Self::Index,
            10 => Self::Delete,
            11..=15 => Self::Reserved(number as u8),
            _ => return None,
        })
    }

    /// Its symbol in the schema's enum.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Data => "DATA",
            Self::Frame => "FRAME",
            Self::Pad => "PAD",
            Self::Epoch => "EPOCH",
            Self::Collection => "COLLECTION",
            Self::Truncate => "TRUNCATE",
            Self::Flushed => "FLUSHED",
            Self::Gap => "GAP",
            Self::Index => "INDEX",
            Self::Delete => "DELETE",
            Self::Reserved(11) => "RESERVED11",
            Self::Reserved(12) => "RESERVED12",
            Self::Reserved(13) => "RESERVED13",
            Self::Reserved(14) => "RESERVED14",
            Self::Reserved(_) => "RESERVED15",
        }
    }

    /// The kind with this symbol.
    #[must_use]
    pub fn parse(symbol: &str) -> Option<Self> {
        (0..16).filter_map(Self::from_number).find(|kind| kind.as_str() == symbol)
    }
}

/// What goes into a record, but for its headers.
///
/// Numbers are longs on storage: values above `i64::MAX` cannot be written and are cut to it.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    /// What it is.
    pub kind: Kind,
    /// The collection's name; empty for facts about the writer.
    pub collection_id: &'a str,
    /// Which life of the name.
    pub incarnation: Incarnation,
    /// The entry's position; for facts see [`super::facts`].
    pub lsn: Lsn,
    /// Microseconds since 1970; 0 in facts.
    pub timestamp: i64,
    /// The key, where there is one.
    pub key: Option<&'a [u8]>,
    /// Who sent it; empty when unknown.
    pub producer_id: &'a [u8],
    /// The producer's number of the request.
    pub producer_seq: u64,
    /// LSN of the last entry of its batch, 0 for an entry alone.
    pub batch_end: Lsn,
    /// For later versions, covered by `crc`.
    pub ext: &'a [u8],
    /// The epoch of the process that wrote this copy.
    pub epoch: Epoch,
    /// Opaque bytes.
    pub payload: &'a [u8],
}

impl Default for Fields<'_> {
    /// An empty entry.
    fn default() -> Self {
        Self {
            kind: Kind::Data,
            collection_id: "",
            incarnation: Incarnation(0),
            lsn: Lsn(0),
            timestamp: 0,
            key: None,
            producer_id: &[],
            producer_seq: 0,
            batch_end: Lsn(0),
            ext: &[],
            epoch: Epoch(0),
            payload: &[],
        }
    }
}

fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Appends a number as a long, cut to `i64::MAX`.
pub fn put_number(buf: &mut Vec<u8>, value: u64) {
    varint::put(buf, long(value));
}

/// Appends Avro bytes (or a string).
pub fn put_bytes(buf: &mut Vec<u8>, bytes: &[u8]) {
    put_number(buf, bytes.len() as u64);
    buf.extend_from_slice(bytes);
}

fn bytes_len(bytes: usize) -> usize {
    varint::len(long(bytes as u64)) + bytes
}

/// Bytes that [`encode`] appends.
#[must_use]
pub fn encoded_len<'h>(fields: &Fields<'_>, headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> usize {
    let (mut count, mut headers_len) = (0_u64, 0);
    for (name, value) in headers {
        count += 1;
        headers_len += bytes_len(name.len()) + bytes_len(value.len());
    }
    headers_len += if count == 0 { 1 } else { varint::len(long(count)) + 1 };
    varint::len(i64::from(fields.kind.number()))
        + bytes_len(fields.collection_id.len())
        + varint::len(long(fields.incarnation.0))
        + varint::len(long(fields.lsn.0))
        + varint::len(fields.timestamp)
        + 1
        + fields.key.map_or(0, |key| bytes_len(key.len()))
        + headers_len
        + bytes_len(fields.producer_id.len())
        + varint::len(long(fields.producer_seq))
        + varint::len(long(fields.batch_end.0))
        + bytes_len(fields.ext.len())
        + varint::len(long(fields.epoch.0))
        + 4
        + bytes_len(fields.payload.len())
}

/// Appends one record with its crc (0 for FRAME and PAD). Answers its length.
pub fn encode<'h, H>(buf: &mut Vec<u8>, fields: &Fields<'_>, headers: H) -> usize
where
    H: IntoIterator<Item = (&'h str, &'h [u8])>,
    H::IntoIter: ExactSizeIterator,
{
    let start = buf.len();
    let headers = headers.into_iter();
    varint::put(buf, i64::from(fields.kind.number()));
    put_bytes(buf, fields.collection_id.as_bytes());
    put_number(buf, fields.incarnation.0);
    put_number(buf, fields.lsn.0);
    varint::put(buf, fields.timestamp);
    match fields.key {
        None => buf.push(0),
        Some(key) => {
            buf.push(2);
            put_bytes(buf, key);
        }
    }
    if headers.len() > 0 {
        put_number(buf, headers.len() as u64);
        for (name, value) in headers {
            put_bytes(buf, name.as_bytes());
            put_bytes(buf, value);
        }
    }
    buf.push(0);
    put_bytes(buf, fields.producer_id);
    put_number(buf, fields.producer_seq);
    put_number(buf, fields.batch_end.0);
    put_bytes(buf, fields.ext);
    let mut covered = buf.len();
    put_number(buf, fields.epoch.0);
    if mutant!(EpochInsideCrc) {
        covered = buf.len();
    }
    let crc_at = buf.len();
    buf.extend_from_slice(&[0; 4]);
    put_bytes(buf, fields.payload);
    if !matches!(fields.kind, Kind::Frame | Kind::Pad) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&buf[start..covered]), &buf[crc_at + 4..]);
        buf[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    }
    buf.len() - start
}

/// The headers of an entry, decoded as they are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    count: usize,
    items: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut cursor = Cursor::new(self.items);
        (0..self.count).map_while(move |_| Some((cursor.string("name").ok()?, cursor.bytes("value").ok()?)))
    }
}

/// One record as it stands in a block.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// What it is.
    pub kind: Kind,
    /// The collection's name; empty for facts about the writer.
    pub collection_id: &'a str,
    /// Which life of the name.
    pub incarnation: Incarnation,
    /// The entry's position; for facts see [`super::facts`].
    pub lsn: Lsn,
    /// Microseconds since 1970.
    pub timestamp: i64,
    /// The key, where there is one.
    pub key: Option<&'a [u8]>,
    /// Name and value, in order.
    pub headers: Headers<'a>,
    /// Who sent it.
    pub producer_id: &'a [u8],
    /// The producer's number of the request.
    pub producer_seq: u64,
    /// LSN of the last entry of its batch, 0 for an entry alone.
    pub batch_end: Lsn,
    /// Of later versions.
    pub ext: &'a [u8],
    /// The epoch that wrote this copy.
    pub epoch: Epoch,
    /// As stored; see [`Self::crc_holds`].
    pub crc: u32,
    /// Opaque bytes.
    pub payload: &'a [u8],
    raw: &'a [u8],
    covered: usize,
    payload_at: usize,
}

impl<'a> RecordRef<'a> {
    /// The record's own bytes, all of them.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// What `crc` should be.
    #[must_use]
    pub fn computed_crc(&self) -> u32 {
        let covered = self.raw.get(..self.covered).unwrap_or_default();
        let payload = self.raw.get(self.payload_at..).unwrap_or_default();
        crc32c::crc32c_append(crc32c::crc32c(covered), payload)
    }

    /// Whether the record is what was written. FRAME and PAD carry no crc: for them it must be 0.
    #[must_use]
    pub fn crc_holds(&self) -> bool {
        match self.kind {
            Kind::Frame | Kind::Pad => self.crc == 0,
            _ => self.crc == self.computed_crc(),
        }
    }
}

/// Decodes the record at the start of `bytes`: it and its length. The crc is not checked here: a frame's crc covers it
/// already; see [`RecordRef::crc_holds`].
///
/// # Errors
/// When the bytes are not a whole record in its one encoding.
pub fn decode(bytes: &[u8]) -> Result<(RecordRef<'_>, usize), DecodeError> {
    let mut at = Cursor::new(bytes);
    let number = at.long("kind")?;
    let kind = Kind::from_number(number).ok_or(DecodeError::Range { field: "kind", value: number })?;
    let collection_id = at.string("collection_id")?;
    let incarnation = Incarnation(at.number("incarnation")?);
    let lsn = Lsn(at.number("lsn")?);
    let timestamp = at.long("timestamp")?;
    let key = match at.long("key")? {
        0 => None,
        1 => Some(at.bytes("key")?),
        value => return Err(DecodeError::Range { field: "key", value }),
    };
    let headers = headers(&mut at)?;
    let producer_id = at.bytes("producer_id")?;
    let producer_seq = at.number("producer_seq")?;
    let batch_end = Lsn(at.number("batch_end")?);
    let ext = at.bytes("ext")?;
    let mut covered = at.at();
    let epoch = Epoch(at.number("epoch")?);
    if mutant!(EpochInsideCrc) {
        covered = at.at();
    }
    let crc = u32::from_le_bytes(at.fixed("crc")?);
    let payload_at = at.at();
    let payload = at.bytes("payload")?;
    let raw = at.since(0);
    let record = RecordRef {
        kind,
        collection_id,
        incarnation,
        lsn,
        timestamp,
        key,
        headers,
        producer_id,
        producer_seq,
        batch_end,
        ext,
        epoch,
        crc,
        payload,
        raw,
        covered,
        payload_at,
    };
    Ok((record, raw.len()))
}

fn headers<'a>(at: &mut Cursor<'a>) -> Result<Headers<'a>, DecodeError> {
    let count = at.number("headers")?;
    if count == 0 {
        return Ok(Headers::default());
    }
    let from = at.at();
    for _ in 0..count {
        at.string("header name")?;
        at.bytes("header value")?;
    }
    let items = at.since(from);
    at.array_end("headers")?;
    Ok(Headers { count: usize::try_from(count).unwrap_or(usize::MAX), items })
}

#[cfg(test)]
pub(crate) mod tests;
