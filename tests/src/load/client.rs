//! A client that outlives the sidecar's kills: it plans requests, sends them over its transport, notes the outcomes, and
//! as a producer sends again what was not answered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio_stream::wrappers::ReceiverStream;

use super::ledger::{Ledger, Outcome, Sent};
use super::transport::{self, Answer, Planned};
use crate::harness::grpc;

/// The transport of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A gRPC stream with up to so many requests under way.
    Stream(usize),
    /// One gRPC call after the other.
    Unary,
    /// HTTP/1.1 with JSON bodies.
    Json,
    /// HTTP/1.1 with a payload per line.
    Lines,
}

/// One of several concurrent clients.
pub struct Client {
    number: u32,
    kind: Kind,
    /// Retries with producer sequences.
    producer: bool,
    collections: Arc<[String]>,
    ledger: Arc<Ledger>,
    rng: StdRng,
    next: u64,
    sequences: HashMap<String, u64>,
    /// As a producer: sent, and not known to be stored. Oldest first.
    pending: VecDeque<Planned>,
}

impl Client {
    /// A client that has sent nothing yet.
    #[must_use]
    pub fn new(
        number: u32,
        kind: Kind,
        producer: bool,
        collections: &Arc<[String]>,
        ledger: &Arc<Ledger>,
        seed: u64,
    ) -> Self {
        Self {
            number,
            kind,
            producer,
            collections: Arc::clone(collections),
            ledger: Arc::clone(ledger),
            rng: StdRng::seed_from_u64(seed ^ u64::from(number) << 32),
            next: 1,
            sequences: HashMap::new(),
            pending: VecDeque::new(),
        }
    }

