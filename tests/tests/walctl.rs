//! `walctl` against a real sidecar: what it prints, what it answers programs, its exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use serde_json::{Value, json};
use walstorage_tests::harness::tool::{run, walctl};
use walstorage_tests::harness::{Output, Setup, Sidecar, binaries};

struct Tool(Sidecar);

impl Tool {
    async fn ready(directories: usize) -> Self {
        Self(Sidecar::ready(Setup::new(directories)).await)
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        walctl(&self.0.setup.socket(), arguments.iter().copied(), input)
    }

    fn ok(&self, arguments: &[&str], input: &[u8]) -> String {
        self.run(arguments, input).ok()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["--output", "json"]).collect();
        serde_json::from_str(&self.ok(&all, b"")).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_go_in_and_come_out() {
    let tool = Tool::ready(1).await;
    assert_eq!(tool.ok(&["append", "c"], b"one\ntwo\n\nfour"), "appended 4 entries, LSN 1..4\n");
    assert_eq!(tool.ok(&["append", "c", "--batch", "3"], b"a\nb\nc\nd\n"), "appended 4 entries, LSN 5..8\n");
    assert_eq!(tool.ok(&["append", "c", "--raw"], b"x\ny\n"), "appended 1 entry, LSN 9..9\n");
    assert_eq!(tool.ok(&["append", "c"], b""), "appended 0 entries\n");
    assert_eq!(tool.ok(&["read", "c", "--output", "raw"], b""), "one\ntwo\n\nfour\na\nb\nc\nd\nx\ny\n\n");
    assert_eq!(tool.ok(&["-o", "raw", "read", "c", "--from", "5", "--limit", "2"], b""), "a\nb\n");
    let table = tool.ok(&["read", "c", "--limit", "1"], b"");
    assert!(table.contains("LSN") && table.lines().nth(1).unwrap().ends_with("one"), "{table}");

    let file = tool.0.setup.path("input");
    std::fs::write(&file, "from a file").unwrap();
    let arguments =
        ["append", "d", "--file", file.to_str().unwrap(), "--key", "k", "--header", "a=b", "--header", "c=d=e"];
    let output = tool.run(&[&arguments[..], &["--output", "json"]].concat(), b"ignored").ok();
    assert_eq!(
        serde_json::from_str::<Value>(&output).unwrap(),
        json!({"entries": "1", "firstLsn": "1", "lastLsn": "1"})
    );
    let entry = &tool.json(&["read", "d"])["entry"];
    assert_eq!((&entry["payload"], &entry["key"]), (&json!("ZnJvbSBhIGZpbGU="), &json!("aw==")));
    assert_eq!(entry["headers"], json!([{"name": "a", "value": "Yg=="}, {"name": "c", "value": "ZD1l"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_lines_are_pipelined() {
    let tool = Tool::ready(2).await;
    let input: String = (0..20_000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    assert_eq!(tool.ok(&["append", "c"], input.as_bytes()), "appended 20000 entries, LSN 1..20000\n");
    assert_eq!(tool.ok(&["read", "c", "--output", "raw"], b""), input);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_last_acknowledged_line() {
    let tool = Tool::ready(1).await;
    let mut input = b"one\ntwo\n".to_vec();
    input.resize(input.len() + (16 << 20) + 1, b'x');
    input.extend(b"\nfour\n");
    let output = tool.run(&["append", "c"], &input);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("ENTRY_TOO_LARGE"), "{}", output.stderr);
    assert!(output.stderr.contains("last acknowledged line: 2 (LSN 2)"), "{}", output.stderr);
    assert_eq!(tool.ok(&["read", "c", "-o", "raw"], b""), "one\ntwo\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_listed_truncated_and_deleted() {
    let tool = Tool::ready(1).await;
    tool.ok(&["append", "a\u{1b}[31m"], b"x\n");
    tool.ok(&["append", "b"], b"1\n2\n3\n");
    let table = tool.ok(&["collections"], b"");
    assert!(table.contains("a\\u{1b}[31m"), "{table}");
    assert_eq!(tool.ok(&["truncate", "b", "2"], b""), "truncated to LSN 2\n");
    assert_eq!(tool.json(&["truncate", "b", "1"]), json!({"truncatedTo": "2"}));
    let collections = tool.json(&["collections"]);
    let b = &collections["collections"][1];
    assert_eq!((&b["name"], &b["firstLsn"], &b["durableHead"]), (&json!("b"), &json!("3"), &json!("3")));
    let refused = tool.run(&["delete", "b"], b"");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert!(tool.ok(&["delete", "b", "--yes"], b"").starts_with("deleted b "));
    let gone = tool.run(&["read", "b"], b"");
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("COLLECTION_NOT_FOUND"), "{}", gone.stderr);
    assert_eq!(tool.ok(&["flush", "a\u{1b}[31m"], b""), "flushed to LSN 1\n");
    assert_eq!(tool.json(&["flush", "a\u{1b}[31m"]), json!({"flushedTo": "1"}));
    let collections = tool.json(&["collections"]);
    assert_eq!(collections["collections"][0]["segments"], json!("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_directories_are_shown() {
    let tool = Tool::ready(2).await;
    let text = tool.ok(&["status"], b"");
    for word in ["phase", "ready", "writer", "memory", "healthy", &tool.0.setup.url("d1"), &tool.0.setup.url("d2")] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(tool.json(&["status"])["phase"], "ready");
    let directories = tool.json(&["directory", "list"]);
    assert_eq!(directories["directories"].as_array().unwrap().len(), 2);
    let uuid = directories["directories"][0]["uuid"].as_str().unwrap().to_owned();
    assert_eq!(tool.run(&["directory", "forget", &uuid], b"").code, 2);
    let healthy = tool.run(&["directory", "forget", &uuid, "--yes"], b"");
    assert_eq!(healthy.code, 1);
    assert!(healthy.stderr.contains("INVALID_REQUEST"), "{}", healthy.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn selftest_and_bench_clean_up_behind_them() {
    let tool = Tool::ready(1).await;
    assert!(tool.ok(&["selftest"], b"").starts_with("ok: 10 entries"));
    let bench = tool.json(&["bench", "--seconds", "1", "--clients", "2", "--in-flight", "8", "--size", "100"]);
    assert!(bench["acks"].as_u64().unwrap() > 0, "{bench}");
    assert!(bench["p50Us"].as_u64().unwrap() <= bench["p99Us"].as_u64().unwrap());
    assert_eq!(tool.json(&["collections"])["collections"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn not_ready_is_exit_code_3_and_no_sidecar_is_1() {
    let mut tool = Tool::ready(2).await;
    tool.ok(&["append", "c"], b"x\n");
    tool.0.stop().await;
    let away = tool.0.setup.path("away");
    std::fs::rename(tool.0.setup.path("d2"), &away).unwrap();
    std::fs::write(tool.0.setup.path("d2"), "in the way").unwrap();
    tool.0.start();
    tool.0.wait_status("waiting", |status| status.phase == "waiting").await;
    let output = tool.run(&["read", "c"], b"");
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("NOT_READY"), "{}", output.stderr);
    assert!(tool.ok(&["status"], b"").contains("waiting for"));
    let nowhere = run(binaries::walctl(), ["--socket", "/nonexistent", "status"], b"");
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("/nonexistent"), "{}", nowhere.stderr);
    assert_eq!(run(binaries::walctl(), ["nonsense"], b"").code, 2);
    assert_eq!(tool.run(&["status", "--output", "raw"], b"").code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sidecar_directories_are_listed_forgotten_and_verified() {
    let mut tool = Tool(Sidecar::ready(Setup::new(2).set("distribution_strategy = \"RoundRobin\"")).await);
    tool.ok(&["append", "a"], b"x\n");
    tool.ok(&["append", "b"], b"y\n");
    let directories = tool.json(&["directory", "list"]);
    let lost = directories["directories"].as_array().unwrap().iter().find(|d| d["url"] == tool.0.setup.url("d2"));
    let uuid = lost.unwrap()["uuid"].as_str().unwrap().to_owned();
    let config = tool.0.setup.path("config.toml").to_str().unwrap().to_owned();
    let d1 = tool.0.setup.path("d1").to_str().unwrap().to_owned();
    let forget = ["directory", "forget", &uuid, "--yes", "--config", &config];

    // A running sidecar has the locks.
    for arguments in [&forget[..], &["directory", "list", "--config", &config], &["verify", &d1]] {
        let locked = tool.run(arguments, b"");
        assert_eq!(locked.code, 3, "{arguments:?}: {}", locked.stderr);
    }
    let live = tool.run(&["verify", "--live", &d1, &tool.0.setup.url("d2")], b"");
    assert_eq!(live.code, 0, "{}{}", live.stdout, live.stderr);

    tool.0.stop().await;
    let both = tool.ok(&["verify", &d1, &tool.0.setup.url("d2")], b"");
    assert!(both.contains("all is well"), "{both}");
    std::fs::rename(tool.0.setup.path("d2"), tool.0.setup.path("away")).unwrap();
    std::fs::write(tool.0.setup.path("d2"), "in the way").unwrap();
    let listed = tool.ok(&["directory", "list", "--config", &config], b"");
    assert!(listed.contains(&tool.0.setup.url("d2")), "{listed}");
    let forgotten = tool.ok(&forget, b"");
    assert!(forgotten.contains(&uuid), "{forgotten}");
    tool.0.start();
    tool.0.wait_ready().await;
    let table = tool.ok(&["read", "b"], b"") + &tool.ok(&["read", "a"], b"");
    assert!(table.contains("DIRECTORY_FORGOTTEN"), "{table}");
}
