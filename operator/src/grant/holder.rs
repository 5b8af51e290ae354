//! G2: what became of the holder. A holder is released only when it is gone, and what is left is believed only from its
//! own termination message.

use walstorage_crds::walwriter::{Empty, LastReport, Phase, WriterVolume, condition};

use super::annotation::Grant;
use super::call::{Call, Failure};
use super::context::{Cx, Flow, failed};
use super::fate::{Fate, fate};
use super::ledger::{Ledger, StatusExt as _, may_hold, time};
use super::message::TerminationMessage;
use super::protocol::Wake;
use super::run::{NoteReason, Outcome};
use crate::identity::PodFacts;
use crate::planted::mutant;

/// When to look again for an event that is on its way, in milliseconds: it starts a run itself, unless a watch begins anew.
const ON_ITS_WAY: i64 = 1_000;

/// Who holds the writer after this.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Held {
    /// Nobody.
    Free,
    /// A pod that is not on its way out.
    By(Box<PodFacts>),
    /// A pod that is; until this time, in milliseconds, it is worth waiting for.
    Ending(i64),
}

pub(super) async fn see_to(cx: &Cx, ledger: &mut Ledger, wake: &mut Wake) -> Flow<Held> {
    let Some(holder) = ledger.holder().cloned() else { return Ok(Held::Free) };
    match fate(&holder.pod_uid, cx.get_pod(&holder.pod_name).await?) {
        Fate::Gone(pod) => {
            let last_words = pod.or_else(|| of_uid(&cx.view.last_words, &holder.pod_uid));
            let shown = of_uid(&cx.view.pods, &holder.pod_uid).is_some();
            if last_words.is_none() && shown && !mutant!(LastWordsNotWaitedFor) {
                // The API server has deleted it, and the event of that, which says how it ended, is on its way.
                return Err(Outcome::Settled(Some(ON_ITS_WAY)));
            }
            release(cx, ledger, last_words).await?;
            Ok(Held::Free)
        }
        Fate::Ending(pod) => ending(cx, ledger, &pod, wake).await,
        Fate::Live(pod) => {
            if !pod.is_gated() {
                live(cx, ledger, &pod, wake).await?;
            }
            Ok(Held::By(Box::new(pod)))
        }
    }
}

fn of_uid(pods: &[PodFacts], uid: &str) -> Option<PodFacts> {
    pods.iter().find(|pod| pod.uid == uid).cloned()
}

/// The holder is gone. `words` is the pod as it ended, where somebody saw that.
async fn release(cx: &Cx, ledger: &mut Ledger, words: Option<PodFacts>) -> Flow<()> {
    let now = cx.view.now;
    let mut status = ledger.status.clone();
    let served = words.as_ref().is_some_and(PodFacts::has_served);
    // A process that ended before it had read its log does not know what is left.
    let knows = served || matches!(status.phase, Some(Phase::Active | Phase::Releasing));
    let message =
        // Before its last phase what has ended may be started again, and the message be an old one.
        words.as_ref().filter(|pod| knows && (pod.has_ended() || mutant!(MessageBeforeLastPhase)) && pod.all_terminated()).and_then(PodFacts::termination_message).and_then(
            |text| TerminationMessage::believed(text, &ledger.spec().writer_uid, status.epoch.unwrap_or_default()),
        );
    let was_scheduled = status.holder.as_ref().is_some_and(|holder| holder.node_name.is_some());
    let never_scheduled = !was_scheduled && words.as_ref().is_some_and(|pod| pod.node_name.is_empty());
    if served && let Some(pod) = &words {
        initialize(cx, ledger, &mut status, pod).await?;
    }
    status.holder = None;
    // Nobody reports on them any more, and the next pod finds out anew.
    for volume in status.volumes.iter_mut().flatten() {
        volume.state = None;
    }
    if status.phase == Some(Phase::Pending) && never_scheduled {
        let previous = status.previous.take().unwrap_or(Phase::Drained);
        status.enter(previous, now);
    } else {
        status.previous = None;
        status.last_report = message.as_ref().map(|message| LastReport {
            granted: Some(message.granted),
            exit: Some(message.exit.as_str().to_owned()),
            unapplied_entries: Some(message.unapplied_entries),
            unapplied_bytes: Some(message.unapplied_bytes),
            empty: Some(message.empty.clone()),
            observed_at: Some(time(now)),
        });
        for volume in status.volumes.iter_mut().flatten().filter(|volume| may_hold(volume)) {
            volume.empty = Some(match &message {
                Some(message) if message.empty.contains(&volume.name) => Empty::True,
                Some(_) => Empty::False,
                None => Empty::Unknown,
            });
        }
        let drained = message.as_ref().is_some_and(|message| message.unapplied_entries == 0);
        status.enter(if drained { Phase::Drained } else { Phase::Released }, now);
        let left = message.map_or("what it left is unknown".to_owned(), |message| {
            format!("{} entries are not applied", message.unapplied_entries)
        });
        cx.note(NoteReason::Released, format!("its pod is gone; {left}"));
    }
    ledger.swap(cx, status).await
}

