//! What the engine takes and answers, free of any transport: the server maps these to gRPC and HTTP, tests use them as
//! they are.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;
use walstorage_crds::url::WalUrl;

use crate::error::ApiError;
use crate::types::{CollectionName, DirectoryId, Epoch, Incarnation, Lsn};

/// When an append is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ack {
    /// When it is durable.
    #[default]
    Durable,
    /// When it has an LSN.
    Buffered,
}

/// One entry to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEntry {
    /// Opaque bytes.
    pub payload: Bytes,
    /// The key, where there is one.
    pub key: Option<Bytes>,
    /// Name and value, in the order given.
    pub headers: Vec<(String, Bytes)>,
}

/// A producer's stamp on a request: retries of one stamp are stored once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// 1 to 64 bytes.
    pub id: Bytes,
    /// From 1, one per request.
    pub seq: u64,
}

/// One atomic batch.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub collection: CollectionName,
    /// At least one.
    pub entries: Vec<NewEntry>,
    /// When to answer.
    pub ack: Ack,
    /// For retries.
    pub producer: Option<ProducerStamp>,
}

/// What an append is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// LSN of the first entry; 0 for a duplicate that is too old to know.
    pub first_lsn: Lsn,
    /// LSN of the last entry; 0 like `first_lsn`.
    pub last_lsn: Lsn,
    /// The level that holds.
    pub ack: Ack,
    /// The epoch of this process.
    pub epoch: Epoch,
    /// Nothing was appended now: the producer had sent this before.
    pub duplicate: bool,
    /// Canonical URL of the directory.
    pub directory: WalUrl,
}

/// The answers of one client's appends: filled by the committer, emptied by the client's task, which is woken once for
/// all that one commit answered.
#[derive(Debug, Default)]
pub struct CompletionQueue(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    done: Vec<Completion>,
    /// The client's task, while it waits.
    waiting: Option<Waker>,
}

/// The answer to the append that was submitted with this token.
#[derive(Clone, Debug)]
pub struct Completion {
    /// As given to [`crate::engine::Engine::submit`].
    pub token: u64,
    /// The answer.
    pub result: Result<Appended, ApiError>,
}

impl CompletionQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Adds an answer. Order of calls is order of answers. The client, where it waits, is the caller's to wake: after
    /// whatever else it adds.
    #[must_use]
    pub(crate) fn add(&self, completion: Completion) -> Option<Waker> {
        let mut answers = self.0.lock();
        answers.done.push(completion);
        answers.waiting.take()
    }

    /// Takes what is there, without waiting.
    #[must_use]
    pub fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut self.0.lock().done)
    }

    /// Waits until something is there and takes it. One waiter at a time; cancel-safe.
    pub async fn next(&self) -> Vec<Completion> {
        let mut done = Vec::new();
        std::future::poll_fn(|context| self.poll_next(context, &mut done)).await;
        done
    }

    /// Moves what is there into `into`, which is empty and whose memory is used on; else the task is woken when something
    /// is. One waiter at a time.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>, into: &mut Vec<Completion>) -> Poll<()> {
        let mut answers = self.0.lock();
        if answers.done.is_empty() {
            match &mut answers.waiting {
                Some(waiting) => waiting.clone_from(context.waker()),
                None => answers.waiting = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        std::mem::swap(&mut answers.done, into);
        Poll::Ready(())
    }
}

/// An entry as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Its position.
    pub lsn: Lsn,
    /// The sidecar's clock when the LSN was assigned, microseconds since 1970 (UTC). May step back.
    pub timestamp_micros: i64,
    /// The key, where there is one.
    pub key: Option<Bytes>,
    /// Name and value, in order.
    pub headers: Vec<(String, Bytes)>,
    /// Opaque bytes.
    pub payload: Bytes,
}

/// Why entries are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Stored bytes were damaged.
    Damage,
    /// The directory that held them was given up by an administrator.
    DirectoryForgotten,
}

/// An item of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry(StoredEntry),
    /// Lost LSNs, first to last.
    Gap {
        /// The first lost LSN, clipped to where the read began.
        first: Lsn,
        /// The last lost LSN.
        last: Lsn,
        /// Why.
        reason: GapReason,
    },
}

/// A collection as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionInfo {
    /// Its name.
    pub name: CollectionName,
    /// Which life of the name.
    pub incarnation: Incarnation,
    /// The first readable LSN: `truncated_to + 1`.
    pub first_lsn: Lsn,
    /// Everything up to here is forgotten.
    pub truncated_to: Lsn,
    /// Everything up to here is durable.
    pub durable_head: Lsn,
    /// Everything up to here has an LSN.
    pub assigned_head: Lsn,
    /// Encoded bytes above `truncated_to`.
    pub bytes: u64,
    /// Canonical URL of the home directory.
    pub directory: WalUrl,
    /// Segments that hold entries above `truncated_to`.
    pub segments: u64,
}

