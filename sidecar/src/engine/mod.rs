//! The engine: collections in, durable entries out.

pub mod api;

use std::sync::Arc;
use std::time::{Duration, Instant};

use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;

use self::api::{Append, Appended, CollectionInfo, CompletionQueue, EngineStatus, Item};
use crate::error::{ApiError, Reason};
use crate::types::{CollectionName, DirectoryId, Incarnation, Lsn};

/// What a start needs to know.
#[derive(Clone)]
pub struct Options {
    /// The effective configuration (`writer_id` already resolved with flag and environment).
    pub config: Config,
    /// `WALSTORAGE_REQUIRE_MOUNTS`: a `file://` URL must lie on an accepted mount.
    pub require_mounts: bool,
    /// The operator's permission, where there is one.
    pub grant: Option<Grant>,
    /// Told of every commit.
    pub observer: Arc<dyn Observer>,
}

/// The operator's permission for one pod to be the holder of a writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The writer's uid.
    pub writer_uid: uuid::Uuid,
    /// The granted epoch.
    pub epoch: u64,
    /// The pod's uid.
    pub holder: String,
}

/// Told what the engine does, for metrics. Calls are made outside of the engine's locks and must not block.
pub trait Observer: Send + Sync {
    /// One frame was written and synced (`took`), with `entries` entries, answering `acks` requests.
    fn committed(&self, directory: &WalUrl, took: Duration, entries: u64, acks: u64);
}

/// Why a start is refused at once.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used by this build or on this machine (exit code 2).
    #[error("{0}")]
    Configuration(String),
    /// Anything else (exit code 1).
    #[error("{0}")]
    Other(String),
}

/// Why the engine ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `shutdown` was called and is done (exit code 0).
    Clean,
    /// A newer process owns the writer (exit code 3).
    Fenced(String),
    /// A directory belongs to another writer and the like (exit code 1).
    Refused(String),
    /// One directory behind two URLs and the like (exit code 2).
    Configuration(String),
}

/// A handle to the running engine; cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<()>);

/// Reads one collection, a part at a time.
pub struct Reader(());

impl Reader {
    /// The next items, at most 1 MiB of entries or one entry; `None` at the end (without `follow`: the durable head at
    /// the start of the read). With `follow` it waits. Cancel-safe.
    ///
    /// # Errors
    /// OUT_OF_RANGE when overtaken by a truncate, COLLECTION_NOT_FOUND after a delete, SHUTTING_DOWN, DAMAGED.
    pub async fn next(&mut self) -> Option<Result<Vec<Item>, ApiError>> {
        None
    }
}

fn not_yet<T>() -> Result<T, ApiError> {
    Err(ApiError::new(Reason::Unimplemented, "not yet"))
}

impl Engine {
    /// Starts recovery on threads of its own and returns at once: the status says how far it is. Must be called within
    /// a tokio runtime.
    ///
    /// # Errors
    /// When the configuration cannot work in this build (a bucket URL).
    pub fn start(_options: Options) -> Result<Self, StartError> {
        Ok(Self(Arc::new(())))
    }

    /// Applies the settings that may change while running. Others are ignored (the caller reports them as pending).
    pub fn reconfigure(&self, _config: &Config) {}

    /// Hands in one batch; waits up to 5 s (or to `deadline`) while memory or the journal is full. On `Ok` the LSNs are
    /// assigned and exactly one answer with `token` will be pushed to `answers`, whatever happens. Requests of one
    /// caller are appended in the order of the calls. Cancelling the returned future before it ends appends nothing.
    ///
    /// # Errors
    /// Whatever refuses a request; nothing was written then.
    pub async fn submit(
        &self,
        _request: Append,
        _token: u64,
        _answers: &Arc<CompletionQueue>,
        _deadline: Option<Instant>,
    ) -> Result<(), ApiError> {
        not_yet()
    }

