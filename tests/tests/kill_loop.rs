//! Random SIGKILLs and power cuts under eight clients over both transports: what was acknowledged is read once, in order
//! and whole, whatever the moment. `WALSTORAGE_KILLS` sets the number of kills for each shape (default 8), `WALSTORAGE_SEED` the
//! seed, which is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use walstorage_tests::harness::skip::skipped;
use walstorage_tests::load::kill_loop::{kill_loop, number};
use walstorage_tests::load::{Shape, Trouble};

/// Runs the loop; `test` is named where this machine cannot.
async fn run(test: &str, shape: Shape) {
    let seed = number("WALSTORAGE_SEED").unwrap_or_else(rand::random);
    if let Err(why) = kill_loop(shape, number("WALSTORAGE_KILLS").unwrap_or(8), seed).await {
        skipped(test, &why);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_loses_and_doubles_nothing() {
    run("one_directory_loses_and_doubles_nothing", Shape::one_directory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_directories_lose_and_double_nothing() {
    run("three_directories_lose_and_double_nothing", Shape::three_directories()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_affinity_nothing_is_lost_or_doubled() {
    run("without_affinity_nothing_is_lost_or_doubled", Shape::without_affinity()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_of_its_own_loses_and_doubles_nothing() {
    run("a_journal_of_its_own_loses_and_doubles_nothing", Shape::own_journal()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_of_one_directory_loses_and_doubles_nothing() {
    run("a_power_cut_of_one_directory_loses_and_doubles_nothing", Shape::one_directory().on_twins()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_of_three_directories_loses_and_doubles_nothing() {
    run("a_power_cut_of_three_directories_loses_and_doubles_nothing", Shape::three_directories().on_twins()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_without_affinity_loses_and_doubles_nothing() {
    run("a_power_cut_without_affinity_loses_and_doubles_nothing", Shape::without_affinity().on_twins()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_below_ext4_loses_and_doubles_nothing() {
    run("a_power_cut_below_ext4_loses_and_doubles_nothing", Shape::one_directory().flushing().on_ext4().long()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_disks_lose_and_double_nothing() {
    run("failing_disks_lose_and_double_nothing", Shape::three_directories().with(Trouble::QUICK)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_disks_without_affinity_lose_and_double_nothing() {
    run("failing_disks_without_affinity_lose_and_double_nothing", Shape::without_affinity().with(Trouble::QUICK)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_segments_are_written_a_kill_loses_and_doubles_nothing() {
    run("while_segments_are_written_a_kill_loses_and_doubles_nothing", Shape::three_directories().flushing()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_segments_are_written_without_affinity_a_kill_loses_and_doubles_nothing() {
    run(
        "while_segments_are_written_without_affinity_a_kill_loses_and_doubles_nothing",
        Shape::without_affinity().flushing(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_segments_are_written_a_power_cut_loses_and_doubles_nothing() {
    run(
        "while_segments_are_written_a_power_cut_loses_and_doubles_nothing",
        Shape::three_directories().flushing().on_twins(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_segments_are_written_failing_disks_lose_and_double_nothing() {
    run(
        "while_segments_are_written_failing_disks_lose_and_double_nothing",
        Shape::three_directories().flushing().with(Trouble::QUICK),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loop_sees_when_a_disk_lies_about_its_syncs() {
    let shape = Shape::one_directory().with(&[Trouble::Lies]).set(r#"on_damage = "gap""#);
    let panic = match tokio::spawn(kill_loop(shape, 40, rand::random())).await {
        Ok(Ok(done)) => panic!("nothing was seen: {done:?}"),
        Ok(Err(why)) => return skipped("the_loop_sees_when_a_disk_lies_about_its_syncs", &why),
        Err(died) => died.into_panic(),
    };
    let verdict = panic.downcast_ref::<String>().expect("a message");
    assert!(["lost", "damage", "instead of an entry"].iter().any(|what| verdict.contains(what)), "{verdict}");
}
