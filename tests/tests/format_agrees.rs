//! The format module and the oracle, two readers written apart, judge a small journal alike: untouched, cut at every
//! byte, and with every single bit flipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use uuid::Uuid;
use walstorage_sidecar::format::facts::{Close, EpochFact};
use walstorage_sidecar::format::frame::{FrameBuilder, FrameHeader};
use walstorage_sidecar::format::header::SlotHeader;
use walstorage_sidecar::format::names::SlotName;
use walstorage_sidecar::format::record::{self, Fields, Kind};
use walstorage_sidecar::format::scan::{SlotScan, scan_slot};
use walstorage_sidecar::format::stream::{ClosedAt, What, classify};
use walstorage_sidecar::format::{StreamId, StreamKey};
use walstorage_sidecar::types::{Epoch, Incarnation, Lsn};
use walstorage_tests::oracle::{self, SlotFile};

const PAGE: usize = 4096;
const A: StreamId = StreamId([0xaa; 16]);
const B: StreamId = StreamId([0xbb; 16]);

struct Slot {
    name: SlotName,
    bytes: Vec<u8>,
}

struct Journal {
    slots: Vec<Slot>,
    /// Stream, its key and its last frame with crc.
    last: ClosedAt,
}

fn entry(collection: &str, lsn: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let fields = Fields {
        kind: Kind::Data,
        collection_id: collection,
        incarnation: Incarnation::new(Epoch(1), 0),
        lsn: Lsn(lsn),
        timestamp: 1_700_000_000_000_000,
        key: Some(b"key"),
        payload,
        ..Fields::default()
    };
    record::encode(&mut bytes, &fields, [("name", &b"value"[..])]);
    bytes
}

fn start(key: StreamKey, closes: Vec<Close>) -> Vec<u8> {
    let fact = EpochFact {
        key,
        run: Uuid::from_u128(7),
        format: 1,
        grant: 0,
        holder: String::new(),
        members: vec![],
        forgotten: vec![],
        closes,
        accepted: Vec::new(),
        version: 0,
        mixed: Vec::new(),
    };
    let mut bytes = Vec::new();
    fact.encode_record(&mut bytes);
    bytes
}

impl Journal {
    const fn new() -> Self {
        Self { slots: Vec::new(), last: ClosedAt { frame_seq: 0, crc: 0 } }
    }

    fn slot(&mut self, stream: StreamId, epoch: u64, file: u64) {
        let key = StreamKey { epoch: Epoch(epoch), session: 0 };
        let header = SlotHeader { writer: Uuid::nil(), directory: Uuid::nil(), stream, key, file, marker: [0x5e; 16] };
        self.slots.push(Slot { name: SlotName { key, file }, bytes: header.build_slot() });
        if file == 1 {
            self.last = ClosedAt { frame_seq: 0, crc: 0 };
        }
    }

    fn frame(&mut self, stream: StreamId, records: &[Vec<u8>]) {
        let slot = self.slots.last_mut().expect("a slot");
        let header = FrameHeader {
            stream,
            file: slot.name.file,
            offset: slot.bytes.len() as u64,
            frame_seq: self.last.frame_seq + 1,
            durable_frame: self.last.frame_seq,
            prev_crc: self.last.crc,
            epoch: slot.name.key.epoch,
            ..FrameHeader::default()
        };
        let mut builder = FrameBuilder::new();
        builder.start(records.len() as u64, records.iter().map(Vec::len).sum());
        for record in records {
            builder.push(record, 1, u32::from(record[0] == 2));
        }
        let built = builder.finish_slot(&header, &[0x5e; 16]).expect("a small frame");
        slot.bytes.extend_from_slice(built.bytes);
        self.last = ClosedAt { frame_seq: header.frame_seq, crc: built.crc };
    }

    /// Stream A: two slots, six frames.
    fn one_stream() -> Self {
        let mut journal = Self::new();
        let key = StreamKey { epoch: Epoch(1), session: 0 };
        journal.slot(A, 1, 1);
        journal.frame(A, &[start(key, vec![])]);
        journal.frame(A, &[entry("c", 1, b"one"), entry("d", 1, b"two")]);
        journal.frame(A, &[entry("c", 2, &[3; 5000])]);
        journal.slot(A, 1, 2);
        journal.frame(A, &[entry("d", 2, b"three"), entry("d", 3, b"four")]);
        journal.frame(A, &[]);
        journal
    }

    /// The same, and stream B that closes it.
    fn two_streams() -> Self {
        let mut journal = Self::one_stream();
        let (key, before) = (StreamKey { epoch: Epoch(2), session: 0 }, StreamKey { epoch: Epoch(1), session: 0 });
        let ClosedAt { frame_seq, crc } = journal.last;
        journal.slot(B, 2, 1);
        journal.frame(B, &[start(key, vec![Close { stream: A, key: before, frame_seq, crc }])]);
        journal.frame(B, &[entry("c", 3, b"five")]);
        journal
    }
}

/// What both readers say, in the same words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    /// File and offset of each frame that counts.
    frames: Vec<(String, u64)>,
    /// File and offset of each damage; for a file with a bad header, the file and 0.
    damage: Vec<(String, u64)>,
}

fn by_the_oracle(slots: &[Slot]) -> Said {
    let names: Vec<_> = slots.iter().map(|slot| slot.name.to_string()).collect();
    let files: Vec<_> = slots.iter().zip(&names).map(|(s, name)| SlotFile { name, bytes: &s.bytes }).collect();
    let verdict = oracle::classify(&files);
    let mut damage: Vec<_> = verdict.damage.iter().map(|d| (d.place.file.clone(), d.place.offset)).collect();
    damage.retain(|(file, offset)| *offset == 0 || !verdict.bad_headers.contains(file));
    damage.sort();
    damage.dedup();
    Said { frames: verdict.frames.into_iter().map(|frame| (frame.place.file, frame.place.offset)).collect(), damage }
}

