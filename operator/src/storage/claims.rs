//! Whether claims can be made, are there and are as large as asked for: the condition ClaimsReady. Pure.
//!
//! What the spec asks for is judged here, before a pod wants it; what happened to the claims of a writer stands in its
//! WalWriter and is repeated here with its sentence.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use walstorage_crds::names::{ANNOTATION_ALLOW_IMMEDIATE_BINDING, LABEL_URL};
use walstorage_crds::quantity::ByteSize;
use walstorage_crds::walstorage::{Effective, EffectiveUrl, Place, Volume};
use walstorage_crds::walwriter::{Phase, WalWriter};

use super::conditions::Said;
use super::dereference::{ClassView, Found};
use super::finalizer::some;
use super::pods::injected;

/// Reasons that a WalWriter's own condition ClaimsReady may have, the worst first.
const OF_WRITERS: [&str; 5] = ["ClaimLost", "ClaimConflict", "QuotaExceeded", "ImmediateBinding", "ClassCannotExpand"];

/// Judges.
#[must_use]
pub fn claims_ready(found: &Found, effective: &Effective) -> Said {
    let disks: Vec<(&EffectiveUrl, &Volume)> = effective
        .urls
        .iter()
        .chain(&effective.journal)
        .filter_map(|url| match &url.place {
            Place::Disk(volume) => Some((url, volume)),
            Place::Bucket(_) => None,
        })
        .collect();
    if disks.is_empty() {
        return Said::yes("NoClaims", "all URLs are buckets");
    }
    class_missing(found, &disks)
        .or_else(|| lost(found))
        .or_else(|| of_writers(found))
        .or_else(|| immediate(found, &disks))
        .or_else(|| cannot_grow(found, &disks))
        .unwrap_or_else(|| Said::yes("Ready", format!("{} claims", found.claims.len())))
}

/// The class of a volume, and its name; nothing where it is not known.
fn class<'f>(classes: &'f BTreeMap<String, ClassView>, volume: &'f Volume) -> Option<(&'f str, ClassView)> {
    match &volume.storage_class_name {
        Some(name) => classes.get(name).map(|class| (name.as_str(), *class)),
        None => classes.iter().find(|(_, class)| class.default).map(|(name, class)| (name.as_str(), *class)),
    }
}

fn class_missing(found: &Found, disks: &[(&EffectiveUrl, &Volume)]) -> Option<Said> {
    let missing = disks.iter().find(|(_, volume)| class(&found.classes, volume).is_none());
    let (url, volume) = missing?;
    let known: Vec<String> = found.classes.keys().cloned().collect();
    let have = if known.is_empty() {
        "the cluster has none".to_owned()
    } else {
        format!("the cluster has {}", known.join(", "))
    };
    let sentence = match &volume.storage_class_name {
        Some(name) => format!(
            "URL {}: StorageClass {name} does not exist; {have}. Create it, or name another one for a new URL",
            url.name
        ),
        // Claims that are bound need no class any more.
        None if all_bound(found, &url.name) => return None,
        None => format!(
            "URL {}: the cluster has no default StorageClass; {have}. Name one: volume.storageClassName",
            url.name
        ),
    };
    Some(Said::no("ClassMissing", sentence))
}

fn all_bound(found: &Found, url: &str) -> bool {
    let mut claims = of_url(&found.claims, url).peekable();
    let phase = |claim: &&PersistentVolumeClaim| {
        claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
    };
    claims.peek().is_some() && claims.all(|claim| phase(&claim))
}

fn of_url<'f>(
    claims: &'f [std::sync::Arc<PersistentVolumeClaim>],
    url: &'f str,
) -> impl Iterator<Item = &'f PersistentVolumeClaim> {
    let label = |claim: &PersistentVolumeClaim| claim.metadata.labels.as_ref()?.get(LABEL_URL).cloned();
    claims.iter().map(AsRef::as_ref).filter(move |claim| label(claim).as_deref() == Some(url))
}

