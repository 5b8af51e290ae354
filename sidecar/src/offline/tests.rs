//! The tools over journals: what is read, what is named, what an export gives.

use std::cell::RefCell;

use proptest::prelude::*;
use uuid::Uuid;

use super::dump::{DumpOptions, dump};
use super::export::{ExportOptions, ExportReport, export};
use super::fixture::Made;
use super::report::{GapReport, Lost};
use super::verify::{VerifyReport, verify};
use super::*;
use crate::format::facts::{AcceptedDamage, DeleteFact, EpochFact, Fact, GapCause, GapFact, Member, Subject};
use crate::format::fixture::{DIRECTORY, Stream, batched, collection, entry, truncate};
use crate::format::limits::PAGE;
use crate::types::{Epoch, Incarnation, Lsn};

const E1: Epoch = Epoch(1);
const INC: Incarnation = Incarnation(1 << 20);
const SECOND: Uuid = Uuid::from_u128(0x4444);

pub(super) fn check(made: &[&Made], options: ReadOptions<'_>) -> VerifyReport {
    let urls: Vec<_> = made.iter().map(|made| made.url()).collect();
    verify(&urls, options, &mut |_| {}).unwrap()
}

pub(super) fn plain(made: &Made) -> VerifyReport {
    check(&[made], ReadOptions::default())
}

fn out(made: &[&Made], to: &Path) -> ExportReport {
    let urls: Vec<_> = made.iter().map(|made| made.url()).collect();
    let options = ExportOptions { to: to.to_owned(), read: ReadOptions::default() };
    export(&urls, &options, &mut |_| {}).unwrap()
}

pub(super) fn fact(fact: &impl Fact, name: &str, incarnation: Incarnation, lsn: u64) -> Vec<u8> {
    let mut buf = Vec::new();
    fact.encode(&mut buf, Subject { collection_id: name, incarnation, lsn: Lsn(lsn) }, E1);
    buf
}

pub(super) fn entries(name: &str, lsns: std::ops::RangeInclusive<u64>) -> Vec<Vec<u8>> {
    lsns.map(|lsn| entry(name, INC, lsn, E1, format!("{name} {lsn}").as_bytes())).collect()
}

/// EPOCH; orders 1..3 and its COLLECTION; a batch of two in events; orders 4, 5 and a TRUNCATE to 2.
pub(super) fn stream() -> Stream {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    stream.frame(&[vec![collection("orders", INC, 0, DIRECTORY, E1)], entries("orders", 1..=3)].concat());
    stream.frame(&[
        collection("events", INC, 0, DIRECTORY, E1),
        batched("events", INC, 1, 2, E1, b"a"),
        batched("events", INC, 2, 2, E1, b"b"),
    ]);
    stream.frame(&[entries("orders", 4..=5), vec![truncate("orders", INC, 2, 5, E1)]].concat());
    stream
}

