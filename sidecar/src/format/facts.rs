//! Facts: records that carry state. A fact's payload is an Avro binary record; bytes after the last known field are
//! ignored, so that a later version can add fields at the end.
//!
//! | kind | `collection_id` | `lsn` | payload |
//! |---|---|---|---|
//! | EPOCH | empty | 0 | [`EpochFact`] |
//! | COLLECTION | name | head | [`CollectionFact`] |
//! | TRUNCATE | name | truncated to | [`TruncateFact`] |
//! | FLUSHED | name | flushed to | [`FlushedFact`] |
//! | GAP | name | first lost | [`GapFact`] |
//! | DELETE | name | head | [`DeleteFact`]: nothing |

use uuid::Uuid;

use super::cursor::{Cursor, DecodeError};
use super::record::{self, Fields, Kind, RecordRef, put_bytes, put_number};
use super::{StreamId, StreamKey, varint};
use crate::types::{Epoch, Incarnation, Lsn};

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The collection's name.
    pub collection_id: &'a str,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What the kind of fact says: head, truncated to, flushed to, first lost.
    pub lsn: Lsn,
}

/// A payload that is written as a record of its own kind.
pub trait Fact: Sized {
    /// The record's kind.
    const KIND: Kind;

    /// Appends the payload.
    fn put(&self, buf: &mut Vec<u8>);

    /// Reads the payload.
    ///
    /// # Errors
    /// When the bytes are not such a payload.
    fn get(at: &mut Cursor<'_>) -> Result<Self, DecodeError>;

    /// Appends the whole record. Answers its length.
    fn encode(&self, buf: &mut Vec<u8>, subject: Subject<'_>, epoch: Epoch) -> usize {
        let mut payload = Vec::new();
        self.put(&mut payload);
        let fields = Fields {
            kind: Self::KIND,
            collection_id: subject.collection_id,
            incarnation: subject.incarnation,
            lsn: subject.lsn,
            epoch,
            payload: &payload,
            ..Fields::default()
        };
        record::encode(buf, &fields, [])
    }

    /// Reads the fact that a record carries.
    ///
    /// # Errors
    /// When the record is of another kind, or its payload does not decode.
    fn decode(record: &RecordRef<'_>) -> Result<Self, DecodeError> {
        if record.kind != Self::KIND {
            return Err(DecodeError::Range { field: "kind", value: i64::from(record.kind.number()) });
        }
        Self::get(&mut Cursor::new(record.payload))
    }
}

/// A member of the writer's set of directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The directory.
    pub uuid: Uuid,
    /// Its canonical URL when this was written.
    pub url: String,
    /// Entries may have been placed there.
    pub in_use: bool,
}

/// Where a stream ended, said by its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The stream.
    pub stream: StreamId,
    /// Its place among the streams of the directory.
    pub key: StreamKey,
    /// Its last frame; 0 when it has none.
    pub frame_seq: u64,
    /// The crc of that frame; 0 when there is none.
    pub crc: u32,
}

/// A start of the writer, and its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochFact {
    /// Epoch and session of the stream it stands in.
    pub key: StreamKey,
    /// This process, at random.
    pub run: Uuid,
    /// The version of the format.
    pub format: u64,
    /// The operator's permission, 0 without one.
    pub grant: u64,
    /// Whose it is, empty without one.
    pub holder: String,
    /// The writer's directories.
    pub members: Vec<Member>,
    /// Directories that were given up.
    pub forgotten: Vec<Uuid>,
    /// Where the streams before this one ended.
    pub closes: Vec<Close>,
    /// Damage in the streams before this one that was recorded as gaps: not reported again.
    pub accepted: Vec<AcceptedDamage>,
    /// Rises with every change of the members in one epoch: what the highest says of them counts. 0 where a version
    /// wrote it that had neither this nor `mixed`.
    pub version: u64,
    /// Members that may hold entries of collections whose home they are not: without affinity, or as a journal for all.
    pub mixed: Vec<Uuid>,
}

impl EpochFact {
    /// What the claim of a bucket says: who begins. Of directories and earlier streams the close speaks.
    #[must_use]
    pub fn of_a_claim(run: Uuid, grant: u64, holder: String) -> Self {
        Self {
            key: StreamKey::default(),
            run,
            format: 1,
            grant,
            holder,
            members: Vec::new(),
            forgotten: Vec::new(),
            closes: Vec::new(),
            accepted: Vec::new(),
            version: 1,
            mixed: Vec::new(),
        }
    }
}

/// Frames of an earlier stream whose loss has been recorded as gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptedDamage {
    /// The stream.
    pub stream: StreamId,
    /// The first lost frame.
    pub first_seq: u64,
    /// The last lost frame; `i64::MAX` where it is not known.
    pub last_seq: u64,
}

