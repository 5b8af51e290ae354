//! The tools over segments: what is read, what is named, and that journal and segments together give each entry once.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use uuid::Uuid;
use walstorage_crds::url::WalUrl;

use super::export::{ExportOptions, export};
use super::fixture::{Made, Segment};
use super::report::{Lost, Problem, SegmentContent};
use super::tests::{Read, entries, read_avro};
use super::verify::{VerifyReport, verify};
use super::{OfflineError, ReadOptions};
use crate::format::facts::{DeleteFact, Fact, Subject};
use crate::format::fixture::{DIRECTORY, Stream, collection, entry, truncate};
use crate::format::header::{Codec, SegmentOf};
use crate::types::{Epoch, Incarnation, Lsn};

const E1: Epoch = Epoch(1);
pub(super) const INC: Incarnation = Incarnation(1 << 20);
pub(super) const ALL: [Codec; 3] = [Codec::Null, Codec::Snappy, Codec::Zstandard];
pub(super) const CURRENT: &str = "orders/wal_current.avro";
pub(super) const SEALED: &str = "orders/wal_00000000000000000001-00000000000000000006.avro";
pub(super) const SHARED: &str = "_wal/shared/000000000001.avro";

/// Orders 1..6 in a sealed segment of two flushes, 7..9 in the current one, 9..12 in the journal; events 1..3 and lines
/// 1..2 in a shared one.
pub(super) struct Parts {
    pub(super) stream: Stream,
    pub(super) sealed: Segment,
    current: Segment,
    shared: Segment,
}

impl Parts {
    pub(super) fn new(codec: Codec) -> Self {
        let mut sealed = Segment::own(0xA, codec, "orders", 1);
        sealed.flush(&entries("orders", 1..=3));
        sealed.flush(&entries("orders", 4..=6));
        let mut current = Segment::own(0xB, codec, "orders", 7);
        current.flush(&entries("orders", 7..=9));
        let mut shared = Segment::shared(0xC, codec, 1);
        shared.flush(&[entries("events", 1..=3), entries("lines", 1..=2)].concat());
        let mut stream = Stream::new(1, 0);
        stream.begin(Vec::new());
        let homes = ["orders", "events", "lines"].map(|name| collection(name, INC, 0, DIRECTORY, E1));
        stream.frame(&homes);
        stream.frame(&[
            sealed.fact("orders", 1, 6, true),
            current.fact("orders", 7, 9, false),
            shared.fact("events", 1, 3, true),
            shared.fact("lines", 1, 2, true),
        ]);
        stream.frame(&entries("orders", 9..=12));
        Self { stream, sealed, current, shared }
    }

    pub(super) fn made(&self) -> Made {
        let made = Made::new(&[&self.stream]);
        made.put(&self.sealed, SEALED);
        made.put(&self.current, CURRENT);
        made.put(&self.shared, SHARED);
        made
    }
}

fn check(made: &Made) -> VerifyReport {
    verify(&[made.url()], ReadOptions::default(), &mut |_| {}).unwrap()
}

fn exported(urls: &[WalUrl]) -> (Vec<Read>, Vec<Problem>) {
    let to = tempfile::tempdir().unwrap();
    let options = ExportOptions { to: to.path().to_owned(), read: ReadOptions::default() };
    let report = export(urls, &options, &mut |_| {}).unwrap();
    let read: Vec<_> = report.files.iter().flat_map(|file| read_avro(&file.file)).collect();
    let said: u64 = report.files.iter().map(|file| file.collection.entries).sum();
    assert_eq!(said, read.len() as u64);
    (read, report.problems)
}

fn whole() -> Vec<Read> {
    let all =
        |name: &'static str, last: i64| (1..=last).map(move |n| (name.into(), n, format!("{name} {n}").into_bytes()));
    all("events", 3).chain(all("lines", 2)).chain(all("orders", 12)).collect()
}

fn lost(name: &str, first: u64, last: u64) -> Lost {
    Lost::of(name, first, last)
}

