//! Provisions, grows and removes volumes, as a storage driver would.
//!
//! A volume is a file with a file system of its own, mounted in its node: it has a size, fills up, and survives the
//! node's processes. From 300 MiB it is XFS, which grows while mounted; below, where XFS cannot be made, ext4 without
//! reserved blocks, which here does not grow. Claims of class `wal`, the default, get theirs once a pod wants them,
//! those of `wal-immediate` at once and then on `node1`.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use walstorage_crds::quantity::ByteSize;

use super::node::Shell;

pub(super) const PROVISIONER: &str = "test.walstorage.dev/volumes";
const SMALLEST_XFS: u64 = 300 << 20;

/// Makes the storage classes.
pub(super) async fn create_classes(client: &Client) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(client.clone());
    for (name, mode, default) in [("wal", "WaitForFirstConsumer", "true"), ("wal-immediate", "Immediate", "false")] {
        let class: StorageClass = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": PROVISIONER,
            "reclaimPolicy": "Delete",
            "volumeBindingMode": mode,
            "allowVolumeExpansion": true,
        }))?;
        classes.create(&PostParams::default(), &class).await?;
    }
    Ok(())
}

/// Serves claims for ever; what fails is tried again, and stands in `log`.
pub(super) async fn provide(client: Client, shell: Shell, log: PathBuf) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    // While a node is down this fails all the time; what lasts is said once.
    let mut last = String::new();
    loop {
        ticks.tick().await;
        if let Err(error) = serve(&client, &shell).await {
            let said = format!("{error:#}");
            if said != last {
                note(&log, &error);
                last = said;
            }
        }
    }
}

/// Writes down what failed.
pub(super) fn note(log: &Path, error: &anyhow::Error) {
    let file = OpenOptions::new().create(true).append(true).open(log);
    let _ = file.and_then(|mut file| file.write_all(format!("{error:#}\n").as_bytes()));
}

