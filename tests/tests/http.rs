//! The HTTP surface: bodies, types, paths, limits, errors. What a request says wrongly is answered in one JSON.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use walstorage_tests::harness::http::{Connection, Reply};
use walstorage_tests::harness::{DEADLINE, Setup, Sidecar, eventually};

const JSON: Option<&str> = Some("application/json");
const LINES: Option<&str> = Some("application/x-ndjson");
const BYTES: Option<&str> = Some("application/octet-stream");

/// Method, path, content type, body; status, reason, and what the message contains.
type Case<'a> = (&'a str, &'a str, Option<&'a str>, &'static str, u16, &'a str, &'a str);

/// An error in the form of the interface.
fn error(reply: &Reply) -> (u16, String, String) {
    let body = reply.json();
    for field in ["code", "reason", "message", "durability", "retryable", "details"] {
        assert!(body.get(field).is_some(), "{field} is missing: {body}");
    }
    let text = |field: &str| body[field].as_str().expect("text").to_owned();
    (reply.status.as_u16(), text("reason"), text("message"))
}

async fn payloads(http: &mut Connection, path: &str) -> Vec<String> {
    let reply = http.get(path).await.unwrap();
    assert_eq!(reply.status, 200, "{path}: {}", String::from_utf8_lossy(&reply.body));
    reply.lines().iter().map(|line| line["entry"]["payload"].as_str().expect("an entry").to_owned()).collect()
}

