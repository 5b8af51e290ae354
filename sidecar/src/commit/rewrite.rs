//! Rewriting segments: the live entries of a shared segment of which little is live, and of segments in a directory that
//! is to be emptied, go to a new shared segment. When that is durable the old one is not needed any more.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::collection::{ColIx, Collection, DirIx};
use super::flush_jobs::{FlushPart, FlushWork, Flusher, Piece, Target, Tried, Why};
use super::flush_plan::FLUSH_MOST;
use super::flushed::{FlushFailure, RETRY};
use super::journal::Health;
use super::log::Log;
use super::read::SegmentRead;
use super::segments::Segment;
use crate::types::{Incarnation, Lsn};

/// Segments to rewrite are looked for this often at most.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// After a segment that could not be rewritten.
pub(crate) const AGAIN: Duration = Duration::from_secs(60);

impl Log {
    /// Something of a collection was truncated: a shared segment may have little left.
    pub(super) fn look_for_rewrites(&mut self, ix: ColIx) {
        let Some(collection) = self.collections[ix].as_ref() else { return };
        for dir in collection.segments.iter().filter(|segment| segment.shared).map(|segment| segment.dir) {
            let flusher = &mut self.journals[dir].flusher;
            flusher.signalled |= flusher.rewrite_at.is_none();
        }
    }

    /// The next segment to be rewritten into `dir`.
    pub(super) fn next_rewrite(&mut self, dir: DirIx, now: Instant) -> Option<FlushWork> {
        let flusher = &mut self.journals[dir].flusher;
        if flusher.rewrite_at.is_some_and(|at| at > now) || !self.journals[dir].takes_segments() {
            return None;
        }
        self.journals[dir].flusher.rewrite_at = None;
        self.doom_hollow();
        let Some(parts) = self.parts_to_rewrite(dir, now) else {
            self.forget_attempts();
            let again = self.flush.tried.values().map(|tried| tried.again).filter(|at| *at > now);
            // Where the segments of an emptied directory may go changes with whatever fails and comes back.
            let look = (self.is_emptying() && !mutant!(EmptyingForgotten)).then_some(now + LOOK);
            self.journals[dir].flusher.rewrite_at = again.chain(look).min();
            return None;
        };
        let once =
            |part: &FlushPart| Some(((part.incarnation, part.source?), Tried { again: now + AGAIN, unreadable: None }));
        self.flush.tried.extend(parts.iter().filter_map(once));
        self.journals[dir].flusher.rewrite_at = Some(now + LOOK);
        self.journals[dir].flusher.last_shared += 1;
        let target = Target::Shared(Uuid::nil(), self.journals[dir].flusher.last_shared);
        Some(self.begin_flush(dir, target, parts, Why::Rewrite))
    }

    /// Nothing came of a rewriting. Where one segment cannot be read, the others go on at once, unless their disk has failed.
    pub(super) fn not_rewritten(&mut self, dir: DirIx, parts: &[FlushPart], failure: &FlushFailure, now: Instant) {
        for key in parts.iter().filter_map(|part| Some((part.incarnation, part.source?))) {
            self.flush.tried.remove(&key);
        }
        let again = match failure {
            FlushFailure::Unreadable(incarnation, segment, why) if !mutant!(OneUnreadableKeepsAll) => {
                let tried = Tried { again: now + AGAIN, unreadable: Some(why.clone()) };
                self.flush.tried.insert((*incarnation, *segment), tried);
                let there = self.segment_of(*incarnation, *segment).map(|segment| segment.dir);
                let failed = |dir: DirIx| matches!(self.journals[dir].health, Health::Failed(_));
                if there.is_some_and(failed) { now + AGAIN } else { now }
            }
            _ if self.is_emptying() => now + RETRY,
            _ => now + AGAIN,
        };
        self.journals[dir].flusher.rewrite_at = Some(again);
    }

    /// Whether a directory is being emptied that is to leave.
    fn is_emptying(&self) -> bool {
        self.journals.iter().any(|journal| journal.draining && !journal.is_evacuated())
    }

    fn segment_of(&self, incarnation: Incarnation, id: Uuid) -> Option<&Segment> {
        let collection = self.collections[*self.by_incarnation.get(&incarnation)?].as_ref()?;
        collection.segments.iter().find(|segment| segment.id == id)
    }

    /// A segment is durable: where directories are being emptied the next one follows at once.
    pub(super) fn look_for_more_to_rewrite(&mut self, now: Instant) {
        let emptying = self.is_emptying();
        for journal in &mut self.journals {
            let Flusher { rewrite_at, signalled, .. } = &mut journal.flusher;
            if emptying {
                (*rewrite_at, *signalled) = (None, true);
            } else {
                rewrite_at.get_or_insert(now + LOOK);
            }
        }
    }

    /// What was tried counts while it is needed.
    fn forget_attempts(&mut self) {
        let mut tried = std::mem::take(&mut self.flush.tried);
        tried.retain(|(incarnation, segment), _| self.segment_of(*incarnation, *segment).is_some());
        self.flush.tried = tried;
    }

