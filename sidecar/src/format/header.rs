//! The header of a file: that of an Avro object container file, with our metadata in a fixed order and a checksum.
//!
//! A slot's header is padded to exactly one page; headers of bucket objects and of segments are as long as they are. A
//! header whose `wal.crc` does not hold is a bad header, and its file counts as absent. A header that holds and names a
//! format or a feature that this version does not know must stop the reader: see [`HeaderError::must_stop`].

use uuid::Uuid;

use super::cursor::{Cursor, DecodeError};
use super::limits::PAGE;
use super::record::{put_bytes, put_number};
use super::schema::SCHEMA;
use super::{Marker, StreamId, StreamKey};
use crate::types::{Epoch, Incarnation, Lsn};

/// The version of the format.
pub const FORMAT: &str = "1";
/// `wal.features` that this version understands.
pub const FEATURES: [&str; 0] = [];
/// Longest header that is read: a segment's header with the longest collection name is far below.
pub const MAX_HEADER: usize = 2 * PAGE;

const MAGIC: &[u8; 4] = b"Obj\x01";
const CRC_KEY: &str = "wal.crc";
const CRC_ZERO: &[u8; 8] = b"00000000";

/// Why a header is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is shorter than its header.
    #[error("the file ends inside its header, after {0} bytes")]
    Short(usize),
    /// It does not start as an Avro object container file does.
    #[error("it does not start like an Avro object container file")]
    Magic,
    /// The metadata does not decode.
    #[error("its metadata is malformed: {0}")]
    Metadata(#[from] DecodeError),
    /// `wal.crc` does not hold.
    #[error("its wal.crc does not hold")]
    Crc,
    /// A key is missing or its value is none.
    #[error("its metadata has no valid {0}")]
    Field(&'static str),
    /// It is another kind of file.
    #[error("it is a file of kind {found:?}, not {expected:?}")]
    Kind {
        /// What was expected.
        expected: &'static str,
        /// What `wal.kind` says.
        found: String,
    },
    /// It is valid, and its name says that it is another file.
    #[error("it belongs to file {file} of stream {key}")]
    Place {
        /// Epoch and session in the header.
        key: StreamKey,
        /// File number in the header.
        file: u64,
    },
    /// It is valid, and other files of the same epoch and session belong to another stream.
    #[error("it belongs to the stream {0}, and the files beside it do not")]
    Stream(StreamId),
    /// A later format. The reader must stop.
    #[error("it is of format {0:?}, and this version reads format 1 only")]
    Format(String),
    /// A feature of a later version. The reader must stop.
    #[error("it needs the feature {0:?}, which this version does not know")]
    Feature(String),
}

impl HeaderError {
    /// Whether the file was written by a later version, so that nothing of the directory may be used or written.
    #[must_use]
    pub const fn must_stop(&self) -> bool {
        matches!(self, Self::Format(_) | Self::Feature(_))
    }
}

/// What the header of a journal's slot (or commit object) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotHeader {
    /// The writer.
    pub writer: Uuid,
    /// The directory.
    pub directory: Uuid,
    /// The stream.
    pub stream: StreamId,
    /// Its epoch and session.
    pub key: StreamKey,
    /// Number of the file in the stream, from 1.
    pub file: u64,
    /// Ends the header and each block.
    pub marker: Marker,
}

/// How a segment's blocks are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    Null,
    /// Snappy, with Avro's CRC32 behind it.
    Snappy,
    /// Zstandard.
    Zstandard,
}

impl Codec {
    /// Its Avro name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Snappy => "snappy",
            Self::Zstandard => "zstandard",
        }
    }

    /// The codec of this Avro name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Null, Self::Snappy, Self::Zstandard].into_iter().find(|codec| codec.as_str() == name)
    }
}

/// Whose entries a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentOf {
    /// One collection.
    Collection {
        /// Its name.
        name: String,
        /// Which life of it.
        incarnation: Incarnation,
        /// The first LSN.
        first: Lsn,
    },
    /// Several small ones.
    Shared,
}

/// What the header of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The writer.
    pub writer: Uuid,
    /// The directory.
    pub directory: Uuid,
    /// The segment, under either of its names.
    pub segment: Uuid,
    /// Epoch and session that began it.
    pub key: StreamKey,
    /// Number of a shared segment, 0 for a collection's own.
    pub file: u64,
    /// How its blocks are compressed.
    pub codec: Codec,
    /// Whose entries it holds.
    pub of: SegmentOf,
    /// Ends the header and each block.
    pub marker: Marker,
}

