//! A WalStorage is edited while pods write to it: what applies at once, what waits for its user's restart, what is refused.

use anyhow::{bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use walstorage_cluster_tests::story::{COLLECTION, Story, disk, stateful_set, storage};
use walstorage_cluster_tests::{charts, eventually, pods};
use walstorage_crds::walwriter::{Empty, Phase};

/// A WalStorage called `log` with these disks. Its sidecars have memory for the thresholds that the tests set.
fn log(disks: &[Value], more: &Value) -> Value {
    let mut spec = json!({
        "walUrls": disks, "globalFlushThreshold": "64Mi", "sidecar": {"resources": {"limits": {"memory": "400Mi"}}},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    storage("log", &spec)
}

/// A StatefulSet of one pod, `app-0`, that appends to `log`.
async fn app(story: &Story<'_>, args: &[&str]) -> Pod {
    story.apply(&[stateful_set("app", "log", 1, args)]).unwrap();
    story.ready("app-0").await.unwrap()
}

/// As long as these stay, nobody has restarted anything.
fn life(pod: &Pod) -> (Option<&str>, i32) {
    (pod.metadata.uid.as_deref(), pods::restarts(pod, "walstorage") + pods::restarts(pod, "app"))
}

#[tokio::test]
async fn thresholds_apply_to_running_sidecars_and_a_refused_edit_changes_nothing() {
    let test = "thresholds_apply_to_running_sidecars_and_a_refused_edit_changes_nothing";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "edits").await;
    let data = || [disk("data", "64Mi")];
    story.apply(&[log(&data(), &json!({}))]).unwrap();
    let pod = app(&story, &["--every", "10"]).await;
    let bound = |bytes: &'static str| {
        let story = &story;
        async move {
            eventually("the sidecar has the bound and says which configuration it runs with", || async {
                let hash = story.storages().get("log").await?.status.unwrap_or_default().config_hash;
                let status = story.sidecar("app-0").await?;
                ensure!(status["memory"]["limitBytes"] == bytes, "{}", status["memory"]);
                ensure!(status["config"]["hash"].as_str() == hash.as_deref(), "{}, {hash:?}", status["config"]);
                ensure!(status["config"]["pendingRestart"] == json!([]), "{}", status["config"]);
                anyhow::Ok(hash)
            })
            .await
        }
    };
    bound("67108864").await;
    story.apply(&[log(&data(), &json!({"globalFlushThreshold": "128Mi", "memoryFlushSize": "2Mi"}))]).unwrap();
    let hash = bound("134217728").await;
    story.condition("log", "PodsUpToDate", "True", "UpToDate").await.unwrap();

    // What one edit shows, the schema refuses at once; the answer says what is allowed.
    let moved = json!([{"name": "data", "url": "file:///wal/moved", "volume": {"size": "64Mi"}}]);
    let shared = json!([disk("data", "64Mi"), {"name": "more", "url": "file:///wal/data/more"}]);
    for (urls, sentence) in [
        (json!([disk("data", "32Mi")]), "a volume's size may only grow"),
        (moved, "the url of a name is immutable: add another name, then remove this one to drain it"),
        (shared, "each URL stands once in walUrls, and none is inside of another"),
        (
            json!([disk("data", "64Mi"), {"name": "more", "url": "file:///tmp/wal"}]),
            "a claim is not mounted at or below",
        ),
    ] {
        let refused = story.apply(&[log(urls.as_array().unwrap(), &json!({}))]).expect_err(sentence);
        assert!(refused.to_string().contains(sentence), "{refused}");
    }
    // What goes round the schema in two edits, the ledger refuses: the claim is there and has a size.
    let renamed = [json!({"name": "other", "url": "file:///wal/data", "volume": {"size": "64Mi"}})];
    story.apply(&[log(&renamed, &json!({}))]).unwrap();
    let accepted = story.condition("log", "Accepted", "False", "UrlChanged").await.unwrap();
    let still = "writer app-0 still has entries in file:///wal/data under the name data";
    assert!(accepted.message.contains(still), "{}", accepted.message);
    story.apply(&[log(&[disk("more", "64Mi")], &json!({}))]).unwrap();
    story.condition("log", "Accepted", "True", "Valid").await.unwrap();
    let before = story.storages().get("log").await.unwrap().status.unwrap().config_hash;
    assert_ne!(before, hash, "data is draining now");
    story.apply(&[log(&[disk("more", "64Mi"), disk("data", "32Mi")], &json!({}))]).unwrap();
    let accepted = story.condition("log", "Accepted", "False", "SizeShrinks").await.unwrap();
    let shrinks = "spec.walUrls[name=data].volume.size = 32Mi: writer app-0 has a claim of 64Mi, and claims only grow";
    assert!(accepted.message.contains(shrinks), "{}", accepted.message);
    assert!(story.event("WalStorage", "log", "Refused").await.is_ok());
    let status = story.storages().get("log").await.unwrap().status.unwrap();
    assert_eq!(status.config_hash, before, "what is refused is not rendered");
    // A pod that would be made of it is refused with the same sentence.
    let new = ["run", "new", "--image=x", "--labels=walstorage.dev/storage=log", "--dry-run=server"];
    let refused = story.kubectl(&new).expect_err("refused").to_string();
    assert!(refused.contains(shrinks), "{refused}");

    story.apply(&[log(&data(), &json!({}))]).unwrap();
    story.condition("log", "Ready", "True", "Ready").await.unwrap();
    bound("67108864").await;
    let appended = story.append_until("app-0", story.acknowledged("app-0").unwrap() + 50).await.unwrap();
    story.check("app-0", appended).await.unwrap();
    assert_eq!(life(&story.ready("app-0").await.unwrap()), life(&pod), "nobody was restarted");
}

#[tokio::test]
async fn an_added_url_waits_for_the_users_restart_and_a_removed_one_is_drained() {
    let test = "an_added_url_waits_for_the_users_restart_and_a_removed_one_is_drained";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "urls").await;
    let (a, b) = (disk("a", "128Mi"), disk("b", "128Mi"));
    story.apply(&[log(std::slice::from_ref(&a), &json!({}))]).unwrap();
    let first = app(&story, &["--every", "10"]).await;
    story.append_until("app-0", 20).await.unwrap();

    story.apply(&[log(&[a.clone(), b], &json!({}))]).unwrap();
    let outdated = story.condition("log", "PodsUpToDate", "False", "RestartNeeded").await.unwrap().message;
    let (why, command) = outdated.split_once("; when it suits: ").unwrap();
    assert_eq!(why, "1 of 1 pods have another sidecar than they would get now");
    assert_eq!(command, format!("kubectl rollout restart -n {} statefulset/app", story.namespace()));
    story.condition("log", "Ready", "True", "Ready").await.expect("Ready does not wait for a restart");
    let printed = story.kubectl(&["get", "wal", "log"]).unwrap();
    assert_eq!(printed.lines().nth(1).unwrap().split_whitespace().nth(3), Some("1"), "the column Outdated: {printed}");
    let pending = "storage.wal_config.wal_urls";
    eventually("the sidecar says that it waits for a restart", || async {
        let status = story.sidecar("app-0").await?;
        ensure!(status["config"]["pendingRestart"] == json!([pending]), "{}", status["config"]);
        Ok(())
    })
    .await;
    assert_eq!(life(&story.ready("app-0").await.unwrap()), life(&first), "nobody restarts a user's pods");

    // A sidecar that is killed meanwhile starts with a configuration that names more than its pod mounts.
    cluster.kill("node1", first.metadata.uid.as_ref().unwrap(), "walstorage-side").await.unwrap();
    let not_mounted = |directory: &Value| directory["state"] == "not_mounted";
    story.directory("app-0", "file:///wal/b", "not mounted", not_mounted).await.unwrap();
    let acknowledged = story.append_until("app-0", story.acknowledged("app-0").unwrap() + 20).await.unwrap();
    story.check("app-0", acknowledged).await.unwrap();
    let acknowledged = story.acknowledged("app-0").unwrap();
    story.obey(command).unwrap();
    let second = story.another(&first).await.unwrap();
    story.condition("log", "PodsUpToDate", "True", "UpToDate").await.unwrap();
    story.directory("app-0", "file:///wal/b", "healthy", |it| it["state"] == "healthy").await.unwrap();
    story.check("app-0", acknowledged).await.unwrap();

    // Something must lie there for the drain to move: new collections go where there is less.
    eventually("a collection lives on the added disk", || async {
        let name = format!("more-{}", uuid::Uuid::new_v4());
        pods::exec(&story.pods(), "app-0", "app", &["/wal-app", "append", &name, "--count", "5"]).await?;
        let on_b = on(&story, "file:///wal/b").await?;
        if on_b.is_empty() { bail!("none yet") } else { Ok(()) }
    })
    .await;
    let moved = on(&story, "file:///wal/b").await.unwrap();

    story.apply(&[log(&[a], &json!({}))]).unwrap();
    let draining = story.event("WalStorage", "log", "UrlDraining").await.unwrap();
    let sentence =
        "URL b (file:///wal/b) was removed; it stays mounted and draining until it is empty for 1 writer (app-0)";
    assert_eq!(draining, sentence);
    story.condition("log", "Reconciling", "True", "Draining").await.unwrap();
    let emptied =
        |it: &Value| it["draining"] == true && it["remedy"].as_str().unwrap().contains("nothing of it is needed");
    story.directory("app-0", "file:///wal/b", "emptied", emptied).await.unwrap();
    assert_eq!(on(&story, "file:///wal/b").await.unwrap(), Vec::<String>::new());

    // Whether a directory is empty is believed only when its sidecar has ended.
    let acknowledged = story.acknowledged("app-0").unwrap();
    story.kubectl(&["rollout", "restart", "statefulset/app"]).unwrap();
    story.another(&second).await.unwrap();
    eventually("the ledger says that it is empty", || async {
        let status = story.writers().get("log.app-0").await?.status.unwrap_or_default();
        let empty = status.volumes.iter().flatten().any(|it| it.name == "b" && it.empty == Some(Empty::True));
        ensure!(empty, "{status:?}");
        Ok(())
    })
    .await;
    story.condition("log", "Reconciling", "False", "Done").await.unwrap();
    assert_eq!(
        story.event("WalStorage", "log", "UrlDrained").await.unwrap(),
        "file:///wal/b is empty and leaves the configuration"
    );
    story.condition("log", "PodsUpToDate", "True", "UpToDate").await.unwrap();
    let pod = story.ready("app-0").await.unwrap();
    let volumes: Vec<_> =
        pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).map(|it| it.name.as_str()).collect();
    assert!(volumes.contains(&"wal-log--a") && !volumes.contains(&"wal-log--b"), "{volumes:?}");
    story.check("app-0", acknowledged).await.unwrap();
    for name in moved {
        let command = ["/wal-app", "check", &name, "--acknowledged", "5"];
        pods::exec(&story.pods(), "app-0", "app", &command).await.expect("what lay on the removed disk is whole");
    }
    story.claims().get("wal-log--b-app-0").await.expect("an empty claim stays until somebody deletes it");
}

