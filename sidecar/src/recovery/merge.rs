//! Putting the streams of all directories together: which collections there are, with which entries, and what is lost.
//! Pure: the same inputs give the same answer, in whatever order directories and streams are given.
//!
//! 1. Only the highest incarnation of a name counts; a deletion removes it and all below.
//! 2. Every LSN in (truncated_to, head] is an entry, in a segment of a directory that is here, in a gap, or is reported
//!    as a hole.
//! 3. Two entries with one LSN and different checksums must be impossible: the higher epoch wins, and it is reported.
//! 4. Damage that may have taken the last entries of a collection is never silent: what may be lost there is named.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::content::{Found, FoundSegments, Moment};
use super::load::LoadedJournal;
use super::noted::{self, Noted, Whereabouts};
use super::salvage::Loss;
use crate::commit::buffer::EntryBuffer;
use crate::commit::collection::Gap;
use crate::commit::producers::Producers;
use crate::format::StreamKey;
use crate::format::facts::{FlushedFact, GapCause};
use crate::format::record::{self, RecordRef};
use crate::types::{CollectionName, Epoch, Incarnation, Lsn};

/// LSNs that may have been given beyond what is known, where nothing says how many: a directory that is given up held them, or a
/// frame is lost that said how far a collection goes.
pub(super) const UNHEARD_SPAN: u64 = 1 << 40;

/// One directory's part.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) directory: Uuid,
    pub(crate) journal: LoadedJournal,
}

/// A collection as all directories together know it.
#[derive(Debug)]
pub(crate) struct MergedCollection {
    pub(crate) name: CollectionName,
    pub(crate) incarnation: Incarnation,
    /// The directory that its COLLECTION names, or where its entries are.
    pub(crate) home: Uuid,
    pub(crate) move_number: u64,
    pub(crate) placement: u64,
    pub(crate) truncated_to: Lsn,
    pub(crate) head: Lsn,
    pub(crate) entries: EntryBuffer,
    /// Where the entries are that are not in memory.
    pub(crate) noted: Vec<Whereabouts>,
    pub(crate) gaps: Vec<Gap>,
    /// Segments that are needed, by first LSN: what their facts say, and the last LSN.
    pub(crate) segments: Vec<(FlushedFact, Lsn)>,
    /// Everything up to here is truncated, in segments or in gaps.
    pub(crate) flushed_to: Lsn,
    pub(crate) producers: Producers,
    /// LSNs that should be there and are not: first and last.
    pub(crate) holes: Vec<(Lsn, Lsn)>,
    /// For each directory with entries or facts of it: the last moment there.
    seen: HashMap<Uuid, Moment>,
    /// The highest move number that each directory knows.
    told: HashMap<Uuid, u64>,
    has_entries_in: Vec<Uuid>,
    /// The last moment anywhere.
    last_seen: Moment,
}

/// A frame (or more) that is lost and was not accounted for by an earlier start.
#[derive(Debug)]
pub(crate) struct Unresolved {
    pub(crate) directory: Uuid,
    pub(crate) key: StreamKey,
    pub(crate) loss: Loss,
}

/// What all directories together say.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    /// By name.
    pub(crate) collections: Vec<MergedCollection>,
    pub(crate) tombstones: BTreeMap<CollectionName, Incarnation>,
    /// Segments that are not needed any more.
    pub(crate) dead_segments: Vec<(CollectionName, Incarnation, FlushedFact, Lsn)>,
    pub(crate) unresolved: Vec<Unresolved>,
    /// The epoch of the oldest stream in which frames are lost, accounted for or not.
    pub(crate) damaged_since: Option<Epoch>,
    /// Contradictions found, a sentence each.
    pub(crate) contradictions: Vec<String>,
}

/// Everything known of one incarnation.
#[derive(Default)]
struct Parts {
    parts: Vec<(Uuid, StreamKey, Found)>,
}

/// Whether the file of a segment is not there: of a collection of this name, as this fact says, with this last LSN.
pub(crate) type IsGone<'a> = dyn Fn(&CollectionName, &FlushedFact, Lsn) -> bool + 'a;