async fn serve(client: &Client, shell: &Shell) -> Result<()> {
    let classes: Api<StorageClass> = Api::all(client.clone());
    let ours: HashMap<String, StorageClass> = classes
        .list(&ListParams::default())
        .await?
        .into_iter()
        .filter(|class| class.provisioner == PROVISIONER)
        .map(|class| (class.name_any(), class))
        .collect();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let known = volumes.list(&ListParams::default()).await?.items;
    let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
    for claim in claims.list(&ListParams::default()).await? {
        let Some(wanted) = Wanted::of(&claim, &ours) else { continue };
        match wanted.task {
            Task::Make { ref node } if known.iter().all(|volume| volume.name_any() != wanted.volume) => {
                make(shell, node, &wanted).await?;
                volumes.create(&PostParams::default(), &volume(&claim, &wanted, node)?).await?;
            }
            Task::Make { .. } => {}
            Task::Grow => {
                let Some(node) = known.iter().find(|it| it.name_any() == wanted.volume).and_then(node_of) else {
                    continue;
                };
                grow(shell, &node, &wanted).await?;
                let size = json!({"spec": {"capacity": {"storage": wanted.size}}});
                volumes.patch(&wanted.volume, &PatchParams::default(), &Patch::Merge(size)).await?;
                let status = json!({"status": {"capacity": {"storage": wanted.size}, "conditions": null}});
                let claims: Api<PersistentVolumeClaim> =
                    Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
                claims.patch_status(&claim.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
            }
        }
    }
    for volume in known {
        if is_done_with(&volume, &ours) {
            if let Some(node) = node_of(&volume) {
                let path = path(&volume.name_any());
                shell.run(&node, &format!("umount {path} 2>/dev/null || true; rm -rf {path} {path}.img")).await?;
            }
            volumes.delete(&volume.name_any(), &DeleteParams::default()).await?;
        }
    }
    Ok(())
}

/// Whether a volume is ours to remove: its claim is gone.
pub(super) fn is_done_with(volume: &PersistentVolume, ours: &HashMap<String, StorageClass>) -> bool {
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = volume.spec.as_ref();
    let deletes = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
    let of_ours = spec.and_then(|spec| spec.storage_class_name.as_ref()).is_some_and(|it| ours.contains_key(it));
    deletes && of_ours && matches!(phase, Some("Released" | "Failed"))
}

/// What a claim waits for.
pub(super) struct Wanted {
    pub(super) volume: String,
    pub(super) size: Quantity,
    bytes: u64,
    pub(super) task: Task,
}

pub(super) enum Task {
    Make { node: String },
    Grow,
}

impl Wanted {
    /// `None` when the claim is not ours or has all that it wants.
    pub(super) fn of(claim: &PersistentVolumeClaim, ours: &HashMap<String, StorageClass>) -> Option<Self> {
        let spec = claim.spec.as_ref()?;
        let class = ours.get(spec.storage_class_name.as_ref()?)?;
        let size = spec.resources.as_ref()?.requests.as_ref()?.get("storage")?.clone();
        let bytes = in_bytes(&size)?;
        let status = claim.status.as_ref();
        if let Some(volume) = &spec.volume_name {
            let bound = status.and_then(|status| status.phase.as_deref()) == Some("Bound");
            let has = status.and_then(|status| in_bytes(status.capacity.as_ref()?.get("storage")?)).unwrap_or(0);
            return (bound && bytes > has).then(|| Self { volume: volume.clone(), size, bytes, task: Task::Grow });
        }
        let chosen = claim.annotations().get("volume.kubernetes.io/selected-node");
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        let node = match chosen {
            Some(node) => node.clone(),
            None if waits => return None,
            None => "node1".to_owned(),
        };
        Some(Self { volume: format!("pvc-{}", claim.uid()?), size, bytes, task: Task::Make { node } })
    }
}

fn in_bytes(size: &Quantity) -> Option<u64> {
    ByteSize::parse(&size.0).ok().map(ByteSize::bytes)
}

fn path(volume: &str) -> String {
    format!("/var/lib/volumes/{volume}")
}

async fn make(shell: &Shell, node: &str, wanted: &Wanted) -> Result<()> {
    let (path, bytes) = (path(&wanted.volume), wanted.bytes);
    let format = if bytes >= SMALLEST_XFS { "mkfs.xfs -q -f" } else { "mkfs.ext4 -q -F -m0" };
    let script = format!(
        "mkdir -p {path}; truncate -s {bytes} {path}.img; {format} {path}.img; mount -o loop {path}.img {path}"
    );
    shell.run(node, &script).await.with_context(|| format!("cannot make {}", wanted.volume)).map(drop)
}

async fn grow(shell: &Shell, node: &str, wanted: &Wanted) -> Result<()> {
    let (path, bytes) = (path(&wanted.volume), wanted.bytes);
    let script = format!(
        "truncate -s {bytes} {path}.img; losetup -c $(losetup -n -O NAME -j {path}.img); xfs_growfs {path} >/dev/null"
    );
    shell.run(node, &script).await.with_context(|| format!("cannot grow {}", wanted.volume)).map(drop)
}

/// The volume of a claim.
pub(super) fn volume(claim: &PersistentVolumeClaim, wanted: &Wanted, node: &str) -> Result<PersistentVolume> {
    let spec = claim.spec.as_ref().context("a claim without spec")?;
    Ok(serde_json::from_value(json!({
        "metadata": {"name": wanted.volume, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": wanted.size},
            "accessModes": spec.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec.storage_class_name,
            "local": {"path": path(&wanted.volume)},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.namespace(), "name": claim.name_any(), "uid": claim.uid(),
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
            ]}]}},
        },
    }))?)
}

/// The node that a volume is on.
fn node_of(volume: &PersistentVolume) -> Option<String> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    affinity.node_selector_terms.first()?.match_expressions.as_ref()?.first()?.values.as_ref()?.first().cloned()
}