#[tokio::test]
async fn each_body_type_appends_what_it_says() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut http = sidecar.http().await;
    let path = "/v1/collections/c/entries";
    let body =
        r#"{"id": 5, "entries": [{"payload": "AAE=", "key": "aw", "headers": [{"name": "n", "value": "_-8"}]}]}"#;
    let reply = http.send("POST", path, JSON, body).await.unwrap();
    assert_eq!(reply.status, 200);
    let mut answer = reply.json();
    assert!(answer["epoch"].take().as_str().is_some_and(|epoch| epoch.parse::<u64>().is_ok()));
    let url = sidecar.setup.url("d1");
    let expected = json!({"id": "5", "firstLsn": "1", "lastLsn": "1", "ack": "DURABLE", "epoch": null,
                          "duplicate": false, "directory": url});
    assert_eq!(answer, expected);

    let reply = http.send("POST", path, BYTES, "a\nb\n").await.unwrap().json();
    assert_eq!((&reply["firstLsn"], &reply["lastLsn"]), (&json!("2"), &json!("2")));
    http.send("POST", path, BYTES, "").await.unwrap();
    let query = "?producerId=p&producerSeq=1&ack=DURABLE";
    let reply = http.send("POST", &format!("{path}{query}"), LINES, "x\r\n\ny").await.unwrap().json();
    assert_eq!((&reply["firstLsn"], &reply["lastLsn"], &reply["duplicate"]), (&json!("4"), &json!("6"), &json!(false)));
    let reply = http.send("POST", &format!("{path}{query}"), LINES, "x\r\n\ny").await.unwrap().json();
    assert_eq!((&reply["firstLsn"], &reply["lastLsn"], &reply["duplicate"]), (&json!("4"), &json!("6"), &json!(true)));

    assert_eq!(payloads(&mut http, path).await, ["AAE=", "YQpiCg==", "", "eA0=", "", "eQ=="]);
    assert_eq!(payloads(&mut http, &format!("{path}?from=2&limit=2")).await, ["YQpiCg==", ""]);
    let first = http.get(&format!("{path}?limit=1")).await.unwrap();
    assert_eq!(first.headers["content-type"], "application/x-ndjson");
    let entry = &first.lines()[0]["entry"];
    assert_eq!((&entry["lsn"], &entry["key"]), (&json!("1"), &json!("aw==")));
    assert_eq!(entry["headers"], json!([{"name": "n", "value": "/+8="}]));
    let timestamp = entry["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 27 && timestamp.ends_with('Z'), "{timestamp}");
    let raw = http.get(&format!("{path}?format=raw&from=4")).await.unwrap();
    assert_eq!(
        (raw.body, &raw.headers["content-type"]),
        ("x\r\n\ny\n".into(), &"application/octet-stream".parse().unwrap())
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_in_one_json() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut http = sidecar.http().await;
    let entries = "/v1/collections/c/entries";
    http.send("POST", entries, BYTES, "first").await.unwrap();
    http.post("/v1/collections/c/truncate", &json!({"upTo": "1"})).await.unwrap();
    let long = format!("/v1/collections/{}/entries", "x".repeat(256));
    let table: [Case<'_>; 36] = [
        ("GET", "/", None, "", 404, "INVALID_REQUEST", "there is nothing at /"),
        ("GET", "/v1/nothing", None, "", 404, "INVALID_REQUEST", "nothing at"),
        ("GET", "/v1/collections/a/b/entries", None, "", 404, "INVALID_REQUEST", "nothing at"),
        ("PUT", entries, None, "", 405, "INVALID_REQUEST", "use GET, POST"),
        ("HEAD", "/v1/status", None, "", 405, "", ""),
        ("GET", "/v1/drain", None, "", 405, "INVALID_REQUEST", "use POST"),
        ("POST", entries, None, "x", 415, "INVALID_REQUEST", "no content type"),
        ("POST", entries, Some("text/plain"), "x", 415, "INVALID_REQUEST", "application/x-ndjson"),
        ("POST", "/v1/collections/c/truncate", None, "{}", 415, "INVALID_REQUEST", "no content type"),
        ("POST", "/v1/collections/c/flush", Some("text/plain"), "{}", 415, "INVALID_REQUEST", "application/json"),
        ("POST", entries, JSON, "", 400, "INVALID_REQUEST", "at least one entry"),
        ("POST", entries, JSON, "{\"entries\":[]}", 400, "INVALID_REQUEST", "at least one entry"),
        ("POST", entries, JSON, "{\"entris\":[]}", 400, "INVALID_REQUEST", "unknown field `entris`"),
        ("POST", entries, JSON, "{\"collection\":\"d\",\"entries\":[{}]}", 400, "INVALID_REQUEST", "named by the path"),
        ("POST", entries, LINES, "", 400, "INVALID_REQUEST", "the body is empty"),
        ("POST", "/v1/collections/c/entries?ack=NOW", BYTES, "x", 400, "INVALID_REQUEST", "ack=NOW"),
        (
            "POST",
            "/v1/collections/c/entries?ack=DURABLE",
            JSON,
            "{}",
            400,
            "INVALID_REQUEST",
            "unknown query parameter",
        ),
        ("POST", "/v1/collections/c/entries?producerId=p", BYTES, "x", 400, "INVALID_REQUEST", "producer_seq"),
        ("POST", "/v1/collections/c/entries?producerSeq=1", BYTES, "x", 400, "INVALID_REQUEST", "producer_id"),
        ("GET", "/v1/collections/c/entries?from=x", None, "", 400, "INVALID_REQUEST", "from=x"),
        ("GET", "/v1/collections/c/entries?follow=1", None, "", 400, "INVALID_REQUEST", "follow=1"),
        ("GET", "/v1/collections/c/entries?format=xml", None, "", 400, "INVALID_REQUEST", "format=xml"),
        ("GET", "/v1/collections?pageToken=!", None, "", 400, "INVALID_REQUEST", "page token"),
        ("GET", "/v1/status?verbose=true", None, "", 400, "INVALID_REQUEST", "known here: none"),
        ("POST", "/v1/directories/x/forget", None, "", 400, "INVALID_REQUEST", "not a directory's uuid"),
        ("POST", "/v1/collections//entries", BYTES, "x", 400, "INVALID_COLLECTION_NAME", "this one is empty"),
        ("POST", &long, BYTES, "x", 400, "INVALID_COLLECTION_NAME", "this one has 256"),
        ("POST", "/v1/collections/%FF/entries", BYTES, "x", 400, "INVALID_COLLECTION_NAME", "not UTF-8"),
        ("POST", "/v1/collections/%2/entries", BYTES, "x", 400, "INVALID_COLLECTION_NAME", "hexadecimal"),
        ("GET", "/v1/collections/none", None, "", 404, "COLLECTION_NOT_FOUND", "none"),
        ("GET", "/v1/collections/none/entries", None, "", 404, "COLLECTION_NOT_FOUND", "none"),
        ("DELETE", "/v1/collections/none", None, "", 404, "COLLECTION_NOT_FOUND", "none"),
        ("GET", "/v1/collections/c/entries?from=1", None, "", 416, "OUT_OF_RANGE", ""),
        ("GET", "/v1/collections/c/entries?from=3", None, "", 416, "AHEAD_OF_LOG", ""),
        ("POST", "/v1/collections/c/truncate", JSON, "{\"upTo\":2}", 400, "INVALID_REQUEST", ""),
        ("POST", "/v1/drain", None, "", 400, "INVALID_REQUEST", "no bucket"),
    ];
    for (method, path, content_type, body, status, reason, message) in table {
        let reply = http.send(method, path, content_type, body).await.unwrap();
        if method == "HEAD" {
            assert_eq!(reply.status, status);
            continue;
        }
        let found = error(&reply);
        assert_eq!((found.0, found.1.as_str()), (status, reason), "{method} {path}: {}", found.2);
        assert!(found.2.contains(message), "{method} {path}: {}", found.2);
        assert_eq!(reply.headers.contains_key("allow"), status == 405);
    }
    let flush = http.send("POST", "/v1/collections/c/flush", None, "").await.unwrap();
    assert_eq!((flush.status.as_u16(), flush.json()), (200, json!({"flushedTo": "1"})));
    let unknown = "/v1/directories/00000000-0000-0000-0000-000000000000/forget";
    assert_eq!(error(&http.send("POST", unknown, None, "").await.unwrap()).0, 400);
    let out_of_sequence = "/v1/collections/c/entries?producerId=p&producerSeq=";
    http.send("POST", &format!("{out_of_sequence}1"), BYTES, "x").await.unwrap();
    let reply = http.send("POST", &format!("{out_of_sequence}3"), BYTES, "x").await.unwrap();
    let (status, reason, _) = error(&reply);
    assert_eq!((status, reason.as_str()), (409, "OUT_OF_SEQUENCE"));
    assert_eq!(reply.json()["durability"], "not_written");
    let reply = http.send("POST", "/v1/prestop", JSON, "{}").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({})));
}

