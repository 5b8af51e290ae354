//! Putting together what all directories say of the collections: facts by maximum, entries by LSN.

use std::collections::{BTreeMap, HashMap};

use super::ranges::{self, Range};
use super::report::{CollectionReport, GapReport, Lost, Problem};
use super::segments::{BlockAt, Claim, Winner};
use super::survey::{About, EntryAt, Journals, problem};
use crate::format::facts::{EpochFact, GapCause};
use crate::types::Incarnation;
use uuid::Uuid;

/// A collection that is not deleted.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    /// As shown.
    pub(super) report: CollectionReport,
    /// What journals hold above `truncated_to`, in order, once.
    pub(super) entries: Vec<EntryAt>,
    /// What is said of its segments, as far as they hold anything above `truncated_to`.
    pub(super) claims: Vec<Claim>,
    /// The blocks of segments that can be read, by their first LSN.
    pub(super) blocks: Vec<BlockAt>,
    /// The LSNs in them.
    pub(super) flushed: Vec<Range>,
    /// Which copy counts, where two differ.
    pub(super) winners: BTreeMap<u64, Winner>,
    /// Recorded losses.
    gaps: Vec<Range>,
}

/// All collections, ordered by name, and what does not fit together.
pub(super) fn merge(journals: &Journals) -> (Vec<Merged>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut collections = Vec::new();
    let mut by_number: HashMap<u32, Life<'_>> = HashMap::new();
    for entry in &journals.content.entries {
        by_number.entry(entry.collection).or_default().entries.push(*entry);
    }
    for (number, lsn, about) in &journals.content.facts {
        by_number.entry(*number).or_default().facts.push((*lsn, about));
    }
    let mut newest: HashMap<&str, (Incarnation, u32)> = HashMap::new();
    let mut deleted: HashMap<&str, Incarnation> = HashMap::new();
    for (number, (name, incarnation)) in (0..).zip(journals.names.all()) {
        let Some(life) = by_number.get(&number) else { continue };
        let best = newest.entry(name).or_insert((*incarnation, number));
        *best = (*best).max((*incarnation, number));
        if life.facts.iter().any(|(_, about)| matches!(about, About::Delete)) {
            let last = deleted.entry(name).or_insert(*incarnation);
            *last = (*last).max(*incarnation);
        }
    }
    let mut live: Vec<_> = newest
        .into_iter()
        .filter(|(name, (incarnation, _))| deleted.get(name).is_none_or(|last| last < incarnation))
        .collect();
    live.sort_unstable();
    for (name, (incarnation, number)) in live {
        let life = by_number.remove(&number).unwrap_or_default();
        collections.push(life.merge(name, incarnation, journals, &mut problems));
    }
    (collections, problems)
}

/// What is said of one incarnation.
#[derive(Default)]
struct Life<'a> {
    entries: Vec<EntryAt>,
    facts: Vec<(u64, &'a About)>,
}

impl Life<'_> {
    fn merge(self, name: &str, incarnation: Incarnation, journals: &Journals, problems: &mut Vec<Problem>) -> Merged {
        let Self { mut entries, facts } = self;
        let (mut truncated_to, mut flushed_to, mut head) = (0, 0, 0);
        let mut gaps = Vec::new();
        let mut claims: HashMap<Uuid, Claim> = HashMap::new();
        for (lsn, about) in facts {
            match about {
                About::Collection | About::Delete => head = head.max(lsn),
                About::Truncate(fact) => {
                    truncated_to = truncated_to.max(lsn);
                    head = head.max(fact.head.0).max(lsn);
                }
                About::Flushed(fact) => {
                    flushed_to = flushed_to.max(lsn);
                    head = head.max(lsn);
                    let new = Claim { to: lsn, fact: *fact };
                    let known = claims.entry(fact.segment).or_insert(new);
                    if (fact.length, lsn, fact.sealed) > (known.fact.length, known.to, known.fact.sealed) {
                        *known = new;
                    }
                }
                About::Gap(fact) => {
                    gaps.push((lsn, fact.last.0, fact.reason));
                    head = head.max(fact.last.0);
                }
            }
        }
        // The copy of the highest epoch comes first, and wins.
        entries.sort_unstable_by_key(|entry| (entry.lsn, std::cmp::Reverse(entry.epoch)));
        for pair in entries.windows(2) {
            let [kept, other] = pair else { continue };
            if kept.lsn == other.lsn && kept.crc != other.crc {
                let file = |entry: &EntryAt| journals.files[entry.file as usize].display().to_string();
                let lost = vec![Lost::of(name, kept.lsn, kept.lsn)];
                let what = format!("another entry has the same LSN, at offset {} of {}", other.offset, file(other));
                problems.push(Problem { file: file(kept), offset: Some(kept.offset), lost, ..problem(what) });
            }
        }
        entries.dedup_by_key(|entry| entry.lsn);
        head = head.max(entries.last().map_or(0, |entry| entry.lsn));
        gaps.retain(|(_, last, _)| *last > truncated_to);
        gaps.sort_unstable_by_key(|(first, last, _)| (*first, *last));
        gaps.dedup();
        let lost = ranges::union(gaps.iter().map(|(first, last, _)| (*first, *last)).collect());
        entries.retain(|entry| entry.lsn > truncated_to && !ranges::holds(&lost, entry.lsn));
        let mut claims: Vec<_> = claims.into_values().filter(|claim| claim.to > truncated_to).collect();
        claims.sort_unstable_by_key(|claim| (claim.fact.first_lsn, claim.fact.segment));
        let gap = |(first, last, reason): &(u64, u64, GapCause)| GapReport {
            first: *first,
            last: *last,
            reason: match reason {
                GapCause::Damage => "DAMAGE".into(),
                GapCause::DirectoryForgotten => "DIRECTORY_FORGOTTEN".into(),
                GapCause::Other(number) => number.to_string(),
            },
        };
        let report = CollectionReport {
            name: name.to_owned(),
            incarnation: incarnation.0,
            truncated_to,
            head,
            flushed_to,
            segments: claims.len() as u64,
            entries: entries.len() as u64,
            gaps: gaps.iter().map(gap).collect(),
        };
        Merged {
            report,
            entries,
            claims,
            blocks: Vec::new(),
            flushed: Vec::new(),
            winners: BTreeMap::new(),
            gaps: lost,
        }
    }
}

