//! Random SIGKILLs under eight clients of a sidecar whose only directory is a bucket, before the emulators of three clouds,
//! behind a proxy that loses answers, breaks connections, refuses and answers wrongly: what was acknowledged is read once, in
//! order and whole. `WALSTORAGE_KILLS` sets the number of kills (default 6), `WALSTORAGE_SEED` the seed, which is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use walstorage_tests::emulators::Emulated;
use walstorage_tests::emulators::proxy::Proxy;
use walstorage_tests::load::Shape;
use walstorage_tests::load::kill_loop::{kill_loop, number};

walstorage_tests::on_every_cloud! {
    kills_behind_a_rough_way_lose_and_double_nothing
    while_segments_are_written_kills_behind_a_rough_way_lose_and_double_nothing
}

async fn run(emulated: &Emulated, shape: impl FnOnce(Shape) -> Shape) {
    let seed = number("WALSTORAGE_SEED").unwrap_or_else(rand::random);
    let way = Proxy::start(&emulated.address, seed, 0).await;
    way.never_stall();
    let setup = emulated.only_url("wal", &way.address).set("bucket_commit_interval_ms = 20");
    let kills = number("WALSTORAGE_KILLS").unwrap_or(6);
    let done = kill_loop(shape(Shape::in_a_bucket(setup, way)), kills, seed).await.expect("buckets need no disks");
    assert!(done.faults > 0, "requests met faults: {done:?}");
}

async fn kills_behind_a_rough_way_lose_and_double_nothing(emulated: &Emulated) {
    run(emulated, |shape| shape).await;
}

async fn while_segments_are_written_kills_behind_a_rough_way_lose_and_double_nothing(emulated: &Emulated) {
    run(emulated, Shape::flushing).await;
}
