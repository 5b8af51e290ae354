//! The pipelined append. One task per stream does everything: it reads a request, hands it to the engine, and writes the
//! replies of a whole commit after one wake-up.
//!
//! 1. Requests are submitted one after the other, in the order of the stream.
//! 2. A refusal ends the stream: nothing after it is submitted, everything before it is answered first.
//! 3. At most [`MAX_UNDER_WAY`] requests are unanswered; beyond that, or while the engine is full, nothing is read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status, Streaming};

use crate::engine::api::{Ack, Completion, CompletionQueue};
use crate::error::{ApiError, Reason};
use crate::metrics::Waiting;
use crate::proto::errors::to_status;
use crate::proto::{AppendReply, AppendRequest};
use crate::server::Shared;
use crate::server::convert;
use crate::server::grpc::receive::Permits;
use crate::server::grpc::replies::Replies;
use crate::server::problem::panicked;

/// Most unanswered requests of one stream.
const MAX_UNDER_WAY: usize = 1024;

/// The replies of a stream of requests.
pub(crate) type AppendReplies = Pin<Box<dyn Stream<Item = Result<AppendReply, Status>> + Send>>;

pub(crate) fn replies(
    shared: Arc<Shared>,
    requests: Streaming<AppendRequest>,
    permits: Permits,
    deadline: Option<Instant>,
) -> AppendReplies {
    let call = Box::new(Call {
        waiting: shared.metrics.waiting(),
        stopping: Box::pin(shared.stopping.clone().cancelled_owned()),
        shared,
        requests,
        permits,
        deadline,
        received: 0,
        last_id: None,
        answers: CompletionQueue::new(),
        answered: Vec::new(),
        under_way: Replies::new(),
        requests_under_way: VecDeque::new(),
        first_token: 0,
        submitting: None,
        ready: VecDeque::new(),
        end: None,
    });
    let replies = stream::unfold(call, |mut call| async move { call.next().await.map(|reply| (reply, call)) });
    // The last line of defence: a bug in here must not leave the caller without an answer.
    let guarded = std::panic::AssertUnwindSafe(replies).catch_unwind();
    Box::pin(guarded.map(|reply| reply.unwrap_or_else(|_| Err(to_status(&panicked())))))
}

/// The result of handing one request in: its token and what it was.
type Submitting = Pin<Box<dyn Future<Output = (u64, Result<(), ApiError>)> + Send>>;

struct UnderWay {
    id: u64,
    level: Ack,
    started: Instant,
}

/// How the stream ends, once nothing more is read.
enum End {
    /// The client has sent all it wanted.
    Complete,
    /// With this status; `id` is the request that it is about, for choosing the first one.
    Failed { id: Option<u64>, status: Status },
}

struct Call {
    shared: Arc<Shared>,
    waiting: Waiting,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    requests: Streaming<AppendRequest>,
    permits: Permits,
    deadline: Option<Instant>,
    /// Messages received.
    received: u64,
    last_id: Option<u64>,
    answers: Arc<CompletionQueue>,
    /// Taken from there to be settled; kept for its memory.
    answered: Vec<Completion>,
    under_way: Replies<AppendReply>,
    /// By token, from `first_token`; `None` once the engine has answered.
    requests_under_way: VecDeque<Option<UnderWay>>,
    first_token: u64,
    submitting: Option<Submitting>,
    ready: VecDeque<AppendReply>,
    end: Option<End>,
}

/// What happened next.
enum Event {
    Answered,
    Received(Result<Option<AppendRequest>, Status>),
    Submitted(u64, Result<(), ApiError>),
    Stopping,
    DeadlinePassed,
}

