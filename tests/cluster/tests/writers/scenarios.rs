//! What becomes of writers whose pods come, go, hang and lose their claims. Each scenario has a namespace of its own.

use std::collections::BTreeSet;

use anyhow::{bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use walstorage_cluster_tests::{eventually, kubelet};
use walstorage_crds::walwriter::{Empty, Phase, WalWriter};

use super::rig::{Rig, Shop};

fn uid_of_writer(writer: &WalWriter) -> String {
    writer.spec.writer_uid.clone()
}

fn claim_uids(writers: &[WalWriter]) -> BTreeSet<String> {
    let volumes = writers.iter().flat_map(|writer| writer.status.iter().flat_map(|it| it.volumes.iter().flatten()));
    volumes.filter_map(|volume| volume.claim_uid.clone()).collect()
}

/// The `kubectl` command in a sentence.
fn command(sentence: &str) -> String {
    let at = sentence.find("kubectl annotate").unwrap_or_else(|| panic!("no command in: {sentence}"));
    sentence[at..].trim_end_matches('.').to_owned()
}

pub(crate) async fn ten_orphans_are_adopted_by_ten_new_pods(rig: &Rig) {
    let shop = Shop::open(rig, "orphans", json!({})).await;
    shop.deployment("web", 10, None).await;
    shop.active(10).await;
    let before = shop.list().await;
    shop.scale("deployment/web", 0);
    let orphans = shop.phase_of(10, Phase::Orphaned).await;
    shop.event("Orphaned", orphans[0].metadata.name.as_deref().unwrap()).await;
    // They are counted as they become orphans, one after the other.
    eventually("all ten are counted", || async {
        let sentence = shop.said("UndrainedData", "True", "OrphanedWriters").await;
        ensure!(sentence.starts_with("10 writers ("), "{sentence}");
        Ok(())
    })
    .await;

    shop.scale("deployment/web", 10);
    shop.active(10).await;
    let after = shop.list().await;
    let uids = |writers: &[WalWriter]| -> BTreeSet<String> { writers.iter().map(uid_of_writer).collect() };
    assert_eq!(uids(&before), uids(&after), "no writer was made, none is gone");
    assert_eq!(claim_uids(&before), claim_uids(&after), "the entries of all ten");
    let holders: BTreeSet<String> =
        after.iter().filter_map(|writer| Some(writer.status.as_ref()?.holder.as_ref()?.pod_uid.clone())).collect();
    assert_eq!(holders, shop.uids("web=web").await, "ten distinct holders");
    shop.said("UndrainedData", "False", "None").await;
    rig.at_rest(&shop).await;
}

pub(crate) async fn a_stateful_set_that_shrinks_and_grows_finds_its_writers(rig: &Rig) {
    let shop = Shop::open(rig, "shrinks", json!({})).await;
    shop.stateful_set("db", 5, Some(7)).await;
    shop.active(5).await;
    let before = shop.list().await;
    // What the last words say is what is shown.
    shop.annotate("db-3", kubelet::LEAVES, "0").await;
    shop.scale("statefulset/db", 3);
    let drained = shop.phase("orders.db-3", Phase::Drained).await;
    let orphaned = shop.phase("orders.db-4", Phase::Orphaned).await;
    let left = |writer: &WalWriter| {
        let status = writer.status.clone().unwrap();
        let empty: Vec<_> = status.volumes.unwrap().iter().map(|volume| volume.empty.unwrap()).collect();
        (status.last_report.unwrap().unapplied_entries, empty)
    };
    assert_eq!(left(&drained), (Some(0), vec![Empty::True]));
    assert_eq!(left(&orphaned), (Some(7), vec![Empty::False]));
    let printed = rig.plane.kubectl(&["get", "walw", "-n", &shop.namespace]).unwrap();
    let row = printed.lines().find(|line| line.starts_with("orders.db-4")).unwrap();
    assert!(row.contains("Orphaned") && row.contains(" 7 ") && row.contains("False"), "{printed}");
    let sentence = shop.said("UndrainedData", "True", "OrphanedWriters").await;
    assert!(sentence.contains("1 writer (orders.db-4) without a pod, with 7 entries"), "{sentence}");
    // What alerts go by.
    shop.gauge("writers", ",phase=\"Orphaned\"", 1.0).await;
    shop.gauge("unapplied_entries", "", 7.0).await;

    shop.scale("statefulset/db", 5);
    shop.active(5).await;
    let after = shop.list().await;
    assert_eq!(claim_uids(&before), claim_uids(&after));
    let epoch = |writers: &[WalWriter], name: &str| {
        let writer = writers.iter().find(|writer| writer.metadata.name.as_deref() == Some(name));
        writer.and_then(|writer| writer.status.as_ref()?.epoch)
    };
    assert!(epoch(&after, "orders.db-4") > epoch(&before, "orders.db-4"));
    assert_eq!(epoch(&after, "orders.db-0"), epoch(&before, "orders.db-0"), "who stays is not granted again");
    rig.at_rest(&shop).await;
}

/// Waits until the quota `few` is counted.
async fn counted(quotas: &Api<ResourceQuota>) {
    eventually("the quota counts", || async {
        let used = quotas.get("few").await?.status.and_then(|status| status.used);
        ensure!(used.is_some(), "not yet");
        Ok(())
    })
    .await;
}

/// The quota is asked after our webhook, which has proposed the orphan then, and is asked again and again.
pub(crate) async fn a_pod_that_a_quota_refuses_has_the_entries_when_it_comes(rig: &Rig) {
    let shop = Shop::open(rig, "refused", json!({})).await;
    shop.deployment("web", 1, Some(4)).await;
    shop.active(1).await;
    shop.scale("deployment/web", 0);
    let before = shop.phase_of(1, Phase::Orphaned).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
    counted(&quotas).await;
    shop.scale("deployment/web", 1);
    // By a list that waits for nobody: the controllers' door is in this program.
    let events: Api<Event> = Api::namespaced(rig.client.clone(), &shop.namespace);
    eventually("a pod is refused by the quota", || async {
        let failed = events.list(&ListParams::default().fields("reason=FailedCreate")).await?;
        let notes: Vec<String> = failed.into_iter().filter_map(|event| event.note).collect();
        ensure!(notes.iter().any(|note| note.contains("exceeded quota: few")), "{notes:?}");
        Ok(())
    })
    .await;
    assert_eq!(shop.phase_of(1, Phase::Orphaned).await, before, "nobody was granted anything");

    let more = Patch::Merge(json!({"spec": {"hard": {"pods": "1"}}}));
    quotas.patch("few", &PatchParams::default(), &more).await.unwrap();
    // The ReplicaSet has become patient; a change of it makes it try now.
    shop.as_told("kubectl annotate deployment web example.com/now=1");
    shop.active(1).await;
    let after = shop.list().await;
    assert_eq!(after.len(), 1, "no empty log beside the one with the entries");
    assert_eq!(uid_of_writer(&after[0]), uid_of_writer(&before[0]));
    assert_eq!(claim_uids(&after), claim_uids(&before));
    rig.at_rest(&shop).await;
}

/// A Job whose pod gets the orphan that it names, on a real API server with the real controllers of Jobs.
pub(crate) async fn a_drain_job_has_the_orphan_that_it_names_until_it_completes(rig: &Rig) {
    let urls = json!([{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "s3://bucket/wal"}]);
    let shop = Shop::open(rig, "drain", json!({"walUrls": urls})).await;
    shop.stateful_set("db", 2, Some(6)).await;
    shop.active(2).await;
    shop.scale("statefulset/db", 1);
    let orphan = shop.phase("orders.db-1", Phase::Orphaned).await;
    let held = uid_of_writer(&shop.writers().get("orders.db-0").await.unwrap());
    let jobs: Api<Job> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let job = |name: &str, drains: &str| {
        let annotations = json!({"walstorage.dev/drain": drains, kubelet::LEAVES: "0", kubelet::ENDS: "true"});
        let pod = json!({
            "metadata": {"labels": {"walstorage.dev/storage": "orders"}, "annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "drain", "image": "paper"}]},
        });
        let job = json!({"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": pod}});
        serde_json::from_value::<Job>(job).unwrap()
    };
    // Not under a pod that lives.
    jobs.create(&PostParams::default(), &job("early", &held)).await.unwrap();
    let told = shop.event("FailedCreate", "early").await;
    assert!(told.contains("writer db-0 is Active, and only one that is Released or Orphaned can be emptied"), "{told}");

    jobs.create(&PostParams::default(), &job("drain", &uid_of_writer(&orphan))).await.unwrap();
    eventually("the Job completes", || async {
        let job = jobs.get("drain").await?;
        let succeeded = job.status.as_ref().and_then(|status| status.succeeded);
        ensure!(succeeded == Some(1), "{:?}", job.status);
        Ok(())
    })
    .await;
    // Its pod had this writer and no other, with an epoch of its own; what it said is in the ledger.
    let after = eventually("the ledger has heard it", || async {
        let writer = shop.writers().get("orders.db-1").await?;
        let status = writer.status.clone().unwrap_or_default();
        ensure!(status.holder.is_none() && status.epoch > orphan.status.as_ref().unwrap().epoch, "{status:?}");
        ensure!(status.phase == Some(Phase::Drained), "{status:?}");
        Ok(writer)
    })
    .await;
    assert_eq!((uid_of_writer(&after), &after.spec.workload), (uid_of_writer(&orphan), &orphan.spec.workload));
    assert!(after.status.unwrap().volumes.unwrap().iter().all(|volume| volume.empty == Some(Empty::True)));
    assert_eq!(shop.list().await.len(), 2, "a Job's pod makes no writer");
    // Its own pod has it again.
    shop.scale("statefulset/db", 2);
    shop.active(2).await;
    jobs.delete("early", &DeleteParams::background()).await.unwrap();
    rig.at_rest(&shop).await;
}

pub(crate) async fn a_used_up_quota_is_said_and_waited_out(rig: &Rig) {
    let two = json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]});
    let shop = Shop::open(rig, "quota", two).await;
    let quotas: Api<ResourceQuota> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let quota =
        |claims: &str| json!({"metadata": {"name": "few"}, "spec": {"hard": {"persistentvolumeclaims": claims}}});
    quotas.create(&PostParams::default(), &serde_json::from_value(quota("1")).unwrap()).await.unwrap();
    counted(&quotas).await;
    shop.stateful_set("db", 1, None).await;
    let told = shop.event("WaitingForClaim", "db-0").await;
    assert!(told.contains("exceeded quota: few"), "{told}");
    let said = shop.said("ClaimsReady", "False", "QuotaExceeded").await;
    assert!(said.contains("exceeded quota: few"), "{said}");
    shop.said("Ready", "False", "QuotaExceeded").await;
    // The pod waits behind its gate, in an hour too; what was made is one claim, and it is this writer's.
    let pod = shop.pods().get("db-0").await.unwrap();
    assert_eq!(pod.spec.unwrap().scheduling_gates.map(|gates| gates.len()), Some(1));
    assert_eq!(shop.claims().list(&ListParams::default()).await.unwrap().items.len(), 1);
    eventually("the wait is measured", || async {
        let waited = rig.metric(0, "walstorage_operator_gated_pod_oldest_seconds").await;
        ensure!(waited >= 1.0, "{waited}");
        Ok(())
    })
    .await;

    let more = Patch::Merge(json!({"spec": {"hard": {"persistentvolumeclaims": "2"}}}));
    quotas.patch("few", &PatchParams::default(), &more).await.unwrap();
    shop.phase("orders.db-0", Phase::Active).await;
    shop.said("ClaimsReady", "True", "Ready").await;
    let claims = shop.claims().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(claims.len(), 2, "nothing leaked");
    rig.at_rest(&shop).await;
}

