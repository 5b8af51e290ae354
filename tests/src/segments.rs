//! Segments of every kind and codec, for readers of other languages.
//!
//! Beside each file FILE stands FILE.jsonl, what `walctl dump FILE` prints: a reader must see the same records.

use std::path::{Path, PathBuf};

use uuid::Uuid;
use walstorage_sidecar::format::StreamKey;
use walstorage_sidecar::format::header::{Codec, SegmentHeader, SegmentOf};
use walstorage_sidecar::format::record::{self, Fields, Kind};
use walstorage_sidecar::format::segment::FlushBuilder;
use walstorage_sidecar::types::{Epoch, Incarnation, Lsn};

use crate::harness::{binaries, run};

/// The codecs by their names in configurations and headers.
pub const CODECS: [&str; 3] = ["null", "snappy", "zstandard"];

const INC: Incarnation = Incarnation(3 << 20);

/// Writes `walctl dump`'s records beside a segment.
fn dump(path: &Path) {
    let dumped = run(binaries::walctl(), ["dump".as_ref(), path.as_os_str()], b"").ok();
    std::fs::write(records_of(path), dumped).expect("the records");
}

/// The file of a segment's records.
#[must_use]
pub fn records_of(path: &Path) -> PathBuf {
    path.with_extension("avro.jsonl")
}

fn entry(collection: &str, lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let keys: [Option<&[u8]>; 3] = [None, Some(b""), Some(&[0, 255, 10])];
    let fields = Fields {
        kind: Kind::Data,
        collection_id: collection,
        incarnation: INC,
        lsn: Lsn(lsn),
        timestamp: 1_700_000_000_000_000 + i64::try_from(lsn).expect("a small number"),
        key: keys[(lsn % 3) as usize],
        producer_id: if lsn.is_multiple_of(2) { b"producer" } else { b"" },
        producer_seq: lsn * (lsn % 2),
        epoch: Epoch(3),
        payload,
        ..Fields::default()
    };
    let headers: [(&str, &[u8]); 2] = [("", b""), ("\u{fc}/\u{1F980}", &[0, 255])];
    record::encode(&mut bytes, &fields, headers.into_iter().take((lsn % 3) as usize));
    bytes
}

/// A segment of these flushes.
fn segment(codec: Codec, of: SegmentOf, flushes: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let header = SegmentHeader {
        writer: Uuid::from_u128(1),
        directory: Uuid::from_u128(2),
        segment: Uuid::new_v4(),
        key: StreamKey { epoch: Epoch(3), session: 0 },
        file: u64::from(of == SegmentOf::Shared),
        codec,
        of,
        marker: Uuid::new_v4().into_bytes(),
    };
    let mut bytes = header.build();
    let mut previous = 0;
    for flush in flushes {
        let shared = header.of == SegmentOf::Shared;
        let mut builder = FlushBuilder::new(codec, header.marker, shared, bytes.len() as u64, previous);
        for entry in flush {
            builder.push(&record::decode(entry).expect("a record").0).expect("a small entry");
        }
        let (rest, flushed) = builder.finish(Epoch(3)).expect("a small index");
        bytes.extend(rest);
        previous = flushed.index_offset;
    }
    bytes
}

/// Makes segments by the format alone: for each codec an own one of three flushes, with entries of no bytes and of more
/// than a block, and a shared one. Answers their files.
#[must_use]
pub fn by_hand(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in CODECS {
        let codec = Codec::parse(name).expect("a codec");
        let of = SegmentOf::Collection { name: "n\u{e4}me/\u{1F980}".into(), incarnation: INC, first: Lsn(1) };
        let noise: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let own = |lsn, payload: &[u8]| entry("n\u{e4}me/\u{1F980}", lsn, payload);
        let flushes = [
            (1..=50).map(|lsn| own(lsn, &vec![b'x'; 40_000])).collect(),
            vec![own(51, b""), own(52, &noise), own(53, b"small")],
            (54..=2000).map(|lsn| own(lsn, &lsn.to_le_bytes())).collect(),
        ];
        let small = |n: u32| (1..=3).map(move |lsn| entry(&format!("small{n}"), lsn, &n.to_le_bytes()));
        let shared: Vec<_> = (0..300).flat_map(small).collect();
        for (kind, bytes) in
            [("own", segment(codec, of, &flushes)), ("shared", segment(codec, SegmentOf::Shared, &[shared]))]
        {
            let path = folder.join(format!("by-hand-{name}-{kind}.avro"));
            std::fs::write(&path, bytes).expect("a segment");
            dump(&path);
            files.push(path);
        }
    }
    files
}
