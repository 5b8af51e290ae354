//! Step 5: what the user reads. [`status`] is pure; [`write()`] writes it where it differs from what stands.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error, ResourceExt as _};
use walstorage_crds::names::{ANNOTATION_ABANDON, CONTROLLER};
use walstorage_crds::walstorage::{PodCounts, WalStorage, WalStorageStatus, WriterCounts};
use walstorage_crds::walwriter::{Empty, Phase, WalWriter};

use super::build::{Built, ConfigStep};
use super::claims::claims_ready;
use super::conditions::{
    ACCEPTED, CLAIMS_READY, CONFIG_RENDERED, Conditions, DIRECTORIES_HEALTHY, PODS_UP_TO_DATE, READY, RECONCILING,
    STALLED, Said, UNDRAINED_DATA, read,
};
use super::dereference::Found;
use super::finalizer::{Finalizer, some};
use super::validate::Judged;
use super::{directories, pods};

/// The status, and after what time it changes although nothing happens. `unwritable` is since when a writer can write
/// nowhere, `grace` how long that may be.
#[must_use]
pub fn status(
    found: &Found,
    judged: &Judged,
    built: &Built,
    unwritable: Option<Timestamp>,
    grace: Duration,
) -> (WalStorageStatus, Option<Duration>) {
    let before = found.storage.status.as_ref();
    let generation = found.storage.metadata.generation;
    let mut conditions = Conditions::new(before, generation, found.now);
    let (stuck, next) = unwritable_for(found, unwritable, grace);
    conditions.set(UNDRAINED_DATA, undrained(found));
    conditions.set(RECONCILING, reconciling(found, built, judged));
    let mut urls = before.and_then(|status| status.urls.clone());
    match &judged.effective {
        Ok(effective) => {
            let rendered = rendered(found, built);
            let claims = claims_ready(found, effective);
            conditions.set(READY, ready(found, &[&rendered, &claims], stuck));
            conditions.set(ACCEPTED, Said::yes("Valid", ""));
            conditions.set(CONFIG_RENDERED, rendered);
            conditions.set(CLAIMS_READY, claims);
            conditions.set(DIRECTORIES_HEALTHY, directories::healthy(found, effective));
            conditions.set(STALLED, Said::no("Progressing", ""));
            conditions.set(PODS_UP_TO_DATE, pods_up_to_date(found, judged.outdated.as_ref()));
            urls = Some(directories::urls(found, effective, &judged.draining));
        }
        Err(refused) => {
            let reason = refused.reason.as_str();
            conditions.set(READY, Said::no(reason, &refused.message));
            conditions.set(ACCEPTED, Said::no(reason, &refused.message));
            conditions
                .set(STALLED, Said::yes(reason, "the spec is refused, and nothing changes until it is corrected"));
            for kind in [CONFIG_RENDERED, CLAIMS_READY, DIRECTORIES_HEALTHY, PODS_UP_TO_DATE] {
                conditions.leave(kind);
            }
            if read(before, CONFIG_RENDERED).is_none() {
                conditions.set(CONFIG_RENDERED, Said::no(reason, "the spec is refused"));
            }
        }
    }
    let injected = || pods::injected(&found.pods);
    // Of a refused spec no pod is made, so that none is outdated by it.
    let known = before.and_then(|status| status.pods.as_ref()?.outdated);
    let outdated = judged.outdated.as_ref().map_or(known, |outdated| count(outdated.len()));
    let ready = injected().filter(|pod| pod.ready).count();
    let status = WalStorageStatus {
        observed_generation: generation,
        summary: Some(format!("{ready}/{}", injected().count())),
        conditions: Some(conditions.finish()),
        config_hash: built.hash.clone(),
        urls,
        pods: Some(PodCounts {
            injected: count(injected().count()),
            gated: count(injected().filter(|pod| pod.gated).count()),
            outdated,
        }),
        writers: Some(writers(&found.writers)),
    };
    (status, next)
}

fn count(number: usize) -> Option<i64> {
    i64::try_from(number).ok()
}