/// What the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reading journals.
    Recovering,
    /// Recovery cannot end until what `waiting_for` names has happened.
    Waiting,
    /// Serving.
    Ready,
    /// Serving, and emptying directories to buckets.
    Draining,
    /// Refusing new calls, committing what is under way.
    Stopping,
    /// Another process has taken over.
    Fenced,
}

impl Phase {
    /// The name used in status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Fenced => "fenced",
        }
    }
}

/// How a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DirectoryState {
    /// In order.
    Healthy,
    /// Much slower than the best one; display only.
    Slow,
    /// No space left.
    Full,
    /// A write, sync or read failed.
    Failed,
    /// It was in use and came back empty.
    Lost,
    /// It was in use and is not there.
    Missing,
    /// It belongs to another writer.
    Foreign,
    /// Given up by an administrator.
    Forgotten,
    /// Takes no new collections and is being emptied.
    Draining,
    /// Not on an accepted mount.
    NotMounted,
    /// Opened at the next start.
    PendingRestart,
}

impl DirectoryState {
    /// Every state, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::Healthy,
        Self::Slow,
        Self::Full,
        Self::Failed,
        Self::Lost,
        Self::Missing,
        Self::Foreign,
        Self::Forgotten,
        Self::Draining,
        Self::NotMounted,
        Self::PendingRestart,
    ];

    /// The name used in status, metrics and `walctl`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Lost => "lost",
            Self::Missing => "missing",
            Self::Foreign => "foreign",
            Self::Forgotten => "forgotten",
            Self::Draining => "draining",
            Self::NotMounted => "not_mounted",
            Self::PendingRestart => "pending_restart",
        }
    }
}

/// One directory, as shown.
#[derive(Clone, Debug)]
pub struct DirectoryStatus {
    /// `None` until it is known.
    pub uuid: Option<DirectoryId>,
    /// Canonical.
    pub url: WalUrl,
    /// How it is.
    pub state: DirectoryState,
    /// Why it is not healthy; may be empty.
    pub reason: String,
    /// What to do about it; may be empty.
    pub remedy: String,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// `major:minor`; empty while unknown.
    pub device: String,
    /// Entries may have been placed there.
    pub in_use: bool,
    /// Takes no new collections.
    pub draining: bool,
    /// Of the file system.
    pub capacity_bytes: u64,
    /// Of the file system, for us.
    pub free_bytes: u64,
    /// Assigned and not yet durable.
    pub pending_bytes: u64,
    /// Bytes of journal files.
    pub journal_bytes: u64,
    /// Their bound.
    pub journal_max_bytes: u64,
    /// What is still to be copied away.
    pub evacuation_bytes_left: u64,
    /// Moving average, microseconds per commit.
    pub commit_latency_us: f64,
    /// Moving average of acknowledged requests per sync.
    pub acks_per_sync: f64,
    /// How journal files are written; `None` until it is known.
    pub io: Option<JournalIo>,
    /// Files of segments that are needed.
    pub segments: u64,
    /// Bytes written ahead for facts; 0: a file system that is completely full takes no truncation.
    pub reserve_bytes: u64,
}

/// How journal files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalIo {
    /// Around the page cache.
    Direct,
    /// Through it.
    Buffered,
}

impl JournalIo {
    /// The name used in status and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Buffered => "buffered",
        }
    }
}

/// A collection, and the first and last LSN lost of it; `None` = unknown.
pub type LostRange = (Option<CollectionName>, Option<(Lsn, Lsn)>);

/// A place where stored bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageReport {
    /// Canonical URL of the directory.
    pub directory: WalUrl,
    /// The file's path.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// What was there.
    pub lost: Vec<LostRange>,
}

/// Everything `/status` shows of the engine.
#[derive(Clone, Debug)]
pub struct EngineStatus {
    /// The writer's uid; `None` until known.
    pub writer_uid: Option<uuid::Uuid>,
    /// The writer's id; empty without one.
    pub writer_id: String,
    /// This start; 0 until known.
    pub epoch: Epoch,
    /// The grant in force, 0 without one.
    pub grant: u64,
    /// The pod that holds the grant; may be empty.
    pub holder: String,
    /// What the process is doing.
    pub phase: Phase,
    /// What recovery waits for, a sentence each.
    pub waiting_for: Vec<String>,
    /// Bytes of journals read so far.
    pub replay_done_bytes: u64,
    /// Bytes of journals to read.
    pub replay_total_bytes: u64,
    /// All directories.
    pub directories: Vec<DirectoryStatus>,
    /// Bytes that entries hold in memory.
    pub memory_used_bytes: u64,
    /// Their bound.
    pub memory_limit_bytes: u64,
    /// Number of collections.
    pub collections: u64,
    /// Entries not truncated.
    pub unapplied_entries: u64,
    /// Their bytes.
    pub unapplied_bytes: u64,
    /// What was found damaged.
    pub damage: Vec<DamageReport>,
    /// Warnings of the engine itself (memory bound lowered, ephemeral storage, …).
    pub warnings: Vec<String>,
}
