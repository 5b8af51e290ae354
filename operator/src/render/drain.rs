//! `render drain`: the Job that moves the entries of a writer without a pod from its disks to the buckets of its storage.
//!
//! What is said about the writer is what `kubectl get -o yaml` prints of it; the webhook looks again when the pod is made.

use serde_json::{Value, json};
use walstorage_crds::names::{ANNOTATION_DRAIN, LABEL_STORAGE, short};
use walstorage_crds::walstorage::{Credentials, Effective, Place, WalStorage, validate};
use walstorage_crds::walwriter::{Empty, Phase, WalWriter, WriterVolume};

use super::{File, Rendered};
use crate::webhook::json::{list, text};
use crate::webhook::patch::Settings;
use crate::webhook::refusal::Refusal;
use crate::yaml;

/// What the files say that has to do with a writer.
struct Known {
    writer: WalWriter,
    /// Its storage, where a file has it.
    storage: Option<WalStorage>,
}

/// The Job that empties the writer of this name: that of its WalWriter, or without the storage. Its pod runs as
/// `service_account`.
///
/// # Errors
/// Why there is none, a sentence each.
pub fn drain(
    files: &[File],
    writer: &str,
    settings: &Settings,
    service_account: Option<&str>,
) -> Result<Rendered, Vec<String>> {
    let Known { writer, storage } = find(files, writer)?;
    check(&writer).map_err(|error| vec![error])?;
    let mut warnings = Vec::new();
    let name = &writer.spec.storage;
    match &storage {
        None => warnings.push(format!(
            "WalStorage {name} is in none of the files: whether it has a bucket is seen when the Job's pod is made"
        )),
        Some(storage) => {
            let effective = validate(name, &storage.spec, [&writer])
                .map_err(|refusals| refusals.iter().map(ToString::to_string).collect::<Vec<_>>())?;
            if !buckets(&effective).any(|_| true) {
                return Err(vec![Refusal::NowhereToDrain { storage: name.clone() }.to_string()]);
            }
            let by_identity = |given: &Credentials| given.workload_identity.is_some();
            if service_account.is_none() && buckets(&effective).flatten().any(by_identity) {
                warnings.push(format!(
                    "a bucket of WalStorage {name} is reached as the pods' service account: name that of the workload with --service-account"
                ));
            }
        }
    }
    let text = yaml::print_sorted(&job(&writer, settings, service_account)).map_err(|error| vec![error])?;
    Ok(Rendered { text, warnings })
}

/// The buckets that are written to, each with its credentials.
fn buckets(effective: &Effective) -> impl Iterator<Item = Option<&Credentials>> {
    effective.urls.iter().filter_map(|url| match &url.place {
        Place::Bucket(bucket) => Some(bucket.spec.credentials.as_ref()),
        Place::Disk(_) => None,
    })
}

fn find(files: &[File], name: &str) -> Result<Known, Vec<String>> {
    let (mut writers, mut storages) = (Vec::new(), Vec::new());
    for file in files {
        let documents =
            yaml::documents(&file.text).map_err(|error| vec![format!("{}: not YAML: {error}", file.name)])?;
        for document in documents.iter().flat_map(|(_, document)| items(document)) {
            let wrong = |error: serde_json::Error| {
                let what = text(document, "/metadata/name").unwrap_or_default();
                vec![format!("{}: {} {what}: {error}", file.name, text(document, "/kind").unwrap_or_default())]
            };
            match text(document, "/kind") {
                Some("WalWriter") => {
                    writers.push(serde_json::from_value::<WalWriter>(document.clone()).map_err(wrong)?)
                }
                Some("WalStorage") => {
                    storages.push(serde_json::from_value::<WalStorage>(document.clone()).map_err(wrong)?);
                }
                _ => {}
            }
        }
    }
    let is_meant = |writer: &&WalWriter| writer.metadata.name.as_deref() == Some(name) || writer.spec.writer == name;
    let meant: Vec<&WalWriter> = writers.iter().filter(is_meant).collect();
    let [writer] = meant.as_slice() else {
        let known: Vec<&str> = writers.iter().filter_map(|writer| writer.metadata.name.as_deref()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(vec![format!(
            "{} WalWriters {name} in the files (there are: {known}); allowed: exactly one, as printed by kubectl get walwriter -n \
             NAMESPACE STORAGE.WRITER -o yaml",
            meant.len()
        )]);
    };
    let of_writer = |storage: &WalStorage| {
        storage.metadata.name.as_ref() == Some(&writer.spec.storage)
            && storage.metadata.namespace == writer.metadata.namespace
    };
    let storage = storages.into_iter().find(of_writer);
    Ok(Known { writer: WalWriter::clone(writer), storage })
}

/// A document, or those of a list.
fn items(document: &Value) -> Vec<&Value> {
    let is_list = text(document, "/kind").is_some_and(|kind| kind.ends_with("List"));
    if is_list { list(document, "/items").iter().collect() } else { vec![document] }
}

/// Whether there is anything to do, and whether it can be done now.
fn check(writer: &WalWriter) -> Result<(), String> {
    let name = writer.metadata.name.as_deref().unwrap_or_default();
    let status = writer.status.clone().unwrap_or_default();
    if !matches!(status.phase, Some(Phase::Released | Phase::Orphaned)) {
        return Err(format!(
            "WalWriter {name} is {}, and only one that is Released or Orphaned can be emptied: wait until its pod is gone",
            status.phase.map_or("new", Phase::as_str)
        ));
    }
    let on_disk = |volume: &WriterVolume| volume.claim_name.is_some() && volume.empty != Some(Empty::True);
    if !status.volumes.iter().flatten().any(on_disk) {
        return Err(format!("WalWriter {name} has nothing on disks: what it has is in buckets already"));
    }
    Ok(())
}

fn job(writer: &WalWriter, settings: &Settings, service_account: Option<&str>) -> Value {
    let spec = &writer.spec;
    let mut pod = json!({
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "drain",
            "image": settings.image,
            "imagePullPolicy": settings.pull_policy,
            "command": ["/walctl", "drain"],
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
            },
        }],
    });
    match service_account {
        Some(name) => pod["serviceAccountName"] = name.into(),
        None => pod["automountServiceAccountToken"] = false.into(),
    }
    let mut metadata = json!({"name": short(&format!("drain-{}-{}", spec.storage, spec.writer))});
    if let Some(namespace) = &writer.metadata.namespace {
        metadata["namespace"] = namespace.as_str().into();
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            // What it has moved stays moved: another try is a new Job, for which the writer has to be free again.
            "backoffLimit": 0,
            "template": {
                "metadata": {
                    "labels": {LABEL_STORAGE: spec.storage},
                    "annotations": {ANNOTATION_DRAIN: spec.writer_uid},
                },
                "spec": pod,
            },
        },
    })
}
