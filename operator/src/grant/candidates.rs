//! G0 and G3 to G5: the pods that want the writer. One gets it; of the others the named wait and the pooled go.

use walstorage_crds::names;
use walstorage_crds::walwriter::{Holder, Identity, Phase, condition};

use super::call::Call;
use super::claims::{self, Ready};
use super::context::{Cx, Flow};
use super::holder::Held;
use super::ledger::{Ledger, StatusExt as _, time};
use super::mint::{Minted, recall, workload};
use super::protocol::Wake;
use super::run::NoteReason;
use crate::identity::{PodFacts, identity, kept};
use crate::planted::mutant;

/// Why a pod does not get the writer now.
enum No {
    /// It must wait for this.
    Wait(NoteReason, String),
    /// Another has it: a pooled pod goes, once it is old enough; a named one waits.
    Lost(NoteReason, String),
}

pub(super) async fn see_to(
    cx: &Cx,
    mut ledger: Ledger,
    minted: Option<Minted>,
    mut held: Held,
    wake: &mut Wake,
) -> Flow<()> {
    // Whoever made the ledger has looked for claims of the last one.
    let recalled = minted.is_some();
    let mut candidate = minted.and_then(|minted| minted.candidate);
    // The holder first: it may have been made one by a run that did not get further.
    let mut pods: Vec<&PodFacts> = cx.view.pods.iter().filter(|pod| pod.is_gated() && !pod.is_ending()).collect();
    let holder = ledger.holder().map(|holder| holder.pod_uid.clone());
    pods.sort_by_key(|pod| (Some(&pod.uid) != holder.as_ref(), pod.created, pod.uid.clone()));
    // A holder behind its gate that the cache does not show yet is seen to all the same.
    if let Held::By(pod) = &held
        && pod.is_gated()
        && let Some(pod) = judge(cx, pod).await?
    {
        grant(cx, &mut ledger, &pod, wake).await?;
    }
    for seen in pods {
        if Some(&seen.uid) == holder.as_ref() {
            continue;
        }
        // What is written rests on the version that was read, whenever that was.
        let judged = match candidate.take_if(|pod| pod.uid == seen.uid) {
            Some(pod) => Some(pod),
            None => judge(cx, seen).await?,
        };
        let Some(pod) = judged else { continue };
        match may_have(cx, &ledger, &pod, &held) {
            Ok(()) => {
                stage_holder(cx, &mut ledger, recalled, &pod).await?;
                held = Held::By(Box::new(pod.clone()));
                grant(cx, &mut ledger, &pod, wake).await?;
            }
            Err(no) => refuse(cx, &pod, no, wake).await?,
        }
    }
    Ok(())
}

/// G0, for what the pod alone shows. Reads it anew; nothing if it is not there any more, not gated, or not ours to grant.
pub(super) async fn judge(cx: &Cx, seen: &PodFacts) -> Flow<Option<PodFacts>> {
    let Some(pod) = cx.get_pod(&seen.name).await? else { return Ok(None) };
    judge_as_read(cx, seen, pod).await
}

/// The same, of a pod as the API server had it a moment ago.
pub(super) async fn judge_as_read(cx: &Cx, seen: &PodFacts, pod: PodFacts) -> Flow<Option<PodFacts>> {
    if pod.uid != seen.uid || !pod.is_gated() || pod.is_ending() {
        return Ok(None);
    }
    let sealed = kept(&pod) == Some(&cx.key.writer) && pod.storage() == Some(&cx.key.storage);
    let rendered = pod.is_rendered()
        && pod.writer() == Some(&cx.key.writer)
        && !pod.annotations.contains_key(names::ANNOTATION_SEAL);
    if sealed || rendered || mutant!(SealNotChecked) {
        return Ok(Some(pod));
    }
    cx.note_pod(&pod, NoteReason::SealMismatch, "what it says of its writer was written for another pod: delete it, and make it without the annotations of walstorage.dev");
    if identity(&pod) == Identity::Pooled {
        delete(cx, &pod).await?;
    }
    Ok(None)
}

/// G0 and G2: whether this pod may be made the holder.
fn may_have(cx: &Cx, ledger: &Ledger, pod: &PodFacts, held: &Held) -> Result<(), No> {
    let spec = ledger.spec();
    let drains = pod.annotation(names::ANNOTATION_DRAIN) == Some(spec.writer_uid.as_str());
    let same = workload(pod).as_ref() == Some(&spec.workload) && identity(pod) == spec.identity;
    if !same && !drains {
        let of = &spec.workload;
        let message = format!("writer {} is of {} {}: take another name", spec.writer, of.kind, of.name);
        return Err(No::Lost(NoteReason::WriterBelongsToAnother, message));
    }
    usable(cx).map_err(|message| No::Wait(NoteReason::WaitingForStorage, message))?;
    if mutant!(ReservationOnly) {
        return Ok(());
    }
    match held {
        Held::Free => {}
        Held::By(other) => {
            let message = format!("pod {} holds writer {}", other.name, spec.writer);
            return Err(No::Lost(NoteReason::LostWriterRace, message));
        }
        Held::Ending(until) => {
            let message = format!("the pod that holds writer {} is ending", spec.writer);
            return Err(if cx.view.now < *until {
                No::Wait(NoteReason::WaitingForWriter, message)
            } else {
                No::Lost(NoteReason::LostWriterRace, message)
            });
        }
    }
    match ledger.phase() {
        Some(phase @ (Phase::Lost | Phase::Reclaiming)) => {
            let (namespace, name) = (&cx.key.namespace, cx.key.name());
            let message = format!(
                "writer {} is {}: kubectl describe walwriter -n {namespace} {name}",
                spec.writer,
                phase.as_str()
            );
            Err(No::Lost(NoteReason::WaitingForWriter, message))
        }
        _ => Ok(()),
    }
}

