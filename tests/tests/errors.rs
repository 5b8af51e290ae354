//! Every error that a client can raise, over both transports: reason, code, durability and details.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use walstorage_sidecar::proto::{
    AppendRequest, DeleteCollectionRequest, DrainRequest, Entry, GetCollectionRequest, TruncateRequest,
};
use walstorage_tests::harness::calls::{append, refused, request, truncate};
use walstorage_tests::harness::grpc::{self, Client, Typed, typed};
use walstorage_tests::harness::http::Reply;
use walstorage_tests::harness::{Setup, Sidecar};

/// Asserts what every error over HTTP has, and answers its details.
fn assert_http(reply: &Reply, status: u16, reason: &str, durability: Option<&str>) -> Value {
    let body = reply.json();
    assert_eq!((reply.status.as_u16(), body["reason"].as_str()), (status, Some(reason)), "{body}");
    match durability {
        Some(durability) => assert_eq!(body["durability"], durability, "{body}"),
        None => assert!(body["durability"].as_str().is_none_or(str::is_empty), "{body}"),
    }
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    let retryable = matches!(status, 429 | 503);
    assert_eq!(body["retryable"], retryable, "{body}");
    assert_eq!(reply.headers.contains_key("retry-after"), status == 429, "{:?}", reply.headers);
    body["details"].clone()
}

fn assert_grpc(error: &Typed, code: Code, reason: &str, durability: &str) {
    assert_eq!((error.code, error.reason.as_str(), error.durability.as_str()), (code, reason, durability), "{error:?}");
}

/// A sidecar with `c`, which holds LSN 3 to 5 of 5.
async fn with_five() -> (Sidecar, Client) {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"1", b"2", b"3", b"4", b"5"]).await;
    truncate(&mut client, "c", 2).await;
    (sidecar, client)
}

#[tokio::test]
async fn appends_that_are_wrong_are_refused_and_write_nothing() {
    let (sidecar, mut client) = with_five().await;
    let mut http = sidecar.http().await;
    let stamped = |id: &str, seq| AppendRequest { producer_id: id.into(), producer_seq: seq, ..request("c", &[b"x"]) };
    for (what, wrong) in [
        ("no entries", request("c", &[])),
        ("a producer without sequence", stamped("p", 0)),
        ("a sequence without producer", stamped("", 1)),
        ("a producer of 65 bytes", stamped(&"p".repeat(65), 1)),
        ("an unknown level", AppendRequest { ack: 7, ..request("c", &[b"x"]) }),
    ] {
        let error = refused(&mut client, wrong).await;
        assert_eq!(error.reason, "INVALID_REQUEST", "{what}");
        assert_grpc(&error, Code::InvalidArgument, "INVALID_REQUEST", "not_written");
    }
    let entries = "/v1/collections/c/entries";
    for body in [
        json!({"entries": []}),
        json!({}),
        json!({"entries": [{"payload": "not base64!"}]}),
        json!({"entries": [{"payload": "eA=="}], "unknown": 1}),
        json!({"entries": [{"payload": "eA=="}], "ack": "NEVER"}),
        json!({"entries": [{"payload": "eA=="}], "producerId": "p"}),
        json!({"entries": [{"payload": "eA=="}], "producerId": "p", "producerSeq": -1}),
        json!([]),
    ] {
        let reply = http.post(entries, &body).await.expect("a reply");
        assert_http(&reply, 400, "INVALID_REQUEST", Some("not_written"));
    }
    for (content_type, body) in [("application/x-ndjson", ""), ("application/json", ""), ("application/json", "{")] {
        let reply = http.send("POST", entries, Some(content_type), body.to_owned()).await.expect("a reply");
        assert_http(&reply, 400, "INVALID_REQUEST", Some("not_written"));
    }
    for query in ["ack=NEVER", "producerId=p", "producerSeq=1", "nonsense=1"] {
        let path = format!("{entries}?{query}");
        let reply = http.send("POST", &path, Some("application/x-ndjson"), "x\n").await.expect("a reply");
        assert_http(&reply, 400, "INVALID_REQUEST", Some("not_written"));
    }
    let long = format!("/v1/collections/{}/entries", "n".repeat(256));
    let reply = http.post(&long, &json!({"entries": [{"payload": "eA=="}]})).await.expect("a reply");
    assert_http(&reply, 400, "INVALID_COLLECTION_NAME", Some("not_written"));
    let error = refused(&mut client, request("", &[b"x"])).await;
    assert_grpc(&error, Code::InvalidArgument, "INVALID_COLLECTION_NAME", "not_written");
    assert_eq!(append(&mut client, "c", &[b"6"]).await.first_lsn, 6, "nothing was written");
}

