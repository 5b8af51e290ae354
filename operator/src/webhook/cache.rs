//! What a watch says, by namespace: a decision reads one namespace and pays for no other.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube_runtime::watcher::Event;
use parking_lot::RwLock;

/// Objects of one namespace, by name.
type Named<T> = BTreeMap<String, Arc<T>>;

/// The objects of one kind, made of what the API server sends.
#[derive(Debug)]
pub struct Cache<T> {
    held: RwLock<Held<T>>,
}

#[derive(Debug)]
struct Held<T> {
    current: HashMap<String, Named<T>>,
    /// A list that is being read again; it replaces the current one when it is whole.
    next: Option<HashMap<String, Named<T>>>,
    synced: bool,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { held: RwLock::new(Held { current: HashMap::new(), next: None, synced: false }) }
    }
}

/// What is kept of an object, and under which namespace and name.
pub struct Kept<T> {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is kept.
    pub value: T,
}

impl<T> Cache<T> {
    /// Takes what the watch says; returns whether a whole list has been read by now.
    pub fn take<K>(&self, event: Event<K>, keep: impl FnOnce(K) -> Option<Kept<T>>) -> bool {
        let held = &mut *self.held.write();
        let insert = |all: &mut HashMap<String, Named<T>>, kept: Option<Kept<T>>| {
            if let Some(Kept { namespace, name, value }) = kept {
                all.entry(namespace).or_default().insert(name, Arc::new(value));
            }
        };
        match event {
            Event::Init => held.next = Some(HashMap::new()),
            Event::InitApply(object) => insert(held.next.get_or_insert_default(), keep(object)),
            Event::InitDone => {
                held.current = held.next.take().unwrap_or_default();
                held.synced = true;
            }
            Event::Apply(object) => insert(&mut held.current, keep(object)),
            Event::Delete(object) => {
                if let Some(kept) = keep(object)
                    && let Some(all) = held.current.get_mut(&kept.namespace)
                {
                    all.remove(&kept.name);
                    if all.is_empty() {
                        held.current.remove(&kept.namespace);
                    }
                }
            }
        }
        held.synced
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.held.read().current.get(namespace)?.get(name).cloned()
    }

    /// All objects of a namespace.
    pub fn all(&self, namespace: &str) -> Vec<Arc<T>> {
        self.held.read().current.get(namespace).map(|all| all.values().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(object: (&'static str, &'static str, u8)) -> Option<Kept<u8>> {
        let (namespace, name, value) = object;
        Some(Kept { namespace: namespace.to_owned(), name: name.to_owned(), value })
    }

    #[test]
    fn a_list_replaces_what_was_known_only_when_it_is_whole() {
        let cache = Cache::default();
        let all = |namespace: &str| cache.all(namespace).iter().map(|value| **value).collect::<Vec<_>>();
        assert!(!cache.take(Event::Init, keep));
        assert!(!cache.take(Event::InitApply(("a", "x", 1)), keep));
        assert_eq!(all("a"), Vec::<u8>::new());
        assert!(cache.take(Event::InitDone, keep));
        cache.take(Event::Apply(("a", "y", 2)), keep);
        cache.take(Event::Apply(("b", "x", 3)), keep);
        assert_eq!((all("a"), all("b")), (vec![1, 2], vec![3]));

        // The watch began anew; "x" of "a" was deleted meanwhile.
        cache.take(Event::Init, keep);
        cache.take(Event::InitApply(("a", "y", 4)), keep);
        assert_eq!(all("a"), [1, 2]);
        assert!(cache.take(Event::InitDone, keep));
        assert_eq!((all("a"), all("b")), (vec![4], vec![]));
        cache.take(Event::Delete(("a", "y", 4)), keep);
        assert_eq!(cache.get("a", "y"), None);
    }
}
