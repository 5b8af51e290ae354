//! `serve` and its neighbours on the command line: signals, a file that comes and goes, help.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use rustix::process::Signal;
use walstorage_tests::harness::calls::{append, payloads};
use walstorage_tests::harness::tool::run;
use walstorage_tests::harness::{Output, Setup, Sidecar, binaries};

fn sidecar(arguments: &[&str]) -> Output {
    run(binaries::sidecar(), arguments, b"")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Starts `serve` with a file of this text; it must end by itself.
fn serve(config: &str) -> Output {
    let setup = Setup::new(1);
    let file = setup.path("config.toml");
    std::fs::write(&file, config.replace("ROOT", text(setup.root()))).unwrap();
    sidecar(&["serve", "--socket", text(&setup.socket()), "--admin", "off", "--config", text(&file)])
}

#[test]
fn a_configuration_that_cannot_be_served_ends_with_exit_code_2() {
    let output = sidecar(&["serve", "--config", "/nonexistent/config.toml"]);
    assert_eq!(output.code, 2);
    assert!(output.stderr.contains("/nonexistent/config.toml"), "{}", output.stderr);
    assert_eq!(sidecar(&["serve"]).code, 2);
    assert_eq!(sidecar(&["serve", "--nonsense"]).code, 2);
    let table = [
        ("[storage.wal_config]\nwal_url = \"file://relative\"\n", "wal_url"),
        ("[storage.wal_config]\nwal_url = \"ftp://b/p\"\n", "ftp://b/p"),
        ("nonsense", "line 1"),
    ];
    for (config, message) in table {
        let output = serve(config);
        assert_eq!(output.code, 2, "{config}: {}", output.stderr);
        assert!(output.stderr.contains(message), "{config}: {}", output.stderr);
    }
}

#[test]
fn a_bucket_is_accepted_by_config_check_and_the_effective_configuration_is_printed() {
    let setup = Setup::new(1);
    let file = setup.path("config.toml");
    std::fs::write(&file, "[storage.wal_config]\nwal_url = \"s3://b/p\"\nsync_mode = 1\n").unwrap();
    let output = sidecar(&["config", "check", text(&file)]);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(output.stdout.contains("wal_urls = [\"s3://b/p\"]"), "{}", output.stdout);
    assert!(output.stderr.contains("warning: ") && output.stderr.contains("sync_mode"), "{}", output.stderr);
    let strict = sidecar(&["config", "check", "--strict", text(&file)]);
    assert_eq!(strict.code, 2);
    assert!(strict.stdout.is_empty() && strict.stderr.contains("error: "), "{}", strict.stderr);
}

#[tokio::test]
async fn both_signals_stop_cleanly_and_a_second_one_loses_nothing() {
    for signals in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let mut sidecar = Sidecar::ready(Setup::new(1)).await;
        append(&mut sidecar.grpc(), "c", &[b"x"]).await;
        signals.into_iter().for_each(|signal| sidecar.signal(signal));
        assert_eq!(sidecar.exit().await.code(), Some(0));
        sidecar.start();
        sidecar.wait_ready().await;
        assert_eq!(payloads(&mut sidecar.grpc(), "c").await, [b"x"]);
    }
}

#[tokio::test]
async fn probes_ask_the_socket() {
    let mut sidecar_process = Sidecar::ready(Setup::new(1)).await;
    let socket = sidecar_process.setup.socket();
    for what in ["started", "ready", "live"] {
        let output = sidecar(&["check", what, "--socket", text(&socket)]);
        assert_eq!((output.code, output.stdout.trim_end()), (0, what), "{}", output.stderr);
    }
    assert_eq!(sidecar(&["prestop", "--socket", text(&socket)]).code, 0);
    append(&mut sidecar_process.grpc(), "c", &[b"after prestop"]).await;
    sidecar_process.stop().await;
    for what in ["started", "ready", "live"] {
        let output = sidecar(&["check", what, "--socket", text(&socket)]);
        assert_eq!(output.code, 1);
        assert!(output.stderr.contains(text(&socket)), "{}", output.stderr);
    }
    assert_eq!(sidecar(&["prestop", "--socket", text(&socket)]).code, 1);
    assert_eq!(sidecar(&["check", "well"]).code, 2);
}

#[test]
fn the_schema_is_the_one_on_storage_and_help_teaches() {
    let schema: serde_json::Value = serde_json::from_str(&sidecar(&["schema"]).ok()).unwrap();
    assert_eq!(schema["name"], "WalEntry");
    assert!(sidecar(&["version"]).ok().starts_with("walstorage-sidecar "));
    let help = sidecar(&["--help"]).ok();
    for word in ["serve", "config", "check", "prestop", "schema", "--config", "Exit codes", "WALSTORAGE_LOG"] {
        assert!(help.contains(word), "{word}: {help}");
    }
}

#[tokio::test]
async fn a_changed_file_applies_setting_by_setting_and_a_wrong_one_not_at_all() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let before = sidecar.status().await.config.unwrap();
    assert!(before.error.is_empty() && before.pending_restart.is_empty());
    let _ = sidecar.setup.write();
    sidecar.setup.add("global_flush_threshold = 67108864");
    sidecar.setup.add("io = \"buffered\"");
    let _ = sidecar.setup.write();
    let config = sidecar
        .wait_status("the new file is in force", |status| status.config.as_ref().is_some_and(|c| c.hash != before.hash))
        .await;
    let applied = config.config.unwrap();
    assert_eq!(applied.pending_restart, ["storage.wal_config.io"]);
    sidecar
        .wait_status("the bound is lowered", |status| {
            status.memory.is_some_and(|memory| memory.limit_bytes <= 67_108_864)
        })
        .await;
    sidecar.setup.add("global_flush_threshold = 0");
    let _ = sidecar.setup.write();
    let refused = sidecar
        .wait_status("the wrong file is refused", |status| status.config.as_ref().is_some_and(|c| !c.error.is_empty()))
        .await
        .config
        .unwrap();
    assert!(refused.error.contains("global_flush_threshold"), "{}", refused.error);
    assert_eq!(refused.hash, applied.hash, "the last good one stays");
    std::fs::remove_file(sidecar.setup.path("config.toml")).unwrap();
    let gone = sidecar
        .wait_status("the file is gone", |status| {
            status.config.as_ref().is_some_and(|c| c.error.contains("cannot read"))
        })
        .await;
    assert_eq!(gone.phase, "ready");
    sidecar.setup.add("global_flush_threshold = 67108864");
    sidecar.restart().await;
    let config = sidecar.status().await.config.unwrap();
    assert!(config.error.is_empty() && config.pending_restart.is_empty());
}
