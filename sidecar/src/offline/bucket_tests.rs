//! The tools on what the engine leaves in a bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use walstorage_crds::url::WalUrl;

use super::dump::{DumpOptions, dump_object};
use super::export::{ExportOptions, export};
use super::place::Stored;
use super::tests::read_avro;
use super::verify::{VerifyReport, verify};
use super::{OfflineError, ReadOptions, Stores};
use crate::engine::bucket_tests::a_log_in_a_bucket;
use crate::fencing::directory::memory::Store;

const URL: &str = "s3://one/wal";

/// A store and a prefix; parts that were read one by one are counted.
struct Bucket(Store, String, Arc<AtomicU64>);

impl Stored for Bucket {
    fn list(&self, prefix: &str) -> std::io::Result<Vec<(String, u64)>> {
        let keys = self.0.keys().into_iter();
        let below =
            keys.filter_map(|key| Some((key.strip_prefix(&self.1)?.to_owned(), self.0.get(&key)?.len() as u64)));
        Ok(below.filter(|(key, _)| key.starts_with(prefix)).collect())
    }

    fn read(&self, key: &str, range: Range<u64>) -> std::io::Result<Option<Bytes>> {
        self.2.fetch_add(1, Ordering::Relaxed);
        Ok(self.part(key, range))
    }

    fn read_many(&self, parts: &[(&str, Range<u64>)]) -> std::io::Result<Vec<Option<Bytes>>> {
        Ok(parts.iter().map(|(key, range)| self.part(key, range.clone())).collect())
    }
}

impl Bucket {
    fn part(&self, key: &str, range: Range<u64>) -> Option<Bytes> {
        let found = self.0.get(&format!("{}{key}", self.1));
        let within = |length: usize, at: u64| length.min(usize::try_from(at).unwrap_or(usize::MAX));
        found.map(|body| body.slice(within(body.len(), range.start)..within(body.len(), range.end)))
    }
}

fn stores(store: &Store) -> Stores {
    counted(store, &Arc::default())
}

fn counted(store: &Store, reads: &Arc<AtomicU64>) -> Stores {
    let (store, reads) = (store.clone(), Arc::clone(reads));
    Stores::of(move |url| {
        let below = url.as_str().strip_prefix(URL).unwrap().trim_start_matches('/');
        let prefix = if below.is_empty() { String::new() } else { format!("{below}/") };
        Ok(Arc::new(Bucket(store.clone(), prefix, Arc::clone(&reads))))
    })
}

fn verified(store: &Store) -> VerifyReport {
    let stores = stores(store);
    let options = ReadOptions { stores: Some(&stores), ..ReadOptions::default() };
    verify(&[WalUrl::parse(URL).unwrap()], options, &mut |_| {}).unwrap()
}

#[test]
fn a_bucket_is_verified_and_exported_like_a_disk_and_nothing_is_written() {
    for more in ["", "memory_flush_size_bytes = 2000", "memory_flush_size_bytes = 2000\njournal_max_bytes = \"8Mi\""] {
        let (store, collections) = a_log_in_a_bucket(more);
        let (keys, creates) = (store.keys(), store.counts().1);
        let report = verified(&store);
        assert_eq!(report.problems, [], "{more}");
        let expected: BTreeMap<_, _> =
            collections.iter().map(|(name, to, head)| (name.as_str().to_owned(), (to.0, head.0))).collect();
        let found = report.collections.iter().map(|one| (one.name.clone(), (one.truncated_to, one.head)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected, "{more}");
        let [directory] = report.directories.as_slice() else { panic!("{:?}", report.directories) };
        assert!(directory.uuid.is_some() && directory.streams.len() > 1 && directory.bytes > 0, "{directory:?}");
        assert_eq!(report.segments.is_empty(), more.is_empty(), "{more}");

        let to = tempfile::tempdir().unwrap();
        let stores = stores(&store);
        let read = ReadOptions { stores: Some(&stores), ..ReadOptions::default() };
        let options = ExportOptions { to: to.path().to_owned(), read };
        let exported = export(&[WalUrl::parse(URL).unwrap()], &options, &mut |_| {}).unwrap();
        assert_eq!(exported.problems, [], "{more}");
        for file in exported.files {
            let lsns: Vec<u64> = read_avro(&file.file).iter().map(|entry| entry.1 as u64).collect();
            let (truncated, head) = expected[&file.collection.name];
            assert_eq!(lsns, (truncated + 1..=head).collect::<Vec<_>>(), "{more}: {}", file.collection.name);
        }
        assert_eq!((store.keys(), store.counts().1), (keys, creates), "something was written");
    }
}

#[test]
fn an_object_that_is_gone_or_rotten_is_named_with_what_was_in_it() {
    for rotten in [false, true] {
        let (store, _) = a_log_in_a_bucket("");
        let key = store.keys().into_iter().find(|key| key.ends_with("0000000000001.000/000000000004.avro")).unwrap();
        store.spoil(&key, rotten);
        let problems = verified(&store).problems;
        assert!(problems.iter().any(|problem| problem.file == format!("{URL}/{key}")), "{problems:#?}");
    }
}

#[test]
fn every_object_can_be_dumped() {
    let (store, _) = a_log_in_a_bucket("memory_flush_size_bytes = 2000");
    let stores = stores(&store);
    let mut kinds = BTreeMap::<String, u64>::new();
    for key in store.keys().into_iter().filter(|key| key.ends_with(".avro")) {
        let mut out = Vec::new();
        let report = dump_object(&format!("{URL}/{key}"), &stores, DumpOptions::default(), &mut out).unwrap();
        assert!(report.whole, "{key}: {:?}", report.notes);
        for line in String::from_utf8(out).unwrap().lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            *kinds.entry(line["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    for kind in ["EPOCH", "DATA", "FRAME", "INDEX", "COLLECTION", "FLUSHED"] {
        assert!(kinds.contains_key(kind), "{kind}: {kinds:?}");
    }
    let missing = dump_object(&format!("{URL}/none.avro"), &stores, DumpOptions::default(), &mut Vec::new());
    assert!(missing.unwrap_err().to_string().contains("there is no such object"));
}

#[test]
fn what_is_no_directory_is_said_to_be_none() {
    let stores = stores(&Store::default());
    let options = ReadOptions { stores: Some(&stores), ..ReadOptions::default() };
    let url = [WalUrl::parse(URL).unwrap()];
    let error = verify(&url, options, &mut |_| {}).unwrap_err();
    assert!(matches!(error, OfflineError::NotADirectory { .. }), "{error}");
    let error = verify(&url, ReadOptions::default(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("only file://"), "{error}");
}

#[test]
fn small_objects_of_a_journal_are_asked_for_once_and_together() {
    let (store, _) = a_log_in_a_bucket("");
    let reads = Arc::default();
    let stores = counted(&store, &reads);
    let options = ReadOptions { stores: Some(&stores), ..ReadOptions::default() };
    let report = verify(&[WalUrl::parse(URL).unwrap()], options, &mut |_| {}).unwrap();
    assert_eq!(report.problems, []);
    let objects = store.keys().iter().filter(|key| key.contains("_wal/journal/")).count() as u64;
    let reads = reads.load(Ordering::Relaxed);
    assert!(objects > 30 && reads < objects / 4, "{reads} reads one by one of {objects} objects");
}
