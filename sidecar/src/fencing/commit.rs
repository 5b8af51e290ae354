//! Commits of a stream, one after the other.

use super::Lost;
use super::object::{CLOSE, Object, ObjectKey};
use super::put::{Put, put};
use crate::directory::bucket::Bucket;
use crate::format::StreamKey;

/// The right to add the next object to a stream that is ours.
#[derive(Debug)]
pub struct Committer {
    stream: StreamKey,
    next: u64,
}

impl Committer {
    /// Behind the close.
    #[must_use]
    pub const fn new(stream: StreamKey) -> Self {
        Self { stream, next: CLOSE + 1 }
    }

    /// Where the next commit goes.
    #[must_use]
    pub const fn next(&self) -> ObjectKey {
        ObjectKey { stream: self.stream, number: self.next }
    }

    /// Commits: the object is durable and ours when this returns. Where the future is dropped before, or the store refuses, its
    /// outcome is unknown, and the stream is over: the object may appear at any later time.
    ///
    /// # Errors
    /// [`Lost::Fenced`] when another start has taken over. Nothing may be acknowledged any more.
    pub async fn commit(&mut self, bucket: &impl Bucket, object: &Object) -> Result<(), Lost> {
        debug_assert_eq!(object.key, self.next());
        match put(bucket, object).await? {
            Put::Ours => {
                self.next += 1;
                Ok(())
            }
            Put::Taken(by) => {
                let epoch = by.map_or(self.stream.epoch, |by| by.epoch);
                Err(Lost::Fenced { by: StreamKey { epoch, session: 0 } })
            }
        }
    }
}
