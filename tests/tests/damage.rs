//! Torn and damaged journals, judged by the oracle: every cut and every flipped bit of a small journal.
//!
//! 1. No entry is ever served that was not written.
//! 2. What the oracle calls readable is served; what it calls torn is cut; what it calls damage is named with file,
//!    offset, collections and LSNs, and is never served as if nothing had been.
//! 3. A start that refuses writes nothing over what it found.
//! 4. Two starts agree.
//!
//! `WALSTORAGE_EVERY` = n starts the engine for every n-th cut and flip (default 16); those at the edges of pages and in
//! the structures of frames are always tried.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use walstorage_sidecar::engine::Engine;
use walstorage_sidecar::engine::api::{DamageReport, EngineStatus, GapReason, Item};
use walstorage_sidecar::error::Reason;
use walstorage_sidecar::types::Lsn;
use walstorage_tests::harness::library::{self, Settled, batch};
use walstorage_tests::harness::{Setup, eventually};
use walstorage_tests::oracle::{self, Merged, SegmentFile, SlotFile, Verdict};

const PAGE: usize = 4096;

/// Everything that was appended: collection and LSN to payload.
type Truth = BTreeMap<(String, u64), Vec<u8>>;

/// The files of a directory that is not in use, by path below it.
type Image = BTreeMap<String, Vec<u8>>;

/// A journal to be damaged.
struct Sample {
    image: Image,
    truth: Truth,
}

fn image_of(folder: &Path) -> Image {
    let mut image = Image::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below").to_str().expect("text").to_owned();
                image.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    image
}

fn lay_out(image: &Image, folder: &Path) {
    for (name, bytes) in image {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }
}

fn judge(image: &Image) -> Verdict {
    let slots: Vec<_> = image
        .iter()
        .filter_map(|(name, bytes)| Some(SlotFile { name: name.strip_prefix("_wal/journal/")?, bytes }))
        .collect();
    oracle::classify(&slots)
}

/// What is left according to the oracle: by the journal's verdict, and the segments it speaks of.
fn left(verdict: &Verdict, image: &Image) -> Merged {
    let segments = image.iter().filter(|(name, _)| !name.starts_with("_wal/journal/"));
    let files: Vec<_> = segments.map(|(name, bytes)| SegmentFile { name, bytes }).collect();
    oracle::merge_with_segments([verdict], &files)
}

impl Sample {
    async fn append(&mut self, engine: &Engine, collection: &str, payloads: &[&[u8]]) {
        let appended = engine.append(batch(collection, payloads), None).await.expect("an append");
        for (payload, lsn) in payloads.iter().zip(appended.first_lsn.0..) {
            self.truth.insert((collection.to_owned(), lsn), payload.to_vec());
        }
    }

    /// One process start that ended cleanly.
    async fn one_start() -> Self {
        let setup = Setup::in_memory(1);
        let mut sample = Self { image: Image::new(), truth: Truth::new() };
        let engine = library::ready(library::config(&setup)).await;
        sample.append(&engine, "orders", &[b"first", b"second"]).await;
        sample.append(&engine, "payments", &[&[7; 5000]]).await;
        sample.append(&engine, "orders", &[b"third"]).await;
        engine.shutdown().await;
        sample.image = image_of(&setup.path("d1"));
        sample
    }

    /// A process start that was killed, and another one after it that ended cleanly.
    async fn two_starts() -> Self {
        let (before, after) = (Setup::in_memory(1), Setup::in_memory(1));
        let mut sample = Self { image: Image::new(), truth: Truth::new() };
        let engine = library::ready(library::config(&before)).await;
        sample.append(&engine, "orders", &[b"first", b"second"]).await;
        sample.append(&engine, "payments", &[b"paid"]).await;
        lay_out(&image_of(&before.path("d1")), &after.path("d1"));
        engine.shutdown().await;
        let engine = library::ready(library::config(&after)).await;
        sample.append(&engine, "orders", &[b"third"]).await;
        engine.shutdown().await;
        sample.image = image_of(&after.path("d1"));
        sample
    }

    /// The slots, by name in the image.
    fn slots(&self) -> Vec<String> {
        let slots: Vec<_> = self.image.keys().filter(|name| name.starts_with("_wal/journal/")).cloned().collect();
        assert!(!slots.is_empty(), "{:?}", self.image.keys());
        slots
    }
}

/// What a reader got of all collections.
type Served = BTreeMap<String, Vec<Item>>;

async fn serve(engine: &Engine) -> Served {
    let mut served = Served::new();
    for info in engine.list(None, 1000).expect("a list") {
        let name = info.name.as_str().to_owned();
        let items = library::read_all(engine, &name, 0).await.expect("a read");
        served.insert(name, items);
    }
    served
}