#[test]
fn every_codec_and_kind_of_segment_is_read_and_exported_with_the_journal_once_and_in_order() {
    for codec in ALL {
        let made = Parts::new(codec).made();
        let report = check(&made);
        assert_eq!(report.problems, []);
        assert_eq!((report.notes.len(), report.unused.len()), (0, 0), "{:?} {:?}", report.notes, report.unused);
        let shown: Vec<_> = report
            .collections
            .iter()
            .map(|one| (one.name.as_str(), one.flushed_to, one.head, one.entries, one.segments))
            .collect();
        assert_eq!(shown, [("events", 3, 3, 3, 1), ("lines", 2, 2, 2, 1), ("orders", 9, 12, 12, 2)]);
        let shown: Vec<_> = report
            .segments
            .iter()
            .map(|one| (one.codec, one.sealed, one.shared, one.blocks, one.collections.len()))
            .collect();
        let name = codec.as_str();
        assert_eq!(shown, [(name, true, false, 2, 1), (name, false, false, 1, 1), (name, true, true, 2, 2)]);
        let content = |name: &str, last| SegmentContent { collection: name.into(), first: 1, last, entries: last };
        assert_eq!(report.segments[2].collections, [content("events", 3), content("lines", 2)]);
        assert_eq!(exported(&[made.url()]), (whole(), Vec::new()));
    }
}

#[test]
fn a_segment_is_found_under_either_name_by_the_uuid_in_its_header() {
    let parts = Parts::new(Codec::Snappy);
    let made = parts.made();
    std::fs::rename(made.path().join(SEALED), made.path().join("orders/wal_x.avro")).unwrap();
    std::fs::rename(made.path().join(CURRENT), made.path().join(SEALED)).unwrap();
    std::fs::rename(made.path().join("orders/wal_x.avro"), made.path().join(CURRENT)).unwrap();
    assert_eq!(check(&made).problems, []);
    assert_eq!(exported(&[made.url()]).0, whole());
}

#[test]
fn what_lies_beyond_the_valid_length_does_not_count() {
    let mut parts = Parts::new(Codec::Null);
    // A flush that a crash kept from being vouched for; the journal holds its entries.
    parts.current.flush(&entries("orders", 10..=11));
    parts.current.bytes.extend(b"half a block");
    let made = parts.made();
    let report = check(&made);
    assert_eq!((report.problems, report.collections[2].flushed_to), (Vec::new(), 9));
    assert_eq!(exported(&[made.url()]).0, whole());
}

#[test]
fn a_missing_segment_is_named_with_its_collections_and_lsns() {
    let parts = Parts::new(Codec::Null);
    for (name, in_danger, nowhere) in [
        (SEALED, vec![lost("orders", 1, 6)], vec![vec![lost("orders", 1, 6)]]),
        // The journal still holds 9.
        (CURRENT, vec![lost("orders", 7, 9)], vec![vec![lost("orders", 7, 8)]]),
        (
            SHARED,
            vec![lost("events", 1, 3), lost("lines", 1, 2)],
            vec![vec![lost("events", 1, 3)], vec![lost("lines", 1, 2)]],
        ),
    ] {
        let made = parts.made();
        let path = made.path().join(name);
        std::fs::remove_file(&path).unwrap();
        let report = check(&made);
        let problem = &report.problems[0];
        assert_eq!(problem.file, path.parent().unwrap().display().to_string());
        assert!(problem.what.contains("is not there"), "{problem}");
        assert_eq!(problem.lost, in_danger);
        let rest: Vec<_> = report.problems[1..].iter().map(|problem| problem.lost.clone()).collect();
        assert_eq!(rest, nowhere);
        let (read, problems) = exported(&[made.url()]);
        assert!(!problems.is_empty());
        let gone = |name: &str, lsn: u64| {
            nowhere.iter().flatten().any(|lost| {
                lost.collection.as_deref() == Some(name) && lost.first <= Some(lsn) && Some(lsn) <= lost.last
            })
        };
        let left: Vec<_> = whole().into_iter().filter(|one| !gone(&one.0, one.1 as u64)).collect();
        assert_eq!(read, left);
    }
}

#[test]
fn a_short_segment_is_named_with_where_it_ends() {
    let parts = Parts::new(Codec::Zstandard);
    let made = parts.made();
    let path = made.path().join(SEALED);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let problem = &check(&made).problems[0];
    assert_eq!((problem.file.as_str(), problem.offset), (path.to_str().unwrap(), Some(bytes.len() as u64 - 1)));
    assert!(problem.what.contains("the journal says that"), "{problem}");
    assert_eq!((&problem.lost, problem.most_entries), (&vec![lost("orders", 1, 6)], Some(6)));
}