    /// Why a segment in `dir` cannot be moved elsewhere, where one cannot.
    pub(crate) fn unreadable_in(&self, dir: DirIx) -> Option<&str> {
        self.flush.tried.iter().find_map(|((incarnation, segment), tried)| {
            let why = tried.unreadable.as_deref()?;
            self.segment_of(*incarnation, *segment).filter(|segment| segment.dir == dir)?;
            Some(why)
        })
    }

    /// What is live of one shared segment of `dir`, or of segments of directories that are to be emptied.
    fn parts_to_rewrite(&self, dir: DirIx, now: Instant) -> Option<Vec<FlushPart>> {
        let mut live: HashMap<Uuid, (u64, Vec<FlushPart>, bool)> = HashMap::new();
        let mut leaving = (0, Vec::new());
        for (ix, collection) in self.collections.iter().enumerate() {
            let Some(collection) = collection.as_ref().filter(|collection| !collection.deleted) else { continue };
            let mut moved = false;
            for segment in &collection.segments {
                let part = FlushPart {
                    collection: ix,
                    incarnation: collection.incarnation,
                    name: collection.name.clone(),
                    first: segment.first.max(collection.truncated_to.next()),
                    last: segment.last,
                    source: Some(segment.id),
                };
                let bytes = segment.live_bytes(collection.truncated_to);
                let tried = self.flush.tried.get(&(collection.incarnation, segment.id));
                let rests = tried.is_some_and(|tried| tried.again > now);
                let leaves = self.journals[segment.dir].draining && !self.journals[dir].draining && !rests;
                let leaves = leaves && !collection.flush.busy;
                if segment.dir == dir && segment.shared {
                    let known = live.entry(segment.id).or_default();
                    known.0 += bytes;
                    known.1.push(part);
                    known.2 |= collection.flush.busy || rests;
                } else if leaves
                    && !std::mem::replace(&mut moved, true)
                    && leaving.0 < FLUSH_MOST
                    && self.flush_dir(collection, now) == Some(dir)
                {
                    leaving.0 += bytes;
                    leaving.1.push(part);
                }
            }
        }
        if !leaving.1.is_empty() {
            return Some(leaving.1);
        }
        let little =
            |id: &Uuid, bytes: u64| self.flush.shared.get(id).is_some_and(|file| bytes.saturating_mul(4) < file.total);
        let mut few = live.into_iter().filter(|(id, (bytes, _, busy))| *bytes > 0 && !busy && little(id, *bytes));
        few.next().map(|(_, (_, parts, _))| parts)
    }

    /// The next piece of a segment that is rewritten.
    pub(super) fn rewrite_piece(&self, collection: &Collection, source: Uuid, from: Lsn, last: Lsn) -> Piece {
        let Some((from, _)) = collection.held(from, last) else { return Piece::End };
        let segment = collection.segments.iter().find(|segment| segment.id == source && segment.covers(from));
        let Some(segment) = segment else { return Piece::End };
        let gap = collection.gaps.iter().map(|gap| gap.first).find(|first| *first > from);
        let to = gap.map_or(last, |first| last.min(Lsn(first.0 - 1)));
        Piece::Read(Box::new(SegmentRead {
            name: collection.name.clone(),
            incarnation: collection.incarnation,
            segment: segment.clone(),
            path: self.segment_path(&collection.name, segment),
            from,
            to,
        }))
    }

    /// The segment `id` of a collection is durable: older ones that hold nothing else are not needed.
    pub(super) fn doom_rewritten(&mut self, ix: ColIx, id: Uuid) {
        let Some(collection) = self.collections[ix].as_mut() else { return };
        let Some(new) = collection.segments.iter().find(|segment| segment.id == id) else { return };
        let (first, last) = (new.first, new.last);
        let covers = |held: Option<(Lsn, Lsn)>| held.is_none_or(|(from, to)| first <= from && to <= last);
        let old = |segment: &Segment| segment.id < id && covers(collection.held_of(segment));
        let (gone, kept): (Vec<_>, Vec<_>) = collection.segments.iter().cloned().partition(old);
        collection.segments = kept;
        self.doom_several(ix, gone);
    }

    /// Segments with nothing but what is in gaps, in directories that are to be emptied, are not copied: they are not needed.
    fn doom_hollow(&mut self) {
        if !self.is_emptying() {
            return;
        }
        for ix in 0..self.collections.len() {
            let Some(collection) = self.collections[ix].as_ref().filter(|collection| !collection.flush.busy) else {
                continue;
            };
            let hollow =
                |segment: &Segment| self.journals[segment.dir].draining && collection.held_of(segment).is_none();
            if !collection.segments.iter().any(hollow) {
                continue;
            }
            let (gone, kept): (Vec<_>, Vec<_>) = collection.segments.iter().cloned().partition(hollow);
            self.get_mut(ix).segments = kept;
            self.doom_several(ix, gone);
        }
    }

    fn doom_several(&mut self, ix: ColIx, gone: Vec<Segment>) {
        let collection = self.get(ix);
        let (name, incarnation) = (collection.name.clone(), collection.incarnation);
        for segment in gone {
            self.doom(&name, incarnation, segment);
        }
    }
}
