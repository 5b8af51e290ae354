//! Everyday mistakes: what a newcomer sees leads to the remedy. What docs/operations.md shows of it is what is seen here,
//! word for word, in a namespace called `shop`.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use walstorage_cluster_tests::binaries::repository;
use walstorage_cluster_tests::images::APP;
use walstorage_cluster_tests::story::{Story, disk, stateful_set, storage};
use walstorage_cluster_tests::{charts, eventually};

/// Asserts that the documentation shows what was seen.
fn documented(story: &Story<'_>, seen: &str) {
    let page = std::fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let seen = seen.replace(story.namespace(), "shop");
    for line in seen.lines() {
        assert!(page.contains(line.trim()), "docs/operations.md does not show this:\n{line}");
    }
}

/// A StatefulSet called `shop`, with what its pods have besides.
fn shop(more: &Value) -> Value {
    let mut set = stateful_set("shop", "orders", 1, &["--every", "10"]);
    for (key, value) in more.as_object().unwrap() {
        set["spec"]["template"]["spec"][key] = value.clone();
    }
    set
}

fn orders(urls: &Value, more: &Value) -> Value {
    let mut spec = json!({"walUrls": urls, "globalFlushThreshold": "64Mi"});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    storage("orders", &spec)
}

/// What is refused at once, without the words of `kubectl` around it.
fn refused(story: &Story<'_>, args: &[&str]) -> String {
    let error = story.kubectl(args).expect_err("refused").to_string();
    let at = error.find("Error from server").unwrap_or_else(|| panic!("{error}"));
    error[at..].to_owned()
}

/// What `kubectl describe` shows of the events of an object, by reason.
fn described(story: &Story<'_>, kind: &str, name: &str, reason: &str) -> anyhow::Result<String> {
    let text = story.kubectl(&["describe", kind, name])?;
    let (_, events) = text.split_once("\nEvents:").context("no events")?;
    let line = events.lines().find(|line| line.split_whitespace().nth(1) == Some(reason));
    line.map(str::to_owned).with_context(|| text.clone())
}

#[tokio::test]
async fn a_pod_that_names_an_unknown_storage_is_refused_with_the_names() {
    let test = "a_pod_that_names_an_unknown_storage_is_refused_with_the_names";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "unknown").await;
    let run = ["run", "shop", "--image", APP, "--labels", "walstorage.dev/storage=orders"];
    documented(&story, &refused(&story, &run));
    // A workload has it among its events.
    story.apply(&[shop(&json!({}))]).unwrap();
    let sentence = "there is no WalStorage orders in namespace";
    let seen = eventually("the StatefulSet says why it has no pods", || async {
        let seen = described(&story, "statefulset", "shop", "FailedCreate")?;
        ensure!(seen.contains(sentence), "{seen}");
        anyhow::Ok(seen)
    })
    .await;
    documented(&story, seen.split_once(" failed error: ").unwrap().1);
    // The remedy.
    story.apply(&[orders(&json!([disk("data", "64Mi")]), &json!({}))]).unwrap();
    story.ready("shop-0").await.unwrap();
}

#[tokio::test]
async fn a_missing_class_is_said_by_the_storage_and_all_goes_on_once_it_is_there() {
    let test = "a_missing_class_is_said_by_the_storage_and_all_goes_on_once_it_is_there";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "class").await;
    let mut url = disk("data", "64Mi");
    url["volume"]["storageClassName"] = json!("fast");
    story.apply(&[orders(&json!([url]), &json!({})), shop(&json!({}))]).unwrap();
    let said = story.condition("orders", "Ready", "False", "ClassMissing").await.unwrap();
    documented(&story, &said.message);
    let printed = story.kubectl(&["get", "wal", "orders"]).unwrap();
    assert_eq!(printed.split_whitespace().nth(8), Some("False"), "{printed}");
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"},
        "provisioner": "test.walstorage.dev/volumes", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    story.apply(&[class]).unwrap();
    story.ready("shop-0").await.unwrap();
    story.condition("orders", "Ready", "True", "Ready").await.unwrap();
}