#[test]
fn a_damaged_block_is_named_by_offset_and_lsns_and_the_others_are_read() {
    let mut parts = Parts::new(Codec::Null);
    let mut sealed = Segment::own(0xA, Codec::Null, "orders", 1);
    let at = sealed.flush(&entries("orders", 1..=3));
    sealed.flush(&entries("orders", 4..=6));
    assert_eq!(sealed.bytes, parts.sealed.bytes);
    parts.sealed.bytes[at + 30] ^= 1;
    let made = parts.made();
    let report = check(&made);
    let problem = &report.problems[0];
    assert_eq!(
        (problem.file.clone(), problem.offset),
        (made.path().join(SEALED).display().to_string(), Some(at as u64))
    );
    assert_eq!(problem.lost, [lost("orders", 1, 3)]);
    assert_eq!(report.problems[1].lost, [lost("orders", 1, 3)], "nowhere else either");
    assert_eq!(report.problems.len(), 2);
    let left: Vec<_> = whole().into_iter().filter(|one| one.0 != "orders" || one.1 > 3).collect();
    assert_eq!(exported(&[made.url()]).0, left);
}

#[test]
fn a_damaged_index_names_what_only_it_leads_to() {
    let parts = Parts::new(Codec::Snappy);
    for (index, first) in [(0, 1), (1, 1)] {
        let made = parts.made();
        let mut sealed = Segment::own(0xA, Codec::Snappy, "orders", 1);
        sealed.flush(&entries("orders", 1..=3));
        let offsets = [sealed.flushed.index_offset, parts.sealed.flushed.index_offset];
        let mut bytes = parts.sealed.bytes.clone();
        bytes[offsets[index] as usize + 40] ^= 1;
        std::fs::write(made.path().join(SEALED), bytes).unwrap();
        let problem = &check(&made).problems[0];
        assert_eq!(problem.offset, Some(offsets[index]));
        assert!(problem.what.contains("INDEX"), "{problem}");
        let last = if index == 0 { 3 } else { 6 };
        assert_eq!(problem.lost, [lost("orders", first, last)], "an older index hides older entries only");
    }
}

#[test]
fn a_bad_header_is_named_where_the_segment_should_be() {
    let parts = Parts::new(Codec::Null);
    let made = parts.made();
    let path = made.path().join(CURRENT);
    let mut bytes = parts.current.bytes.clone();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let report = check(&made);
    assert_eq!(report.problems[0].file, path.display().to_string());
    assert!(report.problems[0].what.contains("is not there") && report.problems[0].what.contains("wal.crc"));
    assert_eq!(report.problems[0].lost, [lost("orders", 7, 9)]);
    assert_eq!(report.unused, [], "told once");
}

#[test]
fn a_segment_of_another_collection_or_kind_is_wrong() {
    let mut parts = Parts::new(Codec::Null);
    parts.sealed = Segment::own(0xA, Codec::Null, "events", 1);
    parts.sealed.flush(&entries("events", 1..=6));
    let report = check(&parts.made());
    assert!(report.problems[0].what.contains("\"events\"") && report.problems[0].what.contains("\"orders\""));
    let mut parts = Parts::new(Codec::Null);
    parts.sealed.header.of = SegmentOf::Shared;
    parts.sealed.bytes = parts.sealed.header.build();
    assert!(check(&parts.made()).problems[0].what.contains("shared"));
}

#[test]
fn files_that_nothing_needs_are_told_and_are_no_errors() {
    let parts = Parts::new(Codec::Null);
    let made = parts.made();
    let orphan = Segment::own(0xD, Codec::Null, "orders", 1);
    let mut foreign = Segment::own(0xE, Codec::Null, "orders", 1);
    foreign.header.directory = Uuid::from_u128(9);
    foreign.bytes = foreign.header.build();
    let mut unused = vec![
        made.put(&orphan, "gone/wal_current.avro"),
        made.put(&foreign, "orders/wal_00000000000000000007-00000000000000000008.avro"),
        made.put(&Segment::shared(0xF, Codec::Null, 2), "_wal/shared/000000000002.avro"),
    ];
    let empty = made.path().join("orders/wal_00000000000000000001-00000000000000000002.avro");
    std::fs::write(&empty, "").unwrap();
    unused.push(empty);
    std::fs::write(made.path().join("orders/notes.txt"), "left alone").unwrap();
    let report = check(&made);
    assert_eq!(report.problems, []);
    let mut told: Vec<_> = report.unused.iter().map(|one| PathBuf::from(&one.file)).collect();
    told.sort();
    unused.sort();
    assert_eq!(told, unused);
    let of = |path: &Path| report.unused.iter().find(|one| Path::new(&one.file) == path).unwrap().what.as_str();
    assert!(of(&made.path().join("orders/wal_00000000000000000007-00000000000000000008.avro")).contains("belongs to"));
}

