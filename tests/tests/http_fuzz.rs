//! Arbitrary bytes on the socket: the sidecar answers or hangs up, never panics, and goes on serving.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use walstorage_tests::harness::calls::{append, payloads};
use walstorage_tests::harness::memory::mib;
use walstorage_tests::harness::{DEADLINE, Setup, Sidecar};

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("GET".to_owned()),
        Just("POST".to_owned()),
        Just("DELETE".to_owned()),
        Just("PRI".to_owned()),
        "[A-Z]{1,12}",
        "\\PC{0,8}"
    ]
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("v1".to_owned()),
        Just("collections".to_owned()),
        Just("c".to_owned()),
        Just("entries".to_owned()),
        Just("truncate".to_owned()),
        Just("directories".to_owned()),
        Just("status".to_owned()),
        Just("%".to_owned()),
        Just("%00".to_owned()),
        Just("%FF%FE".to_owned()),
        Just("..".to_owned()),
        "[a-z%?&=0-9]{0,20}",
    ];
    let query = prop_oneof![
        Just(String::new()),
        Just("?from=18446744073709551615&limit=0".to_owned()),
        Just("?from=-1".to_owned()),
        Just("?follow=maybe&format=raw".to_owned()),
        "\\?[a-zA-Z=&%0-9]{0,30}",
    ];
    (prop::collection::vec(part, 0..6), query).prop_map(|(parts, query)| format!("/{}{query}", parts.join("/")))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..300),
        Just(br#"{"entries":[{"payload":"eA==","key":null,"headers":[]}]}"#.to_vec()),
        Just(br#"{"upTo":"99999999999999999999"}"#.to_vec()),
        Just(b"[".repeat(20_000)),
        Just(br#"{"a":"#.repeat(5_000)),
        "\\PC{0,200}".prop_map(String::into_bytes),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let framed = (token(), path(), body(), "[a-z/+-]{0,24}", any::<Option<u32>>()).prop_map(
        |(method, path, body, content_type, length)| {
            let length = length.map_or(body.len() as u64, u64::from);
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
            );
            [head.into_bytes(), body].concat()
        },
    );
    let chunked = (path(), body()).prop_map(|(path, body)| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
            body.len()
        );
        [head.into_bytes(), body, b"\r\n0\r\n\r\n".to_vec()].concat()
    });
    let raw = prop::collection::vec(any::<u8>(), 0..400);
    let preface = prop::collection::vec(any::<u8>(), 0..400)
        .prop_map(|bytes| [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), bytes].concat());
    prop_oneof![4 => framed, 2 => chunked, 1 => raw, 1 => preface]
}

/// Sends bytes, ends the sending half and reads what comes until the sidecar hangs up.
async fn exchange(sidecar: &Sidecar, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(sidecar.setup.socket()).await.expect("it listens");
    let mut reply = Vec::new();
    let talking = async {
        // It may hang up before it has read all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut reply).await;
    };
    tokio::time::timeout(DEADLINE, talking).await.expect("it hangs up after the client's end");
    reply
}

#[test]
fn arbitrary_bytes_are_answered_or_hung_up_on() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sidecar = runtime.block_on(Sidecar::ready(Setup::new(1)));
    runtime.block_on(async { append(&mut sidecar.grpc(), "kept", &[b"x"]).await });
    let cases = std::env::var("PROPTEST_CASES").map_or(1500, |text| text.parse().expect("a number"));
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let answered = std::cell::Cell::new(0);
    let result = runner.run(&request(), |bytes| {
        let reply = runtime.block_on(exchange(&sidecar, &bytes));
        answered.set(answered.get() + usize::from(reply.starts_with(b"HTTP/1.1 ")));
        prop_assert!(!reply.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&reply));
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}\n{runner}"));
    let answered = answered.get();
    assert!(answered > cases as usize / 4, "{answered} of {cases} were answered");
    let kept = runtime.block_on(async { payloads(&mut sidecar.grpc(), "kept").await });
    assert_eq!(kept, [b"x"]);
    assert!(!sidecar.log().contains("panicked"), "{}", sidecar.log());
    let peak = mib(sidecar.pid(), "VmHWM").expect("memory");
    assert!(peak < 200.0, "{peak} MiB");
}

#[test]
fn a_length_that_is_announced_and_not_sent_takes_no_memory() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sidecar = runtime.block_on(Sidecar::ready(Setup::new(1)));
    let before = mib(sidecar.pid(), "VmHWM").expect("memory");
    let head = "POST /v1/collections/c/entries HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n";
    let open = runtime.block_on(async {
        let mut open = Vec::new();
        for _ in 0..20 {
            let mut stream = UnixStream::connect(sidecar.setup.socket()).await.expect("it listens");
            let bytes = format!("{head}content-length: 16777216\r\n\r\nx");
            stream.write_all(bytes.as_bytes()).await.expect("sent");
            open.push(stream);
        }
        append(&mut sidecar.grpc(), "c", &[b"x"]).await;
        open
    });
    let after = mib(sidecar.pid(), "VmHWM").expect("memory");
    assert!(after - before < 64.0, "{before} MiB before, {after} MiB with {} open requests", open.len());
}
