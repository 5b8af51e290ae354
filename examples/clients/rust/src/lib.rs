//! A small client of WalStorage: one collection, appended to and read over the sidecar's unix socket. It shows the
//! three things that a client has to get right:
//!
//! 1. An append is retried with the same producer id and sequence, so that an entry whose acknowledgement was lost is
//!    not written twice.
//! 2. When retrying is given up, the outcome is unknown. The sequence is never used again for other entries: the next
//!    append takes a new producer id.
//! 3. A read may contain a gap, entries that storage has lost. It is an error, never skipped.

#![cfg_attr(test, allow(clippy::panic))]

use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Bytes, StdError};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// The messages of `wal.proto`.
#[allow(missing_docs, clippy::all)]
pub mod pb {
    tonic::include_proto!("walstorage.v1");
}

use pb::wal_client::WalClient;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket's path is not one.
    #[error("cannot use this socket: {0}")]
    Socket(#[from] tonic::transport::Error),
    /// The sidecar refused the call; nothing was written.
    #[error("refused: {0}")]
    Refused(Status),
    /// Retrying was given up: the entries may be in the log or not. Read the log to find out.
    #[error("gave up, the entries may have been appended or not: {0}")]
    OutcomeUnknown(Status),
    /// These entries are lost. Reading can go on at `last + 1`.
    #[error("entries {first} to {last} are lost: {reason}")]
    Gap {
        /// The first lost LSN.
        first: u64,
        /// The last lost LSN.
        last: u64,
        /// Why.
        reason: &'static str,
    },
}

/// Where the entries of one append lie. Every entry up to `last` is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// LSN of the first entry.
    pub first: u64,
    /// LSN of the last entry.
    pub last: u64,
}

/// A durable entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position in the log.
    pub lsn: u64,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// One collection. Appends take `&mut self`: the sequence allows one in flight.
#[derive(Debug)]
pub struct Log<T = Channel> {
    wal: WalClient<T>,
    collection: String,
    producer_id: String,
    producer_seq: u64,
    give_up_after: Duration,
}

impl Log {
    /// Connects to the sidecar's socket at the first call, and again whenever the connection breaks. Must be called
    /// inside a tokio runtime.
    pub fn open(socket: &str, collection: &str) -> Result<Self, Error> {
        Ok(Self::over(Endpoint::from_shared(format!("unix:{socket}"))?.connect_lazy(), collection))
    }
}

impl<T> Log<T>
where
    T: GrpcService<Body> + Clone,
    T::Error: Into<StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    /// Uses a transport of the caller's.
    pub fn over(transport: T, collection: &str) -> Self {
        Self {
            // An entry may have 16 MiB; tonic refuses messages above 4 MiB unless told otherwise.
            wal: WalClient::new(transport).max_decoding_message_size(48 << 20),
            collection: collection.to_owned(),
            producer_id: uuid::Uuid::new_v4().to_string(),
            producer_seq: 0,
            give_up_after: Duration::from_secs(30),
        }
    }

    /// Sets how long calls are retried; 30 s unless set.
    #[must_use]
    pub fn give_up_after(self, give_up_after: Duration) -> Self {
        Self { give_up_after, ..self }
    }

    /// Appends the payloads as one atomic batch and returns when they are durable.
    pub async fn append<P: Into<Vec<u8>>>(&mut self, payloads: impl IntoIterator<Item = P>) -> Result<Appended, Error> {
        // Should the caller drop this future or an error end it, the sequence is spent: the next append finds a new
        // producer in place.
        let producer_id = std::mem::replace(&mut self.producer_id, uuid::Uuid::new_v4().to_string());
        let producer_seq = std::mem::take(&mut self.producer_seq) + 1;
        let request = pb::AppendRequest {
            collection: self.collection.clone(),
            entries: payloads
                .into_iter()
                .map(|payload| pb::Entry { payload: payload.into(), ..Default::default() })
                .collect(),
            producer_id: producer_id.clone(),
            producer_seq,
            ..Default::default()
        };
        let wal = self.wal.clone();
        let reply = retry(self.give_up_after, || {
            let (mut wal, request) = (wal.clone(), request.clone());
            async move { wal.append_batch(request).await }
        })
        .await?;
        (self.producer_id, self.producer_seq) = (producer_id, producer_seq);
        Ok(Appended { first: reply.first_lsn, last: reply.last_lsn })
    }

    /// Every durable entry from an LSN; 0 is the first one that is not truncated. With `follow` it waits for more.
    /// After a restart, an application reads from the last LSN it has applied + 1.
    pub async fn read(
        &self,
        from: u64,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Entry, Error>> + Unpin + use<T>, Error> {
        let request = pb::ReadRequest { collection: self.collection.clone(), from, limit: 0, follow };
        let replies = self.wal.clone().read(request).await.map_err(Error::Refused)?.into_inner();
        let entries = replies
            .map_err(Error::Refused)
            .map_ok(|reply| stream::iter(reply.items.into_iter().filter_map(|item| item.item).map(entry)))
            .try_flatten();
        Ok(entries.boxed())
    }

    /// Forgets every entry up to and including an LSN: the application has applied them.
    pub async fn truncate(&self, up_to: u64) -> Result<u64, Error> {
        let reply = retry(self.give_up_after, || {
            let request = pb::TruncateRequest { collection: self.collection.clone(), up_to };
            let mut wal = self.wal.clone();
            async move { wal.truncate(request).await }
        })
        .await?;
        Ok(reply.truncated_to)
    }
}

fn entry(item: pb::item::Item) -> Result<Entry, Error> {
    match item {
        pb::item::Item::Entry(entry) => Ok(Entry { lsn: entry.lsn, payload: entry.payload }),
        pb::item::Item::Gap(gap) => {
            Err(Error::Gap { first: gap.first, last: gap.last, reason: gap.reason().as_str_name() })
        }
    }
}

/// The sidecar may be restarting, out of room until the application truncates, or may have lost the answer. With a
/// producer sequence it is safe to send the same request again in each of these cases.
fn retryable(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Unknown)
}

async fn retry<R, F>(give_up_after: Duration, mut call: impl FnMut() -> F) -> Result<R, Error>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let deadline = Instant::now() + give_up_after;
    let mut pause = Duration::from_millis(10);
    loop {
        let outcome = tokio::time::timeout_at(deadline, call()).await;
        match outcome.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))) {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) if !retryable(status.code()) => return Err(Error::Refused(status)),
            Err(status) if Instant::now() + pause >= deadline => return Err(Error::OutcomeUnknown(status)),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_an_error_that_names_what_is_lost() {
        let gap = pb::Gap { first: 2, last: 5, reason: pb::Reason::Damage.into() };
        match entry(pb::item::Item::Gap(gap)) {
            Err(Error::Gap { first: 2, last: 5, reason: "DAMAGE" }) => {}
            other => panic!("{other:?}"),
        }
    }
}