pub(crate) async fn a_deleted_claim_is_lost_until_the_loss_is_accepted(rig: &Rig) {
    let two = json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]});
    let shop = Shop::open(rig, "lost", two).await;
    shop.stateful_set("db", 1, Some(3)).await;
    shop.active(1).await;
    let before = shop.list().await;
    // Under a running pod: the claim goes when the pod does.
    shop.claims().delete("wal-orders--a-db-0", &DeleteParams::default()).await.unwrap();
    let pod = shop.pods().get("db-0").await.unwrap().metadata.uid.unwrap();
    shop.pods().delete("db-0", &DeleteParams::default()).await.unwrap();
    shop.another("db-0", &pod).await;
    shop.phase("orders.db-0", Phase::Lost).await;
    // While it goes, the same reason says that it is being deleted.
    shop.says("ClaimsReady", "False", "ClaimLost", "kubectl describe walwriter").await;
    shop.event("Lost", "orders.db-0").await;
    let sentence = eventually("the ledger has the command", || async {
        let status = shop.writers().get("orders.db-0").await?.status.unwrap_or_default();
        let condition = status.condition("ClaimsReady").map(|one| one.message.clone()).unwrap_or_default();
        if condition.contains("accept-loss") { Ok(condition) } else { bail!("{condition}") }
    })
    .await;
    assert!(sentence.contains("is missing"), "{sentence}");
    let gates = shop.pods().get("db-0").await.unwrap().spec.unwrap().scheduling_gates;
    assert_eq!(gates.map(|gates| gates.len()), Some(1), "a directory that is not there is never begun anew unasked");

    // The command as it is printed, and no other.
    shop.as_told(&command(&sentence));
    shop.phase("orders.db-0", Phase::Active).await;
    shop.event("LossAccepted", "orders.db-0").await;
    let after = shop.list().await;
    assert_eq!(uid_of_writer(&before[0]), uid_of_writer(&after[0]));
    let (old, new) = (claim_uids(&before), claim_uids(&after));
    assert_eq!((new.len(), old.intersection(&new).count()), (2, 1), "the other claim is as it was");
    assert!(after[0].metadata.annotations.iter().flatten().all(|(name, _)| !name.contains("accept-loss")));
    // Only the one that was given up was begun anew.
    let granted = rig.log().into_iter().rev().find(|call| {
        call.path.ends_with(&format!("/{}/pods/db-0", shop.namespace))
            && call.is_done()
            && call.sent.to_string().contains("remove")
    });
    let grant = granted.unwrap().answer["metadata"]["annotations"]["walstorage.dev/grant"].as_str().unwrap().to_owned();
    let grant: Value = serde_json::from_str(&grant).unwrap();
    assert_eq!((&grant["init"], &grant["forget"]), (&json!(["a"]), &json!(["a"])));
    rig.at_rest(&shop).await;
}

