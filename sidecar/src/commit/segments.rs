//! Segments as the log knows them: which file holds which entries of a collection, and where that file is.
//!
//! 1. A segment is known by the uuid in its header, under whatever name it lies.
//! 2. Uuids of one writer rise: of two segments that hold the same entries the one with the higher uuid was made from the
//!    other, and is the one that stays.
//! 3. What a FLUSHED fact says of a segment is valid as long as the file is there; only a longer length supersedes it.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::collection::DirIx;
use crate::format::facts::FlushedFact;
use crate::format::names::{self, CURRENT_SEGMENT, SHARED_DIR, WAL_DIR};
use crate::types::{CollectionName, Epoch, Incarnation, Lsn};

/// One collection's part of a segment, as a durable FLUSHED fact says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) id: Uuid,
    pub(crate) dir: DirIx,
    /// The first and last LSN of the collection in it; what is missing between them is truncated or in a gap.
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Valid bytes of the file, and its last INDEX block.
    pub(crate) length: u64,
    pub(crate) index_offset: u64,
    pub(crate) index_crc: u32,
    /// Encoded bytes of the collection's entries in it; 0 where it is not known.
    pub(crate) bytes: u64,
    pub(crate) sealed: bool,
    pub(crate) shared: bool,
    /// A write to it failed: nothing is added to it any more, sealed or not.
    pub(crate) closed: bool,
    /// It was found under none of its names by this process.
    pub(crate) not_found: bool,
}

impl Segment {
    /// What a fact says, of a directory that is here.
    pub(crate) fn of_fact(fact: &FlushedFact, last: Lsn, dir: DirIx) -> Self {
        let FlushedFact { segment, directory: _, first_lsn, length, index_offset, index_crc, sealed, shared, bytes } =
            *fact;
        Self {
            id: segment,
            dir,
            first: first_lsn,
            last,
            length,
            index_offset,
            index_crc,
            bytes,
            sealed,
            shared,
            closed: false,
            not_found: false,
        }
    }

    pub(crate) fn fact(&self, directory: Uuid) -> FlushedFact {
        FlushedFact {
            segment: self.id,
            directory,
            first_lsn: self.first,
            length: self.length,
            index_offset: self.index_offset,
            index_crc: self.index_crc,
            sealed: self.sealed,
            shared: self.shared,
            bytes: self.bytes,
        }
    }

    pub(crate) fn covers(&self, lsn: Lsn) -> bool {
        self.first <= lsn && lsn <= self.last
    }

    /// Entries above `truncated_to`, gaps included.
    pub(crate) fn live_entries(&self, truncated_to: Lsn) -> u64 {
        (self.last.0 + 1).saturating_sub(self.first.0.max(truncated_to.0 + 1))
    }

    /// Bytes above `truncated_to`, as if all entries had one size.
    pub(crate) fn live_bytes(&self, truncated_to: Lsn) -> u64 {
        let all = u128::from(self.last.0 - self.first.0 + 1);
        let share = u128::from(self.bytes) * u128::from(self.live_entries(truncated_to)) / all;
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// The uuid of the `counter`-th segment of a start: rises with both, differs by `random` from what anybody else makes.
pub(crate) fn segment_id(epoch: Epoch, counter: u64, random: u32) -> Uuid {
    let epoch = u128::from(epoch.0 & ((1 << 48) - 1)) << 80;
    let high = u128::from(counter >> 30 & 0xFFF) << 64;
    let low = u128::from(counter & ((1 << 30) - 1)) << 32;
    // Version 8 (custom), variant 10.
    Uuid::from_u128(epoch | 8 << 76 | high | 2 << 62 | low | u128::from(random))
}

/// The epoch in which a segment was begun, by its uuid.
pub(crate) fn epoch_of(segment: Uuid) -> Epoch {
    Epoch((segment.as_u128() >> 80) as u64)
}

/// Where a segment's file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SegmentPath {
    /// In its collection's folder.
    Own { folder: String, first: Lsn, last: Lsn },
    /// The same in a bucket: an object that was never named otherwise.
    Object { folder: String, first: Lsn, last: Lsn, id: Uuid },
    /// Among the shared ones.
    Shared { number: u64 },
}

impl SegmentPath {
    pub(crate) fn own(name: &CollectionName, first: Lsn, last: Lsn) -> Self {
        Self::Own { folder: names::collection_dir(name.as_str()), first, last }
    }

