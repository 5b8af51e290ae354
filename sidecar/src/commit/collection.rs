//! One collection in memory: its heads, its entries, who waits.
//!
//! 1. `truncated_to <= durable_head <= assigned_head`; every LSN in (truncated_to, flushed_to] is in a segment or in a gap,
//!    every one above both up to `assigned_head` in the buffer, in a gap, or until the log serves on the shelf.
//! 2. At most one group of it is in flight, so no hole across directories is possible.
//! 3. LSNs are never skipped or reused: what has one stays pending until a directory has it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::answer::{AppendWaiter, ChangeWaiter};
use super::buffer::EntryBuffer;
use super::flush_jobs::FlushState;
use super::producers::{LastRequest, Producers};
use super::segments::Segment;
use super::shelf::Shelf;
use crate::api::{Ack, GapReason};
use crate::format::facts::GapCause;
use crate::types::{CollectionName, Incarnation, Lsn};

/// Index of a directory in the log.
pub(crate) type DirIx = usize;

/// Index of a collection in the log.
pub(crate) type ColIx = usize;

/// Lost LSNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) cause: GapCause,
}

impl Gap {
    pub(crate) const fn why(&self) -> GapReason {
        match self.cause {
            GapCause::DirectoryForgotten => GapReason::DirectoryForgotten,
            GapCause::Damage | GapCause::Other(_) => GapReason::Damage,
        }
    }
}

/// A request that has its LSNs and is not yet durable.
#[derive(Debug)]
pub(crate) struct PendingBatch {
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    /// Encoded bytes.
    pub(crate) bytes: usize,
    /// When it is to be committed at the latest.
    pub(crate) due: Instant,
    pub(crate) stamp: Option<(Bytes, LastRequest)>,
    /// `None` where it was answered at BUFFERED.
    pub(crate) waiter: Option<AppendWaiter>,
}

/// A duplicate that waits until its original is durable.
#[derive(Debug)]
pub(crate) struct DuplicateWaiter {
    /// The original is durable when everything up to here is.
    pub(crate) until: Lsn,
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
    pub(crate) ack: Ack,
    pub(crate) waiter: AppendWaiter,
}

/// A wish to truncate, waiting for its fact to be durable.
#[derive(Debug)]
pub(crate) struct TruncateWish {
    pub(crate) up_to: Lsn,
    pub(crate) waiter: ChangeWaiter<Lsn>,
}

/// One collection.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) name: CollectionName,
    pub(crate) incarnation: Incarnation,
    /// Where its entries go; without affinity where the last group went.
    pub(crate) home: DirIx,
    pub(crate) move_number: u64,
    pub(crate) placement: u64,
    pub(crate) truncated_to: Lsn,
    /// Everything up to here is truncated, in segments or in gaps, durably.
    pub(crate) flushed_to: Lsn,
    pub(crate) durable_head: Lsn,
    pub(crate) assigned_head: Lsn,
    /// Segments with entries above `truncated_to`, by first LSN.
    pub(crate) segments: Vec<Segment>,
    pub(crate) flush: FlushState,
    pub(crate) buffer: EntryBuffer,
    /// What recovery left in the journals.
    pub(crate) shelf: Shelf,
    /// Sorted, disjoint.
    pub(crate) gaps: Vec<Gap>,
    pub(crate) producers: Producers,
    pub(crate) pending: VecDeque<PendingBatch>,
    /// The directory in which a group of it is in flight.
    pub(crate) in_flight: Option<DirIx>,
    /// It waits in the queue of this directory.
    pub(crate) queued_on: Option<DirIx>,
    /// A record of its creation is durable or in flight.
    pub(crate) announced: bool,
    pub(crate) duplicates: Vec<DuplicateWaiter>,
    pub(crate) truncates: Vec<TruncateWish>,
    /// A truncation of it is queued as a fact.
    pub(crate) truncate_queued: bool,
    /// Its home or its state has to be said again in the frame of its next group.
    pub(crate) moved: bool,
    /// Where it lived before that, and the number of the move to there.
    pub(super) before: (DirIx, u64),
    /// Deleted: out of the index of names.
    pub(crate) deleted: bool,
    /// The deletion is durable: it goes when its last group is done.
    pub(crate) delete_durable: bool,
    pub(crate) changed: Arc<Notify>,
}

