//! Which pods have another sidecar than they would get now. Pure.
//!
//! What the webhook would write is computed by the webhook's own function, from what the cache keeps of the pod.

use std::collections::BTreeSet;

use walstorage_crds::names::{ANNOTATION_POD_HASH, LABEL_WRITER};
use walstorage_crds::walstorage::Effective;
use walstorage_crds::walwriter::{WalWriter, WriterVolume};

use super::dereference::Found;
use super::pods::PodView;
use crate::webhook::patch::{Settings, Storage, pod_hash};

/// Names of the pods that are outdated.
#[must_use]
pub fn outdated(found: &Found, effective: &Effective, settings: &Settings) -> BTreeSet<String> {
    let name = found.storage.metadata.name.as_deref().unwrap_or_default();
    let storage = Storage { name, effective };
    let live = found.pods.iter().filter(|pod| pod.live && pod.injected);
    live.filter(|pod| is_outdated(pod, storage, &found.writers, settings)).map(|pod| pod.name.clone()).collect()
}

fn is_outdated(pod: &PodView, storage: Storage<'_>, writers: &[impl AsRef<WalWriter>], settings: &Settings) -> bool {
    let Some(raw) = pod.pod.as_ref().and_then(|pod| serde_json::to_value(&**pod).ok()) else { return false };
    let text = |path: &str, key: &str| raw.pointer(path)?.get(key)?.as_str().map(str::to_owned);
    let (Some(has), Some(writer)) =
        (text("/metadata/annotations", ANNOTATION_POD_HASH), text("/metadata/labels", LABEL_WRITER))
    else {
        return false;
    };
    let of = writers.iter().map(AsRef::as_ref).find(|known| known.spec.writer == writer);
    let ledger: &[WriterVolume] = of.and_then(|writer| writer.status.as_ref()?.volumes.as_deref()).unwrap_or_default();
    // One that could get no sidecar at all now goes on with the one that it has.
    pod_hash(&raw, storage, ledger, settings).is_ok_and(|now| now != has)
}