#[tokio::test]
async fn too_large_is_413() {
    let (sidecar, mut client) = with_five().await;
    let mut http = sidecar.http().await;
    let large = AppendRequest {
        entries: vec![Entry { payload: vec![0; (16 << 20) + 1].into(), ..Entry::default() }],
        ..request("c", &[])
    };
    assert_grpc(&refused(&mut client, large).await, Code::InvalidArgument, "ENTRY_TOO_LARGE", "not_written");
    let entries = "/v1/collections/c/entries";
    let reply = http.send("POST", entries, Some("application/octet-stream"), vec![0; (16 << 20) + 1]).await;
    assert_http(&reply.expect("a reply"), 413, "ENTRY_TOO_LARGE", Some("not_written"));
    let lines = vec![b'x'; 1 << 20].into_iter().chain([b'\n']).collect::<Vec<u8>>().repeat(33);
    let reply = http.send("POST", entries, Some("application/x-ndjson"), lines).await;
    assert_http(&reply.expect("a reply"), 413, "BATCH_TOO_LARGE", Some("not_written"));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (sidecar, mut client) = with_five().await;
    let mut http = sidecar.http().await;
    let none = || "none".to_owned();
    let errors = [
        client.get_collection(GetCollectionRequest { collection: none() }).await.expect_err("none"),
        client.truncate(TruncateRequest { collection: none(), up_to: 1 }).await.expect_err("none"),
        client.delete_collection(DeleteCollectionRequest { collection: none() }).await.expect_err("none"),
        grpc::read(&mut client, "none", 0, 0).await.expect_err("none"),
    ];
    for error in errors {
        assert_grpc(&typed(&error), Code::NotFound, "COLLECTION_NOT_FOUND", "");
    }
    for (method, path) in
        [("GET", "/v1/collections/none"), ("GET", "/v1/collections/none/entries"), ("DELETE", "/v1/collections/none")]
    {
        let reply = http.send(method, path, None, "").await.expect("a reply");
        assert_http(&reply, 404, "COLLECTION_NOT_FOUND", None);
    }
}

#[tokio::test]
async fn a_read_outside_of_what_is_held_says_what_is() {
    let (sidecar, mut client) = with_five().await;
    let mut http = sidecar.http().await;
    for from in [1, 2] {
        let error = typed(&grpc::read(&mut client, "c", from, 0).await.expect_err("truncated"));
        assert_grpc(&error, Code::OutOfRange, "OUT_OF_RANGE", "");
        assert_eq!(error.details["first"], "3");
    }
    assert_eq!(grpc::read(&mut client, "c", 0, 0).await.expect("from the earliest").len(), 3);
    assert_eq!(grpc::read(&mut client, "c", 6, 0).await.expect("the end").len(), 0);
    let ahead = typed(&grpc::read(&mut client, "c", 7, 0).await.expect_err("ahead"));
    assert_grpc(&ahead, Code::OutOfRange, "AHEAD_OF_LOG", "");
    assert_eq!(ahead.details["durableHead"], "5");
    let reply = http.get("/v1/collections/c/entries?from=1").await.expect("a reply");
    assert_eq!(assert_http(&reply, 416, "OUT_OF_RANGE", None)["first"], "3");
    let reply = http.get("/v1/collections/c/entries?from=7").await.expect("a reply");
    assert_eq!(assert_http(&reply, 416, "AHEAD_OF_LOG", None)["durableHead"], "5");
    let error =
        client.truncate(TruncateRequest { collection: "c".into(), up_to: 6 }).await.expect_err("above the head");
    assert_grpc(&typed(&error), Code::InvalidArgument, "INVALID_REQUEST", "not_written");
    assert_eq!(truncate(&mut client, "c", 1).await, 2, "monotone");
}

#[tokio::test]
async fn a_skipped_producer_sequence_is_a_conflict() {
    let (sidecar, mut client) = with_five().await;
    let stamped = |seq| AppendRequest { producer_id: "p".into(), producer_seq: seq, ..request("c", &[b"x"]) };
    client.append_batch(stamped(1)).await.expect("the first");
    let error = refused(&mut client, stamped(3)).await;
    assert_grpc(&error, Code::FailedPrecondition, "OUT_OF_SEQUENCE", "not_written");
    let body = json!({"entries": [{"payload": "eA=="}], "producerId": "p", "producerSeq": "3"});
    let reply = sidecar.http().await.post("/v1/collections/c/entries", &body).await.expect("a reply");
    assert_http(&reply, 409, "OUT_OF_SEQUENCE", Some("not_written"));
}

#[tokio::test]
async fn what_has_nowhere_to_go_is_not_drained_and_prestop_succeeds() {
    let (sidecar, mut client) = with_five().await;
    let mut http = sidecar.http().await;
    let drain = client.drain(DrainRequest {}).await.expect_err("no bucket");
    assert_grpc(&typed(&drain), Code::InvalidArgument, "INVALID_REQUEST", "not_written");
    let reply = http.post("/v1/drain", &json!({})).await.expect("a reply");
    assert_http(&reply, 400, "INVALID_REQUEST", Some("not_written"));
    assert_eq!(http.post("/v1/prestop", &json!({})).await.expect("a reply").status, 200);
}