#[tokio::test]
async fn any_name_can_be_percent_encoded() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut http = sidecar.http().await;
    let names =
        ["a", "a/b", "..", ".", "_wal", "lost+found", "🦀", "\0", "%", "a b", "A", &"é".repeat(127), &"x".repeat(255)];
    for name in names {
        let encoded: String = name.bytes().map(|b| format!("%{b:02X}")).collect();
        let path = format!("/v1/collections/{encoded}");
        let reply = http.send("POST", &format!("{path}/entries"), BYTES, name.to_owned()).await.unwrap();
        assert_eq!(reply.status, 200, "{name:?}: {}", String::from_utf8_lossy(&reply.body));
        assert_eq!(http.get(&path).await.unwrap().json()["name"], name);
        let raw = http.get(&format!("{path}/entries?format=raw")).await.unwrap();
        assert_eq!(raw.body, format!("{name}\n"));
    }
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let page = http.get(&format!("/v1/collections?pageSize=4&pageToken={token}")).await.unwrap().json();
        let collections = page["collections"].as_array().unwrap();
        assert!(collections.len() <= 4);
        listed.extend(collections.iter().map(|c| c["name"].as_str().unwrap().to_owned()));
        token = page["nextPageToken"].as_str().unwrap().to_owned();
        if token.is_empty() {
            break;
        }
    }
    let mut expected = names.map(ToOwned::to_owned);
    expected.sort();
    assert_eq!(listed, expected);
}

