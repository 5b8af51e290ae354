//! The API server: objects, versions, preconditions, and the invariants that each write is held to.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use walstorage_crds::names;
use walstorage_crds::walstorage::WhenDeleted;
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::truth::Truth;
use crate::grant::annotation::Grant;
use crate::grant::call::{Answer, Call, ClaimFacts, Failure, NewClaim};
use crate::grant::fate::{Fate, fate};
use crate::grant::run::Key;
use crate::grant::view::StorageView;
use crate::identity::{PodFacts, kept};

/// What a watch tells.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Pod(PodFacts),
    /// With the pod as it was last.
    PodGone(PodFacts),
    Writer(String, Option<Box<WalWriter>>),
    Claim(String, Option<ClaimFacts>),
}

#[derive(Debug, Default)]
pub(super) struct Api {
    pub(super) now: i64,
    version: u64,
    uids: u64,
    pub(super) pods: BTreeMap<String, PodFacts>,
    pub(super) writers: BTreeMap<String, WalWriter>,
    pub(super) claims: BTreeMap<String, ClaimFacts>,
    pub(super) log: Vec<Change>,
    pub(super) storage: Option<StorageView>,
    pub(super) namespace_ends: bool,
    /// No claim more than there are.
    pub(super) quota_is_full: bool,
    /// The class of the claims does not let them grow.
    pub(super) class_is_rigid: bool,
    pub(super) truth: Truth,
    /// Newest epoch of each writer uid, ever.
    epochs: BTreeMap<String, i64>,
    /// How many pods were let go.
    pub(super) granted: usize,
    /// How many pods the operator deleted.
    pub(super) losers: usize,
    /// Uids of pods that were let go.
    pub(super) let_go: BTreeSet<String>,
}

impl Api {
    pub(super) fn uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-0000-0000-{:012}", self.uids)
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// Stores a pod as it is now.
    pub(super) fn put_pod(&mut self, mut pod: PodFacts) {
        pod.resource_version = self.next_version();
        self.pods.insert(pod.name.clone(), pod.clone());
        self.log.push(Change::Pod(pod));
    }

    /// Changes a pod, if it is there.
    pub(super) fn edit_pod(&mut self, name: &str, edit: impl FnOnce(&mut PodFacts)) {
        if let Some(mut pod) = self.pods.get(name).cloned() {
            edit(&mut pod);
            self.put_pod(pod);
        }
    }

    pub(super) fn remove_pod(&mut self, name: &str) {
        if let Some(pod) = self.pods.remove(name) {
            self.log.push(Change::PodGone(pod));
        }
    }