pub(super) fn flip(made: &Made, stream: &Stream, file: u64, at: u64) {
    let path = made.slot(stream, file);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[at as usize] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// An entry as a stock reader gives it: collection, LSN, payload.
pub(super) type Read = (String, i64, Vec<u8>);

pub(super) fn read_avro(path: &Path) -> Vec<Read> {
    use apache_avro::types::Value;
    let file = std::fs::File::open(path).unwrap();
    let records = apache_avro::Reader::new(file).unwrap();
    records
        .map(|value| {
            let Value::Record(fields) = value.unwrap() else { panic!() };
            let get = |name: &str| fields.iter().find(|(field, _)| field == name).unwrap().1.clone();
            match (get("collection_id"), get("lsn"), get("payload"), get("kind")) {
                (Value::String(name), Value::Long(lsn), Value::Bytes(payload), Value::Enum(1, _)) => {
                    (name, lsn, payload)
                }
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

#[test]
fn a_good_directory_has_no_problems() {
    let stream = stream();
    let report = plain(&Made::new(&[&stream]));
    assert!(report.ok(), "{:?}", report.problems);
    assert_eq!(report.tails, []);
    assert_eq!(report.notes, Vec::<String>::new());
    let shown: Vec<_> = report
        .collections
        .iter()
        .map(|one| (one.name.as_str(), one.truncated_to, one.head, one.entries, one.gaps.len()))
        .collect();
    assert_eq!(shown, [("events", 0, 2, 2, 0), ("orders", 2, 5, 3, 0)]);
    let directory = &report.directories[0];
    assert_eq!((directory.uuid, directory.writer_id.as_deref()), (Some(DIRECTORY), Some("tests")));
    let streams: Vec<_> = directory
        .streams
        .iter()
        .map(|one| (one.epoch, one.session, one.files, one.frames, one.entries, one.closed))
        .collect();
    assert_eq!(streams, [(1, 0, 1, 4, 7, false)]);
}

#[test]
fn progress_reaches_the_total() {
    let made = Made::new(&[&stream()]);
    let seen = RefCell::new(Vec::new());
    verify(&[made.url()], ReadOptions::default(), &mut |progress| {
        seen.borrow_mut().push((progress.done, progress.total));
    })
    .unwrap();
    let seen = seen.into_inner();
    assert!(seen.is_sorted() && seen.iter().all(|(_, total)| *total == 5 * PAGE as u64));
    assert_eq!(seen.last(), Some(&(5 * PAGE as u64, 5 * PAGE as u64)));
}

#[test]
fn damage_names_file_offset_collections_and_lsns() {
    let stream = stream();
    let made = Made::new(&[&stream]);
    flip(&made, &stream, 1, 2 * PAGE as u64 + 3000);
    let report = plain(&made);
    let file = made.slot(&stream, 1).display().to_string();
    let problem = &report.problems[0];
    assert_eq!(
        (problem.file.as_str(), problem.offset, problem.most_entries),
        (file.as_str(), Some(2 * PAGE as u64), Some(3))
    );
    let orders = |first, last| Lost { collection: Some("orders".into()), first: Some(first), last: Some(last) };
    assert_eq!(problem.lost, [orders(1, 3)]);
    assert_eq!(
        problem.to_string(),
        format!("{file}: offset 8192: frame 2 of stream 1.0: the frame's crc does not hold; entries: orders 1..3")
    );
    // Truncated to 2: of these only 3 is missing.
    assert_eq!(report.problems[1].lost, [orders(3, 3)]);
    assert_eq!(report.problems.len(), 2);
    assert!(!report.ok());
}

#[test]
fn what_cannot_be_named_is_unknown() {
    let stream = stream();
    let made = Made::new(&[&stream]);
    flip(&made, &stream, 1, 2 * PAGE as u64 + 50);
    let report = plain(&made);
    assert_eq!(report.problems[0].lost, [Lost { collection: None, first: None, last: None }]);
    assert!(report.problems[0].to_string().ends_with("; entries: unknown"));
}

#[test]
fn a_torn_tail_is_no_problem_and_live_it_is_in_progress() {
    let stream = stream();
    let made = Made::new(&[&stream]);
    flip(&made, &stream, 1, 4 * PAGE as u64 + 3000);
    let file = made.slot(&stream, 1).display().to_string();
    for live in [false, true] {
        let report = check(&[&made], ReadOptions { live, ..ReadOptions::default() });
        assert!(report.ok(), "{:?}", report.problems);
        let tail = &report.tails[0];
        assert_eq!((tail.offset, tail.in_progress, tail.entries), (4 * PAGE as u64, live, Some(2)));
        assert_eq!(tail.file, file);
        assert_eq!(report.collections[1].head, 3);
        assert_eq!(report.notes.len(), usize::from(live));
    }
}

#[test]
fn the_next_start_decides_where_a_stream_ends() {
    let first = stream();
    let mut shorter = stream();
    let close = shorter.close();
    let cut = shorter.frame(&entries("orders", 6..=6));
    let mut next = Stream::new(2, 0);
    next.begin(vec![close]);
    next.frame(&[entry("orders", INC, 6, Epoch(2), b"again")]);
    // The uncommitted 6 of the first process is garbage; the 6 of the second counts.
    let made = Made::new(&[&shorter, &next]);
    let report = plain(&made);
    assert!(report.ok(), "{:?}", report.problems);
    assert_eq!((report.collections[1].head, report.collections[1].entries), (6, 4));
    assert!(report.directories[0].streams[0].closed);
    let to = tempfile::tempdir().unwrap();
    out(&[&made], to.path());
    assert_eq!(read_avro(&to.path().join("orders.avro")).last().unwrap().2, b"again");

    flip(&made, &shorter, 1, cut + 3000);
    assert!(plain(&made).ok(), "what lies beyond the close does not matter");
    flip(&made, &first, 1, 4 * PAGE as u64 + 3000);
    let report = plain(&made);
    assert_eq!(report.problems[0].offset, Some(4 * PAGE as u64), "the last frame before the close does");
}

#[test]
fn a_closed_stream_without_files_is_damage_unless_it_may_be_gone() {
    let first = stream();
    for (oldest, problems) in [(0, 1), (1, 1), (2, 0)] {
        let mut next = Stream::new(2, 0);
        next.begin(vec![first.close()]);
        next.next.oldest = Epoch(oldest);
        next.frame(&[]);
        let report = plain(&Made::new(&[&next]));
        assert_eq!(report.problems.len(), problems, "{:?}", report.problems);
        assert_eq!(plain(&Made::new(&[&first, &next])).problems, []);
        let shown = plain(&Made::new(&[&first, &next])).collections.len();
        assert_eq!(shown, if problems == 1 { 2 } else { 0 }, "streams before `oldest` are not read");
    }
}

#[test]
fn damage_whose_loss_is_recorded_is_noted_only() {
    let first = stream();
    let mut next = Stream::new(2, 0);
    let accepted = vec![AcceptedDamage { stream: first.id, first_seq: 2, last_seq: 2 }];
    let fact = EpochFact { accepted, ..next.epoch_fact(vec![first.close()]) };
    let mut buf = Vec::new();
    fact.encode_record(&mut buf);
    next.frame(&[buf]);
    let gap = GapFact { last: Lsn(3), reason: GapCause::Damage };
    next.frame(&[self::fact(&gap, "orders", INC, 1)]);
    let made = Made::new(&[&first, &next]);
    flip(&made, &first, 1, 2 * PAGE as u64 + 3000);
    let report = plain(&made);
    assert!(report.ok(), "{:?}", report.problems);
    assert!(report.notes[0].contains("frame 2") && report.notes[0].ends_with("recorded as gaps"), "{:?}", report.notes);
    flip(&made, &first, 1, 3 * PAGE as u64 + 3000);
    assert_eq!(plain(&made).problems[0].offset, Some(3 * PAGE as u64), "other damage is still a problem");
}

#[test]
fn entries_are_merged_over_directories_once_and_in_order() {
    let second = Stream { directory: SECOND, ..Stream::new(1, 0) };
    let (mut one, mut two) = (Stream::new(1, 0), second);
    two.files.clear();
    two.rotate();
    one.begin(Vec::new());
    two.begin(Vec::new());
    one.frame(&[entries("c", 1..=2), entries("c", 5..=5)].concat());
    // 2 was written again by a later epoch: the same entry.
    two.frame(&[vec![entry("c", INC, 2, Epoch(9), b"c 2")], entries("c", 3..=4)].concat());
    let (a, b) = (Made::new(&[&one]), Made::of(SECOND, &[&two]));
    let report = check(&[&a, &b], ReadOptions::default());
    assert!(report.ok(), "{:?}", report.problems);
    let to = tempfile::tempdir().unwrap();
    let exported = out(&[&a, &b], to.path());
    assert_eq!(exported.problems, []);
    let read = read_avro(&to.path().join("c.avro"));
    assert_eq!(read, (1..=5).map(|n| ("c".into(), n, format!("c {n}").into_bytes())).collect::<Vec<_>>());

    let alone = check(&[&b], ReadOptions::default());
    assert_eq!(alone.problems[0].lost, [Lost { collection: Some("c".into()), first: Some(1), last: Some(1) }]);
}

#[test]
fn a_member_that_is_not_given_is_noted_and_holes_are_not_judged() {
    let mut stream = Stream::new(1, 0);
    let mut fact = stream.epoch_fact(Vec::new());
    fact.members.push(Member { uuid: SECOND, url: "file:///second".into(), in_use: true });
    fact.members.push(Member { uuid: Uuid::from_u128(5), url: "file:///new".into(), in_use: false });
    let mut buf = Vec::new();
    fact.encode_record(&mut buf);
    stream.frame(&[buf]);
    stream.frame(&entries("c", 3..=3));
    let report = plain(&Made::new(&[&stream]));
    assert!(report.ok());
    assert_eq!(report.notes.len(), 1);
    assert!(report.notes[0].contains("file:///second"), "{:?}", report.notes);
}

#[test]
fn two_entries_with_one_lsn_are_a_problem_and_the_higher_epoch_wins() {
    let mut stream = stream();
    stream.frame(&[entry("orders", INC, 5, Epoch(3), b"other")]);
    let made = Made::new(&[&stream]);
    let report = plain(&made);
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].what.contains("same LSN"));
    let to = tempfile::tempdir().unwrap();
    out(&[&made], to.path());
    assert_eq!(read_avro(&to.path().join("orders.avro")).last().unwrap().2, b"other");
}

#[test]
fn gaps_truncated_and_deleted_entries_are_left_out() {
    let mut stream = stream();
    stream.frame(&[
        fact(&GapFact { last: Lsn(4), reason: GapCause::Damage }, "orders", INC, 4),
        fact(&DeleteFact, "events", INC, 2),
    ]);
    stream.frame(&[entry("events", Incarnation(INC.0 + 1), 1, E1, b"new life"), entry("gone", INC, 1, E1, b"x")]);
    stream.frame(&[fact(&DeleteFact, "gone", INC, 1)]);
    let made = Made::new(&[&stream]);
    let report = plain(&made);
    assert!(report.ok(), "{:?}", report.problems);
    assert_eq!(report.collections[1].gaps, [GapReport { first: 4, last: 4, reason: "DAMAGE".into() }]);
    let to = tempfile::tempdir().unwrap();
    let exported = out(&[&made], to.path());
    assert_eq!(exported.files.len(), 2);
    let lsns = |name| read_avro(&to.path().join(name)).iter().map(|entry| entry.1).collect::<Vec<_>>();
    assert_eq!(lsns("orders.avro"), [3, 5]);
    assert_eq!(read_avro(&to.path().join("events.avro")), [("events".into(), 1, b"new life".to_vec())]);
    let names: Vec<_> = std::fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing else is left there: {names:?}");
    let size = std::fs::metadata(&exported.files[0].file).unwrap().len();
    assert_eq!(size, exported.files[0].bytes);
}

#[test]
fn an_export_overwrites_nothing() {
    let made = Made::new(&[&stream()]);
    let to = tempfile::tempdir().unwrap();
    std::fs::write(to.path().join("orders.avro"), "mine").unwrap();
    let options = ExportOptions { to: to.path().into(), read: ReadOptions::default() };
    let error = export(&[made.url()], &options, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, OfflineError::Exists(path) if path.ends_with("orders.avro")), "{error}");
    assert_eq!(std::fs::read(to.path().join("orders.avro")).unwrap(), b"mine");
    assert!(!to.path().join("events.avro").exists());
}

#[test]
fn large_collections_have_many_blocks() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    let payload = vec![7; 100_000];
    let records: Vec<_> = (1..=20).map(|lsn| entry("c", INC, lsn, E1, &payload)).collect();
    stream.frame(&records);
    let to = tempfile::tempdir().unwrap();
    out(&[&Made::new(&[&stream])], to.path());
    assert_eq!(read_avro(&to.path().join("c.avro")).len(), 20);
}

#[test]
fn folders_that_are_no_directories_say_what_they_are() {
    let (one, two) = (Made::new(&[&stream()]), Made::new(&[&stream()]));
    let error = |urls: &[WalUrl]| verify(urls, ReadOptions::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(error(&[one.url(), two.url()]).contains("are the same directory"));
    let empty = tempfile::tempdir().unwrap();
    let url = |path: &Path| WalUrl::from_file_path(path).unwrap();
    assert!(error(&[url(empty.path())]).contains("no _wal folder"));
    assert!(error(&[url(&empty.path().join("none"))]).contains("no such folder"));
    std::fs::create_dir_all(empty.path().join("writer-7/_wal")).unwrap();
    assert!(error(&[url(empty.path())]).contains("give one of them: writer-7"));
    assert!(error(&["s3://bucket/x".parse().unwrap()]).contains("only file://"));
    std::fs::write(one.path().join("_wal/identity.json"), r#"{"format":2}"#).unwrap();
    assert!(error(&[one.url()]).contains("format 2"));
}

#[test]
fn streams_without_an_identity_are_a_problem() {
    let made = Made::new(&[&stream()]);
    for text in [Some("{"), None] {
        match text {
            Some(text) => std::fs::write(made.path().join("_wal/identity.json"), text).unwrap(),
            None => std::fs::remove_file(made.path().join("_wal/identity.json")).unwrap(),
        }
        let report = plain(&made);
        assert!(report.problems[0].file.ends_with("identity.json"), "{:?}", report.problems);
        assert_eq!(report.collections.len(), 2, "what can be read is shown");
    }
}

#[test]
fn a_slot_of_another_directory_is_a_problem() {
    let made = Made::of(SECOND, &[&stream()]);
    let report = plain(&made);
    assert!(report.problems[0].what.contains("belongs to directory"), "{:?}", report.problems);
}

#[test]
fn a_later_version_stops_every_tool() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    let bytes = stream.files[0].as_mut().unwrap();
    let mut head = [0; 112];
    head.copy_from_slice(&bytes[PAGE + 21..PAGE + 133]);
    head[20] |= 64;
    let crc = crate::format::frame::head_crc(&head);
    head[16..20].copy_from_slice(&crc.to_le_bytes());
    bytes[PAGE + 21..PAGE + 133].copy_from_slice(&head);
    let made = Made::new(&[&stream]);
    let error = verify(&[made.url()], ReadOptions::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OfflineError::Later { .. }), "{error}");
    let error = dump(&made.slot(&stream, 1), DumpOptions::default(), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, OfflineError::Later { .. }), "{error}");
}

