//! The short way of a run: that a pod has started is written into its ledger by what the caches show, without a read.
//!
//! 1. That the sidecar of this pod has started under this epoch stays true, whatever has happened since.
//! 2. The ledger is written over the version that the caches have, and the pod too. Where either is another one by now, the
//!    write is refused, and the run goes the long way.
//! 3. What a grant lets begin is taken back by a run of its own where other writers wait: they may be of pods behind their gates.
//! 4. It is gone only where the long way would do nothing else: a run may have been asked for by several changes.

use walstorage_crds::names;
use walstorage_crds::walwriter::Phase;

use super::annotation::Grant;
use super::call::Failure;
use super::context::{Cx, Flow, failed};
use super::ledger::Ledger;
use super::run::Outcome;
use super::{claims, holder};
use crate::identity::PodFacts;
use crate::planted::mutant;

/// So long taking back what a grant lets begin gives way to other writers, in milliseconds.
const GIVES_WAY: i64 = 60_000;

/// Goes the short way, if it leads to the end; nothing where the long one is to be gone.
pub(super) async fn see_to(cx: &Cx) -> Flow<Option<Outcome>> {
    let Some((mut ledger, pod, grant)) = shown(cx) else { return Ok(None) };
    if ledger.phase() == Some(Phase::Pending) {
        match holder::starts(cx, &mut ledger, pod).await {
            // One that gives up a directory by name would give up the next one of that name as well.
            Ok(()) if cx.view.crowded && grant.lets_begin() && grant.forget.is_empty() => {
                return Ok(Some(Outcome::WhenIdle(GIVES_WAY)));
            }
            Ok(()) => {}
            Err(Outcome::Again) => return Ok(None),
            Err(ended) => return Err(ended),
        }
    }
    if grant.lets_begin() {
        match cx.attempt(holder::take_back(pod, &grant)).await {
            Ok(_) => {}
            Err(Failure::Conflict | Failure::NotFound) => return Ok(None),
            Err(failure) => return Err(failed(&failure)),
        }
    }
    Ok(Some(Outcome::Settled(None)))
}

/// The ledger, its holder and what that was granted, where the caches show that the holder has started, that not all of this
/// is written down, and that there is nothing else to do.
fn shown(cx: &Cx) -> Option<(Ledger, &PodFacts, Grant)> {
    let ledger = Ledger::new(cx, (**cx.view.ledger.as_ref()?).clone());
    // Somebody else may want the writer, or be on the way out with it.
    let [pod] = cx.view.pods.as_slice() else { return None };
    let grant = pod.annotation(names::ANNOTATION_GRANT).and_then(Grant::parse)?;
    let holds = ledger.holder()?.pod_uid == pod.uid
        && Some(grant.epoch) == ledger.status.epoch
        && grant.writer_uid == ledger.spec().writer_uid;
    let runs = pod.sidecar_started && !pod.is_gated() && !pod.is_ending() && !pod.node_name.is_empty();
    let is_left = match ledger.phase() {
        Some(Phase::Pending) => true,
        Some(Phase::Active) => grant.lets_begin(),
        _ => false,
    };
    let verbs = [names::ANNOTATION_ABANDON, names::ANNOTATION_ACCEPT_LOSS];
    let alone = verbs.iter().all(|verb| ledger.annotation(verb).is_none())
        && claims::are_large_enough(cx, &ledger)
        && ledger.volumes().iter().filter(|volume| grant.has(&volume.name)).all(|volume| {
            volume.initialized == Some(true) || volume.claim_name.is_none() || holder::is_marked(cx, volume)
        });
    ((holds || mutant!(StartOfAnyPod)) && runs && is_left && alone).then_some((ledger, pod, grant))
}
