//! What running sidecars say of their directories at the admin port: for display, nothing is decided by it.
//!
//! `ask` asks one sidecar, `report` is what it said and whether that is worth telling, `poll` asks all of them over and over.
//!
//! 1. What a sidecar says changes a status only: grants, claims and configuration rest on termination messages.
//! 2. Only who shows the ledger's `writerUid` is believed: another process may have the address by now.
//! 3. Time, size and number of questions are bounded; a sidecar that does not answer is asked less and less often.
//! 4. An answer that says what the last one said writes nothing and wakes nobody.

mod ask;
mod poll;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;

pub(crate) use self::poll::{Asking, run};
pub use self::report::{Directory, HEALTHY, Observation, has_moved};

/// A writer: its namespace, and the name of its WalWriter.
pub(crate) type Key = (String, String);

/// The newest answer of every sidecar that is asked. Cloned freely.
#[derive(Clone, Debug, Default)]
pub struct Observations(Arc<RwLock<HashMap<Key, Observation>>>);

impl Observations {
    /// The answers of these writers, by name of the WalWriter.
    #[must_use]
    pub fn of<'n>(&self, namespace: &str, writers: impl Iterator<Item = &'n str>) -> BTreeMap<String, Observation> {
        let known = self.0.read();
        let found = writers.filter_map(|writer| {
            let observation = known.get(&(namespace.to_owned(), writer.to_owned()))?;
            Some((writer.to_owned(), observation.clone()))
        });
        found.collect()
    }

    fn get(&self, key: &Key) -> Option<Observation> {
        self.0.read().get(key).cloned()
    }

    fn set(&self, key: &Key, observation: Observation) {
        self.0.write().insert(key.clone(), observation);
    }

    fn remove(&self, key: &Key) -> bool {
        self.0.write().remove(key).is_some()
    }
}