/// Merges what was read. `keep_salvage`: use what is left of damaged frames (`on_damage = "gap"`). `gives_up`: a directory is
/// given up by this start. Then, and where frames are lost, what they knew is not known any more, and `is_gone` is asked about
/// each segment: it may have been removed for a younger one.
pub(crate) fn merge(inputs: Vec<Input>, keep_salvage: bool, gives_up: bool, is_gone: &IsGone<'_>) -> Merged {
    let mut merged = Merged::default();
    let mut incarnations: HashMap<Incarnation, Parts> = HashMap::new();
    let here: HashSet<Uuid> = inputs.iter().map(|input| input.directory).collect();
    for Input { directory, journal } in inputs {
        for mut stream in journal.streams {
            for loss in stream.losses.drain(..) {
                let epoch = stream.key.epoch;
                merged.damaged_since = Some(merged.damaged_since.map_or(epoch, |before| before.min(epoch)));
                if keep_salvage || loss.accepted {
                    for saved in &loss.salvage.records {
                        if let Ok((record, _)) = record::decode(&saved.raw) {
                            // Records that hold were written by a writer: nothing in them can be refused.
                            let _ = stream.content.take(stream.key, loss.damage.first_seq, &record, saved.spot);
                        }
                    }
                }
                if !loss.accepted {
                    merged.unresolved.push(Unresolved { directory, key: stream.key, loss });
                }
            }
            for (incarnation, found) in stream.content.found {
                incarnations.entry(incarnation).or_default().parts.push((directory, stream.key, found));
            }
        }
    }
    let mut by_name: BTreeMap<CollectionName, (Incarnation, Parts)> = BTreeMap::new();
    for (incarnation, parts) in incarnations {
        let Some(name) = parts.parts.first().map(|(_, _, found)| found.name.clone()) else { continue };
        if parts.parts.iter().any(|(_, _, found)| found.deleted) {
            let tombstone = merged.tombstones.entry(name.clone()).or_insert(incarnation);
            *tombstone = incarnation.max(*tombstone);
        }
        let outdone = match by_name.get(&name) {
            Some((known, _)) if *known > incarnation => Some((incarnation, parts)),
            _ => by_name.insert(name.clone(), (incarnation, parts)),
        };
        if let Some((incarnation, parts)) = outdone {
            merged
                .dead_segments
                .extend(parts.segments(&here).map(|(fact, last)| (name.clone(), incarnation, fact, last)));
        }
    }
    let damaged = merged.damaged_since.is_some() && !mutant!(ReplacedUnnamed);
    let facts_lost = damaged || (gives_up && !mutant!(RewrittenCounts));
    for (name, (incarnation, parts)) in by_name {
        if merged.tombstones.get(&name).is_some_and(|deleted| *deleted >= incarnation) {
            merged
                .dead_segments
                .extend(parts.segments(&here).map(|(fact, last)| (name.clone(), incarnation, fact, last)));
            continue;
        }
        let contradictions = &mut merged.contradictions;
        let (collection, dead) = parts.merge(name.clone(), incarnation, &here, facts_lost, contradictions, is_gone);
        merged.dead_segments.extend(dead.into_iter().map(|(fact, last)| (name.clone(), incarnation, fact, last)));
        merged.collections.push(collection);
    }
    merged
}

impl Parts {
    /// The segments of all parts in directories that are here.
    fn segments(&self, here: &HashSet<Uuid>) -> impl Iterator<Item = (FlushedFact, Lsn)> + use<> {
        let mut all = FoundSegments::default();
        for (fact, last) in self.parts.iter().flat_map(|(_, _, found)| found.segments.0.values()) {
            if here.contains(&fact.directory) {
                all.add(*fact, *last);
            }
        }
        all.0.into_values()
    }

