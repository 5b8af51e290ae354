//! Runs the client against a sidecar.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Endpoint, Error as TransportError};
use tonic::{Code, Status};
use tower::Service;
use walstorage_example_client::{Appended, Entry, Error, Log};
use walstorage_tests::harness::{Setup, Sidecar};

/// Lets calls through, then loses the replies of the first ones.
#[derive(Clone)]
struct LoseReplies {
    inner: Channel,
    lose: Arc<Mutex<Vec<Code>>>,
    calls: Arc<AtomicUsize>,
}

impl Service<Request<Body>> for LoseReplies {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (lose, calls) = (self.lose.clone(), self.calls.clone());
        let reply = self.inner.call(request);
        Box::pin(async move {
            let reply = reply.await?;
            calls.fetch_add(1, Ordering::SeqCst);
            Ok(match lose.lock().unwrap().pop() {
                Some(code) => Status::new(code, "the reply was lost").into_http(),
                None => reply,
            })
        })
    }
}

async fn sidecar() -> Sidecar {
    Sidecar::ready(Setup::new(1)).await
}

fn channel(sidecar: &Sidecar) -> Channel {
    let socket = sidecar.setup.socket();
    Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().connect_lazy()
}

fn lossy(sidecar: &Sidecar, lose: impl Into<Vec<Code>>) -> LoseReplies {
    LoseReplies { inner: channel(sidecar), lose: Arc::new(Mutex::new(lose.into())), calls: Arc::default() }
}

fn entries(from: u64, payloads: &[&str]) -> Vec<Entry> {
    (from..).zip(payloads).map(|(lsn, payload)| Entry { lsn, payload: payload.as_bytes().to_vec() }).collect()
}

#[tokio::test]
async fn entries_are_read_back_in_order() {
    let sidecar = sidecar().await;
    let mut log = Log::open(sidecar.setup.socket().to_str().unwrap(), "orders").unwrap();
    assert_eq!(log.append(["a", "b"]).await.unwrap(), Appended { first: 1, last: 2 });
    assert_eq!(log.append([""]).await.unwrap(), Appended { first: 3, last: 3 });
    let all: Vec<_> = log.read(0, false).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all, entries(1, &["a", "b", ""]));
    let last: Vec<_> = log.read(3, false).await.unwrap().try_collect().await.unwrap();
    assert_eq!(last, entries(3, &[""]));
}

#[tokio::test]
async fn a_retry_after_a_lost_reply_does_not_append_twice() {
    let sidecar = sidecar().await;
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Unknown] {
        let faults = lossy(&sidecar, [code, code]);
        let mut log = Log::over(faults.clone(), &format!("{code:?}"));
        assert_eq!(log.append(["once"]).await.unwrap(), Appended { first: 1, last: 1 }, "{code:?}");
        assert_eq!(faults.calls.load(Ordering::SeqCst), 3, "{code:?}");
        log.append(["next"]).await.unwrap();
        let all: Vec<_> = log.read(0, false).await.unwrap().try_collect().await.unwrap();
        assert_eq!(all, entries(1, &["once", "next"]), "{code:?}");
    }
}

#[tokio::test]
async fn an_append_after_giving_up_is_not_taken_for_the_one_given_up() {
    let sidecar = sidecar().await;
    let faults = lossy(&sidecar, [Code::Unavailable; 1000]);
    let mut log = Log::over(faults.clone(), "orders").give_up_after(Duration::from_millis(200));
    let given_up = log.append(["given up"]).await;
    assert!(matches!(given_up, Err(Error::OutcomeUnknown(_))), "{given_up:?}");
    faults.lose.lock().unwrap().clear();
    let mut log = log.give_up_after(Duration::from_secs(30));
    log.append(["later"]).await.unwrap();
    // Whether the one given up is there is what was unknown; the later one must be.
    let all: Vec<_> = log.read(0, false).await.unwrap().map_ok(|entry| entry.payload).try_collect().await.unwrap();
    assert_eq!(all.iter().filter(|payload| *payload == b"later").count(), 1, "{all:?}");
}

#[tokio::test]
async fn a_refused_append_is_not_retried() {
    let sidecar = sidecar().await;
    let faults = lossy(&sidecar, []);
    let mut log = Log::over(faults.clone(), "orders");
    match log.append([""; 0]).await {
        Err(Error::Refused(status)) => assert_eq!(status.code(), Code::InvalidArgument),
        other => panic!("{other:?}"),
    }
    assert_eq!(faults.calls.load(Ordering::SeqCst), 1);
    assert_eq!(log.append(["fine"]).await.unwrap(), Appended { first: 1, last: 1 });
}

#[tokio::test]
async fn truncated_entries_are_gone() {
    let sidecar = sidecar().await;
    let mut log = Log::over(channel(&sidecar), "orders");
    log.append(["a", "b", "c"]).await.unwrap();
    assert_eq!(log.truncate(2).await.unwrap(), 2);
    assert_eq!(log.truncate(1).await.unwrap(), 2);
    let all: Vec<_> = log.read(0, false).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all, entries(3, &["c"]));
    let gone: Result<Vec<_>, _> = match log.read(1, false).await {
        Ok(stream) => stream.try_collect().await,
        Err(error) => Err(error),
    };
    match gone {
        Err(Error::Refused(status)) => assert_eq!(status.code(), Code::OutOfRange),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_follower_gets_later_entries() {
    let sidecar = sidecar().await;
    let mut log = Log::over(channel(&sidecar), "orders");
    log.append(["first"]).await.unwrap();
    let mut follower = log.read(0, true).await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap(), entries(1, &["first"])[0]);
    log.append(["second"]).await.unwrap();
    assert_eq!(follower.next().await.unwrap().unwrap(), entries(2, &["second"])[0]);
}

#[tokio::test]
async fn the_example_runs() {
    let sidecar = sidecar().await;
    let example = env!("CARGO_BIN_EXE_walstorage-example-client");
    let output = Command::new(example).env("WALSTORAGE_SOCKET", sidecar.setup.socket()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let first: Vec<_> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(first, ["appended", "read", "read", "read", "truncated"]);
}