/// Sends raw bytes and reads the answer's head and as much of its body as comes.
async fn exchange(socket: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // The connection is closed by the sidecar because the body that was announced never comes.
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_above_64_mib_is_refused_before_it_is_sent() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let request = format!(
        "POST /v1/collections/c/entries HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        (64 << 20) + 1
    );
    let answer = exchange(&sidecar.setup.socket(), request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\"reason\":\"BATCH_TOO_LARGE\""), "{answer}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_a_request_leaves_nothing_behind() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let socket = sidecar.setup.socket();
    for sent in [
        "POST /v1/coll",
        "POST /v1/collections/c/entries HTTP/1.1\r\nhost: x\r\ncontent-type: \
                  application/octet-stream\r\ncontent-length: 1000000\r\n\r\nhalf",
    ] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        drop(stream);
    }
    let mut http = sidecar.http().await;
    assert_eq!(error(&http.get("/v1/collections/c").await.unwrap()).1, "COLLECTION_NOT_FOUND");
    eventually("the received bytes are given back", async || {
        let memory = sidecar.status().await.memory?;
        (memory.used_bytes < 1_000_000).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_follower_gets_each_entry_as_it_comes_and_an_error_as_its_last_line() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut http = sidecar.http().await;
    let append = "/v1/collections/c/entries";
    http.send("POST", append, BYTES, "1").await.unwrap();
    let stream = UnixStream::connect(sidecar.setup.socket()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/v1/collections/c/entries?follow=true").header("host", "x");
    let mut body = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap().into_body();
    let mut seen: Vec<Value> = Vec::new();
    for n in 2..5 {
        let frame = tokio::time::timeout(DEADLINE, body.frame()).await.expect("an entry").unwrap().unwrap();
        let text = frame.into_data().unwrap();
        seen.extend(text.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice::<Value>(line).unwrap()));
        http.send("POST", append, BYTES, n.to_string()).await.unwrap();
    }
    http.send("DELETE", "/v1/collections/c", None, "").await.unwrap();
    let rest = tokio::time::timeout(DEADLINE, body.collect()).await.expect("the end").unwrap().to_bytes();
    seen.extend(rest.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice::<Value>(line).unwrap()));
    let last = seen.pop().unwrap();
    assert_eq!(last["error"]["reason"], "COLLECTION_NOT_FOUND", "{last}");
    let lsns: Vec<_> = seen.iter().map(|line| line["entry"]["lsn"].as_str().unwrap().parse::<u64>().unwrap()).collect();
    assert!(lsns.len() >= 3 && lsns.iter().copied().eq(1..=lsns.len() as u64), "{lsns:?}");
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("v1".into()),
        Just("collections".into()),
        Just("entries".into()),
        Just("truncate".into()),
        Just("flush".into()),
        Just("status".into()),
        Just("directories".into()),
        Just("forget".into()),
        Just("drain".into()),
        Just("prestop".into()),
        Just("metrics".into()),
        Just(String::new()),
        "[a-z0-9._~%+:@!$&'()*,;=-]{0,12}",
        "(%[0-9a-fA-F]{2}){1,4}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    let known = "[a-z0-9%]{1,3}";
    prop_oneof![
        prop::collection::vec(segment(), 0..6).prop_map(|segments| format!("/{}", segments.join("/"))),
        known.prop_map(|name| format!("/v1/collections/{name}/entries")),
        known.prop_map(|name| format!("/v1/collections/{name}/truncate")),
        known.prop_map(|name| format!("/v1/collections/{name}")),
    ]
}

fn query() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("from".to_owned()),
        Just("limit".into()),
        Just("format".into()),
        Just("ack".into()),
        Just("producerId".into()),
        Just("producer_seq".into()),
        Just("pageSize".into()),
        "[a-z%=&+]{0,6}",
    ];
    let value = prop_oneof!["[0-9]{0,21}", "[a-zA-Z0-9%+=-]{0,8}", Just("raw".to_owned()), Just("BUFFERED".into())];
    let pairs = prop::collection::vec((name, value), 0..4);
    pairs.prop_map(|pairs| {
        let pairs: Vec<_> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let json = r#"\{("(entries|ack|id|upTo|x)":(\[\{("payload":"[A-Za-z0-9+/=_-]{0,8}")?\}\]|"[A-Z0-9]{0,9}"|[0-9]{1,20}|null|\[\]),?){0,3}\}"#;
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..200),
        json.prop_map(String::into_bytes),
        "(\\[|\\{\"a\":){0,300}".prop_map(String::into_bytes),
        Just(br#"{"entries":[{"payload":"AA=="}]}"#.to_vec()),
        Just(br#"{"upTo":"1"}"#.to_vec()),
    ]
}

/// Every answer is one of the interface's, whatever the request.
fn check(reply: &Reply) -> Result<(), TestCaseError> {
    let content_type = reply.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
    let status = reply.status.as_u16();
    if status == 200 {
        return Ok(());
    }
    prop_assert!([400, 404, 405, 409, 413, 415, 416, 429, 501, 503].contains(&status), "{status}");
    prop_assert_eq!(content_type.as_deref(), Some("application/json"));
    let (_, reason, message) = error(reply);
    prop_assert!(!reason.is_empty() && !message.is_empty());
    Ok(())
}

#[test]
fn whatever_is_asked_is_answered_in_the_words_of_the_interface() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut sidecar = runtime.block_on(Sidecar::ready(Setup::new(1)));
    let methods = ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "QUERY"];
    let types = [None, JSON, LINES, BYTES, Some("text/plain"), Some(";")];
    let strategy =
        (prop::sample::select(methods.to_vec()), path(), query(), prop::sample::select(types.to_vec()), body());
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(500) });
    let outcome = runner.run(&strategy, |(method, path, query, content_type, body)| {
        runtime.block_on(async {
            let mut http = sidecar.http().await;
            let reply = http.send(method, &format!("{path}{query}"), content_type, body).await;
            check(&reply.map_err(|e| TestCaseError::fail(format!("no answer: {e:#}")))?)
        })
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    runtime.block_on(sidecar.stop());
    assert!(!sidecar.log().contains("panic"), "{}", sidecar.log());
}
