//! How soon a storage is looked at because of a change. Pure.
//!
//! 1. What its user wrote is seen to at once.
//! 2. Everything else only shows in its status. Pods, writers and claims change in small steps, thousands while a cluster
//!    starts, and each look reads and writes: the first change is shown soon, those on its heels together.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use walstorage_crds::walstorage::WalStorage;

use super::Key;

/// How long the first change waits for those that come with it.
pub(super) const GATHER: Duration = Duration::from_millis(500);
/// Least time between two such looks at a storage.
const LEAST: Duration = Duration::from_secs(2);

/// Storages that are forgotten together.
const ROOM: usize = 1024;

/// The looks that were asked for last. Times are of one monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: HashMap<Key, Duration>,
    room: usize,
    /// Of each storage what changes with all but its status.
    written: HashMap<Key, ObjectMeta>,
}

impl Pace {
    /// How long the look may wait that a change of something of the storage asks for; nothing when one is to come that
    /// shows the change as well.
    pub(super) fn shows(&mut self, now: Duration, key: &Key) -> Option<Duration> {
        let due = match self.due.get(key) {
            Some(due) if *due > now => return None,
            Some(due) => (now + GATHER).max(*due + LEAST),
            None => now + GATHER,
        };
        if self.due.len() >= self.room {
            self.due.retain(|_, due| *due + LEAST > now);
            self.room = ROOM.max(self.due.len() * 2);
        }
        self.due.insert(key.clone(), due);
        Some(due - now)
    }

    /// The same for a change of the storage itself, as it is now. Most are its status, which the last look has written.
    pub(super) fn changed(&mut self, now: Duration, key: &Key, storage: Option<&WalStorage>) -> Option<Duration> {
        let written = storage.map(|storage| ObjectMeta { resource_version: None, ..storage.metadata.clone() });
        if written.is_some() && written.as_ref() == self.written.get(key) {
            return self.shows(now, key);
        }
        match written {
            Some(written) => self.written.insert(key.clone(), written),
            None => self.written.remove(key),
        };
        Some(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn key(name: &str) -> Key {
        ("shop".to_owned(), name.to_owned())
    }

    #[test]
    fn the_first_change_is_shown_soon_and_those_on_its_heels_together() {
        let (mut pace, orders) = (Pace::default(), key("orders"));
        assert_eq!(pace.shows(at(0), &orders), Some(at(500)));
        assert_eq!(pace.shows(at(1), &orders), None);
        assert_eq!(pace.shows(at(1), &key("other")), Some(at(500)), "each has a pace of its own");
        assert_eq!(pace.shows(at(499), &orders), None);
        // The look may have begun: what changes from now on is in the next.
        assert_eq!(pace.shows(at(500), &orders), Some(at(2000)));
        assert_eq!(pace.shows(at(2499), &orders), None);
        assert_eq!(pace.shows(at(4300), &orders), Some(at(500)));
        assert_eq!(pace.shows(at(60_000), &orders), Some(at(500)));
    }

    /// Ten pods that start within a minute, each with twelve changes.
    #[test]
    fn a_storage_whose_pods_start_is_not_looked_at_for_each_step_of_each() {
        let (mut pace, orders) = (Pace::default(), key("orders"));
        let looks = (0..120).filter(|step| pace.shows(at(step * 500), &orders).is_some()).count();
        assert!((25..=31).contains(&looks), "{looks}");
    }

    #[test]
    fn what_its_user_wrote_is_seen_to_at_once_and_its_status_is_not() {
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
        let (mut pace, orders, at_once) = (Pace::default(), key("orders"), Some(Duration::ZERO));
        assert_eq!(pace.changed(at(0), &orders, Some(&storage(1, "1", false))), at_once);
        assert_eq!(pace.changed(at(1), &orders, Some(&storage(1, "2", false))), Some(at(500)));
        assert_eq!(pace.changed(at(2), &orders, Some(&storage(1, "3", false))), None);
        assert_eq!(pace.changed(at(3), &orders, Some(&storage(2, "4", false))), at_once);
        assert_eq!(pace.changed(at(4), &orders, Some(&storage(2, "5", true))), at_once);
        assert_eq!(pace.changed(at(5), &orders, None), at_once);
        assert!(pace.written.is_empty());
    }

    #[test]
    fn little_is_kept_of_storages_that_are_at_rest() {
        let mut pace = Pace::default();
        for number in 0..20_000 {
            pace.shows(at(number * 10), &key(&number.to_string()));
        }
        assert!(pace.due.len() <= 2 * ROOM, "{}", pace.due.len());
    }
}
