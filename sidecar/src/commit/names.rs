//! Which live collection has a name: in the order of names for lists, and hashed for appends, each of which asks.
//!
//! A search in the ordered map alone compares about ten names in as many places of memory where there are a thousand
//! collections.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use super::collection::ColIx;
use crate::types::CollectionName;

/// The index of names. Both maps hold the same.
#[derive(Debug, Default)]
pub(super) struct Names {
    ordered: BTreeMap<CollectionName, ColIx>,
    hashed: HashMap<CollectionName, ColIx>,
}

impl Names {
    pub(super) fn insert(&mut self, name: CollectionName, ix: ColIx) {
        self.ordered.insert(name.clone(), ix);
        self.hashed.insert(name, ix);
    }

    pub(super) fn remove(&mut self, name: &CollectionName) -> Option<ColIx> {
        self.ordered.remove(name);
        self.hashed.remove(name)
    }

    pub(super) fn get(&self, name: &CollectionName) -> Option<ColIx> {
        self.hashed.get(name).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.ordered.len()
    }

    /// All, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = ColIx> {
        self.ordered.values().copied()
    }

    /// Those after `name`, by name.
    pub(super) fn after(&self, name: Option<&str>) -> impl Iterator<Item = ColIx> {
        let from = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.ordered.range::<str, _>((from, Bound::Unbounded)).map(|(_, &ix)| ix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_listed_in_order_and_forgotten() {
        let name = |text: &str| CollectionName::new(text).unwrap();
        let mut names = Names::default();
        for (ix, text) in ["b", "a", "c"].into_iter().enumerate() {
            names.insert(name(text), ix);
        }
        assert_eq!((names.get(&name("c")), names.get(&name("d"))), (Some(2), None));
        assert_eq!(names.iter().collect::<Vec<_>>(), [1, 0, 2]);
        assert_eq!(names.after(Some("a")).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(names.after(Some("aa")).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(names.after(None).count(), names.len());
        // A name that was given up is another's.
        assert_eq!((names.remove(&name("b")), names.remove(&name("b"))), (Some(0), None));
        names.insert(name("b"), 7);
        assert_eq!((names.get(&name("b")), names.len()), (Some(7), 3));
    }
}
