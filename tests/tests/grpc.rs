//! The gRPC surface: the pipelined append, deadlines, what cannot be decoded, health and reflection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use walstorage_sidecar::proto::{Ack, AppendReply, AppendRequest, ReadRequest};
use walstorage_tests::harness::calls::{append, payloads, refused, request, truncate};
use walstorage_tests::harness::grpc::{self, typed};
use walstorage_tests::harness::{DEADLINE, Setup, Sidecar};

/// A stream of appends.
struct Stream {
    requests: Option<mpsc::Sender<AppendRequest>>,
    replies: Streaming<AppendReply>,
}

impl Stream {
    async fn open(sidecar: &Sidecar) -> Self {
        let (requests, received) = mpsc::channel(2048);
        let replies = sidecar.grpc().append(ReceiverStream::new(received)).await.unwrap().into_inner();
        Self { requests: Some(requests), replies }
    }

    async fn send(&self, id: u64, collection: &str, payload: &str) {
        self.send_request(AppendRequest { id, ..request(collection, &[payload.as_bytes()]) }).await;
    }

    async fn send_request(&self, request: AppendRequest) {
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<AppendReply>, tonic::Status> {
        tokio::time::timeout(DEADLINE, self.replies.message()).await.expect("an answer")
    }

    /// Everything up to the end, and how it ended.
    async fn rest(mut self) -> (Vec<AppendReply>, Option<tonic::Status>) {
        let mut replies = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => return (replies, None),
                Err(status) => return (replies, Some(status)),
            }
        }
    }
}

#[tokio::test]
async fn pipelined_appends_are_answered_in_order_per_collection() {
    let sidecar = Sidecar::ready(Setup::new(2)).await;
    let mut stream = Stream::open(&sidecar).await;
    let collections = ["a", "b", "c"];
    for id in 1..=600u64 {
        let ack = if id % 5 == 0 { Ack::Buffered } else { Ack::Durable } as i32;
        let collection = collections[id as usize % 3];
        stream.send_request(AppendRequest { id, ack, ..request(collection, &[id.to_string().as_bytes()]) }).await;
    }
    stream.requests = None;
    let (replies, end) = stream.rest().await;
    assert!(end.is_none(), "{end:?}");
    assert_eq!(replies.len(), 600);
    for (n, collection) in collections.iter().enumerate() {
        let ids: Vec<u64> = replies.iter().map(|reply| reply.id).filter(|id| *id as usize % 3 == n).collect();
        assert!(ids.is_sorted() && ids.len() == 200, "{collection}: {ids:?}");
        let expected: Vec<Vec<u8>> = ids.iter().map(|id| id.to_string().into_bytes()).collect();
        let mut client = sidecar.grpc();
        // BUFFERED ones become durable a moment later.
        let read = walstorage_tests::harness::eventually("all are durable", async || {
            let read = payloads(&mut client.clone(), collection).await;
            (read.len() == 200).then_some(read)
        })
        .await;
        assert_eq!(read, expected);
        append(&mut client, collection, &[b"end"]).await;
    }
}

#[tokio::test]
async fn a_refusal_ends_the_stream_after_all_earlier_replies_and_nothing_later_is_accepted() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let stream = Stream::open(&sidecar).await;
    for id in 1..=50 {
        stream.send(id, "c", "good").await;
    }
    stream.send_request(AppendRequest { id: 51, ..request("c", &[]) }).await;
    for id in 52..=100 {
        stream.send(id, "c", "late").await;
        stream.send(id + 1000, "d", "late").await;
    }
    let (replies, end) = stream.rest().await;
    assert_eq!(replies.iter().map(|reply| reply.id).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    let error = typed(&end.expect("a refusal"));
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    assert_eq!(error.details.get("requestId").map(String::as_str), Some("51"));
    assert_eq!(error.durability, "not_written");
    let mut client = sidecar.grpc();
    assert_eq!(payloads(&mut client, "c").await.len(), 50);
    let status =
        client.get_collection(walstorage_sidecar::proto::GetCollectionRequest { collection: "d".into() }).await;
    assert_eq!(typed(&status.unwrap_err()).reason, "COLLECTION_NOT_FOUND");
}

#[tokio::test]
async fn every_way_to_be_refused_names_the_request() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let good = || request("c", &[b"x"]);
    let third = vec![0; 12 << 20];
    let table = [
        (AppendRequest { id: 1, ..good() }, "INVALID_REQUEST", "1"),
        (AppendRequest { id: 9, collection: String::new(), ..good() }, "INVALID_COLLECTION_NAME", "9"),
        (AppendRequest { id: 9, ack: 7, ..good() }, "INVALID_REQUEST", "9"),
        (AppendRequest { id: 9, producer_id: "p".into(), ..good() }, "INVALID_REQUEST", "9"),
        (AppendRequest { id: 9, ..request("c", &[&vec![0; (16 << 20) + 1]]) }, "ENTRY_TOO_LARGE", "9"),
        (AppendRequest { id: 9, ..request("c", &[third.as_slice(); 3]) }, "BATCH_TOO_LARGE", "9"),
    ];
    for (wrong, reason, id) in table {
        let stream = Stream::open(&sidecar).await;
        stream.send(1, "c", "before").await;
        stream.send_request(wrong).await;
        stream.send(10, "c", "after").await;
        let (replies, end) = stream.rest().await;
        assert_eq!(replies.len(), 1, "{reason}");
        let error = typed(&end.expect(reason));
        assert_eq!(error.reason, reason);
        assert_eq!(error.details.get("requestId").map(String::as_str), Some(id), "{reason}");
    }
    let read = payloads(&mut sidecar.grpc(), "c").await;
    assert!(read.iter().all(|payload| payload == b"before"));
}