    /// The collection, and the segments that it does not need. `facts_lost`: of any segment it may have been said, where
    /// that is lost, that a younger one is in its place.
    fn merge(
        self,
        name: CollectionName,
        incarnation: Incarnation,
        here: &HashSet<Uuid>,
        facts_lost: bool,
        contradictions: &mut Vec<String>,
        is_gone: &IsGone<'_>,
    ) -> (MergedCollection, Vec<(FlushedFact, Lsn)>) {
        let there = |(fact, last): &(FlushedFact, Lsn)| !facts_lost || !is_gone(&name, fact, *last);
        let segments: Vec<(FlushedFact, Lsn)> = self.segments(here).filter(there).collect();
        let parts = self.parts;
        let home = parts.iter().filter_map(|(_, _, found)| found.home).max();
        let latest = |(dir, _, found): &&(Uuid, StreamKey, Found)| (found.has_entries, found.last_seen, *dir);
        let fallback = parts.iter().max_by_key(latest).map(|(dir, _, _)| *dir);
        let mut merged = MergedCollection {
            name,
            incarnation,
            home: home.map(|(_, home)| home).or(fallback).unwrap_or_default(),
            move_number: home.map_or(1, |(moves, _)| moves),
            placement: 0,
            truncated_to: Lsn::ZERO,
            head: Lsn::ZERO,
            entries: EntryBuffer::default(),
            noted: Vec::new(),
            gaps: Vec::new(),
            segments: Vec::new(),
            flushed_to: Lsn::ZERO,
            producers: Producers::default(),
            holes: Vec::new(),
            seen: HashMap::new(),
            told: HashMap::new(),
            has_entries_in: Vec::new(),
            last_seen: Moment::default(),
        };
        let mut requests = Vec::new();
        let mut runs: Vec<EntryBuffer> = Vec::new();
        let mut loose: Vec<(Lsn, Vec<u8>)> = Vec::new();
        let mut places: Vec<(Uuid, StreamKey, Noted)> = Vec::new();
        for (directory, key, found) in parts {
            let Found {
                name: _,
                entries,
                stragglers,
                loose: _,
                noted,
                home,
                placement,
                head,
                truncated_to,
                gaps,
                segments: _,
                released: _,
                producers,
                deleted: _,
                last_seen,
                has_entries,
            } = found;
            merged.placement = merged.placement.max(placement);
            merged.truncated_to = merged.truncated_to.max(truncated_to);
            merged.head = merged.head.max(head).max(entries.last().unwrap_or_default());
            merged.gaps.extend(gaps);
            if let Some((moves, _)) = home {
                let told = merged.told.entry(directory).or_default();
                *told = moves.max(*told);
            }
            let seen = merged.seen.entry(directory).or_default();
            *seen = last_seen.max(*seen);
            merged.last_seen = merged.last_seen.max(last_seen);
            if has_entries {
                merged.has_entries_in.push(directory);
            }
            requests.extend(producers);
            runs.push(entries);
            loose.extend(stragglers);
            if !noted.is_empty() {
                places.push((directory, key, noted));
            }
        }
        // The order of requests decides which producers are remembered when there are too many.
        requests.sort_by_key(|(_, request)| (request.first, request.seq));
        for (id, request) in requests {
            merged.producers.recovered(&id, request);
        }
        merged.head = merged.head.max(merged.truncated_to);
        normalise(&mut merged.gaps, merged.truncated_to);
        let dead = merged.take_segments(segments);
        let below = merged.truncated_to.max(merged.flushed_to);
        for run in &mut runs {
            run.truncate_to(below);
        }
        runs.retain(|run| run.entries() > 0);
        loose.retain(|(lsn, _)| *lsn > below);
        runs.sort_by_key(EntryBuffer::first);
        let disjoint = runs.windows(2).all(|pair| pair[0].last() < pair[1].first());
        if disjoint && loose.is_empty() {
            for run in runs {
                merged.entries.extend(run);
            }
        } else {
            merged.entries = interleave(&merged.name, runs, loose, contradictions);
        }
        merged.noted = noted::resolve(&merged.name, &mut places, below, contradictions);
        merged.holes = holes(&merged);
        (merged, dead)
    }
}