impl Call {
    async fn next(&mut self) -> Option<Result<AppendReply, Status>> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Some(Ok(reply));
            }
            let idle = self.under_way.len() == 0 && self.submitting.is_none();
            match &self.end {
                Some(End::Complete) if idle => return None,
                Some(End::Failed { status, .. }) if idle => {
                    let status = status.clone();
                    self.end = Some(End::Complete);
                    return Some(Err(status));
                }
                _ => {}
            }
            match self.wait().await {
                Event::Answered => self.settle(),
                Event::Received(Ok(Some(request))) => self.received(request),
                Event::Received(Ok(None)) => self.finish(End::Complete),
                Event::Received(Err(status)) => self.refuse(None, status),
                Event::Submitted(_, Ok(())) => {}
                Event::Submitted(token, Err(error)) => self.refused(token, error),
                Event::Stopping => {
                    let error =
                        ApiError::new(Reason::ShuttingDown, "the sidecar is stopping: send again when it is back");
                    // Whatever comes next, by its id, is the first that is refused.
                    let next = self.last_id.map_or(0, |last| last.saturating_add(1));
                    self.refuse(None, to_status(&error.with("requestId", next)));
                }
                Event::DeadlinePassed => return Some(Err(self.deadline_passed())),
            }
        }
    }

    async fn wait(&mut self) -> Event {
        let reading = self.end.is_none() && self.submitting.is_none() && self.under_way.len() < MAX_UNDER_WAY;
        let stopping_seen = self.end.is_some();
        let deadline = self.deadline;
        let (answers, answered) = (&self.answers, &mut self.answered);
        let answered = std::future::poll_fn(|context| answers.poll_next(context, answered));
        let submitting = async {
            match &mut self.submitting {
                Some(submitting) => submitting.await,
                None => std::future::pending().await,
            }
        };
        let passed = async {
            match deadline {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = answered => Event::Answered,
            (token, result) = submitting => {
                self.submitting = None;
                Event::Submitted(token, result)
            }
            request = self.requests.message(), if reading => Event::Received(request),
            () = &mut self.stopping, if !stopping_seen => Event::Stopping,
            () = passed => Event::DeadlinePassed,
        }
    }

    fn received(&mut self, request: AppendRequest) {
        let started = Instant::now();
        let permit = self.permits.take(self.received);
        self.received += 1;
        let id = request.id;
        if let Some(last) = self.last_id
            && id <= last
        {
            let message = format!("ids rise from request to request: {id} came after {last}");
            let error = ApiError::new(Reason::InvalidRequest, message).with("requestId", id);
            return self.refuse(Some(id), to_status(&error));
        }
        self.last_id = Some(id);
        let level = convert::level(request.ack);
        let append = match convert::append(request) {
            Ok(append) => append,
            Err(error) => {
                self.shared.metrics.appended(level, Err(error.reason), started);
                return self.refuse(Some(id), to_status(&error.with("requestId", id)));
            }
        };
        let token = self.under_way.submitted(append.collection.clone());
        if self.requests_under_way.is_empty() {
            self.waiting.since(Some(started));
        }
        self.requests_under_way.push_back(Some(UnderWay { id, level, started }));
        drop(permit);
        match self.shared.engine.submit_now(append, token, &self.answers) {
            Ok(None) => {}
            Ok(Some(append)) => {
                let (engine, answers, deadline) = (self.shared.engine.clone(), self.answers.clone(), self.deadline);
                self.submitting =
                    Some(Box::pin(async move { (token, engine.submit(append, token, &answers, deadline).await) }));
            }
            Err(error) => self.refused(token, error),
        }
    }

    fn refused(&mut self, token: u64, error: ApiError) {
        self.under_way.refused(token);
        if let Some(Some(UnderWay { id, level, started })) = self.requests_under_way.pop_back() {
            self.shared.metrics.appended(level, Err(error.reason), started);
            self.refuse(Some(id), to_status(&error.with("requestId", id)));
        }
        self.note_oldest();
    }

    /// For the metric of how long the oldest append has been waiting.
    fn note_oldest(&self) {
        self.waiting.since(self.requests_under_way.front().and_then(|oldest| oldest.as_ref().map(|r| r.started)));
    }

    fn settle(&mut self) {
        let mut answered = std::mem::take(&mut self.answered);
        for Completion { token, result } in answered.drain(..) {
            let slot = token.checked_sub(self.first_token).and_then(|at| self.requests_under_way.get_mut(at as usize));
            let Some(UnderWay { id, level, started }) = slot.and_then(Option::take) else { continue };
            match result {
                Ok(appended) => {
                    self.shared.metrics.appended(level, Ok(()), started);
                    self.under_way.answered(token, convert::appended(id, appended), &mut self.ready);
                }
                Err(error) => {
                    self.shared.metrics.appended(level, Err(error.reason), started);
                    self.under_way.failed(token, &mut self.ready);
                    self.refuse(Some(id), to_status(&error.with("requestId", id)));
                }
            }
        }
        self.answered = answered;
        while let Some(None) = self.requests_under_way.front() {
            self.requests_under_way.pop_front();
            self.first_token += 1;
        }
        self.note_oldest();
    }

    fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
    }

    /// Reads no more; the status of the first request that failed is the stream's.
    fn refuse(&mut self, id: Option<u64>, status: Status) {
        match &self.end {
            Some(End::Failed { id: Some(earlier), .. }) if id.is_none_or(|id| *earlier <= id) => {}
            _ => self.end = Some(End::Failed { id, status }),
        }
    }

    fn deadline_passed(&mut self) -> Status {
        let first = self.requests_under_way.iter().flatten().map(|request| request.id).next();
        self.end = Some(End::Complete);
        // What is under way stays so; nobody waits for it any more.
        self.under_way = Replies::new();
        self.submitting = None;
        match first {
            Some(id) => {
                let message = "the deadline passed before the append was durable: it may or may not become so";
                to_status(&ApiError::new(Reason::UnknownOutcome, message).with("requestId", id))
            }
            None => Status::new(Code::DeadlineExceeded, "the deadline of the call passed"),
        }
    }
}
