//! G4: the claims of the holder, and their growth.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use walstorage_crds::names;
use walstorage_crds::quantity::ByteSize;
use walstorage_crds::walstorage::{Place, Volume};
use walstorage_crds::walwriter::{Empty, Phase, WriterVolume, condition};

use super::annotation::{Grant, GrantedUrl};
use super::call::{Call, ClaimFacts, Failure, NewClaim};
use super::context::{Cx, Flow, failed};
use super::ledger::{Ledger, StatusExt as _, may_hold};
use super::mint::{is_initialized, writer_uid};
use super::run::NoteReason;
use crate::identity::PodFacts;
use crate::planted::mutant;

/// What came of the claims.
pub(super) enum Ready {
    /// They are there, and the ledger knows them.
    Granted(Grant),
    /// The pod must wait; why.
    Wait(String),
    /// The pod mounts a claim that no storage and no ledger asks for any more; or none at all.
    Stale(String),
    /// The writer is Lost.
    Lost,
}

/// What came of one claim.
enum Found {
    Is(ClaimFacts),
    Wait(&'static str, String),
    Lost,
}

/// Sees to the claims that the holder mounts, and writes them into the ledger before anybody can use them.
pub(super) async fn see_to(cx: &Cx, ledger: &mut Ledger, pod: &PodFacts) -> Flow<Ready> {
    let mut volumes = match mounted(cx, ledger, pod) {
        Ok(volumes) => volumes,
        Err(message) => return Ok(Ready::Stale(message)),
    };
    if let Some(message) = binds_apart(cx, &volumes, pod) {
        not_ready(cx, ledger, "ImmediateBinding", &message).await?;
        return Ok(Ready::Wait(message));
    }
    for volume in volumes.iter_mut().filter(|volume| volume.claim_name.is_some()) {
        match claim(cx, ledger, volume).await? {
            Found::Is(claim) => {
                if volume.claim_uid.is_none() {
                    volume.claim_uid = Some(claim.uid.clone());
                    volume.initialized =
                        is_initialized(&claim, &ledger.uid()).then_some(true).filter(|_| volume.forget != Some(true));
                    volume.size = Some(claim.size.clone());
                }
            }
            Found::Wait(reason, message) => {
                not_ready(cx, ledger, reason, &message).await?;
                return Ok(Ready::Wait(message));
            }
            Found::Lost => {
                lose(cx, ledger).await?;
                return Ok(Ready::Lost);
            }
        }
    }
    let mut status = ledger.status.clone();
    for volume in &mut volumes {
        volume.empty = Some(Empty::Unknown);
    }
    let known = status.volumes.get_or_insert_default();
    for volume in &volumes {
        match known.iter_mut().find(|one| one.name == volume.name) {
            Some(one) => one.clone_from(volume),
            None => known.push(volume.clone()),
        }
    }
    status.set(condition::CLAIMS_READY, true, "Ready", "", cx.view.now);
    // Nobody but who wins here lets a pod go.
    ledger.swap(cx, status).await?;
    let init = volumes.iter().filter(|volume| volume.initialized != Some(true) || mutant!(InitAlways));
    let names = |volume: &WriterVolume| volume.name.clone();
    Ok(Ready::Granted(Grant {
        v: 1,
        writer_uid: ledger.spec().writer_uid.clone(),
        epoch: ledger.status.epoch.unwrap_or_default(),
        init: init.map(names).collect(),
        forget: volumes.iter().filter(|volume| volume.forget == Some(true)).map(names).collect(),
        urls: volumes
            .iter()
            .map(|volume| GrantedUrl {
                name: volume.name.clone(),
                url: volume.url.clone(),
                claim: volume.claim_uid.clone(),
            })
            .collect(),
    }))
}

/// Exactly what the pod mounts, and the buckets; draining ones of both included.
fn mounted(cx: &Cx, ledger: &Ledger, pod: &PodFacts) -> Result<Vec<WriterVolume>, String> {
    let mut known: Vec<WriterVolume> = ledger.volumes().to_vec();
    for url in cx.urls() {
        let disk = matches!(url.place, Place::Disk(_));
        if !known.iter().any(|volume| volume.name == url.name) {
            known.push(WriterVolume { name: url.name.clone(), ..WriterVolume::default() });
        }
        for volume in known.iter_mut().filter(|volume| volume.name == url.name) {
            volume.url = url.url.to_string();
            volume.claim_name = disk.then(|| cx.claim_name(&url.name));
        }
    }
    let stale = |what: &str| {
        let storage = &cx.key.storage;
        format!("{what}: WalStorage {storage} has changed since the pod was made; make it anew")
    };
    let prefix = names::volume(&cx.key.storage, "");
    let mounts: BTreeMap<&str, &str> =
        pod.claims.iter().filter_map(|(volume, claim)| Some((volume.strip_prefix(&prefix)?, claim.as_str()))).collect();
    for (url, claim) in &mounts {
        let volume = known.iter().find(|volume| volume.name == *url);
        let usable = volume.is_some_and(|volume| volume.claim_uid.is_some() || cx.disk(url).is_some());
        if *claim != cx.claim_name(url) || !usable {
            return Err(stale(&format!(
                "claim {claim} of volume {} is not one of writer {}",
                names::volume(&cx.key.storage, url),
                cx.key.writer
            )));
        }
    }
    known.retain(|volume| match &volume.claim_name {
        Some(_) => mounts.contains_key(volume.name.as_str()),
        None => may_hold(volume) || cx.urls().any(|url| url.name == volume.name),
    });
    if known.is_empty() { Err(stale("the pod mounts none of its directories")) } else { Ok(known) }
}

/// Several claims of a class that binds at once may end up where no node has them all.
fn binds_apart(cx: &Cx, volumes: &[WriterVolume], pod: &PodFacts) -> Option<String> {
    let allowed = pod.annotation(names::ANNOTATION_ALLOW_IMMEDIATE_BINDING) == Some("true");
    let immediate = &cx.view.storage.as_ref()?.immediate;
    let missing = volumes.iter().any(|volume| volume.claim_name.is_some() && volume.claim_uid.is_none());
    let bound = volumes.iter().filter(|volume| volume.claim_name.is_some() && immediate.contains(&volume.name));
    let names: Vec<&str> = bound.map(|volume| volume.name.as_str()).collect();
    (missing && !allowed && names.len() > 1).then(|| {
        format!(
            "the class of {} binds claims before the pod has a node, and no node may have them all: use a class with \
             WaitForFirstConsumer, or annotate the pods with {}: \"true\"",
            names.join(" and "),
            names::ANNOTATION_ALLOW_IMMEDIATE_BINDING
        )
    })
}

/// Finds, takes, adopts or creates the claim of a volume.
async fn claim(cx: &Cx, ledger: &Ledger, volume: &WriterVolume) -> Flow<Found> {
    let name = cx.claim_name(&volume.name);
    let writer = &ledger.spec().writer_uid;
    // One that nobody knows of is most likely not there; who creates it is told if it is.
    let unknown = volume.claim_uid.is_none() && !cx.view.claims.contains_key(&name);
    let mut refused = None;
    if let Some(disk) = cx.disk(&volume.name).filter(|_| unknown) {
        match create(cx, ledger, volume, disk).await {
            Ok(claim) => return Ok(Found::Is(claim)),
            // A quota that is used up refuses before anybody looks whether it is there.
            Err(failure @ (Failure::Exists | Failure::Quota(_) | Failure::Refused(_))) => refused = Some(failure),
            Err(failure) => return Err(failed(&failure)),
        }
    }
    let Some(claim) = cx.get_claim(&name).await? else {
        return match (&volume.claim_uid, cx.disk(&volume.name), refused) {
            (Some(_), _, _) => Ok(Found::Lost),
            (None, _, Some(failure)) => not_created(&name, failure),
            (None, Some(disk), None) => match create(cx, ledger, volume, disk).await {
                Ok(claim) => Ok(Found::Is(claim)),
                Err(failure) => not_created(&name, failure),
            },
            (None, None, None) => {
                Ok(Found::Wait("ClaimLost", format!("claim {name} is not there, and nothing says how large it was")))
            }
        };
    };
    if volume.claim_uid.as_ref().is_some_and(|uid| *uid != claim.uid) {
        return Ok(Found::Lost);
    }
    if claim.deleting {
        return Ok(Found::Wait("ClaimLost", format!("claim {name} is being deleted")));
    }
    let label = |key: &str| claim.labels.get(key).map(String::as_str);
    let ours = label(names::LABEL_STORAGE) == Some(&cx.key.storage) && label(names::LABEL_URL) == Some(&volume.name);
    let conflict = |why: String| {
        Ok(Found::Wait("ClaimConflict", format!("claim {name} {why}: rename or delete it, or correct its labels")))
    };
    if !ours {
        return conflict(format!(
            "is not labelled {}={} and {}={}",
            names::LABEL_STORAGE,
            cx.key.storage,
            names::LABEL_URL,
            volume.name
        ));
    }
    match (label(names::LABEL_WRITER), writer_uid(&claim)) {
        (Some(found), _) if found != cx.key.writer => conflict(format!("is of writer {found}")),
        (_, Some(uid)) if uid != writer => conflict(format!("is of a writer with uid {uid}, not {writer}")),
        (Some(_), Some(_)) => Ok(Found::Is(claim)),
        // Made by a StatefulSet's template, restored from a snapshot, or accepted after a loss.
        _ => adopt(cx, ledger, volume, claim).await,
    }
}

async fn adopt(cx: &Cx, ledger: &Ledger, volume: &WriterVolume, claim: ClaimFacts) -> Flow<Found> {
    let mut annotations = annotations(ledger, volume);
    if is_initialized(&claim, &ledger.uid()) {
        annotations.remove(names::ANNOTATION_INITIALIZED);
    }
    let call = Call::MarkClaim { name: claim.name, uid: claim.uid, labels: labels(cx, &volume.name), annotations };
    match cx.attempt(call).await {
        Ok(Some(claim)) => Ok(Found::Is(claim)),
        Ok(None) => Err(failed(&Failure::Unknown("a claim was marked and not shown".to_owned()))),
        Err(failure) => Err(failed(&failure)),
    }
}

async fn create(cx: &Cx, ledger: &Ledger, volume: &WriterVolume, disk: &Volume) -> Result<ClaimFacts, Failure> {
    let claim = NewClaim {
        name: cx.claim_name(&volume.name),
        labels: labels(cx, &volume.name),
        annotations: annotations(ledger, volume),
        size: disk.size.clone(),
        storage_class_name: disk.storage_class_name.clone(),
        access_mode: disk.access_mode,
    };
    let created = cx.attempt(Call::CreateClaim(Box::new(claim))).await?;
    created.ok_or_else(|| Failure::Unknown("a claim was created and not shown".to_owned()))
}

fn not_created(name: &str, failure: Failure) -> Flow<Found> {
    match failure {
        Failure::Quota(why) => Ok(Found::Wait("QuotaExceeded", format!("claim {name}: {why}"))),
        Failure::Refused(why) => Ok(Found::Wait("ClaimConflict", format!("claim {name} is refused: {why}"))),
        failure => Err(failed(&failure)),
    }
}

fn labels(cx: &Cx, url: &str) -> BTreeMap<String, String> {
    let of = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        of(names::LABEL_STORAGE, &cx.key.storage),
        of(names::LABEL_URL, url),
        of(names::LABEL_WRITER, &cx.key.writer),
        of(names::LABEL_MANAGED_BY, names::MANAGED_BY),
    ])
}

