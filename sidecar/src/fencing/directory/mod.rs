//! A bucket behind the seam of disks: the engine writes and reads it as it does a directory of files, by the same threads,
//! and only what has no likeness on a disk goes through [`Objects`].
//!
//! | on a disk | here |
//! |---|---|
//! | the lock | none: keys that are created once decide who writes ([`crate::fencing`]) |
//! | the first file of a stream | claim, second list and fences before the journal is read, the close as its first frame |
//! | a slot, many frames | an object, one frame; known to the engine by the name that the slot would have |
//! | a segment, appended to and renamed | an object under its last name at once |
//! | sync, rename, folders | nothing, never, none |
//!
//! Invariants:
//! 1. Nothing is written but by create-only requests, and a name is never used twice, whatever was deleted: a deletion may
//!    arrive late.
//! 2. A commit and a segment are waited for until it is known what happened, the store refuses, or the process ends. Every
//!    other call ends also when nothing has come from the store for [`wait::PATIENCE`], and what waits for it goes on as if
//!    the store had refused.
//! 3. Claims and fences are never deleted: the names that the engine deletes by are those of commits.

mod disk;
mod file;
#[cfg(test)]
pub(crate) mod memory;
mod objects;
mod registry;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) use self::disk::slot_of;
pub(crate) use self::objects::READ_AHEAD;
pub(crate) use self::registry::Buckets;
pub(crate) use self::wait::Reading;
use self::wait::{GivenUp, PATIENCE, Waiting};
use super::Lost;
use super::commit::Committer;
use super::fence::Fenced;
use super::object::{Author, Object, ObjectKey};
use crate::directory::bucket::{Bucket, Denied};
use crate::directory::trouble::{Condition, Trouble};
use crate::format::facts::EpochFact;
use crate::format::{StreamId, StreamKey};
use crate::types::Epoch;

/// A directory taken over by a start: what came before it has ended.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Our stream, claimed.
    pub stream: StreamKey,
    /// Its identity.
    pub id: StreamId,
    /// The streams before it that are still needed, the newest first.
    pub fenced: Vec<Fenced>,
    /// Objects of streams before these, which nothing needs.
    pub leftovers: Vec<ObjectKey>,
}

/// Memory for what is read before it is needed.
pub trait Room: Sync {
    /// Takes so many bytes, where there are as many.
    fn take(&self, bytes: u64) -> bool;

    /// Gives back what was taken.
    fn give_back(&self, bytes: u64);
}

/// What a bucket has that a disk has not. Calls block, as those of [`Disk`](crate::directory::disk::Disk) do. Where "the store
/// refuses", it may also have given no answer for too long: a condition that [passes](Lost::passes).
pub trait Objects: Send + Sync {
    /// What is wrong with the store now; `None` when its last answer was fine.
    fn trouble(&self) -> Option<Trouble>;

    /// Another attempt begins: it has the whole patience for an answer, whatever became of the one before.
    fn begin(&self);

    /// Finds out, once in the life of a process, whether the store keeps to create-only.
    ///
    /// # Errors
    /// When it does not, or refuses.
    fn probe(&self) -> Result<(), Lost>;

    /// The highest epoch of the journal; 0 where there is none.
    ///
    /// # Errors
    /// When the store refuses.
    fn highest(&self) -> Result<Epoch, Lost>;

    /// Who was granted what last, as far as claims say.
    ///
    /// # Errors
    /// When the store refuses.
    fn granted(&self) -> Result<Option<EpochFact>, Lost>;

    /// Claims an epoch; whether it is ours now.
    ///
    /// # Errors
    /// When the store refuses.
    fn claim(&self, author: Author, epoch: Epoch) -> Result<bool, Lost>;

    /// Behind a claim: fences every stream before it that is needed.
    ///
    /// # Errors
    /// [`Lost::Fenced`] when a higher epoch was claimed meanwhile.
    fn take_over(&self) -> Result<(), Lost>;

    /// What was taken over.
    fn taken(&self) -> Option<Arc<Taken>>;

    /// Shows whole objects in the order of `keys`, some read ahead as far as there is `room`; `None` for one that is not there.
    /// Ends early where `each` answers `false`.
    ///
    /// # Errors
    /// When the store refuses.
    fn read(
        &self,
        keys: &[ObjectKey],
        room: &dyn Room,
        each: &mut dyn FnMut(ObjectKey, Option<Bytes>) -> bool,
    ) -> Result<(), Lost>;

    /// Shows parts of objects in their order, some read at a time, all of which are to fit into memory; `None` for an object
    /// that is not there.
    ///
    /// # Errors
    /// When the store refuses; `TimedOut` without an answer.
    fn parts(&self, wanted: &[(PathBuf, Range<u64>)], each: &mut dyn FnMut(Option<Bytes>)) -> io::Result<()>;

