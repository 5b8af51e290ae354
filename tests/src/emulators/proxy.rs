//! A proxy between a client and a store that does to requests what networks and overloaded servers do. What it does is a
//! function of its seed and of how many requests came before.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It takes effect; the connection breaks before the answer.
    LostReply,
    /// The connection breaks; it does not take effect.
    Reset,
    /// The connection breaks; it takes effect some requests later, or never.
    Late,
    /// It takes effect, and nothing is ever answered.
    StallAfter,
    /// It does not take effect, and nothing is ever answered.
    StallBefore,
    /// It takes effect, and is answered with a failure of the server.
    FailureAfter,
    /// A failure of the server.
    Failure,
    /// "Slow down", and for how long.
    Throttled,
    /// "Another request is under way."
    Conflict,
    /// "The key is there", of a key that need not be.
    Precondition,
    /// The answer comes a few bytes at a time.
    SlowBody,
    /// The answer breaks off in the middle of its body.
    CutBody,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 12] = [
        Self::LostReply,
        Self::Reset,
        Self::Late,
        Self::StallAfter,
        Self::StallBefore,
        Self::FailureAfter,
        Self::Failure,
        Self::Throttled,
        Self::Conflict,
        Self::Precondition,
        Self::SlowBody,
        Self::CutBody,
    ];

    const fn stalls(self) -> bool {
        matches!(self, Self::StallAfter | Self::StallBefore)
    }

    /// Whether it can happen to a request of this kind.
    fn fits(self, method: &Method) -> bool {
        match self {
            Self::Conflict | Self::Precondition => *method == Method::PUT,
            Self::Late => matches!(*method, Method::PUT | Method::DELETE),
            Self::SlowBody | Self::CutBody => *method == Method::GET,
            _ => true,
        }
    }
}

/// Stalls of a proxy, at most.
const STALLS: u32 = 4;

/// A request as it is passed on.
struct Whole {
    parts: hyper::http::request::Parts,
    body: Bytes,
}

struct State {
    random: StdRng,
    /// Out of a hundred requests, so many meet a fault.
    rate: u32,
    /// So many requests may still stall: each costs its client all of its patience.
    stalls: u32,
    late: Vec<Whole>,
    counts: BTreeMap<Fault, u64>,
    /// Requests so far, by their method.
    requests: BTreeMap<String, u64>,
    /// What each request takes longer.
    delay: Duration,
}

/// A proxy; ends when dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    state: Arc<Mutex<State>>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// A proxy before the server at `upstream`; of a hundred requests `rate` meet a fault.
    pub async fn start(upstream: &str, seed: u64, rate: u32) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let state = State {
            random: StdRng::seed_from_u64(seed),
            rate,
            stalls: STALLS,
            late: Vec::new(),
            counts: BTreeMap::new(),
            requests: BTreeMap::new(),
            delay: Duration::ZERO,
        };
        let state = Arc::new(Mutex::new(state));
        let (served, upstream) = (Arc::clone(&state), upstream.to_owned());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // An answer in two pieces would wait for the acknowledgement of the first.
                let _ = stream.set_nodelay(true);
                let (state, upstream) = (Arc::clone(&served), upstream.clone());
                let service = service_fn(move |request| {
                    let (state, upstream) = (Arc::clone(&state), upstream.clone());
                    async move { serve(&state, &upstream, request).await }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // Both sides break connections here.
                    let _ = connection.await;
                });
            }
        });
        Self { address, state, _serving: serving }
    }

    /// How often which fault happened.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.state.lock().counts.clone()
    }

    /// How many requests of which method came so far.
    #[must_use]
    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.state.lock().requests.clone()
    }

    /// Each request takes so much longer from now.
    pub fn be_slow(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Passes everything on from now.
    pub fn be_kind(&self) {
        self.be_rough(0);
    }

    /// From now on so many of a hundred requests meet a fault.
    pub fn be_rough(&self, rate: u32) {
        self.state.lock().rate = rate;
    }

    /// Answers everything, whatever it answers: a stall costs a process the patience that it has with real stores.
    pub fn never_stall(&self) {
        self.state.lock().stalls = 0;
    }
}

/// The connection breaks.
#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the proxy breaks the connection")
    }
}

impl std::error::Error for Broken {}

