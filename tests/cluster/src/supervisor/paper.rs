//! Nodes that exist on paper: the API server, the scheduler and the controllers see a kubelet that renews its Lease;
//! nothing runs.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt as _};
use serde_json::json;

/// As often as a kubelet does; far below the grace period of the controller manager.
const RENEWAL: Duration = Duration::from_secs(10);

/// Registers a node as its kubelet would.
pub(super) async fn register(client: &Client, name: &str) -> Result<()> {
    let room = json!({"cpu": "1000", "memory": "1000Gi", "pods": "10000", "ephemeral-storage": "1000Gi"});
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "on paper",
                "lastHeartbeatTime": Timestamp::now(), "lastTransitionTime": Timestamp::now(),
            }],
        },
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &node).await?;
    Ok(())
}

/// Keeps the nodes ready, for ever.
pub(super) async fn renew(client: Client, nodes: Vec<String>) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let mut ticks = tokio::time::interval(RENEWAL);
    loop {
        ticks.tick().await;
        for node in &nodes {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": node},
                "spec": {"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now())},
            });
            // The next tick tries again, long before anybody notices.
            let _ = leases.patch(node, &PatchParams::apply("paper").force(), &Patch::Apply(&lease)).await;
        }
    }
}

/// Reports bound pods as running, and removes deleted ones, for ever.
pub(super) async fn run_pods(client: Client) {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let all: Api<Pod> = Api::all(client.clone());
    loop {
        ticks.tick().await;
        let Ok(pods) = all.list(&ListParams::default()).await else { continue };
        for pod in pods {
            let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
            let new = pod.status.as_ref().is_none_or(|status| status.phase.as_deref().is_none_or(|it| it == "Pending"));
            let deleted = pod.metadata.deletion_timestamp.is_some();
            let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
            let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
            // What fails was changed meanwhile: the next tick sees it as it is then.
            if bound && deleted {
                let own = Preconditions { uid: pod.uid(), resource_version: None };
                let _ = pods.delete(&name, &DeleteParams::default().grace_period(0).preconditions(own)).await;
            } else if bound && new {
                let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running(&pod))).await;
            }
        }
    }
}

/// The status of a pod whose containers all run.
fn running(pod: &Pod) -> serde_json::Value {
    let now = Timestamp::now();
    let container = |name: &str| {
        json!({
            "name": name, "image": "paper", "imageID": "paper", "containerID": format!("paper://{name}"),
            "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
        })
    };
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let spec = pod.spec.as_ref();
    let containers: Vec<_> = spec.iter().flat_map(|spec| &spec.containers).map(|it| container(&it.name)).collect();
    let sidecars: Vec<_> = spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten())
        .filter(|it| it.restart_policy.as_deref() == Some("Always"))
        .map(|it| container(&it.name))
        .collect();
    json!({"metadata": {"uid": pod.metadata.uid}, "status": {
        "phase": "Running",
        "startTime": now,
        "podIP": "192.0.2.1",
        "conditions": conditions,
        "containerStatuses": containers,
        "initContainerStatuses": sidecars,
    }})
}
