//! The driver against a server that answers as the clouds' manuals say, over real connections.

mod refusals;
mod tls;

use std::collections::VecDeque;
use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

type Answer = ::http::Response<Full<Bytes>>;

/// A server that says what it was told to say, and remembers what it was asked.
struct Server {
    endpoint: String,
    asked: Arc<Mutex<Vec<::http::Request<Bytes>>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    _running: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (asked, answers) = (Arc::default(), Arc::default());
        let (told, answering): (Arc<Mutex<Vec<_>>>, Arc<Mutex<VecDeque<_>>>) =
            (Arc::clone(&asked), Arc::clone(&answers));
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (told, answering) = (Arc::clone(&told), Arc::clone(&answering));
                let service = service_fn(move |request: ::http::Request<Incoming>| {
                    let (told, answering) = (Arc::clone(&told), Arc::clone(&answering));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        told.lock().push(::http::Request::from_parts(parts, body));
                        Ok::<_, Infallible>(answering.lock().pop_front().expect("an answer for each request"))
                    }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { endpoint, asked, answers, _running: running }
    }

    fn will_say(&self, status: u16, headers: &[(&str, &str)], body: &str) {
        let mut answer = ::http::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        self.answers.lock().push_back(answer.body(Full::from(body.to_owned())).unwrap());
    }

    fn asked(&self) -> Vec<::http::Request<Bytes>> {
        std::mem::take(&mut self.asked.lock())
    }
}

const S3: &str = "s3://b/p";
const ADLS: &str = "adls://acc.dfs.core.windows.net/box/p";
const GCS: &str = "gcs://b/p";

/// A store of a scheme at an endpoint, with the files of its credentials.
fn store(url: &str, endpoint: &str, credentials: &TempDir, limits: Limits) -> BucketStore {
    let file = |name: &str, text: &str| std::fs::write(credentials.path().join(name), text).unwrap();
    match url.split_once(':').unwrap().0 {
        "s3" => {
            file("access_key_id", "AKIATEST\n");
            file("secret_access_key", "hush\n");
        }
        "adls" => file("account_key", "aHVzaA==\n"),
        _ => file(
            "service_account.json",
            r#"{"disable_oauth": true, "client_email": "a@b", "private_key": "", "private_key_id": ""}"#,
        ),
    }
    let options = UrlOptions {
        endpoint: Some(endpoint.into()),
        path_style: true,
        allow_http: true,
        credentials_dir: Some(credentials.path().to_owned()),
        ..UrlOptions::default()
    };
    BucketStore::new(&WalUrl::parse(url).unwrap(), Some("w"), &options, Environment::of(&[]), limits).unwrap()
}

/// Waits that are short, since nothing here needs them.
fn brief() -> Limits {
    Limits { first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(1), ..Limits::default() }
}

async fn create(store: &BucketStore) -> Result<(), CreateError> {
    store.create("_wal/journal/k", Bytes::from_static(b"body")).await
}

#[tokio::test]
async fn a_create_is_one_conditional_request_of_ours() {
    for (url, header, value, path) in [
        (S3, "if-none-match", "*", "/b/p/w/_wal/journal/k"),
        (ADLS, "if-none-match", "*", "/acc/box/p/w/_wal/journal/k"),
        (GCS, "x-goog-if-generation-match", "0", "/b/p%2Fw%2F%5Fwal%2Fjournal%2Fk"),
    ] {
        let (server, dir) = (Server::start().await, TempDir::new().unwrap());
        let store = store(url, &server.endpoint, &dir, brief());
        server.will_say(200, &[("etag", "\"1\""), ("x-goog-generation", "1")], "");
        create(&store).await.unwrap();
        let [request] = &server.asked()[..] else { panic!("one request") };
        assert_eq!((request.method().as_str(), request.uri().path()), ("PUT", path), "{url}");
        assert_eq!(request.headers()[header], value, "{url}");
        assert_eq!(request.headers()["user-agent"], concat!("walstorage/", env!("CARGO_PKG_VERSION")));
        assert_eq!(&request.body()[..], b"body");
        assert_eq!(store.trouble(), None);
    }
}

