//! A store of buckets for the pods of a cluster: moto, behind a door that knows who may come in and that says no in the words
//! of the cloud when a test asks it to.
//!
//! moto serves this machine only and believes every signature. The door listens where pods reach it, by HTTP or by HTTPS under an
//! authority of its own, and lets in whose key was given out: by a test, or by moto in exchange for a token.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, DATE, IF_NONE_MATCH, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::Cluster;
use crate::binaries::repository;
use crate::skip::skipped;

/// The key that is given out first.
pub const KEY: &str = "AKIAFIRST";

/// What the store says to whoever comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// To creates: not allowed.
    DeniedWrite,
    /// The bucket is in another region.
    WrongRegion,
    /// The credentials have expired.
    Expired,
    /// The request is of another time.
    Skewed,
    /// To creates: yes, whatever is there.
    CreatesTwice,
}

impl Refusal {
    /// The answer; nothing where the request goes on to moto.
    fn answer(self, method: &Method) -> Option<Response<Full<Bytes>>> {
        let (status, code) = match self {
            Self::DeniedWrite if method == Method::PUT => (StatusCode::FORBIDDEN, "AccessDenied"),
            Self::DeniedWrite | Self::CreatesTwice => return None,
            Self::WrongRegion => (StatusCode::MOVED_PERMANENTLY, "PermanentRedirect"),
            Self::Expired => (StatusCode::BAD_REQUEST, "ExpiredToken"),
            Self::Skewed => (StatusCode::FORBIDDEN, "RequestTimeTooSkewed"),
        };
        let mut answer = error(status, code);
        match self {
            Self::WrongRegion => drop(answer.headers_mut().insert("x-amz-bucket-region", "eu-west-1".parse().ok()?)),
            Self::Skewed => drop(answer.headers_mut().insert(DATE, "Sun, 29 Nov 2020 00:00:00 GMT".parse().ok()?)),
            Self::DeniedWrite | Self::Expired | Self::CreatesTwice => {}
        }
        Some(answer)
    }
}

fn error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let text =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
}

#[derive(Debug, Default)]
struct Rules {
    keys: BTreeSet<String>,
    refusal: Option<Refusal>,
    /// What stood in the tokens that were exchanged for keys.
    tokens: Vec<Value>,
}

/// A store. Its door closes on drop; what is in moto stays until the test's program ends.
#[derive(Debug)]
pub struct Store {
    address: SocketAddr,
    /// Its certificate, where it speaks HTTPS.
    authority: Option<String>,
    moto: String,
    rules: Arc<Mutex<Rules>>,
    _serving: JoinSet<()>,
}

impl Store {
    /// Opens a store that speaks HTTP to the pods of a cluster. `None`, said for `test`, where moto is not installed.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn open_or_skip(test: &str, cluster: &Cluster) -> Result<Option<Self>> {
        Self::open(test, cluster, false).await
    }

    /// Opens one that speaks HTTPS under an authority that nobody knows.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn private_or_skip(test: &str, cluster: &Cluster) -> Result<Option<Self>> {
        Self::open(test, cluster, true).await
    }

    async fn open(test: &str, cluster: &Cluster, private: bool) -> Result<Option<Self>> {
        let Some(moto) = moto() else {
            skipped(test, "no emulator of S3: WALSTORAGE_PYTHON says where it is installed");
            return Ok(None);
        };
        let listener = TcpListener::bind((cluster.host_address(), 0)).await?;
        let address = listener.local_addr()?;
        let (tls, authority) = if private {
            certified(&address.ip().to_string()).map(|(tls, pem)| (Some(tls), Some(pem)))?
        } else {
            (None, None)
        };
        let rules = Arc::new(Mutex::new(Rules { keys: [KEY.to_owned()].into(), ..Rules::default() }));
        let door = Door { moto: moto.clone(), rules: Arc::clone(&rules) };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (door, tls) = (door.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => door.serve(stream).await,
                        // Who does not trust it goes away.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                door.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Ok(Some(Self { address, authority, moto, rules, _serving: serving }))
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of its authority, in PEM; empty where it speaks HTTP.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_deref().unwrap_or_default()
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// When moto does not.
    pub async fn make(&self, bucket: &str) -> Result<()> {
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={KEY}/20261130/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = Request::put(format!("/{bucket}")).header("host", &self.moto).header(AUTHORIZATION, signed);
        let answer = send(&self.moto, request.body(Full::default())?).await?;
        ensure!(answer.status().is_success(), "moto makes no bucket {bucket}: {}", answer.status());
        Ok(())
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    /// From now on this key is the only one that a test has given out.
    pub fn give_out_only(&self, key: &str) {
        self.rules().keys = [key.to_owned()].into();
    }

    /// From now on it refuses so; with `None`, nobody who may come in.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.rules().refusal = refusal;
    }

    /// What stood in the tokens that were exchanged for keys, in their order.
    #[must_use]
    pub fn tokens(&self) -> Vec<Value> {
        self.rules().tokens.clone()
    }

    /// What a WalStorage says of a bucket here, with more of its `bucket`.
    #[must_use]
    pub fn url(&self, name: &str, bucket: &str, more: &Value) -> Value {
        let mut spec =
            json!({"endpoint": self.endpoint(), "region": "us-east-1", "allowHttp": self.authority.is_none()});
        if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
            spec.extend(more.clone());
        }
        json!({"name": name, "url": format!("s3://{bucket}/wal"), "bucket": spec})
    }
}

