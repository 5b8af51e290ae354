//! The operator's grant, as a pod's environment carries it: which directories a start opens, which it may begin anew,
//! which it gives up, whom it is refused to, and what the process says of it when it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use serde_json::{Value, json};
use walstorage_sidecar::proto::{Reason, Status};
use walstorage_tests::harness::calls::{
    Line, append, describe, directory, lines, payloads, refused, request, truncate,
};
use walstorage_tests::harness::tool::run;
use walstorage_tests::harness::{Setup, Sidecar, binaries};

const UID: &str = "6f2c6d0e-5c55-4f5e-9d5a-0f6f6e3f8a11";

/// A grant: of `d1`, `d2`, … those that are named, to be begun anew or given up.
#[derive(Clone, Copy)]
struct Grant<'a> {
    pod: &'a str,
    epoch: u64,
    urls: &'a [&'a str],
    init: &'a [&'a str],
    forget: &'a [&'a str],
}

const FIRST: Grant<'_> = Grant { pod: "pod-1", epoch: 7, urls: &["d1"], init: &["d1"], forget: &[] };

/// What the operator and the kubelet set for a pod's container.
fn give(setup: &mut Setup, grant: Grant<'_>) {
    let urls: Vec<Value> =
        grant.urls.iter().map(|name| json!({"name": name, "url": setup.url(name), "claim": "x"})).collect();
    let document = json!({"v": 1, "writerUid": UID, "epoch": grant.epoch, "urls": urls, "init": grant.init,
        "forget": grant.forget, "later": {"unknown": true}});
    let message = setup.path("message").display().to_string();
    setup.environment = [
        ("WALSTORAGE_REQUIRE_GRANT", "true"),
        ("WALSTORAGE_POD_UID", grant.pod),
        ("WALSTORAGE_GRANT", &document.to_string()),
        ("WALSTORAGE_WRITER_ID", "shop/orders.orders-0"),
        ("WALSTORAGE_TERMINATION_LOG", &message),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
}

/// A new sidecar that serves under a grant.
async fn granted(directories: usize, grant: Grant<'_>) -> Sidecar {
    let mut setup = Setup::new(directories).set(r#"distribution_strategy = "RoundRobin""#);
    give(&mut setup, grant);
    Sidecar::ready(setup).await
}

/// Stops it and starts it again under a grant.
async fn again(sidecar: &mut Sidecar, grant: Grant<'_>) {
    sidecar.stop().await;
    give(&mut sidecar.setup, grant);
    sidecar.start();
}

/// What the process left for the operator; `None`: nothing.
fn message(sidecar: &Sidecar) -> Option<Value> {
    let text = fs::read_to_string(sidecar.setup.path("message")).expect("the file is there");
    assert!(text.len() <= 2048, "{text}");
    (!text.is_empty()).then(|| serde_json::from_str(&text).expect("JSON"))
}

async fn waits_for(sidecar: &mut Sidecar, name: &str, state: &str) -> Status {
    let url = sidecar.setup.url(name);
    let waiting = |status: &Status| {
        status.phase == "waiting" && status.waiting_for.iter().any(|what| what.contains(&format!("{url} ")))
    };
    let status = sidecar.wait_status("waiting", waiting).await;
    assert_eq!(directory(&status, &url).state, state, "{status:#?}");
    let refusal = refused(&mut sidecar.grpc(), request("c", &[b"x"])).await;
    assert_eq!(refusal.reason, "NOT_READY");
    let socket = sidecar.setup.socket().display().to_string();
    let started = run(binaries::sidecar(), ["check", "started", "--socket", &socket], b"");
    assert_eq!(started.code, 1, "{}", started.stdout);
    status
}

#[tokio::test]
async fn a_new_writer_begins_what_init_names_and_has_the_uid_of_its_grant() {
    let sidecar = granted(1, FIRST).await;
    let writer = sidecar.status().await.writer.unwrap();
    assert_eq!((writer.uid.as_str(), writer.grant, writer.holder.as_str()), (UID, 7, "pod-1"));
    assert!(writer.epoch >= 7);
    let identity = sidecar.setup.path("d1/shop/orders.orders-0/_wal/identity.json");
    let identity: Value = serde_json::from_slice(&fs::read(identity).expect("an identity")).expect("JSON");
    assert_eq!((&identity["writer"], &identity["writer_id"]), (&json!(UID), &json!("shop/orders.orders-0")));
}

#[tokio::test]
async fn a_container_restarted_on_an_emptied_disk_never_starts_at_lsn_1() {
    let mut sidecar = granted(1, FIRST).await;
    append(&mut sidecar.grpc(), "c", &[b"one", b"two"]).await;
    let (disk, away) = (sidecar.setup.path("d1"), sidecar.setup.path("away"));
    // The folder of the volume stays or goes, or what is in it, or its journal alone.
    type Empty = fn(&std::path::Path);
    let ways: [(&str, Empty, &str); 4] = [
        ("the volume is empty", |disk| fs::create_dir(disk).expect("an empty volume"), "lost"),
        ("the volume is gone", |_| {}, "missing"),
        (
            "the folders are there and empty",
            |disk| fs::create_dir_all(disk.join("shop/orders.orders-0/_wal/journal")).expect("folders"),
            "lost",
        ),
        (
            "its identity is there, and no journal",
            |disk| {
                let old = disk.with_file_name("away").join("shop/orders.orders-0/_wal/identity.json");
                let new = disk.join("shop/orders.orders-0/_wal");
                fs::create_dir_all(new.join("journal")).expect("folders");
                fs::copy(old, new.join("identity.json")).expect("a copy");
            },
            "lost",
        ),
    ];
    sidecar.stop().await;
    for (what, empty, state) in ways {
        fs::rename(&disk, &away).expect("moved away");
        empty(&disk);
        give(&mut sidecar.setup, Grant { init: &[], ..FIRST });
        sidecar.start();
        let status = waits_for(&mut sidecar, "d1", state).await;
        assert_eq!(status.collections, 0, "{what}");
        sidecar.stop().await;
        let message = message(&sidecar).expect("a message");
        assert_eq!(message["exit"], "refused", "a stop without having looked is no proof of emptiness: {message}");
        assert!(message.get("unappliedEntries").is_none(), "{what}: {message}");
        let _ = fs::remove_dir_all(&disk);
        fs::rename(&away, &disk).expect("back");
    }
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(append(&mut sidecar.grpc(), "c", &[b"three"]).await.first_lsn, 3);
}

#[tokio::test]
async fn a_new_directory_beside_an_emptied_one_begins_nothing() {
    let mut sidecar = granted(1, FIRST).await;
    append(&mut sidecar.grpc(), "c", &[b"one"]).await;
    sidecar.stop().await;
    fs::remove_dir_all(sidecar.setup.path("d1")).expect("emptied");
    fs::create_dir(sidecar.setup.path("d1")).expect("an empty volume");
    let urls = [sidecar.setup.url("d1"), sidecar.setup.url("d2")];
    sidecar.setup.urls(&urls);
    give(&mut sidecar.setup, Grant { epoch: 8, urls: &["d1", "d2"], init: &["d2"], ..FIRST });
    sidecar.start();
    waits_for(&mut sidecar, "d1", "lost").await;
    assert!(!sidecar.setup.path("d2").exists(), "nothing is begun");
}

#[tokio::test]
async fn only_a_newer_grant_or_the_same_grant_of_the_same_pod_starts() {
    let mut sidecar = granted(1, FIRST).await;
    append(&mut sidecar.grpc(), "c", &[b"one"]).await;
    let known = Grant { init: &[], ..FIRST };
    again(&mut sidecar, known).await;
    let epoch = sidecar.wait_ready().await.writer.unwrap().epoch;
    again(&mut sidecar, Grant { epoch: 100, pod: "pod-2", ..known }).await;
    let writer = sidecar.wait_ready().await.writer.unwrap();
    assert!(writer.epoch > epoch && writer.epoch >= 100, "{writer:?}");
    let refused = [
        ("an old grant is retried", Grant { epoch: 7, ..known }),
        ("the same grant, another pod", Grant { epoch: 100, pod: "pod-1", ..known }),
        ("older by one", Grant { epoch: 99, pod: "pod-2", ..known }),
    ];
    for (what, grant) in refused {
        again(&mut sidecar, grant).await;
        assert_eq!(sidecar.exit().await.code(), Some(3), "{what}: {}", sidecar.log());
        let message = message(&sidecar).expect("a message");
        assert_eq!((&message["exit"], &message["granted"]), (&json!("fenced"), &json!(grant.epoch)), "{what}");
        assert!(message.get("unappliedEntries").is_none(), "{what}: {message}");
        give(&mut sidecar.setup, Grant { epoch: 100, pod: "pod-2", ..known });
        sidecar.start();
        sidecar.wait_ready().await;
    }
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await, [b"one"]);
}

#[tokio::test]
async fn a_directory_of_another_writer_uid_is_refused_whatever_the_grant_lets_begin() {
    let mut sidecar = granted(1, FIRST).await;
    sidecar.stop().await;
    give(&mut sidecar.setup, Grant { epoch: 8, ..FIRST });
    for (name, value) in &mut sidecar.setup.environment {
        if name == "WALSTORAGE_GRANT" {
            *value = value.replace(UID, "00000000-0000-4000-8000-000000000000");
        }
    }
    sidecar.start();
    assert_eq!(sidecar.exit().await.code(), Some(1));
    assert!(sidecar.log().contains(UID), "{}", sidecar.log());
    assert_eq!(message(&sidecar).expect("a message")["exit"], "refused");
}

#[tokio::test]
async fn a_url_that_only_the_configuration_names_waits_for_the_next_pod() {
    let mut sidecar = granted(1, FIRST).await;
    append(&mut sidecar.grpc(), "c", &[b"one"]).await;
    let urls = [sidecar.setup.url("d1"), sidecar.setup.url("d2")];
    sidecar.setup.urls(&urls);
    let journal = sidecar.setup.url("d3");
    sidecar.setup.add(&format!("journal_url = {journal:?}"));
    again(&mut sidecar, Grant { init: &[], ..FIRST }).await;
    let status = sidecar.wait_ready().await;
    for url in [&urls[1], &journal] {
        let added = directory(&status, url);
        assert_eq!((added.state.as_str(), added.in_use), ("not_mounted", false), "{added:?}");
        assert!(added.reason.contains("grant") && added.remedy.contains("restart"), "{added:?}");
    }
    let socket = sidecar.setup.socket().display().to_string();
    for what in ["started", "ready", "live"] {
        assert_eq!(run(binaries::sidecar(), ["check", what, "--socket", &socket], b"").code, 0, "{what}");
    }
    for n in 0..3 {
        assert_eq!(append(&mut sidecar.grpc(), &format!("c{n}"), &[b"x"]).await.directory, urls[0]);
    }
    assert!(!sidecar.setup.path("d2").exists() && !sidecar.setup.path("d3").exists(), "nothing is written there");
    // The next pod has it.
    again(&mut sidecar, Grant { epoch: 8, pod: "pod-2", urls: &["d1", "d2", "d3"], init: &["d2", "d3"], ..FIRST })
        .await;
    let status = sidecar.wait_ready().await;
    for url in [&urls[1], &journal] {
        assert_eq!(directory(&status, url).state, "healthy");
    }
    assert_eq!(append(&mut sidecar.grpc(), "c", &[b"two"]).await.first_lsn, 2);
}

#[tokio::test]
async fn a_directory_in_use_that_the_grant_leaves_out_is_waited_for() {
    let both = Grant { urls: &["d1", "d2"], init: &["d1", "d2"], ..FIRST };
    let mut sidecar = granted(2, both).await;
    again(&mut sidecar, Grant { epoch: 8, urls: &["d1"], init: &[], ..FIRST }).await;
    waits_for(&mut sidecar, "d2", "not_mounted").await;
}

#[tokio::test]
async fn a_url_that_only_the_grant_names_is_emptied_and_then_said_to_be_empty() {
    let both = Grant { urls: &["d1", "d2"], init: &["d1", "d2"], ..FIRST };
    let mut sidecar = granted(2, both).await;
    let mut client = sidecar.grpc();
    append(&mut client, "a", &[b"one"]).await;
    append(&mut client, "b", &[b"two"]).await;
    sidecar.stop().await;
    let message_before = message(&sidecar).expect("a message");
    let counts = (&message_before["unappliedEntries"], &message_before["empty"]);
    assert_eq!(counts, (&json!(2), &json!([])), "{message_before}");
    // `d3` was removed before any pod had begun it.
    let stays = sidecar.setup.url("d1");
    sidecar.setup.urls(&[stays]);
    give(&mut sidecar.setup, Grant { epoch: 8, urls: &["d1", "d2", "d3"], init: &["d3"], ..FIRST });
    sidecar.start();
    sidecar.wait_ready().await;
    let url = sidecar.setup.url("d2");
    let emptied = |status: &Status| {
        let shown = directory(status, &url);
        shown.draining && !shown.in_use && shown.remedy.contains("may be removed")
    };
    sidecar.wait_status("it may be removed", emptied).await;
    assert!(!sidecar.setup.path("d3").exists(), "nothing is begun in what is to be removed");
    assert_eq!(truncate(&mut sidecar.grpc(), "a", 1).await, 1);
    sidecar.stop().await;
    let message = message(&sidecar).expect("a message");
    let expected = json!({"v": 1, "writerUid": UID, "granted": 8, "exit": "clean", "unappliedEntries": 1,
        "unappliedBytes": message["unappliedBytes"], "empty": ["d2", "d3"]});
    assert_eq!(message, expected);
    assert!(message["unappliedBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{message}");
    // Without it everything is there.
    fs::remove_dir_all(sidecar.setup.path("d2")).expect("removed");
    give(&mut sidecar.setup, Grant { epoch: 9, init: &[], ..FIRST });
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "b").await, [b"two"]);
}

