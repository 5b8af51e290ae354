//! Disks that lose their power, fail and stall under a real process: what was acknowledged is there, what was read stays,
//! and the others go on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use rustix::io::Errno;
use walstorage_sidecar::proto::Status;
use walstorage_tests::harness::Setup;
use walstorage_tests::harness::calls::{append, directory, payloads, request};
use walstorage_tests::harness::skip::{full_size, skipped};
use walstorage_tests::twin::{Op, Rig, Rule, What};

const CAPACITY: u64 = 1 << 30;

/// Two directories in turn, so that `c1` lives on the first disk and `c2` on the second.
async fn two_in_turn(test: &str) -> Option<Rig> {
    let setup = Setup::new(2).set(r#"distribution_strategy = "RoundRobin""#);
    let mut rig = match Rig::new(setup, 2, CAPACITY) {
        Ok(rig) => rig,
        Err(why) => {
            skipped(test, &why);
            return None;
        }
    };
    rig.start().await;
    let mut client = rig.sidecar.grpc();
    for (name, home) in [("c2", "d2"), ("c1", "d1")] {
        assert_eq!(append(&mut client, name, &[b"first"]).await.directory, rig.sidecar.setup.url(home));
    }
    Some(rig)
}

#[tokio::test]
async fn what_is_served_after_a_failed_sync_and_a_kill_is_still_there_after_a_power_cut() {
    let test = "what_is_served_after_a_failed_sync_and_a_kill_is_still_there_after_a_power_cut";
    for seed in 0..8 {
        let mut rig = match Rig::new(Setup::new(1), 1, CAPACITY) {
            Ok(rig) => rig,
            Err(why) => return skipped(test, &why),
        };
        rig.start().await;
        let mut client = rig.sidecar.grpc();
        append(&mut client, "c", &[b"synced"]).await;
        rig.disks[0].inject(Rule::new(&[Op::Sync], What::Error(Errno::IO)).on(".avro").times(1));
        client.append_batch(request("c", &[&[7; 9000]])).await.expect_err("nobody knows");
        assert_eq!(payloads(&mut client, "c").await, [b"synced"], "what is not durable is not served");
        rig.kill();
        rig.start().await;
        let served = payloads(&mut rig.sidecar.grpc(), "c").await;
        assert_eq!(served[0], b"synced");
        rig.cut(seed);
        rig.start().await;
        assert_eq!(payloads(&mut rig.sidecar.grpc(), "c").await, served, "seed {seed}");
    }
}

#[tokio::test]
async fn a_failed_sync_is_acknowledged_from_another_disk_and_read_once_after_any_cut() {
    let test = "a_failed_sync_is_acknowledged_from_another_disk_and_read_once_after_any_cut";
    for seed in 0..4 {
        let Some(mut rig) = two_in_turn(test).await else { return };
        rig.disks[0].inject(Rule::new(&[Op::Sync], What::Error(Errno::IO)).on(".avro").times(1));
        let mut client = rig.sidecar.grpc();
        let reply = append(&mut client, "c1", &[b"second"]).await;
        assert_eq!((reply.first_lsn, reply.directory), (2, rig.sidecar.setup.url("d2")));
        for restart in 0..2 {
            rig.cut(seed + restart);
            rig.start().await;
            let mut client = rig.sidecar.grpc();
            assert_eq!(payloads(&mut client, "c1").await, [b"first".to_vec(), b"second".to_vec()], "seed {seed}");
            assert_eq!(payloads(&mut client, "c2").await, [b"first"]);
        }
    }
}

#[tokio::test]
async fn a_disk_that_dies_under_load_costs_nothing_and_can_be_removed_when_the_status_says_so() {
    let test = "a_disk_that_dies_under_load_costs_nothing_and_can_be_removed_when_the_status_says_so";
    let Some(mut rig) = two_in_turn(test).await else { return };
    let (dead, alive) = (rig.sidecar.setup.url("d1"), rig.sidecar.setup.url("d2"));
    let mut client = rig.sidecar.grpc();
    let mut entries = vec![b"first".to_vec()];
    for n in 0..60u8 {
        if n == 20 {
            rig.disks[0].inject(Rule::dead());
        }
        let payload = vec![n; 1000];
        let reply = append(&mut client, "c1", &[&payload]).await;
        entries.push(payload);
        assert_eq!(reply.directory, if n < 20 { dead.as_str() } else { &alive }, "entry {n}");
        append(&mut client, &format!("new{n}"), &[b"x"]).await;
    }
    let status = rig.sidecar.status().await;
    let shown = directory(&status, &dead);
    assert_eq!(shown.state, "failed", "{shown:?}");
    assert!(shown.reason.contains("os error 5") && !shown.remedy.is_empty(), "{shown:?}");
    assert_eq!((status.phase.as_str(), directory(&status, &alive).state.as_str()), ("ready", "healthy"));
    assert_eq!(payloads(&mut client, "c1").await, entries, "reads go on");
    let evacuated = |status: &Status| {
        let shown = directory(status, &dead);
        assert_eq!(shown.state, "failed", "{shown:?}");
        !shown.in_use && shown.evacuation_bytes_left == 0 && shown.remedy.contains("may be removed")
    };
    rig.sidecar.wait_status("nothing of it is needed", evacuated).await;
    assert_eq!(append(&mut client, "c1", &[b"last"]).await.directory, alive);
    entries.push(b"last".to_vec());
    rig.sidecar.stop().await;
    // The dead disk goes, and its URL with it.
    rig.disks.remove(0);
    rig.sidecar.setup.urls(std::slice::from_ref(&alive));
    for seed in 0..2 {
        rig.start().await;
        let mut client = rig.sidecar.grpc();
        let status = rig.sidecar.status().await;
        assert_eq!(status.directories.len(), 1, "{status:#?}");
        assert_eq!(payloads(&mut client, "c1").await, entries);
        for n in 0..60 {
            assert_eq!(payloads(&mut client, &format!("new{n}")).await, [b"x"]);
        }
        rig.cut(seed);
    }
}

#[tokio::test]
async fn a_stalled_disk_loses_its_collections_to_another_and_its_late_answer_changes_nothing() {
    let test = "a_stalled_disk_loses_its_collections_to_another_and_its_late_answer_changes_nothing";
    let Some(mut rig) = two_in_turn(test).await else { return };
    let (stalled, other) = (rig.sidecar.setup.url("d1"), rig.sidecar.setup.url("d2"));
    let mut client = rig.sidecar.grpc();
    rig.disks[0].inject(Rule::new(&[Op::Write, Op::Sync], What::Stall).on(".avro"));
    let mut waiting = client.clone();
    let reply = tokio::spawn(async move { append(&mut waiting, "c1", &[b"second"]).await });
    let mut others = vec![b"first".to_vec()];
    while !reply.is_finished() {
        let payload = format!("{}", others.len()).into_bytes();
        assert_eq!(append(&mut client, "c2", &[&payload]).await.directory, other, "others go on");
        others.push(payload);
    }
    let reply = reply.await.expect("no panic");
    assert_eq!((reply.first_lsn, &reply.directory), (2, &other));
    let status = rig.sidecar.status().await;
    assert_eq!(directory(&status, &stalled).state, "failed", "{status:#?}");
    append(&mut client, "c1", &[b"third"]).await;
    rig.disks[0].heal();
    append(&mut client, "c1", &[b"fourth"]).await;
    let entries = ["first", "second", "third", "fourth"].map(|text| text.as_bytes().to_vec());
    assert_eq!(payloads(&mut client, "c1").await, entries);
    rig.cut(3);
    rig.start().await;
    let mut client = rig.sidecar.grpc();
    assert_eq!(payloads(&mut client, "c1").await, entries);
    assert_eq!(payloads(&mut client, "c2").await, others);
}

#[tokio::test]
async fn a_disk_that_failed_and_works_again_is_used_again_after_a_minute() {
    let test = "a_disk_that_failed_and_works_again_is_used_again_after_a_minute";
    if !full_size() {
        return;
    }
    let Some(mut rig) = two_in_turn(test).await else { return };
    let (back, other) = (rig.sidecar.setup.url("d1"), rig.sidecar.setup.url("d2"));
    let mut client = rig.sidecar.grpc();
    rig.disks[0].inject(Rule::dead());
    assert_eq!(append(&mut client, "c1", &[b"second"]).await.directory, other);
    rig.sidecar.wait_status("failed", |status| directory(status, &back).state == "failed").await;
    rig.disks[0].heal();
    // Meanwhile the other one does all the work.
    let mut meanwhile = 0u64;
    let works = |status: &Status| {
        let shown = directory(status, &back);
        shown.state == "healthy" && shown.in_use
    };
    let returned = tokio::time::timeout(Duration::from_secs(240), async {
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        while !works(&rig.sidecar.status().await) {
            ticks.tick().await;
            assert_eq!(append(&mut client, "c1", &[&meanwhile.to_le_bytes()]).await.directory, other);
            meanwhile += 1;
        }
    });
    returned.await.expect("it is used again");
    assert!(meanwhile > 60, "it is left alone for a minute: {meanwhile} half seconds");
    println!("used again after {meanwhile} half seconds");
    let mut placed = Vec::new();
    for name in ["n1", "n2"] {
        placed.push(append(&mut client, name, &[name.as_bytes()]).await.directory);
    }
    placed.sort();
    assert_eq!(placed, [back, other], "new collections go to both in turn");
    let numbers = (0..meanwhile).map(|n| n.to_le_bytes().to_vec());
    let entries: Vec<_> = [b"first".to_vec(), b"second".to_vec()].into_iter().chain(numbers).collect();
    for seed in 0..2 {
        let mut client = rig.sidecar.grpc();
        assert_eq!(payloads(&mut client, "c1").await, entries);
        assert_eq!(payloads(&mut client, "c2").await, [b"first"]);
        for name in ["n1", "n2"] {
            assert_eq!(payloads(&mut client, name).await, [name.as_bytes()]);
        }
        rig.cut(seed);
        rig.start().await;
    }
}