/// Whether the storage can have pods now; else why not.
fn usable(cx: &Cx) -> Result<(), String> {
    let name = &cx.key.storage;
    match &cx.view.storage {
        None => Err(format!("there is no WalStorage {name} in this namespace")),
        Some(storage) if storage.deleting => Err(format!("WalStorage {name} is being deleted")),
        Some(storage) => match &storage.effective {
            Err(sentence) => Err(format!("WalStorage {name} is not accepted: {sentence}")),
            Ok(_) if !storage.config_rendered => {
                Err(format!("the configuration of WalStorage {name} is not rendered yet"))
            }
            Ok(_) => Ok(()),
        },
    }
}

async fn refuse(cx: &Cx, pod: &PodFacts, no: No, wake: &mut Wake) -> Flow<()> {
    match no {
        No::Wait(reason, message) => {
            cx.note_pod(pod, reason, message);
            Ok(())
        }
        No::Lost(reason, message) if identity(pod) == Identity::Named => {
            let reason = if reason == NoteReason::LostWriterRace { NoteReason::WaitingForWriter } else { reason };
            cx.note_pod(pod, reason, message);
            Ok(())
        }
        No::Lost(reason, message) => {
            let job = pod.controller.as_ref().is_some_and(|owner| owner.is("batch", "Job"));
            // A Job counts a deleted pod as a failed one.
            let delay = if job { cx.view.timing.handover } else { cx.view.loser_delay };
            let left = pod.created.map_or(0, |created| created + delay - cx.view.now);
            if left > 0 {
                wake.within(left);
                return Ok(());
            }
            let reason = if reason == NoteReason::WaitingForWriter { NoteReason::LostWriterRace } else { reason };
            cx.note_pod(pod, reason, message);
            delete(cx, pod).await
        }
    }
}

/// Deletes a pod that was read gated: its version proves that it still is.
async fn delete(cx: &Cx, pod: &PodFacts) -> Flow<()> {
    let (uid, resource_version) = preconditions(pod);
    cx.done(Call::DeletePod { name: pod.name.clone(), uid, resource_version }).await
}

fn preconditions(pod: &PodFacts) -> (String, String) {
    if mutant!(NoUidPrecondition) {
        return (String::new(), String::new());
    }
    (pod.uid.clone(), pod.resource_version.clone())
}

/// G3, but for the compare-and-swap: the claims are looked for first, and one write says who holds the writer and what it has.
async fn stage_holder(cx: &Cx, ledger: &mut Ledger, recalled: bool, pod: &PodFacts) -> Flow<()> {
    if mutant!(ReservationOnly) {
        return Ok(());
    }
    let now = cx.view.now;
    let mut status = ledger.status.clone();
    if status.phase.is_none() && !recalled {
        // A run that created the ledger may have ended before it wrote down what the claims said.
        let found = recall(cx, ledger, &cx.list_claims().await?);
        if !found.is_empty() {
            status.volumes = Some(found);
            status.enter(Phase::Released, now);
        }
    }
    status.previous = status.phase.filter(|phase| matches!(phase, Phase::Released | Phase::Orphaned | Phase::Drained));
    let epoch = status.epoch.unwrap_or_default();
    status.epoch = Some(if mutant!(EpochNotRaised) { epoch.max(1) } else { (epoch + 1).max(now) });
    status.holder = Some(Holder {
        pod_name: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        node_name: None,
        granted_at: Some(time(now)),
    });
    if status.is(condition::UNPLACEABLE) {
        status.set(condition::UNPLACEABLE, false, "TriedAgain", "", now);
    }
    status.enter(Phase::Pending, now);
    ledger.stage(status);
    Ok(())
}

/// G4 with what is staged of G3, and G5, for the holder.
async fn grant(cx: &Cx, ledger: &mut Ledger, pod: &PodFacts, wake: &mut Wake) -> Flow<()> {
    if let Err(message) = usable(cx) {
        cx.note_pod(pod, NoteReason::WaitingForStorage, message);
        return Ok(());
    }
    let grant = match claims::see_to(cx, ledger, pod).await? {
        Ready::Granted(grant) => grant,
        Ready::Wait(message) => {
            cx.note_pod(pod, NoteReason::WaitingForClaim, message);
            wake.within(5_000);
            return Ok(());
        }
        // The pod mounts what nobody has any more; its controller makes another one.
        Ready::Stale(message) => {
            cx.note_pod(pod, NoteReason::WaitingForStorage, message);
            return if pod.controller.is_some() { delete(cx, pod).await } else { Ok(()) };
        }
        Ready::Lost => {
            // What this run wrote itself starts no other.
            wake.within(1);
            return Ok(());
        }
    };
    let epoch = grant.epoch;
    let (uid, resource_version) = preconditions(pod);
    let call = Call::PatchPod { name: pod.name.clone(), uid, resource_version, grant: grant.to_line(), ungate: true };
    cx.done(call).await?;
    cx.note_pod(pod, NoteReason::Granted, format!("holds writer {} with epoch {epoch}", cx.key.writer));
    Ok(())
}