    /// Why an object that must be there is not: a later start may have deleted it.
    ///
    /// # Errors
    /// Always: [`Lost::Fenced`] then, else [`Lost::Damage`].
    fn missing(&self, key: ObjectKey) -> Result<(), Lost>;

    /// Claims the next session of our epoch and fences the one before it: to be called before its close is committed.
    ///
    /// # Errors
    /// [`Lost::Fenced`] when a higher epoch was claimed meanwhile.
    fn next_session(&self, stream: StreamKey, id: StreamId) -> Result<(), Lost>;

    /// Commits the next object of our stream, the close first: durable and ours on `Ok`. After an error the stream is over,
    /// and the object may appear at any later time.
    ///
    /// # Errors
    /// [`Lost::Fenced`] when another start has taken over.
    fn commit(&self, object: &Object) -> Result<(), Lost>;

    /// Creates an object that is no commit: durable on `Ok`. Waits as long as it takes.
    ///
    /// # Errors
    /// `AlreadyExists` where another one is there.
    fn create(&self, path: &Path, bytes: Bytes) -> io::Result<()>;

    /// Deletes objects, some at a time.
    ///
    /// # Errors
    /// Which of them are not known to be gone, and why one is not.
    fn remove(&self, paths: &[PathBuf]) -> Result<(), (BTreeSet<usize>, io::Error)>;

    /// [`Self::create`], a small one, which the store has to answer for.
    ///
    /// # Errors
    /// `AlreadyExists` where another one is there; `TimedOut` without an answer: it may appear at any later time.
    fn publish(&self, path: &Path, bytes: Bytes) -> io::Result<()>;
}

/// Our part in the protocol.
#[derive(Debug, Default)]
struct Part {
    author: Option<Author>,
    claimed: Option<StreamKey>,
    committer: Option<Committer>,
}

/// A bucket as a directory; cheap to clone.
pub(crate) struct BucketDirectory<B>(Arc<Shared<B>>);

struct Shared<B> {
    bucket: B,
    /// For messages: the URL of the root.
    root: String,
    waiting: Waiting,
    /// There was no answer for too long, and none since.
    silent: AtomicBool,
    probed: Mutex<bool>,
    /// Held while a request of the protocol is under way; one thread makes them.
    part: Mutex<Part>,
    taken: Mutex<Option<Arc<Taken>>>,
}

impl<B> Clone for BucketDirectory<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Bucket + Send + 'static> BucketDirectory<B> {
    /// The bucket below `root`, whose requests are waited for as `waiting` does.
    pub(crate) fn new(bucket: B, root: String, waiting: Waiting) -> Self {
        let (probed, part, taken) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { bucket, root, waiting, silent: AtomicBool::new(false), probed, part, taken }))
    }
}

impl<B: Bucket + Send + 'static> Shared<B> {
    /// Waits until it is known what came of requests.
    fn wait<T, E: From<Denied>>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        self.waiting.wait(future).unwrap_or_else(|given_up| Err(self.given_up(given_up).into()))
    }

    /// Waits for requests for as long as anything comes. Who has had no answer once does not wait so long again.
    fn ask<T, E: From<Denied>>(&self, future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let patience = if self.silent.load(Ordering::Relaxed) { PATIENCE / 3 } else { PATIENCE };
        let asked = self.waiting.ask(patience, || self.bucket.heard(), future);
        self.silent.store(asked.as_ref().is_err_and(|given_up| *given_up == GivenUp::NoAnswer), Ordering::Relaxed);
        asked.unwrap_or_else(|given_up| Err(self.given_up(given_up).into()))
    }

    /// Why requests are waited for no longer, with what is wrong with the store where that is known.
    fn given_up(&self, given_up: GivenUp) -> Denied {
        let trouble = match given_up {
            GivenUp::Stopping => {
                Trouble::new(Condition::NoAnswer, format!("{}: given up: the sidecar is stopping", self.root))
            }
            GivenUp::NoAnswer => no_answer(&self.root, &self.bucket),
        };
        Denied(trouble)
    }
}

/// What is wrong with a store that gives no answer.
fn no_answer(root: &str, bucket: &impl Bucket) -> Trouble {
    match bucket.trouble().filter(|trouble| !trouble.condition.stays()) {
        Some(Trouble { condition, sentence, .. }) => {
            Trouble::new(condition, format!("{sentence}; it was asked again and again"))
        }
        None => {
            let what = "the store gives no answer: look at it, and at the network between";
            Trouble::new(Condition::NoAnswer, format!("{root}: {what}"))
        }
    }
}

/// A refusal as a device's error; `TimedOut` where there was no answer.
fn refused(denied: Denied) -> io::Error {
    let lost = Lost::from(denied);
    let kind = if lost.passes() { io::ErrorKind::TimedOut } else { io::ErrorKind::PermissionDenied };
    io::Error::new(kind, lost.sentence())
}
