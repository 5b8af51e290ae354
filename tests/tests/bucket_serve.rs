//! The sidecar on a bucket, before the emulators of three clouds: a process without a disk keeps its log there over kills,
//! takeovers and refusals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use rustix::process::Signal;
use walstorage_sidecar::directory::bucket::Bucket as _;
use walstorage_sidecar::directory::store::Limits;
use walstorage_sidecar::proto::Status;
use walstorage_tests::emulators::{Cloud, Emulated};
use walstorage_tests::harness::calls::{append, describe, payloads, request, truncate};
use walstorage_tests::harness::{Setup, Sidecar};

/// Makes a test for each cloud of a function of one.
macro_rules! on_every_cloud {
    ($($test:ident)*) => {
        on_every_cloud!(s3 Cloud::S3, $($test)*);
        on_every_cloud!(azure Cloud::Azure, $($test)*);
        on_every_cloud!(google Cloud::Google, $($test)*);
    };
    ($name:ident $cloud:expr, $($test:ident)*) => {
        mod $name {
            use walstorage_tests::emulators::{Cloud, Emulated};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    if let Some(emulated) = Emulated::new(stringify!($test), $cloud).await {
                        super::$test(&emulated).await;
                    }
                }
            )*
        }
    };
}

on_every_cloud! {
    what_was_acknowledged_survives_kills
    a_zombie_that_wakes_after_a_takeover_is_never_answered
}

const WRITER: &str = "shop/orders.orders-0";

/// A sidecar whose only URL is a path of the bucket, reached at `address`.
fn setup(emulated: &Emulated, address: &str) -> Setup {
    let mut setup = Setup::new(0);
    let url = emulated.url("wal");
    setup.urls(&[url.to_string()]);
    setup.add(&format!("writer_id = {WRITER:?}"));
    setup.add("bucket_commit_interval_ms = 20");
    setup.table(&emulated.options(&url, address));
    setup.environment = emulated.environment();
    setup
}

fn text(n: usize) -> Vec<u8> {
    format!("entry {n} {}", "x".repeat(n % 700)).into_bytes()
}

async fn what_was_acknowledged_survives_kills(emulated: &Emulated) {
    let setup = setup(emulated, &emulated.address).set("memory_flush_size_bytes = 4096");
    let mut sidecar = Sidecar::ready(setup).await;
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for round in 0..4 {
        for n in 0..12 {
            let payload = text(100 * round + n);
            let reply = append(&mut sidecar.grpc(), "orders/ü", &[&payload]).await;
            sent.push(payload);
            assert_eq!(reply.last_lsn as usize, sent.len());
            assert_eq!(reply.directory, emulated.url("wal").to_string());
        }
        sidecar.kill_and_restart().await;
        assert_eq!(payloads(&mut sidecar.grpc(), "orders/ü").await, sent, "round {round}");
    }
    let up_to = sent.len() as u64 - 3;
    assert_eq!(truncate(&mut sidecar.grpc(), "orders/ü", up_to).await, up_to);
    sidecar.restart().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "orders/ü").await, sent[up_to as usize..]);
    assert_eq!(describe(&mut sidecar.grpc(), "orders/ü").await.truncated_to, up_to);
    sidecar.stop().await;

    let store = emulated.store(&emulated.url("wal"), &emulated.address, Limits::default());
    let keys = store.list("").await.unwrap();
    let journal: BTreeSet<_> = keys.iter().filter(|key| key.starts_with("_wal/journal/")).collect();
    let claims = journal.iter().filter(|key| key.ends_with("/000000000000.avro")).count();
    assert_eq!(claims, 6, "a claim for each start, for ever: {keys:#?}");
    assert!(!keys.iter().any(|key| key.contains("probe") || key.contains("wal_current")), "{keys:#?}");
}

async fn a_zombie_that_wakes_after_a_takeover_is_never_answered(emulated: &Emulated) {
    let mut zombie = Sidecar::ready(setup(emulated, &emulated.address)).await;
    append(&mut zombie.grpc(), "c", &[b"of the first"]).await;
    let mut client = zombie.grpc();
    zombie.signal(Signal::STOP);
    // On its way when the process wakes up.
    let call = tokio::spawn(async move { client.append_batch(request("c", &[b"of the zombie"])).await });

    let second = Sidecar::ready(setup(emulated, &emulated.address)).await;
    assert_eq!(payloads(&mut second.grpc(), "c").await, [b"of the first".to_vec()]);
    append(&mut second.grpc(), "c", &[b"of the second"]).await;

    zombie.signal(Signal::CONT);
    let answer = call.await.unwrap();
    assert!(answer.is_err(), "a zombie acknowledged: {answer:?}");
    assert_eq!(zombie.exit().await.code(), Some(3), "fenced: {}", zombie.log());
    append(&mut second.grpc(), "c", &[b"once more"]).await;
    let expected = ["of the first", "of the second", "once more"].map(|text| text.as_bytes().to_vec());
    assert_eq!(payloads(&mut second.grpc(), "c").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_credentials_is_said_and_repairing_their_file_is_enough() {
    let Some(emulated) = Emulated::new("repairing_their_file_is_enough", Cloud::Azure).await else { return };
    let key = emulated.credentials.path().join("account_key");
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, "d3Jvbmc=").unwrap();
    let mut sidecar = Sidecar::new(setup(&emulated, &emulated.address));
    sidecar.start();
    let waiting = |status: &Status| status.phase == "waiting" && !status.waiting_for.is_empty();
    let status = sidecar.wait_status("waiting for credentials", waiting).await;
    let directory = &status.directories[0];
    assert_eq!(directory.state, "failed", "{status:#?}");
    assert!(directory.reason.contains("account_key"), "{status:#?}");
    std::fs::write(&key, right).unwrap();
    sidecar.wait_ready().await;
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_for_a_store_stops_when_it_is_told_to() {
    let Some(emulated) = Emulated::new("stops_when_it_is_told_to", Cloud::Google).await else { return };
    // Nobody listens there.
    let mut sidecar = Sidecar::new(setup(&emulated, "127.0.0.1:9"));
    sidecar.start();
    let said = |status: &Status| status.directories.iter().any(|directory| directory.reason.contains("127.0.0.1:9"));
    sidecar.wait_status("what is wrong is said", said).await;
    sidecar.stop().await;
}