#[tokio::test]
async fn what_the_grant_gives_up_becomes_gaps_once() {
    let both = Grant { urls: &["d1", "d2"], init: &["d1", "d2"], ..FIRST };
    let mut sidecar = granted(2, both).await;
    let mut client = sidecar.grpc();
    append(&mut client, "a", &[b"one"]).await;
    append(&mut client, "b", &[b"two"]).await;
    let url = describe(&mut client, "b").await.directory;
    let (lost, kept) = if url == sidecar.setup.url("d1") { ("d1", "d2") } else { ("d2", "d1") };
    sidecar.stop().await;
    let disk = sidecar.setup.path(lost);
    fs::remove_dir_all(&disk).expect("lost");
    fs::create_dir(&disk).expect("a new volume");
    let known = Grant { epoch: 8, init: &[], ..both };
    give(&mut sidecar.setup, known);
    sidecar.start();
    waits_for(&mut sidecar, lost, "lost").await;
    // To give up alone does not let the directory be begun anew.
    let accepted = Grant { epoch: 9, init: &[lost], forget: &[lost], ..both };
    again(&mut sidecar, Grant { init: &[], ..accepted }).await;
    let status = sidecar.wait_ready().await;
    let states: Vec<_> = status.directories.iter().filter(|shown| shown.url == url).map(|shown| &shown.state).collect();
    assert!(states.iter().all(|state| *state == "lost"), "{status:#?}");
    assert_eq!(fs::read_dir(&disk).expect("the volume").count(), 0);
    again(&mut sidecar, Grant { epoch: 10, ..accepted }).await;
    let status = sidecar.wait_ready().await;
    assert_eq!(directory(&status, &url).state, "healthy");
    let mut client = sidecar.grpc();
    assert_eq!(payloads(&mut client, "a").await, [b"one"]);
    let Some(Line::Gap(first, last, Reason::DirectoryForgotten)) = lines(&mut client, "b").await.first().cloned()
    else {
        panic!("no gap: {:?}", lines(&mut client, "b").await)
    };
    assert!(first == 1 && last >= 1 << 40);
    // A container restarted before the grant was written anew gives nothing up again.
    let mut acked = Vec::new();
    for n in 0..4_u8 {
        acked.push((format!("new{n}"), append(&mut client, &format!("new{n}"), &[&[n]]).await.directory));
    }
    assert!(
        acked.iter().any(|(_, home)| *home == url) && acked.iter().any(|(_, home)| home.ends_with(kept)),
        "{acked:?}"
    );
    sidecar.kill_and_restart().await;
    let mut client = sidecar.grpc();
    for (n, (name, _)) in acked.iter().enumerate() {
        assert_eq!(payloads(&mut client, name).await, [[n as u8]], "{name}");
    }
    assert_eq!(lines(&mut client, "b").await.len(), 1, "one gap, and nothing else");
}

