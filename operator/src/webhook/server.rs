//! The port that the API server calls: TLS, HTTP/1.1 or HTTP/2, `POST /mutate`. Bounded in connections, in what one request
//! may send and in how long a handshake or a request's head may take: it is open to the whole cluster network.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Cluster};
use super::review::Review;
use crate::process::metrics::{OfResult, WebhookMetrics};

/// Connections at the same time; an API server needs few.
const CONNECTIONS: usize = 512;
/// Largest request: an API server takes objects of 3 MiB, and sends little else with one.
const BODY_MAX: usize = 8 << 20;
/// How long a handshake, or a request's head, may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What answers.
pub struct Service<C> {
    /// Decides.
    pub admission: Admission<C>,
    /// Counts.
    pub metrics: Arc<WebhookMetrics>,
}

/// Serves until `stop` is cancelled; then no more connections are taken, answers under way are given, and it returns when the
/// last connection has ended, after `grace` at the latest.
pub async fn serve<C: Cluster + 'static>(
    listener: TcpListener,
    tls: TlsAcceptor,
    service: Arc<Service<C>>,
    grace: Duration,
    stop: CancellationToken,
) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&free).acquire_owned().await.ok();
                (listener.accept().await, permit)
            } => accepted,
        };
        let (Ok((stream, _)), permit) = accepted else {
            // Out of files, mostly: others end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, service, stop) = (tls.clone(), Arc::clone(&service), stop.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, tls, service, stop).await {
                tracing::debug!(error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, all).await.is_err() {
        tracing::warn!(?grace, "connections are still open at the end");
    }
}

async fn connection<C: Cluster + 'static>(
    stream: TcpStream,
    tls: TlsAcceptor,
    service: Arc<Service<C>>,
    stop: CancellationToken,
) -> Result<(), String> {
    // A patch is small and somebody waits for it.
    let _ = stream.set_nodelay(true);
    let stream = timeout(HANDSHAKE, tls.accept(stream)).await.map_err(|_| "the handshake took too long".to_owned())?;
    let stream = stream.map_err(|error| format!("no handshake: {error}"))?;
    let service = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.respond(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(|error| error.to_string())
}

impl<C: Cluster> Service<C> {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/mutate") => {}
            (_, "/mutate") => return plain(StatusCode::METHOD_NOT_ALLOWED, "allowed: POST"),
            _ => return plain(StatusCode::NOT_FOUND, "allowed: /mutate"),
        }
        let body = match Limited::new(request.into_body(), BODY_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return self.malformed(&error.to_string()),
        };
        // From here on it takes our time. An API server that is short of processors sends a head, and the body a while later.
        let began = Instant::now();
        let review = match Review::read(&body) {
            Ok(review) => review,
            Err(error) => return self.malformed(&error),
        };
        let answer = self.admission.answer(&review, Timestamp::now()).await;
        let result = answer.result();
        if let super::review::Answer::Refuse(sentence) | super::review::Answer::Fail(sentence) = &answer {
            tracing::info!(namespace = review.namespace, result, "{sentence}");
        }
        self.metrics.requests.get_or_create(&OfResult { result }).inc();
        self.metrics.seconds.observe(began.elapsed().as_secs_f64());
        let mut response = Response::new(Full::new(Bytes::from(answer.write(&review.uid).to_string())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn malformed(&self, error: &str) -> Response<Full<Bytes>> {
        tracing::warn!(error, "a request cannot be read");
        self.metrics.requests.get_or_create(&OfResult { result: "malformed" }).inc();
        plain(StatusCode::BAD_REQUEST, error)
    }
}

fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
