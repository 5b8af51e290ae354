//! What people do to a cluster: scale, delete, delete by force, delete claims, copy YAML, give things up.

use walstorage_crds::names;
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::world::World;
use crate::grant::sim::control::template;

impl World {
    /// One act, at random.
    pub(super) fn user_acts(&mut self) {
        let pods: Vec<String> = self.api.pods.keys().cloned().collect();
        let pod = self.dice.pick(&pods).cloned();
        match self.dice.below(16) {
            0..3 => self.stateful = self.dice.below(self.most + 1),
            3..6 => self.deployment = self.dice.below(self.most + 1),
            6..9 => {
                if let Some(pod) = pod {
                    self.api.delete_pod(&pod);
                }
            }
            9..11 => {
                if let Some(pod) = pod {
                    self.force_delete(&pod);
                }
            }
            11 => {
                if let Some(pod) = pod {
                    self.copy(&pod);
                }
            }
            12 => self.abandon_one(),
            13 if self.dice.one_in(3) => {
                let claims: Vec<String> = self.api.claims.keys().cloned().collect();
                if let Some(claim) = self.dice.pick(&claims).cloned() {
                    self.api.delete_claim(&claim);
                }
            }
            14 => self.accept_losses(),
            _ => self.api.quota_is_full = self.dice.one_in(3),
        }
    }

    /// The user's word that its process is dead; it may live on.
    pub(super) fn force_delete(&mut self, pod: &str) {
        self.api.remove_pod(pod);
        self.api.finish_claims();
    }

    /// A bare pod with all that stands in another one, past the webhook.
    fn copy(&mut self, pod: &str) {
        let Some(copied) = self.api.pods.get(pod).cloned() else { return };
        let name = format!("copy-{}", self.dice.below(3));
        if self.api.pods.contains_key(&name) {
            return;
        }
        let mut copy = template(&mut self.api, &name, None, false);
        copy.annotations = copied.annotations;
        copy.annotations.remove(names::ANNOTATION_GRANT);
        copy.labels = copied.labels;
        copy.gates = vec![names::GATE.to_owned()];
        copy.claims = copied.claims;
        self.api.put_pod(copy);
    }

    fn abandon_one(&mut self) {
        let left = |writer: &&WalWriter| {
            let phase = writer.status.as_ref().and_then(|status| status.phase);
            matches!(phase, Some(Phase::Orphaned | Phase::Lost))
        };
        let writers: Vec<(String, String)> = self
            .api
            .writers
            .iter()
            .filter(|(_, writer)| left(writer))
            .map(|(name, writer)| (name.clone(), writer.spec.writer_uid.clone()))
            .collect();
        if let Some((name, uid)) = self.dice.pick(&writers).cloned() {
            self.abandon(&name, &uid);
        }
    }

    /// Gives up the entries of a writer. Nobody else may give them up.
    pub(super) fn abandon(&mut self, name: &str, uid: &str) {
        // A process that lives on may acknowledge what nobody will ever read; its user was warned.
        for pod in self.nodes.zombies(&self.api) {
            if self.nodes.processes.get(&pod).is_some_and(|process| process.writer_uid == uid) {
                self.nodes.kill(&mut self.api, &pod);
            }
        }
        self.api.truth.truncate(uid);
        self.api.annotate_writer(name, names::ANNOTATION_ABANDON, uid);
    }

    /// Accepts what the ledger says is lost, by the uids that it names.
    pub(super) fn accept_losses(&mut self) {
        let lost: Vec<(String, WalWriter)> = self
            .api
            .writers
            .iter()
            .filter(|(_, writer)| writer.status.as_ref().and_then(|status| status.phase) == Some(Phase::Lost))
            .map(|(name, writer)| (name.clone(), writer.clone()))
            .collect();
        for (name, writer) in lost {
            let volumes = writer.status.into_iter().flat_map(|status| status.volumes.unwrap_or_default());
            let pairs: Vec<String> = volumes
                .filter_map(|volume| {
                    let found = self.api.claims.get(&volume.claim_name?).map(|claim| claim.uid.clone());
                    Some(format!("{}@{}", volume.name, found.or(volume.claim_uid)?))
                })
                .collect();
            self.api.annotate_writer(&name, names::ANNOTATION_ACCEPT_LOSS, &pairs.join(", "));
        }
    }
}