#[test]
fn segments_that_nothing_names_may_hold_what_is_lost() {
    let made = Parts::new(Codec::Null).made();
    let mut newer = Segment::own(0xD, Codec::Null, "orders", 7);
    newer.flush(&entries("orders", 7..=9));
    made.put(&newer, "orders/wal_00000000000000000007-00000000000000000009.avro");
    assert_eq!(check(&made).notes, Vec::<String>::new(), "nothing is lost");
    std::fs::remove_file(made.path().join(CURRENT)).unwrap();
    let report = check(&made);
    assert_eq!(report.problems[0].lost, [lost("orders", 7, 9)]);
    assert!(report.notes[0].contains("may be in files that no journal names (1, not read here)"), "{:?}", report.notes);
}

#[test]
fn truncated_and_deleted_entries_need_no_segment() {
    let mut parts = Parts::new(Codec::Null);
    parts.stream.frame(&[truncate("orders", INC, 6, 12, E1)]);
    let delete = |name| {
        let mut buf = Vec::new();
        DeleteFact.encode(&mut buf, Subject { collection_id: name, incarnation: INC, lsn: Lsn(3) }, E1);
        buf
    };
    parts.stream.frame(&[delete("events"), delete("lines")]);
    let made = parts.made();
    let report = check(&made);
    assert_eq!((report.problems.len(), report.unused.len(), report.collections.len()), (0, 2, 1));
    std::fs::remove_file(made.path().join(SEALED)).unwrap();
    std::fs::remove_file(made.path().join(SHARED)).unwrap();
    assert_eq!(check(&made).problems, []);
    let left: Vec<_> = whole().into_iter().filter(|one| one.0 == "orders" && one.1 > 6).collect();
    assert_eq!(exported(&[made.url()]).0, left);
}

#[test]
fn a_rewritten_segment_covers_the_old_one_which_may_be_there_gone_or_rotten() {
    let mut parts = Parts::new(Codec::Null);
    let mut new = Segment::shared(0x10, Codec::Snappy, 2);
    new.flush(&[entries("events", 2..=3), entries("lines", 1..=2)].concat());
    parts.stream.frame(&[
        truncate("events", INC, 1, 3, E1),
        new.fact("events", 2, 3, true),
        new.fact("lines", 1, 2, true),
    ]);
    let expected: Vec<_> = whole().into_iter().filter(|one| one.0 != "events" || one.1 > 1).collect();
    let rotten = |made: &Made| {
        let mut bytes = parts.shared.bytes.clone();
        let at = bytes.len() - 700;
        bytes[at] ^= 1;
        std::fs::write(made.path().join(SHARED), bytes).unwrap();
    };
    let short = |made: &Made| std::fs::write(made.path().join(SHARED), &parts.shared.bytes[..1500]).unwrap();
    let gone = |made: &Made| std::fs::remove_file(made.path().join(SHARED)).unwrap();
    let changes: [&dyn Fn(&Made); 4] = [&|_| {}, &rotten, &short, &gone];
    for change in changes {
        let made = parts.made();
        made.put(&new, "_wal/shared/000000000002.avro");
        change(&made);
        let report = check(&made);
        assert_eq!(report.problems, []);
        assert_eq!(exported(&[made.url()]), (expected.clone(), Vec::new()));
    }
}

#[test]
fn two_different_copies_are_a_problem_and_the_higher_epoch_counts() {
    for (epoch, wins) in [(0, "orders 9"), (5, "other")] {
        let mut parts = Parts::new(Codec::Null);
        parts
            .stream
            .frame(&[entry("orders", INC, 8, Epoch(1), b"orders 8"), entry("orders", INC, 9, Epoch(epoch), b"other")]);
        // Of the journal's two copies of 9 the one of the higher epoch is left, against that of the segment.
        let made = parts.made();
        let report = check(&made);
        assert!(report.problems.iter().all(|problem| problem.what.contains("same LSN")), "{:?}", report.problems);
        let (read, _) = exported(&[made.url()]);
        let nine = read.iter().find(|one| one.0 == "orders" && one.1 == 9).unwrap();
        assert_eq!(String::from_utf8_lossy(&nine.2), wins);
        assert_eq!(read.len(), whole().len());
    }
    // Two segments that disagree.
    let mut parts = Parts::new(Codec::Null);
    let mut new = Segment::own(0x11, Codec::Null, "orders", 5);
    new.flush(&[entry("orders", INC, 5, Epoch(9), b"other 5"), entry("orders", INC, 6, E1, b"orders 6")]);
    parts.stream.frame(&[new.fact("orders", 5, 6, true)]);
    let made = parts.made();
    made.put(&new, "orders/wal_00000000000000000005-00000000000000000006.avro");
    let report = check(&made);
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert_eq!(report.problems[0].lost, [lost("orders", 5, 5)]);
    let (read, _) = exported(&[made.url()]);
    assert_eq!(read.iter().find(|one| one.0 == "orders" && one.1 == 5).unwrap().2, b"other 5");
    assert_eq!(read.len(), whole().len());
}

