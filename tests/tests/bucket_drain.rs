//! `walctl drain`: a log on disks moves to a bucket while it serves, and then nobody misses the disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use walstorage_sidecar::proto::{FlushRequest, Status};
use walstorage_tests::emulators::gate::Gate;
use walstorage_tests::emulators::{Cloud, Emulated};
use walstorage_tests::harness::calls::{append, directory, payloads, truncate};
use walstorage_tests::harness::{Setup, Sidecar, binaries, run, tool};

walstorage_tests::on_every_cloud! {
    a_serving_log_leaves_its_disks
}

/// What each collection is to hold.
type Sent = BTreeMap<String, Vec<Vec<u8>>>;

/// Two disks and a bucket that is reached at `address`.
fn mixed(emulated: &Emulated, address: &str) -> Setup {
    let bucket = emulated.url("wal").to_string();
    let mut setup = emulated
        .only_url("wal", address)
        .set("bucket_commit_interval_ms = 20")
        .set("memory_flush_size_bytes = 4096")
        .set("segment_size_bytes = 65536")
        .set("distribution_strategy = \"RoundRobin\"");
    let (one, other) = (setup.url("d1"), setup.url("d2"));
    setup.urls(&[one, other, bucket]);
    setup
}

/// Entries in segments and in journals of all directories, some of them truncated.
async fn fill(sidecar: &Sidecar) -> Sent {
    let mut client = sidecar.grpc();
    let mut sent = Sent::new();
    for n in 0..6 {
        let name = format!("c{n}");
        let entries: Vec<Vec<u8>> =
            (0..40).map(|i| format!("{name} {i} {}", "x".repeat(i * 13)).into_bytes()).collect();
        for part in entries.chunks(5) {
            append(&mut client, &name, &part.iter().map(Vec::as_slice).collect::<Vec<_>>()).await;
            if part[0] == entries[20] {
                client.flush(FlushRequest { collection: name.clone() }).await.unwrap();
            }
        }
        truncate(&mut client, &name, n).await;
        sent.insert(name, entries[n as usize..].to_vec());
    }
    sent
}

async fn has(sidecar: &Sidecar, sent: &Sent, what: &str) {
    for (name, entries) in sent {
        assert!(payloads(&mut sidecar.grpc(), name).await == *entries, "{what}: {name}");
    }
}

/// The disks of a process that has ended are taken away and leave the configuration: a start has only the bucket.
async fn without_disks(sidecar: &mut Sidecar, emulated: &Emulated) {
    for disk in ["d1", "d2"] {
        std::fs::remove_dir_all(sidecar.setup.path(disk)).unwrap();
    }
    sidecar.setup.urls(&[emulated.url("wal").to_string()]);
    sidecar.start();
    sidecar.wait_ready().await;
}