impl EpochFact {
    /// Whether a member may hold entries of collections whose home it is not.
    #[must_use]
    pub fn may_be_mixed(&self, member: Uuid) -> bool {
        self.version == 0 || self.mixed.contains(&member)
    }

    /// Appends the whole record: an EPOCH is about no collection. Answers its length.
    pub fn encode_record(&self, buf: &mut Vec<u8>) -> usize {
        let subject = Subject { collection_id: "", incarnation: Incarnation(0), lsn: Lsn(0) };
        self.encode(buf, subject, self.key.epoch)
    }
}

fn uuid(at: &mut Cursor<'_>, field: &'static str) -> Result<Uuid, DecodeError> {
    at.fixed(field).map(Uuid::from_bytes)
}

fn put_array<T>(buf: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        put_number(buf, items.len() as u64);
        items.iter().for_each(|item| put(buf, item));
    }
    buf.push(0);
}

impl Fact for EpochFact {
    const KIND: Kind = Kind::Epoch;

    fn put(&self, buf: &mut Vec<u8>) {
        let Self { key, run, format, grant, holder, members, forgotten, closes, accepted, version, mixed } = self;
        put_number(buf, key.epoch.0);
        put_number(buf, key.session.into());
        buf.extend_from_slice(run.as_bytes());
        put_number(buf, *format);
        put_number(buf, *grant);
        put_bytes(buf, holder.as_bytes());
        put_array(buf, members, |buf, member| {
            buf.extend_from_slice(member.uuid.as_bytes());
            put_bytes(buf, member.url.as_bytes());
            buf.push(member.in_use.into());
        });
        put_array(buf, forgotten, |buf, uuid| buf.extend_from_slice(uuid.as_bytes()));
        put_array(buf, closes, |buf, close| {
            buf.extend_from_slice(&close.stream.0);
            put_number(buf, close.key.epoch.0);
            put_number(buf, close.key.session.into());
            put_number(buf, close.frame_seq);
            buf.extend_from_slice(&close.crc.to_le_bytes());
        });
        put_array(buf, accepted, |buf, damage| {
            buf.extend_from_slice(&damage.stream.0);
            put_number(buf, damage.first_seq);
            put_number(buf, damage.last_seq);
        });
        if *version > 0 {
            put_number(buf, *version);
            put_array(buf, mixed, |buf, uuid| buf.extend_from_slice(uuid.as_bytes()));
        }
    }

    fn get(at: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let key =
            |at: &mut Cursor<'_>| Ok(StreamKey { epoch: Epoch(at.number("epoch")?), session: at.small("session")? });
        let mut fact = Self {
            key: key(at)?,
            run: uuid(at, "run")?,
            format: at.number("format")?,
            grant: at.number("grant")?,
            holder: at.string("holder")?.into(),
            members: at.array("members", |at| {
                let uuid = uuid(at, "member uuid")?;
                Ok(Member { uuid, url: at.string("member url")?.into(), in_use: at.boolean("member in_use")? })
            })?,
            forgotten: at.array("forgotten", |at| uuid(at, "forgotten"))?,
            closes: at.array("closes", |at| {
                Ok(Close {
                    stream: StreamId(at.fixed("closed stream")?),
                    key: key(at)?,
                    frame_seq: at.number("closed frame_seq")?,
                    crc: u32::from_le_bytes(at.fixed("closed crc")?),
                })
            })?,
            accepted: at.array("accepted", |at| {
                Ok(AcceptedDamage {
                    stream: StreamId(at.fixed("accepted stream")?),
                    first_seq: at.number("accepted first_seq")?,
                    last_seq: at.number("accepted last_seq")?,
                })
            })?,
            version: 0,
            mixed: Vec::new(),
        };
        if !at.rest().is_empty() {
            fact.version = at.number("version")?;
            fact.mixed = at.array("mixed", |at| uuid(at, "mixed"))?;
        }
        Ok(fact)
    }
}

/// What is known of a producer of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: Vec<u8>,
    /// Its last request.
    pub last_seq: u64,
    /// First LSN of that request.
    pub first_lsn: Lsn,
    /// Entries of that request.
    pub count: u64,
}

/// Where a collection lives, and its producers. The record's `lsn` is its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionFact {
    /// The home directory.
    pub home: Uuid,
    /// Moves of the collection, its creation included: from 1.
    pub move_number: u64,
    /// Placements of the writer when it was created: from 1.
    pub placement: u64,
    /// Its producers.
    pub producers: Vec<Producer>,
}

impl Fact for CollectionFact {
    const KIND: Kind = Kind::Collection;

