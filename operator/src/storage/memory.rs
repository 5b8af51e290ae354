//! What is remembered of a storage between looks, so that a look asks the API server for nothing that no change speaks of.
//! Pure; lost with the process.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::dereference::FoundMap;
use super::{Key, ON_THEIR_WAY, SHOWN};
use crate::process::work::Wait;

/// Storages as their users wrote them last.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// What changes with all but a status.
    known: HashMap<Key, ObjectMeta>,
}

impl Written {
    /// Whether a change of a storage, as it is now, is more than one of its status. Most are not: a look that writes a status
    /// would ask for another look with it.
    pub(super) fn is_news(&mut self, key: &Key, storage: Option<&WalStorage>) -> bool {
        let Some(storage) = storage else {
            self.known.remove(key);
            return true;
        };
        let now = ObjectMeta { resource_version: None, ..storage.metadata.clone() };
        if self.known.get(key) == Some(&now) {
            return false;
        }
        self.known.insert(key.clone(), now);
        true
    }
}

/// Writers that were granted to a pod which has not started yet, by storage.
#[derive(Debug, Default)]
pub(super) struct Starting(HashMap<Key, HashSet<String>>);

impl Starting {
    /// Of all writers.
    pub(super) fn of(writers: &[Arc<WalWriter>]) -> Self {
        let mut starting = Self::default();
        for writer in writers {
            let key = (writer.namespace().unwrap_or_default(), writer.spec.storage.clone());
            starting.take(&key, &writer.name_any(), Some(writer));
        }
        starting
    }

    /// Takes a writer as it is now.
    pub(super) fn take(&mut self, key: &Key, name: &str, writer: Option<&WalWriter>) {
        if writer.is_some_and(|writer| writer.status.as_ref().and_then(|status| status.phase) == Some(Phase::Pending)) {
            self.0.entry(key.clone()).or_default().insert(name.to_owned());
        } else if let Some(names) = self.0.get_mut(key) {
            names.remove(name);
            if names.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// A storage with how long what only shows in its status may wait.
    pub(super) fn paced(&self, key: Key) -> (Key, Wait) {
        let wait = if self.has(&key) { ON_THEIR_WAY } else { SHOWN };
        (key, wait)
    }

    fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }
}

/// Statuses as they were written last, by version: what a look wrote is no reason for another look.
#[derive(Debug, Default)]
pub(super) struct Own(HashMap<Key, String>);

impl Own {
    /// Keeps the version that a look has made; of one that is gone, nothing.
    pub(super) fn wrote(&mut self, key: &Key, version: Option<String>) {
        match version {
            Some(version) => self.0.insert(key.clone(), version),
            None => self.0.remove(key),
        };
    }

    /// Whether a storage stands as a look has left it.
    pub(super) fn is(&self, key: &Key, storage: &WalStorage) -> bool {
        let version = storage.metadata.resource_version.as_ref();
        version.is_some() && self.0.get(key) == version
    }
}

/// ConfigMaps as they were read last, each with its version.
#[derive(Debug, Default)]
pub(super) struct Maps {
    known: HashMap<Key, (String, FoundMap)>,
}

impl Maps {
    /// The ConfigMap that was read, if the watch shows that very version of that very object.
    pub(super) fn get(&self, key: &Key, shown: &ObjectMeta) -> Option<FoundMap> {
        let (version, map) = self.known.get(key)?;
        let same = shown.resource_version.as_ref() == Some(version) && shown.uid.as_ref() == Some(&map.uid);
        same.then(|| map.clone())
    }