#[tokio::test]
async fn a_key_that_is_there_is_told_from_what_has_no_clear_answer() {
    for (url, status, code, taken) in [
        (S3, 412, "PreconditionFailed", true),
        (S3, 409, "ConditionalRequestConflict", false),
        (S3, 500, "InternalError", false),
        (ADLS, 409, "BlobAlreadyExists", true),
        (ADLS, 412, "ConditionNotMet", true),
        (ADLS, 403, "UnauthorizedBlobOverwrite", true),
        (ADLS, 409, "ContainerBeingDeleted", false),
        (GCS, 412, "PreconditionFailed", true),
        (GCS, 503, "BackendError", false),
    ] {
        let (server, dir) = (Server::start().await, TempDir::new().unwrap());
        let store = store(url, &server.endpoint, &dir, brief());
        server.will_say(status, &[("x-ms-error-code", code)], &format!("<Error><Code>{code}</Code></Error>"));
        let outcome = create(&store).await;
        match taken {
            true => assert_eq!(outcome, Err(CreateError::Taken), "{url} {status} {code}"),
            false => assert!(matches!(outcome, Err(CreateError::Unclear(_))), "{url} {status} {code}: {outcome:?}"),
        }
        assert_eq!(server.asked().len(), 1, "nothing is repeated behind the seam");
    }
}

#[tokio::test]
async fn a_repaired_file_is_enough() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let store = store(S3, &server.endpoint, &dir, brief());
    let secret = dir.path().join("secret_access_key");
    std::fs::remove_file(&secret).unwrap();
    let Err(CreateError::Denied(Denied(trouble))) = create(&store).await else { panic!("no secret") };
    assert_eq!(trouble.condition, Condition::NoCredentials);
    assert!(trouble.sentence.contains("has no secret_access_key"), "{trouble}");
    assert!(server.asked().is_empty(), "nothing was sent");
    std::fs::write(secret, "hush").unwrap();
    server.will_say(200, &[("etag", "\"1\"")], "");
    create(&store).await.unwrap();
    std::fs::write(dir.path().join("access_key_id"), "AKIAOTHER").unwrap();
    server.will_say(200, &[("etag", "\"1\"")], "");
    create(&store).await.unwrap();
    let asked = server.asked();
    let signed = |request: &::http::Request<Bytes>| request.headers()["authorization"].to_str().unwrap().to_owned();
    assert!(signed(&asked[0]).contains("AKIATEST") && signed(&asked[1]).contains("AKIAOTHER"));
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn reads_lists_and_deletions_go_on_until_there_is_an_answer() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let store = store(S3, &server.endpoint, &dir, brief());
    let failing = || server.will_say(500, &[], "<Error><Code>InternalError</Code></Error>");
    failing();
    server.will_say(
        206,
        &[
            ("content-range", "bytes 0-1/4"),
            ("content-length", "2"),
            ("etag", "\"1\""),
            ("last-modified", "Tue, 24 Nov 2020 08:00:00 GMT"),
        ],
        "bo",
    );
    assert_eq!(store.heard(), 0);
    assert_eq!(store.read("k", 0..2).await.unwrap().unwrap(), "bo");
    let heard = store.heard();
    assert!(heard > 1, "the answer and its parts: {heard}");
    server.will_say(404, &[], "<Error><Code>NoSuchKey</Code></Error>");
    assert_eq!(store.read("k", 0..2).await, Ok(None));
    assert_eq!(store.heard(), heard, "a store that says no only is none that answers");
    server.will_say(416, &[], "<Error><Code>InvalidRange</Code></Error>");
    assert_eq!(store.read("k", 9..20).await, Ok(Some(Bytes::new())));
    // Something on the way, not the store: it says nothing about the object.
    server.will_say(404, &[], "<html>no route</html>");
    server.will_say(404, &[], "<Error><Code>NoSuchKey</Code></Error>");
    assert_eq!(store.read("k", 0..2).await, Ok(None));

    let page = |key: &str, next: &str| {
        format!(
            "<ListBucketResult><Contents><Key>p/w/d/{key}</Key><LastModified>2020-11-24T08:00:00Z</LastModified><Size>1</Size></Contents>{next}</ListBucketResult>"
        )
    };
    server.will_say(
        200,
        &[],
        &page("1", "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
    );
    failing();
    // Cut off on its way.
    server.will_say(200, &[], "<ListBucketResult><Contents>");
    server.will_say(200, &[], &page("2", ""));
    assert_eq!(store.list("d/").await.unwrap(), ["d/1", "d/2"]);

    failing();
    server.will_say(204, &[], "");
    store.delete("k").await.unwrap();
    server.will_say(404, &[], "<Error><Code>NoSuchKey</Code></Error>");
    store.delete("k").await.unwrap();
    let methods: Vec<_> = server.asked().iter().map(|request| request.method().to_string()).collect();
    assert_eq!(methods.iter().filter(|method| *method == "DELETE").count(), 3, "{methods:?}");
    assert_eq!(store.trouble(), None);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_unreachable() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let endpoint = server.endpoint.clone();
    drop(server);
    let Err(CreateError::Unclear(trouble)) = create(&store(S3, &endpoint, &dir, brief())).await else {
        panic!("not there")
    };
    assert_eq!(trouble.condition, Condition::Unreachable);
    assert!(trouble.sentence.contains(endpoint.strip_prefix("http://").unwrap()), "{trouble}");
}