#[tokio::test]
async fn before_recovery_is_done_data_calls_answer_not_ready_and_the_status_is_served() {
    let first = Sidecar::ready(Setup::new(1)).await;
    append(&mut first.grpc(), "c", &[b"x"]).await;
    let mut setup = Setup::new(0);
    setup.urls(&[first.setup.url("d1")]);
    let mut second = Sidecar::new(setup);
    second.start();
    second.wait_status("waiting for the lock", |status| status.phase != "ready").await;
    let mut http = second.http().await;
    for path in ["/v1/collections", "/v1/collections/c", "/v1/collections/c/entries"] {
        assert_http(&http.get(path).await.expect("a reply"), 503, "NOT_READY", Some("not_written"));
    }
    let error = refused(&mut second.grpc(), request("c", &[b"x"])).await;
    assert_grpc(&error, Code::Unavailable, "NOT_READY", "not_written");
    assert_eq!(http.get("/v1/status").await.expect("a reply").status, 200);
    assert_eq!(http.get("/v1/directories").await.expect("a reply").status, 200);
}

#[tokio::test]
async fn a_full_memory_is_429_with_retry_after() {
    let setup = Setup::new(1).set(r#"memory_flush_size_bytes = "1Mi""#).set(r#"global_flush_threshold = "4Mi""#);
    let sidecar = Sidecar::ready(setup).await;
    sidecar.setup.block_segments("c");
    let mut http = sidecar.http().await;
    let entries = "/v1/collections/c/entries";
    for _ in 0..20 {
        let reply = http.send("POST", entries, Some("application/octet-stream"), vec![1; 1 << 19]).await;
        let reply = reply.expect("a reply");
        if reply.status != 200 {
            assert_http(&reply, 429, "MEMORY_LIMIT", Some("not_written"));
            assert_eq!(reply.headers["retry-after"], "1");
            return;
        }
    }
    panic!("10 MiB were taken");
}

#[tokio::test]
async fn a_stopping_sidecar_refuses_on_streams_with_the_first_refused_id() {
    let (mut sidecar, mut client) = with_five().await;
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let mut replies = client.append(ReceiverStream::new(requests)).await.expect("a stream").into_inner();
    let appending = async {
        for id in 1.. {
            let one = AppendRequest { id, ..request("c", &[b"x"]) };
            if sender.send(one).await.is_err() {
                return replies.message().await.map(|reply| (id, reply));
            }
            let reply = replies.message().await?;
            assert_eq!(reply.map(|reply| reply.id), Some(id));
            if id == 10 {
                sidecar.signal(Signal::TERM);
            }
        }
        unreachable!("ids go on");
    };
    let ended = tokio::time::timeout(walstorage_tests::harness::DEADLINE, appending).await.expect("it ends");
    let error = typed(&ended.expect_err("a refusal"));
    assert_grpc(&error, Code::Unavailable, "SHUTTING_DOWN", "not_written");
    let refused: u64 = error.details["requestId"].parse().expect("an id");
    assert!(refused > 10, "{error:?}");
    assert_eq!(sidecar.exit().await.code(), Some(0));
    sidecar.start();
    sidecar.wait_ready().await;
    let head = walstorage_tests::harness::calls::describe(&mut sidecar.grpc(), "c").await.durable_head;
    assert_eq!(head, 5 + refused - 1, "what was refused is not there, all before is");
}

#[tokio::test]
async fn a_refusal_ends_a_stream_and_nothing_after_it_is_accepted() {
    let (sidecar, mut client) = with_five().await;
    let bad = AppendRequest { id: 4, ..request("c", &[]) };
    let good = |id| AppendRequest { id, ..request("c", &[b"x"]) };
    let requests = vec![good(1), good(2), good(3), bad, good(5), good(6)];
    let mut replies = client.append(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    for id in 1..=3 {
        assert_eq!(replies.message().await.expect("a reply").map(|reply| reply.id), Some(id));
    }
    let error = typed(&replies.message().await.expect_err("the refusal"));
    assert_grpc(&error, Code::InvalidArgument, "INVALID_REQUEST", "not_written");
    assert_eq!(error.details["requestId"], "4");
    assert_eq!(append(&mut sidecar.grpc(), "c", &[b"x"]).await.first_lsn, 9);
}

#[tokio::test]
async fn wrong_paths_methods_and_types_are_answered_in_the_same_json() {
    let (sidecar, _) = with_five().await;
    let mut http = sidecar.http().await;
    for (method, path, content_type, status) in [
        ("GET", "/", None, 404),
        ("GET", "/v2/collections", None, 404),
        ("GET", "/v1/collections/c/entries/7", None, 404),
        ("PUT", "/v1/collections/c", None, 405),
        ("GET", "/v1/collections/c/truncate", None, 405),
        ("POST", "/v1/collections/c/entries", None, 415),
        ("POST", "/v1/collections/c/entries", Some("text/html"), 415),
    ] {
        let reply = http.send(method, path, content_type, "x").await.expect("a reply");
        assert_eq!(reply.status.as_u16(), status, "{method} {path}");
        let body = reply.json();
        assert!(["code", "reason", "message", "retryable"].iter().all(|key| body.get(key).is_some()), "{body}");
    }
}
