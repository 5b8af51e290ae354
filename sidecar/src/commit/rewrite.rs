//! Rewriting segments: the live entries of a shared segment of which little is live, and of segments in a directory that
//! is to be emptied, go to a new shared segment. When that is durable the old one is not needed any more.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::collection::{ColIx, Collection, DirIx};
use super::flush_jobs::{FlushPart, FlushWork, Piece, Target, Why};
use super::flush_plan::FLUSH_MOST;
use super::log::Log;
use super::read::SegmentRead;
use crate::types::Lsn;

/// Segments to rewrite are looked for this often at most.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// After a segment that could not be rewritten.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

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
        let parts = self.parts_to_rewrite(dir, now)?;
        self.journals[dir].flusher.rewrite_at = Some(now + LOOK);
        self.journals[dir].flusher.last_shared += 1;
        let target = Target::Shared(Uuid::nil(), self.journals[dir].flusher.last_shared);
        Some(self.begin_flush(dir, target, parts, Why::Rewrite))
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
                if segment.dir == dir && segment.shared {
                    let known = live.entry(segment.id).or_default();
                    known.0 += bytes;
                    known.1.push(part);
                    known.2 |= collection.flush.busy;
                } else if self.journals[segment.dir].draining
                    && !self.journals[dir].draining
                    && !(collection.flush.busy || std::mem::replace(&mut moved, true))
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
        let mut from = from.max(collection.truncated_to.next());
        for gap in &collection.gaps {
            if gap.first <= from && from <= gap.last {
                from = gap.last.next();
            }
        }
        let segment = collection.segments.iter().find(|segment| segment.id == source && segment.covers(from));
        let Some(segment) = segment.filter(|_| from <= last) else { return Piece::End };
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
        let (first, last, from) = (new.first, new.last, collection.truncated_to.next());
        let old = |segment: &super::segments::Segment| {
            segment.id < id && first <= segment.first.max(from) && segment.last <= last
        };
        let (gone, kept) = std::mem::take(&mut collection.segments).into_iter().partition(old);
        collection.segments = kept;
        let gone: Vec<super::segments::Segment> = gone;
        let (name, incarnation) = (collection.name.clone(), collection.incarnation);
        for segment in gone {
            self.doom(&name, incarnation, segment);
        }
    }
}