/// The collections that live on a directory.
async fn on(story: &Story<'_>, url: &str) -> anyhow::Result<Vec<String>> {
    let said = story.walctl("app-0", &["collections", "--output", "json"]).await?;
    let mut found = Vec::new();
    for line in said.lines() {
        let value: Value = serde_json::from_str(line)?;
        let all = value["collections"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let here = all.iter().filter(|it| it["directory"] == url).filter_map(|it| it["name"].as_str());
        found.extend(here.map(str::to_owned));
    }
    Ok(found)
}

#[tokio::test]
async fn a_disk_grows_under_a_running_pod() {
    let Some(cluster) = charts::shared_or_skip("a_disk_grows_under_a_running_pod").await else { return };
    let story = Story::begin(cluster, "grow").await;
    story.apply(&[log(&[disk("data", "300Mi")], &json!({}))]).unwrap();
    let pod = app(&story, &["--every", "10"]).await;
    let bytes = |it: &Value| it["capacityBytes"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let small = story.directory("app-0", "file:///wal/data", "measured", |it| bytes(it) > 0).await.unwrap();
    story.apply(&[log(&[disk("data", "600Mi")], &json!({}))]).unwrap();
    let grown = story.event("WalStorage", "log", "ClaimGrown").await.unwrap();
    assert_eq!(grown, "claim wal-log--data-app-0 asks for 600Mi");
    let more = |it: &Value| bytes(it) > bytes(&small) + (250 << 20);
    story.directory("app-0", "file:///wal/data", "larger", more).await.unwrap();
    story.condition("log", "ClaimsReady", "True", "Ready").await.unwrap();
    story.condition("log", "PodsUpToDate", "True", "UpToDate").await.unwrap();
    let appended = story.append_until("app-0", story.acknowledged("app-0").unwrap() + 50).await.unwrap();
    story.check("app-0", appended).await.unwrap();
    assert_eq!(life(&story.ready("app-0").await.unwrap()), life(&pod), "nobody was restarted");
}

#[tokio::test]
async fn a_small_disk_fills_up_and_takes_entries_again_after_a_truncation() {
    let test = "a_small_disk_fills_up_and_takes_entries_again_after_a_truncation";
    let Some(cluster) = charts::shared_or_skip(test).await else { return };
    let story = Story::begin(cluster, "full").await;
    story.apply(&[log(&[disk("data", "64Mi")], &json!({"compression": "null"}))]).unwrap();
    // On a fast machine the disk is full before anybody has seen the pod ready.
    story.apply(&[stateful_set("app", "log", 1, &["--bytes", "1000000"])]).unwrap();
    let full = story.filled("app-0", "file:///wal/data").await.unwrap();
    let pod = story.pods().get("app-0").await.unwrap();
    let remedy = full["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("truncate what is applied, or make room"), "{remedy}");
    let refused = story.refused("app-0").await.unwrap();
    // What was being written when the end of the disk was met has an unknown outcome, and its producer repeats it.
    let refused_at_once = refused.contains("\"durability\":\"not_written\"") && refused.contains("\"retryable\":true");
    assert!(refused_at_once || refused.contains("\"reason\":\"UNKNOWN_OUTCOME\""), "{refused}");

    // What was acknowledged on the full disk can be read; then it is applied, and there is room again.
    let acknowledged = story.acknowledged("app-0").unwrap();
    story.check("app-0", acknowledged).await.unwrap();
    let up_to = acknowledged.to_string();
    let truncate = ["/wal-app", "truncate", COLLECTION, &up_to];
    pods::exec(&story.pods(), "app-0", "app", &truncate).await.expect("a full disk takes a truncation");
    let appended = story.append_until("app-0", acknowledged + 5).await.unwrap().to_string();
    let check = ["/wal-app", "check", COLLECTION, "--acknowledged", &appended, "--truncated", &up_to];
    pods::exec(&story.pods(), "app-0", "app", &check).await.expect("whole");
    assert_eq!(life(&story.ready("app-0").await.unwrap()), life(&pod), "nobody was restarted");
    story.phase("log", "app-0", Phase::Active).await.unwrap();
}