fn by_the_format(slots: &[Slot], close_of_a: Option<ClosedAt>) -> Said {
    let mut said = Said::default();
    let stream_of = |key| if key == 1 { A } else { B };
    let b_counts = slots.iter().any(|slot| slot.name.key.epoch.0 == 2) && {
        let (scans, _) = scan_all(slots, 2, B);
        !classify(&scans, None).accepted.is_empty()
    };
    for epoch in [1, 2] {
        let (scans, names) = scan_all(slots, epoch, stream_of(epoch));
        if scans.is_empty() {
            continue;
        }
        let close = if epoch == 1 && b_counts { close_of_a } else { None };
        let verdict = classify(&scans, close);
        for at in &verdict.accepted {
            said.frames.push((names[at.scan].clone(), scans[at.scan].places[at.place].offset));
        }
        for damage in &verdict.damage {
            let key = StreamKey { epoch: Epoch(epoch), session: 0 };
            let name = SlotName { key, file: damage.file }.to_string();
            let of_header = matches!(&damage.what, What::FileHeader(_))
                || scans.iter().any(|scan| scan.file == damage.file && scan.header.is_err());
            said.damage.push((name, if of_header { 0 } else { damage.offset }));
        }
    }
    said.damage.sort();
    said.damage.dedup();
    said
}

fn scan_all(slots: &[Slot], epoch: u64, stream: StreamId) -> (Vec<SlotScan>, Vec<String>) {
    let mine = || slots.iter().filter(|slot| slot.name.key.epoch.0 == epoch);
    // A stream is known by any of its good headers.
    let known = mine().any(|slot| SlotHeader::parse_slot(&slot.bytes).is_ok()).then_some(stream);
    let scans = mine().map(|slot| scan_slot(&mut &slot.bytes[..], slot.name, known, |_| {}).expect("format 1"));
    (scans.collect(), mine().map(|slot| slot.name.to_string()).collect())
}

/// Compares the two readers on every variation of one slot that `vary` makes.
fn compare(make: fn() -> Journal, vary: impl Fn(&mut Slot, usize) -> Option<String> + Sync, restore_each: bool) {
    let journal = make();
    let a = Journal::one_stream();
    let close = Some(a.last);
    let whole = by_the_oracle(&journal.slots);
    assert_eq!(whole, by_the_format(&journal.slots, close));
    assert!(whole.frames.len() >= 5 && whole.damage.is_empty(), "{whole:?}");
    let compared = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..journal.slots.len())
            .map(|varied| {
                let vary = &vary;
                scope.spawn(move || {
                    let mut slots = make().slots;
                    let whole = slots[varied].bytes.clone();
                    let mut compared = 0usize;
                    for step in 0.. {
                        let Some(what) = vary(&mut slots[varied], step) else { break };
                        let (oracle, format) = (by_the_oracle(&slots), by_the_format(&slots, close));
                        assert_eq!(oracle, format, "slot {varied}, {what}: left the oracle, right the format");
                        if restore_each {
                            slots[varied].bytes.clone_from(&whole);
                        } else {
                            vary(&mut slots[varied], step);
                        }
                        compared += 1;
                    }
                    compared
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a comparison")).sum::<usize>()
    });
    let bytes: usize = journal.slots.iter().map(|slot| slot.bytes.len()).sum();
    assert!(compared >= bytes, "{compared} variations of {bytes} bytes");
    println!("{compared} variations");
}

/// Flips bit `step`; done twice, nothing has changed.
fn flip(slot: &mut Slot, step: usize) -> Option<String> {
    let byte = slot.bytes.get_mut(step / 8)?;
    *byte ^= 1 << (step % 8);
    Some(format!("bit {} of byte {}", step % 8, step / 8))
}

fn cut(slot: &mut Slot, step: usize) -> Option<String> {
    if step >= slot.bytes.len() {
        return None;
    }
    slot.bytes.truncate(step);
    Some(format!("cut at {step}"))
}

#[test]
fn every_flipped_bit_of_a_stream_is_judged_alike() {
    compare(Journal::one_stream, flip, false);
}

#[test]
fn every_flipped_bit_of_a_stream_and_its_successor_is_judged_alike() {
    compare(Journal::two_streams, flip, false);
}

#[test]
fn every_cut_of_a_stream_is_judged_alike() {
    compare(Journal::one_stream, cut, true);
}

#[test]
fn every_cut_of_a_stream_and_its_successor_is_judged_alike() {
    compare(Journal::two_streams, cut, true);
}

#[test]
fn what_the_format_writes_the_oracle_reads_field_by_field() {
    let journal = Journal::two_streams();
    let names: Vec<_> = journal.slots.iter().map(|slot| slot.name.to_string()).collect();
    let files: Vec<_> = journal.slots.iter().zip(&names).map(|(s, name)| SlotFile { name, bytes: &s.bytes }).collect();
    let verdict = oracle::classify(&files);
    let data: Vec<_> = verdict.data().collect();
    assert_eq!(data.len(), 6);
    assert_eq!(data[2].payload, [3; 5000]);
    assert_eq!((data[2].collection.as_str(), data[2].lsn, data[2].incarnation), ("c", 2, 1 << 20));
    assert_eq!(data[0].key.as_deref(), Some(&b"key"[..]));
    assert_eq!(data[0].headers, [("name".to_owned(), b"value".to_vec())]);
    assert_eq!(data[0].timestamp, 1_700_000_000_000_000);
    assert_eq!(PAGE * 5, journal.slots[0].bytes.len());
}
