//! The engine: collections in, durable entries out.

pub(crate) mod bounds;
pub(crate) mod committer;
mod crew;
mod flush_sink;
pub(crate) mod flusher;
mod grant;
mod inner;
mod leftover;
mod probe;
mod reader;
pub(crate) mod segment_file;
pub(crate) mod segment_read;
pub(crate) mod segment_scan;
mod shelved;
mod stamp;
mod status;
mod supervisor;
pub(crate) mod upkeep;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;

pub use self::grant::{Grant, GrantedUrl};
use self::inner::Inner;
pub(crate) use self::inner::OPEN_SEGMENTS;
pub use self::leftover::Leftover;
pub use self::reader::Reader;
pub use crate::api;
use crate::api::{Append, Appended, CollectionInfo, CompletionQueue, EngineStatus};
use crate::commit::answer::unknown;
use crate::commit::append::{Admission, Caller, check_request};
use crate::commit::journal::Journal;
use crate::commit::log::{Log, Stage};
use crate::error::{ApiError, Reason};
use crate::fencing::directory::Buckets;
use crate::recovery::open::{DiskFactory, real_disks};
use crate::types::{CollectionName, DirectoryId, Incarnation, Lsn};

/// How long an append waits at most while memory or the journal is full.
const FULL_WAIT: Duration = Duration::from_secs(5);

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

/// Told what the engine does, for metrics. Calls are made outside of the engine's locks and must not block.
pub trait Observer: Send + Sync {
    /// One frame was written and synced (`took`), with `entries` entries, answering `acks` requests.
    fn committed(&self, directory: &WalUrl, took: Duration, entries: u64, acks: u64);

    /// One flush came to its end.
    fn flushed(&self, _flush: &FlushTold) {}
}

/// A flush that came to its end, well or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushTold {
    /// Why it was begun: `due`, `asked`, `journal`, `memory`, `stop` or `rewrite`.
    pub cause: &'static str,
    /// `ok`, `void` (nothing was left to write) or `failed`.
    pub result: &'static str,
    /// Encoded bytes of the entries that are in the segment now.
    pub bytes: u64,
    /// From its beginning until it was written and synced.
    pub took: Duration,
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

