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
//! 2. A call that has begun ends when it is known what happened, when the store refuses, or when the process ends.
//! 3. Claims and fences are never deleted: the names that the engine deletes by are those of commits.

mod disk;
mod file;
#[cfg(test)]
pub(crate) mod memory;
mod objects;
mod registry;
mod wait;

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) use self::disk::slot_of;
pub(crate) use self::registry::Buckets;
use self::wait::Waiting;
use super::Lost;
use super::commit::Committer;
use super::fence::Fenced;
use super::object::{Author, Object, ObjectKey};
use crate::directory::bucket::{Bucket, Denied};
use crate::directory::trouble::Trouble;
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

/// What a bucket has that a disk has not. Calls block, as those of [`Disk`](crate::directory::disk::Disk) do.
pub trait Objects: Send + Sync {
    /// What is wrong with the store now; `None` when its last answer was fine.
    fn trouble(&self) -> Option<Trouble>;

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

    /// Shows whole objects in the order of `keys`, some read ahead; `None` for one that is not there. Ends early where
    /// `each` answers `false`.
    ///
    /// # Errors
    /// When the store refuses.
    fn read(&self, keys: &[ObjectKey], each: &mut dyn FnMut(ObjectKey, Option<Bytes>) -> bool) -> Result<(), Lost>;

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

    /// Creates an object that is no commit: durable on `Ok`.
    ///
    /// # Errors
    /// `AlreadyExists` where another one is there.
    fn create(&self, path: &Path, bytes: Bytes) -> io::Result<()>;
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
        Self(Arc::new(Shared { bucket, root, waiting, probed, part, taken }))
    }
}

/// A refusal as a device's error.
fn refused(denied: Denied) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Lost::from(denied).sentence())
}
