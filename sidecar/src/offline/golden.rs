//! The golden files in `tests/golden`: what format 1 is, as bytes. They are made here from given identities and markers,
//! must come out the same for ever, and must always be read back.
//!
//! `WALSTORAGE_WRITE_GOLDEN=1` writes them anew: only for a new file, since an old one that differs is a broken format.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::dump::{DumpOptions, dump};
use super::fixture::Made;
use super::{ReadOptions, verify};
use crate::format::facts::{
    CollectionFact, DeleteFact, Fact, FlushedFact, GapCause, GapFact, Producer, Subject, TruncateFact,
};
use crate::format::fixture::{DIRECTORY, Stream, WRITER, batched, collection, entry};
use crate::format::frame::{FLAG_CLEAN_SHUTDOWN, FLAG_CONTROL_ONLY, FrameBuilder};
use crate::format::header::{Codec, SegmentHeader, SegmentOf, SlotHeader};
use crate::format::identity::Identity;
use crate::format::object::parse_object;
use crate::format::record;
use crate::format::segment::{Block, FlushBuilder, Flushed, Index};
use crate::format::{StreamId, StreamKey};
use crate::types::{Epoch, Incarnation, Lsn};

const INC: Incarnation = Incarnation(1 << 20);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares with the file, or writes it.
fn golden(name: &str, bytes: &[u8]) {
    let path = folder().join(name);
    if std::env::var_os("WALSTORAGE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "{name} is not what the encoder makes");
}

fn fact(fact: &impl Fact, name: &str, lsn: u64, epoch: u64) -> Vec<u8> {
    let mut buf = Vec::new();
    fact.encode(&mut buf, Subject { collection_id: name, incarnation: INC, lsn: Lsn(lsn) }, Epoch(epoch));
    buf
}

/// Epoch 1: two slots, ended by a crash in the middle of its last frame. Epoch 2: one slot with a fact of every kind,
/// ended cleanly.
fn streams() -> [Stream; 2] {
    let mut first = Stream::new(1, 0);
    first.begin(Vec::new());
    first.frame(&[
        collection("orders", INC, 0, DIRECTORY, Epoch(1)),
        entry("orders", INC, 1, Epoch(1), b"first"),
        entry("orders", INC, 2, Epoch(1), &[0xEE; 5000]),
    ]);
    first.rotate();
    first.frame(&[
        collection("Straße/0\0", INC, 0, DIRECTORY, Epoch(1)),
        batched("Straße/0\0", INC, 1, 3, Epoch(1), b"a"),
        batched("Straße/0\0", INC, 2, 3, Epoch(1), b""),
        batched("Straße/0\0", INC, 3, 3, Epoch(1), b"c"),
    ]);
    let close = first.close();
    let torn = first.frame(&[entry("orders", INC, 3, Epoch(1), &[0x11; 6000])]);
    first.files[1].as_mut().unwrap()[torn as usize + 4096..].fill(0);

    let mut second = Stream::new(2, 0);
    second.next.oldest = Epoch(1);
    second.begin(vec![close]);
    let producers = vec![Producer { id: b"p-1".to_vec(), last_seq: 7, first_lsn: Lsn(2), count: 1 }];
    let moved = CollectionFact { home: DIRECTORY, move_number: 2, placement: 1, producers };
    let flushed = FlushedFact {
        segment: Uuid::from_u128(0x55),
        directory: DIRECTORY,
        first_lsn: Lsn(1),
        length: 9000,
        index_offset: 8000,
        index_crc: 0x0102_0304,
        sealed: true,
        shared: false,
        bytes: 0,
    };
    second.frame(&[
        fact(&moved, "orders", 2, 2),
        fact(&TruncateFact { head: Lsn(2) }, "orders", 1, 2),
        fact(&flushed, "orders", 1, 2),
        fact(&GapFact { last: Lsn(4), reason: GapCause::DirectoryForgotten }, "orders", 3, 2),
        fact(&DeleteFact, "Straße/0\0", 3, 2),
        entry("orders", INC, 5, Epoch(2), b"after the gap"),
    ]);
    second.frame(&[]);
    second.zeros(2);
    [first, second]
}

#[test]
fn slots_have_the_bytes_they_always_had() {
    for stream in streams() {
        for (file, bytes) in (1..).zip(&stream.files) {
            golden(&stream.name(file).to_string(), bytes.as_ref().unwrap());
        }
    }
    golden("identity.json", Identity::new(DIRECTORY, WRITER, "golden".into()).to_json().as_bytes());
}

#[test]
fn the_golden_slots_say_what_they_always_said() {
    for stream in streams() {
        for file in (1..).take(stream.files.len()) {
            let name = stream.name(file).to_string();
            let mut lines = Vec::new();
            let report = dump(&folder().join(&name), DumpOptions::default(), &mut lines).unwrap();
            lines.extend(
                report.notes.iter().flat_map(|note| format!("{}\n", serde_json::json!({ "note": note })).into_bytes()),
            );
            golden(&name.replace(".avro", ".jsonl"), &lines);
        }
    }
}

#[test]
fn the_golden_directory_is_sound() {
    let made = Made::new(&[]);
    for stream in streams() {
        for file in (1..).take(stream.files.len()) {
            std::fs::copy(folder().join(stream.name(file).to_string()), made.slot(&stream, file)).unwrap();
        }
    }
    std::fs::copy(folder().join("identity.json"), made.path().join("_wal/identity.json")).unwrap();
    let report = verify::verify(&[made.url()], ReadOptions::default(), &mut |_| {}).unwrap();
    assert!(report.ok(), "{:?}", report.problems);
    assert_eq!(report.tails, [], "the torn frame lies beyond the close");
    let orders = &report.collections[0];
    assert_eq!(report.collections.len(), 1);
    assert_eq!((orders.truncated_to, orders.head, orders.entries, orders.gaps.len()), (1, 5, 2, 1));
}

#[test]
fn a_commit_object_has_the_bytes_it_always_had() {
    let header = SlotHeader {
        writer: WRITER,
        directory: DIRECTORY,
        stream: StreamId([0x77; 16]),
        key: StreamKey { epoch: Epoch(3), session: 0 },
        file: 2,
        marker: [0x78; 16],
    };
    let mut bytes = header.build_object();
    let record = entry("orders", INC, 6, Epoch(3), b"in a bucket");
    let mut frame = Stream::new(3, 0).next;
    (frame.stream, frame.file, frame.frame_seq) = (header.stream, 2, 2);
    frame.offset = bytes.len() as u64;
    let mut builder = FrameBuilder::new();
    builder.start(1, record.len());
    builder.push(&record, 1, 1);
    bytes.extend_from_slice(builder.finish_object(&frame, &header.marker).unwrap().bytes);
    golden("object.avro", &bytes);
    let (read, frame) = parse_object(&bytes, None).unwrap();
    assert_eq!(read, header);
    assert_eq!(frame.records().next().unwrap().unwrap().payload, b"in a bucket");
    assert_eq!(frame.head.header.flags & (FLAG_CONTROL_ONLY | FLAG_CLEAN_SHUTDOWN), 0);
}

fn segment(codec: Codec) -> (Vec<u8>, Flushed) {
    let of = SegmentOf::Collection { name: "orders".into(), incarnation: INC, first: Lsn(1) };
    let header = SegmentHeader {
        writer: WRITER,
        directory: DIRECTORY,
        segment: Uuid::from_u128(0x55),
        key: StreamKey { epoch: Epoch(2), session: 0 },
        file: 0,
        codec,
        of,
        marker: [0x99; 16],
    };
    let mut bytes = header.build();
    let mut builder = FlushBuilder::new(codec, header.marker, false, bytes.len() as u64, 0);
    for lsn in 1..=20 {
        let record = entry("orders", INC, lsn, Epoch(1), &[lsn as u8; 100]);
        builder.push(&record::decode(&record).unwrap().0).unwrap();
    }
    let (rest, flushed) = builder.finish(Epoch(2)).unwrap();
    bytes.extend(rest);
    (bytes, flushed)
}

fn read_segment(bytes: &[u8]) -> Vec<u64> {
    let (header, length) = SegmentHeader::parse(bytes).unwrap();
    // One data block and one index: the index is what follows the data block's marker.
    let marker =
        |from: usize| bytes[from..].windows(16).position(|window| window == header.marker).unwrap() + from + 16;
    let index_at = marker(length);
    let stored = &bytes[index_at..];
    let block = Block::parse(stored, crc32c::crc32c(stored), header.codec, &header.marker).unwrap();
    let index = Index::decode(&block.records().next().unwrap().unwrap()).unwrap();
    let at = index.blocks[0];
    let stored = &bytes[at.offset as usize..][..at.length as usize];
    let block = Block::parse(stored, at.crc, header.codec, &header.marker).unwrap();
    block.records().map(|record| record.unwrap().lsn.0).collect()
}

#[test]
fn a_segment_has_the_bytes_it_always_had() {
    let (bytes, flushed) = segment(Codec::Null);
    assert_eq!(flushed.length, bytes.len() as u64);
    golden("segment-null.avro", &bytes);
}

#[test]
fn compressed_golden_segments_are_read() {
    for codec in [Codec::Null, Codec::Snappy, Codec::Zstandard] {
        let path = folder().join(format!("segment-{}.avro", codec.as_str()));
        if std::env::var_os("WALSTORAGE_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, segment(codec).0).unwrap();
        }
        // What a compressor makes may change with its version; what was made must be read.
        assert_eq!(read_segment(&std::fs::read(&path).unwrap()), (1..=20).collect::<Vec<_>>());
        let mut lines = Vec::new();
        let report = dump(&path, DumpOptions::default(), &mut lines).unwrap();
        assert!(report.whole, "{:?}", report.notes);
        golden(&format!("segment-{}.jsonl", codec.as_str()), &lines);
    }
}
