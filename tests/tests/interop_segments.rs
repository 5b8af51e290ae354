//! Every segment opens with fastavro, with the official Python `avro` and with Rust's `apache-avro`, and they see what
//! `walctl dump` shows. (The official Java reader has a suite of its own: `scripts/java_reader.py`.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use apache_avro::types::Value as Avro;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use walstorage_tests::harness::binaries::repository;
use walstorage_tests::harness::run;
use walstorage_tests::segments::{CODECS, Truth, by_hand, by_sidecar, records_of};

/// The interpreter with the pinned packages.
fn python() -> PathBuf {
    match std::env::var_os("WALSTORAGE_PYTHON") {
        Some(path) => path.into(),
        None => run(repository().join("scripts/setup-python.sh"), [""; 0], b"").ok().trim().into(),
    }
}

fn lines(text: &str) -> Vec<Map<String, Value>> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object of JSON")).collect()
}

/// The entries of a segment as `walctl dump` shows them, without where they stand in the file.
fn dumped(segment: &Path) -> Vec<Map<String, Value>> {
    let mut records = lines(&std::fs::read_to_string(records_of(segment)).expect("its records"));
    records.retain(|record| record["kind"] == "DATA");
    for record in &mut records {
        record.retain(|field, _| field != "block" && field != "offset");
    }
    records
}

/// The entries of several segments as a Python library reads them.
fn by_python(library: &str, segments: &[PathBuf]) -> Vec<Map<String, Value>> {
    let script = repository().join("tests/python/read_slot.py");
    let arguments = [script.as_os_str(), library.as_ref()];
    lines(&run(python(), arguments.into_iter().chain(segments.iter().map(|path| path.as_os_str())), b"").ok())
}

/// The entries of a segment as `apache-avro` reads them.
fn by_rust(segment: &Path) -> Vec<Map<String, Value>> {
    let file = std::fs::File::open(segment).expect("the segment");
    let reader = apache_avro::Reader::new(file).expect("a header");
    let records = reader.map(|record| {
        let Avro::Record(fields) = record.expect("a record") else { panic!("no record") };
        fields.into_iter().map(|(name, value)| (name.clone(), json(&name, value))).collect()
    });
    records.filter(|record: &Map<_, _>| record["kind"] == "DATA").collect()
}

fn json(field: &str, value: Avro) -> Value {
    match value {
        Avro::Null => Value::Null,
        Avro::Union(_, value) => json(field, *value),
        Avro::Enum(_, text) | Avro::String(text) => text.into(),
        Avro::Long(number) | Avro::TimestampMicros(number) => number.into(),
        Avro::Bytes(bytes) => STANDARD.encode(bytes).into(),
        Avro::Fixed(_, bytes) => format!("{:08x}", u32::from_le_bytes(bytes.try_into().expect("four bytes"))).into(),
        Avro::Array(items) => items.into_iter().map(|item| json(field, item)).collect(),
        Avro::Record(fields) => fields.into_iter().map(|(name, value)| (name.clone(), json(&name, value))).collect(),
        other => panic!("{field}: {other:?}"),
    }
}

/// Has all libraries read the segments.
fn agree(segments: &[PathBuf]) {
    let each: Vec<_> = segments.iter().map(|segment| dumped(segment)).collect();
    for (segment, expected) in segments.iter().zip(&each) {
        assert!(!expected.is_empty(), "{}", segment.display());
        assert!(by_rust(segment) == *expected, "apache-avro reads {} otherwise", segment.display());
    }
    let expected = each.concat();
    for library in ["fastavro", "avro"] {
        let read = by_python(library, segments);
        for (n, (read, expected)) in read.iter().zip(&expected).enumerate() {
            assert_eq!(read, expected, "{library}, entry {n}");
        }
        assert_eq!(read.len(), expected.len(), "{library}");
    }
}

#[test]
fn segments_made_by_hand_are_read_alike_by_all() {
    let folder = tempfile::tempdir().unwrap();
    let segments = by_hand(folder.path());
    assert_eq!(segments.len(), 6);
    agree(&segments);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_of_a_sidecar_under_load_are_read_alike_by_all_and_hold_what_was_appended() {
    for codec in CODECS {
        let folder = tempfile::tempdir().unwrap();
        let (segments, truth) = by_sidecar(folder.path(), codec).await;
        agree(&segments);
        let mut read = Truth::new();
        for record in segments.iter().flat_map(|segment| by_rust(segment)) {
            let name = record["collection_id"].as_str().unwrap().to_owned();
            let payload = STANDARD.decode(record["payload"].as_str().unwrap()).unwrap();
            read.insert((name, record["lsn"].as_u64().unwrap()), payload);
        }
        for (entry, payload) in &truth {
            assert!(read.get(entry) == Some(payload), "{codec}: {entry:?} is in no segment");
        }
    }
}
