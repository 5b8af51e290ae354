//! Which objects of a cache are of which storage, so that a look at one of hundreds does not go through those of all.
//!
//! It may name one that the cache has not yet, has no more, or has with another storage: whoever asks looks into the cache. It never
//! misses one that the cache has, but for one whose deletion is on its way there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kube_runtime::watcher::Event;
use parking_lot::RwLock;

/// Names of objects by namespace and storage.
type Names = HashMap<(String, String), BTreeSet<String>>;

/// The index. Cloned freely.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    current: Names,
    /// A list that is not whole yet.
    listed: Option<Names>,
}

impl Index {
    /// Takes what the watch tells, before the cache does. `of` says namespace, storage and name, where there is a storage.
    pub(super) fn take<K>(&self, event: &Event<K>, of: impl Fn(&K) -> Option<((String, String), String)>) {
        let mut known = self.0.write();
        match event {
            Event::Init => known.listed = Some(Names::new()),
            Event::InitApply(object) => {
                let Some((key, name)) = of(object) else { return };
                if let Some(listed) = &mut known.listed {
                    listed.entry(key.clone()).or_default().insert(name.clone());
                }
                known.current.entry(key).or_default().insert(name);
            }
            Event::InitDone => {
                if let Some(listed) = known.listed.take() {
                    known.current = listed;
                }
            }
            Event::Apply(object) => {
                let Some((key, name)) = of(object) else { return };
                known.current.entry(key).or_default().insert(name);
            }
            Event::Delete(object) => {
                let Some((key, name)) = of(object) else { return };
                if let Some(names) = known.current.get_mut(&key) {
                    names.remove(&name);
                    if names.is_empty() {
                        known.current.remove(&key);
                    }
                }
            }
        }
    }

    /// The names that may be of a storage, sorted.
    pub(super) fn of(&self, namespace: &str, storage: &str) -> Vec<String> {
        let key = (namespace.to_owned(), storage.to_owned());
        self.0.read().current.get(&key).into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_replaces_what_was_known_when_the_list_is_whole() {
        let index = Index::default();
        let take = |event: Event<(&str, &str)>| {
            index
                .take(&event, |(storage, name)| Some((("shop".to_owned(), (*storage).to_owned()), (*name).to_owned())));
            (index.of("shop", "a").concat(), index.of("shop", "b").concat())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(take(Event::Init), pair("", ""));
        take(Event::InitApply(("a", "2")));
        assert_eq!(take(Event::InitApply(("a", "1"))), pair("12", ""), "a cache may have it at once");
        assert_eq!(take(Event::InitDone), pair("12", ""));
        assert_eq!(take(Event::Apply(("b", "3"))), pair("12", "3"));
        assert_eq!(take(Event::Delete(("a", "1"))), pair("2", "3"));
        assert_eq!(index.of("other", "a"), Vec::<String>::new());

        // The watch began anew; "2" was deleted meanwhile.
        take(Event::Init);
        assert_eq!(take(Event::InitApply(("b", "3"))), pair("2", "3"));
        assert_eq!(take(Event::InitDone), pair("", "3"));
        assert_eq!(take(Event::Delete(("b", "3"))), pair("", ""));
    }
}
