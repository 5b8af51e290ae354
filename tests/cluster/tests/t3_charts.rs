//! WalStorage as it is installed: a node, the two charts and the image archive, and nothing else. `make test` names the
//! archive that is shipped (`WALSTORAGE_IMAGE`), static and without a shell; all namespaces are restricted.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::anyhow;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::json;
use walstorage_cluster_tests::binaries::repository;
use walstorage_cluster_tests::images::{self, APP};
use walstorage_cluster_tests::skip::skipped;
use walstorage_cluster_tests::{Cluster, eventually, pods, tools};

fn chart(name: &str) -> String {
    repository().join("charts").join(name).display().to_string()
}

fn install(cluster: &Cluster, values: &[&str]) {
    cluster.helm(&["upgrade", "--install", "types", &chart("walstorage-crds")]).expect("the types");
    let chart = chart("walstorage");
    let mut arguments = vec!["upgrade", "--install", "wal", &chart, "--namespace", "system"];
    arguments.extend(["--set=image.pullPolicy=Never", "--wait", "--timeout=3m"]);
    arguments.extend(values);
    cluster.helm(&arguments).unwrap_or_else(|error| {
        let seen = cluster.kubectl(&["-n", "system", "get", "pods,events"]).unwrap_or_default();
        panic!("the operator is not ready: {error}\n{seen}")
    });
}

/// A namespace in which only restricted pods may run.
fn restricted(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["create", "namespace", name]).expect("a namespace");
    cluster
        .kubectl(&["label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted"])
        .expect("restricted");
}

/// A log, and a StatefulSet of two whose pods have it.
fn shop() -> [serde_json::Value; 2] {
    let storage = json!({
        "apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage", "metadata": {"name": "orders"},
        "spec": {"walUrls": [{"name": "data", "url": "file:///wal", "volume": {"size": "64Mi"}}]},
    });
    let labels = json!({"app": "shop", "walstorage.dev/storage": "orders"});
    let pod = serde_json::to_value(pods::pod("shop", APP, &["pause"])).unwrap();
    let template = json!({"metadata": {"labels": labels}, "spec": pod["spec"]});
    let workload = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "shop"},
        "spec": {
            "serviceName": "shop", "replicas": 2, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "shop"}}, "template": template,
        },
    });
    [storage, workload]
}

/// Whether the sidecar of a pod runs what is shipped: as nobody, on a root that cannot be written.
async fn runs_restricted(pods: &Api<Pod>, name: &str) {
    let version = pods::exec(pods, name, "walstorage", &["/walstorage-sidecar", "version"]).await.expect("it answers");
    assert_eq!(version.trim_end(), concat!("walstorage-sidecar ", env!("CARGO_PKG_VERSION")));
    let pod = pods.get(name).await.expect("the pod");
    let sidecar = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecar = sidecar.into_iter().find(|container| container.name == "walstorage").expect("a sidecar");
    let security = sidecar.security_context.as_ref().expect("a security context");
    assert_eq!((security.read_only_root_filesystem, security.run_as_non_root), (Some(true), Some(true)));
}

/// Uid and restarts of a pod: as long as both stay, nobody has touched it.
async fn untouched(pods: &Api<Pod>, name: &str) -> (Option<String>, i32) {
    let pod = pods::ready(pods, name).await;
    let restarts = pods::restarts(&pod, "walstorage") + pods::restarts(&pod, "app");
    (pod.metadata.uid, restarts)
}

#[tokio::test]
async fn the_charts_install_serve_upgrade_and_leave_what_users_have() {
    let test = "the_charts_install_serve_upgrade_and_leave_what_users_have";
    if let Some(why) = tools::why_no_node() {
        return skipped(test, &why);
    }
    let cluster = Cluster::with_images(images::all().unwrap()).await.expect("a cluster");
    restricted(&cluster, "system");
    restricted(&cluster, "shop");

    install(&cluster, &[]);
    // Without --logs: the pod of a test that succeeded is deleted before helm could read them.
    let said = cluster.helm(&["test", "wal", "--namespace", "system", "--timeout=3m"]).unwrap_or_else(|error| {
        let seen = cluster.kubectl(&["-n", "system", "describe", "pods"]).unwrap_or_default();
        panic!("the test of the chart fails: {error}\n{seen}")
    });
    assert!(said.contains("Succeeded"), "{said}");
    eventually("what the test made is gone", || async {
        let left = cluster.kubectl(&["-n", "system", "get", "pvc,walstorages,walwriters", "-o", "name"])?;
        if left.is_empty() { Ok(()) } else { Err(anyhow!(left)) }
    })
    .await;

    cluster.apply("shop", &shop()).expect("applied");
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "shop");
    for name in ["shop-0", "shop-1"] {
        eventually("the pod is there", || pods.get(name)).await;
        pods::ready(&pods, name).await;
        runs_restricted(&pods, name).await;
        pods::exec(&pods, name, "app", &["/wal-app", "append", "orders", "--count", "10"]).await.expect("appended");
    }
    let before = untouched(&pods, "shop-0").await;

    install(&cluster, &["--set=webhook.replicas=1,controller.resources.requests.cpu=20m"]);
    assert_eq!(untouched(&pods, "shop-0").await, before, "an upgrade touches no pod of users");

    cluster.helm(&["uninstall", "wal", "--namespace", "system", "--wait"]).expect("uninstalled");
    cluster.helm(&["uninstall", "types"]).expect("uninstalled");
    let left = cluster.kubectl(&["-n", "shop", "get", "walstorages,walwriters,pvc", "-o", "name"]).unwrap();
    assert_eq!(left.lines().count(), 1 + 2 + 2, "{left}");
    pods::exec(&pods, "shop-0", "app", &["/wal-app", "append", "orders", "--count", "5"]).await.expect("it goes on");
    assert_eq!(untouched(&pods, "shop-0").await, before, "no pod is touched");

    install(&cluster, &[]);
    pods::delete(&pods, "shop-0").await;
    pods::ready(&pods, "shop-0").await;
    let check = ["/wal-app", "check", "orders", "--acknowledged", "15"];
    let verdict = pods::exec(&pods, "shop-0", "app", &check).await.expect("all entries are there, once and in order");
    assert!(!verdict.is_empty());
    eventually("both are held", || async {
        let phases = "jsonpath={.items[*].status.phase}";
        let phases = cluster.kubectl(&["-n", "shop", "get", "walwriters", "-o", phases])?;
        if phases == "Active Active" { Ok(()) } else { Err(anyhow!(phases)) }
    })
    .await;
}
