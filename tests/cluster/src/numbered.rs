//! What an app of the tests appends, entries numbered from 1, and the judgement over what is read back.

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
}
