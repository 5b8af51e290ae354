//! Putting together what all directories say of the collections: facts by maximum, entries by LSN.

use std::collections::HashMap;

use super::report::{CollectionReport, GapReport, Lost, Problem};
use super::survey::{About, EntryAt, Journals, problem};
use crate::format::facts::{EpochFact, GapCause};
use crate::types::Incarnation;

/// A collection that is not deleted.
#[derive(Clone, Debug)]
pub(super) struct Merged {
    /// As shown.
    pub(super) report: CollectionReport,
    /// Everything up to here is in segments.
    pub(super) flushed_to: u64,
    /// What can be read above `truncated_to`, in order, once.
    pub(super) entries: Vec<EntryAt>,
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
        for (lsn, about) in facts {
            match about {
                About::Collection | About::Delete => head = head.max(lsn),
                About::Truncate(fact) => {
                    truncated_to = truncated_to.max(lsn);
                    head = head.max(fact.head.0).max(lsn);
                }
                About::Flushed => {
                    flushed_to = flushed_to.max(lsn);
                    head = head.max(lsn);
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
                let lost = vec![lost(name, kept.lsn, kept.lsn)];
                let what = format!("another entry has the same LSN, at offset {} of {}", other.offset, file(other));
                problems.push(Problem { file: file(kept), offset: Some(kept.offset), lost, ..problem(what) });
            }
        }
        entries.dedup_by_key(|entry| entry.lsn);
        head = head.max(entries.last().map_or(0, |entry| entry.lsn));
        gaps.retain(|(_, last, _)| *last > truncated_to);
        gaps.sort_unstable_by_key(|(first, last, _)| (*first, *last));
        gaps.dedup();
        let in_gap = |lsn: u64| gaps.iter().any(|(first, last, _)| (*first..=*last).contains(&lsn));
        entries.retain(|entry| entry.lsn > truncated_to && !in_gap(entry.lsn));
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
            entries: entries.len() as u64,
            gaps: gaps.iter().map(gap).collect(),
        };
        Merged { report, flushed_to, entries }
    }
}

fn lost(name: &str, first: u64, last: u64) -> Lost {
    Lost { collection: Some(name.to_owned()), first: Some(first), last: Some(last) }
}

impl Merged {
    /// LSNs that should be there and are neither an entry nor in a gap nor in a segment.
    pub(super) fn holes(&self) -> Vec<(u64, u64)> {
        let mut covered: Vec<_> = self.report.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
        covered.extend(self.entries.iter().map(|entry| (entry.lsn, entry.lsn)));
        covered.sort_unstable();
        let mut next = self.report.truncated_to.max(self.flushed_to).saturating_add(1);
        let mut holes = Vec::new();
        for (first, last) in covered {
            if first > next {
                holes.push((next, first - 1));
            }
            next = next.max(last.saturating_add(1));
        }
        if next <= self.report.head {
            holes.push((next, self.report.head));
        }
        holes
    }

    /// Its holes as problems.
    pub(super) fn missing(&self) -> Vec<Problem> {
        let name = &self.report.name;
        let hole = |(first, last)| Problem {
            lost: vec![lost(name, first, last)],
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