pub(crate) async fn an_abandoned_writer_goes_with_its_claims(rig: &Rig) {
    let shop = Shop::open(rig, "abandoned", json!({})).await;
    shop.deployment("web", 2, Some(11)).await;
    shop.stateful_set("db", 1, Some(5)).await;
    shop.active(3).await;
    shop.scale("deployment/web", 1);
    let orphan = shop.phase_of(1, Phase::Orphaned).await.remove(0);
    let name = orphan.metadata.name.clone().unwrap();
    // Another writer's uid gives up nothing.
    let other =
        format!("kubectl annotate walwriter {name} walstorage.dev/abandon=0b0a3f6c-5f3a-4f2d-8f2c-0a4a2f1d7c11");
    shop.as_told(&other);
    let sentence = shop.said("UndrainedData", "True", "OrphanedWriters").await;
    assert!(sentence.contains("with 11 entries"), "{sentence}");
    shop.as_told(&format!("{} --overwrite", command(&sentence)));
    eventually("ledger and claims are gone", || async {
        let claims = shop.claims().list(&ListParams::default()).await?.items.len();
        let left = shop.writers().get_opt(&name).await?;
        if claims == 2 && left.is_none() { Ok(()) } else { bail!("{claims} claims, {left:?}") }
    })
    .await;
    shop.event("Abandoned", &name).await;
    shop.event("Reclaimed", &name).await;
    assert!(rig.metric(0, "walstorage_operator_abandoned_writers_total").await >= 1.0, "nobody counts it");
    shop.said("UndrainedData", "False", "None").await;
    // Who has a pod is not given up, whatever stands there.
    let held = shop.writers().get("orders.db-0").await.unwrap();
    let uid = uid_of_writer(&held);
    shop.as_told(&format!("kubectl annotate walwriter orders.db-0 walstorage.dev/abandon={uid}"));
    shop.scale("statefulset/db", 0);
    let tombstone = shop.phase("orders.db-0", Phase::Drained).await;
    assert_eq!(uid_of_writer(&tombstone), uid, "a named one keeps its uid, and nothing else");
    eventually("its claim is gone too", || async {
        let claims = shop.claims().list(&ListParams::default()).await?.items.len();
        ensure!(claims == 1, "{claims}");
        Ok(())
    })
    .await;
    rig.at_rest(&shop).await;
}