/// The holder is on its way out.
async fn ending(cx: &Cx, ledger: &mut Ledger, pod: &PodFacts, wake: &mut Wake) -> Flow<Held> {
    let now = cx.view.now;
    let mut status = ledger.status.clone();
    if status.phase == Some(Phase::Active) {
        status.enter(Phase::Releasing, now);
    }
    let began =
        pod.deletion.unwrap_or_else(|| status.phase_since.as_ref().map_or(now, |since| since.0.as_millisecond()));
    let until = began + cx.view.timing.handover;
    if now >= until {
        if !status.is(condition::STUCK) {
            let message =
                format!("pod {} should have ended; if its node is lost, delete the node or the pod by force", pod.name);
            status.set(condition::STUCK, true, "HolderDoesNotEnd", &message, now);
            cx.note(NoteReason::Stuck, message);
        }
    } else {
        wake.within(until - now);
    }
    ledger.swap(cx, status).await?;
    Ok(Held::Ending(until))
}

/// The holder runs, or will.
async fn live(cx: &Cx, ledger: &mut Ledger, pod: &PodFacts, wake: &mut Wake) -> Flow<()> {
    let granted = pod.annotation(walstorage_crds::names::ANNOTATION_GRANT).and_then(Grant::parse);
    let started = pod.sidecar_started;
    if started && ledger.phase() == Some(Phase::Pending) {
        starts(cx, ledger, pod).await?;
    }
    if ledger.phase() == Some(Phase::Active)
        && let Some(grant) = granted
        && started
        && grant.lets_begin()
    {
        cx.done(take_back(pod, &grant)).await?;
    }
    without_claim(cx, ledger, pod).await?;
    unplaceable(cx, ledger, pod, wake).await
}

/// The sidecar of the holder has started.
pub(super) async fn starts(cx: &Cx, ledger: &mut Ledger, pod: &PodFacts) -> Flow<()> {
    let now = cx.view.now;
    let mut status = ledger.status.clone();
    initialize(cx, ledger, &mut status, pod).await?;
    if let Some(holder) = &mut status.holder {
        holder.node_name = Some(pod.node_name.clone()).filter(|node| !node.is_empty());
    }
    status.previous = None;
    status.enter(Phase::Active, now);
    if status.is(condition::UNPLACEABLE) {
        status.set(condition::UNPLACEABLE, false, "Placed", "", now);
    }
    ledger.swap(cx, status).await
}

/// Takes back what a grant lets begin, so that a container that starts again on an emptied disk never starts at LSN 1.
pub(super) fn take_back(pod: &PodFacts, grant: &Grant) -> Call {
    Call::PatchPod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: pod.resource_version.clone(),
        grant: grant.started().to_line(),
        ungate: false,
    }
}

