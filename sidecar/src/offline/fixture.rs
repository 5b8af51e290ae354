//! Directories made by hand, for tests.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;
use walstorage_crds::url::WalUrl;

use crate::format::StreamKey;
use crate::format::facts::{Fact, FlushedFact, Subject};
use crate::format::fixture::{DIRECTORY, Stream, WRITER};
use crate::format::header::{Codec, SegmentHeader, SegmentOf};
use crate::format::identity::Identity;
use crate::format::record;
use crate::format::segment::{FlushBuilder, Flushed};
use crate::types::{Epoch, Incarnation, Lsn};

/// A segment being written into memory.
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) bytes: Vec<u8>,
    /// What the last flush says.
    pub(super) flushed: Flushed,
}

impl Segment {
    /// A segment of one collection, the first incarnation of epoch 1.
    pub(super) fn own(id: u128, codec: Codec, name: &str, first: u64) -> Self {
        let of = SegmentOf::Collection { name: name.into(), incarnation: Incarnation(1 << 20), first: Lsn(first) };
        Self::new(id, codec, 0, of)
    }

    pub(super) fn shared(id: u128, codec: Codec, file: u64) -> Self {
        Self::new(id, codec, file, SegmentOf::Shared)
    }

    fn new(id: u128, codec: Codec, file: u64, of: SegmentOf) -> Self {
        let header = SegmentHeader {
            writer: WRITER,
            directory: DIRECTORY,
            segment: Uuid::from_u128(id),
            key: StreamKey { epoch: Epoch(1), session: 0 },
            file,
            codec,
            of,
            marker: [id as u8; 16],
        };
        let bytes = header.build();
        Self { header, bytes, flushed: Flushed { length: 0, index_offset: 0, index_crc: 0 } }
    }

    /// Adds a flush of these entries. Answers where it starts.
    pub(super) fn flush(&mut self, records: &[Vec<u8>]) -> usize {
        let at = self.bytes.len();
        let Self { header, flushed, .. } = self;
        let shared = header.of == SegmentOf::Shared;
        let mut builder = FlushBuilder::new(header.codec, header.marker, shared, at as u64, flushed.index_offset);
        for record in records {
            builder.push(&record::decode(record).unwrap().0).unwrap();
        }
        let (bytes, flushed) = builder.finish(Epoch(1)).unwrap();
        self.bytes.extend(bytes);
        self.flushed = flushed;
        at
    }

    /// The FLUSHED record that vouches for it as it is now.
    pub(super) fn fact(&self, name: &str, first: u64, last: u64, sealed: bool) -> Vec<u8> {
        let Flushed { length, index_offset, index_crc } = self.flushed;
        let fact = FlushedFact {
            segment: self.header.segment,
            directory: self.header.directory,
            first_lsn: Lsn(first),
            length,
            index_offset,
            index_crc,
            sealed,
            shared: self.header.of == SegmentOf::Shared,
            bytes: 0,
        };
        let subject = Subject { collection_id: name, incarnation: Incarnation(1 << 20), lsn: Lsn(last) };
        let mut buf = Vec::new();
        fact.encode(&mut buf, subject, Epoch(1));
        buf
    }
}

/// A folder that looks like a directory of a writer.
pub(super) struct Made {
    folder: TempDir,
}

impl Made {
    pub(super) fn new(streams: &[&Stream]) -> Self {
        Self::of(DIRECTORY, streams)
    }

    pub(super) fn of(directory: Uuid, streams: &[&Stream]) -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(made.path().join("_wal/journal")).unwrap();
        let identity = Identity::new(directory, WRITER, "tests".into());
        std::fs::write(made.path().join("_wal/identity.json"), identity.to_json()).unwrap();
        std::fs::write(made.path().join("_wal/lock"), "").unwrap();
        std::fs::create_dir(made.path().join("lost+found")).unwrap();
        std::fs::write(made.path().join("_wal/journal/notes.txt"), "left alone").unwrap();
        for stream in streams {
            for (file, bytes) in (1..).zip(&stream.files) {
                if let Some(bytes) = bytes {
                    std::fs::write(made.slot(stream, file), bytes).unwrap();
                }
            }
        }
        made
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn url(&self) -> WalUrl {
        WalUrl::from_file_path(self.path()).unwrap()
    }

    /// Writes a segment under a name in the directory.
    pub(super) fn put(&self, segment: &Segment, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &segment.bytes).unwrap();
        path
    }

    pub(super) fn slot(&self, stream: &Stream, file: u64) -> PathBuf {
        self.path().join("_wal/journal").join(stream.name(file).to_string())
    }
}
