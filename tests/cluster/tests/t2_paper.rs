//! Controllers, a scheduler and nodes on paper: workloads make pods, pods are bound and run, claims get volumes.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use walstorage_cluster_tests::{ControlPlane, eventually, pods};

#[tokio::test]
async fn a_stateful_set_with_claims_runs_on_paper_and_its_claims_grow() {
    let plane = ControlPlane::builder().controllers().nodes(2).run_pods().start().await.expect("a control plane");
    let client = plane.client();
    let namespace = plane.namespace("paper").await;
    plane.accounts(&namespace).await;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"name": "shop"},
        "spec": {
            "replicas": 3, "serviceName": "shop", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "shop"}},
            "template": {
                "metadata": {"labels": {"app": "shop"}},
                "spec": {"containers": [{"name": "app", "image": "paper"}]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    }))
    .unwrap();
    sets.create(&PostParams::default(), &set).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    for name in ["shop-0", "shop-1", "shop-2"] {
        pods::ready(&pods, name).await;
    }
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    claims.patch("data-shop-1", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    eventually("the claim has what it wants", || async {
        let capacity = claims.get("data-shop-1").await?.status.and_then(|it| it.capacity);
        let has = capacity.as_ref().and_then(|it| it.get("storage")).map(|it| it.0.as_str());
        if has == Some("2Gi") { Ok(()) } else { Err(anyhow::anyhow!("{capacity:?}")) }
    })
    .await;

    sets.patch("shop", &PatchParams::default(), &Patch::Merge(&json!({"spec": {"replicas": 1}}))).await.unwrap();
    eventually("two pods are gone", || async {
        let left = pods.list(&ListParams::default()).await?.items.len();
        if left == 1 { Ok(()) } else { Err(anyhow::anyhow!("{left} pods")) }
    })
    .await;
    let nodes: Api<Node> = Api::all(client);
    assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 2);
}