#[tokio::test]
async fn a_message_above_48_mib_is_refused_when_its_length_is_known() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let huge = AppendRequest { id: 3, ..request("c", &[&vec![0; 49 << 20]]) };
    let mut client = sidecar.grpc().max_encoding_message_size(64 << 20);
    let error = refused(&mut client, huge).await;
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "BATCH_TOO_LARGE"));
    assert_eq!(error.details.get("requestId").map(String::as_str), Some("3"));
}

#[tokio::test]
async fn what_cannot_be_decoded_is_an_invalid_request() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut channel = grpc::channel(&sidecar.setup.socket());
    // A length that runs out of the message.
    let body = [0u8, 0, 0, 0, 2, 0x12, 0x7f];
    let request = hyper::Request::post("http://x/walstorage.v1.Wal/AppendBatch")
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::copy_from_slice(&body))))
        .unwrap();
    let response = tower::ServiceExt::ready(&mut channel).await.unwrap();
    let response = tower::Service::call(response, request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).expect("a status in the headers");
    let error = typed(&status);
    assert_eq!((error.code, error.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{status:?}");
}

#[tokio::test]
async fn a_deadline_ends_a_follower() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"x"]).await;
    let mut request = Request::new(ReadRequest { collection: "c".into(), follow: true, ..ReadRequest::default() });
    // Only the header: the client itself must not give up first.
    request.metadata_mut().insert("grpc-timeout", "200m".parse().unwrap());
    let mut replies = client.read(request).await.unwrap().into_inner();
    let first = tokio::time::timeout(DEADLINE, replies.message()).await.unwrap().unwrap().expect("an entry");
    assert_eq!(first.items.len(), 1);
    let end = tokio::time::timeout(DEADLINE, replies.message()).await.expect("an end").unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_follower_overtaken_by_a_truncate_ends_out_of_range() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut client = sidecar.grpc();
    append(&mut client, "c", &[b"1", b"2", b"3"]).await;
    truncate(&mut client, "c", 2).await;
    let from_two = ReadRequest { collection: "c".into(), from: 2, ..ReadRequest::default() };
    let error = typed(&client.read(from_two).await.map(|_| ()).unwrap_err());
    assert_eq!((error.code, error.reason.as_str()), (Code::OutOfRange, "OUT_OF_RANGE"));
    assert_eq!(error.details.get("first").map(String::as_str), Some("3"));
    let ahead = ReadRequest { collection: "c".into(), from: 5, ..ReadRequest::default() };
    let error = typed(&client.read(ahead).await.map(|_| ()).unwrap_err());
    assert_eq!(error.reason, "AHEAD_OF_LOG");
    assert_eq!(error.details.get("durableHead").map(String::as_str), Some("3"));
}

#[tokio::test]
async fn a_stop_answers_what_was_accepted_and_refuses_the_rest() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut stream = Stream::open(&sidecar).await;
    stream.send(1, "c", "x").await;
    assert_eq!(stream.next().await.unwrap().unwrap().id, 1);
    sidecar.signal(rustix::process::Signal::TERM);
    let (replies, end) = stream.rest().await;
    assert!(replies.is_empty());
    let error = typed(&end.expect("a refusal"));
    assert_eq!((error.code, error.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    assert_eq!(error.details.get("requestId").map(String::as_str), Some("2"), "the first refused id");
    assert_eq!(sidecar.exit().await.code(), Some(0));
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(payloads(&mut sidecar.grpc(), "c").await, [b"x"]);
}

#[tokio::test]
async fn health_says_whether_appends_are_taken() {
    let sidecar = Sidecar::ready(Setup::new(1)).await;
    let mut health = HealthClient::new(grpc::channel(&sidecar.setup.socket()));
    for service in ["", "walstorage.v1.Wal"] {
        let request = HealthCheckRequest { service: service.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service:?}");
    }
    let request = HealthCheckRequest { service: "other".into() };
    assert_eq!(health.check(request.clone()).await.unwrap_err().code(), Code::NotFound);
    let mut watched = health.watch(request).await.unwrap().into_inner();
    let unknown = tokio::time::timeout(Duration::from_secs(60), watched.message()).await.unwrap().unwrap();
    assert_eq!(unknown.unwrap().status, 3);
}
