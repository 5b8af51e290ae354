//! What an app of the tests appends, entries numbered from 1, and the judgement over what is read back.

use std::iter::Sum;

use serde::{Deserialize, Serialize};

/// What is wrong with a log of numbered entries, and how many are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Different numbers that were read.
    pub entries: u64,
    /// The highest.
    pub last: u64,
    /// Numbers below the highest, or acknowledged, that are not there.
    pub lost: u64,
    /// Entries whose number was read before.
    pub doubled: u64,
    /// Entries that come after one with a higher number.
    pub disordered: u64,
    /// Gaps that the log itself reports.
    pub gaps: u64,
}

impl Verdict {
    /// Judges numbers in the order of their reading; every one up to `acknowledged` must be there.
    #[must_use]
    pub fn of(numbers: &[u64], gaps: u64, acknowledged: u64) -> Self {
        let mut seen = std::collections::BTreeSet::new();
        let mut verdict = Self { gaps, ..Self::default() };
        for number in numbers {
            if !seen.insert(*number) {
                verdict.doubled += 1;
            } else if *number < verdict.last {
                verdict.disordered += 1;
            }
            verdict.last = verdict.last.max(*number);
        }
        verdict.entries = seen.len() as u64;
        let within = seen.range(1..=verdict.last.max(acknowledged)).count() as u64;
        verdict.lost = verdict.last.max(acknowledged) - within;
        verdict
    }

    /// Whether nothing is lost, doubled, disordered or reported as a gap.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let Self { entries: _, last: _, lost, doubled, disordered, gaps } = *self;
        [lost, doubled, disordered, gaps] == [0; 4]
    }
}

/// Of several logs; `last` is the highest of all.
impl Sum for Verdict {
    fn sum<I: Iterator<Item = Self>>(verdicts: I) -> Self {
        verdicts.fold(Self::default(), |sum, one| {
            let Self { entries, last, lost, doubled, disordered, gaps } = one;
            Self {
                entries: sum.entries + entries,
                last: sum.last.max(last),
                lost: sum.lost + lost,
                doubled: sum.doubled + doubled,
                disordered: sum.disordered + disordered,
                gaps: sum.gaps + gaps,
            }
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entries, last: _, lost, doubled, disordered, gaps } = self;
        write!(f, "{entries} entries: {lost} lost, {doubled} doubled, {disordered} out of order, {gaps} in gaps")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_break_the_promise_is_counted() {
        let of = |numbers: &[u64], acknowledged| Verdict::of(numbers, 0, acknowledged);
        assert!(of(&[1, 2, 3], 3).is_whole());
        assert!(of(&[1, 2, 3], 2).is_whole(), "more than was acknowledged may be there");
        assert!(of(&[], 0).is_whole());
        assert_eq!(of(&[1, 2], 4), Verdict { entries: 2, last: 2, lost: 2, ..Verdict::default() });
        assert_eq!(of(&[1, 3], 0), Verdict { entries: 2, last: 3, lost: 1, ..Verdict::default() });
        assert_eq!(of(&[2, 3], 3), Verdict { entries: 2, last: 3, lost: 1, ..Verdict::default() });
        assert_eq!(of(&[1, 2, 2], 2), Verdict { entries: 2, last: 2, doubled: 1, ..Verdict::default() });
        assert_eq!(of(&[2, 1], 2), Verdict { entries: 2, last: 2, disordered: 1, ..Verdict::default() });
        assert!(!Verdict::of(&[1], 1, 1).is_whole());
    }

    #[test]
    fn what_is_wrong_with_one_log_is_wrong_with_all() {
        let wrong = Verdict { entries: 2, last: 9, lost: 3, doubled: 4, disordered: 5, gaps: 6 };
        let sum: Verdict = [Verdict::of(&[1, 2], 0, 0), wrong].into_iter().sum();
        assert_eq!(sum, Verdict { entries: 4, ..wrong });
        assert_eq!(sum.to_string(), "4 entries: 3 lost, 4 doubled, 5 out of order, 6 in gaps");
    }
}
