//! A node that does not come back: what ran there runs on another one, with all that was acknowledged, by the commands of its
//! runbook.
//!
//! Volumes are of a storage that every node reaches. The test is its driver: each lies in the cluster's folder and is attached
//! to one node at a time, to the next only when the one before is off.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, PostParams};
use serde_json::json;
use walstorage_cluster_tests::runbook::{command_of, filled, paste};
use walstorage_cluster_tests::skip::skipped;
use walstorage_cluster_tests::story::{Story, stateful_set, storage};
use walstorage_cluster_tests::{Cluster, charts, eventually, tools};
use walstorage_crds::walwriter::{Phase, WalWriter};

const PAGE: &str = "WalWriterStuck.md";
const CLASS: &str = "everywhere";
/// Entries of each pod before its node is lost.
const ENTRIES: u64 = 50;

/// A volume that both nodes could have, for the claim of a writer.
async fn volume(story: &Story<'_>, writer: &str) {
    let volumes: Api<PersistentVolume> = Api::all(story.cluster().client());
    let volume = json!({
        "metadata": {"name": writer},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteOncePod"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": format!("/var/lib/everywhere/{writer}")},
            "claimRef": {"namespace": story.namespace(), "name": format!("wal-log--data-{writer}")},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1", "node2"]},
            ]}]}},
        },
    });
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
}

/// Attaches the volume of a writer to a node. Where it was attached before may still be letting go of it.
async fn attach(cluster: &Cluster, node: &str, writer: &str) {
    let (image, path) = (format!("/run/cluster/folder/{writer}.img"), format!("/var/lib/everywhere/{writer}"));
    let script = format!(
        "mkdir -p {path}; test -e {image} || {{ truncate -s 64M {image}; mkfs.ext4 -q -F -m0 {image}; }}; \
         mountpoint -q {path} || mount -o loop {image} {path}"
    );
    eventually(&format!("the volume of {writer} is attached to {node}"), || cluster.run(node, &script)).await;
}

async fn writer(story: &Story<'_>, name: &str) -> WalWriter {
    story.writers().get(&format!("log.{name}")).await.unwrap()
}

/// The pod of this name runs on the node that is left, and has what was acknowledged.
async fn has_moved(story: &Story<'_>, old: &Pod, before: &WalWriter, acknowledged: u64) -> Result<()> {
    let name = old.metadata.name.as_deref().context("a name")?;
    let pod = story.another(old).await?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    ensure!(node.as_deref() == Some("node1"), "{name} is on {node:?}");
    let after = story.phase("log", name, Phase::Active).await?;
    ensure!(after.spec.writer_uid == before.spec.writer_uid, "another writer");
    let (after, before) = (after.status.unwrap_or_default(), before.status.clone().unwrap_or_default());
    ensure!(after.epoch > before.epoch, "{:?} after {:?}", after.epoch, before.epoch);
    ensure!(after.last_report.is_none(), "whose node went has said nothing: {:?}", after.last_report);
    let verdict = story.check(name, acknowledged).await?;
    ensure!(verdict.is_whole() && verdict.entries >= acknowledged, "{verdict:?}");
    Ok(())
}

#[tokio::test]
async fn pods_of_a_lost_node_come_up_on_another_one_as_the_runbook_says() {
    if let Some(why) = tools::why_no_node() {
        return skipped("pods_of_a_lost_node_come_up_on_another_one_as_the_runbook_says", &why);
    }
    let cluster = Cluster::start().await.unwrap();
    // The operator stays.
    charts::install(&cluster, &["--set=controller.replicas=1,webhook.replicas=1"]).unwrap();
    cluster.add_node().await.unwrap();
    let classes: Api<StorageClass> = Api::all(cluster.client());
    let class = json!({"metadata": {"name": CLASS}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer"});
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    let story = Story::begin(&cluster, "lost").await;
    let pods = ["tainted-0", "forced-0"];
    for pod in pods {
        volume(&story, pod).await;
        attach(&cluster, "node2", pod).await;
    }
    cluster.kubectl(&["cordon", "node1"]).unwrap();
    let volume = json!({"size": "64Mi", "storageClassName": CLASS});
    let spec = json!({
        "walUrls": [{"name": "data", "url": "file:///wal/data", "volume": volume}], "globalFlushThreshold": "64Mi",
    });
    let set = |name| stateful_set(name, "log", 1, &["--every", "10"]);
    story.apply(&[storage("log", &spec), set("tainted"), set("forced")]).unwrap();
    let (mut old, mut acknowledged) = (Vec::new(), Vec::new());
    for pod in pods {
        let running = story.ready(pod).await.unwrap();
        assert_eq!(running.spec.as_ref().unwrap().node_name.as_deref(), Some("node2"));
        old.push(running);
        story.phase("log", pod, Phase::Active).await.unwrap();
        acknowledged.push(story.append_until(pod, ENTRIES).await.unwrap());
    }
    let before = [writer(&story, pods[0]).await, writer(&story, pods[1]).await];

    cluster.power_off("node2").await.unwrap();
    eventually("the node is missed", || async {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let state = cluster.kubectl(&["get", "node", "node2", "-o", ready])?;
        ensure!(state == "Unknown", "{state}");
        Ok(())
    })
    .await;
    cluster.kubectl(&["uncordon", "node1"]).unwrap();
    for pod in pods {
        attach(&cluster, "node1", pod).await;
    }

    // Nobody has said yet that it is off: whoever holds a writer there keeps it, also when it is to be deleted.
    story.kubectl(&["delete", "pod", "tainted-0", "--wait=false"]).unwrap();
    let held = story.phase("log", "tainted-0", Phase::Releasing).await.unwrap().status.unwrap();
    assert_eq!(held.holder, before[0].status.as_ref().unwrap().holder);

    let force = command_of(PAGE, "kubectl delete pod");
    assert!(force.contains("--force"), "{force}");
    paste(&cluster, &filled(&force, story.namespace(), "forced-0")).unwrap();
    has_moved(&story, &old[1], &before[1], acknowledged[1]).await.unwrap();
    let held = writer(&story, "tainted-0").await.status.unwrap();
    assert_eq!((held.phase, held.holder), (Some(Phase::Releasing), before[0].status.clone().unwrap().holder));

    let taint = command_of(PAGE, "kubectl taint node").replace("NODE", "node2");
    assert!(taint.contains("out-of-service"), "{taint}");
    paste(&cluster, &taint).unwrap();
    has_moved(&story, &old[0], &before[0], acknowledged[0]).await.unwrap();
}
