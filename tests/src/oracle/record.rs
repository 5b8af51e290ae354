//! One record of the schema, and the payloads of the facts.

use super::avro::{Cursor, crc};

/// The kinds, by their number in the schema.
pub mod kind {
    /// An entry.
    pub const DATA: u64 = 1;
    /// The first record of a frame.
    pub const FRAME: u64 = 2;
    /// The last record of a frame.
    pub const PAD: u64 = 3;
    /// What a process start knew.
    pub const EPOCH: u64 = 4;
    /// A collection's home and producers.
    pub const COLLECTION: u64 = 5;
    /// A collection was truncated.
    pub const TRUNCATE: u64 = 6;
    /// Entries are in a segment.
    pub const FLUSHED: u64 = 7;
    /// Entries are lost.
    pub const GAP: u64 = 8;
    /// Where the blocks of a flush are.
    pub const INDEX: u64 = 9;
    /// A collection was deleted.
    pub const DELETE: u64 = 10;
}

/// A record as it stands in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Number of the kind in the schema.
    pub kind: u64,
    /// The true name.
    pub collection: String,
    /// Which life of the name.
    pub incarnation: u64,
    /// Its position, or what the kind says.
    pub lsn: u64,
    /// Microseconds since 1970.
    pub timestamp: i64,
    /// The key, where there is one.
    pub key: Option<Vec<u8>>,
    /// Name and value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Of the request; may be empty.
    pub producer_id: Vec<u8>,
    /// Of the request; 0 without.
    pub producer_seq: u64,
    /// LSN of the batch's last entry; 0: alone.
    pub batch_end: u64,
    /// Of the process that wrote this copy.
    pub epoch: u64,
    /// Opaque.
    pub payload: Vec<u8>,
    /// What the record says of itself.
    pub crc: u32,
    /// Whether that is right.
    pub crc_holds: bool,
}

/// Reads one record; `None` when it cannot be one.
pub fn parse(bytes: &[u8], cursor: &mut Cursor<'_>) -> Option<Record> {
    let start = cursor.at();
    let kind = cursor.natural().filter(|kind| *kind < 16)?;
    let collection = cursor.string()?.to_owned();
    let incarnation = cursor.natural()?;
    let lsn = cursor.natural()?;
    let timestamp = cursor.long()?;
    let key = match cursor.long()? {
        0 => None,
        1 => Some(cursor.bytes()?.to_vec()),
        _ => return None,
    };
    let headers = cursor.array(|c| Some((c.string()?.to_owned(), c.bytes()?.to_vec())))?;
    let producer_id = cursor.bytes()?.to_vec();
    let producer_seq = cursor.natural()?;
    let batch_end = cursor.natural()?;
    cursor.bytes()?;
    let covered_end = cursor.at();
    let epoch = cursor.natural()?;
    let stored = u32::from_le_bytes(cursor.fixed()?);
    let payload_at = cursor.at();
    let payload = cursor.bytes()?.to_vec();
    let computed = match kind {
        kind::FRAME | kind::PAD => 0,
        _ => crc(&[&bytes[start..covered_end], &bytes[payload_at..cursor.at()]]),
    };
    Some(Record {
        kind,
        collection,
        incarnation,
        lsn,
        timestamp,
        key,
        headers,
        producer_id,
        producer_seq,
        batch_end,
        epoch,
        payload,
        crc: stored,
        crc_holds: stored == computed,
    })
}

/// A stream whose end a successor wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The stream.
    pub stream: [u8; 16],
    /// Its epoch.
    pub epoch: u64,
    /// Its session.
    pub session: u64,
    /// Its last frame; 0: it had none.
    pub frame_seq: u64,
    /// That frame's crc.
    pub crc: u32,
}

/// A directory of the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The directory.
    pub uuid: [u8; 16],
    /// Where it was.
    pub url: String,
    /// Entries may have been placed there.
    pub in_use: bool,
}