/// Builds a header from metadata in the order given. `wal.crc` must be among it, with [`CRC_ZERO`] as its value.
fn build(metadata: &[(&str, &[u8])], marker: &Marker) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PAGE);
    bytes.extend_from_slice(MAGIC);
    put_number(&mut bytes, metadata.len() as u64);
    let mut crc_at = 0;
    for (key, value) in metadata {
        put_bytes(&mut bytes, key.as_bytes());
        put_bytes(&mut bytes, value);
        if *key == CRC_KEY {
            crc_at = bytes.len() - value.len();
        }
    }
    bytes.push(0);
    bytes.extend_from_slice(marker);
    let crc = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes[crc_at..crc_at + 8].copy_from_slice(crc.as_bytes());
    bytes
}

impl SlotHeader {
    fn metadata<'a>(&self, texts: &'a mut [String; 6]) -> Vec<(&'static str, &'a [u8])> {
        *texts = [
            self.writer.to_string(),
            self.directory.to_string(),
            self.stream.to_string(),
            self.key.epoch.to_string(),
            self.key.session.to_string(),
            self.file.to_string(),
        ];
        let [writer, directory, stream, epoch, session, file] = &*texts;
        vec![
            ("avro.schema", SCHEMA.as_bytes()),
            ("avro.codec", b"null"),
            ("wal.format", FORMAT.as_bytes()),
            ("wal.features", b""),
            ("wal.kind", b"journal"),
            ("wal.writer", writer.as_bytes()),
            ("wal.directory", directory.as_bytes()),
            ("wal.stream", stream.as_bytes()),
            ("wal.epoch", epoch.as_bytes()),
            ("wal.session", session.as_bytes()),
            ("wal.file", file.as_bytes()),
            (CRC_KEY, CRC_ZERO),
        ]
    }

    /// The header of a slot: exactly one page.
    #[must_use]
    pub fn build_slot(&self) -> Vec<u8> {
        let mut texts = <[String; 6]>::default();
        let mut metadata = self.metadata(&mut texts);
        // The pad's length is a number of two bytes for all lengths from 64 to 8,191, so one trial gives the rest; what
        // stands before it is below 2 KiB whatever the fields say.
        let spaces = [b' '; PAGE];
        metadata.push(("wal.pad", &spaces[..64]));
        let rest = PAGE.saturating_sub(build(&metadata, &self.marker).len());
        metadata.pop();
        metadata.push(("wal.pad", &spaces[..64 + rest]));
        build(&metadata, &self.marker)
    }

    /// The header of a bucket's commit object: not padded.
    #[must_use]
    pub fn build_object(&self) -> Vec<u8> {
        build(&self.metadata(&mut <[String; 6]>::default()), &self.marker)
    }

    /// Reads the header of a slot from the file's first page (more bytes do not matter).
    ///
    /// # Errors
    /// When it is not a valid header of one page.
    pub fn parse_slot(bytes: &[u8]) -> Result<Self, HeaderError> {
        let page = bytes.get(..PAGE).ok_or(HeaderError::Short(bytes.len()))?;
        match Self::parse_object(page)? {
            (header, PAGE) => Ok(header),
            _ => Err(HeaderError::Field("wal.pad")),
        }
    }

    /// Reads the header of a commit object: it and its length.
    ///
    /// # Errors
    /// When it is not a valid header of a journal.
    pub fn parse_object(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        let raw = Raw::parse(bytes)?;
        raw.expect_kind("journal")?;
        if raw.text("avro.codec")? != "null" {
            return Err(HeaderError::Field("avro.codec"));
        }
        let header = Self {
            writer: raw.uuid("wal.writer")?,
            directory: raw.uuid("wal.directory")?,
            stream: StreamId::parse(raw.text("wal.stream")?).ok_or(HeaderError::Field("wal.stream"))?,
            key: raw.key()?,
            file: raw.number("wal.file")?,
            marker: raw.marker,
        };
        Ok((header, raw.length))
    }
}