    fn put(&self, buf: &mut Vec<u8>) {
        let Self { home, move_number, placement, producers } = self;
        buf.extend_from_slice(home.as_bytes());
        put_number(buf, *move_number);
        put_number(buf, *placement);
        put_array(buf, producers, |buf, producer| {
            put_bytes(buf, &producer.id);
            put_number(buf, producer.last_seq);
            put_number(buf, producer.first_lsn.0);
            put_number(buf, producer.count);
        });
    }

    fn get(at: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            home: uuid(at, "home")?,
            move_number: at.number("move")?,
            placement: at.number("placement")?,
            producers: at.array("producers", |at| {
                Ok(Producer {
                    id: at.bytes("producer id")?.into(),
                    last_seq: at.number("producer last_seq")?,
                    first_lsn: Lsn(at.number("producer first_lsn")?),
                    count: at.number("producer count")?,
                })
            })?,
        })
    }
}

/// Everything up to the record's `lsn` is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruncateFact {
    /// The collection's head.
    pub head: Lsn,
}

impl Fact for TruncateFact {
    const KIND: Kind = Kind::Truncate;

    fn put(&self, buf: &mut Vec<u8>) {
        put_number(buf, self.head.0);
    }

    fn get(at: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self { head: Lsn(at.number("head")?) })
    }
}

/// Everything up to the record's `lsn` is in segments, the last of it in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushedFact {
    /// The segment.
    pub segment: Uuid,
    /// The directory that holds it.
    pub directory: Uuid,
    /// The first LSN of the collection in it.
    pub first_lsn: Lsn,
    /// Valid bytes of the file.
    pub length: u64,
    /// Where its last INDEX block starts.
    pub index_offset: u64,
    /// CRC32C of that block, from its count through its marker.
    pub index_crc: u32,
    /// Nothing is added to it any more.
    pub sealed: bool,
    /// It holds several collections.
    pub shared: bool,
    /// Encoded bytes of the collection's entries in it; 0 where that is not said.
    pub bytes: u64,
}

impl Fact for FlushedFact {
    const KIND: Kind = Kind::Flushed;

    fn put(&self, buf: &mut Vec<u8>) {
        let Self { segment, directory, first_lsn, length, index_offset, index_crc, sealed, shared, bytes } = self;
        buf.extend_from_slice(segment.as_bytes());
        buf.extend_from_slice(directory.as_bytes());
        put_number(buf, first_lsn.0);
        put_number(buf, *length);
        put_number(buf, *index_offset);
        buf.extend_from_slice(&index_crc.to_le_bytes());
        buf.push((*sealed).into());
        buf.push((*shared).into());
        if *bytes > 0 {
            put_number(buf, *bytes);
        }
    }

    fn get(at: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            segment: uuid(at, "segment")?,
            directory: uuid(at, "directory")?,
            first_lsn: Lsn(at.number("first_lsn")?),
            length: at.number("length")?,
            index_offset: at.number("index_offset")?,
            index_crc: u32::from_le_bytes(at.fixed("index_crc")?),
            sealed: at.boolean("sealed")?,
            shared: at.boolean("shared")?,
            bytes: if at.rest().is_empty() { 0 } else { at.number("bytes")? },
        })
    }
}

/// Why LSNs are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// 1: stored bytes were damaged.
    Damage,
    /// 2: the directory that held them was given up.
    DirectoryForgotten,
    /// A reason of a later version.
    Other(i32),
}

/// The LSNs from the record's `lsn` to `last` are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapFact {
    /// The last lost LSN.
    pub last: Lsn,
    /// Why.
    pub reason: GapCause,
}

impl Fact for GapFact {
    const KIND: Kind = Kind::Gap;

    fn put(&self, buf: &mut Vec<u8>) {
        put_number(buf, self.last.0);
        let reason = match self.reason {
            GapCause::Damage => 1,
            GapCause::DirectoryForgotten => 2,
            GapCause::Other(number) => number,
        };
        varint::put(buf, reason.into());
    }

    fn get(at: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let last = Lsn(at.number("last")?);
        let value = at.long("reason")?;
        let reason = match i32::try_from(value).map_err(|_| DecodeError::Range { field: "reason", value })? {
            1 => GapCause::Damage,
            2 => GapCause::DirectoryForgotten,
            other => GapCause::Other(other),
        };
        Ok(Self { last, reason })
    }
}

/// The collection, in this incarnation and all before it, is deleted. The record's `lsn` is its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteFact;

impl Fact for DeleteFact {
    const KIND: Kind = Kind::Delete;

    fn put(&self, _buf: &mut Vec<u8>) {}

    fn get(_at: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests;
