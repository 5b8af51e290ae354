//! Whether the finalizer `walstorage.dev/in-use` stays. Pure.
//!
//! It keeps the ConfigMap and the resource while a pod may still need them, and while the policy still deletes claims. It
//! never keeps a namespace that is being deleted, once its pods are gone.

use walstorage_crds::walstorage::{WalStorageSpec, WhenDeleted};
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::dereference::Found;
use super::validate::has_finalizer;

/// What becomes of the finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finalizer {
    /// It is there and stays.
    Keep,
    /// It is put on, before anything else is made.
    Add,
    /// The storage is being deleted and waits; for what.
    Wait(String),
    /// It is taken off.
    Remove,
    /// The storage is being deleted by others, we are done.
    Nothing,
}

/// Decides.
#[must_use]
pub fn decide(found: &Found) -> Finalizer {
    let ours = has_finalizer(found);
    if found.storage.metadata.deletion_timestamp.is_none() {
        // In a namespace that ends nothing new can be made.
        return if ours || found.namespace_ends { Finalizer::Keep } else { Finalizer::Add };
    }
    if !ours {
        return Finalizer::Nothing;
    }
    // Nobody looked yet: wait for a look that no cache answers.
    let Some(users) = &found.users else { return Finalizer::Wait("its pods are being listed".to_owned()) };
    if !users.is_empty() {
        return Finalizer::Wait(format!(
            "{} still uses it; delete or scale down what they belong to",
            some(users, "pod")
        ));
    }
    if found.namespace_ends {
        return Finalizer::Remove;
    }
    let left: Vec<String> = found
        .writers
        .iter()
        .filter(|writer| is_left(when_deleted(&found.storage.spec), writer))
        .filter_map(|writer| writer.metadata.name.clone())
        .collect();
    if left.is_empty() {
        Finalizer::Remove
    } else {
        Finalizer::Wait(format!("claims are being deleted, as whenDeleted says: {}", some(&left, "WalWriter")))
    }
}

/// The policy as it is written: it holds for a spec that is refused, too.
fn when_deleted(spec: &WalStorageSpec) -> WhenDeleted {
    spec.reclaim_policy.as_ref().and_then(|policy| policy.when_deleted).unwrap_or_default()
}

/// Whether the policy still has to do with a writer.
fn is_left(policy: WhenDeleted, writer: &WalWriter) -> bool {
    let status = writer.status.as_ref();
    let phase = status.and_then(|status| status.phase);
    let held = status.is_some_and(|status| status.holder.is_some());
    let mut volumes = status.iter().flat_map(|status| status.volumes.iter().flatten());
    let has_claims = volumes.any(|volume| volume.claim_name.is_some());
    match policy {
        WhenDeleted::Retain => false,
        // One whose pod ended a moment ago may turn out to be drained.
        WhenDeleted::DeleteDrained => {
            held || phase == Some(Phase::Reclaiming) || (phase == Some(Phase::Drained) && has_claims)
        }
        WhenDeleted::Delete => held || phase == Some(Phase::Reclaiming) || has_claims,
    }
}

/// The number, and the first few names.
pub(super) fn some(names: &[String], what: &str) -> String {
    const SHOWN: usize = 5;
    let plural = if names.len() == 1 { "" } else { "s" };
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    format!("{} {what}{plural} ({}{more})", names.len(), shown.join(", "))
}
