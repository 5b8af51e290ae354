//! Small ext4 file systems that fill up, go away and come back under a real process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use walstorage_tests::harness::calls::{append, directory, payloads, refused, request, truncate};
use walstorage_tests::harness::grpc::typed;
use walstorage_tests::harness::skip::skipped;
use walstorage_tests::harness::{Namespace, Setup, Sidecar, eventually};
use walstorage_tests::twin::LoopDisk;

/// A sidecar that is not started yet, its directories `d1` to `d<count>` on volumes of `size` bytes.
fn volumes(test: &str, setup: Setup, count: usize, size: u64) -> Option<(Sidecar, Vec<LoopDisk>)> {
    let made = Namespace::of_root().and_then(|namespace| {
        let mount = |n| {
            let (image, point) = (setup.path(&format!("image{n}")), setup.path(&format!("d{n}")));
            LoopDisk::mount(&namespace, &image, &point, size)
        };
        Ok(((1..=count).map(mount).collect::<Result<Vec<_>, _>>()?, namespace))
    });
    match made {
        Ok((disks, namespace)) => Some((Sidecar::new(setup).within(namespace), disks)),
        Err(why) => {
            skipped(test, &why);
            None
        }
    }
}

fn in_turn(directories: usize) -> Setup {
    let mut setup = Setup::new(directories).set(r#"distribution_strategy = "RoundRobin""#);
    setup.environment.push(("WALSTORAGE_REQUIRE_MOUNTS".into(), "true".into()));
    setup
}

#[tokio::test]
async fn schedule_22_a_volume_that_is_not_mounted_at_the_start_is_waited_for_and_nothing_is_written_in_its_place() {
    let test = "a_volume_that_is_not_mounted_at_the_start_is_waited_for";
    let Some((mut sidecar, disks)) = volumes(test, in_turn(2), 2, 64 << 20) else { return };
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    for name in ["a", "b"] {
        append(&mut client, name, &[name.as_bytes()]).await;
    }
    sidecar.stop().await;
    disks[1].detach();
    sidecar.start();
    let url = sidecar.setup.url("d2");
    let status = sidecar.wait_status("waiting", |status| status.phase == "waiting").await;
    assert_eq!(directory(&status, &url).state, "not_mounted", "{status:#?}");
    assert!(status.waiting_for.iter().any(|what| what.contains(&url)), "{status:#?}");
    assert_eq!(refused(&mut sidecar.grpc(), request("a", &[b"x"])).await.reason, "NOT_READY");
    assert_eq!(fs::read_dir(disks[1].path()).expect("the folder below").count(), 0);
    disks[1].attach().expect("mounted");
    sidecar.wait_ready().await;
    for name in ["a", "b"] {
        assert_eq!(payloads(&mut sidecar.grpc(), name).await, [name.as_bytes()]);
    }
}
/// Fills whatever room a volume has left with a file of the name `ballast`.
fn fill(disk: &LoopDisk) {
    let mut ballast =
        fs::OpenOptions::new().create(true).append(true).open(disk.path().join("ballast")).expect("a file");
    for size in [1 << 20, 4096, 1] {
        while std::io::Write::write_all(&mut ballast, &vec![1; size]).is_ok() {}
    }
    let _ = ballast.sync_all();
}

#[tokio::test]
async fn with_zero_bytes_free_truncation_works_and_a_restart_comes_up_with_everything() {
    let test = "with_zero_bytes_free_truncation_works_and_a_restart_comes_up_with_everything";
    let Some((mut sidecar, disks)) = volumes(test, in_turn(1), 1, 96 << 20) else { return };
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    let mut entries = Vec::new();
    for n in 0..40u8 {
        let payload = vec![n; 100_000];
        append(&mut client, "c", &[&payload]).await;
        entries.push(payload);
    }
    // Facts go on in two files that are written ahead, which takes a moment after the first data.
    let journal = disks[0].path().join("_wal/journal");
    let reserved = || {
        let files = fs::read_dir(&journal).expect("a journal").flatten();
        let reserve = files.filter(|file| file.file_name().to_string_lossy().starts_with("reserve-"));
        let sizes: Vec<u64> = reserve.filter_map(|file| Some(file.metadata().ok()?.len())).collect();
        sizes.len() == 2 && sizes[0] == sizes[1] && sizes[0] > 1 << 20
    };
    eventually("room for facts", || async { reserved().then_some(()) }).await;
    fill(&disks[0]);
    let mut unknown = 0;
    for _ in 0..400 {
        match client.append_batch(request("c", &[&[0xff; 100_000]])).await {
            Ok(_) => entries.push(vec![0xff; 100_000]),
            Err(status) => match typed(&status).reason.as_str() {
                "NO_HEALTHY_DIRECTORY" => break,
                "UNKNOWN_OUTCOME" => unknown += 1,
                other => panic!("{other}: {status}"),
            },
        }
    }
    assert_eq!(refused(&mut client, request("c", &[b"x"])).await.reason, "NO_HEALTHY_DIRECTORY");
    let url = sidecar.setup.url("d1");
    sidecar.wait_status("full", |status| directory(status, &url).state == "full").await;
    assert_eq!(payloads(&mut client, "c").await, entries, "reads go on");
    assert_eq!(truncate(&mut client, "c", 10).await, 10, "with zero bytes free");
    sidecar.kill();
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    let read = payloads(&mut client, "c").await;
    assert!(read.starts_with(&entries[10..]), "on a disk that is still full: {} of {}", read.len(), entries.len());
    assert!(read[entries.len() - 10..].iter().all(|unsure| unsure == &[0xff; 100_000]));
    assert!(read.len() + 10 - entries.len() <= unknown, "of unknown outcome were {unknown}");
    assert_eq!(truncate(&mut client, "c", 20).await, 20);
    fs::remove_file(disks[0].path().join("ballast")).expect("room");
    sidecar.wait_status("healthy by itself", |status| directory(status, &url).state == "healthy").await;
    append(&mut client, "c", &[b"again"]).await;
    assert_eq!(payloads(&mut client, "c").await, [&read[10..], &[b"again".to_vec()]].concat());
}

#[tokio::test]
async fn a_volume_that_is_unmounted_under_a_running_sidecar_is_missed_and_its_collections_go_on() {
    let test = "a_volume_that_is_unmounted_under_a_running_sidecar_is_missed_and_its_collections_go_on";
    let Some((mut sidecar, disks)) = volumes(test, in_turn(2), 2, 64 << 20) else { return };
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    let (gone, other) = (sidecar.setup.url("d2"), sidecar.setup.url("d1"));
    assert_eq!(append(&mut client, "a", &[b"before"]).await.directory, gone);
    disks[1].detach();
    let status = sidecar.wait_status("missed", |status| directory(status, &gone).state != "healthy").await;
    let shown = directory(&status, &gone);
    assert!(["not_mounted", "failed"].contains(&shown.state.as_str()) && !shown.reason.is_empty(), "{shown:?}");
    assert_eq!(append(&mut client, "a", &[b"after"]).await.directory, other);
    assert_eq!(payloads(&mut client, "a").await, [b"before".to_vec(), b"after".to_vec()]);
    assert_eq!(fs::read_dir(disks[1].path()).expect("the folder below").count(), 0, "nothing is written in its place");
    sidecar.stop().await;
    disks[1].attach().expect("mounted");
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "a").await, [b"before".to_vec(), b"after".to_vec()]);
}
