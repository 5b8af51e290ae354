//! The engine on disks that fail and come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Engine;
use super::fault_tests::{Machine, batch, contents, name, toml};
use crate::api::DirectoryState;
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

/// Two directories, a collection; answers its home's disk and the other's index.
async fn one_home(machine: &Machine) -> (Engine, crate::directory::mem_disk::MemDisk, usize) {
    let engine = machine.ready(&toml(&["file:///m/a", "file:///m/b"], "")).await;
    engine.append(batch("c", &["one".into()]), None).await.unwrap();
    let home = engine.0.peek(|log| log.find(&name("c")).unwrap().home).unwrap();
    (engine, machine.disk(["/m/a", "/m/b"][home]), 1 - home)
}

#[tokio::test]
async fn a_directory_that_failed_comes_back_by_itself_and_takes_entries_again() {
    let machine = Machine::default();
    let (engine, disk, other) = one_home(&machine).await;
    engine.0.with_log(|log| log.rest = Duration::from_millis(1));
    disk.break_with(Faults { dead: true, ..Faults::default() });
    engine.append(batch("c", &["two".into()]), None).await.unwrap();
    until(&engine, "its failure", |log| !log.journals[1 - other].is_healthy()).await;
    disk.break_with(Faults::default());
    until(&engine, "its return", |log| log.journals[1 - other].takes_data()).await;
    // Now the other one fails, and the entries go back to the first.
    machine.disk(["/m/a", "/m/b"][other]).break_with(Faults { dead: true, ..Faults::default() });
    engine.append(batch("c", &["three".into()]), None).await.unwrap();
    let wanted: BTreeMap<u64, String> = (1..).zip(["one", "two", "three"].map(str::to_owned)).collect();
    assert_eq!(contents(&engine, "c").await, wanted);
    assert!(disk.files().iter().all(|path| !path.contains("probe")), "the probe leaves nothing behind");
    engine.shutdown().await;
    machine.break_all(Faults::default());
    reads_after_a_cut(&machine, &toml(&["file:///m/a", "file:///m/b"], ""), &[("c", &["one", "two", "three"])]).await;
}

#[tokio::test]
async fn schedule_10_a_hanging_device_holds_its_entries_for_ten_ticks_and_its_late_answer_changes_nothing() {
    let machine = Machine::default();
    let (engine, disk, other) = one_home(&machine).await;
    engine.0.with_log(|log| log.rest = Duration::from_millis(1));
    disk.break_with(Faults { hangs: true, ..Faults::default() });
    let append = tokio::spawn({
        let engine = engine.clone();
        async move { engine.append(batch("c", &["two".into()]), None).await }
    });
    while !append.is_finished() {
        engine.0.with_log(|log| log.watch(Instant::now()));
        tokio::task::yield_now().await;
    }
    let moved = append.await.unwrap().unwrap();
    assert_eq!(moved.directory.as_str(), ["file:///m/a", "file:///m/b"][other]);
    assert!(engine.0.peek(|log| log.is_stalled(1 - other)).unwrap());
    // It answers at last, with success.
    disk.break_with(Faults::default());
    until(&engine, "its return", |log| log.journals[1 - other].takes_data()).await;
    engine.append(batch("c", &["three".into()]), None).await.unwrap();
    engine.shutdown().await;
    reads_after_a_cut(&machine, &toml(&["file:///m/a", "file:///m/b"], ""), &[("c", &["one", "two", "three"])]).await;
}