impl Merged {
    /// Puts what its segments were found to hold in order.
    pub(super) fn take_segments(&mut self) {
        let wanted = |range: Range| self.wanted(range);
        self.flushed = ranges::union(self.flushed.iter().flat_map(|range| wanted(*range)).collect());
        self.blocks.sort_by_key(|block| (block.at.first, std::cmp::Reverse(block.at.last)));
        let only_here = self.entries.iter().filter(|entry| !ranges::holds(&self.flushed, entry.lsn)).count();
        self.report.entries = ranges::count(&self.flushed) + only_here as u64;
    }

    /// Leaves out what was truncated since it was read.
    pub(super) fn truncate_to(&mut self, to: u64) {
        self.report.truncated_to = self.report.truncated_to.max(to);
        self.report.head = self.report.head.max(to);
        self.entries.retain(|entry| entry.lsn > to);
        self.blocks.retain(|block| block.at.last.0 > to);
        self.take_segments();
    }

    /// What of a range is above `truncated_to` and in no gap.
    fn wanted(&self, (first, last): Range) -> Vec<Range> {
        ranges::minus((first.max(self.report.truncated_to.saturating_add(1)), last), &self.gaps)
    }

    /// Whether an entry is above `truncated_to` and in no gap.
    pub(super) fn wants(&self, lsn: u64) -> bool {
        lsn > self.report.truncated_to && !ranges::holds(&self.gaps, lsn)
    }

    /// What of a range should be in segments and is in none of them, less what is in `named`, a union.
    pub(super) fn lacks(&self, range: Range, named: &[Range]) -> Vec<Lost> {
        let wanted = self.wanted(range);
        let in_none = wanted.into_iter().flat_map(|range| ranges::minus(range, &self.flushed));
        let lacking = in_none.flat_map(|range| ranges::minus(range, named));
        lacking.map(|(first, last)| Lost::of(&self.report.name, first, last)).collect()
    }

    /// LSNs that should be there and are neither an entry nor in a gap nor in a segment.
    fn holes(&self) -> Vec<Range> {
        let entries = self.entries.iter().map(|entry| (entry.lsn, entry.lsn));
        let there = ranges::union(self.flushed.iter().copied().chain(entries).collect());
        let all = self.wanted((1, self.report.head));
        all.into_iter().flat_map(|range| ranges::minus(range, &there)).collect()
    }

    /// Its holes as problems.
    pub(super) fn missing(&self) -> Vec<Problem> {
        let name = &self.report.name;
        let hole = |(first, last)| Problem {
            lost: vec![Lost::of(name, first, last)],
            most_entries: Some(last - first + 1),
            ..problem("entries that were acknowledged are nowhere".into())
        };
        self.holes().into_iter().map(hole).collect()
    }
}

/// What the newest start says about the set of directories.
pub(super) fn newest_epoch(journals: &Journals) -> Option<&EpochFact> {
    let epochs = &journals.content.epochs;
    epochs.iter().max_by_key(|(frame, epoch)| (epoch.key, *frame)).map(|(_, epoch)| epoch)
}
