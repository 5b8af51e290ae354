//! Changes that a run made itself, or that no run would see: they are no reason for another one. Pure; lost with the process.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use walstorage_crds::names;

use crate::grant::ClaimFacts;

/// What is remembered of one kind: versions until a watch has shown them, pods until they are granted.
const REMEMBERED: usize = 4096;

/// The last that were added.
#[derive(Debug)]
pub(super) struct Recent<T> {
    known: HashSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), order: VecDeque::new() }
    }
}

impl<T: Clone + Eq + Hash> Recent<T> {
    /// Adds one; the oldest is forgotten.
    pub(super) fn add(&mut self, one: T) {
        if !self.known.insert(one.clone()) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether it was added not long ago.
    pub(super) fn has(&self, one: &T) -> bool {
        self.known.contains(one)
    }
}

/// What the runs see of claims, as it was shown last, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Shown(HashMap<(String, String), u64>);

impl Shown {
    /// Whether a run would see another claim than the last time. Most changes of one are its way to a volume.
    pub(super) fn is_news(&mut self, key: (String, String), claim: Option<&ClaimFacts>) -> bool {
        let Some(claim) = claim else {
            self.0.remove(&key);
            return true;
        };
        let now = fingerprint(claim);
        self.0.insert(key, now) != Some(now)
    }
}

/// Of what a run goes by once a claim has its writer: that its directory was made is written down for a ledger to come.
fn fingerprint(claim: &ClaimFacts) -> u64 {
    let ClaimFacts { name: _, uid, resource_version: _, labels, annotations, deleting, size, bound: _ } = claim;
    let written = [names::ANNOTATION_WRITER_UID, names::ANNOTATION_URL].map(|name| annotations.get(name));
    let mut hasher = DefaultHasher::new();
    (uid, labels, written, deleting, size).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered_and_no_more() {
        let mut recent = Recent::default();
        recent.add(7);
        recent.add(7);
        assert!(recent.has(&7) && recent.has(&7), "a watch that begins anew shows it again");
        assert!(!recent.has(&8));
        for next in 0..REMEMBERED {
            recent.add(next + 10);
        }
        assert!(!recent.has(&7) && recent.has(&10));
        assert_eq!((recent.known.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn a_claim_on_its_way_to_a_volume_is_no_news_and_what_a_grant_rests_on_is() {
        let claim = || ClaimFacts {
            name: "c".to_owned(),
            uid: "u".to_owned(),
            labels: [(names::LABEL_WRITER.to_owned(), "orders-0".to_owned())].into(),
            annotations: [(names::ANNOTATION_WRITER_UID.to_owned(), "w".to_owned())].into(),
            size: "10Gi".to_owned(),
            ..ClaimFacts::default()
        };
        fn annotate(claim: &mut ClaimFacts, name: &str) {
            claim.annotations.insert(name.to_owned(), "x".to_owned());
        }
        let key = || ("shop".to_owned(), "c".to_owned());
        type Edit = fn(&mut ClaimFacts);
        let table: [(Edit, bool); 9] = [
            (|_| {}, false),
            (|claim| claim.resource_version.push('2'), false),
            (|claim| annotate(claim, "pv.kubernetes.io/bind-completed"), false),
            (|claim| annotate(claim, names::ANNOTATION_INITIALIZED), false),
            (|claim| annotate(claim, names::ANNOTATION_WRITER_UID), true),
            (|claim| claim.labels.clear(), true),
            (|claim| claim.deleting = true, true),
            (|claim| claim.uid.push('2'), true),
            (|claim| claim.size.push('2'), true),
        ];
        for (at, (edit, news)) in table.into_iter().enumerate() {
            let (mut shown, mut now) = (Shown::default(), claim());
            edit(&mut now);
            assert!(shown.is_news(key(), Some(&claim())), "it was not known");
            assert_eq!(shown.is_news(key(), Some(&now)), news, "{at}");
            assert!(shown.is_news(key(), None), "it is gone");
            assert!(shown.is_news(key(), Some(&now)), "it is there again");
        }
    }
}
