//! Reading: durable entries and gaps in LSN order, copied out under the lock and decoded outside of it. What is not in
//! memory is in a segment, which the caller reads without the lock.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::collection::{Collection, Gap};
use super::log::Log;
use super::segments::{Segment, SegmentPath};
use crate::api::{CollectionInfo, Item, StoredEntry};
use crate::error::{ApiError, Reason};
use crate::format::record;
use crate::types::{CollectionName, Incarnation, Lsn};

/// Most bytes of entries in one part, unless one entry is larger.
pub(crate) const PART: usize = 1 << 20;

/// Where a read begins and ends.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    pub(crate) incarnation: Incarnation,
    pub(crate) next: Lsn,
    /// The durable head when the read began.
    pub(crate) head: Lsn,
    pub(crate) changed: Arc<Notify>,
}

/// Copied bytes, still to be decoded.
#[derive(Debug)]
pub(crate) enum Piece {
    Records(Vec<u8>),
    Gap(Gap),
}

/// What one look answered.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) pieces: Vec<Piece>,
    /// Where to go on.
    pub(crate) next: Lsn,
    /// Without pieces: the entries at `next` are in this segment.
    pub(crate) segment: Option<SegmentRead>,
}

/// Entries that are in a segment only.
#[derive(Clone, Debug)]
pub(crate) struct SegmentRead {
    pub(crate) name: CollectionName,
    pub(crate) incarnation: Incarnation,
    pub(crate) segment: Segment,
    pub(crate) path: SegmentPath,
    pub(crate) from: Lsn,
    /// Up to here they are wanted from there.
    pub(crate) to: Lsn,
}

fn out_of_range(collection: &Collection, lsn: Lsn) -> ApiError {
    let first = collection.truncated_to.next();
    ApiError::new(
        Reason::OutOfRange,
        format!("LSN {lsn} of {:?} is truncated: the first readable one is {first}", collection.name.as_str()),
    )
    .with("first", first)
    .with("durableHead", collection.durable_head)
}

impl Log {
    /// Begins a read at `from` (0: the earliest readable).
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND, OUT_OF_RANGE, AHEAD_OF_LOG.
    pub(crate) fn read_from(&self, name: &CollectionName, from: Lsn) -> Result<Cursor, ApiError> {
        let collection = self.find(name)?;
        let next = if from == Lsn::ZERO { collection.truncated_to.next() } else { from };
        if next <= collection.truncated_to {
            return Err(out_of_range(collection, next));
        }
        if next > collection.durable_head.next() {
            return Err(ApiError::new(
                Reason::AheadOfLog,
                format!(
                    "LSN {next} of {:?} is ahead of the log, whose last durable entry is {}: the application has applied \
                     entries that this log does not hold",
                    name.as_str(),
                    collection.durable_head
                ),
            )
            .with("first", collection.truncated_to.next())
            .with("durableHead", collection.durable_head));
        }
        Ok(Cursor {
            incarnation: collection.incarnation,
            next,
            head: collection.durable_head,
            changed: Arc::clone(&collection.changed),
        })
    }

    /// Copies at most 1 MiB (or one entry) and `limit` items from `next` up to `head` (`None`: all that is durable).
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND when it was deleted, OUT_OF_RANGE when `next` was truncated since.
    pub(crate) fn read_part(
        &self,
        name: &CollectionName,
        incarnation: Incarnation,
        next: Lsn,
        head: Option<Lsn>,
        limit: u64,
    ) -> Result<Part, ApiError> {
        let collection = self.find(name)?;
        if collection.incarnation != incarnation {
            let message = format!("collection {:?} was deleted during the read", name.as_str());
            return Err(ApiError::new(Reason::CollectionNotFound, message));
        }
        if next <= collection.truncated_to {
            return Err(out_of_range(collection, next));
        }
        let durable = if mutant!(ReadsUndurable) { collection.assigned_head } else { collection.durable_head };
        let end = head.unwrap_or(durable).min(durable);
        let mut part = collection.part(next, end, limit);
        if part.pieces.is_empty() && part.next <= end {
            part.segment = self.segment_read(collection, part.next, end);
        }
        Ok(part)
    }
}

impl Log {
    /// Where a segment's file may be.
    pub(super) fn segment_path(&self, name: &CollectionName, segment: &Segment) -> SegmentPath {
        let number = self.flush.shared.get(&segment.id).map(|file| file.number);
        SegmentPath::of(name, segment, self.journals[segment.dir].of_objects, number)
    }

