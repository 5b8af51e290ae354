//! Copies of what a directory holds that is being emptied: entries that are committed again, in their new homes.

use std::time::Instant;

use super::collection::{ColIx, DirIx};
use super::evacuate::Stretch;
use super::log::Log;
use crate::format::limits::GROUP_CUT;
use crate::format::record;
use crate::types::{Incarnation, Lsn};

/// Looked at in the queue for what one directory takes.
const LOOK_AHEAD: usize = 256;

/// Entries in a frame that are durable in another directory already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// The directory that is evacuated.
    from: DirIx,
    pub(super) collection: ColIx,
    pub(super) incarnation: Incarnation,
    pub(super) first: Lsn,
    pub(super) last: Lsn,
    pub(super) entries: u64,
    pub(super) bytes: usize,
    pub(super) announces: bool,
}

/// What the next copy of a stretch is.
enum Next {
    /// Another directory takes it.
    Elsewhere,
    /// There is no room for it now.
    Full,
    /// Nothing of it is needed any more.
    Gone,
    Copy(Copied, Option<Stretch>),
}

impl Log {
    /// Copies that the next frame of `to` can hold, within the bound of its journal.
    pub(super) fn draft_copies(&mut self, to: DirIx) -> Vec<Copied> {
        let mut copies = Vec::new();
        let mut room = GROUP_CUT;
        for from in 0..self.journals.len() {
            let Some(mut evacuation) = self.journals[from].evacuation.take() else { continue };
            let mut index = 0;
            while room > 0 && index < LOOK_AHEAD.min(evacuation.queue.len()) {
                let stretch = evacuation.queue[index];
                let (copied, rest) = match self.next_copy(from, to, stretch, room, copies.is_empty()) {
                    Next::Elsewhere => {
                        index += 1;
                        continue;
                    }
                    Next::Full => break,
                    Next::Gone => (None, None),
                    Next::Copy(copied, rest) => (Some(copied), rest),
                };
                match rest {
                    Some(rest) => evacuation.queue[index] = rest,
                    None => drop(evacuation.queue.remove(index)),
                }
                match copied {
                    Some(copied) => {
                        room = room.saturating_sub(copied.bytes);
                        evacuation.in_flight += 1;
                        copies.push(copied);
                    }
                    None => drop(evacuation.done.insert(stretch.incarnation, stretch.last)),
                }
            }
            self.journals[from].evacuation = Some(evacuation);
        }
        copies
    }

    fn next_copy(&mut self, from: DirIx, to: DirIx, stretch: Stretch, room: usize, alone: bool) -> Next {
        let Stretch { collection: ix, incarnation, first, last } = stretch;
        if self.live(ix, incarnation).is_none_or(|collection| collection.delete_durable) {
            return Next::Gone;
        }
        let home = self.home_beside(from, ix).unwrap_or(from);
        let target = self.commit_journal(home);
        let back = target == from && !mutant!(CopiedBack);
        let collection = self.get(ix);
        let moves = collection.home_to_say().0 != collection.home;
        if back || moves || target != to || !self.journals[to].takes_data() {
            return Next::Elsewhere;
        }
        let (mut entries, mut bytes, mut end) = (0, 0, None);
        let (mut so_far_entries, mut so_far_bytes) = (0, 0);
        let mut start = None;
        for (lsn, raw) in self.get(ix).buffer.iter(first) {
            if lsn > last {
                break;
            }
            start.get_or_insert(lsn);
            so_far_entries += 1;
            so_far_bytes += raw.len();
            let inside =
                record::decode(raw).is_ok_and(|(record, _)| record.batch_end > lsn && record.batch_end <= last);
            if inside {
                continue;
            }
            if so_far_bytes > room && !(alone && end.is_none()) {
                break;
            }
            (entries, bytes, end) = (so_far_entries, so_far_bytes, Some(lsn));
            if so_far_bytes >= room {
                break;
            }
        }
        let Some(start) = start else { return Next::Gone };
        let Some(end) = end else { return Next::Full };
        if !self.journals[to].has_room(bytes as u64) {
            let journal = &mut self.journals[to];
            (journal.pressed, journal.look_for_free) = (true, true);
            return Next::Full;
        }
        let announces = self.collections[ix].as_mut().is_some_and(|collection| std::mem::take(&mut collection.moved));
        let copied = Copied { from, collection: ix, incarnation, first: start, last: end, entries, bytes, announces };
        let rest = (end < last).then_some(Stretch { first: end.next(), ..stretch });
        Next::Copy(copied, rest)
    }

    /// Copies are durable in `to`.
    pub(super) fn copied(&mut self, to: DirIx, copies: Vec<Copied>, now: Instant) {
        for copied in copies {
            let Copied { from, collection, incarnation, first, last, bytes, announces, .. } = copied;
            if let Some(slot) = self.journals[to].slots.back_mut() {
                let head = slot.heads.entry(incarnation).or_default();
                *head = last.max(*head);
                let lowest = slot.firsts.entry(incarnation).or_insert(first);
                *lowest = first.min(*lowest);
            }
            if let Some(evacuation) = &mut self.journals[to].evacuation
                && !mutant!(CopiesStay)
            {
                evacuation.goes_on(Stretch { collection, incarnation, first, last }, bytes);
            }
            if announces {
                self.announce_elsewhere(to, collection, incarnation, now);
            }
            if let Some(evacuation) = &mut self.journals[from].evacuation {
                evacuation.in_flight = evacuation.in_flight.saturating_sub(1);
                evacuation.bytes_left = evacuation.bytes_left.saturating_sub(bytes as u64);
                let done = evacuation.done.entry(incarnation).or_default();
                *done = last.max(*done);
            }
        }
        self.tend_evacuations(now);
    }

    /// Copies did not get where they were to go.
    pub(super) fn not_copied(&mut self, copies: Vec<Copied>) {
        for copied in copies.into_iter().rev() {
            let Copied { from, collection, incarnation, first, last, announces, .. } = copied;
            if let Some(collection) = self.live(collection, incarnation) {
                collection.moved |= announces;
            }
            if let Some(evacuation) = &mut self.journals[from].evacuation {
                evacuation.in_flight = evacuation.in_flight.saturating_sub(1);
                evacuation.queue.push_front(Stretch { collection, incarnation, first, last });
            }
        }
    }
}