fn rendered(found: &Found, built: &Built) -> Said {
    match (&built.config, &built.finalizer) {
        (_, Finalizer::Remove | Finalizer::Nothing) => Said::no("Deleting", "the WalStorage is being deleted"),
        _ if found.namespace_ends => Said::no("NamespaceTerminating", "the namespace is being deleted"),
        (ConfigStep::Leave | ConfigStep::Create(_) | ConfigStep::Apply { .. }, _) => {
            Said::yes("Rendered", built.hash.as_deref().unwrap_or_default())
        }
    }
}

fn ready(found: &Found, parts: &[&Said], stuck: Option<String>) -> Said {
    if let Some(not) = parts.iter().find(|said| said.is != super::conditions::Is::True) {
        return Said::no(not.reason, not.message.clone());
    }
    if let Some(stuck) = stuck {
        return Said::no("NoWritableDirectory", stuck);
    }
    match pods::injected(&found.pods).count() {
        0 => Said::yes("NoPods", "no pod asks for it: label one walstorage.dev/storage"),
        _ => Said::yes("Ready", ""),
    }
}

/// The sentence once writers could write nowhere for too long; until then, how long to wait for that.
fn unwritable_for(found: &Found, since: Option<Timestamp>, grace: Duration) -> (Option<String>, Option<Duration>) {
    let Some(since) = since else { return (None, None) };
    let elapsed = Duration::try_from(found.now.duration_since(since)).unwrap_or_default();
    match grace.checked_sub(elapsed) {
        Some(left) if !left.is_zero() => (None, Some(left)),
        _ => {
            let writers = directories::unwritable(found);
            let sentence = format!("{} has no directory that takes entries", some(&writers, "writer"));
            (Some(sentence), None)
        }
    }
}

fn pods_up_to_date(found: &Found, outdated: Option<&BTreeSet<String>>) -> Said {
    let Some(outdated) = outdated else {
        return Said::unknown("NotObserved", "the controller was not told the sidecar's image (--sidecar-image)");
    };
    let all = pods::injected(&found.pods).count();
    if outdated.is_empty() {
        return Said::yes("UpToDate", "");
    }
    let namespace = found.storage.metadata.namespace.as_deref().unwrap_or_default();
    let command = pods::restart_command(namespace, &found.pods, outdated);
    let sentence = format!(
        "{} of {all} pods have another sidecar than they would get now; when it suits: {command}",
        outdated.len()
    );
    Said::no("RestartNeeded", sentence)
}

fn undrained(found: &Found) -> Said {
    let orphaned: Vec<&WalWriter> =
        found.writers.iter().map(AsRef::as_ref).filter(|writer| phase(writer) == Some(Phase::Orphaned)).collect();
    let Some(first) = orphaned.first() else { return Said::no("None", "") };
    let names: Vec<String> = orphaned.iter().filter_map(|writer| writer.metadata.name.clone()).collect();
    let known: i64 = orphaned.iter().filter_map(|writer| unapplied(writer)).sum();
    let unknown = orphaned.iter().any(|writer| unapplied(writer).is_none());
    let entries = match (known, unknown) {
        (0, true) => "entries that nobody counted".to_owned(),
        (known, true) => format!("{known} entries and more that nobody counted"),
        (known, false) => format!("{known} entries"),
    };
    let namespace = found.storage.metadata.namespace.as_deref().unwrap_or_default();
    let name = first.metadata.name.as_deref().unwrap_or_default();
    let drain = if has_bucket(found) && orphaned.iter().any(|writer| is_on_disks(writer)) {
        format!(
            "; what is on disks can be moved to the bucket: kubectl get walwriters,walstorages -n {namespace} -o yaml | \
             walstorage-operator render drain {name} -f -"
        )
    } else {
        String::new()
    };
    let sentence = format!(
        "{} without a pod, with {entries}: scale the workload up until they are applied, or give them up one by one: kubectl annotate \
         walwriter -n {namespace} {name} {ANNOTATION_ABANDON}={}{drain}",
        some(&names, "writer"),
        first.spec.writer_uid
    );
    Said::yes("OrphanedWriters", sentence)
}

