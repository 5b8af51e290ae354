//! What the readable frames of all directories of a writer say together: the entries that a reader must get.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Place, Verdict};
use super::record::{self, Producer, Record, kind};
use super::segment::{self, SegmentFile};

/// One collection, its highest incarnation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionView {
    /// Which life of the name.
    pub incarnation: u64,
    /// Everything up to here is forgotten.
    pub truncated_to: u64,
    /// Everything up to here is in segments.
    pub flushed_to: u64,
    /// The highest LSN that any record speaks of as written.
    pub head: u64,
    /// Entries above `truncated_to` and outside of gaps.
    pub entries: BTreeMap<u64, Record>,
    /// Lost LSNs, first and last.
    pub gaps: BTreeSet<(u64, u64)>,
    /// LSNs in (truncated_to, head] that are neither an entry, nor in a gap; without segments, only those above
    /// `flushed_to`.
    pub holes: Vec<u64>,
    /// Segments that cannot be read to the end, and where; an empty file: it is not there.
    pub broken: Vec<Place>,
    /// Two different entries were found for these LSNs.
    pub conflicts: Vec<u64>,
    /// What is known of each producer's last request.
    pub producers: BTreeMap<Vec<u8>, Producer>,
}

/// All collections of a writer.
pub type Merged = BTreeMap<String, CollectionView>;

/// Merges what the journals of one writer's directories say; what is in segments is believed to be there.
#[must_use]
pub fn merge<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Merged {
    merged(verdicts, None)
}

/// Merges what the journals of one writer's directories say and what their segments hold.
#[must_use]
pub fn merge_with_segments<'a>(
    verdicts: impl IntoIterator<Item = &'a Verdict>,
    segments: &[SegmentFile<'_>],
) -> Merged {
    merged(verdicts, Some(segments))
}

fn merged<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>, segments: Option<&[SegmentFile<'_>]>) -> Merged {
    let records: Vec<&Record> = verdicts
        .into_iter()
        .flat_map(|v| &v.frames)
        .flat_map(|f| &f.records)
        .filter(|r| r.kind != kind::EPOCH)
        .collect();
    let mut incarnations: BTreeMap<&str, u64> = BTreeMap::new();
    for record in &records {
        let highest = incarnations.entry(&record.collection).or_default();
        *highest = record.incarnation.max(*highest);
    }
    let mut merged = Merged::new();
    for (name, incarnation) in incarnations {
        let mine: Vec<&Record> =
            records.iter().filter(|r| r.collection == name && r.incarnation == incarnation).copied().collect();
        if !mine.iter().any(|record| record.kind == kind::DELETE) {
            let stored = segments.map(|files| segment::stored(name, incarnation, &mine, files));
            let (entries, broken) = stored.unwrap_or_default();
            let all: Vec<&Record> = mine.iter().copied().chain(&entries).collect();
            let view = CollectionView { broken, ..view(incarnation, &all, segments.is_some()) };
            merged.insert(name.to_owned(), view);
        }
    }
    merged
}

fn view(incarnation: u64, records: &[&Record], with_segments: bool) -> CollectionView {
    let mut view = CollectionView { incarnation, ..CollectionView::default() };
    for record in records {
        match record.kind {
            kind::DATA => {
                view.head = view.head.max(record.lsn);
                if let Some(known) = view.entries.get(&record.lsn) {
                    if known.crc != record.crc {
                        view.conflicts.push(record.lsn);
                    }
                    if known.epoch >= record.epoch {
                        continue;
                    }
                }
                view.entries.insert(record.lsn, (*record).clone());
            }
            kind::COLLECTION => {
                view.head = view.head.max(record.lsn);
                for producer in record::parse_collection(&record.payload).map(|fact| fact.producers).unwrap_or_default()
                {
                    remember(&mut view.producers, producer);
                }
            }
            kind::TRUNCATE => {
                view.truncated_to = view.truncated_to.max(record.lsn);
                view.head = view.head.max(record::parse_truncate(&record.payload).unwrap_or(0));
            }
            kind::FLUSHED => {
                view.flushed_to = view.flushed_to.max(record.lsn);
                view.head = view.head.max(record.lsn);
            }
            kind::GAP => {
                if let Some((last, _)) = record::parse_gap(&record.payload) {
                    view.gaps.insert((record.lsn, last));
                }
            }
            _ => {}
        }
    }
    for record in records.iter().filter(|r| r.kind == kind::DATA && r.producer_seq > 0) {
        let last = if record.batch_end == 0 { record.lsn } else { record.batch_end };
        let first = records
            .iter()
            .filter(|r| r.kind == kind::DATA && r.producer_id == record.producer_id)
            .filter(|r| r.producer_seq == record.producer_seq)
            .map(|r| r.lsn)
            .min()
            .unwrap_or(record.lsn);
        let producer = Producer {
            id: record.producer_id.clone(),
            last_seq: record.producer_seq,
            first_lsn: first,
            count: last + 1 - first,
        };
        remember(&mut view.producers, producer);
    }
    let truncated_to = view.truncated_to;
    let gaps = view.gaps.clone();
    let lost = |lsn: u64| gaps.iter().any(|(first, last)| (*first..=*last).contains(&lsn));
    view.entries.retain(|lsn, _| *lsn > truncated_to && !lost(*lsn));
    let elsewhere = if with_segments { 0 } else { view.flushed_to };
    view.holes = (truncated_to.max(elsewhere) + 1..=view.head)
        .filter(|lsn| !view.entries.contains_key(lsn) && !lost(*lsn))
        .collect();
    view
}

fn remember(producers: &mut BTreeMap<Vec<u8>, Producer>, producer: Producer) {
    match producers.get(&producer.id) {
        Some(known) if known.last_seq >= producer.last_seq => {}
        _ => {
            producers.insert(producer.id.clone(), producer);
        }
    }
}
