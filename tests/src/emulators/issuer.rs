//! Whoever gives a process an identity in three clouds, and a store that only looks at it: machines' metadata, a pod's agent, the
//! exchanges of tokens. One server under two names: who is asked for an identity is told from the store by its name.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::tls;

/// The token of a workload that is to be exchanged.
pub const SUBJECT: &str = "the-token-of-the-workload";

type Answer = Response<Full<Bytes>>;

#[derive(Default)]
struct Seen {
    refuses: bool,
    /// The headers by which the store was last told who asks.
    presented: Option<BTreeMap<String, String>>,
}

/// The server; ends when dropped.
pub struct Issuer {
    /// Where identities are given.
    pub identities: String,
    /// Where the store is. It lets nobody do anything.
    pub store: String,
    /// The certificate of who vouches for both, as PEM.
    pub certificate: String,
    seen: Arc<Mutex<Seen>>,
    _serving: JoinSet<()>,
}

impl Issuer {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (tls, certificate) = tls::private();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut serving = JoinSet::new();
        let served = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&served);
                let tls = tls.clone();
                let service = service_fn(move |request| {
                    let seen = Arc::clone(&seen);
                    async move { Ok::<_, Infallible>(serve(&seen, request).await) }
                });
                connections.spawn(async move {
                    // A client may go away at any time.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self {
            identities: format!("https://localhost:{port}"),
            store: format!("https://127.0.0.1:{port}"),
            certificate,
            seen,
            _serving: serving,
        }
    }

    /// From now on nobody is given an identity.
    pub fn refuse(&self) {
        self.seen.lock().refuses = true;
    }

    /// As whom the store was last asked: its header `authorization`, and that of a session's token where there was one.
    #[must_use]
    pub fn presented(&self) -> Option<(String, Option<String>)> {
        let seen = self.seen.lock();
        let headers = seen.presented.as_ref()?;
        Some((headers.get("authorization")?.clone(), headers.get("x-amz-security-token").cloned()))
    }
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    answer
}

/// Keys for a while, as Amazon's metadata servers give them.
fn keys(of: &str) -> String {
    json!({
        "Code": "Success",
        "AccessKeyId": format!("ASIA{of}"),
        "SecretAccessKey": "secret",
        "Token": format!("session-{of}"),
        "Expiration": "2100-01-01T00:00:00Z",
    })
    .to_string()
}

fn bearer(of: &str) -> String {
    json!({"access_token": of, "expires_in": 3600, "expires_on": "4102444800", "token_type": "Bearer"}).to_string()
}

async fn serve(seen: &Mutex<Seen>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return answer(StatusCode::BAD_REQUEST, "") };
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("host").starts_with("127.0.0.1") {
        let headers =
            parts.headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        seen.lock().presented = Some(headers.collect());
        return answer(StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code><Message>nobody may</Message></Error>");
    }
    if seen.lock().refuses {
        let said = json!({"error": "invalid_grant", "error_description": "nobody is trusted here"});
        return answer(StatusCode::BAD_REQUEST, said.to_string());
    }
    let query = parts.uri.query().unwrap_or_default();
    let of_machine = header("x-aws-ec2-metadata-token") == "asked-first";
    let given = match (&parts.method, parts.uri.path()) {
        (&Method::PUT, "/latest/api/token") => Some("asked-first".to_owned()),
        (&Method::GET, "/latest/meta-data/iam/security-credentials/") if of_machine => Some("role".to_owned()),
        (&Method::GET, "/latest/meta-data/iam/security-credentials/role") if of_machine => Some(keys("MACHINE")),
        (&Method::GET, "/pod") if header("authorization") == SUBJECT => Some(keys("POD")),
        (&Method::POST, "/") if query.contains(&format!("WebIdentityToken={SUBJECT}")) => Some(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>session-ROLE</SessionToken>\
             <Expiration>2100-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             </AssumeRoleWithWebIdentityResponse>"
                .to_owned(),
        ),
        (&Method::POST, "/tenant-1/oauth2/v2.0/token") if body.contains("client_id=client-1") => {
            let secret = body.contains("client_secret=a+secret");
            let federated = body.contains(&format!("client_assertion={SUBJECT}"));
            secret.then(|| bearer("of-a-secret")).or_else(|| federated.then(|| bearer("of-a-workload")))
        }
        (&Method::GET, "/machine") if header("metadata") == "true" && query.contains("resource=https") => {
            Some(bearer("of-a-machine"))
        }
        (&Method::POST, "/pool") if body.contains(SUBJECT) && body.contains("//iam.googleapis.com/pool-1") => {
            Some(bearer("of-a-pool"))
        }
        (&Method::POST, "/v1/projects/-/serviceAccounts/wal@shop.iam:generateAccessToken")
            if header("authorization") == "Bearer of-a-pool" =>
        {
            Some(json!({"accessToken": "of-an-account", "expireTime": "2100-01-01T00:00:00Z"}).to_string())
        }
        _ => None,
    };
    match given {
        Some(given) => answer(StatusCode::OK, given),
        None => answer(StatusCode::BAD_REQUEST, json!({"error": "invalid_request"}).to_string()),
    }
}
