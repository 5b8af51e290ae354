//! The seam between the engine and an object store: everything that touches a bucket goes through [`Bucket`], so that a
//! model can stand in its place and lose, delay and refuse every request.
//!
//! Keys are relative to the directory's root (`<url>[/<writer_id>]/`). What a store must give:
//!
//! 1. **Create-only.** Of all requests to create a key at most one ever takes effect, whenever it arrives.
//! 2. **Strong reads.** What took effect before a read or a list began is seen by it, and so is a removal.
//! 3. Nothing is promised of a request without an answer: it may have taken effect, may do so at any later time, or never.

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;

use super::trouble::Trouble;

/// Why an object was not created, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The store says that the key is there (412, "already exists"). Who created it is another question: a request of ours
    /// whose answer was lost would do.
    #[error("the key is there")]
    Taken,
    /// No answer that says what happened: a timeout, a reset, 409, 5xx.
    #[error("no clear answer: {0}")]
    Unclear(Trouble),
    /// Refused for good: no permission, no such bucket.
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// Refused until a person does something: no permission, no such bucket. Reads that fail otherwise are repeated behind the
/// seam. What it holds [stays](super::trouble::Condition::stays), unless whoever waits for requests gave them up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused: {0}")]
pub struct Denied(pub Trouble);

/// A bucket below one directory's root.
pub trait Bucket: Sync {
    /// Creates the object, which must not be there. One attempt: never repeated behind the seam, which would hide that the
    /// first one succeeded.
    ///
    /// # Errors
    /// What is known of the outcome.
    fn create(&self, key: &str, body: Bytes) -> impl Future<Output = Result<(), CreateError>> + Send;

    /// The bytes of an object within a range, fewer where it ends before; `None` where there is no object.
    ///
    /// # Errors
    /// When it is refused.
    fn read(&self, key: &str, range: Range<u64>) -> impl Future<Output = Result<Option<Bytes>, Denied>> + Send;

    /// The keys below a prefix that ends in `/`, in any order.
    ///
    /// # Errors
    /// When it is refused.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<String>, Denied>> + Send;

    /// Removes an object, which need not be there.
    ///
    /// # Errors
    /// When it is refused.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), Denied>> + Send;

    /// What is wrong with the store now, as far as its last answer shows.
    fn trouble(&self) -> Option<Trouble> {
        None
    }

    /// How often anything came of requests so far: answers that are what was asked for, and parts of long ones. Who waits
    /// for one that takes long looks whether this still counts.
    fn heard(&self) -> u64 {
        0
    }

    /// Waits before attempt number `attempt` (from 1): longer each time, with jitter.
    fn back_off(&self, attempt: u32) -> impl Future<Output = ()> + Send;
}
