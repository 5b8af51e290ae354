//! The socket and the admin port: messages in, calls of the engine, messages out.
//!
//! 1. Every request is answered: a panic of a handler becomes a typed error, and the stop waits for what is under way.
//! 2. What a request says is checked here, once, before the engine sees it; what is durable only the engine knows.
//! 3. Nothing is buffered that is not bounded: see `grpc::receive`, `rest::body` and the windows in `listen`.

mod calls;
pub mod convert;
mod grpc;
mod probes;
pub mod problem;
mod rest;
pub mod socket;
pub mod status;
mod stream;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::StdError;

use self::problem::{Problem, panicked};
use self::status::ConfigReport;
use self::stream::SocketStream;
use crate::engine::Engine;
use crate::engine::api::Item;
use crate::metrics::Metrics;
use crate::proto;
use crate::proto::errors::to_status;

/// What every connection shares.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: Arc<Mutex<ConfigReport>>,
    /// New work is refused.
    pub(crate) stopping: CancellationToken,
    /// Connections end.
    pub(crate) closing: CancellationToken,
}

impl Shared {
    pub(crate) fn status(&self) -> proto::Status {
        let config = self.config.lock().clone();
        status::message(self.engine.status(), config)
    }

    /// Gaps that a reader is told of are counted.
    pub(crate) fn count_gaps(&self, items: &[Item]) {
        for item in items {
            if let Item::Gap { first, last, .. } = item {
                self.metrics.gap(last.0.saturating_sub(first.0).saturating_add(1));
            }
        }
    }
}

/// Serves an engine. Cheap to clone; every clone is the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    connections: TaskTracker,
}

/// HTTP/2 windows: what a client may send before it is read. Bounds what is buffered before it is counted.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Large frames: fewer pieces to a message.
const MAX_FRAME: u32 = 256 << 10;

/// Most calls at once on one connection.
const MAX_STREAMS: u32 = 1000;

/// After a failed accept (out of file descriptors), how long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// A server that listens nowhere yet.
    #[must_use]
    pub fn new(engine: Engine, metrics: Arc<Metrics>, config: Arc<Mutex<ConfigReport>>) -> Self {
        let (stopping, closing) = (CancellationToken::new(), CancellationToken::new());
        let shared = Arc::new(Shared { engine, metrics, config, stopping, closing });
        Self { shared, connections: TaskTracker::new() }
    }

    /// Serves gRPC and HTTP on the unix socket until [`Self::close`]. One of two protocols is chosen by a connection's
    /// first bytes.
    pub async fn serve_socket(&self, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shared.closing.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => match SocketStream::new(stream) {
                    Ok(stream) => self.connect(stream, Door::Socket),
                    Err(e) => pause_after(&e).await,
                },
                Err(e) => pause_after(&e).await,
            }
        }
    }

    /// Serves health, metrics and status on the admin port until [`Self::close`].
    pub async fn serve_admin(&self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shared.closing.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => self.connect(stream, Door::Admin),
                Err(e) => pause_after(&e).await,
            }
        }
    }

    /// Appends of open streams are refused from here on; what is under way goes on.
    pub fn refuse_new(&self) {
        self.shared.stopping.cancel();
    }

    /// Ends all connections: each finishes the answers that it owes, for at most `patience`.
    pub async fn close(&self, patience: Duration) {
        self.shared.stopping.cancel();
        self.shared.closing.cancel();
        self.connections.close();
        if tokio::time::timeout(patience, self.connections.wait()).await.is_err() {
            tracing::warn!(open = self.connections.len(), "connections did not end in time and are cut");
        }
    }

    fn connect(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, door: Door) {
        let shared = self.shared.clone();
        self.connections.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(shared, request, door).await) }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
            builder
                .http2()
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(MAX_FRAME)
                .max_concurrent_streams(MAX_STREAMS);
            let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
            let result = tokio::select! {
                result = connection.as_mut() => result,
                () = shared.closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = result {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}

async fn pause_after(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Where a connection came in.
#[derive(Clone, Copy)]
enum Door {
    Socket,
    Admin,
}

/// Answers one request, whatever happens.
async fn answer<B>(shared: Arc<Shared>, request: Request<B>, door: Door) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError>,
{
    match door {
        Door::Socket if grpc::is_grpc(request.headers()) => {
            let answer = AssertUnwindSafe(grpc::serve(shared, request)).catch_unwind().await;
            answer.unwrap_or_else(|_| to_status(&panicked()).into_http())
        }
        Door::Socket => {
            let answer = AssertUnwindSafe(rest::serve(shared, request)).catch_unwind().await;
            answer.unwrap_or_else(|_| Problem::from(panicked()).into_response())
        }
        Door::Admin => {
            let answer = AssertUnwindSafe(async { admin(&shared, &request) }).catch_unwind().await;
            answer.unwrap_or_else(|_| Problem::from(panicked()).into_response())
        }
    }
}

fn admin<B>(shared: &Shared, request: &Request<B>) -> Response<Body> {
    let path = request.uri().path();
    match probes::Page::parse(path) {
        Some(page) if request.method() == ::http::Method::GET => page.answer(shared),
        Some(_) => {
            let message = format!("{} is not a method of {path}: use GET", request.method());
            let mut problem = Problem::http(StatusCode::METHOD_NOT_ALLOWED, message);
            problem.allow = Some("GET");
            problem.into_response()
        }
        None => {
            let message =
                format!("there is nothing at {path}: /livez, /readyz, /startedz, /metrics and /status are here");
            Problem::http(StatusCode::NOT_FOUND, message).into_response()
        }
    }
}