impl MergedCollection {
    /// Keeps the segments that hold something above `truncated_to` that no younger one holds; answers the others.
    fn take_segments(&mut self, mut segments: Vec<(FlushedFact, Lsn)>) -> Vec<(FlushedFact, Lsn)> {
        segments.sort_unstable_by_key(|(fact, _)| std::cmp::Reverse(fact.segment));
        let mut dead = Vec::new();
        for (fact, last) in segments {
            let kept = self.segments.iter().map(|(fact, last)| (fact.first_lsn, *last));
            let from = fact.first_lsn.max(self.truncated_to.next());
            if last < from || covered_to(from, kept.collect()) >= last {
                dead.push((fact, last));
            } else {
                self.segments.push((fact, last));
            }
        }
        self.segments.sort_unstable_by_key(|(fact, last)| (fact.first_lsn, *last));
        let mut covered: Vec<(Lsn, Lsn)> = self.segments.iter().map(|(fact, last)| (fact.first_lsn, *last)).collect();
        if !covered.is_empty() {
            covered.extend(self.gaps.iter().map(|gap| (gap.first, gap.last)));
            self.flushed_to = covered_to(self.truncated_to.next(), covered);
        }
        dead
    }
}

/// The last LSN of the dense run from `from` on that the ranges cover; the one before `from` when they do not cover it.
pub(super) fn covered_to(from: Lsn, mut ranges: Vec<(Lsn, Lsn)>) -> Lsn {
    ranges.sort_unstable();
    let mut next = from;
    for (first, last) in ranges {
        if first > next {
            break;
        }
        next = next.max(last.next());
    }
    Lsn(next.0 - 1)
}

/// Sorts gaps, joins those that touch or overlap, and drops what is truncated.
fn normalise(gaps: &mut Vec<Gap>, truncated_to: Lsn) {
    gaps.retain(|gap| gap.last > truncated_to && gap.first <= gap.last);
    gaps.sort_by_key(|gap| (gap.first, gap.last));
    let mut joined: Vec<Gap> = Vec::new();
    for gap in gaps.drain(..) {
        match joined.last_mut() {
            Some(before)
                if gap.first <= before.last || (gap.first == before.last.next() && gap.cause == before.cause) =>
            {
                before.last = before.last.max(gap.last);
            }
            _ => joined.push(gap),
        }
    }
    *gaps = joined;
}

/// One run of the entries of several that overlap: each is let go of as it is copied.
fn interleave(
    name: &CollectionName,
    mut runs: Vec<EntryBuffer>,
    mut loose: Vec<(Lsn, Vec<u8>)>,
    contradictions: &mut Vec<String>,
) -> EntryBuffer {
    loose.sort_by_key(|(lsn, _)| *lsn);
    let mut loose = loose.into_iter().peekable();
    let mut buffer = EntryBuffer::default();
    loop {
        let firsts = runs.iter().filter_map(EntryBuffer::first);
        let Some(lsn) = firsts.chain(loose.peek().map(|(lsn, _)| *lsn)).min() else { break };
        let apart: Vec<Vec<u8>> =
            std::iter::from_fn(|| loose.next_if(|(other, _)| *other == lsn)).map(|(_, raw)| raw).collect();
        let in_runs = runs.iter().filter_map(|run| run.iter(lsn).next().filter(|(first, _)| *first == lsn));
        let mut chosen: Option<RecordRef<'_>> = None;
        for raw in in_runs.map(|(_, raw)| raw).chain(apart.iter().map(Vec::as_slice)) {
            let Ok((record, _)) = record::decode(raw) else { continue };
            if let Some(known) = &chosen {
                if known.crc != record.crc {
                    contradictions.push(noted::contradiction(name, lsn, known.epoch, record.epoch));
                }
                if known.epoch >= record.epoch {
                    continue;
                }
            }
            chosen = Some(record);
        }
        if let Some(record) = chosen {
            let raw = record.raw();
            buffer.push(lsn, raw.len(), |out| out.extend_from_slice(raw));
        }
        runs.iter_mut().for_each(|run| run.truncate_to(lsn));
        runs.retain(|run| run.entries() > 0);
    }
    buffer
}

/// The LSNs in (truncated_to, head] that are neither entry nor gap.
fn holes(collection: &MergedCollection) -> Vec<(Lsn, Lsn)> {
    let mut covered: Vec<(Lsn, Lsn)> = collection.entries.spans().collect();
    covered.extend(collection.noted.iter().map(|found| (found.first, found.last)));
    covered.extend(collection.gaps.iter().map(|gap| (gap.first, gap.last)));
    covered.extend(collection.segments.iter().map(|(fact, last)| (fact.first_lsn, *last)));
    covered.sort_unstable();
    let mut holes = Vec::new();
    let mut next = collection.truncated_to.next();
    for (first, last) in covered {
        if first > next {
            holes.push((next, Lsn(first.0 - 1)));
        }
        next = next.max(last.next());
    }
    if next <= collection.head {
        holes.push((next, collection.head));
    }
    holes
}

