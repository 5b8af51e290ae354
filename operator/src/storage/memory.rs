//! What is remembered of a storage between looks, so that a look asks the API server for nothing that no change speaks of.
//! Pure; lost with the process.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use walstorage_crds::walstorage::WalStorage;

use super::Key;
use super::dereference::FoundMap;

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
