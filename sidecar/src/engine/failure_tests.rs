//! The engine on disks that fail and come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Engine;
use super::fault_tests::{Machine, batch, contents, name, toml};
use crate::commit::journal::Health;
use crate::commit::log::Log;
use crate::directory::mem_disk::Faults;
use crate::error::Reason;

/// Waits until the log is as asked for.
async fn until(engine: &Engine, what: &str, is: impl Fn(&Log) -> bool) {
    let mut turns = engine.0.turns.subscribe();
    loop {
        turns.mark_unchanged();
        if engine.0.peek(&is).unwrap_or(false) {
            return;
        }
        let wait = tokio::time::timeout(Duration::from_secs(60), turns.changed());
        wait.await.unwrap_or_else(|_| panic!("waiting for {what}: {:#?}", engine.status())).unwrap();
    }
}

#[tokio::test]
async fn a_session_closes_the_one_before_it_and_what_the_failed_write_left_is_garbage() {
    let machine = Machine::default();
    let config = toml(&["file:///m/a"], "");
    let engine = machine.ready(&config).await;
    engine.append(batch("c", &["kept".into()]), None).await.unwrap();
    machine.break_all(Faults { syncs_left: Some(0), ..Faults::default() });
    let error = engine.append(batch("d", &["left behind".into()]), None).await.unwrap_err();
    assert_eq!(error.reason, Reason::UnknownOutcome);

    machine.break_all(Faults::default());
    engine.0.with_log(|log| {
        log.restart_stream(0, Instant::now());
        log.journals[0].health = Health::Healthy;
    });
    until(&engine, "the next session", |log| log.journals[0].takes_data()).await;
    engine.append(batch("c", &["next session".into()]), None).await.unwrap();
    engine.shutdown().await;

    let engine = machine.ready(&config).await;
    let kept = BTreeMap::from([(1, "kept".to_owned()), (2, "next session".to_owned())]);
    assert_eq!(contents(&engine, "c").await, kept);
    assert_eq!(contents(&engine, "d").await, BTreeMap::from([(1, "left behind".to_owned())]), "once");
    engine.shutdown().await;
}

/// What a machine finds after a power cut, read by a new process, is what the one before knew, whether the failed write
/// landed or not.
async fn reads_after_a_cut(machine: &Machine, config: &str, wanted: &[(&str, &[&str])]) {
    for seed in 0..16 {
        let left = machine.after_cut(seed);
        let engine = left.ready(config).await;
        for (collection, payloads) in wanted {
            let wanted: BTreeMap<u64, String> = (1..).zip(payloads.iter().map(|text| (*text).to_owned())).collect();
            assert_eq!(contents(&engine, collection).await, wanted, "seed {seed}");
        }
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn schedule_11_a_failed_write_that_landed_is_read_once_and_never_instead_of_what_was_acknowledged() {
    for forgets_pages in [false, true] {
        let machine = Machine::default();
        let config = toml(&["file:///m/a", "file:///m/b"], "");
        let engine = machine.ready(&config).await;
        engine.append(batch("c", &["one".into()]), None).await.unwrap();
        let home = engine.collection(&name("c")).unwrap().directory;
        let path = home.file_path().unwrap();
        let disk = machine.disk(path.to_str().unwrap());
        disk.break_with(Faults { syncs_left: Some(0), forgets_pages, ..Faults::default() });
        let moved = engine.append(batch("c", &["two".into(), "three".into()]), None).await.unwrap();
        assert_ne!(moved.directory, home);
        engine.append(batch("c", &["four".into()]), None).await.unwrap();
        machine.break_all(Faults { dead: true, ..Faults::default() });
        engine.shutdown().await;
        machine.break_all(Faults::default());
        reads_after_a_cut(&machine, &config, &[("c", &["one", "two", "three", "four"])]).await;
    }
}

#[tokio::test]
async fn schedule_5_what_is_served_after_a_failed_sync_and_a_kill_stays_through_a_power_cut() {
    for forgets_pages in [false, true] {
        let machine = Machine::default();
        let config = toml(&["file:///m/a"], "");
        let engine = machine.ready(&config).await;
        engine.append(batch("c", &["one".into()]), None).await.unwrap();
        machine.break_all(Faults { syncs_left: Some(0), forgets_pages, ..Faults::default() });
        let unknown = engine.append(batch("c", &["two".into()]), None).await.unwrap_err();
        assert_eq!(unknown.reason, Reason::UnknownOutcome);
        // Killed: nothing more is written, and the pages are still in the cache.
        machine.break_all(Faults { dead: true, ..Faults::default() });
        engine.shutdown().await;
        machine.break_all(Faults::default());
        let engine = machine.ready(&config).await;
        let served: Vec<String> = contents(&engine, "c").await.into_values().collect();
        assert_eq!(served.len(), if forgets_pages { 1 } else { 2 });
        machine.break_all(Faults { dead: true, ..Faults::default() });
        engine.shutdown().await;
        machine.break_all(Faults::default());
        let served: Vec<&str> = served.iter().map(String::as_str).collect();
        reads_after_a_cut(&machine, &config, &[("c", &served)]).await;
    }
}
