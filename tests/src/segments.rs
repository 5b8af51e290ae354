//! Segments of every kind and codec, for readers of other languages: made by hand, and written by a sidecar under load.
//!
//! Beside each file FILE stands FILE.jsonl, what `walctl dump FILE` prints: a reader must see the same records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use walstorage_sidecar::format::StreamKey;
use walstorage_sidecar::format::header::{Codec, SegmentHeader, SegmentOf};
use walstorage_sidecar::format::record::{self, Fields, Kind};
use walstorage_sidecar::format::segment::FlushBuilder;
use walstorage_sidecar::proto::{AppendRequest, Entry, FlushRequest, Header};
use walstorage_sidecar::types::{Epoch, Incarnation, Lsn};

use crate::harness::calls::{append, request, truncate};
use crate::harness::{Setup, Sidecar, binaries, run};
use crate::load::verify::segments;

/// The codecs by their names in configurations and headers.
pub const CODECS: [&str; 3] = ["null", "snappy", "zstandard"];

/// What was appended: collection and LSN to payload.
pub type Truth = BTreeMap<(String, u64), Vec<u8>>;

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

/// A sidecar that has written segments of every kind under load with one codec, in two directories, and everything that
/// was appended and not truncated.
pub async fn loaded(codec: &str) -> (Sidecar, Truth) {
    let setup = Setup::new(2)
        .set(&format!("compression = {codec:?}"))
        .set(r#"memory_flush_size_bytes = "256Ki""#)
        .set(r#"global_flush_threshold = "8Mi""#)
        .set(r#"segment_size_bytes = "512Ki""#);
    let sidecar = Sidecar::ready(setup).await;
    let mut truth = Truth::new();
    let mut keep = |collection: &str, first: u64, payloads: &[Vec<u8>]| {
        for (lsn, payload) in (first..).zip(payloads) {
            truth.insert((collection.to_owned(), lsn), payload.clone());
        }
    };
    // More small collections than memory takes: they go into shared segments together.
    let mut load = tokio::task::JoinSet::new();
    for worker in 0..8_u32 {
        let mut client = sidecar.grpc();
        load.spawn(async move {
            let mut appended = Vec::new();
            for n in 0..16_u32 {
                let name = format!("small/{worker}/{n}");
                let payloads: Vec<_> = (0..4_u32).map(|part| text(worker * 64 + n * 4 + part, 32 << 10)).collect();
                let slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
                let first = append(&mut client, &name, &slices).await.first_lsn;
                appended.push((name, first, payloads));
            }
            let name = format!("large/{worker}");
            for n in 0..24_u32 {
                let payloads = vec![text(n, 100 << 10), Vec::new()];
                let slices: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
                let first = append(&mut client, &name, &slices).await.first_lsn;
                appended.push((name.clone(), first, payloads));
            }
            appended
        });
    }
    for (name, first, payloads) in load.join_all().await.into_iter().flatten() {
        keep(&name, first, &payloads);
    }
    let mut client = sidecar.grpc();
    let header = Header { name: "\u{fc}".into(), value: vec![255].into() };
    let rich = Entry { payload: b"rich".to_vec().into(), key: Some(vec![1].into()), headers: vec![header] };
    let entries = vec![rich, Entry { key: Some(vec![].into()), ..Entry::default() }];
    let stamped = AppendRequest {
        entries,
        producer_id: "producer".into(),
        producer_seq: 1,
        ..request("n\u{e4}me/\u{1F980}", &[])
    };
    client.append_batch(stamped).await.expect("an acknowledgement");
    keep("n\u{e4}me/\u{1F980}", 1, &[b"rich".to_vec(), Vec::new()]);
    client.flush(FlushRequest { collection: "n\u{e4}me/\u{1F980}".into() }).await.expect("flushed");
    truncate(&mut client, "large/0", 3).await;
    truth.retain(|(name, lsn), _| name != "large/0" || *lsn > 3);
    (sidecar, truth)
}

/// Has a sidecar write segments under load with one codec, stops it, and copies them. Answers their files and everything
/// that was appended and not truncated.
///
/// # Panics
/// When there is no sealed, no current or no shared one among them.
pub async fn by_sidecar(folder: &Path, codec: &str) -> (Vec<PathBuf>, Truth) {
    let (mut sidecar, truth) = loaded(codec).await;
    sidecar.stop().await;
    let mut files = Vec::new();
    for directory in ["d1", "d2"] {
        for (name, bytes) in segments(&sidecar.setup.path(directory)) {
            let kind = match Path::new(&name) {
                path if path.ends_with("wal_current.avro") => "current",
                path if path.parent().is_some_and(|folder| folder.ends_with("_wal/shared")) => "shared",
                _ => "sealed",
            };
            let path = folder.join(format!("sidecar-{codec}-{kind}-{}.avro", files.len()));
            std::fs::write(&path, bytes).expect("a copy");
            dump(&path);
            files.push(path);
        }
    }
    for kind in ["current", "shared", "sealed"] {
        let of_kind = |path: &&PathBuf| path.to_string_lossy().contains(&format!("-{kind}-"));
        assert!(files.iter().any(|path| of_kind(&path)), "no {kind} segment among {files:?}");
    }
    (files, truth)
}

/// A payload that compresses to about half.
fn text(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        format!("{state:08x} ").into_bytes()
    });
    words.flatten().take(bytes).collect()
}