/// Whether a claim says already that its directory may have been made. A mark stays, so that a cache may answer.
pub(super) fn is_marked(cx: &Cx, volume: &WriterVolume) -> bool {
    let claim = volume.claim_name.as_ref().and_then(|name| cx.view.claims.get(name));
    claim.is_some_and(|claim| {
        Some(&claim.uid) == volume.claim_uid.as_ref()
            && claim.annotations.contains_key(walstorage_crds::names::ANNOTATION_INITIALIZED)
    })
}

/// What the pod was granted is initialised: on the claims first, then, by the caller's swap, in the ledger, so that a
/// ledger that says it has claims that say it too.
async fn initialize(
    cx: &Cx,
    ledger: &Ledger,
    status: &mut walstorage_crds::walwriter::WalWriterStatus,
    pod: &PodFacts,
) -> Flow<()> {
    let Some(grant) = pod.annotation(walstorage_crds::names::ANNOTATION_GRANT).and_then(Grant::parse) else {
        return Ok(());
    };
    if Some(grant.epoch) != ledger.status.epoch {
        return Ok(());
    }
    for volume in status.volumes.iter_mut().flatten().filter(|volume| grant.has(&volume.name)) {
        if volume.initialized != Some(true)
            && !is_marked(cx, volume)
            && let (Some(name), Some(uid)) = (&volume.claim_name, &volume.claim_uid)
        {
            let call = Call::MarkClaim {
                name: name.clone(),
                uid: uid.clone(),
                labels: std::collections::BTreeMap::new(),
                annotations: [(walstorage_crds::names::ANNOTATION_INITIALIZED.to_owned(), "true".to_owned())].into(),
            };
            match cx.attempt(call).await {
                // One that is gone is judged when nobody holds the writer any more.
                Ok(_) | Err(Failure::NotFound | Failure::Conflict) => {}
                Err(failure) => return Err(failed(&failure)),
            }
        }
        volume.initialized = Some(true);
        volume.forget = None;
    }
    Ok(())
}

/// A pod that can never get a node because a claim of it went meanwhile: its controller makes another one, when the writer
/// is no longer Lost or with another writer.
async fn without_claim(cx: &Cx, ledger: &Ledger, pod: &PodFacts) -> Flow<()> {
    if !pod.node_name.is_empty() || pod.controller.is_none() {
        return Ok(());
    }
    for volume in ledger.volumes() {
        let (Some(name), Some(uid)) = (&volume.claim_name, &volume.claim_uid) else { continue };
        let seen = cx.view.claims.get(name).is_some_and(|claim| claim.uid == *uid);
        if !seen && cx.get_claim(name).await?.is_none_or(|claim| claim.uid != *uid) {
            return give_way(cx, pod).await;
        }
    }
    Ok(())
}

/// Deletes a pod that was read without a node: its version proves that it still has none.
async fn give_way(cx: &Cx, pod: &PodFacts) -> Flow<()> {
    let (uid, resource_version) = (pod.uid.clone(), pod.resource_version.clone());
    cx.done(Call::DeletePod { name: pod.name.clone(), uid, resource_version }).await
}

/// A pod of a pool that no node can have because of the writer's claims gives way to one with another writer.
async fn unplaceable(cx: &Cx, ledger: &mut Ledger, pod: &PodFacts, wake: &mut Wake) -> Flow<()> {
    use walstorage_crds::walwriter::Identity;
    let pooled = ledger.spec().identity == Identity::Pooled && ledger.phase() == Some(Phase::Pending);
    let Some(why) = pod.unschedulable.as_deref().filter(|_| pooled && pod.node_name.is_empty()) else {
        return Ok(());
    };
    if !["volume node affinity conflict", "PersistentVolume's node affinity"].iter().any(|part| why.contains(part)) {
        return Ok(());
    }
    let left = cx.view.timing.handover - ledger.age(cx.view.now);
    if left > 0 {
        wake.within(left);
        return Ok(());
    }
    let mut status = ledger.status.clone();
    status.set(condition::UNPLACEABLE, true, "VolumeNodeAffinity", why, cx.view.now);
    ledger.swap(cx, status).await?;
    cx.note(NoteReason::Unplaceable, format!("no node can have pod {}: {why}", pod.name));
    give_way(cx, pod).await
}
