//! What a run tells: Events, and counts.

use k8s_openapi::api::core::v1::ObjectReference;
use walstorage_crds::names;

use super::apply::Calls;
use super::{Memory, Shared};
use crate::grant::{About, Key, Note, NoteReason};
use crate::process::events;
use crate::process::metrics::OfResult;

pub(super) async fn notes(shared: &Shared, key: &Key, calls: &Calls, notes: Vec<Note>) {
    for note in notes {
        count(shared, key, calls, &note);
        if !is_told(&mut shared.memory.lock(), &note) {
            continue;
        }
        let object = regarding(shared, key, calls, &note.about).await;
        let (reason, action) = (note.reason.as_str(), action(note.reason));
        let event = if note.reason.is_warning() {
            events::Note::warning(reason, action, note.message)
        } else {
            events::Note::normal(reason, action, note.message)
        };
        shared.context.events.publish(object, event);
    }
}

/// Whether an Event says it. That a pod was granted, its annotation says, and its writer's ledger: an Event does only to one that
/// was told before that it waits.
fn is_told(memory: &mut Memory, note: &Note) -> bool {
    let About::Pod { uid, .. } = &note.about else { return true };
    if note.reason == NoteReason::Granted {
        return memory.waiting.has(uid);
    }
    memory.waiting.add(uid.clone());
    true
}

fn count(shared: &Shared, key: &Key, calls: &Calls, note: &Note) {
    let metrics = &shared.context.metrics;
    let result = |result| metrics.grants.get_or_create(&OfResult { result }).inc();
    let workload = match &note.about {
        About::Pod { name, .. } => calls.workloads.get(name).map(String::as_str).unwrap_or_default(),
        About::Writer | About::Storage | About::Workload(_) => "",
    };
    let workload = format!("{}/{workload}", key.namespace);
    match note.reason {
        NoteReason::Granted => {
            result("granted");
            shared.memory.lock().delays.granted(&workload);
        }
        NoteReason::LostWriterRace => {
            result("lost");
            shared.memory.lock().delays.lost(&workload);
        }
        NoteReason::SealMismatch | NoteReason::WriterBelongsToAnother => {
            result("refused");
        }
        NoteReason::Abandoned => {
            metrics.abandoned_writers.inc();
        }
        NoteReason::WaitingForWriter
        | NoteReason::WaitingForClaim
        | NoteReason::WaitingForStorage
        | NoteReason::Released
        | NoteReason::Orphaned
        | NoteReason::Lost
        | NoteReason::LossAccepted
        | NoteReason::Reclaimed
        | NoteReason::Stuck
        | NoteReason::Unplaceable
        | NoteReason::ClaimGrown
        | NoteReason::FreshWriterWhileOthersHoldData => {}
    }
}

/// What an Event is about. Its uid as well: `kubectl describe` shows the events of this uid only.
async fn regarding(shared: &Shared, key: &Key, calls: &Calls, about: &About) -> ObjectReference {
    let (api_version, kind, name, uid) = match about {
        About::Pod { name, uid } => ("v1".to_owned(), "Pod".to_owned(), name.clone(), Some(uid.clone())),
        About::Writer => {
            let uid = calls.writer.as_ref().and_then(|writer| writer.metadata.uid.clone());
            (names::API_VERSION.to_owned(), "WalWriter".to_owned(), key.name(), uid)
        }
        About::Storage => {
            let storage = shared.caches.storage(&key.namespace, &key.storage);
            let uid = storage.and_then(|storage| storage.metadata.uid.clone());
            (names::API_VERSION.to_owned(), "WalStorage".to_owned(), key.storage.clone(), uid)
        }
        About::Workload(workload) => {
            let version = if workload.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", workload.group) };
            let uid = calls.uid_of(workload).await;
            (version, workload.kind.clone(), workload.name.clone(), uid)
        }
    };
    ObjectReference {
        api_version: Some(api_version),
        kind: Some(kind),
        namespace: Some(key.namespace.clone()),
        name: Some(name),
        uid,
        ..ObjectReference::default()
    }
}

/// What was done or tried.
fn action(reason: NoteReason) -> &'static str {
    match reason {
        NoteReason::Granted => "Grant",
        NoteReason::WaitingForWriter | NoteReason::WaitingForClaim | NoteReason::WaitingForStorage => "Wait",
        NoteReason::LostWriterRace => "Delete",
        NoteReason::WriterBelongsToAnother | NoteReason::SealMismatch => "Refuse",
        NoteReason::FreshWriterWhileOthersHoldData => "Create",
        NoteReason::Released | NoteReason::Orphaned | NoteReason::Stuck | NoteReason::Unplaceable => "Watch",
        NoteReason::Lost | NoteReason::LossAccepted => "JudgeClaims",
        NoteReason::Abandoned | NoteReason::Reclaimed => "Reclaim",
        NoteReason::ClaimGrown => "Grow",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pod_that_was_told_to_wait_is_told_that_it_is_granted() {
        let note = |about: About, reason| Note { about, reason, message: String::new() };
        let pod = |uid: &str| About::Pod { name: "orders-0".into(), uid: uid.into() };
        let mut memory = Memory::default();
        assert!(!is_told(&mut memory, &note(pod("u"), NoteReason::Granted)));
        assert!(is_told(&mut memory, &note(pod("u"), NoteReason::WaitingForClaim)));
        assert!(!is_told(&mut memory, &note(pod("another"), NoteReason::Granted)));
        assert!(is_told(&mut memory, &note(pod("u"), NoteReason::Granted)));
        assert!(is_told(&mut memory, &note(About::Writer, NoteReason::Released)));
    }
}
