//! The tools beside a running sidecar: its lock, and files that change while they are read.

use rustix::fs::{FlockOperation, flock};

use super::export::{ExportOptions, ExportReport, export};
use super::fixture::{Made, Segment};
use super::segment_tests::{CURRENT, INC, Parts, SEALED, SHARED};
use super::tests::{check, entries, fact, plain, read_avro, stream};
use super::verify::verify;
use super::{OfflineError, ReadOptions};
use crate::format::facts::DeleteFact;
use crate::format::fixture::{Stream, truncate};
use crate::format::header::Codec;
use crate::types::Epoch;

#[test]
fn a_held_lock_names_the_process_and_live_reads_beside_it() {
    let made = Made::new(&[&stream()]);
    let lock = std::fs::File::create(made.path().join("_wal/lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    std::fs::write(made.path().join("_wal/lock"), "4711\n").unwrap();
    let error = verify(&[made.url()], ReadOptions::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, OfflineError::Locked { pid: Some(4711), .. }), "{error}");
    assert!(error.to_string().contains("process 4711"), "{error}");
    std::fs::write(made.path().join("_wal/lock"), "").unwrap();
    let error = verify(&[made.url()], ReadOptions::default(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
    assert!(check(&[&made], ReadOptions { live: true, ..ReadOptions::default() }).ok());
    flock(&lock, FlockOperation::Unlock).unwrap();
    assert!(plain(&made).ok());
    assert!(plain(&made).ok(), "the tools do not exclude each other or themselves");
}

#[test]
fn a_segment_that_is_sealed_while_it_is_verified_or_exported_is_found_under_its_new_name() {
    let parts = Parts::new(Codec::Null);
    let (current, sealed) = (CURRENT, "orders/wal_00000000000000000007-00000000000000000009.avro");
    let seal = |made: &Made| {
        let [from, to] = [current, sealed].map(|name| made.path().join(name));
        if from.exists() {
            std::fs::rename(from, to).unwrap();
        }
    };
    let made = parts.made();
    let mut times = 0;
    let report = verify(&[made.url()], ReadOptions::default(), &mut |progress| {
        // Listed, then read.
        times += u32::from(progress.at.ends_with(SEALED));
        if times == 2 {
            seal(&made);
        }
    });
    assert!(!made.path().join(current).exists());
    assert_eq!(report.unwrap().problems, []);

    let made = parts.made();
    let to = tempfile::tempdir().unwrap();
    let options =
        ExportOptions { to: to.path().to_owned(), read: ReadOptions { live: true, ..ReadOptions::default() } };
    let report = export(&[made.url()], &options, &mut |progress| {
        if progress.at == "orders" {
            seal(&made);
        }
    });
    assert!(!made.path().join(current).exists());
    assert_eq!(report.unwrap().problems, []);
    assert_eq!(read_avro(&to.path().join("orders.avro")).len(), 12);
}

/// Exports beside a sidecar that does `change` once the directories are read, before the first collection is written.
fn beside(made: &Made, change: impl Fn()) -> (ExportReport, tempfile::TempDir) {
    let to = tempfile::tempdir().unwrap();
    let options =
        ExportOptions { to: to.path().to_owned(), read: ReadOptions { live: true, ..ReadOptions::default() } };
    let mut changed = false;
    let report = export(&[made.url()], &options, &mut |progress| {
        if progress.at == "events" && !std::mem::replace(&mut changed, true) {
            change();
        }
    });
    assert!(changed);
    (report.unwrap(), to)
}

fn remove(made: &Made, name: &str) {
    std::fs::remove_file(made.path().join(name)).unwrap();
}

fn lsns(to: &tempfile::TempDir, name: &str) -> Vec<i64> {
    read_avro(&to.path().join(name)).iter().map(|entry| entry.1).collect()
}

/// The first slot of `parts` with what is in its stream now.
fn write_journal(made: &Made, stream: &Stream) {
    std::fs::write(made.slot(stream, 1), stream.files[0].as_ref().unwrap()).unwrap();
}

#[test]
fn what_is_truncated_under_an_export_is_no_damage_and_leaves_no_hole() {
    let mut parts = Parts::new(Codec::Null);
    let made = parts.made();
    parts.stream.frame(&[truncate("orders", INC, 8, 12, Epoch(1))]);
    let (report, to) = beside(&made, || {
        write_journal(&made, &parts.stream);
        remove(&made, SEALED);
    });
    assert_eq!(report.problems, []);
    assert_eq!(lsns(&to, "orders.avro"), [9, 10, 11, 12]);
    let orders = report.files.iter().find(|file| file.collection.name == "orders").unwrap();
    assert_eq!((orders.collection.truncated_to, orders.collection.entries), (8, 4));
}

#[test]
fn what_is_rewritten_under_an_export_is_found_where_it_is_now() {
    let mut parts = Parts::new(Codec::Snappy);
    let made = parts.made();
    let mut new = Segment::shared(0x20, Codec::Snappy, 2);
    new.flush(&[entries("events", 1..=3), entries("lines", 1..=2)].concat());
    parts.stream.frame(&[new.fact("events", 1, 3, true), new.fact("lines", 1, 2, true)]);
    let (report, to) = beside(&made, || {
        made.put(&new, "_wal/shared/000000000002.avro");
        write_journal(&made, &parts.stream);
        remove(&made, SHARED);
    });
    assert_eq!(report.problems, []);
    assert_eq!((lsns(&to, "events.avro").len(), lsns(&to, "lines.avro").len()), (3, 2));
}

#[test]
fn a_collection_that_is_deleted_under_an_export_is_left_out() {
    let mut parts = Parts::new(Codec::Null);
    let made = parts.made();
    parts.stream.frame(&[fact(&DeleteFact, "orders", INC, 12)]);
    let (report, to) = beside(&made, || {
        write_journal(&made, &parts.stream);
        remove(&made, SEALED);
        remove(&made, CURRENT);
    });
    assert_eq!(report.problems, []);
    assert_eq!(report.files.len(), 2);
    assert!(!to.path().join("orders.avro").exists());
}

#[test]
fn a_segment_that_vanishes_under_an_export_without_a_fact_is_damage() {
    let parts = Parts::new(Codec::Null);
    let made = parts.made();
    let (report, to) = beside(&made, || remove(&made, SEALED));
    assert!(!report.problems.is_empty());
    assert_eq!(lsns(&to, "orders.avro"), [7, 8, 9, 10, 11, 12]);
}