    /// Requests of this producer that are not known to be stored.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn plan(&mut self) -> Planned {
        let id = (self.number, self.next);
        self.next += 1;
        let collection = self.collections[self.rng.random_range(0..self.collections.len())].clone();
        let size = if self.rng.random_range(0..4) == 0 { self.rng.random_range(2..20) } else { 1 };
        let rich = self.kind != Kind::Lines && self.rng.next_u32().is_multiple_of(2);
        let durable = self.producer || self.rng.random_range(0..4) > 0;
        let producer = self.producer.then(|| {
            let sequence = self.sequences.entry(collection.clone()).or_default();
            *sequence += 1;
            (format!("p{}", self.number), *sequence)
        });
        self.ledger.begin(id, Sent { collection: collection.clone(), size, rich });
        Planned { id, collection, size, rich, durable, producer }
    }

    /// Sends until the connection breaks or the sidecar refuses; or, when `stop` is set, until all that is pending is
    /// answered.
    pub async fn run(&mut self, socket: &Path, stop: &AtomicBool) {
        match self.kind {
            Kind::Stream(window) => self.stream(socket, stop, window).await,
            Kind::Unary | Kind::Json | Kind::Lines => self.one_by_one(socket, stop).await,
        }
    }

    async fn one_by_one(&mut self, socket: &Path, stop: &AtomicBool) {
        let mut client = grpc::connect(socket);
        let mut connection = None;
        loop {
            let planned = match self.pending.pop_front() {
                Some(again) => again,
                None if stop.load(Ordering::Relaxed) => return,
                None => self.plan(),
            };
            let answer = match self.kind {
                Kind::Json => transport::http(&mut connection, socket, &planned, false).await,
                Kind::Lines => transport::http(&mut connection, socket, &planned, true).await,
                Kind::Unary | Kind::Stream(_) => transport::unary(&mut client, &planned).await,
            };
            match self.note(&planned, answer) {
                Next::Done => {}
                Next::Again => {
                    self.pending.push_front(planned);
                    tokio::task::yield_now().await;
                }
                Next::End => {
                    if self.producer {
                        self.pending.push_front(planned);
                    }
                    return;
                }
            }
        }
    }

    /// Writes an answer into the ledger and says how to go on.
    fn note(&self, planned: &Planned, answer: Answer) -> Next {
        match answer {
            Answer::Told(outcome, duplicate) => {
                self.ledger.settle(planned.id, outcome);
                if duplicate && outcome != Outcome::Duplicate {
                    self.ledger.duplicate();
                }
                Next::Done
            }
            Answer::Refused(reason) => {
                self.ledger.refused(&reason);
                let over = matches!(reason.as_str(), "SHUTTING_DOWN" | "NOT_READY");
                if self.producer {
                    return if over { Next::End } else { Next::Again };
                }
                self.ledger.settle(planned.id, Outcome::Refused);
                if over { Next::End } else { Next::Done }
            }
            Answer::Broken => Next::End,
            Answer::Fault(what) => {
                self.ledger.fault(what);
                Next::End
            }
        }
    }

    async fn stream(&mut self, socket: &Path, stop: &AtomicBool, window: usize) {
        let (sender, requests) = tokio::sync::mpsc::channel(window);
        let mut client = grpc::connect(socket);
        let Ok(replies) = client.append(ReceiverStream::new(requests)).await else { return };
        let mut replies = replies.into_inner();
        let mut again = std::mem::take(&mut self.pending);
        // Sent on this stream and not answered, in order of ids.
        let mut under_way: VecDeque<Planned> = VecDeque::new();
        let mut passed_over = HashSet::new();
        let ended = loop {
            let stopping = stop.load(Ordering::Relaxed);
            while under_way.len() < window && !(stopping && again.is_empty()) {
                let planned = again.pop_front().unwrap_or_else(|| self.plan());
                let message = planned.message();
                under_way.push_back(planned);
                if sender.send(message).await.is_err() {
                    break;
                }
            }
            if under_way.is_empty() {
                break None;
            }
            match replies.message().await {
                Ok(Some(reply)) => {
                    let Some(at) = under_way.iter().position(|planned| planned.id.1 == reply.id) else {
                        self.ledger.fault(format!("client {}: a reply to nothing: {reply:?}", self.number));
                        break None;
                    };
                    let planned = under_way.remove(at).unwrap_or_else(|| unreachable!("it was found"));
                    let earlier = under_way.iter().take(at).filter(|earlier| earlier.collection == planned.collection);
                    let overtaken: Vec<u64> = earlier.map(|earlier| earlier.id.1).collect();
                    // One that failed is not answered; the stream ends because of it. Healthy disks fail none.
                    let wrong = !overtaken.is_empty() && !self.ledger.disks_fail();
                    if wrong || passed_over.contains(&reply.id) {
                        self.ledger.fault(format!("client {}: replies out of order: {reply:?}", self.number));
                    }
                    passed_over.extend(overtaken);
                    let answer = transport::told(&planned, &reply);
                    if matches!(self.note(&planned, answer), Next::End) {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        let mut refused_from = u64::MAX;
        if let Some(status) = ended {
            let typed = grpc::typed(&status);
            match transport::error(&typed.reason, &typed.durability, || format!("stream: {status}")) {
                Answer::Refused(reason) => match typed.details.get("requestId").and_then(|id| id.parse().ok()) {
                    Some(id) => {
                        refused_from = id;
                        self.ledger.refused(&reason);
                    }
                    None => self.ledger.fault(format!("a refusal without requestId: {status}")),
                },
                Answer::Fault(what) => self.ledger.fault(what),
                Answer::Told(..) | Answer::Broken => {}
            }
        }
        if self.producer {
            under_way.append(&mut again);
            self.pending = under_way;
            return;
        }
        for planned in under_way.iter().filter(|planned| planned.id.1 >= refused_from) {
            self.ledger.settle(planned.id, Outcome::Refused);
        }
        if let Some(planned) = under_way.iter().find(|planned| refused_from != u64::MAX && planned.id.1 < refused_from)
        {
            self.ledger.fault(format!("refused at {refused_from} without an answer to {planned:?} before it"));
        }
    }
}

enum Next {
    Done,
    Again,
    End,
}
