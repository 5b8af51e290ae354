//! Checkpoints: the facts of all collections once more, in frames between the others, so that the files before can go.
//!
//! 1. A checkpoint states what is durable when its frames are built; it counts when its last frame is durable.
//! 2. `floor` and `oldest` rise with the checkpoint that makes it true, never before.
//! 3. A deletion is stated as long as anything is left that could contradict it.

use super::collection::DirIx;
use super::frames::Work;
use super::journal::{Checkpoint, FrameKind};
use super::log::Log;
use crate::format::StreamKey;
use crate::format::facts::{self, Fact as _, Subject};
use crate::format::frame::{FLAG_CHECKPOINT_END, FLAG_CHECKPOINT_PART, FrameBuilder};
use crate::format::limits::GROUP_CUT;
use crate::types::{CollectionName, Incarnation, Lsn};

impl Log {
    /// The next part of the checkpoint under way.
    pub(super) fn checkpoint_frame(&mut self, dir: DirIx, builder: &mut FrameBuilder) -> Work {
        let mut draft = self.draft(dir, FrameKind::CheckpointPart);
        let epoch = self.identity.epoch;
        let Some(mut checkpoint) = self.journals[dir].checkpoint.take() else { return Work::Wait(None) };
        if !std::mem::replace(&mut checkpoint.begun, true) {
            self.draft_members(dir, &mut draft);
        }
        while draft.bytes.len() < GROUP_CUT {
            if let Some((ix, incarnation)) = checkpoint.collections.pop_front() {
                let left_out = mutant!(CheckpointWithoutCollections) && ix % 2 == 0;
                if left_out || self.live(ix, incarnation).is_none_or(|c| !c.announced || c.delete_durable) {
                    continue;
                }
                self.draft_collection(ix, &mut draft);
                let collection = self.get(ix);
                let subject = |lsn| Subject { collection_id: collection.name.as_str(), incarnation, lsn };
                for gap in collection.gaps.iter().filter(|_| !mutant!(CheckpointWithoutGaps)) {
                    let fact = facts::GapFact { last: gap.last, reason: gap.cause };
                    draft.add(|out| fact.encode(out, subject(gap.first), epoch));
                }
                for segment in &collection.segments {
                    self.draft_flushed(&collection.name, incarnation, segment, &mut draft);
                }
            } else if let Some((name, incarnation)) = checkpoint.tombstones.pop_front() {
                let subject = Subject { collection_id: name.as_str(), incarnation, lsn: Lsn::ZERO };
                draft.add(|out| facts::DeleteFact.encode(out, subject, epoch));
            } else if let Some(id) = checkpoint.doomed.pop_front() {
                if let Some((name, incarnation, segment)) = self.doomed(id) {
                    self.draft_flushed(name, *incarnation, segment, &mut draft);
                }
            } else {
                break;
            }
        }
        checkpoint.bytes += draft.bytes.len() as u64;
        let ends =
            checkpoint.collections.is_empty() && checkpoint.tombstones.is_empty() && checkpoint.doomed.is_empty();
        let mut flags = FLAG_CHECKPOINT_PART;
        if ends {
            flags |= FLAG_CHECKPOINT_END;
            if let Some(in_flight) = &mut draft.in_flight {
                in_flight.kind = FrameKind::CheckpointEnd;
            }
        }
        self.journals[dir].checkpoint = Some(checkpoint);
        self.seal(dir, draft, flags, builder)
    }

    /// Begins a checkpoint when enough was written since the last one, or when one would free files that somebody
    /// waits for.
    pub(super) fn maybe_start_checkpoint(&mut self, dir: DirIx) {
        let journal = &self.journals[dir];
        if journal.checkpoint.is_some() {
            return;
        }
        let by_size = journal.since_checkpoint >= journal.slot_limit().max(4 * journal.checkpoint_size);
        if !by_size && !journal.look_for_free {
            return;
        }
        let (floor, oldest, rotate) = self.freeable(dir);
        let journal = &mut self.journals[dir];
        journal.look_for_free = false;
        // Old streams go as soon as they can: they are what a restart reads again. The rest waits for need or leisure.
        let frees_old = oldest > journal.stream.oldest;
        let frees_slots = journal.is_worth_freeing(floor);
        let in_need = journal.pressed || journal.used_bytes() > journal.cleaning_mark();
        if !(by_size || frees_old || (frees_slots && (in_need || journal.proven))) {
            self.journals[dir].pressed = false;
            return;
        }
        // What is deleted counts until that is durable.
        let all = self.collections.iter().enumerate();
        let collections = all.filter_map(|(ix, collection)| Some((ix, collection.as_ref()?.incarnation))).collect();
        self.drop_tombstones();
        let tombstones: Vec<(CollectionName, Incarnation)> =
            self.tombstones.iter().map(|(name, tombstone)| (name.clone(), tombstone.incarnation)).collect();
        let doomed = self.doomed_facts().collect();
        let journal = &mut self.journals[dir];
        if mutant!(FloorBeforeCheckpoint) {
            (journal.stream.floor, journal.stream.oldest) = (floor, oldest);
        }
        journal.pressed = false;
        journal.stream.rotate |= rotate;
        journal.checkpoint = Some(Checkpoint {
            collections,
            tombstones: tombstones.into(),
            doomed,
            begun: false,
            since: self.tick,
            bytes: 0,
            floor,
            oldest,
        });
    }

    /// What may be gone once a checkpoint of now is durable: frames of this stream, older streams, and whether the
    /// current file could go too if the stream went on in a new one.
    fn freeable(&self, dir: DirIx) -> (u64, StreamKey, bool) {
        let journal = &self.journals[dir];
        let oldest = journal
            .old
            .iter()
            .filter(|old| !self.all_dead(&old.heads))
            .map(|old| old.key)
            .min()
            .unwrap_or(journal.stream.key)
            .max(journal.stream.oldest);
        let mut floor = journal.stream.floor;
        let mut rotate = false;
        for (index, slot) in journal.slots.iter().enumerate() {
            let current = index + 1 == journal.slots.len();
            if !self.all_dead(&slot.heads) || (current && (slot.heads.is_empty() || !journal.pressed)) {
                break;
            }
            rotate |= current;
            floor = slot.last_frame;
        }
        (floor, oldest, rotate)
    }

    /// Forgets deletions that no file is old enough to contradict.
    fn drop_tombstones(&mut self) {
        let oldest_file = self
            .journals
            .iter()
            .map(|journal| {
                // A failed write may have landed; what is still to be removed may come back.
                let emptied = !journal.in_use && journal.joins.is_none();
                let settled = journal.is_healthy() && journal.garbage.is_empty() && journal.unlinking == 0;
                if emptied {
                    // Whatever lies there is never read again.
                    u64::MAX
                } else if settled && journal.old.is_empty() {
                    journal.slots.front().map_or(u64::MAX, |slot| slot.made)
                } else {
                    0
                }
            })
            .min()
            .unwrap_or(0);
        let (doomed, unswept) = (self.doomed_names(), self.unswept_names());
        self.tombstones.retain(|name, tombstone| {
            (tombstone.tick >= oldest_file || doomed.contains(name) || unswept.contains(name))
                && !mutant!(TombstonesDropped)
        });
    }
}