fn has_bucket(found: &Found) -> bool {
    found.storage.spec.wal_urls.iter().flatten().any(|url| !url.url.starts_with("file:"))
}

/// Whether a writer may have entries on its claims.
fn is_on_disks(writer: &WalWriter) -> bool {
    let volumes = writer.status.iter().flat_map(|status| status.volumes.iter().flatten());
    volumes.into_iter().any(|volume| volume.claim_name.is_some() && volume.empty != Some(Empty::True))
}

fn reconciling(found: &Found, built: &Built, judged: &Judged) -> Said {
    match &built.finalizer {
        Finalizer::Wait(why) => Said::yes("Deleting", why),
        Finalizer::Remove | Finalizer::Nothing => Said::yes("Deleting", ""),
        Finalizer::Keep | Finalizer::Add if judged.draining.is_empty() => Said::no("Done", ""),
        Finalizer::Keep | Finalizer::Add => {
            let names: Vec<String> = judged.draining.iter().map(|draining| draining.name.clone()).collect();
            let emptied = directories::emptied(found, &judged.draining);
            Said::yes(
                "Draining",
                format!("{} is drained before it leaves the configuration{emptied}", some(&names, "removed URL")),
            )
        }
    }
}

fn phase(writer: &WalWriter) -> Option<Phase> {
    writer.status.as_ref()?.phase
}

fn unapplied(writer: &WalWriter) -> Option<i64> {
    writer.status.as_ref()?.last_report.as_ref()?.unapplied_entries
}

/// Entries that are known to be unapplied in a writer that no pod holds: what a holder has is counted by its sidecar.
pub(super) fn left_behind(writer: &WalWriter) -> i64 {
    match phase(writer) {
        Some(Phase::Released | Phase::Orphaned | Phase::Lost) => unapplied(writer).unwrap_or_default(),
        Some(Phase::Pending | Phase::Active | Phase::Releasing | Phase::Drained | Phase::Reclaiming) | None => 0,
    }
}

fn writers(writers: &[impl AsRef<WalWriter>]) -> WriterCounts {
    let of = |wanted: Phase| count(writers.iter().filter(|writer| phase(writer.as_ref()) == Some(wanted)).count());
    WriterCounts {
        pending: of(Phase::Pending),
        active: of(Phase::Active),
        releasing: of(Phase::Releasing),
        released: of(Phase::Released),
        orphaned: of(Phase::Orphaned),
        drained: of(Phase::Drained),
        reclaiming: of(Phase::Reclaiming),
        lost: of(Phase::Lost),
        unapplied: Some(writers.iter().map(|writer| left_behind(writer.as_ref())).sum()),
    }
}

/// Writes the status, if it differs from what stands, and gives the version that it made; over the version that it was made from: an old copy of the storage
/// would give its conditions another time, and say things twice.
///
/// # Errors
/// When the API server does not answer or refuses; a conflict when somebody wrote the storage meanwhile.
pub async fn write(
    client: &Client,
    found: &Found,
    version: Option<String>,
    status: WalStorageStatus,
) -> Result<Option<String>, Error> {
    if found.storage.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let ObjectMeta { name, namespace, uid, .. } = found.storage.metadata.clone();
    let api: Api<WalStorage> = Api::namespaced(client.clone(), namespace.as_deref().unwrap_or_default());
    // All of the status is ours: to have it merged would cost the API server several times as much.
    let written = WalStorage {
        metadata: ObjectMeta { name, namespace, uid, resource_version: version, ..ObjectMeta::default() },
        spec: found.storage.spec.clone(),
        status: Some(status),
    };
    let by_us = PostParams { field_manager: Some(CONTROLLER.to_owned()), ..PostParams::default() };
    match api.replace_status(&found.storage.name_any(), &by_us, &written).await {
        Ok(written) => Ok(written.metadata.resource_version),
        Err(Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
