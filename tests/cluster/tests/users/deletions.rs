//! What is deleted, and what becomes of the entries: nothing that is not applied goes unless somebody said so.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::{Value, json};
use walstorage_cluster_tests::story::{COLLECTION, Story, disk, stateful_set, storage};
use walstorage_cluster_tests::{charts, eventually, pods};
use walstorage_crds::walwriter::Phase;

const CLAIM_0: &str = "wal-log--data-app-0";
const CLAIM_1: &str = "wal-log--data-app-1";

/// A WalStorage called `log` with one small disk.
fn log(when_deleted: &str) -> Value {
    let policy = json!({"whenDeleted": when_deleted});
    let urls = json!([disk("data", "64Mi")]);
    storage("log", &json!({"walUrls": urls, "globalFlushThreshold": "64Mi", "reclaimPolicy": policy}))
}

/// Deletes without waiting, as somebody does who looks afterwards.
fn delete(story: &Story<'_>, kind: &str, name: &str) {
    story.kubectl(&["delete", kind, name, "--wait=false"]).unwrap();
}

fn scale(story: &Story<'_>, replicas: usize) {
    story.kubectl(&["scale", "statefulset", "app", &format!("--replicas={replicas}")]).unwrap();
}

async fn claim_uid(story: &Story<'_>, name: &str) -> String {
    story.claims().get(name).await.expect("the claim").metadata.uid.unwrap()
}

async fn is_there(story: &Story<'_>, name: &str) -> bool {
    story.claims().get_opt(name).await.unwrap().is_some_and(|claim| claim.metadata.deletion_timestamp.is_none())
}

#[tokio::test]
async fn a_deleted_storage_waits_for_its_pods_and_a_new_one_finds_the_entries() {
    let test = "a_deleted_storage_waits_for_its_pods_and_a_new_one_finds_the_entries";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "retain").await;
    story.apply(&[log("Retain"), stateful_set("app", "log", 1, &["--every", "10"])]).unwrap();
    let pod = story.ready("app-0").await.unwrap();
    story.append_until("app-0", 20).await.unwrap();
    let claim = claim_uid(&story, CLAIM_0).await;

    delete(&story, "walstorage", "log");
    let waits = story.condition("log", "Reconciling", "True", "Deleting").await.unwrap();
    assert_eq!(waits.message, "1 pod (app-0) still uses it; delete or scale down what they belong to");
    let new = ["run", "new", "--image=x", "--labels=walstorage.dev/storage=log", "--dry-run=server"];
    let refused = story.kubectl(&new).expect_err("refused").to_string();
    assert!(refused.contains("WalStorage log is being deleted: create it again once it is gone"), "{refused}");
    // Pods that have it go on, with their configuration.
    story.append_until("app-0", story.acknowledged("app-0").unwrap() + 20).await.unwrap();
    story.kubectl(&["get", "configmap", "log-walstorage"]).expect("the configuration stays as long");
    assert_eq!(story.ready("app-0").await.unwrap().metadata.uid, pod.metadata.uid);

    let acknowledged = story.acknowledged("app-0").unwrap();
    scale(&story, 0);
    story.gone("pod", "app-0").await.unwrap();
    story.gone("walstorage", "log").await.unwrap();
    story.gone("configmap", "log-walstorage").await.unwrap();
    // Nobody applies them, and no storage speaks of them.
    let writer = story.phase("log", "app-0", Phase::Orphaned).await.unwrap();
    let left = writer.status.unwrap().last_report.unwrap().unapplied_entries.unwrap();
    assert!(left >= i64::try_from(acknowledged).unwrap(), "{left} of {acknowledged}");
    assert_eq!(claim_uid(&story, CLAIM_0).await, claim);

    story.apply(&[log("Retain")]).unwrap();
    scale(&story, 1);
    story.ready("app-0").await.unwrap();
    story.check("app-0", acknowledged).await.unwrap();
    assert_eq!(story.phase("log", "app-0", Phase::Active).await.unwrap().spec.writer_uid, writer.spec.writer_uid);
}

