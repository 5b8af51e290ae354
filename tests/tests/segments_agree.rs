//! The offline tools and the oracle, two readers written apart, judge segments alike: untouched, cut, with flipped bits,
//! and missing; for all codecs, own and shared, sealed and current.
//!
//! `WALSTORAGE_EVERY` = n tries every n-th cut and flip (default 17).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use walstorage_sidecar::format::facts::{EpochFact, Fact, FlushedFact, Member, Subject, TruncateFact};
use walstorage_sidecar::format::frame::{FrameBuilder, FrameHeader};
use walstorage_sidecar::format::header::{Codec, SegmentHeader, SegmentOf, SlotHeader};
use walstorage_sidecar::format::identity::Identity;
use walstorage_sidecar::format::names::SlotName;
use walstorage_sidecar::format::record::{self, Fields, Kind};
use walstorage_sidecar::format::segment::{FlushBuilder, Flushed};
use walstorage_sidecar::format::{StreamId, StreamKey};
use walstorage_sidecar::offline::export::{ExportOptions, export};
use walstorage_sidecar::offline::verify::verify;
use walstorage_sidecar::offline::{OfflineError, ReadOptions};
use walstorage_sidecar::types::{Epoch, Incarnation, Lsn};
use walstorage_tests::harness::Setup;
use walstorage_tests::oracle::{self, SegmentFile, SlotFile};

const WRITER: Uuid = Uuid::from_u128(1);
const DIRECTORY: Uuid = Uuid::from_u128(2);
const E1: Epoch = Epoch(1);
const INC: Incarnation = Incarnation(1 << 20);
const KEY: StreamKey = StreamKey { epoch: E1, session: 0 };
const STREAM: StreamId = StreamId([0xaa; 16]);
const SEALED: &str = "c/wal_00000000000000000001-00000000000000000006.avro";
const CURRENT: &str = "c/wal_current.avro";
const SHARED: &str = "_wal/shared/000000000001.avro";

fn entry(collection: &str, lsn: u64) -> Vec<u8> {
    let payload = format!("{collection} {lsn}");
    let mut bytes = Vec::new();
    let fields = Fields {
        kind: Kind::Data,
        collection_id: collection,
        incarnation: INC,
        lsn: Lsn(lsn),
        epoch: E1,
        payload: payload.as_bytes(),
        ..Fields::default()
    };
    record::encode(&mut bytes, &fields, []);
    bytes
}

fn fact(fact: &impl Fact, collection: &str, lsn: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    fact.encode(&mut bytes, Subject { collection_id: collection, incarnation: INC, lsn: Lsn(lsn) }, E1);
    bytes
}

struct Segment {
    header: SegmentHeader,
    bytes: Vec<u8>,
    flushed: Flushed,
}

impl Segment {
    fn new(id: u128, codec: Codec, of: SegmentOf) -> Self {
        let segment = Uuid::from_u128(id);
        let header = SegmentHeader {
            writer: WRITER,
            directory: DIRECTORY,
            segment,
            key: KEY,
            file: 0,
            codec,
            of,
            marker: [id as u8; 16],
        };
        Self { bytes: header.build(), header, flushed: Flushed { length: 0, index_offset: 0, index_crc: 0 } }
    }

    fn flush(&mut self, entries: &[Vec<u8>]) {
        let Self { header, bytes, flushed } = self;
        let shared = header.of == SegmentOf::Shared;
        let mut builder =
            FlushBuilder::new(header.codec, header.marker, shared, bytes.len() as u64, flushed.index_offset);
        for entry in entries {
            builder.push(&record::decode(entry).unwrap().0).unwrap();
        }
        let (rest, now) = builder.finish(E1).unwrap();
        bytes.extend(rest);
        *flushed = now;
    }

    fn fact(&self, collection: &str, first: u64, last: u64) -> Vec<u8> {
        let Flushed { length, index_offset, index_crc } = self.flushed;
        let flushed = FlushedFact {
            segment: self.header.segment,
            directory: DIRECTORY,
            first_lsn: Lsn(first),
            length,
            index_offset,
            index_crc,
            sealed: false,
            shared: self.header.of == SegmentOf::Shared,
            bytes: 0,
        };
        fact(&flushed, collection, last)
    }
}

/// A directory in memory: the journal's one file, and segments by path.
struct Directory {
    slot: Vec<u8>,
    segments: BTreeMap<&'static str, Vec<u8>>,
}