fn lost(found: &Found) -> Option<Said> {
    let lost: Vec<&WalWriter> =
        found.writers.iter().map(AsRef::as_ref).filter(|writer| phase(writer) == Some(Phase::Lost)).collect();
    let first = lost.first()?;
    let names: Vec<String> = lost.iter().filter_map(|writer| writer.metadata.name.clone()).collect();
    let why = ready_condition(first).map(|(_, message)| message).filter(|message| !message.is_empty());
    let sentence = format!(
        "{} lost a claim: {}. Bring the volume back, or accept the loss of what it held: kubectl describe walwriter says how",
        some(&names, "writer"),
        why.unwrap_or("a claim is missing, or another one"),
    );
    Some(Said::no("ClaimLost", sentence))
}

fn phase(writer: &WalWriter) -> Option<Phase> {
    writer.status.as_ref()?.phase
}

/// Reason and message of a writer whose claims are not ready.
fn ready_condition(writer: &WalWriter) -> Option<(&str, &str)> {
    let conditions = writer.status.as_ref()?.conditions.as_ref()?;
    let not = conditions.iter().find(|condition| condition.type_ == "ClaimsReady" && condition.status == "False")?;
    Some((not.reason.as_str(), not.message.as_str()))
}

fn of_writers(found: &Found) -> Option<Said> {
    let not_ready = || found.writers.iter().filter_map(|writer| Some((writer, ready_condition(writer)?)));
    OF_WRITERS.into_iter().find_map(|known| {
        let mut with_reason = not_ready().filter(|(_, (reason, _))| *reason == known);
        let (writer, (_, message)) = with_reason.next()?;
        let more = with_reason.count();
        let others = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        Some(Said::no(known, format!("writer {}: {message}{others}", writer.spec.writer)))
    })
}

/// Several claims that bind before the pod has a node may end up where no node has them all.
fn immediate(found: &Found, disks: &[(&EffectiveUrl, &Volume)]) -> Option<Said> {
    let urls = disks.iter().filter_map(|(url, volume)| Some((url, class(&found.classes, volume)?)));
    let at_once = urls.filter(|(_, (_, class))| class.immediate);
    let bound: Vec<String> = at_once.map(|(url, (name, _))| format!("{} ({name})", url.name)).collect();
    let mut waiting = injected(&found.pods).filter(|pod| pod.gated).peekable();
    let nobody = injected(&found.pods).next().is_none();
    let accepted = !nobody && waiting.all(|pod| pod.allows_immediate);
    (bound.len() > 1 && !accepted).then(|| {
        let sentence = format!(
            "the classes of {} bind claims before the pod has a node, and no node may reach them all: use classes with \
             volumeBindingMode WaitForFirstConsumer, or annotate the pods with {ANNOTATION_ALLOW_IMMEDIATE_BINDING}: \"true\"",
            bound.join(" and ")
        );
        Said::no("ImmediateBinding", sentence)
    })
}

fn cannot_grow(found: &Found, disks: &[(&EffectiveUrl, &Volume)]) -> Option<Said> {
    disks.iter().find_map(|(url, volume)| {
        let (name, _) = class(&found.classes, volume).filter(|(_, class)| !class.expands)?;
        let small = of_url(&found.claims, &url.name).find(|claim| asked(claim).is_some_and(|size| size < volume.size_bytes))?;
        let claim = small.metadata.name.as_deref().unwrap_or_default();
        let sentence = format!(
            "claim {claim} cannot grow to {}: StorageClass {name} has no allowVolumeExpansion. Allow it there, or add a URL of another \
             class and remove {}",
            volume.size, url.name
        );
        Some(Said::no("ClassCannotExpand", sentence))
    })
}

/// The size that a claim asks for.
fn asked(claim: &PersistentVolumeClaim) -> Option<ByteSize> {
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
    ByteSize::parse(&requests.get("storage")?.0).ok()
}
