//! The driver of buckets keeps the promises of the seam, on the emulators of three clouds; and it says what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;
use walstorage_sidecar::directory::bucket::{Bucket as _, CreateError, Denied};
use walstorage_sidecar::directory::store::{BucketStore, Limits};
use walstorage_sidecar::directory::trouble::Condition;
use walstorage_sidecar::fencing::{Lost, start};
use walstorage_tests::emulators::{Cloud, Emulated};

walstorage_tests::on_every_cloud! {
    a_key_is_created_once
    a_range_is_read
    a_list_has_every_page
    what_is_deleted_is_gone
    a_large_object_is_whole
    the_probe_passes
    a_bucket_that_is_not_there_is_told
}

fn store(emulated: &Emulated) -> BucketStore {
    // What a URL escapes must arrive as it is meant.
    emulated.store(&emulated.url("log%20of/%C3%BC+1"), &emulated.address, Limits::default())
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn a_key_is_created_once(emulated: &Emulated) {
    let store = store(emulated);
    let key = "_wal/journal/0000000000001.000/000000000000.avro";
    store.create(key, body("first")).await.unwrap();
    assert_eq!(store.create(key, body("second")).await, Err(CreateError::Taken));
    assert_eq!(store.read(key, 0..u64::MAX).await.unwrap().unwrap(), "first");

    let bodies: Vec<_> = (0..8).map(|n| Bytes::from(format!("writer {n}"))).collect();
    let outcomes = join_all(bodies.iter().map(|body| store.create("contended", body.clone()))).await;
    let won: Vec<_> = (0..8).filter(|n| outcomes[*n].is_ok()).collect();
    assert_eq!(won.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().filter(|outcome| outcome.is_err()).all(|outcome| *outcome == Err(CreateError::Taken)));
    assert_eq!(store.read("contended", 0..u64::MAX).await.unwrap().unwrap(), bodies[won[0]]);
    assert_eq!(store.trouble(), None);
}

async fn a_range_is_read(emulated: &Emulated) {
    let store = store(emulated);
    store.create("k", body("0123456789")).await.unwrap();
    store.create("empty", Bytes::new()).await.unwrap();
    for (range, expected) in [
        (0..3, "012"),
        (2..5, "234"),
        (8..100, "89"),
        (0..u64::MAX, "0123456789"),
        (7..u64::MAX, "789"),
        (9..10, "9"),
        (20..30, ""),
        (400..500, ""),
        (5..5, ""),
    ] {
        assert_eq!(store.read("k", range.clone()).await.unwrap().unwrap(), expected, "{range:?}");
    }
    for range in [0..10, 0..u64::MAX, 3..10] {
        assert_eq!(store.read("empty", range.clone()).await.unwrap().unwrap(), "", "{range:?}");
    }
    assert_eq!(store.read("absent", 0..10).await, Ok(None));
    assert_eq!(store.read("absent", 0..u64::MAX).await, Ok(None));
}

async fn a_list_has_every_page(emulated: &Emulated) {
    let url = emulated.url("log%20of/%C3%BC+1");
    let limits = Limits { page: Some(3), ..Limits::default() };
    let store = emulated.store(&url, &emulated.address, limits);
    let all: BTreeSet<String> = (0..11).map(|n| format!("d/{}.0/{n:012}.avro", n % 2)).collect();
    let beside = ["d-beside/1", "d", "e/1"];
    for key in all.iter().map(String::as_str).chain(beside) {
        store.create(key, body("x")).await.unwrap();
    }
    let listed = store.list("d/").await.unwrap();
    assert_eq!(listed.len(), all.len(), "each once: {listed:?}");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
    let one: BTreeSet<_> = all.iter().filter(|key| key.starts_with("d/1.0/")).cloned().collect();
    assert_eq!(store.list("d/1.0/").await.unwrap().into_iter().collect::<BTreeSet<_>>(), one);
    assert_eq!(store.list("nothing/").await.unwrap(), Vec::<String>::new());
}

async fn what_is_deleted_is_gone(emulated: &Emulated) {
    let store = store(emulated);
    for key in ["d/1", "d/2"] {
        store.create(key, body("x")).await.unwrap();
    }
    store.delete("d/1").await.unwrap();
    store.delete("d/1").await.unwrap();
    assert_eq!(store.read("d/1", 0..1).await, Ok(None));
    assert_eq!(store.list("d/").await.unwrap(), ["d/2"]);
    store.create("d/1", body("again")).await.unwrap();
    assert_eq!(store.read("d/1", 0..u64::MAX).await.unwrap().unwrap(), "again");
}

async fn a_large_object_is_whole(emulated: &Emulated) {
    let store = store(emulated);
    let large: Bytes = (0..3 << 20).map(|n: u32| n.to_le_bytes()[(n % 4) as usize]).collect();
    store.create("large", large.clone()).await.unwrap();
    assert!(store.read("large", 0..u64::MAX).await.unwrap().unwrap() == large);
    let part = store.read("large", 1_000_000..2_000_001).await.unwrap().unwrap();
    assert!(part == large.slice(1_000_000..2_000_001));
}

async fn the_probe_passes(emulated: &Emulated) {
    let store = store(emulated);
    start::probe(&store, "_wal/probe-1").await.unwrap();
    assert_eq!(store.read("_wal/probe-1", 0..1).await, Ok(None));
}

async fn a_bucket_that_is_not_there_is_told(emulated: &Emulated) {
    let url = emulated.url("p").as_str().replace(&emulated.bucket, "nowhere");
    let store = emulated.store(&url.parse().unwrap(), &emulated.address, Limits::default());
    let Err(CreateError::Denied(Denied(create))) = store.create("k", body("x")).await else { panic!("no bucket") };
    let Denied(list) = store.list("d/").await.unwrap_err();
    let Denied(read) = store.read("k", 0..1).await.unwrap_err();
    for trouble in [create, list, read] {
        assert_eq!(trouble.condition, Condition::MissingBucket, "{trouble}");
        assert!(
            trouble.sentence.starts_with(&url) && trouble.sentence.contains("create the bucket \"nowhere\""),
            "{trouble}"
        );
    }
}

#[tokio::test]
async fn azure_says_that_a_key_is_wrong_and_takes_the_right_one() {
    let test = "azure_says_that_a_key_is_wrong_and_takes_the_right_one";
    let Some(emulated) = Emulated::new(test, Cloud::Azure).await else { return };
    let store = store(&emulated);
    let file = emulated.credentials.path().join("account_key");
    let right = std::fs::read(&file).unwrap();
    std::fs::write(&file, "aHVzaA==").unwrap();
    let Err(CreateError::Denied(Denied(trouble))) = store.create("k", body("x")).await else { panic!("a wrong key") };
    assert_eq!(trouble.condition, Condition::WrongCredentials, "{trouble}");
    assert!(trouble.sentence.contains("account_key") && !trouble.sentence.contains("aHVzaA"), "{trouble}");
    std::fs::write(&file, "no base64").unwrap();
    let Err(CreateError::Denied(Denied(trouble))) = store.create("k", body("x")).await else { panic!("no key") };
    assert_eq!(trouble.condition, Condition::WrongCredentials, "{trouble}");
    std::fs::write(&file, right).unwrap();
    store.create("k", body("x")).await.unwrap();
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn google_is_asked_for_another_token_when_one_is_refused() {
    let test = "google_is_asked_for_another_token_when_one_is_refused";
    let Some(emulated) = Emulated::new(test, Cloud::Google).await else { return };
    let store = store(&emulated);
    store.create("k", body("x")).await.unwrap();
    emulated.google().unwrap().revoke();
    let Denied(trouble) = store.read("k", 0..1).await.unwrap_err();
    assert_eq!(trouble.condition, Condition::WrongCredentials, "{trouble}");
    assert_eq!(store.trouble(), Some(trouble));
    assert_eq!(store.read("k", 0..1).await.unwrap().unwrap(), "x");
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_by_the_probe() {
    let test = "a_store_that_ignores_conditions_is_refused_by_the_probe";
    let Some(emulated) = Emulated::new(test, Cloud::Google).await else { return };
    emulated.google().unwrap().ignore_conditions();
    let lost = start::probe(&store(&emulated), "_wal/probe-1").await.unwrap_err();
    assert_eq!((&lost, lost.condition()), (&Lost::Unconditional, Some(Condition::NotCreateOnly)));
    assert!(lost.to_string().contains("unsafe_conditional = true"), "{lost}");
}
