//! Sessions: a stream that ended in a running process is followed, in the same directory and epoch, by another.
//!
//! 1. A report about a stream that is over changes nothing, however late it comes.
//! 2. Frame 1 of a session closes every stream of the directory that may still be there: what the failed write left
//!    behind is garbage from then on.
//! 3. What a stream that is over held stays until a later session's checkpoint and `oldest` let it go.

use std::collections::HashMap;
use std::time::Instant;

use rand::RngExt;

use super::collection::DirIx;
use super::journal::{InFlight, Journal, OldStream, Opening, SlotUse};
use super::log::Log;
use super::stream::Stream;
use crate::format::facts::Close;
use crate::format::names::SlotName;
use crate::format::{StreamId, StreamKey};
use crate::types::{Incarnation, Lsn};

impl Log {
    /// Whether the stream `key` of a directory has ended: nothing that is reported about it counts.
    pub(super) fn is_over(&self, dir: DirIx, key: StreamKey) -> bool {
        let stream = &self.journals[dir].stream;
        stream.over || stream.key != key
    }

    /// Begins the next session of a directory whose stream is over. Health is the caller's to change.
    pub(crate) fn restart_stream(&mut self, dir: DirIx, now: Instant) {
        let id = StreamId(self.entropy.random());
        let journal = &mut self.journals[dir];
        let ended = journal.stream.clone();
        journal.retire_spare();
        let old = journal.retire();
        if !old.files.is_empty() {
            journal.old.push(old);
        }
        journal.closes.retain(|close| close.key >= journal.acked_oldest);
        journal.closes.push(Close {
            stream: ended.id,
            key: ended.key,
            frame_seq: ended.durable_frame,
            crc: ended.prev_crc,
        });
        let key = StreamKey { session: ended.key.session + 1, ..ended.key };
        journal.stream = Stream::new(id, key, journal.acked_oldest);
        if !journal.in_use {
            // Nothing that lies there counts: it was emptied, or never used.
            journal.stream.oldest = key;
            journal.closes.clear();
            journal.accepted_damage.clear();
        }
        journal.acked_floor = 0;
        journal.opening = Opening::First;
        journal.checkpoint = None;
        journal.look_for_free = true;
        journal.proven = false;
        journal.last_commit = now;
        journal.due(now);
    }
}

impl Journal {
    /// The stream is over: the frame in flight may have made a file that is still to be removed one day.
    pub(super) fn note_abandoned(&mut self, in_flight: Option<&InFlight>) {
        self.stream.over = true;
        // In a bucket its number is the fence's, or will be: that is never removed.
        let made = |in_flight: &&InFlight| in_flight.place.new_file && !self.of_objects;
        if let Some(in_flight) = in_flight.filter(made) {
            let (place, session) = (in_flight.place, self.stream.key.session);
            self.slots.push_back(SlotUse {
                last_frame: self.stream.durable_frame,
                ..SlotUse::begun(place.file, session, in_flight.built, in_flight.spare)
            });
        }
    }

    /// The files of the stream as those of one that is over.
    fn retire(&mut self) -> OldStream {
        let key = self.stream.key;
        let mut heads: HashMap<Incarnation, Lsn> = HashMap::new();
        let mut firsts: HashMap<Incarnation, Lsn> = HashMap::new();
        let mut files = Vec::new();
        for slot in std::mem::take(&mut self.slots) {
            files.push((SlotName { key, file: slot.file }.to_string(), slot.len));
            for (incarnation, lsn) in slot.firsts {
                let first = firsts.entry(incarnation).or_insert(lsn);
                *first = lsn.min(*first);
            }
            for (incarnation, lsn) in slot.heads {
                let head = heads.entry(incarnation).or_default();
                *head = lsn.max(*head);
            }
        }
        OldStream { key, files, heads, firsts }
    }
}