#[tokio::test]
async fn a_deleted_storage_takes_along_what_its_policy_names_and_nothing_else() {
    let test = "a_deleted_storage_takes_along_what_its_policy_names_and_nothing_else";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "policy").await;
    let args = ["--count", "10", "--stay"];
    story.apply(&[log("DeleteDrained"), stateful_set("app", "log", 2, &args)]).unwrap();
    for pod in ["app-0", "app-1"] {
        story.ready(pod).await.unwrap();
        story.append_until(pod, 10).await.unwrap();
    }
    let truncate = ["/wal-app", "truncate", COLLECTION, "10"];
    pods::exec(&story.pods(), "app-0", "app", &truncate).await.expect("all of it is applied");
    delete(&story, "walstorage", "log");
    story.condition("log", "Reconciling", "True", "Deleting").await.unwrap();
    assert!(is_there(&story, CLAIM_0).await && is_there(&story, CLAIM_1).await, "nothing goes under a pod");
    scale(&story, 0);
    story.gone("walstorage", "log").await.unwrap();
    story.gone("pvc", CLAIM_0).await.unwrap();
    story.gone("walwriter", "log.app-0").await.unwrap();
    let kept = story.phase("log", "app-1", Phase::Orphaned).await.unwrap();
    assert_eq!(kept.status.unwrap().last_report.unwrap().unapplied_entries, Some(10));
    assert!(is_there(&story, CLAIM_1).await, "what is not applied stays");

    // Somebody says that it may go.
    story.apply(&[log("Delete")]).unwrap();
    story.condition("log", "ConfigRendered", "True", "Rendered").await.unwrap();
    assert!(is_there(&story, CLAIM_1).await, "a policy does nothing before the deletion");
    delete(&story, "walstorage", "log");
    story.gone("walstorage", "log").await.unwrap();
    story.gone("pvc", CLAIM_1).await.unwrap();
    story.gone("walwriter", "log.app-1").await.unwrap();
}

/// Two disks: the collection lives on one, something else on the other, whose claim is deleted.
#[tokio::test]
async fn a_claim_deleted_under_its_pod_makes_the_writer_lost_until_somebody_accepts_it() {
    let test = "a_claim_deleted_under_its_pod_makes_the_writer_lost_until_somebody_accepts_it";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "lost").await;
    let urls = json!([disk("a", "64Mi"), disk("b", "64Mi")]);
    let spec = json!({"walUrls": urls, "globalFlushThreshold": "64Mi"});
    story.apply(&[storage("log", &spec), stateful_set("app", "log", 1, &["--every", "10"])]).unwrap();
    let pod = story.ready("app-0").await.unwrap();
    story.append_until("app-0", 20).await.unwrap();
    let (kept, other) = if home(&story, COLLECTION).await == "file:///wal/a" { ("a", "b") } else { ("b", "a") };
    let other_url = format!("file:///wal/{other}");
    let there = eventually("a collection lives on the other disk", || async {
        let name = format!("more-{}", uuid::Uuid::new_v4());
        pods::exec(&story.pods(), "app-0", "app", &["/wal-app", "append", &name, "--count", "5"]).await?;
        let home = home(&story, &name).await;
        ensure!(home == other_url, "{home}");
        Ok(name)
    })
    .await;

    let claim = format!("wal-log--{other}-app-0");
    let uid = claim_uid(&story, &claim).await;
    delete(&story, "pvc", &claim);
    // Kubernetes keeps it as long as the pod, and so does everything else.
    story.append_until("app-0", story.acknowledged("app-0").unwrap() + 20).await.unwrap();
    story.phase("log", "app-0", Phase::Active).await.unwrap();

    let acknowledged = story.acknowledged("app-0").unwrap();
    delete(&story, "pod", "app-0");
    let why = story.event("WalWriter", "log.app-0", "Lost").await.unwrap();
    let missing = format!("{other}: claim {uid} is missing; if it does not come back: ");
    let command = why.strip_prefix(&missing).with_context(|| why.clone()).unwrap();
    story.phase("log", "app-0", Phase::Lost).await.unwrap();
    let ready = story.condition("log", "Ready", "False", "ClaimLost").await.unwrap();
    assert!(ready.message.contains("1 writer (log.app-0) lost a claim"), "{}", ready.message);
    eventually("the next pod waits behind its gate", || async {
        let next = story.pods().get("app-0").await?;
        ensure!(next.metadata.uid != pod.metadata.uid, "the old one");
        let gates = next.spec.context("a spec")?.scheduling_gates.unwrap_or_default();
        ensure!(gates.iter().any(|gate| gate.name == "walstorage.dev/writer"), "{gates:?}");
        Ok(())
    })
    .await;
    let waiting = story.event("Pod", "app-0", "WaitingForWriter").await.unwrap();
    assert_eq!(waiting, format!("writer app-0 is Lost: kubectl describe walwriter -n {} log.app-0", story.namespace()));
    let kept_claim = format!("wal-log--{kept}-app-0");
    assert!(is_there(&story, &kept_claim).await);

    story.obey(command).unwrap();
    story.ready("app-0").await.unwrap();
    story.check("app-0", acknowledged).await.expect("what lay on the other disk is whole");
    assert_ne!(claim_uid(&story, &claim).await, uid);
    story.event("WalWriter", "log.app-0", "LossAccepted").await.unwrap();
    // What was lost is reported as a gap, never passed over.
    let read = story.walctl("app-0", &["read", &there]).await.unwrap();
    assert!(read.to_lowercase().contains("gap") && read.contains('5'), "{read}");
    story.condition("log", "Ready", "True", "Ready").await.unwrap();
}

