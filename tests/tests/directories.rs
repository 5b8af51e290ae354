//! Directories that are not as they should be: each gives its own clear state or error, and takes nothing else with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use walstorage_sidecar::proto::{ForgetDirectoryRequest, Reason, Status};
use walstorage_tests::harness::calls::{
    Line, append, describe, directory, lines, payloads, refused, request, truncate,
};
use walstorage_tests::harness::skip::skipped;
use walstorage_tests::harness::{Namespace, Setup, Sidecar};
use walstorage_tests::load::verify::journal;

/// Two directories in turn, so that `c1` lives in one and `c2` in the other.
async fn two_in_turn() -> Sidecar {
    let sidecar = Sidecar::ready(Setup::new(2).set(r#"distribution_strategy = "RoundRobin""#)).await;
    let mut client = sidecar.grpc();
    let (one, two) = (append(&mut client, "c1", &[b"one"]).await, append(&mut client, "c2", &[b"two"]).await);
    assert_ne!(one.directory, two.directory, "in turn");
    sidecar
}

/// Number of the directory, 1 or 2, where a collection lives.
async fn home(sidecar: &Sidecar, collection: &str) -> usize {
    let url = describe(&mut sidecar.grpc(), collection).await.directory;
    (1..=2).find(|n| url == sidecar.setup.url(&format!("d{n}"))).expect("one of two")
}

#[tokio::test]
async fn a_missing_folder_is_created_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mode = fs::metadata(sidecar.setup.path("d1")).expect("created").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_file_in_the_place_of_a_directory_is_failed_and_the_other_serves() {
    let setup = Setup::new(2);
    fs::write(setup.path("d2"), "a file").expect("a file");
    let sidecar = Sidecar::ready(setup).await;
    let status = sidecar.status().await;
    let broken = directory(&status, &sidecar.setup.url("d2"));
    assert_eq!(broken.state, "failed", "{broken:?}");
    assert!(!broken.reason.is_empty());
    assert_eq!(directory(&status, &sidecar.setup.url("d1")).state, "healthy");
    for n in 0..10 {
        let reply = append(&mut sidecar.grpc(), &format!("c{n}"), &[b"x"]).await;
        assert_eq!(reply.directory, sidecar.setup.url("d1"));
    }
}

#[tokio::test]
async fn a_read_only_directory_is_failed_and_the_other_serves() {
    let setup = Setup::new(2);
    let d2 = setup.path("d2");
    fs::create_dir(&d2).expect("a folder");
    let script = format!("mount -t tmpfs none {0} && mount -o remount,ro {0}", d2.display());
    let namespace = match Namespace::new(&script) {
        Ok(namespace) => namespace,
        Err(why) => return skipped("a_read_only_directory_is_failed_and_the_other_serves", &why),
    };
    let mut sidecar = Sidecar::new(setup).within(namespace);
    sidecar.start();
    let status = sidecar.wait_ready().await;
    let broken = directory(&status, &sidecar.setup.url("d2"));
    assert_eq!(broken.state, "failed", "{broken:?}");
    assert!(broken.reason.to_lowercase().contains("read-only"), "{broken:?}");
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
}

/// A sidecar whose `d1` is a file system of `size`, with a ballast file of `ballast` in it.
fn small_disk(directories: usize, size: &str, ballast: &str) -> Result<Sidecar, String> {
    let setup = Setup::new(directories);
    let d1 = setup.path("d1");
    fs::create_dir(&d1).expect("a folder");
    let d1 = d1.display();
    let script = format!("mount -t tmpfs -o size={size} none {d1} && head -c {ballast} /dev/zero > {d1}/ballast");
    Ok(Sidecar::new(setup).within(Namespace::new(&script)?))
}

/// Appends to `c` until it is refused; answers what was acknowledged and the reasons of the errors.
async fn fill(sidecar: &Sidecar) -> (Vec<Vec<u8>>, Vec<String>) {
    let mut client = sidecar.grpc();
    let (mut acked, mut reasons) = (Vec::new(), Vec::new());
    for n in 0..2000u32 {
        let payload = n.to_le_bytes().repeat(10_000);
        match client.append_batch(request("c", &[&payload])).await {
            Ok(_) => acked.push(payload),
            Err(status) => {
                reasons.push(walstorage_tests::harness::grpc::typed(&status).reason);
                if reasons.len() == 3 {
                    break;
                }
            }
        }
    }
    (acked, reasons)
}

#[tokio::test]
async fn a_full_directory_says_so_keeps_what_it_has_and_goes_on_with_room_after_a_restart() {
    let mut sidecar = match small_disk(1, "48m", "20m") {
        Ok(sidecar) => sidecar,
        Err(why) => return skipped("a_full_directory_says_so", &why),
    };
    sidecar.start();
    sidecar.wait_ready().await;
    let (acked, reasons) = fill(&sidecar).await;
    assert!(!acked.is_empty());
    assert_eq!(reasons.len(), 3, "it became full: {reasons:?}");
    assert_eq!(reasons[1..], ["NO_HEALTHY_DIRECTORY", "NO_HEALTHY_DIRECTORY"], "{reasons:?}");
    assert!(["NO_HEALTHY_DIRECTORY", "UNKNOWN_OUTCOME"].contains(&reasons[0].as_str()), "{reasons:?}");
    let status = sidecar.status().await;
    assert_eq!(directory(&status, &sidecar.setup.url("d1")).state, "full");
    let read = payloads(&mut sidecar.grpc(), "c").await;
    assert_eq!(read, acked, "what is durable stays readable");
    sidecar.kill();
    let folder = sidecar.setup.path("d1");
    fs::remove_file(sidecar.namespace().expect("a namespace").path(&folder).join("ballast")).expect("ballast");
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    let read = payloads(&mut client, "c").await;
    // The append of unknown outcome may have landed.
    assert!(read.len() - acked.len() <= 1 && read.starts_with(&acked), "{} of {}", read.len(), acked.len());
    append(&mut client, "c", &[b"with room"]).await;
}

#[tokio::test]
async fn a_full_directory_leaves_its_collections_to_the_other() {
    let sidecar = small_disk(2, "24m", "12m").map(|mut sidecar| {
        sidecar.setup.add(r#"distribution_strategy = "RoundRobin""#);
        sidecar
    });
    let mut sidecar = match sidecar {
        Ok(sidecar) => sidecar,
        Err(why) => return skipped("a_full_directory_leaves_its_collections_to_the_other", &why),
    };
    sidecar.start();
    sidecar.wait_ready().await;
    let mut client = sidecar.grpc();
    let names = ["c", "other"];
    let mut homes = Vec::new();
    for name in names {
        homes.push(append(&mut client, name, &[b"first"]).await.directory);
    }
    let full = sidecar.setup.url("d1");
    let (small, large) = if homes[0] == full { (0, 1) } else { (1, 0) };
    assert_eq!(homes[small], full, "in turn");
    let payload = vec![1; 100_000];
    let mut appended = 1;
    while append(&mut client, names[small], &[&payload]).await.directory == full {
        appended += 1;
        assert!(appended < 1000, "it never becomes full");
    }
    assert_eq!(payloads(&mut client, names[small]).await.len(), appended + 1, "all of it is there");
    append(&mut client, names[large], &[b"second"]).await;
    let placed = append(&mut client, "third", &[b"first"]).await;
    assert_eq!(placed.directory, homes[large], "new collections go where there is room");
    assert_eq!(sidecar.status().await.phase, "ready");
}

#[tokio::test]
async fn schedule_22_a_directory_of_another_writer_is_refused_and_both_writers_are_named() {
    let mut other = Sidecar::ready(Setup::new(1)).await;
    let other_uid = other.status().await.writer.expect("a writer").uid;
    other.stop().await;
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let uid = sidecar.status().await.writer.expect("a writer").uid;
    sidecar.stop().await;
    sidecar.setup.urls(&[sidecar.setup.url("d1"), other.setup.url("d1")]);
    sidecar.start();
    assert_eq!(sidecar.exit().await.code(), Some(1));
    let log = sidecar.log();
    assert!(log.contains(&uid) && log.contains(&other_uid), "both uids: {log}");
}

#[tokio::test]
async fn schedule_22_one_directory_behind_two_urls_is_a_configuration_error_that_names_both() {
    let setup = Setup::new(2);
    fs::create_dir(setup.path("d1")).expect("a folder");
    symlink(setup.path("d1"), setup.path("d2")).expect("a link");
    let urls = [setup.url("d1"), setup.url("d2")];
    let mut sidecar = Sidecar::new(setup);
    sidecar.start();
    assert_eq!(sidecar.exit().await.code(), Some(2));
    assert!(urls.iter().all(|url| sidecar.log().contains(url)), "{}", sidecar.log());
}

#[tokio::test]
async fn a_held_lock_is_waited_for() {
    let mut first = Sidecar::ready(Setup::new(1)).await;
    append(&mut first.grpc(), "c", &[b"x"]).await;
    let mut setup = Setup::new(0);
    setup.urls(&[first.setup.url("d1")]);
    let mut second = Sidecar::new(setup);
    second.start();
    let locked = |status: &walstorage_sidecar::proto::Status| {
        let named = status.directories.iter().any(|directory| directory.reason.contains("LOCKED"));
        status.phase != "ready" && (named || status.waiting_for.iter().any(|what| what.contains("LOCKED")))
    };
    second.wait_status("not ready with reason LOCKED", locked).await;
    assert_eq!(refused(&mut second.grpc(), request("c", &[b"y"])).await.reason, "NOT_READY");
    first.kill();
    second.wait_ready().await;
    assert_eq!(payloads(&mut second.grpc(), "c").await, [b"x"]);
}

/// Takes the directory of `c2` away as `take` says, waits for its state, brings it back and expects everything.
async fn away_and_back(take: impl Fn(&Path, &Path), states: &[&str], answered: bool) {
    let mut sidecar = two_in_turn().await;
    let gone = home(&sidecar, "c2").await;
    sidecar.stop().await;
    let (here, away) = (sidecar.setup.path(&format!("d{gone}")), sidecar.setup.path("away"));
    take(&here, &away);
    sidecar.start();
    let url = sidecar.setup.url(&format!("d{gone}"));
    let status = sidecar
        .wait_status("waiting for it", |status| {
            status.phase == "waiting" && states.contains(&directory(status, &url).state.as_str())
        })
        .await;
    let uuid = &directory(&status, &url).uuid;
    let named = |what: &String| what.contains(&url) || (!uuid.is_empty() && what.contains(uuid.as_str()));
    assert!(status.waiting_for.iter().any(named), "{status:#?}");
    assert_eq!(refused(&mut sidecar.grpc(), request("c1", &[b"x"])).await.reason, "NOT_READY");
    if !answered {
        return;
    }
    let _ = fs::remove_dir_all(&here);
    fs::rename(&away, &here).expect("it returns");
    sidecar.wait_ready().await;
    for (collection, payload) in [("c1", b"one"), ("c2", b"two")] {
        assert_eq!(payloads(&mut sidecar.grpc(), collection).await, [payload]);
        append(&mut sidecar.grpc(), collection, &[b"more"]).await;
    }
}

#[tokio::test]
async fn schedule_12_a_directory_that_is_not_there_is_waited_for_and_welcome_when_it_returns() {
    away_and_back(|here, away| fs::rename(here, away).expect("renamed"), &["missing", "lost"], true).await;
}

#[tokio::test]
async fn a_directory_that_comes_up_empty_is_lost_never_new() {
    let empty = |here: &Path, away: &Path| {
        fs::rename(here, away).expect("renamed");
        fs::create_dir(here).expect("an empty folder");
    };
    away_and_back(empty, &["lost"], true).await;
}

#[tokio::test]
async fn a_directory_that_lost_its_journal_is_lost_never_new() {
    let take = |here: &Path, _: &Path| fs::remove_dir_all(here.join("_wal/journal")).expect("removed");
    away_and_back(take, &["lost"], false).await;
}

#[tokio::test]
async fn schedule_12_a_forgotten_directory_leaves_gaps_and_is_never_read_again() {
    let mut sidecar = two_in_turn().await;
    let gone = home(&sidecar, "c2").await;
    let url = sidecar.setup.url(&format!("d{gone}"));
    let uuid = directory(&sidecar.status().await, &url).uuid.clone();
    let present = sidecar.grpc().forget_directory(ForgetDirectoryRequest { uuid: uuid.clone() }).await;
    assert_eq!(present.expect_err("present and well").code(), tonic::Code::InvalidArgument);
    sidecar.stop().await;
    let (here, away) = (sidecar.setup.path(&format!("d{gone}")), sidecar.setup.path("away"));
    fs::rename(&here, &away).expect("renamed");
    sidecar.start();
    sidecar.wait_status("waiting", |status| status.phase == "waiting").await;
    let mut client = sidecar.grpc();
    client.forget_directory(ForgetDirectoryRequest { uuid: uuid.clone() }).await.expect("forgotten");
    sidecar.wait_ready().await;
    let after_gap = |lines: Vec<Line>| {
        let Some(Line::Gap(first, last, Reason::DirectoryForgotten)) = lines.first() else { panic!("{lines:?}") };
        assert!(*first <= 2 && *last >= (1 << 40), "{lines:?}");
        lines.into_iter().skip(1).collect::<Vec<_>>()
    };
    assert_eq!(payloads(&mut client, "c1").await, [b"one"]);
    let known = lines(&mut client, "c2").await;
    assert_eq!(after_gap(known), []);
    let reply = append(&mut client, "c2", &[b"after"]).await;
    assert!(reply.first_lsn > 1 << 40 && reply.directory != url, "{reply:?}");
    for _ in 0..2 {
        sidecar.kill_and_restart().await;
        let mut client = sidecar.grpc();
        assert_eq!(payloads(&mut client, "c1").await, [b"one"]);
        let rest = after_gap(lines(&mut client, "c2").await);
        assert_eq!(rest, [Line::Entry(reply.first_lsn, b"after".to_vec())]);
    }
    sidecar.stop().await;
    // It returns under another URL: a new directory has its place.
    let returns = sidecar.setup.url("away");
    sidecar.setup.urls(&[sidecar.setup.url("d1"), sidecar.setup.url("d2"), returns.clone()]);
    sidecar.start();
    let status = sidecar.wait_ready().await;
    let returned = directory(&status, &returns);
    assert_eq!((returned.state.as_str(), returned.remedy.is_empty()), ("forgotten", false), "{returned:?}");
    let rest = after_gap(lines(&mut sidecar.grpc(), "c2").await);
    assert_eq!(rest, [Line::Entry(reply.first_lsn, b"after".to_vec())], "the gap stays");
}

#[tokio::test]
async fn a_higher_epoch_in_the_journal_fences() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let reply = append(&mut sidecar.grpc(), "c", &[b"x"]).await;
    let newer = format!("{:013}.000-{:012}.avro", reply.epoch + 1, 1);
    fs::write(sidecar.setup.journal(1).join(newer), []).expect("a slot");
    assert_eq!(sidecar.exit().await.code(), Some(3));
    assert!(sidecar.log().to_lowercase().contains("fenced"), "{}", sidecar.log());
}

#[tokio::test]
async fn schedule_24_a_removed_url_is_drained_its_collections_move_and_it_takes_no_new_one() {
    let mut sidecar = two_in_turn().await;
    let removed = home(&sidecar, "c2").await;
    let stays = 3 - removed;
    sidecar.stop().await;
    sidecar.setup.urls(&[sidecar.setup.url(&format!("d{stays}"))]);
    sidecar.start();
    let status = sidecar.wait_ready().await;
    let url = sidecar.setup.url(&format!("d{removed}"));
    let draining = directory(&status, &url);
    assert_eq!((draining.state.as_str(), draining.draining), ("draining", true), "{draining:?}");
    goes_on(&mut sidecar, "c2", b"two", &url).await;
}

#[tokio::test]
async fn a_drained_directory_with_segments_may_be_removed_when_the_status_says_so() {
    let mut sidecar = two_in_turn().await;
    let mut client = sidecar.grpc();
    let mut entries = vec![b"two".to_vec()];
    for n in 0..50_u8 {
        append(&mut client, "c2", &[&[n; 2000]]).await;
        entries.push(vec![n; 2000]);
    }
    truncate(&mut client, "c2", 7).await;
    entries.drain(..7);
    let removed = home(&sidecar, "c2").await;
    // A clean stop flushes: what is drained lies in segments and in the journal.
    sidecar.stop().await;
    let left = sidecar.setup.path(&format!("d{removed}"));
    assert!(left.join("c2").join("wal_current.avro").exists(), "there is a segment to move");
    let url = sidecar.setup.url(&format!("d{removed}"));
    sidecar.setup.urls(&[sidecar.setup.url(&format!("d{}", 3 - removed))]);
    sidecar.start();
    sidecar.wait_ready().await;
    let emptied =
        |status: &Status| {
            status.directories.iter().filter(|shown| shown.url == url).all(|shown| {
                !shown.in_use && shown.evacuation_bytes_left == 0 && shown.remedy.contains("may be removed")
            })
        };
    sidecar.wait_status("the drained directory may be removed", emptied).await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c2").await, entries);
    sidecar.kill();
    fs::remove_dir_all(&left).expect("removed");
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c2").await, entries);
    assert_eq!(payloads(&mut sidecar.grpc(), "c1").await, [b"one"]);
}

#[tokio::test]
async fn schedule_24_wal_dir_with_our_data_beside_wal_urls_is_drained() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    append(&mut sidecar.grpc(), "c2", &[b"two"]).await;
    sidecar.stop().await;
    let (old, new) = (sidecar.setup.url("d1"), sidecar.setup.url("new"));
    let line = format!("wal_dir = {:?}", sidecar.setup.path("d1").display().to_string());
    sidecar.setup.storage(&line);
    sidecar.setup.urls(&[new]);
    sidecar.start();
    let status = sidecar.wait_ready().await;
    assert_eq!(directory(&status, &old).state, "draining");
    goes_on(&mut sidecar, "c2", b"two", &old).await;
}

/// A draining directory is left: its collection is read, truncated, and appended to elsewhere; no new one comes.
async fn goes_on(sidecar: &mut Sidecar, collection: &str, payload: &[u8], url: &str) {
    let mut client = sidecar.grpc();
    assert_eq!(payloads(&mut client, collection).await, [payload]);
    let reply = append(&mut client, collection, &[b"more"]).await;
    assert_eq!(reply.first_lsn, 2);
    assert_ne!(reply.directory, url, "it moves with its next entry");
    for n in 0..4 {
        assert_ne!(append(&mut client, &format!("new{n}"), &[b"x"]).await.directory, url);
    }
    assert_eq!(truncate(&mut client, collection, 1).await, 1);
    sidecar.kill_and_restart().await;
    let mut client = sidecar.grpc();
    assert_eq!(payloads(&mut client, collection).await, [b"more"]);
    assert_eq!(payloads(&mut client, "new3").await, [b"x"]);
}

#[tokio::test]
async fn an_option_drains_a_directory_without_a_restart_of_its_collections() {
    let mut sidecar = two_in_turn().await;
    let drained = home(&sidecar, "c2").await;
    sidecar.stop().await;
    let url = sidecar.setup.url(&format!("d{drained}"));
    sidecar.setup.table(&format!("[storage.wal_config.url_options.{url:?}]\ndrain = true"));
    sidecar.start();
    sidecar.wait_ready().await;
    goes_on(&mut sidecar, "c2", b"two", &url).await;
}

#[tokio::test]
async fn with_a_journal_url_every_commit_goes_there() {
    let setup = Setup::new(2);
    let journal_url = setup.url("d3");
    let mut sidecar = Sidecar::ready(setup.set(&format!("journal_url = {journal_url:?}"))).await;
    for n in 0..6 {
        append(&mut sidecar.grpc(), &format!("c{n}"), &[format!("entry {n}").as_bytes()]).await;
    }
    sidecar.kill();
    let entries = |n| journal(&sidecar.setup.journal(n)).data().count();
    assert_eq!((entries(1), entries(2), entries(3)), (0, 0, 6));
    sidecar.start();
    sidecar.wait_ready().await;
    for n in 0..6 {
        assert_eq!(payloads(&mut sidecar.grpc(), &format!("c{n}")).await, [format!("entry {n}").into_bytes()]);
    }
}

#[tokio::test]
async fn a_full_disk_does_not_hurt_a_sidecar_that_never_used_it() {
    let mut sidecar = match small_disk(2, "64k", "64k") {
        Ok(sidecar) => sidecar,
        Err(why) => return skipped("a_full_disk_does_not_hurt_a_sidecar_that_never_used_it", &why),
    };
    sidecar.start();
    let status = sidecar.wait_ready().await;
    let full = directory(&status, &sidecar.setup.url("d1"));
    assert!(["full", "failed"].contains(&full.state.as_str()), "{full:?}");
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
}
