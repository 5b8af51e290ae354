//! What one stream says: its entries and facts, gathered frame by frame in the order of the stream.
//!
//! Facts are merged by maximum per incarnation, so that the order in which streams and directories are put together
//! later does not matter.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::budget::Budget;
use super::noted::{Noted, Spot};
use super::released::{Known, Released};
use crate::commit::buffer::EntryBuffer;
use crate::commit::collection::Gap;
use crate::commit::producers::LastRequest;
use crate::format::StreamKey;
use crate::format::cursor::DecodeError;
use crate::format::facts::{CollectionFact, EpochFact, Fact as _, FlushedFact, GapFact, TruncateFact};
use crate::format::record::{Kind, RecordRef};
use crate::types::{CollectionName, Incarnation, Lsn, NameError};

/// What an entry beside the others costs beside its bytes.
const LOOSE: usize = 48;

/// Where a record stands, for "what came after this frame": epoch and session, then the frame.
pub(crate) type Moment = (StreamKey, u64);

/// Why a record of a whole frame cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// It does not decode.
    #[error("a record of a whole frame does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// Its collection's name is none.
    #[error("a record has an impossible collection name: {0}")]
    Name(#[from] NameError),
    /// It has no place in a journal.
    #[error("a record of the kind {0} has no place in a journal")]
    Kind(&'static str),
}

/// The segments of a collection, each with the fact that counts: the longest, and of two of one length the sealed one.
#[derive(Clone, Debug, Default)]
pub(crate) struct FoundSegments(pub(crate) HashMap<uuid::Uuid, (FlushedFact, Lsn)>);

impl FoundSegments {
    /// Takes what a fact says; `last` is the last LSN in the segment.
    pub(crate) fn add(&mut self, fact: FlushedFact, last: Lsn) {
        let known = self.0.entry(fact.segment).or_insert((fact, last));
        if (known.0.length, known.0.sealed) < (fact.length, fact.sealed) {
            *known = (fact, last);
        }
    }
}

/// What is known of one incarnation of a collection.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: CollectionName,
    /// Entries whose LSNs rise.
    pub(crate) entries: EntryBuffer,
    /// Entries that came below one that was there already: LSN and bytes.
    pub(crate) stragglers: Vec<(Lsn, Vec<u8>)>,
    /// Bytes of memory that those take.
    pub(super) loose: usize,
    /// All entries, where only their places are noted.
    pub(crate) noted: Noted,
    pub(crate) home: Option<(u64, uuid::Uuid)>,
    pub(crate) placement: u64,
    pub(crate) head: Lsn,
    pub(crate) truncated_to: Lsn,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) segments: FoundSegments,
    /// Entries that are left out.
    pub(crate) released: Released,
    pub(crate) producers: HashMap<Bytes, LastRequest>,
    pub(crate) deleted: bool,
    /// The last frame that says how far it goes: a gap says only what is lost.
    pub(crate) last_seen: Moment,
    pub(crate) has_entries: bool,
}

/// What one stream says. The memory of its entries is counted until it is dropped or taken out.
#[derive(Debug)]
pub(crate) struct StreamContent {
    pub(crate) found: HashMap<Incarnation, Found>,
    /// The EPOCH of the highest frame that has one.
    pub(crate) epoch: Option<(u64, EpochFact)>,
    /// The highest epoch that anything in it speaks of.
    pub(crate) highest_epoch: u64,
    known: Known,
    budget: Arc<Budget>,
    /// Bytes of memory that its entries take.
    held: u64,
    counted: u64,
}

impl StreamContent {
    /// A stream of which nothing is read yet.
    pub(crate) fn new(known: Known, budget: Arc<Budget>) -> Self {
        Self { found: HashMap::new(), epoch: None, highest_epoch: 0, known, budget, held: 0, counted: 0 }
    }

    /// Counts what the frame of `length` bytes that was just taken has changed.
    pub(crate) fn count(&mut self, length: u64) {
        self.budget.changed(self.counted, self.held, length);
        self.counted = self.held;
    }

    /// Nothing of it counts.
    pub(crate) fn give_up(self) {
        self.budget.changed(self.counted, 0, 0);
    }