pub(crate) async fn what_is_drained_goes_after_its_time_where_its_storage_says_so(rig: &Rig) {
    let after = |seconds: u32| json!({"reclaimPolicy": {"whenDrained": "Delete", "drainedAfterSeconds": seconds}});
    let shop = Shop::open(rig, "drained", after(3600)).await;
    shop.stateful_set("db", 1, Some(0)).await;
    shop.stateful_set("full", 1, Some(5)).await;
    shop.deployment("web", 1, Some(0)).await;
    shop.active(3).await;
    let before = claim_uids(&shop.list().await);
    let scale = |replicas: usize| {
        for workload in ["statefulset/db", "statefulset/full", "deployment/web"] {
            shop.scale(workload, replicas);
        }
    };
    scale(0);
    shop.phase_of(2, Phase::Drained).await;
    shop.phase("orders.full-0", Phase::Orphaned).await;
    scale(1);
    shop.active(3).await;
    assert_eq!(claim_uids(&shop.list().await), before, "its time is not over");

    let uid = uid_of_writer(&shop.writers().get("orders.db-0").await.unwrap());
    shop.storage(after(1)).await;
    scale(0);
    eventually("what is drained is gone", || async {
        let claims = shop.claims().list(&ListParams::default()).await?.items;
        let claims: Vec<_> = claims.into_iter().filter_map(|claim| claim.metadata.name).collect();
        let writers = shop.list().await;
        ensure!(claims == ["wal-orders--data-full-0"] && writers.len() == 2, "{claims:?}, {writers:?}");
        Ok(())
    })
    .await;
    shop.event("Reclaimed", "orders.db-0").await;
    shop.phase("orders.full-0", Phase::Orphaned).await;
    let tombstone = shop.phase("orders.db-0", Phase::Drained).await;
    assert_eq!((uid_of_writer(&tombstone), claim_uids(&[tombstone])), (uid, BTreeSet::new()));
    shop.scale("statefulset/db", 1);
    shop.phase("orders.db-0", Phase::Active).await;
    rig.at_rest(&shop).await;
}