#[tokio::test]
async fn schedule_27_the_engine_ends_although_a_sync_never_returns() {
    let machine = Machine::default();
    let (engine, disk, other) = one_home(&machine).await;
    let hangs = Faults { hangs: true, ..Faults::default() };
    disk.break_with(hangs);
    machine.disk(["/m/a", "/m/b"][other]).break_with(hangs);
    let append = tokio::spawn({
        let engine = engine.clone();
        async move { engine.append(batch("c", &["two".into()]), None).await }
    });
    until_in_flight(&engine).await;
    let end = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown().await }
    });
    while !end.is_finished() {
        engine.0.with_log(|log| log.watch(Instant::now()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(end.await.unwrap(), super::Ended::Clean);
    assert_eq!(append.await.unwrap().unwrap_err().reason, Reason::UnknownOutcome);
}

/// Waits until a committer is in the kernel.
async fn until_in_flight(engine: &Engine) {
    let in_flight = |log: &Log| log.journals.iter().any(|journal| journal.in_flight.is_some());
    while !engine.0.peek(in_flight).unwrap() {
        tokio::task::yield_now().await;
    }
}

const BOTH: &[&str] = &["file:///m/a", "file:///m/b"];

/// Entries of several collections over both directories; answers what is in each.
async fn filled(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let mut wanted = Vec::new();
    for n in 0..6 {
        let payloads: Vec<String> = (0..40).map(|m| format!("{n} {m} {}", "x".repeat(m * 20))).collect();
        for pair in payloads.chunks(2) {
            engine.append(batch(&format!("c{n}"), pair), None).await.unwrap();
        }
        wanted.push((format!("c{n}"), payloads));
    }
    wanted
}

/// Ends a process without a word: nothing more is written.
async fn kill(machine: &Machine, engine: Engine) {
    machine.break_all(Faults { dead: true, ..Faults::default() });
    engine.shutdown().await;
    machine.break_all(Faults::default());
}

async fn has(engine: &Engine, wanted: &[(String, Vec<String>)], what: &str) {
    for (collection, payloads) in wanted {
        let read: Vec<String> = contents(engine, collection).await.into_values().collect();
        assert_eq!(&read, payloads, "{collection}: {what}");
    }
}

#[tokio::test]
async fn schedule_9_a_dead_directory_is_emptied_from_memory_and_not_missed_at_the_next_start() {
    let machine = Machine::default();
    let config = toml(BOTH, "distribution_strategy = \"RoundRobin\"");
    let engine = machine.ready(&config).await;
    let wanted = filled(&engine).await;
    let id = engine.0.peek(|log| log.journals[0].id).unwrap();
    machine.disk("/m/a").break_with(Faults { dead: true, ..Faults::default() });
    engine.append(batch("c0", &["more".into()]), None).await.unwrap();
    engine.append(batch("c1", &["more".into()]), None).await.unwrap();
    until(&engine, "its evacuation", |log| log.journals[0].is_evacuated()).await;
    let status = engine.status();
    let shown = &status.directories[0];
    assert!(!shown.in_use && shown.evacuation_bytes_left == 0 && shown.remedy.contains("removed"), "{shown:?}");
    engine.forget_directory(id).await.unwrap();
    engine.shutdown().await;
    // The dead disk is taken out; its URL stays, or goes too.
    machine.disks().remove(std::path::Path::new("/m/a"));
    let mut wanted = wanted;
    wanted[0].1.push("more".into());
    wanted[1].1.push("more".into());
    for urls in [&["file:///m/b"][..], BOTH] {
        let engine = machine.ready(&toml(urls, "")).await;
        has(&engine, &wanted, "without the dead directory").await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn schedule_9_a_crash_half_way_through_an_evacuation_loses_nothing() {
    let machine = Machine::default();
    let config = toml(BOTH, "distribution_strategy = \"RoundRobin\"");
    let engine = machine.ready(&config).await;
    let wanted = filled(&engine).await;
    let mut after = Vec::new();
    let at_once = Faults { syncs_left: Some(0), ..Faults::default() };
    machine.disk("/m/a").break_with(at_once);
    let calls = machine.disk("/m/b").calls();
    let trigger = [("c0", "t0"), ("c1", "t1")];
    for (collection, payload) in trigger {
        engine.append(batch(collection, &[payload.into()]), None).await.unwrap();
    }
    loop {
        after.push(machine.after_cut(after.len() as u64));
        if engine.0.peek(|log| log.journals[0].is_evacuated()).unwrap() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(machine.disk("/m/b").calls() > calls);
    engine.shutdown().await;
    let step = (after.len() / 12).max(1);
    for left in after.into_iter().step_by(step) {
        let engine = left.ready(&config).await;
        for ((collection, payloads), (_, payload)) in wanted.iter().zip(trigger) {
            let read: Vec<String> = contents(&engine, collection).await.into_values().collect();
            assert_eq!(read.last().map(String::as_str), Some(payload));
            assert_eq!(read[..read.len() - 1], payloads[..]);
        }
        has(&engine, &wanted[2..], "half-way").await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn schedule_24_a_draining_directory_and_one_whose_url_was_removed_are_emptied_and_then_not_missed() {
    for removed in [false, true] {
        let machine = Machine::default();
        let engine = machine.ready(&toml(BOTH, "distribution_strategy = \"RoundRobin\"")).await;
        let wanted = filled(&engine).await;
        kill(&machine, engine).await;
        let config = if removed {
            toml(&["file:///m/b"], "")
        } else {
            toml(BOTH, "[storage.wal_config.url_options.\"file:///m/a\"]\ndrain = true")
        };
        let engine = machine.ready(&config).await;
        has(&engine, &wanted, "while it is emptied").await;
        let emptied = |log: &Log| {
            log.journals.iter().any(|journal| journal.url.as_str() == "file:///m/a" && journal.is_evacuated())
        };
        until(&engine, "it to be emptied", emptied).await;
        let status = engine.status();
        let shown = status.directories.iter().find(|dir| dir.url.as_str() == "file:///m/a").unwrap();
        assert!(!shown.in_use && shown.draining && shown.remedy.contains("removed"), "{shown:?}");
        engine.shutdown().await;
        machine.disks().remove(std::path::Path::new("/m/a"));
        let engine = machine.ready(&toml(&["file:///m/b"], "")).await;
        has(&engine, &wanted, "without it").await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn an_emptied_directory_that_is_named_again_shows_nothing_of_what_it_held() {
    let machine = Machine::default();
    let both = toml(BOTH, "distribution_strategy = \"RoundRobin\"");
    let engine = machine.ready(&both).await;
    filled(&engine).await;
    kill(&machine, engine).await;
    let engine = machine.ready(&toml(&["file:///m/b"], "")).await;
    let emptied = |log: &Log| log.journals.iter().any(|journal| journal.is_evacuated());
    until(&engine, "it to be emptied", emptied).await;
    for n in 0..6 {
        engine.delete(&name(&format!("c{n}"))).await.unwrap();
    }
    engine.shutdown().await;
    // The next start knows nothing of the directory, and may forget the deletions.
    let lonely = machine.lend("/m/a");
    let engine = machine.ready(&toml(&["file:///m/b"], "")).await;
    engine.append(batch("other", &["x".into()]), None).await.unwrap();
    engine.shutdown().await;
    machine.disks().insert("/m/a".into(), lonely);
    let engine = machine.ready(&both).await;
    let names: Vec<String> = engine.list(None, 100).unwrap().into_iter().map(|info| info.name.to_string()).collect();
    assert_eq!(names, ["other"]);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_directory_whose_folder_is_replaced_under_way_takes_nothing_more_until_it_is_back() {
    let machine = Machine::default();
    let (engine, disk, other) = one_home(&machine).await;
    engine.0.with_log(|log| log.rest = Duration::from_millis(1));
    disk.break_with(Faults { replaced: true, ..Faults::default() });
    until(&engine, "it to be missed", |log| log.journals[1 - other].not_mounted).await;
    let shown = &engine.status().directories[1 - other];
    assert_eq!(shown.state, DirectoryState::NotMounted, "{shown:?}");
    let moved = engine.append(batch("c", &["two".into()]), None).await.unwrap();
    assert_eq!(moved.directory.as_str(), BOTH[other]);
    disk.break_with(Faults::default());
    until(&engine, "its return", |log| log.journals[1 - other].takes_data()).await;
    engine.shutdown().await;
    reads_after_a_cut(&machine, &toml(BOTH, ""), &[("c", &["one", "two"])]).await;
}

#[tokio::test]
async fn schedule_24_a_journal_for_all_that_was_changed_or_removed_is_emptied_into_the_homes() {
    for now in ["", "journal_url = \"file:///m/k\""] {
        let machine = Machine::default();
        let with = |journal: &str| toml(BOTH, &format!("distribution_strategy = \"RoundRobin\"\n{journal}"));
        let engine = machine.ready(&with("journal_url = \"file:///m/j\"")).await;
        let wanted = filled(&engine).await;
        kill(&machine, engine).await;
        let engine = machine.ready(&with(now)).await;
        has(&engine, &wanted, "while the old journal is emptied").await;
        let emptied = |log: &Log| {
            log.journals.iter().any(|journal| journal.url.as_str() == "file:///m/j" && journal.is_evacuated())
        };
        until(&engine, "it to be emptied", emptied).await;
        kill(&machine, engine).await;
        machine.disks().remove(std::path::Path::new("/m/j"));
        let engine = machine.ready(&with(now)).await;
        has(&engine, &wanted, "without it").await;
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_journal_for_all_that_fails_leaves_its_entries_and_its_work_to_the_homes() {
    let machine = Machine::default();
    let config = toml(BOTH, "journal_url = \"file:///m/j\"\ndistribution_strategy = \"RoundRobin\"");
    let engine = machine.ready(&config).await;
    let mut wanted = filled(&engine).await;
    machine.disk("/m/j").break_with(Faults { dead: true, ..Faults::default() });
    let moved = engine.append(batch("c0", &["more".into()]), None).await.unwrap();
    wanted[0].1.push("more".into());
    assert!(BOTH.contains(&moved.directory.as_str()));
    let emptied = |log: &Log| log.journals.iter().any(|journal| journal.takes_all_commits && journal.is_evacuated());
    until(&engine, "its evacuation", emptied).await;
    kill(&machine, engine).await;
    machine.disks().remove(std::path::Path::new("/m/j"));
    let engine = machine.ready(&config).await;
    has(&engine, &wanted, "without the journal").await;
    engine.shutdown().await;
}