    /// [`Self::submit`] and wait for the answer. A passed deadline after submission is UNKNOWN_OUTCOME.
    ///
    /// # Errors
    /// See [`Self::submit`]; UNKNOWN_OUTCOME when a directory failed under way.
    pub async fn append(&self, _request: Append, _deadline: Option<Instant>) -> Result<Appended, ApiError> {
        not_yet()
    }

    /// Starts a read. `from` 0: the earliest readable; `limit` 0: none.
    ///
    /// # Errors
    /// NOT_READY, COLLECTION_NOT_FOUND, OUT_OF_RANGE, AHEAD_OF_LOG.
    pub fn read(
        &self,
        _collection: &CollectionName,
        _from: Lsn,
        _limit: u64,
        _follow: bool,
    ) -> Result<Reader, ApiError> {
        not_yet()
    }

    /// Forgets everything up to `up_to`; answers `truncated_to` when that is durable.
    ///
    /// # Errors
    /// INVALID_REQUEST above the assigned head; COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY; UNKNOWN_OUTCOME.
    pub async fn truncate(&self, _collection: &CollectionName, _up_to: Lsn) -> Result<Lsn, ApiError> {
        not_yet()
    }

    /// Deletes a collection; answers the incarnation that was deleted when that is durable.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY; UNKNOWN_OUTCOME.
    pub async fn delete(&self, _collection: &CollectionName) -> Result<Incarnation, ApiError> {
        not_yet()
    }

    /// Copies committed entries into a segment.
    ///
    /// # Errors
    /// UNIMPLEMENTED until segments exist.
    pub async fn flush(&self, _collection: &CollectionName) -> Result<Lsn, ApiError> {
        not_yet()
    }

    /// Moves everything to buckets.
    ///
    /// # Errors
    /// UNIMPLEMENTED until buckets exist.
    pub async fn drain(&self) -> Result<u64, ApiError> {
        not_yet()
    }

    /// Prepares for the end of the pod. Nothing to do until flushing exists.
    pub fn prestop(&self) {}

    /// At most `limit` collections after `after`, ordered by name.
    ///
    /// # Errors
    /// NOT_READY.
    pub fn list(&self, _after: Option<&str>, _limit: usize) -> Result<Vec<CollectionInfo>, ApiError> {
        not_yet()
    }

    /// One collection.
    ///
    /// # Errors
    /// NOT_READY, COLLECTION_NOT_FOUND.
    pub fn collection(&self, _collection: &CollectionName) -> Result<CollectionInfo, ApiError> {
        not_yet()
    }

    /// Records the loss of a missing, lost or failed directory; answers when the gaps are durable (also while waiting
    /// in recovery).
    ///
    /// # Errors
    /// INVALID_REQUEST when it is unknown, present and well, or the last one.
    pub async fn forget_directory(&self, _directory: DirectoryId) -> Result<(), ApiError> {
        not_yet()
    }

    /// Counts bytes of a request that is being received against the memory bound; waits up to 5 s (or to `deadline`)
    /// for room. Drop the permit right before [`Self::submit`].
    ///
    /// # Errors
    /// MEMORY_LIMIT.
    pub async fn receive(&self, _bytes: u64, _deadline: Option<Instant>) -> Result<ReceivePermit, ApiError> {
        not_yet()
    }

    /// Everything there is to show. Takes the lock briefly; call it at most a few times a second.
    #[must_use]
    #[allow(clippy::missing_panics_doc, clippy::panic)]
    pub fn status(&self) -> EngineStatus {
        panic!("not yet")
    }

    /// Refuses new calls, commits what is under way, writes the clean-shutdown frame. Idempotent.
    pub async fn shutdown(&self) -> Ended {
        Ended::Clean
    }

    /// Resolves when the engine ended: after [`Self::shutdown`], when fenced, or when recovery found that it must not
    /// serve.
    pub async fn ended(&self) -> Ended {
        std::future::pending().await
    }
}

/// Bytes of a request being received, counted until dropped.
pub struct ReceivePermit(());