impl Collection {
    pub(crate) fn new(name: CollectionName, incarnation: Incarnation, home: DirIx, placement: u64) -> Self {
        Self {
            name,
            incarnation,
            home,
            move_number: 1,
            placement,
            truncated_to: Lsn::ZERO,
            flushed_to: Lsn::ZERO,
            durable_head: Lsn::ZERO,
            assigned_head: Lsn::ZERO,
            segments: Vec::new(),
            flush: FlushState::default(),
            buffer: EntryBuffer::default(),
            shelf: Shelf::default(),
            gaps: Vec::new(),
            producers: Producers::default(),
            pending: VecDeque::new(),
            in_flight: None,
            queued_on: None,
            announced: false,
            duplicates: Vec::new(),
            truncates: Vec::new(),
            truncate_queued: false,
            moved: false,
            before: (home, 1),
            deleted: false,
            delete_durable: false,
            changed: Arc::new(Notify::new()),
        }
    }

    /// Applies a durable truncation; answers the memory it freed.
    pub(crate) fn truncate_to(&mut self, to: Lsn) -> usize {
        if to <= self.truncated_to {
            return 0;
        }
        let before = self.buffer.capacity();
        self.truncated_to = to;
        self.buffer.truncate_to(to);
        self.gaps.retain(|gap| gap.last > to);
        before - self.buffer.capacity()
    }

    /// Encoded bytes of its entries, as far as they are known.
    pub(crate) fn bytes(&self) -> u64 {
        let flushed: u64 = self.segments.iter().map(|segment| segment.live_bytes(self.truncated_to)).sum();
        self.buffer.bytes() + flushed
    }

    /// Number of its entries.
    pub(crate) fn entries(&self) -> u64 {
        let lost = |gap: &Gap| (gap.last.0 + 1).saturating_sub(gap.first.0.max(self.truncated_to.0 + 1));
        let in_gaps: u64 = self.gaps.iter().map(lost).sum();
        (self.assigned_head.0 - self.truncated_to.0).saturating_sub(in_gaps)
    }

    /// The first entry that is not known to be in a segment.
    pub(super) fn first_unflushed(&self) -> Option<Lsn> {
        self.buffer.first().into_iter().chain(self.shelf.first()).min()
    }

    /// Whether all of these LSNs are in gaps.
    pub(super) fn is_gap(&self, first: Lsn, last: Lsn) -> bool {
        let next =
            self.gaps.iter().fold(first, |next, gap| if gap.first <= next { next.max(gap.last.next()) } else { next });
        next > last
    }

    /// The first and last of these LSNs that are neither truncated nor in gaps.
    pub(super) fn held(&self, first: Lsn, last: Lsn) -> Option<(Lsn, Lsn)> {
        let mut first = first.max(self.truncated_to.next());
        for gap in &self.gaps {
            if gap.first <= first && first <= gap.last {
                first = gap.last.next();
            }
        }
        let mut last = last;
        for gap in self.gaps.iter().rev() {
            if gap.first <= last && last <= gap.last {
                last = Lsn(gap.first.0 - 1);
            }
        }
        (first <= last).then_some((first, last))
    }

    /// The same of a segment.
    pub(super) fn held_of(&self, segment: &Segment) -> Option<(Lsn, Lsn)> {
        if mutant!(GapsKeepSegments) {
            return Some((segment.first.max(self.truncated_to.next()), segment.last));
        }
        self.held(segment.first, segment.last)
    }

    /// Where it lives, and the number of the move to there, as may be said now. While something of it is on its way to where it
    /// lived before, that is its home: who loses that directory has to know that it held the last entries.
    pub(super) fn home_to_say(&self) -> (DirIx, u64) {
        let on_its_way = [self.in_flight, self.queued_on].contains(&Some(self.before.0));
        if self.moved && on_its_way && !mutant!(MoveSaidEarly) { self.before } else { (self.home, self.move_number) }
    }

    /// Bytes of memory that count against the bound.
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity() + self.producers.cost()
    }

    /// Whether it has entries that no directory is to write now.
    pub(crate) fn is_parked(&self) -> bool {
        !self.pending.is_empty() && self.in_flight.is_none() && self.queued_on.is_none()
    }

    /// Whether nothing refers to it any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.delete_durable && self.in_flight.is_none() && self.pending.is_empty()
    }
}