impl Directory {
    /// c: 1..6 sealed, of two flushes; 7..9 current, 1 truncated; 9..10 in the journal. a 1..3 and b 1..2 shared.
    fn new(codec: Codec) -> Self {
        let of = |first| SegmentOf::Collection { name: "c".into(), incarnation: INC, first: Lsn(first) };
        let range = |collection: &'static str, lsns: std::ops::RangeInclusive<u64>| {
            lsns.map(move |lsn| entry(collection, lsn)).collect::<Vec<_>>()
        };
        let mut sealed = Segment::new(0xA, codec, of(1));
        sealed.flush(&range("c", 1..=3));
        sealed.flush(&range("c", 4..=6));
        let mut current = Segment::new(0xB, codec, of(7));
        current.flush(&range("c", 7..=9));
        let mut shared = Segment::new(0xC, codec, SegmentOf::Shared);
        shared.flush(&[range("a", 1..=3), range("b", 1..=2)].concat());
        let epoch = EpochFact {
            key: KEY,
            run: Uuid::from_u128(3),
            format: 1,
            grant: 0,
            holder: String::new(),
            members: vec![Member { uuid: DIRECTORY, url: "file:///d".into(), in_use: true }],
            forgotten: Vec::new(),
            closes: Vec::new(),
            accepted: Vec::new(),
            version: 0,
            mixed: Vec::new(),
        };
        let mut start = Vec::new();
        epoch.encode_record(&mut start);
        let records = [
            vec![start, fact(&TruncateFact { head: Lsn(9) }, "c", 1)],
            vec![sealed.fact("c", 1, 6), current.fact("c", 7, 9), shared.fact("a", 1, 3), shared.fact("b", 1, 2)],
            range("c", 9..=10),
        ]
        .concat();
        let marker = [0x5e; 16];
        let header = SlotHeader { writer: WRITER, directory: DIRECTORY, stream: STREAM, key: KEY, file: 1, marker };
        let mut slot = header.build_slot();
        let frame = FrameHeader {
            stream: STREAM,
            file: 1,
            offset: slot.len() as u64,
            frame_seq: 1,
            epoch: E1,
            ..FrameHeader::default()
        };
        let mut builder = FrameBuilder::new();
        builder.start(records.len() as u64, records.iter().map(Vec::len).sum());
        records.iter().for_each(|record| builder.push(record, 1, u32::from(record[0] == 2)));
        slot.extend_from_slice(builder.finish_slot(&frame, &marker).unwrap().bytes);
        let segments = [(SEALED, sealed.bytes), (CURRENT, current.bytes), (SHARED, shared.bytes)];
        Self { slot, segments: segments.into() }
    }

    fn lay_out(&self, setup: &Setup) {
        let folder = setup.path("d1");
        std::fs::create_dir_all(folder.join("_wal/journal")).unwrap();
        let identity = Identity::new(DIRECTORY, WRITER, "w".into());
        std::fs::write(folder.join("_wal/identity.json"), identity.to_json()).unwrap();
        std::fs::write(folder.join("_wal/journal").join(slot_name()), &self.slot).unwrap();
        for (name, bytes) in &self.segments {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
}

fn slot_name() -> String {
    SlotName { key: KEY, file: 1 }.to_string()
}

/// What both readers say, in the same words.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// Entries of each collection that can be read.
    entries: BTreeMap<String, u64>,
    /// Acknowledged entries that are nowhere.
    nowhere: BTreeSet<(String, u64)>,
    /// File and offset of what cannot be read; no file: it is not there, or has no header.
    broken: BTreeSet<(String, u64)>,
}

fn by_the_oracle(directory: &Directory) -> (Said, oracle::Merged) {
    let verdict = oracle::classify(&[SlotFile { name: &slot_name(), bytes: &directory.slot }]);
    let files: Vec<_> = directory.segments.iter().map(|(name, bytes)| SegmentFile { name, bytes }).collect();
    let merged = oracle::merge_with_segments([&verdict], &files);
    let mut said = Said { entries: BTreeMap::new(), nowhere: BTreeSet::new(), broken: BTreeSet::new() };
    for (name, view) in &merged {
        said.entries.insert(name.clone(), view.entries.len() as u64);
        said.nowhere.extend(view.holes.iter().map(|lsn| (name.clone(), *lsn)));
        said.broken.extend(view.broken.iter().map(|place| (place.file.clone(), place.offset)));
    }
    (said, merged)
}

fn by_the_tools(setup: &Setup) -> Result<Said, OfflineError> {
    let folder = setup.path("d1");
    let url = setup.url("d1").parse().unwrap();
    let report = verify(&[url], ReadOptions::default(), &mut |_| {})?;
    let mut said = Said { entries: BTreeMap::new(), nowhere: BTreeSet::new(), broken: BTreeSet::new() };
    said.entries.extend(report.collections.into_iter().map(|one| (one.name, one.entries)));
    for problem in report.problems {
        if problem.file.is_empty() {
            for lost in problem.lost {
                let lsns = lost.first.unwrap()..=lost.last.unwrap();
                said.nowhere.extend(lsns.map(|lsn| (lost.collection.clone().unwrap(), lsn)));
            }
        } else if problem.what.contains("is not there") {
            said.broken.insert((String::new(), 0));
        } else {
            let file = problem.file.strip_prefix(&format!("{}/", folder.display())).unwrap().to_owned();
            said.broken.insert((file, problem.offset.unwrap()));
        }
    }
    Ok(said)
}