impl From<Infallible> for Broken {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn serve(state: &Mutex<State>, upstream: &str, request: Request<Incoming>) -> Result<Response<Pieces>, Broken> {
    let (parts, body) = request.into_parts();
    let request = Whole { parts, body: body.collect().await.map_err(|_| Broken)?.to_bytes() };
    let (fault, landing, delay) = state.lock().next(&request.parts.method);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    if let Some(landing) = landing {
        let _ = pass_on(upstream, landing).await;
    }
    match fault {
        None => pass_on(upstream, request).await.map(Pieces::whole),
        Some(Fault::LostReply) => {
            pass_on(upstream, request).await?;
            Err(Broken)
        }
        Some(Fault::Reset) => Err(Broken),
        Some(Fault::Late) => {
            state.lock().late.push(request);
            Err(Broken)
        }
        Some(Fault::StallAfter) => {
            pass_on(upstream, request).await?;
            std::future::pending().await
        }
        Some(Fault::StallBefore) => std::future::pending().await,
        Some(Fault::FailureAfter) => {
            pass_on(upstream, request).await?;
            Ok(says(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"))
        }
        Some(Fault::Failure) => Ok(says(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
        Some(Fault::Throttled) => {
            let mut answer = says(StatusCode::SERVICE_UNAVAILABLE, "SlowDown");
            answer.headers_mut().insert("retry-after", 1.into());
            Ok(answer)
        }
        Some(Fault::Conflict) => Ok(says(StatusCode::CONFLICT, "ConditionalRequestConflict")),
        Some(Fault::Precondition) => Ok(says(StatusCode::PRECONDITION_FAILED, "PreconditionFailed")),
        Some(Fault::SlowBody) => pass_on(upstream, request).await.map(|answer| Pieces::slowly(answer, false)),
        Some(Fault::CutBody) => pass_on(upstream, request).await.map(|answer| Pieces::slowly(answer, true)),
    }
}

impl State {
    /// What happens to the next request, which earlier one lands now, and how long it takes.
    fn next(&mut self, method: &Method) -> (Option<Fault>, Option<Whole>, Duration) {
        *self.requests.entry(method.to_string()).or_default() += 1;
        let landing = match self.late.len() {
            0 => None,
            waiting => {
                self.random.random_bool(0.3).then(|| self.late.swap_remove(self.random.random_range(0..waiting)))
            }
        };
        let fault = (self.random.random_range(0..100) < self.rate)
            .then(|| Fault::ALL[self.random.random_range(0..Fault::ALL.len())])
            .filter(|fault| fault.fits(method) && (!fault.stalls() || self.stalls > 0));
        if let Some(fault) = fault {
            self.stalls -= u32::from(fault.stalls());
            *self.counts.entry(fault).or_default() += 1;
        }
        (fault, landing, self.delay)
    }
}

/// Sends a request to the store, over a connection of its own, and reads all of the answer.
async fn pass_on(upstream: &str, request: Whole) -> Result<Response<Bytes>, Broken> {
    let stream = TcpStream::connect(upstream).await.map_err(|_| Broken)?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Broken)?;
    let mut connections = JoinSet::new();
    connections.spawn(async move {
        let _ = connection.await;
    });
    let request = Request::from_parts(request.parts, Full::new(request.body));
    let (parts, body) = sender.send_request(request).await.map_err(|_| Broken)?.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let mut answer = Response::from_parts(parts, body);
    // Those are of the connection to the store.
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        answer.headers_mut().remove(name);
    }
    Ok(answer)
}

fn says(status: StatusCode, code: &str) -> Response<Pieces> {
    let body = format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>says the proxy</Message></Error>");
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    Pieces::whole(answer)
}

/// A body that comes whole, or in pieces with other work between them, to its end or not.
struct Pieces {
    left: Bytes,
    piece: usize,
    breaks: bool,
    yielded: bool,
}

impl Pieces {
    fn whole(answer: Response<Bytes>) -> Response<Self> {
        answer.map(|left| Self { piece: left.len(), left, breaks: false, yielded: false })
    }

    fn slowly(answer: Response<Bytes>, breaks: bool) -> Response<Self> {
        answer.map(|left| Self { piece: left.len().div_ceil(7), left, breaks, yielded: false })
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.yielded = !self.yielded;
        if self.yielded {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = self.piece.min(self.left.len());
        if piece == 0 {
            return Poll::Ready(None);
        }
        if self.breaks && self.left.len() <= 2 * piece {
            return Poll::Ready(Some(Err(Broken)));
        }
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }
}