/// Of a claim that is given to a ledger. That its directory may be made is said at once, of this ledger: this one knows better
/// what became of it, and one that is made when it is gone takes it for made.
fn annotations(ledger: &Ledger, volume: &WriterVolume) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::ANNOTATION_WRITER_UID.to_owned(), ledger.spec().writer_uid.clone()),
        (names::ANNOTATION_URL.to_owned(), volume.url.clone()),
        (names::ANNOTATION_INITIALIZED.to_owned(), ledger.uid()),
    ])
}

async fn not_ready(cx: &Cx, ledger: &mut Ledger, reason: &str, message: &str) -> Flow<()> {
    let mut status = ledger.status.clone();
    status.set(condition::CLAIMS_READY, false, reason, message, cx.view.now);
    ledger.swap(cx, status).await
}

/// A claim went while the holder was still behind its gate: the writer is Lost, and the pod has it no more.
async fn lose(cx: &Cx, ledger: &mut Ledger) -> Flow<()> {
    let mut status = ledger.status.clone();
    status.holder = None;
    status.set(condition::CLAIMS_READY, false, "ClaimLost", "a claim is missing, or another one", cx.view.now);
    status.enter(Phase::Lost, cx.view.now);
    // Which one, and what to do about it, is for the next run, as of any writer that nobody holds.
    ledger.swap(cx, status).await
}

