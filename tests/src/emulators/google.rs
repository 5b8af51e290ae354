//! The part of Google Cloud Storage's XML API that a log needs, from memory: creation at a generation, reads of ranges,
//! lists in pages, deletion; and the token that a machine's metadata server gives, without which nothing is allowed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// When everything here was last changed.
const LONG_AGO: &str = "Tue, 24 Nov 2020 08:00:00 GMT";

/// A server with one bucket; ends when dropped.
pub struct Google {
    /// Where it serves.
    pub address: String,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
}

struct State {
    bucket: String,
    objects: BTreeMap<String, (u64, Bytes)>,
    generation: u64,
    token: String,
    ignores_conditions: bool,
}

type Answer = Response<Full<Bytes>>;

impl Google {
    /// Starts with an empty bucket.
    pub async fn start(bucket: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let state = State {
            bucket: bucket.to_owned(),
            objects: BTreeMap::new(),
            generation: 0,
            token: "token-1".into(),
            ignores_conditions: false,
        };
        let state = Arc::new(Mutex::new(state));
        let mut serving = JoinSet::new();
        let served = Arc::clone(&state);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(serve(&state, request).await) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // A client may go away at any time.
                    let _ = connection.await;
                });
            }
        });
        Self { address, state, _serving: serving }
    }

    /// Tokens given so far are worth nothing; later ones are.
    pub fn revoke(&self) {
        let mut state = self.state.lock();
        state.token.push('1');
    }

    /// Creates what is there, whatever the condition of the request says, as some servers do.
    pub fn ignore_conditions(&self) {
        self.state.lock().ignores_conditions = true;
    }
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    answer
}

fn error(status: StatusCode, code: &str) -> Answer {
    answer(status, format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} it is</Message></Error>"))
}

async fn serve(state: &Mutex<State>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    // A body that does not arrive whole makes no object.
    let Ok(body) = body.collect().await else { return error(StatusCode::BAD_REQUEST, "IncompleteBody") };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let mut state = state.lock();
    if parts.uri.path().starts_with("/computeMetadata/") {
        return match header("metadata-flavor") {
            Some("Google") => answer(
                StatusCode::OK,
                format!(r#"{{"access_token": "{}", "expires_in": 3600, "token_type": "Bearer"}}"#, state.token),
            ),
            _ => error(StatusCode::FORBIDDEN, "Forbidden"),
        };
    }
    if header("authorization") != Some(&format!("Bearer {}", state.token)) {
        return error(StatusCode::UNAUTHORIZED, "AuthenticationRequired");
    }
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if percent_decode_str(bucket).decode_utf8_lossy() != state.bucket {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
    match (parts.method, key.is_empty()) {
        (Method::GET, true) => state.list(parts.uri.query().unwrap_or_default()),
        (Method::GET, false) => state.get(&key, header("range")),
        (Method::PUT, false) => state.put(key, header("x-goog-if-generation-match"), body.to_bytes()),
        (Method::DELETE, false) => match state.objects.remove(&key) {
            Some(_) => answer(StatusCode::NO_CONTENT, ""),
            None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

impl State {
    fn put(&mut self, key: String, generation: Option<&str>, body: Bytes) -> Answer {
        // Generation 0 is that of an object that is not there.
        let there = self.objects.get(&key).map_or(0, |(generation, _)| *generation);
        let wanted = generation.filter(|_| !self.ignores_conditions);
        if wanted.is_some_and(|wanted| wanted != there.to_string()) {
            return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        self.generation += 1;
        self.objects.insert(key, (self.generation, body));
        described(answer(StatusCode::OK, ""), self.generation)
    }

    fn get(&self, key: &str, range: Option<&str>) -> Answer {
        let Some((generation, body)) = self.objects.get(key) else { return error(StatusCode::NOT_FOUND, "NoSuchKey") };
        let Some((first, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
            return described(answer(StatusCode::OK, body.clone()), *generation);
        };
        let first: usize = first.parse().expect("where the range begins");
        if first >= body.len() {
            return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        }
        let end = last.parse().map_or(body.len(), |last: usize| (last + 1).min(body.len()));
        let mut answer = answer(StatusCode::PARTIAL_CONTENT, body.slice(first..end));
        let told = format!("bytes {first}-{}/{}", end - 1, body.len());
        answer.headers_mut().insert("content-range", told.parse().expect("a header"));
        described(answer, *generation)
    }

    fn list(&self, query: &str) -> Answer {
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(key, _)| *key == name)?;
            Some(percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned())
        };
        let prefix = parameter("prefix").unwrap_or_default();
        let most = parameter("max-keys").map_or(1000, |most| most.parse().expect("a number"));
        let from = match parameter("continuation-token") {
            Some(last) => Bound::Excluded(last),
            None => Bound::Included(prefix.clone()),
        };
        let mut below =
            self.objects.range((from, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&prefix)).peekable();
        let page: Vec<_> = below.by_ref().take(most).collect();
        let mut xml = String::from("<?xml version='1.0'?><ListBucketResult>");
        for (key, (generation, body)) in &page {
            let key = key.replace('&', "&amp;").replace('<', "&lt;");
            let size = body.len();
            xml += &format!(
                "<Contents><Key>{key}</Key><LastModified>2020-11-24T08:00:00.000Z</LastModified><ETag>\"{generation}\"</ETag><Size>{size}</Size></Contents>"
            );
        }
        if let (Some(_), Some((last, _))) = (below.peek(), page.last()) {
            xml += &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>");
        }
        answer(StatusCode::OK, xml + "</ListBucketResult>")
    }
}

/// With the headers of an object.
fn described(mut answer: Answer, generation: u64) -> Answer {
    let headers = answer.headers_mut();
    headers.insert("x-goog-generation", generation.into());
    headers.insert("etag", format!("\"{generation}\"").parse().expect("a header"));
    headers.insert("last-modified", LONG_AGO.parse().expect("a header"));
    answer
}