impl MergedCollection {
    /// Whether nothing was heard of it in `directory`'s stream after the lost frames, nor anywhere in a later epoch: its
    /// last entries may have been among them.
    fn may_have_ended_in(&self, lost: &Unresolved, only_homes: bool) -> bool {
        let there = !only_homes
            || self.is_unheard_in(lost)
            || self.home == lost.directory
            || self.has_entries_in.contains(&lost.directory)
            || self.has_entries_in.iter().any(|directory| *directory != self.home);
        let after = |moment: &Moment| {
            moment.0 > lost.key
                || (moment.0 == lost.key && lost.loss.damage.last_seq.is_some_and(|last| moment.1 > last))
        };
        let seen_there = self.seen.get(&lost.directory).is_some_and(after);
        let seen_later = self.last_seen.0.epoch > lost.key.epoch;
        there && !seen_there && !seen_later
    }

    /// Whether a checkpoint in the lost frames may have said where it lives and how far it goes: their stream says nothing of it
    /// before them, and what was there before is freed.
    fn is_unheard_in(&self, lost: &Unresolved) -> bool {
        let in_stream = self.seen.get(&lost.directory).is_some_and(|moment| moment.0 == lost.key);
        lost.loss.alone && !in_stream && !mutant!(LostHeadsGivenAgain)
    }

    /// How many of its last LSNs may have been in lost frames.
    fn may_lack(&self, lost: &Unresolved) -> u64 {
        if self.is_unheard_in(lost) {
            return UNHEARD_SPAN;
        }
        lost.loss.damage.most_entries().saturating_sub(lost.loss.salvage.entries)
    }

    /// Whether a COLLECTION in `directory` says where it lives now.
    pub(super) fn is_known_to(&self, directory: Uuid) -> bool {
        if mutant!(OldHomesKept) {
            return self.seen.contains_key(&directory);
        }
        self.told.get(&directory).is_some_and(|moves| *moves >= self.move_number)
    }

    /// Takes a segment that was found where a fact of it is lost, in place of what is known of the same one; answers those
    /// that are not needed beside it.
    pub(super) fn adopt(&mut self, fact: FlushedFact, last: Lsn) -> Vec<(FlushedFact, Lsn)> {
        let mut segments = std::mem::take(&mut self.segments);
        segments.retain(|(known, _)| known.segment != fact.segment);
        segments.push((fact, last));
        let dead = self.take_segments(segments);
        self.head = self.head.max(last);
        let below = self.truncated_to.max(self.flushed_to);
        self.entries.truncate_to(below);
        self.noted.retain(|found| found.last > below);
        for found in &mut self.noted {
            found.first = found.first.max(below.next());
        }
        self.holes = holes(self);
        dead
    }

    /// Records LSNs as lost.
    pub(crate) fn lose(&mut self, first: Lsn, last: Lsn, cause: GapCause) {
        self.gaps.push(Gap { first, last, cause });
        self.head = self.head.max(last);
        normalise(&mut self.gaps, self.truncated_to);
    }
}

impl Merged {
    /// What may be lost, by collection: holes, and what may have ended in a lost frame. `only_homes`: whether a directory
    /// takes entries of collections only that have their home there.
    pub(crate) fn losses(&self, only_homes: impl Fn(Uuid) -> bool) -> Vec<(usize, Lsn, Lsn)> {
        let mut losses = Vec::new();
        for (index, collection) in self.collections.iter().enumerate() {
            losses.extend(collection.holes.iter().map(|&(first, last)| (index, first, last)));
            let most = self
                .unresolved
                .iter()
                .filter(|lost| collection.may_have_ended_in(lost, only_homes(lost.directory)))
                .map(|lost| collection.may_lack(lost))
                .fold(0_u64, u64::saturating_add);
            if most > 0 {
                losses.push((index, collection.head.next(), Lsn(collection.head.0.saturating_add(most))));
            }
        }
        losses
    }
}
