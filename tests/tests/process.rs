//! The sidecar as a process: probes, admin port, socket, reload, signals, exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use serde_json::Value;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use walstorage_tests::harness::binaries;
use walstorage_tests::harness::calls::{append, describe};
use walstorage_tests::harness::http::Connection;
use walstorage_tests::harness::{Setup, Sidecar, free_port, grpc, run};

async fn admin(port: u16, path: &str) -> (u16, String) {
    let reply = Connection::open_port(port).await.expect("the admin port").get(path).await.expect("a reply");
    (reply.status.as_u16(), String::from_utf8_lossy(&reply.body).into_owned())
}

#[tokio::test]
async fn the_admin_port_tells_health_metrics_and_status_and_takes_no_entries() {
    let port = free_port();
    let mut setup = Setup::new(2).admin(&format!("127.0.0.1:{port}"));
    setup.add(r#"distribution_strategy = "RoundRobin""#);
    let sidecar = Sidecar::ready(setup).await;
    for n in 0..10 {
        append(&mut sidecar.grpc(), &format!("collection-{n}"), &[b"x"]).await;
    }
    assert_eq!(admin(port, "/livez").await.0, 200);
    assert_eq!(admin(port, "/readyz").await.0, 200);
    assert_eq!(admin(port, "/v1/collections").await.0, 404);
    let (code, status) = admin(port, "/status").await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((code, status["phase"].as_str()), (200, Some("ready")));
    assert_eq!(status["unappliedEntries"], "10");
    let (code, metrics) = admin(port, "/metrics").await;
    assert_eq!(code, 200);
    for name in [
        "appends_total{",
        "ack_seconds",
        "sync_seconds",
        "group_entries",
        "queue_bytes",
        "queue_oldest_seconds",
        "directory_state{",
        "directory_free_bytes{",
        "directory_used_bytes{",
        "directory_pending_bytes{",
        "replay_remaining_bytes",
        "damaged_entries_total",
        "gap_entries_total",
        "journal_used_ratio{",
        "memory_used_bytes",
        "memory_limit_bytes",
        "unapplied_entries",
        "fenced",
    ] {
        assert!(metrics.contains(&format!("walstorage_{name}")), "{name}\n{metrics}");
    }
    assert!(!metrics.contains("collection-"), "no label per collection\n{metrics}");
    let healthy = metrics.lines().filter(|line| line.contains("directory_state{") && line.contains("healthy"));
    assert_eq!(healthy.filter(|line| line.ends_with(" 1")).count(), 2, "{metrics}");
    // How long a start took can be read in the log: first the entries are there, then others are taken.
    let log = sidecar.log();
    let said = |what: &str| log.find(what).unwrap_or_else(|| panic!("{what}\n{log}"));
    assert!(said("recovered") < said("serving"), "{log}");
}

#[tokio::test]
async fn probes_say_why_it_is_not_ready_and_live_does_not_depend_on_disks() {
    let mut first = Sidecar::ready(Setup::new(1)).await;
    let port = free_port();
    let mut setup = Setup::new(0).admin(&format!("127.0.0.1:{port}"));
    setup.urls(&[first.setup.url("d1")]);
    let mut second = Sidecar::new(setup);
    second.start();
    second.wait_status("waiting for the lock", |status| status.phase == "waiting").await;
    assert_eq!(admin(port, "/livez").await.0, 200);
    let (code, why) = admin(port, "/readyz").await;
    assert_eq!(code, 503);
    assert!(why.contains("LOCKED"), "{why}");
    let socket = second.setup.socket();
    let check = |what: &str| run(binaries::sidecar(), ["check", what, "--socket", socket.to_str().expect("text")], b"");
    assert_eq!(check("live").code, 0);
    assert_ne!(check("started").code, 0);
    assert_ne!(check("ready").code, 0);
    first.kill();
    second.wait_ready().await;
    for what in ["live", "started", "ready"] {
        assert_eq!(check(what).code, 0, "{what}");
    }
}

#[tokio::test]
async fn grpc_health_and_reflection_are_on() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut health = HealthClient::new(grpc::channel(&sidecar.setup.socket()));
    let reply = health.check(HealthCheckRequest { service: String::new() }).await.expect("an answer").into_inner();
    assert_eq!(reply.status, 1, "SERVING");
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let mut reflection = ServerReflectionClient::new(grpc::channel(&sidecar.setup.socket()));
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut replies =
        reflection.server_reflection_info(tokio_stream::iter([request])).await.expect("a stream").into_inner();
    let reply = replies.message().await.expect("a reply").and_then(|reply| reply.message_response);
    let Some(MessageResponse::ListServicesResponse(services)) = reply else { panic!("{reply:?}") };
    assert!(services.service.iter().any(|service| service.name == "walstorage.v1.Wal"), "{services:?}");
}