fn codecs() -> [Codec; 3] {
    [Codec::Null, Codec::Snappy, Codec::Zstandard]
}

/// Compares the two readers on what `vary` makes of each segment, step by step.
fn compare(vary: impl Fn(&[u8], usize) -> Option<(String, Option<Vec<u8>>)> + Sync) {
    let every: usize = std::env::var("WALSTORAGE_EVERY").map_or(17, |text| text.parse().expect("a number"));
    let compared: usize = std::thread::scope(|scope| {
        let threads = codecs().map(|codec| {
            let vary = &vary;
            scope.spawn(move || {
                let setup = Setup::in_memory(1);
                let mut directory = Directory::new(codec);
                directory.lay_out(&setup);
                let mut compared = 0;
                for name in [SEALED, CURRENT, SHARED] {
                    let whole = directory.segments[name].clone();
                    let path = setup.path("d1").join(name);
                    for step in (0..).step_by(every) {
                        let Some((what, bytes)) = vary(&whole, step) else { break };
                        let case = format!("{codec:?}, {name}, {what}");
                        match bytes {
                            Some(bytes) => {
                                std::fs::write(&path, &bytes).unwrap();
                                directory.segments.insert(name, bytes);
                            }
                            None => {
                                std::fs::remove_file(&path).unwrap();
                                directory.segments.remove(name);
                            }
                        }
                        let tools = by_the_tools(&setup).unwrap_or_else(|error| panic!("{case}: {error}"));
                        let (oracle, _) = by_the_oracle(&directory);
                        assert_eq!(oracle, tools, "{case}: left the oracle, right the tools");
                        compared += 1;
                    }
                    std::fs::write(&path, &whole).unwrap();
                    directory.segments.insert(name, whole);
                }
                compared
            })
        });
        threads.into_iter().map(|thread| thread.join().expect("a comparison")).sum()
    });
    assert!(compared >= 9, "{compared} variations");
    println!("{compared} variations");
}

#[test]
fn untouched_segments_are_read_whole_and_alike() {
    for codec in codecs() {
        let setup = Setup::in_memory(1);
        let directory = Directory::new(codec);
        directory.lay_out(&setup);
        let (oracle, merged) = by_the_oracle(&directory);
        assert_eq!(oracle, by_the_tools(&setup).unwrap());
        assert_eq!(oracle.entries, [("a".into(), 3), ("b".into(), 2), ("c".into(), 9)].into());
        assert!(oracle.nowhere.is_empty() && oracle.broken.is_empty());
        let to = setup.path("export");
        let options = ExportOptions { to: to.clone(), read: ReadOptions::default() };
        export(&[setup.url("d1").parse().unwrap()], &options, &mut |_| {}).unwrap();
        for (name, view) in &merged {
            let exported = std::fs::read(to.join(format!("{name}.avro"))).unwrap();
            for (lsn, record) in &view.entries {
                assert_eq!(record.payload, format!("{name} {lsn}").as_bytes());
                let times = exported.windows(record.payload.len()).filter(|bytes| bytes == &record.payload).count();
                // "c 1" is the start of "c 10".
                assert!(times == 1 || (name, *lsn) == (&"c".to_owned(), 1), "{name} {lsn}: {times} times");
            }
        }
    }
}

#[test]
fn flipped_bits_of_segments_are_judged_alike() {
    compare(|whole, step| {
        let mut bytes = whole.to_vec();
        *bytes.get_mut(step / 8)? ^= 1 << (step % 8);
        Some((format!("bit {} of byte {}", step % 8, step / 8), Some(bytes)))
    });
}

#[test]
fn cut_segments_are_judged_alike() {
    compare(|whole, step| (step < whole.len()).then(|| (format!("cut at {step}"), Some(whole[..step].to_vec()))));
}

#[test]
fn missing_segments_are_judged_alike() {
    compare(|_, step| (step == 0).then(|| ("removed".to_owned(), None)));
}

#[test]
fn bytes_beyond_the_valid_length_are_judged_alike() {
    compare(|whole, step| {
        let more = [whole, &vec![step as u8; step + 1]].concat();
        (step < 64).then(|| (format!("{} bytes more", step + 1), Some(more)))
    });
}
