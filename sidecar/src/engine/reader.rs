//! Reading a collection a part at a time.

use std::sync::Arc;

use walstorage_crds::url::WalUrl;

use super::inner::Inner;
use super::segment_read::{self, Found, ReadError, SegmentIndex};
use crate::api::{DamageReport, Item};
use crate::commit::log::Stage;
use crate::commit::read::{Cursor, Piece, SegmentRead, decode};
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
    /// Where entries are in the segment read last.
    index: Option<SegmentIndex>,
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
        let (inner, collection) = (Arc::clone(inner), collection.clone());
        Ok(Self { inner, collection, cursor, left, follow, failed: false, index: None })
    }

    /// The next items, at most 1 MiB of entries or one entry; `None` at the end (without `follow`: the durable head at
    /// the start of the read). With `follow` it waits. Cancel-safe.
    ///
    /// # Errors
    /// OUT_OF_RANGE when overtaken by a truncate, COLLECTION_NOT_FOUND after a delete, SHUTTING_DOWN, DAMAGED,
    /// DIRECTORY_MISSING when a segment cannot be read now. Nothing follows an error.
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
            let (mut part, stage) = match part {
                Ok(found) => found,
                Err(error) => return Some(Err(self.fail(error))),
            };
            if let Some(wanted) = part.segment.take() {
                match self.take_from_segment(&wanted).await {
                    Ok(Some((records, next))) => (part.pieces, part.next) = (vec![Piece::Records(records)], next),
                    Ok(None) => continue,
                    Err(error) => return Some(Err(self.fail(error))),
                }
            }
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

    /// Entries from a segment, and where to go on; `None` when they are elsewhere by now.
    async fn take_from_segment(&mut self, wanted: &SegmentRead) -> Result<Option<(Vec<u8>, Lsn)>, ApiError> {
        let read = self.read_segment(wanted).await;
        // What was read counts only if it still may be read.
        let head = (!self.follow).then_some(self.cursor.head);
        let now = self.inner.read_log(|log| {
            log.read_part(&self.collection, self.cursor.incarnation, self.cursor.next, head, self.left)
        })?;
        let error = match read {
            Ok(Found { records, next, index }) => {
                self.index = Some(index);
                return Ok(Some((records, next)));
            }
            Err(error) => error,
        };
        if now.segment.is_none_or(|now| now.segment != wanted.segment) {
            return Ok(None);
        }
        Err(self.explain(wanted, &error))
    }

    /// Reads off the runtime; a bounded number of segments is open at a time.
    async fn read_segment(&self, wanted: &SegmentRead) -> Result<Found, ReadError> {
        let gone = |why: &str| ReadError::Gone(why.to_owned());
        let permit = Arc::clone(&self.inner.open_segments).acquire_owned().await;
        let Ok(permit) = permit else { return Err(gone("the engine has ended")) };
        let disk = self.inner.read_disks.get().and_then(|disks| disks.get(wanted.segment.dir)).cloned();
        let Some(disk) = disk else { return Err(gone("its directory is not there")) };
        let (wanted, known, left) = (wanted.clone(), self.index.clone(), self.left);
        let read = tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone long before a store answers: the thread is in use until then.
            let _permit = permit;
            segment_read::read(disk.as_ref(), &wanted, known, left)
        });
        read.await.unwrap_or_else(|_| Err(gone("reading was given up")))
    }

    /// What to tell the caller, and where it is damage also those who look at the status.
    fn explain(&self, wanted: &SegmentRead, error: &ReadError) -> ApiError {
        let (dir, from, to) = (wanted.segment.dir, wanted.from, wanted.to);
        let url = self.inner.url(dir);
        let which = format!("LSN {from} to {to} of {:?}", self.collection.as_str());
        let there = self.inner.read_disks.get().and_then(|disks| disks.get(dir)).is_some_and(|disk| disk.exists());
        let (file, offset) = match error {
            ReadError::Io(_) => return directory_missing(&which, &url, error),
            ReadError::Gone(_) if !there => return directory_missing(&which, &url, error),
            ReadError::Gone(why) => (why.clone(), 0),
            ReadError::Damaged { file, offset, .. } => (file.clone(), *offset),
        };
        let lost = vec![(Some(self.collection.clone()), Some((from, to)))];
        let report = DamageReport { directory: url.clone(), file, offset, what: error.to_string(), lost };
        let mut findings = self.inner.findings.lock();
        let known = |other: &DamageReport| other.file == report.file && other.offset == report.offset;
        if !findings.damage.iter().any(known) {
            tracing::error!(directory = %url, what = report.what, "a segment is damaged");
            findings.damage.push(report);
        }
        let message = format!(
            "{which} is in a segment of {url} that is damaged: {error}; restore the file, or truncate what is applied"
        );
        ApiError::new(Reason::Damaged, message)
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.failed = true;
        error
    }
}

fn directory_missing(which: &str, url: &WalUrl, error: &ReadError) -> ApiError {
    let message = format!(
        "{which} is only in a segment of {url}, which cannot be read: {error}; it can when the directory is back"
    );
    ApiError::new(Reason::DirectoryMissing, message)
}
