//! Segments that nobody needs any more: which files go, and what checkpoints say of them until they are gone.
//!
//! 1. A file is removed when no durable fact needs it.
//! 2. An own segment is stated until its file is gone; a shared one goes when the last of its collections has left it.
//! 3. A segment of a collection that nothing says is deleted is not stated: that would bring the collection back.

use std::collections::HashSet;

use uuid::Uuid;

use super::collection::{ColIx, DirIx};
use super::journal::Fact;
use super::log::Log;
use super::segments::{Doomed, Segment, SegmentPath, SharedFile};
use crate::types::{CollectionName, Incarnation, Lsn};

impl Log {
    /// Segments of a collection that are truncated are not needed any more, but for the one being written.
    pub(super) fn doom_dead(&mut self, ix: ColIx) {
        let Some(truncated_to) = self.collections[ix].as_ref().map(|collection| collection.truncated_to) else {
            return;
        };
        self.doom_to(ix, truncated_to);
    }

    /// Segments of a collection that end at `to` or before.
    pub(super) fn doom_to(&mut self, ix: ColIx, to: Lsn) {
        let Some(collection) = self.collections[ix].as_mut() else { return };
        let target = collection.flush.target;
        let end = |segment: &Segment| if mutant!(SegmentGoneWhileNeeded) { segment.first } else { segment.last };
        let dead = |segment: &Segment| end(segment) <= to && Some(segment.id) != target;
        if !collection.segments.iter().any(dead) {
            return;
        }
        let (gone, kept) = std::mem::take(&mut collection.segments).into_iter().partition(dead);
        collection.segments = kept;
        let gone: Vec<Segment> = gone;
        let (name, incarnation, home) = (collection.name.clone(), collection.incarnation, collection.home);
        for segment in gone {
            // The file may be gone first: then whoever has only that directory is told that it is not there.
            let elsewhere = segment.dir != self.commit_journal(home);
            let journal = &mut self.journals[segment.dir];
            let said = journal.facts.iter().any(|fact| matches!(fact, Fact::Announce(of, _) if *of == ix));
            if elsewhere && journal.hears() && !said {
                journal.facts.push_back(Fact::Announce(ix, incarnation));
            }
            self.doom(&name, incarnation, segment);
        }
    }

    /// All segments of a deleted collection.
    pub(super) fn doom_all(&mut self, ix: ColIx) {
        let Some(collection) = self.collections[ix].as_mut() else { return };
        let (name, incarnation) = (collection.name.clone(), collection.incarnation);
        for segment in std::mem::take(&mut collection.segments) {
            self.doom(&name, incarnation, segment);
        }
    }

    /// One collection does not need a segment any more.
    pub(super) fn doom(&mut self, name: &CollectionName, incarnation: Incarnation, segment: Segment) {
        if segment.shared {
            return self.leave_shared(segment.id);
        }
        let (dir, id) = (segment.dir, segment.id);
        let path = self.segment_path(name, &segment);
        self.doom_file(id, Doomed { dir, path, of: Some((name.clone(), incarnation, segment)) });
    }

    /// One collection less has entries in a shared segment.
    fn leave_shared(&mut self, id: Uuid) {
        let Some(file) = self.flush.shared.get_mut(&id) else { return };
        file.users = file.users.saturating_sub(1);
        if file.users == 0 {
            let (dir, number) = (file.dir, file.number);
            self.doom_file(id, Doomed { dir, path: SegmentPath::Shared { number }, of: None });
        }
    }

    pub(super) fn doom_file(&mut self, id: Uuid, doomed: Doomed) {
        let flusher = &mut self.journals[doomed.dir].flusher;
        flusher.remove.push_back(id);
        flusher.signalled = true;
        self.flush.doomed.insert(id, doomed);
    }

    /// Files are removed, durably; those of `kept` could not be.
    pub(crate) fn removed(&mut self, dir: DirIx, kept: &[Uuid]) {
        let journal = &mut self.journals[dir];
        let ids = std::mem::take(&mut journal.flusher.removing);
        journal.flusher.signalled = true;
        if let Some(full) = journal.full.as_mut().filter(|_| ids.len() > kept.len()) {
            full.made_room();
        }
        for id in ids.into_iter().filter(|id| !kept.contains(id)) {
            self.flush.shared.remove(&id);
            let Some(Doomed { of: Some((name, incarnation, _)), .. }) = self.flush.doomed.remove(&id) else { continue };
            if let Some(tombstone) = self.tombstones.get_mut(&name)
                && tombstone.incarnation >= incarnation
            {
                // Checkpoints up to now may speak of the segment, and are younger than the deletion.
                tombstone.tick = self.tick;
            }
        }
    }

    /// What checkpoints say of segments that are still to be removed: those that would otherwise be orphans after a crash.
    pub(super) fn doomed_facts(&self) -> impl Iterator<Item = Uuid> {
        self.flush.doomed.iter().filter(|(_, doomed)| self.is_stated(doomed)).map(|(id, _)| *id)
    }

    /// A segment of a collection that nothing says is deleted must not be stated: it would bring the collection back.
    fn is_stated(&self, doomed: &Doomed) -> bool {
        let Some((name, incarnation, _)) = &doomed.of else { return false };
        let deleted = self.tombstones.get(name).is_some_and(|tombstone| tombstone.incarnation >= *incarnation);
        let lives = self.by_name.get(name).and_then(|ix| self.collections[ix].as_ref());
        deleted || lives.is_some_and(|collection| collection.announced && collection.incarnation >= *incarnation)
    }

    /// A doomed segment, to be stated.
    pub(super) fn doomed(&self, id: Uuid) -> Option<&(CollectionName, Incarnation, Segment)> {
        self.flush.doomed.get(&id).filter(|doomed| self.is_stated(doomed))?.of.as_ref()
    }

    /// The collections, deleted ones too, of which own segments are still to be removed.
    pub(super) fn doomed_names(&self) -> HashSet<CollectionName> {
        self.flush.doomed.values().filter_map(|doomed| Some(doomed.of.as_ref()?.0.clone())).collect()
    }

    /// What recovery found: shared segments that nobody refers to go, and own ones that are not needed.
    pub(super) fn found_segments(
        &mut self,
        shared: Vec<(Uuid, SharedFile)>,
        dead: Vec<(CollectionName, Incarnation, Segment)>,
    ) {
        for (id, file) in shared {
            self.flush.shared.insert(id, file);
        }
        let used = self.collections.iter().flatten().flat_map(|collection| &collection.segments);
        for segment in used.filter(|segment| segment.shared) {
            if let Some(file) = self.flush.shared.get_mut(&segment.id) {
                file.users += 1;
            }
        }
        let unused = self.flush.shared.iter().filter(|(_, file)| file.users == 0);
        let unused: Vec<(Uuid, SharedFile)> = unused.map(|(id, file)| (*id, *file)).collect();
        for (id, SharedFile { dir, number, .. }) in unused {
            self.doom_file(id, Doomed { dir, path: SegmentPath::Shared { number }, of: None });
        }
        // Of shared segments only those count that are needed.
        for (name, incarnation, segment) in dead.into_iter().filter(|(_, _, segment)| !segment.shared) {
            self.doom(&name, incarnation, segment);
        }
    }
}