    /// Keeps what was read.
    pub(super) fn keep(&mut self, key: &Key, read: Option<(String, FoundMap)>) {
        match read {
            Some(read) => self.known.insert(key.clone(), read),
            None => self.known.remove(key),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        ("shop".to_owned(), "orders".to_owned())
    }

    #[test]
    fn what_a_user_writes_is_news_and_a_status_is_not() {
        let storage = |generation: i64, version: &str, deleted: bool| -> WalStorage {
            let mut storage = json!({
                "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage", "spec": {},
                "metadata": {"name": "orders", "namespace": "shop", "generation": generation, "resourceVersion": version},
                "status": {"summary": version},
            });
            if deleted {
                storage["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            serde_json::from_value(storage).unwrap()
        };
        let mut written = Written::default();
        for (now, expected) in [
            (Some(storage(1, "1", false)), true),
            (Some(storage(1, "2", false)), false),
            (Some(storage(1, "3", false)), false),
            (Some(storage(2, "4", false)), true),
            (Some(storage(2, "5", true)), true),
            (None, true),
            (Some(storage(2, "5", true)), true),
        ] {
            assert_eq!(written.is_news(&key(), now.as_ref()), expected, "{now:?}");
        }
    }

    #[test]
    fn a_status_is_our_own_until_somebody_writes_over_it() {
        let storage = |version: &str| -> WalStorage {
            let metadata = json!({"name": "orders", "namespace": "shop", "resourceVersion": version});
            let kind = json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage", "spec": {}});
            let mut storage = kind;
            storage["metadata"] = metadata;
            serde_json::from_value(storage).unwrap()
        };
        let mut own = Own::default();
        assert!(!own.is(&key(), &storage("7")));
        own.wrote(&key(), Some("7".to_owned()));
        assert!(own.is(&key(), &storage("7")) && !own.is(&key(), &storage("8")));
        own.wrote(&key(), Some("9".to_owned()));
        assert!(!own.is(&key(), &storage("7")), "one that comes late is looked at once more");
        own.wrote(&key(), None);
        assert!(!own.is(&key(), &storage("9")));
    }

    #[test]
    fn a_storage_has_writers_that_start_until_the_last_of_them_has() {
        let writer = |name: &str, phase: Option<&str>| -> WalWriter {
            serde_json::from_value(json!({
                "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalWriter",
                "metadata": {"name": format!("orders.{name}"), "namespace": "shop"},
                "spec": {"storage": "orders", "writer": name, "writerUid": "u", "identity": "Named",
                    "workload": {"group": "apps", "kind": "StatefulSet", "name": "p"}},
                "status": phase.map(|phase| json!({"phase": phase})),
            }))
            .unwrap()
        };
        let pending = |name| Arc::new(writer(name, Some("Pending")));
        let mut starting = Starting::of(&[pending("p-0"), pending("p-1"), Arc::new(writer("p-2", Some("Active")))]);
        let other = ("shop".to_owned(), "payments".to_owned());
        assert!(starting.has(&key()) && !starting.has(&other));
        let mut take = |name: &str, now: Option<WalWriter>| {
            starting.take(&key(), &format!("orders.{name}"), now.as_ref());
            starting.has(&key())
        };
        assert!(take("p-0", Some(writer("p-0", Some("Active")))));
        assert!(take("p-2", Some(writer("p-2", None))));
        assert!(!take("p-1", None), "it is gone, and nobody else is on the way");
        assert!(take("p-2", Some(writer("p-2", Some("Pending")))));
        assert!(!take("p-2", Some(writer("p-2", Some("Released")))));
    }

    #[test]
    fn a_config_map_is_read_again_unless_the_watch_shows_what_was_read() {
        let shown = |uid: &str, version: &str| ObjectMeta {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let map = FoundMap { uid: "u".to_owned(), text: Some("x".to_owned()), ..FoundMap::default() };
        let mut maps = Maps::default();
        assert_eq!(maps.get(&key(), &shown("u", "7")), None);
        maps.keep(&key(), Some(("7".to_owned(), map.clone())));
        assert_eq!(maps.get(&key(), &shown("u", "7")), Some(map));
        assert_eq!(maps.get(&key(), &shown("u", "8")), None, "somebody wrote it");
        assert_eq!(maps.get(&key(), &shown("v", "7")), None, "it is another one");
        maps.keep(&key(), None);
        assert_eq!(maps.get(&key(), &shown("u", "7")), None);
    }
}
