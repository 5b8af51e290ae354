//! Reading a collection a part at a time.

use std::sync::Arc;

use super::inner::Inner;
use crate::api::Item;
use crate::commit::log::Stage;
use crate::commit::read::{Cursor, decode};
use crate::error::{ApiError, Reason};
use crate::types::{CollectionName, Lsn};

/// Reads one collection, a part at a time.
pub struct Reader {
    inner: Arc<Inner>,
    collection: CollectionName,
    cursor: Cursor,
    /// Items that may still be answered.
    left: u64,
    follow: bool,
    failed: bool,
}

impl Reader {
    pub(super) fn begin(
        inner: &Arc<Inner>,
        collection: &CollectionName,
        from: Lsn,
        limit: u64,
        follow: bool,
    ) -> Result<Self, ApiError> {
        let cursor = inner.read_log(|log| log.read_from(collection, from))?;
        let left = if limit == 0 { u64::MAX } else { limit };
        Ok(Self { inner: Arc::clone(inner), collection: collection.clone(), cursor, left, follow, failed: false })
    }

    /// The next items, at most 1 MiB of entries or one entry; `None` at the end (without `follow`: the durable head at
    /// the start of the read). With `follow` it waits. Cancel-safe.
    ///
    /// # Errors
    /// OUT_OF_RANGE when overtaken by a truncate, COLLECTION_NOT_FOUND after a delete, SHUTTING_DOWN, DAMAGED. Nothing
    /// follows an error.
    pub async fn next(&mut self) -> Option<Result<Vec<Item>, ApiError>> {
        if self.failed || self.left == 0 {
            return None;
        }
        loop {
            let changed = Arc::clone(&self.cursor.changed);
            let changed = changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if !self.follow && self.cursor.next > self.cursor.head {
                return None;
            }
            let head = (!self.follow).then_some(self.cursor.head);
            let part = self.inner.read_log(|log| {
                let part =
                    log.read_part(&self.collection, self.cursor.incarnation, self.cursor.next, head, self.left)?;
                Ok((part, log.stage.clone()))
            });
            let (part, stage) = match part {
                Ok(found) => found,
                Err(error) => return Some(Err(self.fail(error))),
            };
            if !part.pieces.is_empty() {
                self.cursor.next = part.next;
                return Some(match decode(part.pieces) {
                    Ok(items) => {
                        self.left -= (items.len() as u64).min(self.left);
                        Ok(items)
                    }
                    Err(error) => Err(self.fail(error)),
                });
            }
            match stage {
                Stage::Stopping => {
                    let error =
                        ApiError::new(Reason::ShuttingDown, "the sidecar is stopping: follow from the next one");
                    return Some(Err(self.fail(error)));
                }
                Stage::Fenced(why) => return Some(Err(self.fail(ApiError::new(Reason::Fenced, why)))),
                Stage::Opening | Stage::Serving => {}
            }
            if !self.follow {
                return None;
            }
            changed.await;
        }
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.failed = true;
        error
    }
}
