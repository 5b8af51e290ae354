//! Sets of LSNs as ranges, both ends included.

/// A range, first and last.
pub(super) type Range = (u64, u64);

/// The same LSNs as ordered ranges that neither overlap nor touch.
pub(super) fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len().min(64));
    for (first, last) in ranges {
        push(&mut out, first, last);
    }
    out
}

/// Adds a range that does not start before the last one.
pub(super) fn push(ranges: &mut Vec<Range>, first: u64, last: u64) {
    match ranges.last_mut() {
        Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
        _ => ranges.push((first, last)),
    }
}

/// What of `range` is in none of `without`, which is a [`union`].
pub(super) fn minus(range: Range, without: &[Range]) -> Vec<Range> {
    let (mut next, last) = range;
    let mut left = Vec::new();
    let from = without.partition_point(|(_, end)| *end < next);
    for (first, end) in &without[from..] {
        if *first > last || next > last {
            break;
        }
        if *first > next {
            left.push((next, first - 1));
        }
        if *end >= last {
            return left;
        }
        next = next.max(end + 1);
    }
    if next <= last {
        left.push((next, last));
    }
    left
}

/// Whether one of the ranges, which are a [`union`], holds it.
pub(super) fn holds(ranges: &[Range], lsn: u64) -> bool {
    let at = ranges.partition_point(|(_, last)| *last < lsn);
    ranges.get(at).is_some_and(|(first, _)| *first <= lsn)
}

/// How many LSNs they are.
pub(super) fn count(ranges: &[Range]) -> u64 {
    ranges.iter().map(|(first, last)| last - first + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(ranges: &[Range]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    proptest! {
        #[test]
        fn ranges_are_sets(
            ranges in proptest::collection::vec((0_u64..50, 0_u64..50), 0..8),
            range in (0_u64..50, 0_u64..50),
        ) {
            let whole = union(ranges.clone());
            prop_assert_eq!(set(&whole), set(&ranges));
            prop_assert_eq!(count(&whole), set(&ranges).len() as u64);
            prop_assert!(whole.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let left = minus(range, &whole);
            let expected: BTreeSet<_> = (range.0..=range.1).filter(|lsn| !holds(&whole, *lsn)).collect();
            prop_assert_eq!(set(&left), expected);
            for lsn in 0..55 {
                prop_assert_eq!(holds(&whole, lsn), set(&ranges).contains(&lsn));
            }
        }
    }

    #[test]
    fn the_highest_lsn_does_not_overflow() {
        assert_eq!(minus((5, u64::MAX), &[(7, u64::MAX)]), [(5, 6)]);
        assert_eq!(union(vec![(0, u64::MAX), (3, 4)]), [(0, u64::MAX)]);
    }
}
