//! What is on the disks, and what was acknowledged: known to nobody but the simulator.

use std::collections::{BTreeMap, BTreeSet};

/// The directory on a claim.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// The writer that it was made for; an empty disk has none.
    pub(super) writer_uid: Option<String>,
    /// Newest epoch and holder that opened it.
    pub(super) newest: Option<(i64, String)>,
    /// Entries that no application has applied.
    pub(super) entries: BTreeSet<u64>,
    /// The pod whose process has it open.
    pub(super) locked_by: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Truth {
    /// By uid of the claim.
    pub(super) disks: BTreeMap<String, Disk>,
    /// Entries that were acknowledged and not applied, by writer uid: entry and claim.
    pub(super) acknowledged: BTreeMap<String, BTreeMap<u64, String>>,
    /// How many entries were ever acknowledged.
    pub(super) count: u64,
}

impl Truth {
    pub(super) fn unapplied(&self, writer_uid: &str) -> usize {
        self.acknowledged.get(writer_uid).map_or(0, BTreeMap::len)
    }

    pub(super) fn acknowledge(&mut self, writer_uid: &str, claim: &str) {
        self.count += 1;
        let entry = self.count;
        self.disks.entry(claim.to_owned()).or_default().entries.insert(entry);
        self.acknowledged.entry(writer_uid.to_owned()).or_default().insert(entry, claim.to_owned());
    }

    /// The application has applied everything.
    pub(super) fn truncate(&mut self, writer_uid: &str) {
        for (entry, claim) in self.acknowledged.remove(writer_uid).unwrap_or_default() {
            if let Some(disk) = self.disks.get_mut(&claim) {
                disk.entries.remove(&entry);
            }
        }
    }

    /// A claim is gone, by the user's hand or with the user's leave: so are its entries.
    pub(super) fn destroy(&mut self, claim: &str) {
        self.disks.remove(claim);
        for entries in self.acknowledged.values_mut() {
            entries.retain(|_, on| on != claim);
        }
        self.acknowledged.retain(|_, entries| !entries.is_empty());
    }

    /// The entries of a writer on this claim.
    pub(super) fn on(&self, claim: &str) -> usize {
        self.acknowledged.values().flat_map(BTreeMap::values).filter(|on| *on == claim).count()
    }
}