    /// Where the entries from `from` on are that are not in memory.
    fn segment_read(&self, collection: &Collection, from: Lsn, end: Lsn) -> Option<SegmentRead> {
        // Of two that hold an entry the younger one.
        let segment = collection.segments.iter().filter(|segment| segment.covers(from)).max_by_key(|s| s.id)?;
        let path = self.segment_path(&collection.name, segment);
        let in_memory = collection.buffer.iter(from).next().map(|(lsn, _)| lsn);
        let in_gap = collection.gaps.iter().map(|gap| gap.first).find(|first| *first > from);
        let before = in_memory.into_iter().chain(in_gap).map(|lsn| Lsn(lsn.0 - 1));
        let to = before.chain([segment.last, end]).min()?;
        let (name, incarnation) = (collection.name.clone(), collection.incarnation);
        Some(SegmentRead { name, incarnation, segment: segment.clone(), path, from, to })
    }

    /// A collection as it stands.
    ///
    /// # Errors
    /// COLLECTION_NOT_FOUND.
    pub(crate) fn describe(&self, name: &CollectionName) -> Result<CollectionInfo, ApiError> {
        self.find(name).map(|collection| self.info(collection))
    }

    /// At most `limit` collections after `after`, by name.
    pub(crate) fn list(&self, after: Option<&str>, limit: usize) -> Vec<CollectionInfo> {
        self.after(after).take(limit).map(|collection| self.info(collection)).collect()
    }

    fn info(&self, collection: &Collection) -> CollectionInfo {
        CollectionInfo {
            name: collection.name.clone(),
            incarnation: collection.incarnation,
            first_lsn: collection.truncated_to.next(),
            truncated_to: collection.truncated_to,
            durable_head: collection.durable_head,
            assigned_head: collection.assigned_head,
            bytes: collection.bytes(),
            directory: self.journals[collection.home].url.clone(),
            segments: collection.segments.len() as u64,
        }
    }
}

impl Collection {
    /// The pieces from `next` to `end`: at most `limit` items and about 1 MiB.
    fn part(&self, from: Lsn, end: Lsn, limit: u64) -> Part {
        let mut next = from;
        let (mut pieces, mut bytes, mut items) = (Vec::new(), 0, 0);
        let mut records = Vec::new();
        let mut gaps = self.gaps.iter().skip_while(|gap| gap.last < from).peekable();
        let mut entries = self.buffer.iter(from).peekable();
        while next <= end && items < limit {
            if let Some(&&gap) = gaps.peek()
                && gap.first <= next
            {
                if !records.is_empty() {
                    pieces.push(Piece::Records(std::mem::take(&mut records)));
                }
                pieces.push(Piece::Gap(Gap { first: next, ..gap }));
                next = gap.last.next();
                gaps.next();
                // An entry inside a gap is never served, even if it is there.
                while entries.next_if(|&(lsn, _)| lsn < next).is_some() {}
            } else if let Some((_, record)) = entries.next_if(|&(lsn, _)| lsn == next) {
                if bytes > 0 && bytes + record.len() > PART {
                    break;
                }
                bytes += record.len();
                records.extend_from_slice(record);
                next = next.next();
            } else {
                // In a segment. Were it nowhere, which recovery rules out: better a short read than a wrong one.
                break;
            }
            items += 1;
        }
        if !records.is_empty() {
            pieces.push(Piece::Records(records));
        }
        Part { pieces, next, segment: None }
    }
}

/// Decodes the pieces. The payloads are slices of the copied bytes.
///
/// # Errors
/// DAMAGED when memory does not hold what was encoded.
pub(crate) fn decode(pieces: Vec<Piece>) -> Result<Vec<Item>, ApiError> {
    let mut items = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Gap(gap) => items.push(Item::Gap { first: gap.first, last: gap.last, reason: gap.why() }),
            Piece::Records(records) => {
                let bytes = Bytes::from(records);
                let mut at = 0;
                while at < bytes.len() {
                    let damaged =
                        |what: String| ApiError::new(Reason::Damaged, format!("an entry in memory is damaged: {what}"));
                    let (record, len) = record::decode(&bytes[at..]).map_err(|e| damaged(e.to_string()))?;
                    if !record.crc_holds() && !mutant!(SegmentReadUnchecked) {
                        return Err(damaged(format!("LSN {} fails its checksum", record.lsn)));
                    }
                    let slice = |part: &[u8]| bytes.slice_ref(part);
                    items.push(Item::Entry(StoredEntry {
                        lsn: record.lsn,
                        timestamp_micros: record.timestamp,
                        key: record.key.map(slice),
                        headers: record.headers.iter().map(|(n, v)| (n.to_owned(), slice(v))).collect(),
                        payload: slice(record.payload),
                    }));
                    at += len;
                }
            }
        }
    }
    Ok(items)
}