async fn a_serving_log_leaves_its_disks(emulated: &Emulated) {
    let mut sidecar = Sidecar::ready(mixed(emulated, &emulated.address)).await;
    let mut sent = fill(&sidecar).await;
    let before = sidecar.status().await;
    assert!(before.directories.iter().all(|directory| directory.in_use && directory.segments > 0), "{before:#?}");

    let socket = sidecar.setup.socket();
    let draining = tokio::task::spawn_blocking(move || tool::walctl(&socket, ["drain"], b"").ok());
    // Clients go on meanwhile.
    let mut client = sidecar.grpc();
    for n in 0..30 {
        let (name, payload) = (format!("c{}", n % 7), format!("meanwhile {n}").into_bytes());
        append(&mut client, &name, &[&payload]).await;
        sent.entry(name).or_default().push(payload);
    }
    let said = draining.await.unwrap();
    let [one, other] = ["d1", "d2"].map(|disk| sidecar.setup.url(disk));
    for disk in [&one, &other] {
        assert!(said.contains(&format!("{disk}: nothing in it is needed any more")), "{said}");
    }
    assert!(said.ends_with("everything is in buckets\n"), "{said}");

    let status = sidecar.status().await;
    assert_eq!(status.phase, "draining");
    for disk in [&one, &other] {
        let shown = directory(&status, disk);
        assert!(
            !shown.in_use && shown.draining && shown.segments == 0 && shown.evacuation_bytes_left == 0,
            "{shown:#?}"
        );
    }
    let placed = append(&mut client, "new", &[b"x"]).await;
    assert_eq!(placed.directory, emulated.url("wal").to_string());
    sent.insert("new".into(), vec![b"x".to_vec()]);
    has(&sidecar, &sent, "drained").await;
    let again = tool::walctl(&sidecar.setup.socket(), ["drain", "-o", "json"], b"").ok();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again).unwrap(), serde_json::json!({"bytesLeft": "0"}));

    sidecar.kill();
    without_disks(&mut sidecar, emulated).await;
    has(&sidecar, &sent, "without the disks").await;
    sidecar.restart().await;
    has(&sidecar, &sent, "at the start after that").await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_killed_under_a_drain_is_waited_for_and_the_rest_is_moved() {
    let Some(emulated) = Emulated::new("a_sidecar_that_is_killed_under_a_drain", Cloud::Google).await else { return };
    let gate = Gate::before(&emulated.address).await;
    let mut sidecar = Sidecar::ready(mixed(&emulated, &gate.address)).await;
    let sent = fill(&sidecar).await;
    // Nothing can be moved.
    gate.set_open(false);
    let late = tool::walctl(&sidecar.setup.socket(), ["drain", "--timeout", "0"], b"");
    assert_eq!(late.code, 1, "{late:?}");
    assert!(late.stderr.contains("are still to be moved") && late.stderr.contains("/d1: "), "{}", late.stderr);

    let waiting = Command::new(binaries::walctl())
        .args(["--socket", sidecar.setup.socket().to_str().unwrap(), "drain"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    sidecar.wait_status("it to be drained", |status: &Status| status.phase == "draining").await;
    sidecar.kill();
    gate.set_open(true);
    sidecar.start();
    let ended = tokio::task::spawn_blocking(|| waiting.wait_with_output().unwrap()).await.unwrap();
    let (said, complained) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && said.ends_with("everything is in buckets\n"), "{said} {complained}");
    has(&sidecar, &sent, "drained").await;
    sidecar.kill();
    without_disks(&mut sidecar, &emulated).await;
    has(&sidecar, &sent, "without the disks").await;
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_drained_without_a_sidecar() {
    let Some(emulated) = Emulated::new("a_log_is_drained_without_a_sidecar", Cloud::Google).await else { return };
    let mut setup = mixed(&emulated, &emulated.address);
    let journal = setup.url("journal");
    setup.add(&format!("journal_url = {journal:?}"));
    let environment = setup.environment.clone();
    let mut sidecar = Sidecar::ready(setup).await;
    let sent = fill(&sidecar).await;
    let config = sidecar.setup.write();
    let drain = || {
        let variables = environment.iter().map(|(name, value)| format!("{name}={value}"));
        let program = binaries::walctl().display().to_string();
        let arguments = ["drain".to_owned(), "--config".to_owned(), config.display().to_string()];
        run("/usr/bin/env", variables.chain([program]).chain(arguments), b"")
    };
    let locked = drain();
    assert_eq!(locked.code, 3, "the sidecar has the directories: {locked:?}");
    sidecar.kill();
    let said = drain().ok();
    assert!(said.contains(&format!("{journal}: nothing in it is needed any more")), "{said}");
    sidecar.start();
    sidecar.wait_ready().await;
    has(&sidecar, &sent, "drained").await;
    assert!(sidecar.status().await.directories.iter().all(|directory| directory.in_use), "disks are used again");
    sidecar.kill();
    drain().ok();
    std::fs::remove_dir_all(sidecar.setup.path("journal")).unwrap();
    sidecar.setup.unset("journal_url");
    without_disks(&mut sidecar, &emulated).await;
    has(&sidecar, &sent, "without the disks").await;
    sidecar.stop().await;
}
