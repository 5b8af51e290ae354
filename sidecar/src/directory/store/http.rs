//! How requests are sent: one attempt each, over HTTP/1.1 and rustls, within bounds of time and number. What comes of an
//! attempt that is not a success is kept whole, headers included: the error that passes through `object_store` has a
//! [`Failure`] at its root.
//!
//! Invariants:
//! 1. A request is sent once. Only one of which nothing was written yet, because a pooled connection turned out to be
//!    closed, goes out over another connection.
//! 2. Plain HTTP is spoken only where it was allowed, and with metadata services, which speak nothing else.
//! 3. Every wait ends.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{DATE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientConfigKey;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::Limits;

/// As whom the process introduces itself.
const AGENT: &str = concat!("walstorage/", env!("CARGO_PKG_VERSION"));
/// So much of an answer that says no is read.
const MOST_OF_A_REFUSAL: usize = 64 * 1024;
/// A request may take a second longer for each of these.
const SLOWEST: u64 = 1 << 20;

/// What an attempt came to that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The server says no.
    #[error("{0}")]
    Answered(Box<Answer>),
    /// No connection.
    #[error("no connection to {host}: {why}")]
    Unreachable { host: String, why: String },
    /// Whether the request took effect is not known.
    #[error("{host} gave no answer: {why}")]
    NoAnswer { host: String, why: String },
    /// Not sent.
    #[error("{host} speaks plain HTTP")]
    PlainHttp { host: String },
}

impl Failure {
    /// The host that was asked.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Answered(answer) => &answer.host,
            Self::Unreachable { host, .. } | Self::NoAnswer { host, .. } | Self::PlainHttp { host } => host,
        }
    }
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) host: String,
    pub(super) status: StatusCode,
    /// The name that the server has for it.
    pub(super) code: Option<String>,
    /// The server's words, on one line.
    pub(super) message: String,
    /// All that it said.
    pub(super) body: String,
    pub(super) retry_after: Option<Duration>,
    /// The server's time.
    pub(super) date: Option<String>,
    /// Where the bucket is, as S3 says with a redirection.
    pub(super) region: Option<String>,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} says {}", self.host, self.status.as_u16())?;
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl Answer {
    pub(super) fn new(host: String, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = String::from_utf8_lossy(body).into_owned();
        let (code, message) = said(&body);
        let retry_after =
            header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Self {
            host,
            status,
            code: header("x-ms-error-code").or(code),
            message: message.unwrap_or_default().lines().next().unwrap_or_default().chars().take(300).collect(),
            retry_after,
            date: header(DATE.as_str()),
            region: header("x-amz-bucket-region").or_else(|| between(&body, "Region")),
            body,
        }
    }
}

/// The text of an XML element without others in it.
fn between(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(
        text.replace("&apos;", "'")
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}

/// Code and message of an error in XML, or in the JSON of token services.
fn said(body: &str) -> (Option<String>, Option<String>) {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(body) else {
        return (between(body, "Code"), between(body, "Message"));
    };
    let text = |pointer: &str| json.pointer(pointer).and_then(|value| value.as_str()).map(str::to_owned);
    let code = text("/error").or_else(|| text("/error/status")).or_else(|| text("/code"));
    let message = text("/error_description").or_else(|| text("/error/message")).or_else(|| text("/message"));
    (code, message)
}

type Https = HttpsConnector<Tcp>;

/// The connections to one store and to those that vouch for us.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    client: Client<Https, HttpRequestBody>,
    permits: Arc<Semaphore>,
    limits: Limits,
    /// Counts answers that are a success, and the parts of their bodies.
    heard: Arc<AtomicU64>,
}

impl Transport {
    /// `extra`: certificates (PEM) to trust besides the public ones.
    ///
    /// # Errors
    /// When those are none; the text says why.
    pub(super) fn new(extra: Option<&[u8]>, limits: Limits, heard: Arc<AtomicU64>) -> Result<Self, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(pem) = extra {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            if roots.len() == before {
                return Err("there is no certificate in it".into());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limits.connect));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits.idle_connection)
            .build(https);
        Ok(Self { client, permits: Arc::new(Semaphore::new(limits.at_once)), limits, heard })
    }

    /// A client; `plain`: it may speak HTTP without TLS.
    pub(super) fn http_client(&self, plain: bool) -> HttpClient {
        HttpClient::new(Plain { transport: self.clone(), allowed: plain })
    }

    async fn send(&self, mut request: HttpRequest) -> Result<HttpResponse, Failure> {
        let host = host(&request);
        let closed = |_| Failure::NoAnswer { host: host.clone(), why: "shutting down".into() };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let length = request.body().content_length() as u64;
        let within = self.limits.answer + Duration::from_secs(length / SLOWEST);
        let response = match timeout(within, self.client.request(request)).await {
            Err(_) => return Err(Failure::NoAnswer { host, why: format!("nothing within {within:?}") }),
            Ok(Err(error)) if error.is_connect() => return Err(Failure::Unreachable { host, why: causes(&error) }),
            Ok(Err(error)) => return Err(Failure::NoAnswer { host, why: causes(&error) }),
            Ok(Ok(response)) => response,
        };
        let (parts, incoming) = response.into_parts();
        let mut body = Timed { incoming, idle: self.limits.answer, sleep: None, host, _permit: permit };
        if parts.status.is_success() {
            let heard = Arc::clone(&self.heard);
            heard.fetch_add(1, Ordering::Relaxed);
            let body = body.map_err(error).map_frame(move |frame| {
                heard.fetch_add(1, Ordering::Relaxed);
                frame
            });
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let mut read = BytesMut::new();
        // What it said before it stopped is all there is to be had.
        while let Some(Ok(frame)) = body.frame().await {
            read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| &data[..]));
            if read.len() > MOST_OF_A_REFUSAL {
                break;
            }
        }
        let answer = Answer::new(body.host, parts.status, &parts.headers, &read);
        Err(Failure::Answered(Box::new(answer)))
    }
}

impl HttpConnector for Transport {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|value| value == "true");
        Ok(self.http_client(allowed))
    }
}

/// The transport, and whether TLS may be left out.
#[derive(Clone, Debug)]
struct Plain {
    transport: Transport,
    allowed: bool,
}

#[async_trait]
impl HttpService for Plain {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !self.allowed && request.uri().scheme_str() != Some("https") {
            return Err(error(Failure::PlainHttp { host: host(&request) }));
        }
        self.transport.send(request).await.map_err(error)
    }
}

fn host(request: &HttpRequest) -> String {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    authority.or_else(|| Some(request.headers().get(HOST)?.to_str().ok()?.to_owned())).unwrap_or_default()
}

/// Of a kind that nobody repeats.
fn error(failure: Failure) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, failure)
}

/// An error with what is behind it; what repeats is left out.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A body of which something must arrive within `idle`, again and again; it keeps the request's place until it ends.
struct Timed {
    incoming: Incoming,
    idle: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    host: String,
    _permit: OwnedSemaphorePermit,
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        let failed = |why: String| Failure::NoAnswer { host: this.host.clone(), why };
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.sleep = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| failed(error.to_string()))));
        }
        let idle = this.idle;
        ready!(this.sleep.get_or_insert_with(|| Box::pin(sleep(idle))).as_mut().poll(cx));
        Poll::Ready(Some(Err(failed(format!("the answer stopped for {idle:?}")))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
