//! Who waits for what, and the promise that everybody is answered: a waiter that is dropped without an answer — by an
//! error path, a panic, a shutdown — is told UNKNOWN_OUTCOME.

use std::sync::Arc;
use std::task::Waker;

use tokio::sync::oneshot;

use crate::api::{Appended, Completion, CompletionQueue};
use crate::error::{ApiError, Reason};

/// Waits for an append.
#[derive(Debug)]
pub(crate) struct AppendWaiter {
    queue: Arc<CompletionQueue>,
    token: u64,
    open: bool,
}

impl AppendWaiter {
    pub(crate) fn new(queue: &Arc<CompletionQueue>, token: u64) -> Self {
        Self { queue: Arc::clone(queue), token, open: true }
    }
}

impl Drop for AppendWaiter {
    fn drop(&mut self) {
        if self.open {
            let result = Err(unknown("the outcome was never learnt"));
            if let Some(client) = self.queue.add(Completion { token: self.token, result }) {
                client.wake();
            }
        }
    }
}

/// UNKNOWN_OUTCOME with its cause.
pub(crate) fn unknown(why: &str) -> ApiError {
    ApiError::new(
        Reason::UnknownOutcome,
        format!("{why}: it may appear after a restart or not; repeat it with the same producer sequence"),
    )
}

/// Waits for a change of a collection.
pub(crate) type ChangeWaiter<T> = oneshot::Sender<Result<T, ApiError>>;

/// Clients to be woken, whatever happens before.
struct Clients(Vec<Waker>);

impl Drop for Clients {
    fn drop(&mut self) {
        for client in self.0.drain(..) {
            client.wake();
        }
    }
}

/// Answers that are ready, collected under the lock and delivered outside of it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    appends: Vec<(AppendWaiter, Result<Appended, ApiError>)>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Lsn(ChangeWaiter<crate::types::Lsn>, Result<crate::types::Lsn, ApiError>),
    Incarnation(ChangeWaiter<crate::types::Incarnation>, Result<crate::types::Incarnation, ApiError>),
}

impl Outbox {
    pub(crate) fn append(&mut self, waiter: AppendWaiter, result: Result<Appended, ApiError>) {
        self.appends.push((waiter, result));
    }

    pub(crate) fn truncated(
        &mut self,
        waiter: ChangeWaiter<crate::types::Lsn>,
        result: Result<crate::types::Lsn, ApiError>,
    ) {
        self.changes.push(Change::Lsn(waiter, result));
    }

    pub(crate) fn deleted(
        &mut self,
        waiter: ChangeWaiter<crate::types::Incarnation>,
        result: Result<crate::types::Incarnation, ApiError>,
    ) {
        self.changes.push(Change::Incarnation(waiter, result));
    }

    /// Number of answers to appends.
    pub(crate) fn acks(&self) -> u64 {
        self.appends.len() as u64
    }

    /// Hands everything out; each client is woken once.
    pub(crate) fn deliver(self) {
        // Whoever waits is taken from its queue with the first answer, and woken when all are there.
        let mut clients = Clients(Vec::with_capacity(self.appends.len()));
        for (mut waiter, result) in self.appends {
            waiter.open = false;
            clients.0.extend(waiter.queue.add(Completion { token: waiter.token, result }));
        }
        drop(clients);
        for change in self.changes {
            // A caller that went away does not care.
            match change {
                Change::Lsn(waiter, result) => drop(waiter.send(result)),
                Change::Incarnation(waiter, result) => drop(waiter.send(result)),
            }
        }
    }
}