/// Asks for larger claims where the storage does. Comes before everything that could hold it up: a full directory may be
/// what keeps a pod from becoming ready.
pub(super) async fn grow(cx: &Cx, ledger: &mut Ledger) -> Flow<()> {
    let mut status = ledger.status.clone();
    let (mut refused, mut grown) = (None, false);
    for volume in status.volumes.iter_mut().flatten() {
        let (Some(disk), Some(name), Some(uid)) = (cx.disk(&volume.name), &volume.claim_name, &volume.claim_uid) else {
            continue;
        };
        if is_large_enough(volume, disk) {
            continue;
        }
        let Some(claim) = cx.get_claim(name).await?.filter(|claim| claim.uid == *uid && !claim.deleting) else {
            continue;
        };
        if ByteSize::parse(&claim.size).is_ok_and(|size| size >= disk.size_bytes) {
            volume.size = Some(disk.size.clone());
            grown = true;
            continue;
        }
        let call = Call::GrowClaim { name: name.clone(), uid: uid.clone(), size: disk.size.clone() };
        match cx.attempt(call).await {
            Ok(_) => {
                volume.size = Some(disk.size.clone());
                grown = true;
                cx.note_storage(NoteReason::ClaimGrown, format!("claim {name} asks for {}", disk.size));
            }
            // It is asked for again with the next run; pods go on with what there is.
            Err(Failure::Refused(why)) => refused = Some(("ClassCannotExpand", format!("claim {name}: {why}"))),
            Err(Failure::Quota(why)) => refused = Some(("QuotaExceeded", format!("claim {name}: {why}"))),
            Err(Failure::NotFound | Failure::Conflict) => {}
            Err(failure) => return Err(failed(&failure)),
        }
    }
    if let Some((reason, message)) = refused {
        status.set(condition::CLAIMS_READY, false, reason, &message, cx.view.now);
    } else if grown && status.condition(condition::CLAIMS_READY).is_some_and(refused_growth) {
        // The class, or a quota, lets them now.
        status.set(condition::CLAIMS_READY, true, "Ready", "", cx.view.now);
    }
    ledger.swap(cx, status).await
}

/// Whether no claim is smaller than the storage asks for, as far as the ledger knows.
pub(super) fn are_large_enough(cx: &Cx, ledger: &Ledger) -> bool {
    ledger.volumes().iter().all(|volume| cx.disk(&volume.name).is_none_or(|disk| is_large_enough(volume, disk)))
}

fn is_large_enough(volume: &WriterVolume, disk: &Volume) -> bool {
    let asked = volume.size.as_deref().and_then(|size| ByteSize::parse(size).ok());
    asked.is_some_and(|asked| asked >= disk.size_bytes)
}

fn refused_growth(ready: &Condition) -> bool {
    ready.status == "False" && ["ClassCannotExpand", "QuotaExceeded"].contains(&ready.reason.as_str())
}
