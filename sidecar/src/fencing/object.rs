//! The objects of a stream: their keys, their bytes, and what their first bytes say.

use bytes::Bytes;
use uuid::Uuid;

use crate::format::facts::EpochFact;
use crate::format::frame::{
    FLAG_CLAIM, FLAG_CONTROL_ONLY, FLAG_FENCE, FrameBuilder, FrameHeader, FrameTooLong, MAX_HEAD,
};
use crate::format::header::{MAX_HEADER, SlotHeader};
use crate::format::names::{numbered, stream_dir};
use crate::format::scan::{Expected, parse_head};
use crate::format::{Marker, StreamId, StreamKey};
use crate::types::Epoch;

/// The folder of all streams.
pub const JOURNAL: &str = "_wal/journal/";
/// The claim's number.
pub const CLAIM: u64 = 0;
/// The close's number.
pub const CLOSE: u64 = 1;
/// So many bytes of an object say what it is.
pub const HEAD: usize = MAX_HEADER + MAX_HEAD;

/// An object of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The stream.
    pub stream: StreamKey,
    /// Its number there.
    pub number: u64,
}

/// The folder of a stream, with `/` at its end.
#[must_use]
pub fn folder(stream: StreamKey) -> String {
    format!("{JOURNAL}{}/", stream_dir(stream))
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", folder(self.stream), numbered(self.number))
    }
}

impl ObjectKey {
    /// Reads a key; `None` when it is not one that [`std::fmt::Display`] prints.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (stream, number) = key.strip_prefix(JOURNAL)?.strip_suffix(".avro")?.split_once('/')?;
        let (epoch, session) = stream.split_once('.')?;
        let stream = StreamKey { epoch: Epoch(epoch.parse().ok()?), session: session.parse().ok()? };
        let parsed = Self { stream, number: number.parse().ok()? };
        (parsed.to_string() == key).then_some(parsed)
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Number 0: an epoch is taken.
    Claim,
    /// The close or a commit.
    Ordinary,
    /// The end of a stream, put there by a later start.
    Fence,
}

/// What the first bytes of an object say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is.
    pub kind: Kind,
    /// The stream in whose folder it lies.
    pub stream: StreamId,
    /// Its number.
    pub number: u64,
    /// The crc of its frame.
    pub crc: u32,
    /// Who wrote it: the stream's epoch, or the fencer's.
    pub epoch: Epoch,
    /// Objects up to this number may be gone.
    pub floor: u64,
    /// Streams before this one may be gone.
    pub oldest: StreamKey,
}

impl Seen {
    /// Reads what the object at `key` says of itself; `None` where it does not hold.
    #[must_use]
    pub fn parse(bytes: &[u8], key: ObjectKey) -> Option<Self> {
        let (header, length) = SlotHeader::parse_object(bytes).ok()?;
        if (header.key, header.file) != (key.stream, key.number) {
            return None;
        }
        let expected = Expected { stream: Some(header.stream), epoch: key.stream.epoch, file: key.number };
        let head = parse_head(bytes.get(length..)?, &expected, length as u64).ok()??;
        let flags = head.header.flags;
        let kind = match (flags & FLAG_CLAIM != 0, flags & FLAG_FENCE != 0) {
            (true, false) if key.number == CLAIM => Kind::Claim,
            (false, true) => Kind::Fence,
            (false, false) if key.number != CLAIM => Kind::Ordinary,
            _ => return None,
        };
        Some(Self::of(kind, &head.header, head.crc))
    }

    fn of(kind: Kind, header: &FrameHeader, crc: u32) -> Self {
        let FrameHeader { stream, file, epoch, floor, oldest, oldest_session, .. } = *header;
        let oldest = StreamKey { epoch: oldest, session: oldest_session };
        Self { kind, stream, number: file, crc, epoch, floor, oldest }
    }

    /// Whether the object of which `found` was read is this one.
    #[must_use]
    pub fn is(&self, found: &Self) -> bool {
        self == found || mutant!(AnyObjectIsOurs)
    }
}

/// An object made once, as it is sent as often as needed.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where it goes.
    pub key: ObjectKey,
    /// Its bytes.
    pub bytes: Bytes,
    /// What its first bytes say.
    pub seen: Seen,
}

impl Object {
    /// The object that `head` names, of the frame whose records `builder` holds. Its place is filled in.
    ///
    /// # Errors
    /// When the frame is too long.
    pub fn of_frame(head: &SlotHeader, header: FrameHeader, builder: &mut FrameBuilder) -> Result<Self, FrameTooLong> {
        let mut bytes = head.build_object();
        let header = FrameHeader { stream: head.stream, file: head.file, offset: bytes.len() as u64, ..header };
        let frame = builder.finish_object(&header, &head.marker)?;
        let crc = frame.crc;
        bytes.extend_from_slice(frame.bytes);
        let kind = match header.flags {
            flags if flags & FLAG_CLAIM != 0 => Kind::Claim,
            flags if flags & FLAG_FENCE != 0 => Kind::Fence,
            _ => Kind::Ordinary,
        };
        let key = ObjectKey { stream: head.key, number: head.file };
        Ok(Self { key, bytes: bytes.into(), seen: Seen::of(kind, &header, crc) })
    }
}

/// A process that starts: what is the same in all objects that it writes at its start.
#[derive(Clone, Debug)]
pub struct Author {
    /// The writer.
    pub writer: Uuid,
    /// The directory.
    pub directory: Uuid,
    /// The stream that it begins, at random.
    pub stream: StreamId,
    /// Ends headers and blocks, at random.
    pub marker: Marker,
    /// Who it is. The key is filled in when the epoch is known; `closes` stand in the close only.
    pub epoch: EpochFact,
}

impl Author {
    /// An object with one frame: what `fill` adds to it.
    ///
    /// # Errors
    /// When the frame is too long.
    pub fn object(
        &self,
        key: ObjectKey,
        stream: StreamId,
        header: FrameHeader,
        fill: impl FnOnce(&mut FrameBuilder),
    ) -> Result<Object, FrameTooLong> {
        let Self { writer, directory, marker, .. } = *self;
        let head = SlotHeader { writer, directory, stream, key: key.stream, file: key.number, marker };
        let mut builder = FrameBuilder::new();
        builder.start(1, 0);
        fill(&mut builder);
        Object::of_frame(&head, FrameHeader { frame_seq: key.number, ..header }, &mut builder)
    }

    /// An object that holds nothing but who its author is.
    fn control(&self, key: ObjectKey, of: StreamId, mine: StreamKey, flag: u32) -> Result<Object, FrameTooLong> {
        let fact = EpochFact { key: mine, closes: Vec::new(), accepted: Vec::new(), ..self.epoch.clone() };
        let header = FrameHeader { flags: flag | FLAG_CONTROL_ONLY, epoch: mine.epoch, ..FrameHeader::default() };
        self.object(key, of, header, |builder| {
            builder.push_fact(|out| {
                fact.encode_record(out);
            });
        })
    }

    /// The claim of a stream.
    ///
    /// # Errors
    /// When the members do not fit into a frame.
    pub fn claim(&self, mine: StreamKey) -> Result<Object, FrameTooLong> {
        self.control(ObjectKey { stream: mine, number: CLAIM }, self.stream, mine, FLAG_CLAIM)
    }

    /// A fence in the stream `of`, whose folder is that of `key`.
    ///
    /// # Errors
    /// When the members do not fit into a frame.
    pub fn fence(&self, key: ObjectKey, of: StreamId, mine: StreamKey) -> Result<Object, FrameTooLong> {
        self.control(key, of, mine, FLAG_FENCE)
    }
}
