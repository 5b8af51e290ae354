//! What users are told: why a pod waits and what lets it go, what an edit asks of them, what begins beside a lost log.

use anyhow::ensure;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use walstorage_cluster_tests::eventually;
use walstorage_crds::walwriter::Phase;

use super::rig::{Rig, Shop};

fn disk(name: &str, volume: &Value) -> Value {
    json!({"name": name, "url": format!("file:///wal/{name}"), "volume": volume})
}

/// The webhook does not see a ConfigMap that is in the way; the controller holds the pod until it is gone.
pub(crate) async fn a_pod_waits_for_a_storage_that_is_not_accepted(rig: &Rig) {
    let shop = Shop::empty(rig, "waits").await;
    let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let theirs = json!({"metadata": {"name": "orders-walstorage"}, "data": {"config.toml": "mine"}});
    maps.create(&PostParams::default(), &serde_json::from_value(theirs).unwrap()).await.unwrap();
    shop.storage(json!({})).await;
    let why = shop.said("Accepted", "False", "NameConflict").await;
    shop.stateful_set("db", 1, None).await;
    let sentence = format!("WalStorage orders is not accepted: {why}");
    shop.told("WaitingForStorage", "db-0", &sentence).await;
    assert_eq!(shop.gates("db-0").await, 1);
    assert_eq!(shop.claims().list(&ListParams::default()).await.unwrap().items.len(), 0, "nothing is made for it");

    maps.delete("orders-walstorage", &DeleteParams::default()).await.unwrap();
    shop.phase("orders.db-0", Phase::Active).await;
    rig.at_rest(&shop).await;
}

pub(crate) async fn claims_that_bind_before_the_pod_has_a_node_are_made_when_somebody_says_so(rig: &Rig) {
    let volume = json!({"size": "1Gi", "storageClassName": "wal-immediate"});
    let urls = json!([disk("a", &volume), disk("b", &volume)]);
    let shop = Shop::open(rig, "immediate", json!({"walUrls": urls})).await;
    shop.stateful_set("db", 1, None).await;
    let told = shop.event("WaitingForClaim", "db-0").await;
    let (why, remedy) = ("the class of a and b binds claims before the pod has a node", "allow-immediate-binding");
    assert!(told.contains(why) && told.contains(&format!("walstorage.dev/{remedy}: \"true\"")), "{told}");
    shop.said("Ready", "False", "ImmediateBinding").await;
    assert_eq!(shop.gates("db-0").await, 1);
    assert_eq!(shop.claims().list(&ListParams::default()).await.unwrap().items.len(), 0, "none is bound anywhere");

    let waits = shop.pods().get("db-0").await.unwrap().metadata.uid.unwrap();
    shop.as_told("kubectl delete statefulset db");
    shop.annotated_set("db", 1, &json!({"walstorage.dev/allow-immediate-binding": "true"})).await;
    shop.another("db-0", &waits).await;
    shop.phase("orders.db-0", Phase::Active).await;
    assert_eq!(shop.claims().list(&ListParams::default()).await.unwrap().items.len(), 2);
    rig.at_rest(&shop).await;
}

/// One that is called as ours would be may be of somebody who knows nothing of us, or was restored from a backup.
pub(crate) async fn a_claim_in_the_way_is_left_alone_until_its_labels_say_whose_it_is(rig: &Rig) {
    let name = "wal-orders--data-db-0";
    let shop = Shop::empty(rig, "restored").await;
    let claim = json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "10Gi"}}}});
    let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
    let made = shop.claims().create(&PostParams::default(), &claim).await.unwrap();
    shop.storage(json!({})).await;
    shop.stateful_set("db", 1, None).await;
    let told = shop.event("WaitingForClaim", "db-0").await;
    let labels = "walstorage.dev/storage=orders and walstorage.dev/url=data";
    assert_eq!(told, format!("claim {name} is not labelled {labels}: rename or delete it, or correct its labels"));
    shop.said("Ready", "False", "ClaimConflict").await;
    assert_eq!(shop.gates("db-0").await, 1);
    let now = shop.claims().get(name).await.unwrap().metadata;
    assert_eq!((&now.labels, &now.annotations), (&made.metadata.labels, &made.metadata.annotations));

    shop.as_told(&format!("kubectl label pvc {name} {}", labels.replace(" and ", " ")));
    let writer = shop.phase("orders.db-0", Phase::Active).await;
    let adopted = shop.claims().get(name).await.unwrap().metadata;
    assert_eq!(
        (&adopted.uid, &writer.status.unwrap().volumes.unwrap()[0].claim_uid),
        (&made.metadata.uid, &adopted.uid)
    );
    assert_eq!(adopted.labels.unwrap()["walstorage.dev/writer"], "db-0");
    assert_eq!(adopted.annotations.unwrap()["walstorage.dev/writer-uid"], writer.spec.writer_uid);
    rig.at_rest(&shop).await;
}