/// The directory that a collection lives on.
async fn home(story: &Story<'_>, collection: &str) -> String {
    let said = story.walctl("app-0", &["collections", "--output", "json"]).await.unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let found = said["collections"].as_array().unwrap().iter().find(|it| it["name"] == collection).unwrap();
    found["directory"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_deleted_writer_is_made_again_from_its_pod_or_its_claims() {
    let test = "a_deleted_writer_is_made_again_from_its_pod_or_its_claims";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "writer").await;
    story.apply(&[log("Retain"), stateful_set("app", "log", 1, &["--every", "10"])]).unwrap();
    let pod = story.ready("app-0").await.unwrap();
    story.append_until("app-0", 20).await.unwrap();
    let first = story.phase("log", "app-0", Phase::Active).await.unwrap();
    let claim = claim_uid(&story, CLAIM_0).await;
    let another = |before: Option<String>| {
        let story = &story;
        async move {
            eventually("another WalWriter of that name", || async {
                let now = story.writers().get("log.app-0").await?;
                ensure!(now.metadata.uid != before, "the old one");
                Ok(now)
            })
            .await
        }
    };

    // Under its pod, which holds it still.
    delete(&story, "walwriter", "log.app-0");
    another(first.metadata.uid.clone()).await;
    let second = story.phase("log", "app-0", Phase::Active).await.unwrap();
    let (then, now) = (first.status.as_ref().unwrap(), second.status.as_ref().unwrap());
    assert_eq!(second.spec, first.spec);
    assert_eq!((now.epoch, &now.holder.as_ref().unwrap().pod_uid), (then.epoch, pod.metadata.uid.as_ref().unwrap()));
    story.append_until("app-0", story.acknowledged("app-0").unwrap() + 20).await.unwrap();
    let same = story.ready("app-0").await.unwrap();
    assert_eq!((&same.metadata.uid, pods::restarts(&same, "walstorage")), (&pod.metadata.uid, 0));

    // Without a pod: its claims stay, and the next pod's writer is the same.
    let acknowledged = story.acknowledged("app-0").unwrap();
    scale(&story, 0);
    story.gone("pod", "app-0").await.unwrap();
    story.phase("log", "app-0", Phase::Orphaned).await.unwrap();
    delete(&story, "walwriter", "log.app-0");
    story.gone("walwriter", "log.app-0").await.unwrap();
    scale(&story, 1);
    another(second.metadata.uid).await;
    let third = story.phase("log", "app-0", Phase::Active).await.unwrap();
    assert_eq!(third.spec, first.spec);
    story.ready("app-0").await.unwrap();
    story.check("app-0", acknowledged).await.unwrap();
    assert_eq!(claim_uid(&story, CLAIM_0).await, claim);
}

/// Whoever deletes a namespace says that all of it may go.
#[tokio::test]
async fn a_deleted_namespace_ends_with_everything_in_it() {
    let test = "a_deleted_namespace_ends_with_everything_in_it";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "ends").await;
    story.apply(&[log("Retain"), stateful_set("app", "log", 2, &["--every", "10"])]).unwrap();
    for pod in ["app-0", "app-1"] {
        story.ready(pod).await.unwrap();
        story.append_until(pod, 20).await.unwrap();
    }
    let begun = Instant::now();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete(story.namespace(), &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", || async {
        let left = namespaces.get_opt(story.namespace()).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await;
    println!("a namespace with two appending pods ended in {:.1} s", begun.elapsed().as_secs_f64());
    eventually("its volumes are gone", || async {
        let volumes: Api<PersistentVolume> = Api::all(cluster.client());
        let all = volumes.list(&ListParams::default()).await?.items;
        let of = |volume: &PersistentVolume| volume.spec.as_ref()?.claim_ref.as_ref()?.namespace.clone();
        let left = all.iter().filter(|volume| of(volume).as_deref() == Some(story.namespace())).count();
        ensure!(left == 0, "{left} are left");
        Ok(())
    })
    .await;
}
