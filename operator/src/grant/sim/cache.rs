//! A watch: what an actor has seen of the API server so far.

use std::collections::BTreeMap;

use walstorage_crds::walwriter::WalWriter;

use super::api::{Api, Change};
use crate::grant::call::ClaimFacts;
use crate::identity::PodFacts;

#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    seen: usize,
    pub(super) pods: BTreeMap<String, PodFacts>,
    pub(super) writers: BTreeMap<String, WalWriter>,
    pub(super) claims: BTreeMap<String, ClaimFacts>,
    /// Pods inside DELETED events, by uid.
    pub(super) last_words: BTreeMap<String, PodFacts>,
    /// The newest copy of every pod that was ever seen: what a planted bug takes for its last words.
    pub(super) newest: BTreeMap<String, PodFacts>,
}

impl Cache {
    /// A list, as after a restart or a broken watch: deletions meanwhile are not seen as such.
    pub(super) fn relist(&mut self, api: &Api) {
        self.seen = api.log.len();
        self.pods.clone_from(&api.pods);
        self.writers.clone_from(&api.writers);
        self.claims.clone_from(&api.claims);
    }

    /// Sees up to so many more changes.
    pub(super) fn advance(&mut self, api: &Api, changes: usize) {
        for change in api.log.iter().skip(self.seen).take(changes) {
            self.seen += 1;
            match change.clone() {
                Change::Pod(pod) => {
                    self.newest.insert(pod.uid.clone(), pod.clone());
                    self.pods.insert(pod.name.clone(), pod);
                }
                Change::PodGone(pod) => {
                    self.pods.remove(&pod.name);
                    self.newest.insert(pod.uid.clone(), pod.clone());
                    self.last_words.insert(pod.uid.clone(), pod);
                }
                Change::Writer(name, Some(writer)) => {
                    self.writers.insert(name, *writer);
                }
                Change::Writer(name, None) => {
                    self.writers.remove(&name);
                }
                Change::Claim(name, Some(claim)) => {
                    self.claims.insert(name, claim);
                }
                Change::Claim(name, None) => {
                    self.claims.remove(&name);
                }
            }
        }
    }
}