/// A Secret with a key of the store, as a user writes it.
#[must_use]
pub fn secret(name: &str, key: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"access_key_id": key, "secret_access_key": "secret"}})
}

fn lock(rules: &Mutex<Rules>) -> MutexGuard<'_, Rules> {
    // Nothing is done under the lock that could leave it half done.
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Door {
    moto: String,
    rules: Arc<Mutex<Rules>>,
}

impl Door {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(move |request| {
            let door = self.clone();
            async move {
                let failed = |error: anyhow::Error| self::error(StatusCode::BAD_GATEWAY, &format!("{error:#}"));
                Ok::<_, Infallible>(door.pass(request).await.unwrap_or_else(failed))
            }
        });
        // A pod that is killed breaks its connections.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let signed = head.headers.get(AUTHORIZATION).and_then(|signed| signed.to_str().ok()).unwrap_or_default();
        let key = between(signed, "Credential=", "/").map(str::to_owned);
        let token = between(std::str::from_utf8(&body).unwrap_or_default(), "WebIdentityToken=", "&").or(between(
            head.uri.query().unwrap_or_default(),
            "WebIdentityToken=",
            "&",
        ));
        let refusal = {
            let mut rules = lock(&self.rules);
            match (&key, token) {
                (Some(key), _) if rules.keys.contains(key) => rules.refusal,
                (None, Some(token)) => {
                    rules.tokens.push(claims(token)?);
                    None
                }
                _ => return Ok(error(StatusCode::FORBIDDEN, "InvalidAccessKeyId")),
            }
        };
        if let Some(answer) = refusal.and_then(|refusal| refusal.answer(&head.method)) {
            return Ok(answer);
        }
        if refusal == Some(Refusal::CreatesTwice) {
            head.headers.remove(IF_NONE_MATCH);
        }
        for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let answer = send(&self.moto, Request::from_parts(head, Full::new(body))).await?;
        let text = std::str::from_utf8(answer.body()).unwrap_or_default();
        if let Some(key) = between(text, "<AccessKeyId>", "</AccessKeyId>") {
            lock(&self.rules).keys.insert(key.to_owned());
        }
        Ok(answer.map(Full::new))
    }
}

/// What stands between two texts, or behind the first.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split(after).next().unwrap_or(rest))
}

/// The claims of a token, which is not verified: the API server has signed it.
fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("a token of three parts")?;
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in payload.bytes() {
        bits = (bits << 6) | u32::from(digit(byte).context("not base64url")?);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff)?);
        }
    }
    Ok(serde_json::from_slice(&bytes)?)
}

/// Sends a request over a connection of its own.
async fn send(address: &str, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let (mut head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        // The length of what a HEAD asks for stands in no body.
        if name != CONTENT_LENGTH || !body.is_empty() {
            head.headers.remove(name);
        }
    }
    Ok(Response::from_parts(head, body))
}

/// A server's side of TLS for an address, and the certificate of who vouches for it.
fn certified(address: &str) -> Result<(TlsAcceptor, String)> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "the team's own");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new([address.to_owned()])?.signed_by(&key, &authority)?;
    let tls = ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
    Ok((TlsAcceptor::from(Arc::new(tls)), authority.pem()))
}

/// The address of this program's moto; it ends with the program, whose end its standard input is.
fn moto() -> Option<String> {
    static MOTO: OnceLock<Option<(Child, String)>> = OnceLock::new();
    let start = || {
        let python = std::env::var_os("WALSTORAGE_PYTHON")?;
        let mut child = Command::new(python)
            .arg(repository().join("tests/python/moto_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("moto starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.trim().strip_prefix("http://").expect("an address").to_owned();
        Some((child, address))
    };
    MOTO.get_or_init(start).as_ref().map(|(_, address)| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claims_of_a_token_are_read() {
        // {"aud":["a~"],"sub":"??"}
        let token = "x.eyJhdWQiOlsiYX4iXSwic3ViIjoiPz8ifQ.y";
        assert_eq!(claims(token).unwrap(), json!({"aud": ["a~"], "sub": "??"}));
        assert!(claims("x").is_err() && claims("x.%.y").is_err());
    }
}
