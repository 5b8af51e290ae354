//! The tools beside a running sidecar: its lock, and files that change while they are read.

use rustix::fs::{FlockOperation, flock};

use super::export::{ExportOptions, export};
use super::fixture::Made;
use super::segment_tests::{CURRENT, Parts, SEALED};
use super::tests::{check, plain, read_avro, stream};
use super::verify::verify;
use super::{OfflineError, ReadOptions};
use crate::format::header::Codec;

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
    assert!(check(&[&made], ReadOptions { live: true }).ok());
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
    let options = ExportOptions { to: to.path().to_owned(), read: ReadOptions { live: true } };
    let report = export(&[made.url()], &options, &mut |progress| {
        if progress.at == "orders" {
            seal(&made);
        }
    });
    assert!(!made.path().join(current).exists());
    assert_eq!(report.unwrap().problems, []);
    assert_eq!(read_avro(&to.path().join("orders.avro")).len(), 12);
}