pub(crate) async fn a_pod_that_does_not_end_is_stuck_until_it_is_deleted_by_force(rig: &Rig) {
    let shop = Shop::open(rig, "stuck", json!({"sidecar": {"drainSeconds": 0}})).await;
    shop.stateful_set("db", 1, Some(0)).await;
    shop.active(1).await;
    let epoch = shop.list().await[0].status.as_ref().unwrap().epoch;
    shop.annotate("db-0", kubelet::HANGS, "true").await;
    let pod = shop.pods().get("db-0").await.unwrap().metadata.uid.unwrap();
    shop.pods().delete("db-0", &DeleteParams::default()).await.unwrap();
    shop.phase("orders.db-0", Phase::Releasing).await;
    let told = shop.event("Stuck", "orders.db-0").await;
    assert!(told.contains("delete the node or the pod by force"), "{told}");
    shop.gauge("stuck_writers", "", 1.0).await;
    // Its user's word that the process is dead.
    rig.plane
        .kubectl(&["delete", "pod", "-n", &shop.namespace, "db-0", "--force", "--grace-period=0"])
        .expect("deleted by force");
    shop.another("db-0", &pod).await;
    let after = shop.phase("orders.db-0", Phase::Active).await.status.unwrap();
    assert!(after.epoch > epoch);
    assert!(after.last_report.is_none(), "a pod that was cut off has said nothing");
    let stuck = after.conditions.unwrap_or_default().into_iter().find(|one| one.type_ == "Stuck");
    assert_eq!(stuck.map(|one| one.status).as_deref(), Some("False"));
    shop.gauge("stuck_writers", "", 0.0).await;
    rig.at_rest(&shop).await;
}