/// What an export gives: collection, LSN, payload.
fn exported(made: &Made) -> Vec<(String, i64, Vec<u8>)> {
    let to = tempfile::tempdir().unwrap();
    let report = out(&[made], to.path());
    report.files.iter().flat_map(|file| read_avro(&file.file)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn flipped_and_lost_bytes_never_give_a_wrong_entry_nor_hide_a_proven_loss(
        flips in proptest::collection::vec((0_u64..2, any::<prop::sample::Index>()), 0..4),
        cut in proptest::option::of((0_u64..2, any::<prop::sample::Index>())),
    ) {
        let mut first = stream();
        first.rotate();
        first.frame(&entries("orders", 6..=9));
        let mut next = Stream::new(2, 0);
        next.begin(vec![first.close()]);
        let whole = exported(&Made::new(&[&first, &next]));
        let made = Made::new(&[&first, &next]);
        let change = |file: u64, change: &dyn Fn(&mut Vec<u8>)| {
            let path = made.slot(&first, file + 1);
            let mut bytes = std::fs::read(&path).unwrap();
            change(&mut bytes);
            std::fs::write(path, bytes).unwrap();
        };
        for (file, at) in &flips {
            change(*file, &|bytes| {
                let bit = at.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            });
        }
        if let Some((file, at)) = &cut {
            change(*file, &|bytes| bytes.truncate(at.index(bytes.len())));
        }
        let report = plain(&made);
        let read = exported(&made);
        // The first stream is closed: all its frames are proven. (A TRUNCATE that is lost brings entries back.)
        let lost: Vec<_> = whole.iter().filter(|entry| !read.contains(entry)).collect();
        prop_assert!(lost.is_empty() || !report.ok(), "{lost:?}");
        for (name, lsn, payload) in &read {
            let right = if name == "orders" { format!("orders {lsn}").into_bytes() } else { vec![b'`' + *lsn as u8] };
            prop_assert_eq!(payload, &right);
        }
        let order = |name: &str| read.iter().filter(|one| one.0 == name).map(|one| one.1).collect::<Vec<_>>();
        prop_assert!(order("orders").is_sorted_by(|a, b| a < b) && order("events").is_sorted_by(|a, b| a < b));
    }
}
