//! What time and policy do to a writer that nobody holds, and how its claims go.

use walstorage_crds::names;
use walstorage_crds::walstorage::{WhenDeleted, WhenDrained};
use walstorage_crds::walwriter::{Identity, Phase, WriterVolume};

use super::call::Call;
use super::context::{Cx, Flow};
use super::fate::{Fate, fate};
use super::ledger::{Ledger, StatusExt as _};
use super::mint::writer_uid;
use super::protocol::Wake;
use super::run::{NoteReason, Outcome};
use crate::planted::mutant;

/// Moves a writer on that nobody holds and nobody wants. True when its ledger is gone.
pub(super) async fn by_time(cx: &Cx, ledger: &mut Ledger, wake: &mut Wake) -> Flow<bool> {
    if ledger.holder().is_some() {
        return Ok(false);
    }
    let now = cx.view.now;
    let age = ledger.age(now);
    let storage = cx.view.storage.as_ref();
    if storage.is_none_or(|storage| storage.deleting) {
        let policy = storage.map_or(WhenDeleted::Retain, |storage| storage.when_deleted);
        if without_storage(cx, ledger, policy).await? {
            return Ok(true);
        }
        // What is kept is orphaned like any other: the more so as no storage speaks of it.
    }
    if cx.is_named() {
        return Ok(false);
    }
    match ledger.phase() {
        Some(Phase::Released) => {
            if mutant!(ClaimsOfReleasedGo) {
                delete_claims(cx, ledger).await?;
            }
            let left = cx.view.timing.orphan_after - age;
            if left > 0 {
                wake.within(left);
                return Ok(false);
            }
            let mut status = ledger.status.clone();
            status.enter(Phase::Orphaned, now);
            ledger.swap(cx, status).await?;
            let message = format!(
                "no pod of its workload has taken it over; its entries stay until one does, or until kubectl annotate \
                 walwriter -n {} {} {}={}",
                cx.key.namespace,
                cx.key.name(),
                names::ANNOTATION_ABANDON,
                ledger.spec().writer_uid
            );
            cx.note(NoteReason::Orphaned, message);
        }
        Some(Phase::Drained) => {
            let delete =
                storage.is_some_and(|storage| !storage.deleting && storage.when_drained == WhenDrained::Delete);
            let has_claims = ledger.volumes().iter().any(|volume| volume.claim_name.is_some());
            if delete && (has_claims || ledger.spec().identity == Identity::Pooled) {
                let left = storage.map_or(0, |storage| storage.drained_after) - age;
                if left > 0 {
                    wake.within(left);
                    return Ok(false);
                }
                begin(cx, ledger).await?;
            }
        }
        // Made for a pod that went before it was granted.
        None => {
            let left = cx.view.timing.orphan_after - age;
            if left > 0 {
                wake.within(left);
                return Ok(false);
            }
            if cx.list_claims().await?.is_empty() {
                delete_ledger(cx, ledger).await?;
                return Ok(true);
            }
        }
        Some(Phase::Pending | Phase::Active | Phase::Releasing | Phase::Orphaned | Phase::Reclaiming | Phase::Lost) => {
        }
    }
    Ok(false)
}

/// The storage goes, or is gone: what its policy says becomes of its writers.
async fn without_storage(cx: &Cx, ledger: &mut Ledger, policy: WhenDeleted) -> Flow<bool> {
    let phase = ledger.phase();
    if phase == Some(Phase::Reclaiming) {
        return Ok(false);
    }
    let goes = match policy {
        WhenDeleted::Retain => false,
        WhenDeleted::DeleteDrained => phase == Some(Phase::Drained),
        WhenDeleted::Delete => true,
    };
    if matches!(phase, Some(Phase::Drained) | None) && ledger.volumes().is_empty() && cx.list_claims().await?.is_empty()
    {
        delete_ledger(cx, ledger).await?;
        return Ok(true);
    }
    if goes {
        begin(cx, ledger).await?;
    }
    Ok(false)
}

async fn begin(cx: &Cx, ledger: &mut Ledger) -> Flow<()> {
    let mut status = ledger.status.clone();
    status.previous = None;
    status.enter(Phase::Reclaiming, cx.view.now);
    ledger.swap(cx, status).await
}

/// Deletes the claims of a writer that is Reclaiming, then its ledger or all but its name. True when it is a tombstone that
/// a pod may have again.
pub(super) async fn reclaim(cx: &Cx, ledger: &mut Ledger, wake: &mut Wake) -> Flow<bool> {
    for pod in cx.list_pods().await? {
        if !pod.is_gated() && !matches!(fate(&pod.uid.clone(), Some(pod)), Fate::Gone(_)) {
            // A pod that no ledger knows of: nothing is deleted under it.
            wake.within(10_000);
            return Ok(false);
        }
    }
    if delete_claims(cx, ledger).await? > 0 {
        wake.within(2_000);
        return Ok(false);
    }
    ledger.drop_annotation(cx, names::ANNOTATION_ABANDON).await?;
    ledger.drop_annotation(cx, names::ANNOTATION_ACCEPT_LOSS).await?;
    cx.note(NoteReason::Reclaimed, "its claims are deleted");
    match ledger.spec().identity {
        Identity::Pooled => {
            delete_ledger(cx, ledger).await?;
            Ok(false)
        }
        Identity::Named => {
            let mut status = ledger.status.clone();
            let buckets =
                status.volumes.take().unwrap_or_default().into_iter().filter(|volume| volume.claim_name.is_none());
            // What lies in a bucket stays there, and the next pod gives it up.
            let buckets: Vec<WriterVolume> = buckets
                .map(|volume| WriterVolume { initialized: None, forget: Some(true), state: None, ..volume })
                .collect();
            status.volumes = Some(buckets).filter(|buckets| !buckets.is_empty());
            status.last_report = None;
            status.previous = None;
            status.enter(Phase::Drained, cx.view.now);
            ledger.swap(cx, status).await?;
            Ok(true)
        }
    }
}

/// Deletes what is left of the writer's own claims; how many there are.
async fn delete_claims(cx: &Cx, ledger: &Ledger) -> Flow<usize> {
    let mut claims = cx.list_claims().await?;
    for name in ledger.volumes().iter().filter_map(|volume| volume.claim_name.as_ref()) {
        if !claims.iter().any(|claim| claim.name == *name) {
            claims.extend(cx.get_claim(name).await?);
        }
    }
    let known: Vec<&str> = ledger.volumes().iter().filter_map(|volume| volume.claim_uid.as_deref()).collect();
    claims.retain(|claim| writer_uid(claim) == Some(&ledger.spec().writer_uid) || known.contains(&claim.uid.as_str()));
    // Another controller may be done with this life of the writer, and the claims be those of its next one. While the ledger
    // is as it was before the list, they are not; and what was listed then is what the preconditions name.
    if !claims.is_empty() && !mutant!(LedgerNotReadAgain) {
        let same =
            cx.get_writer().await?.is_some_and(|writer| writer.metadata.resource_version == ledger.read_version());
        if !same {
            return Err(Outcome::Again);
        }
    }
    for claim in claims.iter().filter(|claim| !claim.deleting) {
        let call = Call::DeleteClaim {
            name: claim.name.clone(),
            uid: claim.uid.clone(),
            resource_version: claim.resource_version.clone(),
        };
        cx.done(call).await?;
    }
    Ok(claims.len())
}

async fn delete_ledger(cx: &Cx, ledger: &Ledger) -> Flow<()> {
    cx.done(Call::DeleteWriter { uid: ledger.uid(), resource_version: ledger.version() }).await
}