#[tokio::test]
async fn an_end_that_was_not_chosen_leaves_no_message_and_a_clean_one_counts_what_is_left() {
    let mut sidecar = granted(1, FIRST).await;
    sidecar.stop().await;
    let empty = message(&sidecar).expect("a message");
    assert_eq!((&empty["exit"], &empty["unappliedEntries"], &empty["empty"]), (&json!("clean"), &json!(0), &json!([])));
    sidecar.start();
    sidecar.wait_ready().await;
    append(&mut sidecar.grpc(), "c", &[b"one", b"two", b"three"]).await;
    sidecar.kill();
    assert_eq!(message(&sidecar), None, "what an earlier process has said is gone");
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(truncate(&mut sidecar.grpc(), "c", 2).await, 2);
    sidecar.stop().await;
    assert_eq!(message(&sidecar).expect("a message")["unappliedEntries"], 1);
}

#[tokio::test]
async fn a_grant_that_cannot_be_used_ends_with_exit_code_4_and_says_so() {
    for grant in ["", "nonsense", "{\"v\":2}", "{\"v\":1}"] {
        let mut setup = Setup::new(1);
        give(&mut setup, FIRST);
        for (name, value) in &mut setup.environment {
            if name == "WALSTORAGE_GRANT" {
                *value = grant.into();
            }
        }
        let mut sidecar = Sidecar::new(setup);
        sidecar.start();
        assert_eq!(sidecar.exit().await.code(), Some(4), "{grant:?}");
        assert!(sidecar.log().contains("WALSTORAGE_GRANT"), "{}", sidecar.log());
        assert!(!sidecar.setup.path("d1").exists(), "nothing is written without a grant");
        let message = message(&sidecar).expect("a message");
        assert_eq!((&message["exit"], &message["granted"]), (&json!("refused"), &json!(0)));
        assert!(message["reason"].as_str().is_some_and(|reason| reason.contains("WALSTORAGE_GRANT")), "{message}");
    }
}
