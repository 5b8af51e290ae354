//! Small file systems that fill up, go away and come back under a real process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use walstorage_sidecar::proto::Status;
use walstorage_tests::harness::calls::{Line, append, directory, lines, payloads, refused, request, truncate};
use walstorage_tests::harness::grpc::{Client, typed};
use walstorage_tests::harness::skip::skipped;
use walstorage_tests::harness::{DEADLINE, Namespace, Setup, Sidecar, eventually};
use walstorage_tests::twin::{FileSystem, LoopDisk};

/// A sidecar that is not started yet, its directories `d1` to `d<count>` on ext4 volumes of `size` bytes.
fn volumes(test: &str, setup: Setup, count: usize, size: u64) -> Option<(Sidecar, Vec<LoopDisk>)> {
    volumes_of(FileSystem::Ext4, test, setup, count, size)
}

fn volumes_of(kind: FileSystem, test: &str, setup: Setup, count: usize, size: u64) -> Option<(Sidecar, Vec<LoopDisk>)> {
    let made = Namespace::of_root().and_then(|namespace| {
        let mount = |n| {
            let (image, point) = (setup.path(&format!("image{n}")), setup.path(&format!("d{n}")));
            LoopDisk::mount_kind(kind, &namespace, &image, &point, size)
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
    let opened = fs::OpenOptions::new().create(true).append(true).open(disk.path().join("ballast"));
    let mut ballast = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
        Err(error) => panic!("the ballast of {}: {error}", disk.path().display()),
    };
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

/// What a writer was told of its appends, which it numbers.
#[derive(Default)]
struct Told {
    collection: String,
    next: u64,
    /// LSNs, and the numbers of what was acknowledged there.
    acked: BTreeMap<u64, u64>,
    /// Of these nobody knows.
    unknown: BTreeSet<u64>,
    /// How often for which reason nothing was written.
    refused: BTreeMap<String, u64>,
}

/// The payload of a number: nothing makes it smaller.
fn numbered(number: u64) -> Vec<u8> {
    let mut payload = vec![0; 64 << 10];
    StdRng::seed_from_u64(number).fill_bytes(&mut payload);
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

impl Told {
    /// Appends the next one; whether anything was written, as far as that is known.
    async fn append(&mut self, client: &mut Client) -> bool {
        let number = self.next;
        self.next += 1;
        let sent = client.append_batch(request(&self.collection, &[&numbered(number)]));
        let answer = tokio::time::timeout(DEADLINE, sent).await.expect("every append is answered");
        let status = match answer {
            Ok(reply) => {
                let before = self.acked.insert(reply.into_inner().first_lsn, number);
                assert_eq!(before, None, "an LSN is given once");
                return true;
            }
            Err(status) => status,
        };
        let reason = typed(&status).reason;
        match reason.as_str() {
            "UNKNOWN_OUTCOME" => {
                self.unknown.insert(number);
                true
            }
            "NO_HEALTHY_DIRECTORY" | "JOURNAL_FULL" | "MEMORY_LIMIT" => {
                *self.refused.entry(reason).or_default() += 1;
                false
            }
            other => panic!("{other}: {status}"),
        }
    }

    /// Appends until nothing goes any more.
    async fn fill(mut self, mut client: Client) -> Self {
        let mut in_a_row = 0;
        while in_a_row < 3 {
            in_a_row = if self.append(&mut client).await { 0 } else { in_a_row + 1 };
        }
        self
    }

    /// Everything above `truncated_to` that was acknowledged is there, where it was said to be; nothing twice, and nothing
    /// that is not of unknown outcome beside it.
    async fn check(&self, client: &mut Client, truncated_to: u64) {
        let mut seen = BTreeMap::new();
        for line in lines(client, &self.collection).await {
            let Line::Entry(lsn, payload) = line else { panic!("{}: {line:?}", self.collection) };
            let number = u64::from_le_bytes(payload[..8].try_into().expect("8 bytes"));
            assert!(payload == numbered(number), "{} LSN {lsn}", self.collection);
            assert_eq!(seen.insert(number, lsn), None, "{}: {number} is there twice", self.collection);
            let known = self.acked.get(&lsn) == Some(&number) || self.unknown.contains(&number);
            assert!(lsn > truncated_to && known, "{} LSN {lsn} holds {number}", self.collection);
        }
        for (lsn, number) in self.acked.range(truncated_to + 1..) {
            assert_eq!(seen.get(number), Some(lsn), "{}: {number} was acknowledged", self.collection);
        }
    }
}

/// Two volumes are filled by eight writers at once, then to the last byte; facts go on, a restart comes up, and when what is
/// truncated makes room it all goes on by itself.
async fn filled_under_load(test: &str, kind: FileSystem) {
    let setup = in_turn(2)
        .set(r#"compression = "null""#)
        .set(r#"memory_flush_size_bytes = "256Ki""#)
        .set(r#"segment_size_bytes = "1Mi""#);
    let Some((mut sidecar, disks)) = volumes_of(kind, test, setup, 2, 96 << 20) else { return };
    sidecar.start();
    sidecar.wait_ready().await;
    let writers = (0..8).map(|n| {
        let told = Told { collection: format!("c{n}"), ..Told::default() };
        tokio::spawn(told.fill(sidecar.grpc()))
    });
    let mut all = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        all.push(writer.await.expect("a writer ends"));
    }
    let urls = [sidecar.setup.url("d1"), sidecar.setup.url("d2")];
    let state = |status: &Status, wanted: &str| urls.iter().all(|url| directory(status, url).state == wanted);
    // What ended the writers may have been the bound of a journal that could not be flushed; and what a flush took
    // comes free when it fails.
    let full = |status: &Status| {
        disks.iter().for_each(fill);
        state(status, "full")
    };
    sidecar.wait_status("full", full).await;
    let mut client = sidecar.grpc();
    for told in &mut all {
        // Files of the journal may still come free: what is told counts.
        told.append(&mut client).await;
        told.check(&mut client, 0).await;
        println!(
            "{}: {} acknowledged, {} unknown, refused {:?}",
            told.collection,
            told.acked.len(),
            told.unknown.len(),
            told.refused
        );
    }
    let acked: usize = all.iter().map(|told| told.acked.len()).sum();
    assert!(acked > 1000, "{acked} entries of 64 KiB filled 192 MiB");
    // Less than a segment: nothing comes free.
    assert_eq!(truncate(&mut client, "c0", 1).await, 1, "with zero bytes free");
    sidecar.kill();
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    for (n, told) in all.iter_mut().enumerate() {
        told.check(&mut client, u64::from(n == 0)).await;
        told.append(&mut client).await;
    }
    // One entry of one collection is left: it keeps all that its directory has of the journal before the restart, but
    // nothing in the other.
    let mut kept = Vec::new();
    for (n, told) in all.iter().enumerate() {
        let there = lines(&mut client, &told.collection).await;
        let Some(Line::Entry(last, _)) = there.last() else { panic!("{}: {} lines", told.collection, there.len()) };
        let up_to = last - u64::from(n == 0);
        assert_eq!(truncate(&mut client, &told.collection, up_to).await, up_to, "with zero bytes free");
        kept.push(up_to);
    }
    sidecar.wait_status("healthy by itself", |status| state(status, "healthy")).await;
    for (told, up_to) in all.iter_mut().zip(&kept) {
        let before = told.acked.len();
        assert!(told.append(&mut client).await && told.acked.len() > before, "there is room");
        told.check(&mut client, *up_to).await;
    }
    sidecar.kill();
    sidecar.start();
    sidecar.wait_ready().await;
    for (told, up_to) in all.iter().zip(&kept) {
        told.check(&mut sidecar.grpc(), *up_to).await;
    }
}

#[tokio::test]
async fn two_ext4_volumes_filled_under_load_answer_every_append_and_lose_nothing() {
    filled_under_load("two_ext4_volumes_filled_under_load", FileSystem::Ext4).await;
}

#[tokio::test]
async fn two_xfs_volumes_filled_under_load_answer_every_append_and_lose_nothing() {
    filled_under_load("two_xfs_volumes_filled_under_load", FileSystem::Xfs).await;
}