impl SegmentHeader {
    /// The header of a segment.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let writer = self.writer.to_string();
        let directory = self.directory.to_string();
        let segment = self.segment.to_string();
        let epoch = self.key.epoch.to_string();
        let session = self.key.session.to_string();
        let file = self.file.to_string();
        let of = match &self.of {
            SegmentOf::Collection { name, incarnation, first } => {
                Some((name.as_bytes(), incarnation.0.to_string(), first.0.to_string()))
            }
            SegmentOf::Shared => None,
        };
        let mut metadata: Vec<(&str, &[u8])> = vec![
            ("avro.schema", SCHEMA.as_bytes()),
            ("avro.codec", self.codec.as_str().as_bytes()),
            ("wal.format", FORMAT.as_bytes()),
            ("wal.features", b""),
            ("wal.kind", if of.is_some() { b"segment" } else { b"shared" }),
            ("wal.writer", writer.as_bytes()),
            ("wal.directory", directory.as_bytes()),
            ("wal.segment", segment.as_bytes()),
            ("wal.epoch", epoch.as_bytes()),
            ("wal.session", session.as_bytes()),
            ("wal.file", file.as_bytes()),
        ];
        if let Some((name, incarnation, first)) = &of {
            metadata.push(("wal.collection", name));
            metadata.push(("wal.incarnation", incarnation.as_bytes()));
            metadata.push(("wal.first", first.as_bytes()));
        }
        metadata.push((CRC_KEY, CRC_ZERO));
        build(&metadata, &self.marker)
    }

    /// Reads the header at the start of a segment: it and its length.
    ///
    /// # Errors
    /// When it is not a valid header of a segment.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        let raw = Raw::parse(bytes)?;
        let of = match raw.text("wal.kind")? {
            "segment" => SegmentOf::Collection {
                name: raw.text("wal.collection")?.into(),
                incarnation: Incarnation(raw.number("wal.incarnation")?),
                first: Lsn(raw.number("wal.first")?),
            },
            "shared" => SegmentOf::Shared,
            other => return Err(HeaderError::Kind { expected: "segment", found: other.into() }),
        };
        let header = Self {
            writer: raw.uuid("wal.writer")?,
            directory: raw.uuid("wal.directory")?,
            segment: raw.uuid("wal.segment")?,
            key: raw.key()?,
            file: raw.number("wal.file")?,
            codec: Codec::parse(raw.text("avro.codec")?).ok_or(HeaderError::Field("avro.codec"))?,
            of,
            marker: raw.marker,
        };
        Ok((header, raw.length))
    }
}

/// A header whose crc holds and whose format and features are known.
struct Raw<'a> {
    metadata: Vec<(&'a str, &'a [u8])>,
    marker: Marker,
    length: usize,
}

impl<'a> Raw<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        let bytes = bytes.get(..MAX_HEADER).unwrap_or(bytes);
        let mut at = Cursor::new(bytes);
        let short = |error| match error {
            DecodeError::End(_) => HeaderError::Short(bytes.len()),
            other => HeaderError::Metadata(other),
        };
        if at.fixed::<4>("magic").map_err(short)? != *MAGIC {
            return Err(HeaderError::Magic);
        }
        let mut metadata = Vec::new();
        let mut crc_at = None;
        for _ in 0..at.number("metadata").map_err(short)? {
            let key = at.string("metadata key").map_err(short)?;
            let value = at.bytes("metadata value").map_err(short)?;
            if key == CRC_KEY && value.len() == CRC_ZERO.len() {
                crc_at = Some(at.at() - value.len());
            }
            metadata.push((key, value));
        }
        if !metadata.is_empty() {
            at.array_end("metadata").map_err(short)?;
        }
        let marker = at.fixed("marker").map_err(short)?;
        let header = at.since(0);
        let (before, rest) = header.split_at(crc_at.ok_or(HeaderError::Field(CRC_KEY))?);
        let (stored, after) = rest.split_at(CRC_ZERO.len());
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), CRC_ZERO), after);
        if stored != format!("{crc:08x}").as_bytes() {
            return Err(HeaderError::Crc);
        }
        let raw = Self { metadata, marker, length: header.len() };
        match raw.text("wal.format")? {
            FORMAT => {}
            other => return Err(HeaderError::Format(other.into())),
        }
        let known = |name: &str| name.is_empty() || FEATURES.contains(&name);
        if let Some(unknown) = raw.text("wal.features")?.split(',').find(|name| !known(name)) {
            return Err(HeaderError::Feature(unknown.into()));
        }
        if raw.text("avro.schema")? != SCHEMA {
            return Err(HeaderError::Field("avro.schema"));
        }
        Ok(raw)
    }

    fn text(&self, key: &'static str) -> Result<&'a str, HeaderError> {
        let (_, value) = self.metadata.iter().find(|(name, _)| *name == key).ok_or(HeaderError::Field(key))?;
        std::str::from_utf8(value).map_err(|_| HeaderError::Field(key))
    }

    fn uuid(&self, key: &'static str) -> Result<Uuid, HeaderError> {
        Uuid::try_parse(self.text(key)?).map_err(|_| HeaderError::Field(key))
    }

    fn number(&self, key: &'static str) -> Result<u64, HeaderError> {
        let text = self.text(key)?;
        let number = text.parse().map_err(|_| HeaderError::Field(key))?;
        // One number has one spelling: no sign, no leading zero.
        if u64::to_string(&number) == text { Ok(number) } else { Err(HeaderError::Field(key)) }
    }

    fn key(&self) -> Result<StreamKey, HeaderError> {
        let session = u32::try_from(self.number("wal.session")?).map_err(|_| HeaderError::Field("wal.session"))?;
        Ok(StreamKey { epoch: Epoch(self.number("wal.epoch")?), session })
    }

    fn expect_kind(&self, expected: &'static str) -> Result<(), HeaderError> {
        let found = self.text("wal.kind")?;
        if found == expected { Ok(()) } else { Err(HeaderError::Kind { expected, found: found.into() }) }
    }
}

#[cfg(test)]
mod tests;
