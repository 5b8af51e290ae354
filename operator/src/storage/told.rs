//! Events about directories: said when one gets another state, of the storage and of the pod whose directory it is. Pure.
//!
//! What was said is kept in memory: a new leader says once more what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;

use super::conditions::Said;
use super::dereference::Found;
use super::directories::Unhealthy;
use crate::process::events::Note;

/// Pods that are told of in one look; the condition names all.
const PODS: usize = 16;

/// A directory of a pod: the pod's uid, and what the directory is called.
type Place = (String, String);

/// What was said last: the state of each directory that was not well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told(BTreeMap<Place, String>);

impl Told {
    /// Whether there is anything to remember.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// States of directories, whosever they are.
    fn states(&self) -> BTreeSet<(&str, &str)> {
        self.0.iter().map(|((_, what), state)| (what.as_str(), state.as_str())).collect()
    }

    /// What there is to say now, and about which object; and what is remembered of it.
    pub(super) fn next(
        &self,
        found: &Found,
        unhealthy: &[Unhealthy],
        said: &Said,
    ) -> (Self, Vec<(ObjectReference, Note)>) {
        let place = |one: &Unhealthy| {
            let uid = one.pod.as_ref().map(|(_, uid)| uid.clone()).unwrap_or_default();
            (uid, one.what.clone())
        };
        let next = Self(unhealthy.iter().map(|one| (place(one), one.state.clone())).collect());
        let mut notes = Vec::new();
        if next.is_empty() && !self.is_empty() {
            let text = "the directories that were not are well again, or their pods are gone";
            notes.push((found.storage.object_ref(&()), Note::normal("DirectoryHealthy", "Watch", text)));
        } else if !next.states().is_subset(&self.states()) {
            let note = Note::warning("DirectoryUnhealthy", "Watch", said.message.clone());
            notes.push((found.storage.object_ref(&()), note));
        }
        let of_pods = unhealthy.iter().filter(|one| self.0.get(&place(one)) != Some(&one.state)).take(PODS);
        notes.extend(of_pods.filter_map(|one| {
            let (name, uid) = one.pod.clone()?;
            let pod = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: found.storage.metadata.namespace.clone(),
                name: Some(name),
                uid: Some(uid),
                ..ObjectReference::default()
            };
            Some((pod, Note::warning("DirectoryUnhealthy", "Watch", one.sentence())))
        }));
        (next, notes)
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::storage::tests::found;

    fn bad(pod: &str, what: &str, state: &str) -> Unhealthy {
        Unhealthy {
            pod: Some((pod.to_owned(), format!("uid of {pod}"))),
            writer: pod.to_owned(),
            what: what.to_owned(),
            state: state.to_owned(),
            because: ": why".to_owned(),
        }
    }

    #[test]
    fn each_state_is_said_once_of_the_storage_and_of_each_pod() {
        let found = found(serde_json::json!({}));
        let said = Said::no("MissingBucket", "all of it");
        let mut told = Told::default();
        let mut look = |unhealthy: &[Unhealthy]| {
            let (next, notes) = told.next(&found, unhealthy, &said);
            told = next;
            let shown = |(object, note): (ObjectReference, Note)| {
                format!("{} {} {}", object.kind.unwrap(), note.reason, note.text)
            };
            notes.into_iter().map(shown).collect::<Vec<_>>()
        };
        let of_pod = |pod: &str, what: &str, state: &str| {
            format!("Pod DirectoryUnhealthy {what} of writer {pod} is {state}: why")
        };
        let of_storage = "WalStorage DirectoryUnhealthy all of it".to_owned();
        let (one, two) = (bad("p", "b", "missing_bucket"), bad("q", "b", "missing_bucket"));
        assert_eq!(look(&[]), Vec::<String>::new());
        assert_eq!(look(from_ref(&one)), [of_storage.clone(), of_pod("p", "b", "missing_bucket")]);
        assert_eq!(look(from_ref(&one)), Vec::<String>::new());
        // The same of another pod is nothing new about the storage.
        assert_eq!(look(&[one.clone(), two.clone()]), [of_pod("q", "b", "missing_bucket")]);
        assert_eq!(look(from_ref(&two)), Vec::<String>::new());
        assert_eq!(look(&[bad("q", "b", "denied_write")]), [of_storage, of_pod("q", "b", "denied_write")]);
        let well = "WalStorage DirectoryHealthy the directories that were not are well again, or their pods are gone";
        assert_eq!(look(&[]), [well]);
    }

    #[test]
    fn many_pods_at_once_are_no_storm_of_events() {
        let many: Vec<Unhealthy> = (0..99).map(|pod| bad(&format!("p{pod}"), "b", "no_answer")).collect();
        let (told, notes) = Told::default().next(&found(serde_json::json!({})), &many, &Said::no("NoAnswer", ""));
        assert_eq!((told.0.len(), notes.len()), (99, 1 + PODS));
    }
}
