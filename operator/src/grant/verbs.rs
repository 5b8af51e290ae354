//! The user's verbs, and the loss that one of them accepts. Only a writer that nobody holds is judged.

use walstorage_crds::names;
use walstorage_crds::walwriter::{Phase, WalWriterStatus, WriterVolume, condition};

use super::call::ClaimFacts;
use super::context::{Cx, Flow};
use super::ledger::{Ledger, StatusExt as _, may_hold};
use super::run::NoteReason;

/// `abandon=<writerUid>`: its entries are given up.
pub(super) async fn abandon(cx: &Cx, ledger: &mut Ledger) -> Flow<()> {
    let asked = ledger.annotation(names::ANNOTATION_ABANDON) == Some(ledger.spec().writer_uid.as_str());
    let free = ledger.holder().is_none();
    match ledger.phase() {
        Some(Phase::Released | Phase::Orphaned | Phase::Drained | Phase::Lost) if asked && free => {
            let mut status = ledger.status.clone();
            status.previous = None;
            status.enter(Phase::Reclaiming, cx.view.now);
            ledger.swap(cx, status).await?;
            cx.note(NoteReason::Abandoned, "its entries are given up, its claims are being deleted");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A known claim that is missing, or another one, makes the writer Lost; `accept-loss` makes it usable again.
pub(super) async fn judge_claims(cx: &Cx, ledger: &mut Ledger) -> Flow<()> {
    if ledger.holder().is_some() || ledger.phase() == Some(Phase::Reclaiming) {
        return Ok(());
    }
    let lost = lost_claims(cx, ledger).await?;
    let accepted = accepted(ledger);
    if lost.is_empty() {
        accept_buckets(cx, ledger, &accepted).await?;
        if ledger.phase() == Some(Phase::Lost) {
            let mut status = ledger.status.clone();
            let previous = status.previous.take().unwrap_or(Phase::Released);
            status.enter(previous, cx.view.now);
            status.set(condition::CLAIMS_READY, true, "Found", "", cx.view.now);
            ledger.swap(cx, status).await?;
        }
        return ledger.drop_annotation(cx, names::ANNOTATION_ACCEPT_LOSS).await;
    }
    let mut status = ledger.status.clone();
    let mut left = Vec::new();
    for Loss { name, known, found } in lost {
        // What stands there now is named by its uid; where nothing stands, what is missing is.
        let by = found.as_ref().unwrap_or(&known);
        if accepted.iter().any(|(url, uid)| *url == name && uid == by) {
            for volume in status.volumes.iter_mut().flatten().filter(|volume| volume.name == name) {
                give_up(volume, found.clone());
            }
            cx.note(NoteReason::LossAccepted, format!("what {name} held on claim {known} is given up"));
        } else {
            left.push(format!(
                "{name}: claim {known} is {}; if it does not come back: kubectl annotate walwriter -n {} {} {}={name}@{by}",
                found.as_ref().map_or("missing".to_owned(), |found| format!("replaced by {found}")),
                cx.key.namespace,
                cx.key.name(),
                names::ANNOTATION_ACCEPT_LOSS
            ));
        }
    }
    if left.is_empty() {
        let previous = status.previous.take().unwrap_or(Phase::Released);
        let phase = if status.phase == Some(Phase::Lost) { previous } else { status.phase.unwrap_or(Phase::Released) };
        status.enter(phase, cx.view.now);
        status.set(condition::CLAIMS_READY, true, "LossAccepted", "", cx.view.now);
        ledger.swap(cx, status).await?;
        return ledger.drop_annotation(cx, names::ANNOTATION_ACCEPT_LOSS).await;
    }
    let sentence = left.join("; ");
    if status.phase != Some(Phase::Lost) {
        status.previous = status.phase;
    }
    // Once for each loss, by whichever way the writer became Lost: the sentence has the remedy.
    if status.condition(condition::CLAIMS_READY).is_none_or(|ready| ready.message != sentence) {
        cx.note(NoteReason::Lost, sentence.clone());
    }
    status.set(condition::CLAIMS_READY, false, "ClaimLost", &sentence, cx.view.now);
    status.enter(Phase::Lost, cx.view.now);
    ledger.swap(cx, status).await
}

/// A claim that is not what the ledger knows.
struct Loss {
    /// The URL's name.
    name: String,
    /// The uid that is missing.
    known: String,
    /// The uid that is there instead.
    found: Option<String>,
}

async fn lost_claims(cx: &Cx, ledger: &Ledger) -> Flow<Vec<Loss>> {
    let mut lost = Vec::new();
    for volume in ledger.volumes() {
        let (Some(name), Some(uid)) = (&volume.claim_name, &volume.claim_uid) else { continue };
        // Nothing is on it, and no pod will have it.
        if !may_hold(volume) && cx.disk(&volume.name).is_none() {
            continue;
        }
        // The cache may say that all is well; that something is wrong, only the API server does.
        if ledger.phase() != Some(Phase::Lost) && cx.view.claims.get(name).is_some_and(|claim| claim.uid == *uid) {
            continue;
        }
        let found = cx.get_claim(name).await?.map(|ClaimFacts { uid, .. }| uid);
        if found.as_ref() != Some(uid) {
            lost.push(Loss { name: volume.name.clone(), known: uid.clone(), found });
        }
    }
    Ok(lost)
}

/// The pairs of the annotation.
fn accepted(ledger: &Ledger) -> Vec<(String, String)> {
    let text = ledger.annotation(names::ANNOTATION_ACCEPT_LOSS).unwrap_or_default();
    let pairs = text.split(',').filter_map(|pair| pair.trim().split_once('@'));
    pairs.map(|(url, uid)| (url.to_owned(), uid.to_owned())).collect()
}

/// A bucket has no claim whose loss could be seen: what its user gives up there is forgotten with the next grant.
async fn accept_buckets(cx: &Cx, ledger: &mut Ledger, accepted: &[(String, String)]) -> Flow<()> {
    let mut status: WalWriterStatus = ledger.status.clone();
    for (url, identity) in accepted {
        for volume in status.volumes.iter_mut().flatten().filter(|v| v.name == *url && v.claim_name.is_none()) {
            give_up(volume, None);
            cx.note(NoteReason::LossAccepted, format!("what {url} held as {identity} is given up"));
        }
    }
    ledger.swap(cx, status).await
}

fn give_up(volume: &mut WriterVolume, claim: Option<String>) {
    volume.claim_uid = claim;
    volume.initialized = None;
    volume.forget = Some(true);
    volume.state = None;
}