fn entries(merged: &Merged) -> Truth {
    let one = |(name, view): (&String, &oracle::CollectionView)| {
        let name = name.clone();
        let entries: Vec<_> = view.entries.values().map(|e| ((name.clone(), e.lsn), e.payload.clone())).collect();
        entries
    };
    merged.iter().flat_map(one).collect()
}

/// The entries of what was served; asserts that items follow each other without a hole.
fn dense(served: &Served, case: &str) -> (Truth, Vec<(String, Lsn, Lsn)>) {
    let (mut entries, mut gaps) = (Truth::new(), Vec::new());
    for (name, items) in served {
        let mut next = 1;
        for item in items {
            let (first, last) = match item {
                Item::Entry(entry) => {
                    entries.insert((name.clone(), entry.lsn.0), entry.payload.to_vec());
                    (entry.lsn, entry.lsn)
                }
                Item::Gap { first, last, reason } => {
                    assert_eq!(*reason, GapReason::Damage, "{case}");
                    gaps.push((name.clone(), *first, *last));
                    (*first, *last)
                }
            };
            assert_eq!(first.0, next, "{case}: {name} has a hole: {items:?}");
            next = last.0 + 1;
        }
    }
    (entries, gaps)
}

/// Asserts that the status names every damage that the oracle found.
fn assert_named(status: &EngineStatus, verdict: &Verdict, truth: &Truth, case: &str) {
    for damage in &verdict.damage {
        let here =
            |report: &&DamageReport| report.file.ends_with(&damage.place.file) && report.offset == damage.place.offset;
        let reports: Vec<_> = status.damage.iter().filter(here).collect();
        assert!(!reports.is_empty(), "{case}: {damage:?} is not in {:?}", status.damage);
        let lost = || reports.iter().flat_map(|report| &report.lost);
        for (collection, lsn) in &damage.kept {
            let named = lost().any(|(name, range)| {
                name.as_ref().is_some_and(|name| name.as_str() == collection)
                    && range.is_some_and(|(first, last)| (first.0..=last.0).contains(lsn))
            });
            assert!(named, "{case}: {collection}/{lsn} is not named in {reports:?}");
        }
        if damage.unknown {
            let unknown = lost().any(|(name, range)| name.is_none() || range.is_none());
            assert!(unknown, "{case}: what is unknown must be said: {reports:?}, {damage:?}");
        }
    }
    for (name, range) in status.damage.iter().flat_map(|report| &report.lost) {
        if let (Some(name), Some((first, last))) = (name, range) {
            for lsn in first.0..=last.0 {
                assert!(truth.contains_key(&(name.as_str().to_owned(), lsn)), "{case}: {name}/{lsn} never was");
            }
        }
    }
}

/// Starts the engine on an image, in both modes, twice each, and holds it against the oracle.
async fn hold(image: &Image, truth: &Truth, case: &str) {
    let verdict = judge(image);
    let expected = entries(&left(&verdict, image));
    for (entry, payload) in &expected {
        assert_eq!(truth.get(entry), Some(payload), "{case}: the oracle itself would serve {entry:?}");
    }
    for mode in ["fail", "gap"] {
        let case = format!("{case}, on_damage = {mode}");
        let setup = Setup::in_memory(1).set(&format!("on_damage = {mode:?}"));
        let folder = setup.path("d1");
        lay_out(image, &folder);
        let config = library::config(&setup);
        let engine = library::start(config.clone());
        let status = match library::settle(&engine).await {
            Settled::Ready(status) => status,
            Settled::Waiting(status) if mode == "fail" && !verdict.damage.is_empty() => {
                assert_named(&status, &verdict, truth, &case);
                let refused = engine.append(batch("orders", &[b"x"]), None).await.expect_err("not ready");
                assert_eq!(refused.reason, Reason::NotReady, "{case}");
                engine.shutdown().await;
                let found = image_of(&folder);
                let untouched = image.iter().filter(|(name, _)| name.ends_with(".avro"));
                untouched.for_each(|(name, bytes)| assert!(found.get(name) == Some(bytes), "{case}: {name} changed"));
                continue;
            }
            other => panic!("{case}: {other:?}, the oracle: {verdict:?}"),
        };
        assert!(verdict.damage.is_empty() || mode == "gap", "{case}: served in spite of {:?}", verdict.damage);
        assert_named(&status, &verdict, truth, &case);
        let served = serve(&engine).await;
        let (found, gaps) = dense(&served, &case);
        for (entry, payload) in &found {
            assert_eq!(truth.get(entry), Some(payload), "{case}: wrong entry {entry:?}");
        }
        for (entry, payload) in &expected {
            assert_eq!(found.get(entry), Some(payload), "{case}: {entry:?} could be read and is not served");
        }
        if verdict.damage.is_empty() {
            assert_eq!((found.len(), gaps.len()), (expected.len(), 0), "{case}: an unproven tail is cut, no gap told");
            assert!(status.damage.is_empty(), "{case}: {:?}", status.damage);
        }
        engine.shutdown().await;
        let engine = library::ready(config).await;
        assert_eq!(serve(&engine).await, served, "{case}: two starts disagree");
        engine.shutdown().await;
    }
}

