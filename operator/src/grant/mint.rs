//! G1, where there is no ledger: made anew, from what the claims and pods still say of the last one.

use std::collections::BTreeSet;

use walstorage_crds::names;
use walstorage_crds::walwriter::{
    Empty, Holder, Identity, Phase, WalWriter, WalWriterSpec, WalWriterStatus, Workload, WriterVolume,
};

use super::annotation::Grant;
use super::call::ClaimFacts;
use super::candidates::{judge, judge_as_read};
use super::context::{Cx, Flow};
use super::fate::{Fate, fate};
use super::ledger::{Ledger, StatusExt as _, time};
use super::run::{About, Note, NoteReason, Outcome};
use crate::identity::{PodFacts, identity};
use crate::planted::mutant;

/// What a run that made the ledger has read for it, and need not read again.
pub(super) struct Minted {
    /// The pod that it was made for, judged; nothing where that one holds the writer already.
    pub(super) candidate: Option<PodFacts>,
}

/// The ledger of the run's writer.
pub(super) enum Made {
    /// It was there.
    Before(Box<WalWriter>),
    /// It was made.
    Now(Box<(Ledger, Minted)>),
    /// There is none, and no pod that wants one.
    Not,
}

/// Creates the WalWriter for a pod that names it, if there is one.
pub(super) async fn mint(cx: &Cx) -> Flow<Made> {
    let pods = cx.list_pods().await?;
    // A pod that was let go under a ledger that somebody deleted holds the writer still.
    let living = living(cx, &pods);
    let pod = match &living {
        Some(pod) => pod.clone(),
        None => match candidate(cx, &pods).await? {
            Some(pod) => pod,
            None => return Ok(Made::Not),
        },
    };
    let Some(workload) = workload(&pod) else { return Ok(Made::Not) };
    let claims = cx.list_claims().await?;
    let mut uids: BTreeSet<String> = claims.iter().filter_map(writer_uid).map(str::to_owned).collect();
    let grant = living.as_ref().and_then(|pod| Grant::parse(pod.annotation(names::ANNOTATION_GRANT)?));
    uids.extend(grant.as_ref().map(|grant| grant.writer_uid.clone()));
    if uids.len() > 1 {
        let message = format!(
            "the claims of writer {} speak of {} writers; keep those of one: {}",
            cx.key.writer,
            uids.len(),
            Vec::from_iter(uids).join(", ")
        );
        cx.note_pod(&pod, NoteReason::WaitingForClaim, message);
        return Err(Outcome::Settled(Some(30_000)));
    }
    let spec = WalWriterSpec {
        storage: cx.key.storage.clone(),
        writer: cx.key.writer.clone(),
        writer_uid: uids.pop_first().unwrap_or_else(|| cx.view.fresh_uid.clone()),
        identity: identity(&pod),
        workload,
    };
    let pooled = spec.identity == Identity::Pooled;
    let about = About::Workload(spec.workload.clone());
    let Some(writer) = cx.create_writer(spec).await? else {
        // It was made by somebody else a moment ago, or long ago, and no cache knew.
        return cx.get_writer().await?.map(|writer| Made::Before(Box::new(writer))).ok_or(Outcome::Again);
    };
    let mut ledger = Ledger::new(cx, writer);
    if pooled && claims.is_empty() && cx.view.others_hold_data > 0 {
        let message = format!(
            "pod {} starts with an empty log, while {} writers have entries and cannot be taken over now: \
             kubectl get walwriters says which",
            pod.name, cx.view.others_hold_data
        );
        cx.seam.note(Note { about, reason: NoteReason::FreshWriterWhileOthersHoldData, message });
    }
    let found = recall(cx, &ledger, &claims);
    if let Some(mut status) = adopt(cx, living.as_ref(), grant.as_ref(), found) {
        status.volumes = status.volumes.filter(|volumes| !volumes.is_empty());
        ledger.swap(cx, status).await?;
    }
    let candidate = if living.is_none() { Some(pod) } else { None };
    Ok(Made::Now(Box::new((ledger, Minted { candidate }))))
}