/// A pod that happens to have the name of one of a StatefulSet.
pub(crate) async fn a_writer_of_another_workload_is_not_given_away(rig: &Rig) {
    let shop = Shop::open(rig, "another", json!({})).await;
    shop.stateful_set("db", 1, Some(4)).await;
    shop.active(1).await;
    shop.as_told("kubectl delete statefulset db");
    let orphan = shop.phase("orders.db-0", Phase::Orphaned).await;
    let pod = json!({"metadata": {"name": "db-0", "labels": {"walstorage.dev/storage": "orders"}},
        "spec": {"containers": [{"name": "app", "image": "paper"}]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    shop.pods().create(&PostParams::default(), &pod).await.unwrap();
    let told = shop.event("WriterBelongsToAnother", "db-0").await;
    assert_eq!(told, "writer db-0 is of StatefulSet db: take another name");
    assert_eq!(shop.gates("db-0").await, 1);
    let now = shop.phase("orders.db-0", Phase::Orphaned).await;
    assert_eq!((now.spec, now.status), (orphan.spec.clone(), orphan.status), "nothing of it is touched");

    shop.pods().delete("db-0", &DeleteParams::default()).await.unwrap();
    shop.stateful_set("db", 1, Some(0)).await;
    let after = shop.phase("orders.db-0", Phase::Active).await;
    assert_eq!(after.spec, orphan.spec, "whose it is has it again");
    rig.at_rest(&shop).await;
}

pub(crate) async fn a_workload_is_told_of_a_pod_that_begins_beside_a_lost_log(rig: &Rig) {
    let shop = Shop::open(rig, "beside", json!({})).await;
    shop.deployment("web", 1, Some(5)).await;
    shop.active(1).await;
    shop.scale("deployment/web", 0);
    let orphan = shop.phase_of(1, Phase::Orphaned).await.remove(0);
    let claim = orphan.status.unwrap().volumes.unwrap()[0].claim_name.clone().unwrap();
    shop.claims().delete(&claim, &DeleteParams::default()).await.unwrap();
    shop.phase(orphan.metadata.name.as_deref().unwrap(), Phase::Lost).await;
    shop.scale("deployment/web", 1);
    shop.active(1).await;
    assert_eq!(shop.list().await.len(), 2, "the lost one stays, and is nobody's");
    let deployments: Api<Deployment> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let of = deployments.get("web").await.unwrap().metadata.uid;
    let events: Api<Event> = Api::namespaced(rig.client.clone(), &shop.namespace);
    let reason = ListParams::default().fields("reason=FreshWriterWhileOthersHoldData");
    // `kubectl describe` shows those of this very object only.
    eventually("the Deployment says it", || async {
        let said = events.list(&reason).await?.items;
        let of_it = said.iter().find(|event| event.regarding.as_ref().is_some_and(|object| object.uid == of));
        let note = of_it.and_then(|event| event.note.as_deref()).unwrap_or_default();
        ensure!(note.contains("starts with an empty log, while 1 writers have entries"), "{said:?}");
        Ok(())
    })
    .await;
    rig.at_rest(&shop).await;
}

pub(crate) async fn an_edit_grows_claims_and_names_the_pods_that_it_makes_outdated(rig: &Rig) {
    let sized = |name: &str, size: &str| disk(name, &json!({"size": size}));
    let shop = Shop::open(rig, "edited", json!({"walUrls": [sized("a", "1Gi")]})).await;
    shop.stateful_set("db", 1, Some(0)).await;
    shop.active(1).await;
    let pod = shop.pods().get("db-0").await.unwrap().metadata.uid.unwrap();
    shop.storage(json!({"walUrls": [sized("a", "2Gi"), sized("b", "1Gi")]})).await;
    assert_eq!(shop.event("ClaimGrown", "orders").await, "claim wal-orders--a-db-0 asks for 2Gi");
    eventually("the claim has what it asks for", || async {
        let capacity = shop.claims().get("wal-orders--a-db-0").await?.status.and_then(|status| status.capacity);
        let has = capacity.as_ref().and_then(|capacity| capacity.get("storage")).map(|size| size.0.as_str());
        ensure!(has == Some("2Gi"), "{capacity:?}");
        Ok(())
    })
    .await;
    let sentence = shop.said("PodsUpToDate", "False", "RestartNeeded").await;
    let (why, line) = sentence.split_once("; when it suits: ").unwrap();
    assert_eq!(why, "1 of 1 pods have another sidecar than they would get now");
    shop.gauge("pods_outdated", "", 1.0).await;
    assert_eq!(shop.pods().get("db-0").await.unwrap().metadata.uid.as_ref(), Some(&pod), "nobody restarts it");

    shop.as_told(line);
    shop.another("db-0", &pod).await;
    shop.said("PodsUpToDate", "True", "UpToDate").await;
    shop.gauge("pods_outdated", "", 0.0).await;
    let volumes = shop.phase("orders.db-0", Phase::Active).await.status.unwrap().volumes.unwrap();
    let volumes: Vec<_> = volumes.iter().map(|volume| (volume.name.as_str(), volume.size.as_deref())).collect();
    assert_eq!(volumes, [("a", Some("2Gi")), ("b", Some("1Gi"))]);
    rig.at_rest(&shop).await;
}