#[tokio::test]
async fn a_connection_that_breaks_or_stalls_is_no_answer() {
    for stalls in [false, true] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let dir = TempDir::new().unwrap();
        let limits = Limits { answer: Duration::from_millis(50), ..brief() };
        let store = store(S3, &endpoint, &dir, limits);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            if stalls {
                std::future::pending::<()>().await;
            }
        });
        let outcome = create(&store).await;
        let Err(CreateError::Unclear(trouble)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(trouble.condition, Condition::NoAnswer, "{trouble}");
    }
}

#[tokio::test]
async fn a_store_without_create_only_is_looked_at_before() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let mut store = store(S3, &server.endpoint, &dir, brief());
    store.place.unsafe_conditional = true;
    server.will_say(404, &[], "<Error><Code>NoSuchKey</Code></Error>");
    server.will_say(200, &[("etag", "\"1\"")], "");
    create(&store).await.unwrap();
    server.will_say(416, &[], "");
    assert_eq!(create(&store).await, Err(CreateError::Taken));
    assert!(server.asked().iter().all(|request| !request.headers().contains_key("if-none-match")));
}

#[tokio::test]
async fn a_ca_file_must_hold_certificates() {
    let dir = TempDir::new().unwrap();
    let mut store = store(S3, "https://127.0.0.1:1", &dir, brief());
    let ca = dir.path().join("ca.crt");
    store.place.ca_file = Some(ca.clone());
    for (text, words) in [(None, "cannot be read"), (Some(""), "there is no certificate in it")] {
        if let Some(text) = text {
            std::fs::write(&ca, text).unwrap();
        }
        let Err(CreateError::Denied(Denied(trouble))) = create(&store).await else { panic!("no certificates") };
        assert_eq!(trouble.condition, Condition::Misconfigured);
        assert!(trouble.sentence.contains(words) && trouble.sentence.contains("ca.crt"), "{trouble}");
    }
}

#[test]
fn names_are_all_different() {
    let mut names: Vec<_> = Condition::ALL.iter().map(|condition| condition.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Condition::ALL.len());
}