#[tokio::test]
async fn a_stale_socket_file_is_replaced_and_a_live_one_is_an_error() {
    let setup = Setup::new(1);
    drop(UnixListener::bind(setup.socket()).expect("a socket"));
    assert!(setup.socket().exists(), "a file without a listener");
    let first = Sidecar::ready(setup).await;
    let other = Setup::new(1);
    let mut second = Sidecar::new(other);
    let config = second.setup.write();
    let text = std::fs::read_to_string(&config).expect("the file");
    let live = first.setup.socket().display().to_string();
    let text = text.replace(&second.setup.socket().display().to_string(), &live);
    std::fs::write(&config, text).expect("written");
    let output = run(binaries::sidecar(), ["serve", "--config", config.to_str().expect("text")], b"");
    assert_eq!(output.code, 1, "{output:?}");
    assert!(format!("{}{}", output.stdout, output.stderr).contains(&live), "{output:?}");
    append(&mut first.grpc(), "c", &[b"x"]).await;
    second.start();
    second.wait_ready().await;
}

#[tokio::test]
async fn a_reload_applies_what_may_change_reports_what_waits_and_refuses_a_wrong_file_whole() {
    let mut sidecar = Sidecar::ready(Setup::new(1).set(r#"global_flush_threshold = "64Mi""#)).await;
    let limit = |status: &walstorage_sidecar::proto::Status| status.memory.map(|memory| memory.limit_bytes);
    assert_eq!(limit(&sidecar.status().await), Some(64 << 20));
    sidecar.setup.add(r#"global_flush_threshold = "32Mi""#);
    sidecar.setup.urls(&[sidecar.setup.url("d1"), sidecar.setup.url("d2")]);
    let config = sidecar.setup.write();
    let applied = sidecar
        .wait_status("the new bound", |status| status.memory.is_some_and(|memory| memory.limit_bytes == 32 << 20))
        .await;
    let state = applied.config.expect("its state");
    assert!(state.error.is_empty() && state.pending_restart.iter().any(|what| what.contains("wal_urls")), "{state:?}");
    std::fs::write(&config, sidecar.setup.text().replace("32Mi", "none")).expect("written");
    let refused = sidecar
        .wait_status("the refusal", |status| status.config.as_ref().is_some_and(|config| !config.error.is_empty()))
        .await;
    assert!(
        refused.config.as_ref().is_some_and(|config| config.error.contains("global_flush_threshold")),
        "{refused:?}"
    );
    assert_eq!(limit(&refused), Some(32 << 20), "the last good one stays");
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
    sidecar.kill_and_restart().await;
    assert_eq!(sidecar.status().await.directories.len(), 2, "what was pending is in effect");
}

#[tokio::test]
async fn wrong_configurations_end_with_exit_2_and_every_error() {
    let setup = Setup::new(1).set("global_flush_threshold = 0").set(r#"distribution_strategy = "Best""#);
    let config = setup.write();
    let config = config.to_str().expect("text");
    for arguments in [&["serve", "--config", config][..], &["config", "check", config]] {
        let output = run(binaries::sidecar(), arguments, b"");
        assert_eq!(output.code, 2, "{output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains("global_flush_threshold") && said.contains("Best"), "{said}");
    }
    let missing = setup.path("none.toml");
    let output = run(binaries::sidecar(), ["serve", "--config", missing.to_str().expect("text")], b"");
    assert_eq!(output.code, 2);
    assert!(format!("{}{}", output.stdout, output.stderr).contains("none.toml"), "{output:?}");
}

#[tokio::test]
async fn a_writer_id_is_the_path_below_every_url() {
    let mut sidecar = Sidecar::ready(Setup::new(1).set(r#"writer_id = "shop/orders.orders-0""#)).await;
    append(&mut sidecar.grpc(), "c", &[b"x"]).await;
    assert!(sidecar.setup.path("d1/shop/orders.orders-0/_wal/identity.json").exists());
    assert_eq!(sidecar.status().await.writer.expect("a writer").id, "shop/orders.orders-0");
    sidecar.kill_and_restart().await;
    assert_eq!(describe(&mut sidecar.grpc(), "c").await.durable_head, 1);
}

#[tokio::test]
async fn identity_and_writer_stay_and_the_epoch_rises_with_every_start() {
    let mut sidecar = Sidecar::ready(Setup::new(2)).await;
    let before = sidecar.status().await;
    let mut epoch = before.writer.as_ref().expect("a writer").epoch;
    for round in 0..4 {
        if round % 2 == 0 {
            sidecar.kill_and_restart().await
        } else {
            sidecar.restart().await
        }
        let after = sidecar.status().await;
        let writer = after.writer.expect("a writer");
        assert!(writer.epoch > epoch, "{} after {epoch}", writer.epoch);
        epoch = writer.epoch;
        assert_eq!(Some(writer.uid), before.writer.as_ref().map(|writer| writer.uid.clone()));
        let uuids = |status: &[walstorage_sidecar::proto::Directory]| {
            status.iter().map(|directory| directory.uuid.clone()).collect::<Vec<_>>()
        };
        assert_eq!(uuids(&after.directories), uuids(&before.directories));
    }
}

#[tokio::test]
async fn sigterm_and_sigint_end_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut sidecar = Sidecar::ready(Setup::new(1)).await;
        append(&mut sidecar.grpc(), "c", &[b"x"]).await;
        sidecar.signal(signal);
        assert_eq!(sidecar.exit().await.code(), Some(0), "{signal:?}");
        assert!(!sidecar.setup.socket().exists(), "the socket file is removed");
    }
}