/// Every n-th start is tried beside those that matter by themselves.
fn every() -> usize {
    std::env::var("WALSTORAGE_EVERY").map_or(16, |text| text.parse().expect("a number"))
}

async fn hold_all(cases: impl Iterator<Item = (String, Image)>, truth: &Truth) {
    let mut count = 0;
    stream::iter(cases.inspect(|_| count += 1))
        .for_each_concurrent(4, |(case, image)| async move { hold(&image, truth, &case).await })
        .await;
    assert!(count > 100, "only {count} cases");
    println!("{count} cases");
}

/// Whether byte `at` of a slot lies at the edge of a page, or in the head of a frame.
fn telling(at: usize) -> bool {
    let offset = at % PAGE;
    (at >= PAGE && offset < 135) || offset >= PAGE - 18
}

async fn cut(sample: Sample) {
    let cases = sample.slots().into_iter().flat_map(|slot| {
        let bytes = sample.image[&slot].clone();
        let image = sample.image.clone();
        (0..bytes.len()).filter(|at| at % every() == 0 || at % PAGE < 2 || at % PAGE == PAGE - 1).map(move |at| {
            let mut image = image.clone();
            image.insert(slot.clone(), bytes[..at].to_vec());
            (format!("{slot} cut at {at}"), image)
        })
    });
    hold_all(cases, &sample.truth).await;
}

async fn flip(sample: Sample) {
    let step = every() * 8;
    let cases = sample.slots().into_iter().flat_map(|slot| {
        let image = sample.image.clone();
        (0..image[&slot].len() * 8)
            .filter(move |bit| bit % step == 3 || (telling(bit / 8) && bit % 8 == bit / 8 % 8))
            .map(move |bit| {
                let mut image = image.clone();
                if let Some(bytes) = image.get_mut(&slot) {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                (format!("{slot}, bit {} of byte {}", bit % 8, bit / 8), image)
            })
    });
    hold_all(cases, &sample.truth).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_untouched_journal_is_read_whole_by_both() {
    for sample in [Sample::one_start().await, Sample::two_starts().await] {
        let verdict = judge(&sample.image);
        assert!(verdict.damage.is_empty() && verdict.torn.is_empty() && verdict.bad_headers.is_empty(), "{verdict:?}");
        assert_eq!(entries(&left(&verdict, &sample.image)), sample.truth);
        hold(&sample.image, &sample.truth, "untouched").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_journal_is_torn_or_damaged_as_the_oracle_says() {
    cut(Sample::one_start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_predecessor_or_successor_is_torn_or_damaged_as_the_oracle_says() {
    cut(Sample::two_starts().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_torn_or_damaged_as_the_oracle_says() {
    flip(Sample::one_start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_one_of_two_streams_is_torn_or_damaged_as_the_oracle_says() {
    flip(Sample::two_starts().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_journal_proves_its_last_group() {
    let setup = Setup::in_memory(1);
    let mut sample = Sample { image: Image::new(), truth: Truth::new() };
    let engine = library::ready(library::config(&setup)).await;
    sample.append(&engine, "orders", &[b"only"]).await;
    let folder = setup.path("d1");
    let image = eventually("an empty frame after a second without commits", || async {
        let image = image_of(&folder);
        let verdict = judge(&image);
        let last = verdict.frames.last()?;
        (last.records.is_empty() && last.head.flags & 2 == 0).then_some(image)
    })
    .await;
    engine.shutdown().await;
    let frames = judge(&image).frames;
    let with_data = frames.iter().rfind(|frame| frame.head.entries > 0).expect("the group");
    let slot = format!("_wal/journal/{}", with_data.place.file);
    let mut damaged = image.clone();
    damaged.get_mut(&slot).expect("the slot")[with_data.place.offset as usize + 300] ^= 1;
    assert_eq!(judge(&damaged).damage.len(), 1, "the empty frame proves it");
    hold(&damaged, &sample.truth, "a flip in the last group of an idle journal").await;
}
