//! `dump`: every record of a journal's file or of a segment, and where there is none.

use std::path::Path;

use super::OfflineError;
use super::dump::{DumpOptions, DumpReport, dump};
use super::fixture::Made;
use super::segment_tests::{ALL, INC, Parts};
use super::tests::{flip, stream};
use crate::format::limits::PAGE;
use crate::format::record::Kind;

fn dumped(path: &Path, kind: Option<Kind>) -> (Vec<serde_json::Value>, DumpReport) {
    let mut bytes = Vec::new();
    let report = dump(path, DumpOptions { kind }, &mut bytes).unwrap();
    let lines = std::str::from_utf8(&bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), report)
}

#[test]
fn a_dump_has_every_record_or_those_of_one_kind() {
    let stream = stream();
    let made = Made::new(&[&stream]);
    let (all, report) = dumped(&made.slot(&stream, 1), None);
    let kinds: Vec<_> = all.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            &["FRAME", "EPOCH", "PAD"][..],
            &["FRAME", "COLLECTION", "DATA", "DATA", "DATA", "PAD"],
            &["FRAME", "COLLECTION", "DATA", "DATA", "PAD"],
            &["FRAME", "DATA", "DATA", "TRUNCATE", "PAD"],
        ]
        .concat()
    );
    assert_eq!((report.frames, report.records, report.whole), (4, 19, true));
    assert_eq!(report.notes, ["ends at offset 20480, the end of the file"]);
    assert_eq!(all[0]["fact"]["frame_seq"], 1);
    assert_eq!(all[1]["fact"]["members"][0]["url"], "file:///wal");
    assert_eq!(all[17]["fact"]["head"], 5);

    let (data, report) = dumped(&made.slot(&stream, 1), Some(Kind::Data));
    assert_eq!((data.len(), report.records), (7, 7));
    let one = &data[0];
    assert_eq!(
        (one["collection_id"].as_str(), one["lsn"].as_u64(), one["payload"].as_str(), one["key"].as_str()),
        (Some("orders"), Some(1), Some("b3JkZXJzIDE="), Some("a2V5"))
    );
    assert_eq!(one["headers"], serde_json::json!([{ "name": "trace", "value": "AP8=" }]));
}

#[test]
fn a_dump_says_where_frames_are_missing_and_where_it_ends() {
    let mut stream = stream();
    stream.zeros(2);
    let made = Made::new(&[&stream]);
    flip(&made, &stream, 1, PAGE as u64 + 50);
    flip(&made, &stream, 1, 3 * PAGE as u64 + 3000);
    // Any name will do.
    let copy = made.path().join("copy");
    std::fs::copy(made.slot(&stream, 1), &copy).unwrap();
    let (data, report) = dumped(&copy, Some(Kind::Data));
    assert_eq!(data.len(), 5);
    assert_eq!(
        report.notes,
        [
            "offset 4096: no frame; resumed at offset 8192",
            "offset 12288: frame 3 skipped: the frame's crc does not hold",
            "ends at offset 20480; 8192 blank bytes follow",
        ]
    );
    assert!(!report.whole);
    std::fs::write(&copy, "no journal").unwrap();
    let error = dump(&copy, DumpOptions::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, OfflineError::NotAJournal { .. }), "{error}");
}

#[test]
fn a_dump_shows_every_record_of_a_segment_and_each_block_that_is_not_whole() {
    let dumped = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut out = Vec::new();
        let report = dump(file.path(), DumpOptions::default(), &mut out).unwrap();
        let lines = std::str::from_utf8(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap());
        (lines.collect::<Vec<serde_json::Value>>(), report)
    };
    for codec in ALL {
        let parts = Parts::new(codec);
        let (lines, report) = dumped(&parts.sealed.bytes);
        let shown: Vec<_> =
            lines.iter().map(|line| (line["block"].as_u64(), line["kind"].as_str(), line["lsn"].as_u64())).collect();
        let data = |block, lsn| (Some(block), Some("DATA"), Some(lsn));
        let index = |block, lsn| (Some(block), Some("INDEX"), Some(lsn));
        let expected =
            [data(1, 1), data(1, 2), data(1, 3), index(2, 3), data(3, 4), data(3, 5), data(3, 6), index(4, 6)];
        assert_eq!(shown, expected);
        assert_eq!((report.blocks, report.records, report.frames, report.whole), (4, 8, 0, true));
        let fact = &lines[7]["fact"];
        assert_eq!(fact["names"], serde_json::json!([{ "name": "orders", "incarnation": INC.0 }]));
        assert_eq!((fact["blocks"][0]["first"].as_u64(), fact["blocks"][0]["count"].as_u64()), (Some(4), Some(3)));
        assert_eq!(fact["previous"], lines[3]["offset"]);

        let mut bytes = parts.sealed.bytes.clone();
        let at = lines[4]["offset"].as_u64().unwrap() as usize;
        bytes[at + 30] ^= 1;
        bytes.extend(b"half a block");
        let (lines, report) = dumped(&bytes);
        assert!(!report.whole && lines.len() < 8, "{lines:?}");
        assert!(report.notes[0].starts_with(&format!("offset {at}: ")), "{:?}", report.notes);
        assert!(report.notes.last().unwrap().ends_with("12 bytes follow that are no block of this segment"));
    }
}