/// A socket plays the sidecar's admin port.
pub(crate) async fn what_a_sidecar_says_is_shown(rig: &Rig) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let spec = json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}], "sidecar": {"adminPort": port}});
    let shop = Shop::open(rig, "observed", spec).await;
    shop.stateful_set("db", 1, Some(0)).await;
    shop.active(1).await;
    shop.said("DirectoriesHealthy", "Unknown", "NotObserved").await;
    let uid = uid_of_writer(&shop.list().await[0]);
    let answer = json!({
        "writer": {"uid": uid}, "phase": "ready",
        "directories": [{"url": "file:///wal/a", "state": "full", "reason": "no space left", "inUse": true,
            "capacityBytes": "1073741824", "freeBytes": "73741824"}],
    });
    let answer = answer.to_string();
    let sidecar = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 2048]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all((head + &answer).as_bytes()).await;
        }
    });
    // The pod's address is written once, when it begins to run: another pod, at the socket's.
    let sets: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let there = json!({"spec": {"template": {"metadata": {"annotations": {kubelet::ADDRESS: "127.0.0.1"}}}}});
    sets.patch("db", &PatchParams::default(), &Patch::Merge(there)).await.unwrap();
    let sentence = shop.said("DirectoriesHealthy", "False", "DirectoryUnhealthy").await;
    assert!(sentence.starts_with("a of writer db-0 is full: no space left (raise the URL's volume.size"), "{sentence}");
    assert_eq!(shop.event("DirectoryUnhealthy", "orders").await, sentence);
    assert_eq!(shop.event("DirectoryUnhealthy", "db-0").await, sentence);
    let sentence = shop.said("Ready", "False", "NoWritableDirectory").await;
    assert_eq!(sentence, "1 writer (db-0) has no directory that takes entries");
    eventually("the ledger and the status show it", || async {
        let writer = shop.writers().get("orders.db-0").await?;
        let volumes = writer.status.and_then(|status| status.volumes).unwrap_or_default();
        ensure!(volumes.len() == 1 && volumes[0].state.as_deref() == Some("full"), "{volumes:?}");
        let urls = shop.storages().get("orders").await?.status.and_then(|status| status.urls).unwrap_or_default();
        ensure!(urls.len() == 1 && urls[0].used_bytes == Some(1_000_000_000), "{urls:?}");
        ensure!(urls[0].state.as_deref() == Some("full") && urls[0].as_of.is_some(), "{urls:?}");
        Ok(())
    })
    .await;
    sidecar.abort();
    let sentence = shop.said("DirectoriesHealthy", "Unknown", "NotObserved").await;
    assert!(sentence.contains("cannot ask the sidecar of 1 writer (db-0)"), "{sentence}");
    rig.at_rest(&shop).await;
}

pub(crate) async fn a_dry_run_leaves_nothing(rig: &Rig) {
    let shop = Shop::open(rig, "dry", json!({})).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pod = json!({"metadata": {"name": "orders-0", "labels": {"walstorage.dev/storage": "orders"}},
        "spec": {"containers": [{"name": "app", "image": "paper"}]}});
    let made = shop.pods().create(&dry, &serde_json::from_value(pod).unwrap()).await.unwrap();
    assert!(made.metadata.labels.unwrap().contains_key("walstorage.dev/writer"));
    // One that is granted afterwards shows that the controller had its chance.
    shop.stateful_set("db", 1, None).await;
    shop.active(1).await;
    let writers = shop.list().await;
    assert_eq!(writers.len(), 1, "{writers:?}");
    assert_eq!(shop.claims().list(&ListParams::default()).await.unwrap().items.len(), 1);
    rig.at_rest(&shop).await;
}