    /// Of a segment of a collection; `number` is a shared one's, where it was listed.
    pub(crate) fn of(name: &CollectionName, segment: &Segment, in_a_bucket: bool, number: Option<u64>) -> Self {
        let Segment { first, last, id, shared, .. } = *segment;
        if shared {
            // Not listed at the start: looked for under a number that no file has.
            Self::Shared { number: number.unwrap_or(0) }
        } else if in_a_bucket {
            Self::Object { folder: names::collection_dir(name.as_str()), first, last, id }
        } else {
            Self::own(name, first, last)
        }
    }

    /// The folder of the file.
    pub(crate) fn folder(&self) -> PathBuf {
        match self {
            Self::Own { folder, .. } | Self::Object { folder, .. } => PathBuf::from(folder),
            Self::Shared { .. } => shared_folder(),
        }
    }

    /// Its names, in the order in which to look: it is sealed by a rename while one looks.
    pub(crate) fn names(&self) -> Vec<PathBuf> {
        match self {
            Self::Own { folder, first, last } => {
                let folder = Path::new(folder);
                vec![folder.join(CURRENT_SEGMENT), folder.join(names::sealed_segment(*first, *last))]
            }
            Self::Object { folder, first, last, id } => {
                vec![Path::new(folder).join(names::object_segment(*first, *last, *id))]
            }
            Self::Shared { number } => vec![shared_folder().join(names::numbered(*number))],
        }
    }
}

/// The folder of shared segments.
pub(crate) fn shared_folder() -> PathBuf {
    Path::new(WAL_DIR).join(SHARED_DIR)
}

/// A file that nothing needs any more, until it is unlinked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    pub(crate) dir: DirIx,
    pub(crate) path: SegmentPath,
    /// Whose own segment it was: checkpoints go on to state it, so that a crash does not make it an orphan.
    pub(crate) of: Option<(CollectionName, Incarnation, Segment)>,
}

/// A shared segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedFile {
    pub(crate) dir: DirIx,
    pub(crate) number: u64,
    /// Encoded bytes when it was made; after a restart what is not more, and 0 for a small one.
    pub(crate) total: u64,
    /// Collections with live entries in it.
    pub(crate) users: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(first: u64, last: u64, bytes: u64) -> Segment {
        let fact = FlushedFact {
            segment: Uuid::nil(),
            directory: Uuid::nil(),
            first_lsn: Lsn(first),
            length: 1,
            index_offset: 1,
            index_crc: 1,
            sealed: false,
            shared: false,
            bytes,
        };
        Segment::of_fact(&fact, Lsn(last), 0)
    }

    #[test]
    fn uuids_rise_with_start_and_counter_and_are_well_formed() {
        let order = [(1, 0), (1, 1), (1, (1 << 30) - 1), (1, 1 << 30), (1, 5 << 30), (2, 0), (1 << 42, 7)];
        for pair in order.windows(2) {
            let [lower, higher] = [pair[0], pair[1]].map(|(epoch, counter)| segment_id(Epoch(epoch), counter, !0));
            assert!(lower < higher && lower < segment_id(Epoch(pair[1].0), pair[1].1, 0), "{pair:?}");
            assert_eq!((lower.get_version_num(), lower.get_variant()), (8, uuid::Variant::RFC4122));
        }
    }

    #[test]
    fn what_is_truncated_of_a_segment_does_not_count() {
        let segment = segment(11, 20, 1000);
        assert_eq!((segment.live_entries(Lsn(0)), segment.live_bytes(Lsn(0))), (10, 1000));
        assert_eq!((segment.live_entries(Lsn(15)), segment.live_bytes(Lsn(15))), (5, 500));
        assert_eq!((segment.live_entries(Lsn(20)), segment.live_bytes(Lsn(99))), (0, 0));
    }
}