/// A handle to the running engine; cheap to clone. The engine lives until [`Engine::shutdown`], whoever holds handles.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl Engine {
    /// Starts recovery on threads of its own and returns at once: the status says how far it is.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let disks = real_disks(options.config.wal.io);
        let buckets = Buckets::of(&options.config);
        Self::start_on(options, disks, buckets)
    }

    /// [`Self::start`] on other disks than the operating system's, and on other buckets than the network's.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub(crate) fn start_on(options: Options, disks: DiskFactory, buckets: Buckets) -> Result<Self, StartError> {
        let inner = Arc::new(Inner::new(options, disks, buckets));
        let shared = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || supervisor::run(&shared))
            .map_err(|error| StartError::Other(format!("cannot start a thread: {error}")))?;
        Ok(Self(inner))
    }

    /// Applies the settings that may change while running. Others are ignored (the caller reports them as pending).
    pub fn reconfigure(&self, config: &Config) {
        {
            let mut current = self.0.config.lock();
            let wal = &mut current.wal;
            wal.distribution_strategy = config.wal.distribution_strategy;
            wal.collection_affinity = config.wal.collection_affinity;
            wal.memory_flush_size = config.wal.memory_flush_size;
            wal.global_flush_threshold = config.wal.global_flush_threshold;
            wal.segment_size = config.wal.segment_size;
            wal.compression = config.wal.compression;
            wal.journal_max = config.wal.journal_max;
            wal.bucket_commit_interval = config.wal.bucket_commit_interval;
            wal.buffered_commit_interval = config.wal.buffered_commit_interval;
            wal.on_damage = config.wal.on_damage;
            for url in wal.wal_urls.iter().chain(&wal.journal_url) {
                let drain = config.wal.url_options.get(url).is_some_and(|options| options.drain);
                wal.url_options.entry(url.clone()).or_default().drain = drain;
            }
        }
        self.0.apply_settings();
        self.poke();
    }

    /// Recovery, where it waits, tries again now.
    fn poke(&self) {
        self.0.recovering.lock().poked = true;
        self.0.recovery_wakes.notify_all();
    }

    /// Hands in one batch; waits up to 5 s (or to `deadline`) while memory or the journal is full. On `Ok` the LSNs are
    /// assigned and exactly one answer with `token` will be pushed to `answers`, whatever happens. Requests of one
    /// caller are appended in the order of the calls. Cancelling the returned future before it ends appends nothing.
    ///
    /// # Errors
    /// Whatever refuses a request; nothing was written then.
    pub async fn submit(
        &self,
        request: Append,
        token: u64,
        answers: &Arc<CompletionQueue>,
        deadline: Option<Instant>,
    ) -> Result<(), ApiError> {
        check_request(&request)?;
        self.wait_for_room(deadline, || self.admit(&request, token, answers)).await
    }

    /// [`Self::submit`] without waiting: gives the request back where there is no room for it now.
    ///
    /// # Errors
    /// Whatever refuses a request for good; nothing was written then.
    pub(crate) fn submit_now(
        &self,
        request: Append,
        token: u64,
        answers: &Arc<CompletionQueue>,
    ) -> Result<Option<Append>, ApiError> {
        check_request(&request)?;
        Ok(match self.admit(&request, token, answers)? {
            Admission::Accepted => None,
            Admission::Wait(_) => Some(request),
        })
    }

    fn admit(&self, request: &Append, token: u64, answers: &Arc<CompletionQueue>) -> Result<Admission, ApiError> {
        let caller = Caller { answers, token, now: Instant::now(), wall_micros: wall_micros() };
        self.0.change(|log| log.append(request, &caller))
    }

    /// Tries, and tries again whenever something was freed, until it is accepted, refused or too late.
    async fn wait_for_room(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Result<Admission, ApiError>,
    ) -> Result<(), ApiError> {
        if attempt()? == Admission::Accepted {
            return Ok(());
        }
        let latest = Instant::now() + FULL_WAIT;
        let until = deadline.map_or(latest, |deadline| deadline.min(latest));
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // From here on nothing freed is missed.
            freed.as_mut().enable();
            let refused = match attempt()? {
                Admission::Accepted => return Ok(()),
                Admission::Wait(refused) => refused,
            };
            if tokio::time::timeout_at(until.into(), freed).await.is_err() {
                return Err(refused);
            }
        }
    }

    /// [`Self::submit`] and wait for the answer. A passed deadline after submission is UNKNOWN_OUTCOME.
    ///
    /// # Errors
    /// See [`Self::submit`]; UNKNOWN_OUTCOME when a directory failed under way.
    pub async fn append(&self, request: Append, deadline: Option<Instant>) -> Result<Appended, ApiError> {
        let answers = CompletionQueue::new();
        self.submit(request, 0, &answers, deadline).await?;
        let answered = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answers.next()).await.ok(),
            None => Some(answers.next().await),
        };
        match answered.and_then(|answers| answers.into_iter().next()) {
            Some(answer) => answer.result,
            None => Err(unknown("the deadline passed after the entries had their LSNs")),
        }
    }

    /// Starts a read. `from` 0: the earliest readable; `limit` 0: none.
    ///
    /// # Errors
    /// NOT_READY, COLLECTION_NOT_FOUND, OUT_OF_RANGE, AHEAD_OF_LOG.
    pub fn read(&self, collection: &CollectionName, from: Lsn, limit: u64, follow: bool) -> Result<Reader, ApiError> {
        Reader::begin(&self.0, collection, from, limit, follow)
    }

    /// Forgets everything up to `up_to`; answers `truncated_to` when that is durable.
    ///
    /// # Errors
    /// INVALID_REQUEST above the assigned head; COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY; UNKNOWN_OUTCOME.
    pub async fn truncate(&self, collection: &CollectionName, up_to: Lsn) -> Result<Lsn, ApiError> {
        self.changed(|log, waiter| log.truncate(collection, up_to, waiter, Instant::now())).await
    }

    /// Deletes a collection; answers the incarnation that was deleted when that is durable.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY; UNKNOWN_OUTCOME.
    pub async fn delete(&self, collection: &CollectionName) -> Result<Incarnation, ApiError> {
        self.changed(|log, waiter| log.delete(collection, waiter, Instant::now())).await
    }

    /// Asks for a change and waits for its answer. A waiter that is dropped is an unknown outcome.
    async fn changed<T>(
        &self,
        ask: impl FnOnce(&mut Log, oneshot::Sender<Result<T, ApiError>>) -> Result<(), ApiError>,
    ) -> Result<T, ApiError> {
        let (waiter, answer) = oneshot::channel();
        self.0.change(|log| ask(log, waiter))?;
        answer.await.unwrap_or_else(|_| Err(unknown("the change was under way")))
    }

    /// Copies committed entries into a segment; answers the durable head as of the call when everything up to there is in
    /// segments, truncated, or lost.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND; NO_HEALTHY_DIRECTORY; UNKNOWN_OUTCOME.
    pub async fn flush(&self, collection: &CollectionName) -> Result<Lsn, ApiError> {
        self.changed(|log, waiter| log.flush(collection, waiter, Instant::now())).await
    }

    /// Begins to move everything to buckets, or goes on with it, and answers at once how many bytes are left. 0: every
    /// directory that is no bucket may be taken away, now and before any later start. Until this process ends none of them is
    /// written to again.
    ///
    /// # Errors
    /// INVALID_REQUEST where no bucket is among `wal_urls`; NOT_READY; SHUTTING_DOWN; FENCED.
    pub fn drain(&self) -> Result<u64, ApiError> {
        self.0.change(|log| log.drain(Instant::now()))
    }

    /// Prepares for the end of the pod: from now on everything is flushed soon after it is durable.
    pub fn prestop(&self) {
        self.0.with_log(Log::flush_eagerly);
    }

    /// At most `limit` collections after `after`, ordered by name.
    ///
    /// # Errors
    /// NOT_READY.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<CollectionInfo>, ApiError> {
        self.0.read_log(|log| Ok(log.list(after, limit)))
    }

    /// One collection.
    ///
    /// # Errors
    /// NOT_READY, COLLECTION_NOT_FOUND.
    pub fn collection(&self, collection: &CollectionName) -> Result<CollectionInfo, ApiError> {
        self.0.read_log(|log| log.describe(collection))
    }

    /// Records the loss of a missing, lost or failed directory; answers when that is durable. While recovery waits for
    /// it, with gaps for what it may have held; while serving only when what it held is elsewhere.
    ///
    /// # Errors
    /// INVALID_REQUEST when it is unknown, present and well, or the last one; NOT_READY when recovery waits for more.
    pub async fn forget_directory(&self, directory: DirectoryId) -> Result<(), ApiError> {
        let mut turns = self.0.turns.subscribe();
        let Some(begun) = self.ask_to_forget(directory)? else {
            return self.forget_evacuated(directory).await;
        };
        self.poke();
        loop {
            turns.mark_unchanged();
            if let Some(stage) = self.0.peek(|log| log.stage.clone()) {
                match stage {
                    // It may have come back meanwhile.
                    Stage::Serving | Stage::Stopping => {
                        if self.0.peek(|log| log.journals.iter().any(Journal::is_healthy)) == Some(true) {
                            return self.forget_evacuated(directory).await;
                        }
                        let message = "no directory could be written to record it: nothing is given up";
                        return Err(ApiError::new(Reason::NoHealthyDirectory, message));
                    }
                    Stage::Fenced(why) => return Err(ApiError::new(Reason::Fenced, why)),
                    Stage::Opening => {}
                }
            }
            if let Some(ended) = self.0.ended.borrow().clone() {
                return Err(ApiError::new(Reason::NotReady, format!("the engine has ended: {ended:?}")));
            }
            let still_waiting = {
                let recovering = self.0.recovering.lock();
                // The attempt under way when this was asked knows nothing of it.
                recovering.attempts > begun && recovering.waiting.is_some()
            };
            if still_waiting {
                return Err(self.0.not_ready());
            }
            if turns.changed().await.is_err() {
                return Err(self.0.not_ready());
            }
        }
    }

    /// Tells recovery, where it waits, what is given up; the attempts begun before that.
    fn ask_to_forget(&self, directory: DirectoryId) -> Result<Option<u64>, ApiError> {
        let invalid = |message: String| Err(ApiError::new(Reason::InvalidRequest, message));
        let mut recovering = self.0.recovering.lock();
        let Some(waiting) = &recovering.waiting else { return Ok(None) };
        if waiting.present.iter().any(|(_, uuid)| *uuid == Some(directory.0)) {
            return invalid(format!("directory {directory} is present and well: only what is lost can be forgotten"));
        }
        if !waiting.unusable.iter().any(|unusable| unusable.uuid == Some(directory.0) && !unusable.locked) {
            return invalid(format!("{directory} is no directory that recovery waits for; see: walctl directory list"));
        }
        if waiting.present.is_empty() {
            return invalid(format!("{directory} cannot be forgotten: no other directory is there to go on with"));
        }
        recovering.forget.insert(directory.0);
        Ok(Some(recovering.begun))
    }

    /// Gives up a directory while serving: one that failed, and of which nothing is needed any more.
    async fn forget_evacuated(&self, directory: DirectoryId) -> Result<(), ApiError> {
        let mut turns = self.0.turns.subscribe();
        let asked = self.0.with_log(|log| log.forget(directory, Instant::now()));
        let version = match asked {
            Some(Ok(version)) => version,
            Some(Err(message)) => return Err(ApiError::new(Reason::InvalidRequest, message)),
            None => return Err(self.0.not_ready()),
        };
        loop {
            turns.mark_unchanged();
            match self.0.peek(|log| (log.settled_version(), log.stage.clone())) {
                Some((settled, _)) if settled >= version => return Ok(()),
                Some((_, Stage::Serving)) => {}
                _ => return Err(unknown("the sidecar ended before it was recorded")),
            }
            if turns.changed().await.is_err() {
                return Err(self.0.not_ready());
            }
        }
    }

    /// Counts bytes of a request that is being received against the memory bound; waits up to 5 s (or to `deadline`)
    /// for room. Drop the permit right before [`Self::submit`].
    ///
    /// # Errors
    /// MEMORY_LIMIT; NOT_READY.
    pub async fn receive(&self, bytes: u64, deadline: Option<Instant>) -> Result<ReceivePermit, ApiError> {
        self.wait_for_room(deadline, || {
            self.0.change(|log| {
                Ok(if log.receive(bytes) { Admission::Accepted } else { Admission::Wait(log.memory_refusal()) })
            })
        })
        .await?;
        Ok(ReceivePermit { inner: Arc::clone(&self.0), bytes })
    }

    /// Everything there is to show. Takes the lock briefly; call it at most a few times a second.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        status::status(&self.0)
    }

    /// Refuses new calls, commits what is under way, writes the clean-shutdown frame. Idempotent. Everything acknowledged
    /// is durable on return, as always.
    pub async fn shutdown(&self) -> Ended {
        self.0.stopping.store(true, Ordering::Release);
        if self.0.peek(|_| ()).is_none() {
            // Recovery may wait for a store that does not answer.
            self.0.buckets.give_up();
        }
        self.0.with_log(|log| log.stop(Instant::now()));
        self.0.wake_all();
        self.0.freed.notify_waiters();
        self.0.recovery_wakes.notify_all();
        self.ended().await
    }

    /// Resolves when the engine ended: after [`Self::shutdown`], when fenced, or when recovery found that it must not
    /// serve.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.0.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone().unwrap_or(Ended::Clean),
            Err(_) => Ended::Clean,
        }
    }
}

/// Microseconds since 1970.
fn wall_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Bytes of a request being received, counted until dropped.
pub struct ReceivePermit {
    inner: Arc<Inner>,
    bytes: u64,
}

impl Drop for ReceivePermit {
    fn drop(&mut self) {
        self.inner.with_log(|log| log.received(self.bytes));
    }
}

#[cfg(test)]
pub(crate) mod bucket_tests;
#[cfg(test)]
mod drain_tests;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod flush_tests;
#[cfg(test)]
mod idle_tests;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod silence_tests;
#[cfg(test)]
mod slot_tests;
#[cfg(test)]
mod takeover_tests;
#[cfg(test)]
mod tests;