#[tokio::test]
async fn a_bucket_without_its_secret_is_named_and_waited_for() {
    let test = "a_bucket_without_its_secret_is_named_and_waited_for";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "bucket").await;
    let bucket = json!({"region": "us-west-2", "credentials": {"secretName": "wal-s3"}});
    let url = json!({"name": "archive", "url": "s3://bucket1/wal", "bucket": bucket});
    story.apply(&[orders(&json!([url]), &json!({})), shop(&json!({}))]).unwrap();
    let said = eventually("the sidecar says what it waits for", || async {
        let status = story.walctl("shop-0", &["status"]).await?;
        let said = status.lines().find(|line| line.starts_with("s3://bucket1/wal: ") && line.contains("access_key_id"));
        anyhow::Ok(said.with_context(|| status.clone())?.trim().to_owned())
    })
    .await;
    documented(&story, &said);
    // The operator counts the pod when it hears of it, which may be after its sidecar has answered.
    eventually("the storage counts the pod that waits", || async {
        let printed = story.kubectl(&["get", "wal", "orders", "--no-headers"])?;
        let columns: Vec<&str> = printed.split_whitespace().take(3).collect();
        ensure!(columns == ["orders", "True", "0/1"], "{printed}");
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_pod_with_data_of_its_own_and_no_group_is_refused_until_it_has_one() {
    let test = "a_pod_with_data_of_its_own_and_no_group_is_refused_until_it_has_one";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "group").await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "photos"},
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "16Mi"}}},
    });
    let volumes = json!([{"name": "photos", "persistentVolumeClaim": {"claimName": "photos"}}]);
    let set = shop(&json!({"volumes": volumes}));
    story.apply(&[orders(&json!([disk("data", "64Mi")]), &json!({})), claim, set.clone()]).unwrap();
    let seen = eventually("the StatefulSet says why it has no pods", || async {
        let seen = described(&story, "statefulset", "shop", "FailedCreate")?;
        ensure!(seen.contains("fsGroup"), "{seen}");
        anyhow::Ok(seen)
    })
    .await;
    documented(&story, seen.split_once(" failed error: ").unwrap().1);
    // The remedy.
    let mut set = set;
    set["spec"]["template"]["spec"]["securityContext"]["fsGroup"] = json!(65532);
    story.apply(&[set]).unwrap();
    story.ready("shop-0").await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_named_with_what_makes_room() {
    let Some(cluster) = charts::shared_or_skip("a_full_disk_is_named_with_what_makes_room").await else { return };
    let story = Story::begin(cluster, "room").await;
    let urls = json!([disk("data", "64Mi")]);
    let set = stateful_set("shop", "orders", 1, &["--bytes", "65000"]);
    story.apply(&[orders(&urls, &json!({"compression": "null"})), set]).unwrap();
    // On a fast machine the disk is full before anybody has seen the pod ready.
    story.filled("shop-0", "file:///wal/data").await.unwrap();
    // A flush may make room once more, until nothing is left that can be moved.
    let said = eventually("the sidecar says what makes room", || async {
        let status = story.walctl("shop-0", &["status"]).await?;
        let said = status.lines().find(|line| line.starts_with("file:///wal/data: "));
        anyhow::Ok(said.with_context(|| status.clone())?.to_owned())
    })
    .await;
    documented(&story, &as_full(&said));
    let refused = story.refused("shop-0").await.unwrap();
    // What was being written when the end of the disk was met has another answer, in the words of what failed.
    if refused.contains(UNKNOWN) {
        documented(&story, UNKNOWN);
    } else {
        documented(&story, &as_full(&refused));
    }
}

const UNKNOWN: &str = "\"reason\":\"UNKNOWN_OUTCOME\"";

/// The sentence of a full disk as the documentation shows it: how far it is filled, and whether the sidecar's own bound or
/// the file system is met first, is by chance.
fn as_full(said: &str) -> String {
    const SHOWN: &str = "its file system is used to 95.9 %; entries are taken below 95 %";
    let met = if let Some(at) = said.find("No space left on device (os error 28)") {
        let (before, rest) = said.split_at(at);
        let begins = before.rfind(": cannot ").unwrap_or_else(|| panic!("no reason in {said}"));
        let (what, ends) = (&before[begins + 2..], rest.find(')').unwrap() + 1);
        format!("{what}{}", &rest[..ends])
    } else {
        let begins = said.find("its file system is used to ").unwrap_or_else(|| panic!("no reason in {said}"));
        let bound = "entries are taken below 95 %";
        let ends = said.find(bound).unwrap_or_else(|| panic!("no bound in {said}")) + bound.len();
        said[begins..ends].to_owned()
    };
    said.replace(&met, SHOWN)
}

#[test]
fn both_reasons_of_a_full_disk_are_shown_as_one() {
    let shown = "u: its file system is used to 95.9 %; entries are taken below 95 %; truncate";
    for reason in [
        "its file system is used to 97.1 %; entries are taken below 95 %",
        "cannot write: No space left on device (os error 28)",
        "cannot fill a spare: No space left on device (os error 28)",
    ] {
        assert_eq!(as_full(&format!("u: {reason}; truncate")), shown);
    }
}
