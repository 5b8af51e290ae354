//! What a watch says, by namespace: a decision reads one namespace and pays for no other.

use std::collections::{BTreeMap, HashMap};
use std::mem;
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
#[derive(Debug)]
pub struct Kept<T> {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is kept.
    pub value: T,
}

/// The same event of what is kept of its object; nothing where nothing is.
pub fn kept<K, T>(event: Event<K>, keep: impl FnOnce(K) -> Option<Kept<T>>) -> Option<Event<Kept<T>>> {
    Some(match event {
        Event::Apply(object) => Event::Apply(keep(object)?),
        Event::Delete(object) => Event::Delete(keep(object)?),
        Event::InitApply(object) => Event::InitApply(keep(object)?),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    })
}

impl<T> Cache<T> {
    /// Takes what the watch says; returns whether a whole list has been read by now.
    pub fn take(&self, event: Event<Kept<T>>) -> bool {
        // What is replaced goes when the lock is free again: answers wait for it.
        let (_objects, _object);
        let held = &mut *self.held.write();
        let insert = |all: &mut HashMap<String, Named<T>>, kept: Kept<T>| {
            all.entry(kept.namespace).or_default().insert(kept.name, Arc::new(kept.value))
        };
        match event {
            Event::Init => _objects = held.next.replace(HashMap::new()),
            Event::InitApply(kept) => _object = insert(held.next.get_or_insert_default(), kept),
            Event::InitDone => {
                let list = held.next.take().unwrap_or_default();
                _objects = Some(mem::replace(&mut held.current, list));
                held.synced = true;
            }
            Event::Apply(kept) => _object = insert(&mut held.current, kept),
            Event::Delete(kept) => {
                if let Some(all) = held.current.get_mut(&kept.namespace) {
                    _object = all.remove(&kept.name);
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

    fn one(namespace: &str, name: &str, value: u8) -> Kept<u8> {
        Kept { namespace: namespace.to_owned(), name: name.to_owned(), value }
    }

    #[test]
    fn a_list_replaces_what_was_known_only_when_it_is_whole() {
        let cache = Cache::default();
        let all = |namespace: &str| cache.all(namespace).iter().map(|value| **value).collect::<Vec<_>>();
        assert!(!cache.take(Event::Init));
        assert!(!cache.take(Event::InitApply(one("a", "x", 1))));
        assert_eq!(all("a"), Vec::<u8>::new());
        assert!(cache.take(Event::InitDone));
        cache.take(Event::Apply(one("a", "y", 2)));
        cache.take(Event::Apply(one("b", "x", 3)));
        assert_eq!((all("a"), all("b")), (vec![1, 2], vec![3]));

        // The watch began anew; "x" of "a" was deleted meanwhile.
        cache.take(Event::Init);
        cache.take(Event::InitApply(one("a", "y", 4)));
        assert_eq!(all("a"), [1, 2]);
        assert!(cache.take(Event::InitDone));
        assert_eq!((all("a"), all("b")), (vec![4], vec![]));
        cache.take(Event::Delete(one("a", "y", 4)));
        assert_eq!(cache.get("a", "y"), None);
    }
}