    /// A graceful deletion: at once where no node has the pod.
    pub(super) fn delete_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.get(name) else { return };
        if pod.node_name.is_empty() {
            self.remove_pod(name);
        } else if pod.deletion.is_none() {
            let deletion = self.now + 30_000;
            self.edit_pod(name, |pod| pod.deletion = Some(deletion));
        }
    }

    pub(super) fn put_writer(&mut self, name: &str, mut writer: WalWriter) -> WalWriter {
        writer.metadata.resource_version = Some(self.next_version());
        self.writers.insert(name.to_owned(), writer.clone());
        self.log.push(Change::Writer(name.to_owned(), Some(Box::new(writer.clone()))));
        writer
    }

    pub(super) fn annotate_writer(&mut self, name: &str, key: &str, value: &str) {
        if let Some(mut writer) = self.writers.get(name).cloned() {
            writer.metadata.annotations.get_or_insert_default().insert(key.to_owned(), value.to_owned());
            self.put_writer(name, writer);
        }
    }

    pub(super) fn put_claim(&mut self, mut claim: ClaimFacts) -> ClaimFacts {
        claim.resource_version = self.next_version();
        self.claims.insert(claim.name.clone(), claim.clone());
        self.log.push(Change::Claim(claim.name.clone(), Some(claim.clone())));
        claim
    }

    /// It gets a volume.
    pub(super) fn bind_claim(&mut self, name: &str) {
        if let Some(claim) = self.claims.get(name).filter(|claim| !claim.bound).cloned() {
            self.put_claim(ClaimFacts { bound: true, ..claim });
        }
    }

    /// Marked as being deleted; goes when no scheduled pod mounts it.
    pub(super) fn delete_claim(&mut self, name: &str) {
        if let Some(mut claim) = self.claims.get(name).cloned() {
            claim.deleting = true;
            self.put_claim(claim);
            self.finish_claims();
        }
    }

    /// What protects claims that are mounted lets go of those that are not any more.
    pub(super) fn finish_claims(&mut self) {
        let going: Vec<String> = self.claims.values().filter(|claim| claim.deleting).map(|c| c.name.clone()).collect();
        for name in going {
            let mounted = self.pods.values().any(|pod| {
                !pod.node_name.is_empty() && !pod.has_ended() && pod.claims.iter().any(|(_, claim)| *claim == name)
            });
            if !mounted && let Some(claim) = self.claims.remove(&name) {
                self.truth.destroy(&claim.uid);
                self.log.push(Change::Claim(name, None));
            }
        }
    }

    /// Carries out a call of the protocol. Panics where it breaks an invariant.
    pub(super) fn call(&mut self, key: &Key, call: &Call) -> Answer {
        let name = key.name();
        match call {
            Call::GetWriter => Answer::Writer(self.writers.get(&name).cloned().map(Box::new)),
            Call::GetPod { name } => Answer::Pod(self.pods.get(name).cloned().map(Box::new)),
            Call::GetClaim { name } => Answer::Claim(self.claims.get(name).cloned().map(Box::new)),
            Call::ListClaims => Answer::Claims(self.labelled(key, self.claims.values(), |claim| &claim.labels)),
            Call::ListPods => Answer::Pods(self.labelled(key, self.pods.values(), |pod| &pod.labels)),
            Call::CreateWriter(_) | Call::CreateClaim(_) if self.namespace_ends => {
                Answer::Failed(Failure::NamespaceEnds)
            }
            Call::CreateWriter(spec) => {
                if self.writers.contains_key(&name) {
                    return Answer::Failed(Failure::Exists);
                }
                let mut writer = WalWriter::new(&name, (**spec).clone());
                writer.metadata.uid = Some(self.uid());
                writer.metadata.creation_timestamp =
                    Some(Time(Timestamp::from_millisecond(self.now).unwrap_or_default()));
                Answer::Writer(Some(Box::new(self.put_writer(&name, writer))))
            }
            Call::SwapStatus { resource_version, status } => {
                let Some(before) = self.writers.get(&name).cloned() else {
                    return Answer::Failed(Failure::NotFound);
                };
                if !same_version(resource_version, before.metadata.resource_version.as_deref()) {
                    return Answer::Failed(Failure::Conflict);
                }
                let mut after = before.clone();
                after.status = Some((**status).clone());
                self.check_swap(&before, &after);
                Answer::Writer(Some(Box::new(self.put_writer(&name, after))))
            }
            Call::DropAnnotation { resource_version, name: annotation } => {
                let Some(mut writer) = self.writers.get(&name).cloned() else {
                    return Answer::Failed(Failure::NotFound);
                };
                if !same_version(resource_version, writer.metadata.resource_version.as_deref()) {
                    return Answer::Failed(Failure::Conflict);
                }
                writer.metadata.annotations.get_or_insert_default().remove(*annotation);
                Answer::Writer(Some(Box::new(self.put_writer(&name, writer))))
            }
            Call::DeleteWriter { uid, resource_version } => {
                let Some(writer) = self.writers.get(&name) else { return Answer::Failed(Failure::NotFound) };
                let same = same_version(resource_version, writer.metadata.resource_version.as_deref());
                if !same || writer.metadata.uid.as_ref() != Some(uid) {
                    return Answer::Failed(Failure::Conflict);
                }
                let held = writer.status.as_ref().is_some_and(|status| status.holder.is_some());
                assert!(!held, "I9: the ledger of {name} is deleted under its holder");
                self.remove_writer(&name);
                Answer::Done
            }
            Call::CreateClaim(claim) => self.create_claim(claim),
            Call::MarkClaim { name, uid, labels, annotations } => {
                let Some(mut claim) = self.claims.get(name).cloned() else {
                    return Answer::Failed(Failure::NotFound);
                };
                if claim.uid != *uid {
                    return Answer::Failed(Failure::Conflict);
                }
                claim.labels.extend(labels.clone());
                claim.annotations.extend(annotations.clone());
                Answer::Claim(Some(Box::new(self.put_claim(claim))))
            }
            Call::GrowClaim { name, uid, size } => {
                let Some(mut claim) = self.claims.get(name).cloned() else {
                    return Answer::Failed(Failure::NotFound);
                };
                if claim.uid != *uid {
                    return Answer::Failed(Failure::Conflict);
                }
                if self.class_is_rigid {
                    return Answer::Failed(Failure::Refused("the class does not allow it".to_owned()));
                }
                claim.size.clone_from(size);
                self.put_claim(claim);
                Answer::Done
            }
            Call::DeleteClaim { name: claim, uid, resource_version } => {
                let Some(found) = self.claims.get(claim) else { return Answer::Failed(Failure::NotFound) };
                if found.uid != *uid || found.resource_version != *resource_version {
                    return Answer::Failed(Failure::Conflict);
                }
                self.check_claim_deletion(&name, claim, &uid.clone());
                self.delete_claim(claim);
                Answer::Done
            }
            Call::PatchPod { name: pod, uid, resource_version, grant, ungate } => {
                let Some(found) = self.pods.get(pod) else { return Answer::Failed(Failure::NotFound) };
                if !is_this(found, uid, resource_version) {
                    return Answer::Failed(Failure::Conflict);
                }
                if *ungate {
                    self.check_ungate(&name, &found.clone(), grant);
                    self.granted += 1;
                    self.let_go.insert(self.pods[pod].uid.clone());
                }
                self.edit_pod(pod, |pod| {
                    pod.annotations.insert(names::ANNOTATION_GRANT.to_owned(), grant.clone());
                    if *ungate {
                        pod.gates.retain(|gate| gate != names::GATE);
                    }
                });
                Answer::Done
            }
            Call::DeletePod { name: pod, uid, resource_version } => {
                let Some(found) = self.pods.get(pod) else { return Answer::Failed(Failure::NotFound) };
                if !is_this(found, uid, resource_version) {
                    return Answer::Failed(Failure::Conflict);
                }
                assert!(
                    found.is_gated() || found.node_name.is_empty(),
                    "I4: the operator deletes pod {pod}, which was scheduled"
                );
                self.losers += 1;
                self.delete_pod(pod);
                Answer::Done
            }
        }
    }

    fn labelled<'a, T: Clone + 'a>(
        &self,
        key: &Key,
        all: impl Iterator<Item = &'a T>,
        labels: impl Fn(&T) -> &BTreeMap<String, String>,
    ) -> Vec<T> {
        let has = |one: &T, label: &str, value: &str| labels(one).get(label).is_some_and(|found| found == value);
        all.filter(|one| has(one, names::LABEL_STORAGE, &key.storage) && has(one, names::LABEL_WRITER, &key.writer))
            .cloned()
            .collect()
    }

    fn create_claim(&mut self, claim: &NewClaim) -> Answer {
        // Admission comes before anybody looks whether it is there.
        if self.quota_is_full {
            return Answer::Failed(Failure::Quota("exceeded quota: claims".to_owned()));
        }
        if self.claims.contains_key(&claim.name) {
            return Answer::Failed(Failure::Exists);
        }
        let claim = ClaimFacts {
            name: claim.name.clone(),
            uid: self.uid(),
            labels: claim.labels.clone(),
            annotations: claim.annotations.clone(),
            size: claim.size.clone(),
            ..ClaimFacts::default()
        };
        Answer::Claim(Some(Box::new(self.put_claim(claim))))
    }

    pub(super) fn remove_writer(&mut self, name: &str) {
        if let Some(writer) = self.writers.remove(name) {
            self.log.push(Change::Writer(name.to_owned(), None));
            drop(writer);
        }
    }

    /// I6, and that Drained is true.
    fn check_swap(&mut self, before: &WalWriter, after: &WalWriter) {
        let (old, new) = (before.status.clone().unwrap_or_default(), after.status.clone().unwrap_or_default());
        let uid = &after.spec.writer_uid;
        let of = |holder: &Option<walstorage_crds::walwriter::Holder>| holder.as_ref().map(|h| h.pod_uid.clone());
        assert!(new.epoch >= old.epoch, "I6: the epoch falls from {:?} to {:?}", old.epoch, new.epoch);
        if let Some(holder) = of(&new.holder)
            && of(&old.holder) != Some(holder)
        {
            let newest = self.epochs.get(uid).copied().unwrap_or_default();
            let known = self
                .pods
                .values()
                .any(|pod| Some(&pod.uid) == new.holder.as_ref().map(|h| &h.pod_uid) && !pod.is_gated());
            let epoch = new.epoch.unwrap_or_default();
            assert!(epoch > newest || known, "I6: epoch {epoch} is granted after {newest}");
            self.epochs.insert(uid.clone(), epoch.max(newest));
        }
        if new.phase == Some(Phase::Drained) && old.phase != new.phase {
            let left = self.truth.unapplied(uid);
            assert_eq!(left, 0, "stranded: {} is called Drained with {left} entries", after.spec.writer);
        }
    }

    /// I2, and that nobody else's work is believed.
    fn check_ungate(&self, writer: &str, pod: &PodFacts, grant: &str) {
        let status = self.writers.get(writer).and_then(|writer| writer.status.clone()).unwrap_or_default();
        let holder = status.holder.map(|holder| holder.pod_uid);
        assert_eq!(holder.as_ref(), Some(&pod.uid), "I2: pod {} is let go and does not hold {writer}", pod.name);
        let granted = Grant::parse(grant).map(|grant| grant.epoch);
        assert_eq!(granted, status.epoch, "I2: pod {} is let go with another epoch", pod.name);
        assert!(kept(pod).is_some(), "I2: pod {} is let go with another pod's seal", pod.name);
    }

    /// I5, and that nothing that somebody wants goes.
    fn check_claim_deletion(&self, writer: &str, claim: &str, uid: &str) {
        let ledger = self.writers.get(writer);
        let phase = ledger.and_then(|ledger| ledger.status.as_ref()?.phase);
        assert_eq!(phase, Some(Phase::Reclaiming), "I5: claim {claim} is deleted while {writer} is {phase:?}");
        let live = self.pods.values().any(|pod| {
            !pod.is_gated()
                && !matches!(fate(&pod.uid, Some(pod.clone())), Fate::Gone(_))
                && pod.claims.iter().any(|(_, name)| name == claim)
        });
        assert!(!live, "I5: claim {claim} is deleted under a pod");
        let policy = self.storage.as_ref().filter(|storage| storage.deleting).map(|storage| storage.when_deleted);
        let left = self.truth.on(uid);
        assert!(left == 0 || policy == Some(WhenDeleted::Delete), "stranded: claim {claim} goes with {left} entries");
    }

    /// I1 and I9, and that no acknowledged entry is without a ledger.
    pub(super) fn check(&self) {
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        for writer in self.writers.values() {
            if let Some(holder) = writer.status.as_ref().and_then(|status| status.holder.as_ref()) {
                *holders.entry(&holder.pod_uid).or_default() += 1;
            }
        }
        let mut live: BTreeMap<&str, &str> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| !pod.is_gated()) {
            if matches!(fate(&pod.uid, Some(pod.clone())), Fate::Gone(_)) {
                continue;
            }
            let writer = pod.annotation(names::ANNOTATION_WRITER).unwrap_or_default();
            let other = live.insert(writer, &pod.name);
            assert_eq!(other, None, "I1: {writer} has two pods that may run, the other is {}", pod.name);
            let held = holders.get(pod.uid.as_str()).copied().unwrap_or_default();
            assert_eq!(held, 1, "I9: pod {} is held by {held} writers", pod.name);
        }
        if self.namespace_ends {
            return;
        }
        for (uid, entries) in &self.truth.acknowledged {
            let known = self.writers.values().any(|writer| writer.spec.writer_uid == *uid);
            let policy = self.storage.as_ref().is_none_or(|storage| storage.deleting);
            assert!(known || policy, "stranded: {} entries of writer {uid} have no ledger", entries.len());
        }
    }
}

/// An absent precondition holds always.
fn same_version(asked: &str, found: Option<&str>) -> bool {
    asked.is_empty() || Some(asked) == found
}

fn is_this(pod: &PodFacts, uid: &str, version: &str) -> bool {
    (uid.is_empty() || pod.uid == uid) && (version.is_empty() || pod.resource_version == version)
}