/// What a new ledger starts with: the pod that holds it already, and the claims of the last one, whose entries nobody
/// knows.
fn adopt(
    cx: &Cx,
    living: Option<&PodFacts>,
    grant: Option<&Grant>,
    volumes: Vec<WriterVolume>,
) -> Option<WalWriterStatus> {
    let now = cx.view.now;
    let mut status = WalWriterStatus { volumes: Some(volumes), ..WalWriterStatus::default() };
    match (living, grant) {
        (Some(pod), grant) => {
            status.epoch = grant.map(|grant| grant.epoch);
            status.holder = Some(Holder {
                pod_name: pod.name.clone(),
                pod_uid: pod.uid.clone(),
                node_name: Some(pod.node_name.clone()).filter(|node| !node.is_empty()),
                granted_at: Some(time(now)),
            });
            status.previous = Some(Phase::Released);
            status.enter(Phase::Pending, now);
            Some(status)
        }
        (None, _) if status.volumes.iter().flatten().next().is_some() => {
            status.enter(Phase::Released, now);
            Some(status)
        }
        (None, _) => None,
    }
}

/// The volumes that claims speak of. One without a URL is met again when the storage asks for it.
pub(super) fn recall(cx: &Cx, ledger: &Ledger, claims: &[ClaimFacts]) -> Vec<WriterVolume> {
    let ours = claims.iter().filter(|claim| writer_uid(claim) == Some(&ledger.spec().writer_uid) && !claim.deleting);
    ours.filter_map(|claim| {
        let name = claim.labels.get(names::LABEL_URL)?;
        let written = claim.annotations.get(names::ANNOTATION_URL).cloned();
        let url = written.or_else(|| Some(cx.urls().find(|url| url.name == *name)?.url.to_string()))?;
        Some(WriterVolume {
            name: name.clone(),
            url,
            claim_name: Some(claim.name.clone()),
            claim_uid: Some(claim.uid.clone()),
            size: Some(claim.size.clone()).filter(|size| !size.is_empty()),
            initialized: is_initialized(claim, &ledger.uid()).then_some(true),
            empty: Some(Empty::Unknown),
            ..WriterVolume::default()
        })
    })
    .collect()
}

/// The writer that a claim is annotated with.
pub(super) fn writer_uid(claim: &ClaimFacts) -> Option<&str> {
    claim.annotations.get(names::ANNOTATION_WRITER_UID).map(String::as_str)
}

/// Whether the directory on it was made, as far as a ledger of this uid knows from the claim alone. Its mark names the ledger
/// that it was given to, which says itself what became of it; to any other ledger it was made as soon as it could be.
pub(super) fn is_initialized(claim: &ClaimFacts, ledger: &str) -> bool {
    match claim.annotations.get(names::ANNOTATION_INITIALIZED).map(String::as_str) {
        None => false,
        Some("true") => true,
        Some(_) if mutant!(MarkIsNoWord) => false,
        Some(given_to) => given_to != ledger && claim.bound,
    }
}

/// A pod that was let go and is not gone.
fn living(cx: &Cx, pods: &[PodFacts]) -> Option<PodFacts> {
    let let_go = pods.iter().filter(|pod| !pod.is_gated() && pod.writer() == Some(&cx.key.writer));
    let_go.into_iter().find_map(|pod| match fate(&pod.uid, Some(pod.clone())) {
        Fate::Gone(_) => None,
        Fate::Ending(pod) | Fate::Live(pod) => Some(pod),
    })
}

/// The first gated pod that may have the writer. `pods` were listed a moment ago; one without our label is none of them.
async fn candidate(cx: &Cx, pods: &[PodFacts]) -> Flow<Option<PodFacts>> {
    for seen in cx.view.pods.iter().filter(|pod| pod.is_gated() && !pod.is_ending()) {
        let judged = match pods.iter().find(|pod| pod.uid == seen.uid) {
            Some(pod) => judge_as_read(cx, seen, pod.clone()).await?,
            None => judge(cx, seen).await?,
        };
        if judged.is_some() {
            return Ok(judged);
        }
    }
    Ok(None)
}

/// The workload that stands in a pod.
pub(super) fn workload(pod: &PodFacts) -> Option<Workload> {
    let mut parts = pod.annotation(names::ANNOTATION_WORKLOAD)?.splitn(3, '/');
    let (group, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let group = if group == "core" { "" } else { group };
    Some(Workload { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned() })
}
