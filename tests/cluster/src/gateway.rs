//! A door in front of the API server: it writes down what is written, can stop a process in the middle of a step, and can keep
//! what is read back, so that a cache does not hear of something.
//!
//! A program that is started behind it ([`crate::operator::Operator::behind`]) speaks HTTP to it, and it speaks for the
//! administrator to the API server; who the program is stands in its impersonation headers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::Connection;

/// Something that a program wrote, and what it was answered.
#[derive(Clone, Debug)]
pub struct Written {
    /// POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// The path, without the query.
    pub path: String,
    /// What was sent.
    pub sent: Value,
    /// The answer's status.
    pub status: u16,
    /// The answer: the object as it is now, or as it was deleted.
    pub answer: Value,
}

impl Written {
    /// Whether this is a call of this method to a path that ends so, of this resource.
    #[must_use]
    pub fn is(&self, method: &Method, resource: &str) -> bool {
        self.method == *method && resource_of(&self.path) == resource
    }

    /// Whether it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// What a path is about: `pods`, `walwriters/status`, …
#[must_use]
pub fn resource_of(path: &str) -> String {
    let mut parts = path.split('/').skip_while(|part| *part != "namespaces").skip(2);
    let (kind, _name, sub) = (parts.next(), parts.next(), parts.next());
    match (kind, sub) {
        (Some(kind), Some(sub)) => format!("{kind}/{sub}"),
        (Some(kind), None) => kind.to_owned(),
        (None, _) => String::new(),
    }
}

/// What several gateways wrote down, in the order of the answers.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Written>>>);

impl Log {
    /// All of it.
    ///
    /// # Panics
    /// When somebody panicked while writing.
    #[must_use]
    pub fn read(&self) -> Vec<Written> {
        self.0.lock().expect("no writer panics").clone()
    }
}

/// On which side of the API server a call is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It was sent, and is not done.
    Before,
    /// It is done, and nobody hears of it.
    After,
}

/// Which call is stopped.
type Which = Box<dyn Fn(&Method, &str, &Value) -> bool + Send>;

struct Trap {
    side: Side,
    which: Which,
    caught: oneshot::Sender<()>,
}

/// Which reads are held back.
type Reads = Box<dyn Fn(&Uri) -> bool + Send>;

/// Reads that are held back until it is dropped.
#[derive(Debug)]
pub struct Hold(watch::Sender<()>);

impl Hold {
    /// Whether one waits.
    #[must_use]
    pub fn has_caught(&self) -> bool {
        // The door itself has one.
        self.0.receiver_count() > 1
    }
}

/// Whether a read is a watch, of whatever.
#[must_use]
pub fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"))
}

#[derive(Default)]
struct Shared {
    trap: Mutex<Option<Trap>>,
    held: Mutex<Vec<(Reads, watch::Receiver<()>)>>,
}

/// The door. Closed on drop.
pub struct Gateway {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Gateway {
    /// Opens a door that writes to this log.
    ///
    /// # Errors
    /// When there is no address for it.
    pub async fn open(connection: &Connection, log: &Log) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let door = Door { client: connection.client(), log: log.clone(), shared: Arc::clone(&shared) };
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let door = door.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let door = door.clone();
                        async move { Ok::<_, Infallible>(door.pass(request).await) }
                    });
                    // A program that is killed breaks its connections.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, shared, server: server.abort_handle() })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next such call never comes back. The receiver hears of it.
    ///
    /// # Panics
    /// When somebody panicked while setting one.
    #[must_use]
    pub fn stop_at(
        &self,
        side: Side,
        which: impl Fn(&Method, &str, &Value) -> bool + Send + 'static,
    ) -> oneshot::Receiver<()> {
        let (caught, hears) = oneshot::channel();
        *self.shared.trap.lock().expect("no holder panics") = Some(Trap { side, which: Box::new(which), caught });
        hears
    }

    /// From now on such reads wait until what is returned is dropped.
    ///
    /// # Panics
    /// When somebody panicked while holding some.
    #[must_use]
    pub fn hold(&self, reads: impl Fn(&Uri) -> bool + Send + 'static) -> Hold {
        let (held, until) = watch::channel(());
        self.shared.held.lock().expect("no holder panics").push((Box::new(reads), until));
        Hold(held)
    }
}

#[derive(Clone)]
struct Door {
    client: Client,
    log: Log,
    shared: Arc<Shared>,
}

impl Door {
    async fn pass(&self, request: Request<Incoming>) -> Response<Body> {
        match self.forward(request).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = Response::new(Body::from(format!("{error:#}").into_bytes()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        for name in [HOST, CONNECTION, ACCEPT_ENCODING, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let body = body.collect().await.context("the request is cut off")?.to_bytes();
        if method == Method::GET {
            self.wait(&head.uri).await;
            let (mut head, answer) = self.client.send(Request::from_parts(head, Body::from(body))).await?.into_parts();
            unframed(&mut head);
            return Ok(Response::from_parts(head, answer));
        }
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        self.stop(Side::Before, &method, &path, &sent).await;
        let (mut head, answer) = self.client.send(Request::from_parts(head, Body::from(body))).await?.into_parts();
        unframed(&mut head);
        let answer: Bytes = answer.collect().await?.to_bytes();
        let shown = serde_json::from_slice(&answer).unwrap_or_default();
        let status = head.status.as_u16();
        let written = Written { method: method.clone(), path: path.clone(), sent: sent.clone(), status, answer: shown };
        self.log.0.lock().expect("no writer panics").push(written);
        self.stop(Side::After, &method, &path, &sent).await;
        Ok(Response::from_parts(head, Body::from(answer)))
    }

    /// Returns when nobody holds this read back.
    async fn wait(&self, uri: &Uri) {
        let held: Vec<_> = {
            let held = self.shared.held.lock().expect("no holder panics");
            held.iter().filter(|(reads, _)| reads(uri)).map(|(_, until)| until.clone()).collect()
        };
        for mut until in held {
            // An error says that whoever holds it has let go.
            while until.changed().await.is_ok() {}
        }
    }

    /// Never returns where the trap is.
    async fn stop(&self, side: Side, method: &Method, path: &str, sent: &Value) {
        let trap = {
            let mut trap = self.shared.trap.lock().expect("no holder panics");
            let hit = trap.as_ref().is_some_and(|trap| trap.side == side && (trap.which)(method, path, sent));
            if hit { trap.take() } else { None }
        };
        if let Some(trap) = trap {
            let _ = trap.caught.send(());
            std::future::pending::<()>().await;
        }
    }
}

/// The body is framed anew.
fn unframed(head: &mut http::response::Parts) {
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
}