#[test]
fn a_collection_that_moved_has_its_segments_in_two_directories() {
    let second = Uuid::from_u128(0x4444);
    let mut parts = Parts::new(Codec::Null);
    let mut moved = Stream { directory: second, ..Stream::new(1, 0) };
    moved.files.clear();
    moved.rotate();
    moved.begin(Vec::new());
    let mut there = Segment::own(0x12, Codec::Snappy, "orders", 13);
    there.header.directory = second;
    there.bytes = there.header.build();
    there.flush(&entries("orders", 13..=20));
    moved.frame(&[there.fact("orders", 13, 20, false)]);
    parts.stream.frame(&entries("orders", 10..=12));
    let (one, two) = (parts.made(), Made::of(second, &[&moved]));
    two.put(&there, CURRENT);
    let urls = [one.url(), two.url()];
    let report = verify(&urls, ReadOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(report.problems, []);
    let orders = &report.collections[2];
    assert_eq!((orders.entries, orders.segments, orders.flushed_to), (20, 3, 20));
    let (read, problems) = exported(&urls);
    assert_eq!((read.len(), problems.len()), (25, 0));
    std::fs::remove_file(two.path().join(CURRENT)).unwrap();
    let report = verify(&urls, ReadOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(report.problems[0].directory, two.url().to_string());
    assert_eq!(report.problems[0].lost, [lost("orders", 13, 20)]);
}

#[test]
fn a_segment_of_a_later_version_stops_the_tools() {
    let parts = Parts::new(Codec::Null);
    let made = parts.made();
    let header = String::from_utf8_lossy(&parts.current.header.build()).into_owned();
    assert!(header.contains("wal.format"));
    let mut bytes = parts.current.header.build();
    let at = bytes.windows(10).position(|window| window == b"wal.format").unwrap() + 11;
    bytes[at] = b'2';
    let crc_at = bytes.windows(7).position(|window| window == b"wal.crc").unwrap() + 8;
    bytes[crc_at..crc_at + 8].fill(b'0');
    let crc = format!("{:08x}", crc32c::crc32c(&bytes));
    bytes[crc_at..crc_at + 8].copy_from_slice(crc.as_bytes());
    std::fs::write(made.path().join(CURRENT), bytes).unwrap();
    let error = verify(&[made.url()], ReadOptions::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OfflineError::Later { .. }), "{error}");
}

#[test]
fn progress_counts_journals_and_segments_of_all_directories() {
    let made = Parts::new(Codec::Null).made();
    let mut seen = Vec::new();
    verify(&[made.url()], ReadOptions::default(), &mut |progress| seen.push((progress.done, progress.total))).unwrap();
    let total: u64 =
        [SEALED, CURRENT, SHARED].iter().map(|name| made.path().join(name).metadata().unwrap().len()).sum();
    assert!(seen.is_sorted() && seen.iter().all(|(_, all)| *all > total), "{seen:?}");
    assert!(seen.iter().any(|(done, all)| (1..*all).contains(done)), "{seen:?}");
    assert!(seen.last().is_some_and(|(done, all)| done == all), "{seen:?}");
}

/// What a flipped bit in a segment may do: nothing, or be a problem that names the segment; never a wrong entry.
fn flipped(name: &'static str, bit: usize, codec: Codec) -> Result<(), TestCaseError> {
    let parts = Parts::new(codec);
    let made = parts.made();
    let path = made.path().join(name);
    let mut bytes = std::fs::read(&path).unwrap();
    let bit = bit % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    std::fs::write(&path, &bytes).unwrap();
    let report = check(&made);
    let (read, _) = exported(&[made.url()]);
    let lost: Vec<_> = whole().into_iter().filter(|one| !read.contains(one)).collect();
    prop_assert!(lost.is_empty() || !report.ok(), "{lost:?}");
    prop_assert!(read.iter().all(|one| whole().contains(one)), "a wrong entry");
    prop_assert!(read.is_sorted(), "order, and nothing twice");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_flipped_bit_in_a_segment_never_gives_a_wrong_entry_nor_hides_a_loss(
        name in proptest::sample::select(&[SEALED, CURRENT, SHARED][..]),
        bit: usize,
        codec in proptest::sample::select(&ALL[..]),
    ) {
        flipped(name, bit, codec)?;
    }
}
