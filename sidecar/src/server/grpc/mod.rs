//! gRPC: service `Wal`, health and reflection. Dispatch is by path, without a router: three services need none.

mod append;
mod health;
mod read;
mod receive;
mod replies;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::{Status, Streaming};
use tonic_health::pb::health_server::HealthServer;

use self::append::AppendReplies;
use self::health::Health;
use self::read::ReadReplies;
use self::receive::{Counted, Permits};
use crate::error::ApiError;
use crate::proto::errors::to_status;
use crate::proto::wal_server::{Wal, WalServer};
use crate::proto::{self, MAX_MESSAGE_BYTES};
use crate::server::{Shared, calls};

/// Most bytes of a message to health or reflection.
const MAX_SMALL_MESSAGE: usize = 64 << 10;

/// When the caller stops waiting.
#[derive(Clone, Copy)]
struct Deadline(Option<Instant>);

/// Whether a request is gRPC.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(::http::header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one gRPC request.
pub(crate) async fn serve<B>(shared: Arc<Shared>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError>,
{
    let deadline = deadline(request.headers());
    let permits = Permits::default();
    let (mut head, body) = request.into_parts();
    head.extensions.insert(Deadline(deadline));
    head.extensions.insert(permits.clone());
    let service = head.uri.path().trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
    let request = Request::from_parts(head, Counted::new(body, shared.engine.clone(), deadline, permits));
    let answer = match service.as_str() {
        "walstorage.v1.Wal" => {
            WalServer::new(WalService(shared))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
                .call(request)
                .await
        }
        "grpc.health.v1.Health" => {
            HealthServer::new(Health(shared)).max_decoding_message_size(MAX_SMALL_MESSAGE).call(request).await
        }
        "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
            reflect(service.as_str(), request).await
        }
        _ => Ok(Status::unimplemented(format!("there is no service {service:?} here")).into_http()),
    };
    let Ok(answer) = answer;
    answer
}

/// Reflection is rare: its tables are built when it is asked for, and cost an idle process nothing.
async fn reflect<B>(service: &str, request: Request<B>) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let unusable = |e: tonic_reflection::server::Error| Ok(Status::internal(e.to_string()).into_http());
    if service.starts_with("grpc.reflection.v1.") {
        match builder.build_v1() {
            Ok(server) => server.max_decoding_message_size(MAX_SMALL_MESSAGE).call(request).await,
            Err(e) => unusable(e),
        }
    } else {
        match builder.build_v1alpha() {
            Ok(server) => server.max_decoding_message_size(MAX_SMALL_MESSAGE).call(request).await,
            Err(e) => unusable(e),
        }
    }
}

fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let timeout = headers.get("grpc-timeout")?.to_str().ok()?;
    Instant::now().checked_add(parse_timeout(timeout)?)
}

/// `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

struct WalService(Arc<Shared>);

fn deadline_of<T>(request: &tonic::Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadline>().and_then(|deadline| deadline.0)
}

fn permits_of<T>(request: &tonic::Request<T>) -> Permits {
    request.extensions().get::<Permits>().cloned().unwrap_or_default()
}

/// A reply or the status of its error.
fn reply<T>(result: Result<T, ApiError>) -> Result<tonic::Response<T>, Status> {
    result.map(tonic::Response::new).map_err(|e| to_status(&e))
}

#[tonic::async_trait]
impl Wal for WalService {
    type AppendStream = AppendReplies;
    type ReadStream = ReadReplies;

    async fn append(
        &self,
        request: tonic::Request<Streaming<proto::AppendRequest>>,
    ) -> Result<tonic::Response<AppendReplies>, Status> {
        let (permits, deadline) = (permits_of(&request), deadline_of(&request));
        Ok(tonic::Response::new(append::replies(self.0.clone(), request.into_inner(), permits, deadline)))
    }

    async fn append_batch(
        &self,
        request: tonic::Request<proto::AppendRequest>,
    ) -> Result<tonic::Response<proto::AppendReply>, Status> {
        let (permits, deadline) = (permits_of(&request), deadline_of(&request));
        // Its bytes are the engine's from here on.
        drop(permits.take(0));
        reply(calls::append(&self.0, request.into_inner(), deadline).await)
    }

    async fn read(&self, request: tonic::Request<proto::ReadRequest>) -> Result<tonic::Response<ReadReplies>, Status> {
        let deadline = deadline_of(&request);
        reply(calls::read(&self.0, request.get_ref()).map(|reader| read::replies(self.0.clone(), reader, deadline)))
    }

    async fn truncate(
        &self,
        request: tonic::Request<proto::TruncateRequest>,
    ) -> Result<tonic::Response<proto::TruncateReply>, Status> {
        let deadline = deadline_of(&request);
        reply(calls::truncate(&self.0, request.into_inner(), deadline).await)
    }

    async fn flush(
        &self,
        request: tonic::Request<proto::FlushRequest>,
    ) -> Result<tonic::Response<proto::FlushReply>, Status> {
        let deadline = deadline_of(&request);
        reply(calls::flush(&self.0, request.into_inner(), deadline).await)
    }

    async fn delete_collection(
        &self,
        request: tonic::Request<proto::DeleteCollectionRequest>,
    ) -> Result<tonic::Response<proto::DeleteCollectionReply>, Status> {
        let deadline = deadline_of(&request);
        reply(calls::delete(&self.0, request.into_inner(), deadline).await)
    }

    async fn list_collections(
        &self,
        request: tonic::Request<proto::ListCollectionsRequest>,
    ) -> Result<tonic::Response<proto::ListCollectionsReply>, Status> {
        reply(calls::list(&self.0, &request.into_inner()))
    }

    async fn get_collection(
        &self,
        request: tonic::Request<proto::GetCollectionRequest>,
    ) -> Result<tonic::Response<proto::Collection>, Status> {
        reply(calls::collection(&self.0, &request.into_inner()))
    }

    async fn get_status(
        &self,
        _request: tonic::Request<proto::GetStatusRequest>,
    ) -> Result<tonic::Response<proto::Status>, Status> {
        reply(Ok(self.0.status()))
    }

    async fn list_directories(
        &self,
        _request: tonic::Request<proto::ListDirectoriesRequest>,
    ) -> Result<tonic::Response<proto::ListDirectoriesReply>, Status> {
        reply(Ok(calls::directories(&self.0)))
    }

    async fn forget_directory(
        &self,
        request: tonic::Request<proto::ForgetDirectoryRequest>,
    ) -> Result<tonic::Response<proto::ForgetDirectoryReply>, Status> {
        let deadline = deadline_of(&request);
        reply(calls::forget(&self.0, request.into_inner(), deadline).await)
    }

    async fn drain(
        &self,
        _: tonic::Request<proto::DrainRequest>,
    ) -> Result<tonic::Response<proto::DrainReply>, Status> {
        reply(calls::drain(&self.0))
    }

    async fn prestop(
        &self,
        _request: tonic::Request<proto::PrestopRequest>,
    ) -> Result<tonic::Response<proto::PrestopReply>, Status> {
        self.0.engine.prestop();
        reply(Ok(proto::PrestopReply {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_digits_and_a_unit() {
        let table = [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("5m", Some(Duration::from_millis(5))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("123456789S", None),
            ("5é", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }
}
