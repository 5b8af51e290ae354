//! Small ext4 file systems that fill up, go away and come back under a real process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use walstorage_tests::harness::calls::{append, directory, payloads, refused, request};
use walstorage_tests::harness::skip::skipped;
use walstorage_tests::harness::{Namespace, Setup, Sidecar};
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
async fn a_volume_that_is_not_mounted_at_the_start_is_waited_for_and_nothing_is_written_in_its_place() {
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