/// Payload of an EPOCH record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochFact {
    /// The process start.
    pub epoch: u64,
    /// The session.
    pub session: u64,
    /// All directories.
    pub members: Vec<Member>,
    /// Directories given up.
    pub forgotten: Vec<[u8; 16]>,
    /// Where the predecessors end.
    pub closes: Vec<Close>,
}

/// Reads the payload of an EPOCH record.
#[must_use]
pub fn parse_epoch(payload: &[u8]) -> Option<EpochFact> {
    let mut c = Cursor::new(payload, 0);
    let (epoch, session) = (c.natural()?, c.natural()?);
    c.take(16)?;
    let (_format, _grant, _holder) = (c.natural()?, c.natural()?, c.string()?);
    let members = c.array(|c| Some(Member { uuid: c.fixed()?, url: c.string()?.to_owned(), in_use: c.boolean()? }))?;
    let forgotten = c.array(Cursor::fixed::<16>)?;
    let closes = c.array(|c| {
        Some(Close {
            stream: c.fixed()?,
            epoch: c.natural()?,
            session: c.natural()?,
            frame_seq: c.natural()?,
            crc: u32::from_le_bytes(c.fixed()?),
        })
    })?;
    Some(EpochFact { epoch, session, members, forgotten, closes })
}

/// What a COLLECTION record knows of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: Vec<u8>,
    /// Its last request.
    pub last_seq: u64,
    /// The first LSN of that.
    pub first_lsn: u64,
    /// How many entries that had.
    pub count: u64,
}

/// Payload of a COLLECTION record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionFact {
    /// The home directory.
    pub home: [u8; 16],
    /// Counts moves, from 1.
    pub moves: u64,
    /// Counts placements of the writer, from 1.
    pub placement: u64,
    /// The producer table.
    pub producers: Vec<Producer>,
}

/// Reads the payload of a COLLECTION record.
#[must_use]
pub fn parse_collection(payload: &[u8]) -> Option<CollectionFact> {
    let mut c = Cursor::new(payload, 0);
    Some(CollectionFact {
        home: c.fixed()?,
        moves: c.natural()?,
        placement: c.natural()?,
        producers: c.array(|c| {
            Some(Producer {
                id: c.bytes()?.to_vec(),
                last_seq: c.natural()?,
                first_lsn: c.natural()?,
                count: c.natural()?,
            })
        })?,
    })
}

/// Reads the payload of a TRUNCATE record: the head.
#[must_use]
pub fn parse_truncate(payload: &[u8]) -> Option<u64> {
    Cursor::new(payload, 0).natural()
}

/// Payload of a FLUSHED record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushedFact {
    /// The segment.
    pub segment: [u8; 16],
    /// The directory that holds it.
    pub directory: [u8; 16],
    /// The first LSN of the collection in it.
    pub first_lsn: u64,
    /// Valid bytes of the file.
    pub length: u64,
    /// Where its last INDEX block starts.
    pub index_offset: u64,
    /// The crc of that block.
    pub index_crc: u32,
    /// Nothing is added any more.
    pub sealed: bool,
    /// It holds several collections.
    pub shared: bool,
}

/// Reads the payload of a FLUSHED record.
#[must_use]
pub fn parse_flushed(payload: &[u8]) -> Option<FlushedFact> {
    let mut c = Cursor::new(payload, 0);
    Some(FlushedFact {
        segment: c.fixed()?,
        directory: c.fixed()?,
        first_lsn: c.natural()?,
        length: c.natural()?,
        index_offset: c.natural()?,
        index_crc: u32::from_le_bytes(c.fixed()?),
        sealed: c.boolean()?,
        shared: c.boolean()?,
    })
}

/// Reads the payload of a GAP record: the last LSN and the reason's number.
#[must_use]
pub fn parse_gap(payload: &[u8]) -> Option<(u64, i64)> {
    let mut c = Cursor::new(payload, 0);
    Some((c.natural()?, c.long()?))
}
