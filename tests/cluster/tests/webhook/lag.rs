//! A webhook whose cache has not heard of something.

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use walstorage_cluster_tests::gateway::{Gateway, Log, is_watch};
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{ControlPlane, eventually};

use super::{Balancer, HOME, configure, create, deployment, end, free_address, home, storage};

/// Its writer, once it was granted.
fn granted(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get("walstorage.dev/grant")?;
    writer(pod)
}

fn writer(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get("walstorage.dev/writer").map(String::as_str)
}

/// By its cache the pod that is replaced goes on, and a new one would begin an empty log beside its entries.
#[tokio::test]
async fn a_pod_that_is_replaced_is_seen_to_end_whatever_the_cache_says() {
    let plane = ControlPlane::builder().controllers().start().await.expect("a control plane");
    plane.install_types().await;
    home(&plane).await;
    let class = json!({"metadata": {"name": "paper",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "example.com/none", "volumeBindingMode": "WaitForFirstConsumer"});
    let class = serde_json::from_value(class).unwrap();
    Api::<StorageClass>::all(plane.client()).create(&PostParams::default(), &class).await.unwrap();

    let args = ["--tls-name", "127.0.0.1", "--tls-interval", "500ms"];
    let mut controller = Operator::start("controller", &plane, HOME, None, &args).expect("a controller");
    let image = "registry.example.com/walstorage:1";
    let address = free_address();
    let listen = address.to_string();
    let args = ["--listen", &listen, "--sidecar-image", image, "--drain", "500ms"];
    let mut webhook = Operator::start("webhook", &plane, HOME, None, &args).expect("a webhook");
    let balancer = Balancer::start(vec![address]).await;
    configure(&plane, &balancer.address.to_string()).await;
    controller.ready().await;
    webhook.ready().await;

    let namespace = plane.namespace("lag").await;
    plane.accounts(&namespace).await;
    storage(&plane, &namespace).await;
    let one_for_one = json!({"maxSurge": 0, "maxUnavailable": 1});
    create(&plane, &namespace, "apps/v1", "Deployment", deployment("web", 1, &one_for_one)).await;
    let pods: Api<Pod> = Api::namespaced(plane.client(), &namespace);
    let all = async || anyhow::Ok(pods.list(&ListParams::default()).await?.items);
    let first = eventually("a pod is granted its writer", async || {
        let found = all().await?;
        let pod = found.iter().find(|pod| granted(pod).is_some()).cloned();
        pod.with_context(|| format!("{found:?}"))
    })
    .await;

    // The next one knows what there is when it starts, and hears nothing of pods from then on.
    assert_eq!(end(webhook).await, 0);
    let door = Gateway::open(&plane, &Log::default()).await.unwrap();
    let _watches = door.hold(|uri| uri.path() == "/api/v1/pods" && is_watch(uri));
    let address = free_address();
    let listen = address.to_string();
    let args = ["--listen", &listen, "--sidecar-image", image];
    let mut webhook = Operator::behind(&door, "webhook", &plane, HOME, None, &args).expect("a webhook");
    webhook.ready().await;
    balancer.route(vec![address]);
    let name = first.metadata.name.clone().unwrap();
    let stays = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/stays"]}}));
    pods.patch(&name, &PatchParams::default(), &stays).await.unwrap();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    let second = eventually("another takes its place", async || {
        let found = all().await?;
        let others = found.iter().filter(|pod| pod.metadata.uid != first.metadata.uid);
        let others: Vec<_> = others.cloned().collect();
        ensure!(others.len() == 1, "{others:?}");
        others.into_iter().next().context("none")
    })
    .await;
    assert_eq!(writer(&second), granted(&first), "it has the log of the one that ends");
}