    /// Takes one record of the frame `seq`, which stands at `spot`. Every record of a frame that counts must be given, in
    /// order.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn take(
        &mut self,
        key: StreamKey,
        seq: u64,
        record: &RecordRef<'_>,
        spot: Spot,
    ) -> Result<(), ContentError> {
        match record.kind {
            Kind::Epoch => {
                let fact = EpochFact::decode(record)?;
                self.highest_epoch = self.highest_epoch.max(fact.key.epoch.0);
                if self.epoch.as_ref().is_none_or(|(before, _)| *before <= seq) {
                    self.epoch = Some((seq, fact));
                }
                return Ok(());
            }
            Kind::Data | Kind::Collection | Kind::Truncate | Kind::Gap | Kind::Delete | Kind::Flushed => {}
            // What must be understood is announced by the header's features and the frame's flags.
            Kind::Reserved(_) => return Ok(()),
            Kind::Unknown | Kind::Frame | Kind::Pad | Kind::Index => {
                return Err(ContentError::Kind(record.kind.as_str()));
            }
        }
        self.highest_epoch = self.highest_epoch.max(record.incarnation.epoch().0).max(record.epoch.0);
        let flushed = if record.kind == Kind::Flushed { Some(FlushedFact::decode(record)?) } else { None };
        let is_here = flushed.is_some_and(|fact| self.known.is_here(&fact));
        let notes = self.budget.notes();
        let found = self.found(record)?;
        let before = found.memory();
        // A flush says how far the segments go, not how far the collection goes.
        if !matches!(record.kind, Kind::Gap | Kind::Flushed) {
            found.last_seen = (key, seq);
        }
        match record.kind {
            Kind::Data => found.entry(record, notes.then_some(spot)),
            Kind::Collection => {
                let fact = CollectionFact::decode(record)?;
                found.head = found.head.max(record.lsn);
                if found.home.is_none_or(|(moves, _)| moves <= fact.move_number) {
                    found.home = Some((fact.move_number, fact.home));
                }
                found.placement = found.placement.max(fact.placement);
                for producer in fact.producers {
                    let request =
                        LastRequest { seq: producer.last_seq, first: producer.first_lsn, count: producer.count };
                    note_request(&mut found.producers, &producer.id, request);
                }
            }
            Kind::Truncate => {
                found.head = found.head.max(TruncateFact::decode(record)?.head).max(record.lsn);
                found.truncated_to = found.truncated_to.max(record.lsn);
                found.released.truncate(record.lsn);
                found.release(Lsn::ZERO, record.lsn);
            }
            Kind::Gap => {
                let fact = GapFact::decode(record)?;
                found.head = found.head.max(fact.last);
                found.gaps.push(Gap { first: record.lsn, last: fact.last, cause: fact.reason });
            }
            Kind::Flushed => {
                found.head = found.head.max(record.lsn);
                if let Some(fact) = flushed {
                    found.segments.add(fact, record.lsn);
                    if is_here {
                        found.released.flush(fact.first_lsn, record.lsn);
                        found.release(fact.first_lsn, record.lsn);
                    }
                }
            }
            _ => {
                found.head = found.head.max(record.lsn);
                if record.kind == Kind::Delete {
                    found.deleted = true;
                    found.released.truncate(Lsn(u64::MAX));
                    found.release(Lsn::ZERO, Lsn(u64::MAX));
                }
            }
        }
        let after = found.memory();
        self.held = self.held + after - before;
        Ok(())
    }

    fn found(&mut self, record: &RecordRef<'_>) -> Result<&mut Found, ContentError> {
        Ok(match self.found.entry(record.incarnation) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let released = self.known.of(record.incarnation);
                entry.insert(Found { released, ..Found::new(CollectionName::new(record.collection_id)?) })
            }
        })
    }
}

impl Found {
    pub(crate) fn new(name: CollectionName) -> Self {
        Self {
            name,
            entries: EntryBuffer::default(),
            stragglers: Vec::new(),
            loose: 0,
            noted: Noted::default(),
            home: None,
            placement: 0,
            head: Lsn::ZERO,
            truncated_to: Lsn::ZERO,
            gaps: Vec::new(),
            segments: FoundSegments::default(),
            released: Released::default(),
            producers: HashMap::new(),
            deleted: false,
            last_seen: Moment::default(),
            has_entries: false,
        }
    }

    /// Bytes of memory that its entries take.
    fn memory(&self) -> u64 {
        (self.entries.capacity() + self.loose) as u64
    }

    /// The lowest and the highest LSN of the entries that are kept or noted.
    pub(crate) fn span(&self) -> Option<(Lsn, Lsn)> {
        let loose = || self.stragglers.iter().map(|(lsn, _)| *lsn);
        let noted = self.noted.span();
        let first = self.entries.first().into_iter().chain(loose()).chain(noted.map(|(first, _)| first)).min()?;
        let last = self.entries.last().into_iter().chain(loose()).chain(noted.map(|(_, last)| last)).max()?;
        Some((first, last))
    }

    /// `note`: only where it stands is kept.
    fn entry(&mut self, record: &RecordRef<'_>, note: Option<Spot>) {
        self.has_entries = true;
        let lsn = record.lsn;
        if let Some(request) = LastRequest::of(record) {
            note_request(&mut self.producers, record.producer_id, request);
        }
        self.head = self.head.max(lsn);
        if self.released.has(lsn) {
            return;
        }
        if let Some(spot) = note {
            self.noted.push(record, spot);
        } else if self.entries.last().is_none_or(|last| last < lsn) {
            let raw = record.raw();
            self.entries.push(lsn, raw.len(), |out| out.extend_from_slice(raw));
        } else {
            let raw = record.raw().to_vec();
            self.loose += raw.len() + LOOSE;
            self.stragglers.push((lsn, raw));
        }
    }

    /// Lets go of the entries from `first` to `last`, as far as they are the first ones.
    fn release(&mut self, first: Lsn, last: Lsn) {
        if self.entries.first().is_some_and(|lsn| lsn >= first) {
            self.entries.truncate_to(last);
        }
        let loose = &mut self.loose;
        self.stragglers.retain(|(lsn, raw)| {
            let kept = *lsn < first || *lsn > last;
            *loose -= if kept { 0 } else { raw.len() + LOOSE };
            kept
        });
        self.noted.release(first, last);
    }
}

/// The highest sequence of a producer wins; of one batch the first entry.
pub(super) fn note_request(producers: &mut HashMap<Bytes, LastRequest>, id: &[u8], request: LastRequest) {
    match producers.get_mut(id) {
        Some(known) => {
            if known.seq < request.seq {
                *known = request;
            }
        }
        None => drop(producers.insert(Bytes::copy_from_slice(id), request)),
    }
}
