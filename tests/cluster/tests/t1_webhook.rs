//! The webhook on a real API server: what becomes of pods of every kind, what users are told, dry runs, two replicas, and
//! certificates that change under load.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "webhook/certificates.rs"]
mod certificates;
#[path = "webhook/lag.rs"]
mod lag;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Event, LimitRange, Namespace, Pod};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use walstorage_cluster_tests::gateway::{Gateway, Log};
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{ControlPlane, charts, eventually};

const HOME: &str = "walstorage";
const CONFIGURATION: &str = "walstorage-webhook";

/// A control plane with workload controllers, two replicas of the webhook behind one address, and a controller.
struct Rig {
    plane: ControlPlane,
    webhooks: Vec<(SocketAddr, Operator)>,
    balancer: Balancer,
    controller: Operator,
}

impl Rig {
    async fn start() -> Self {
        let plane = ControlPlane::builder().controllers().start().await.expect("a control plane");
        plane.install_types().await;
        home(&plane).await;

        let mut webhooks = Vec::new();
        for _ in 0..2 {
            let address = free_address();
            let listen = address.to_string();
            let args = [
                "--listen",
                &listen,
                "--sidecar-image",
                "registry.example.com/walstorage:1",
                "--tls-resync",
                "2s",
                "--drain",
                "500ms",
            ];
            webhooks.push((address, Operator::start("webhook", &plane, HOME, None, &args).expect("a webhook")));
        }
        let endpoints: Vec<_> = webhooks.iter().map(|(address, _)| *address).collect();
        let balancer = Balancer::start(endpoints.clone()).await;
        configure(&plane, &balancer.address.to_string()).await;
        let list = endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let args = [
            "--tls-name",
            "127.0.0.1",
            "--webhook-endpoint",
            &list,
            "--tls-interval",
            "500ms",
            "--tls-settle",
            "1s",
            "--tls-overlap",
            "2s",
            "--lease-duration",
            "5s",
            "--lease-renew",
            "3s",
            "--lease-retry",
            "200ms",
        ];
        let controller = Operator::start("controller", &plane, HOME, None, &args).expect("a controller");
        for (_, webhook) in &mut webhooks {
            webhook.ready().await;
        }
        let rig = Self { plane, webhooks, balancer, controller };
        rig.calls().await;
        rig
    }

    /// Waits until the API server calls the webhook and trusts it.
    async fn calls(&self) {
        let namespace = self.namespace("probe", &json!({})).await;
        self.storage(&namespace).await;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        eventually("a pod is patched", || async {
            let made = self.pods(&namespace).create(&dry, &bare("probe")).await?;
            ensure!(made.metadata.labels.unwrap_or_default().contains_key("walstorage.dev/writer"), "not patched");
            Ok(())
        })
        .await;
    }

    /// A namespace with a default service account and these labels.
    async fn namespace(&self, prefix: &str, labels: &Value) -> String {
        let namespace = self.plane.namespace(prefix).await;
        let namespaces: Api<Namespace> = Api::all(self.plane.client());
        let patch = json!({"metadata": {"labels": labels}});
        namespaces.patch(&namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        self.plane.accounts(&namespace).await;
        namespace
    }

    async fn storage(&self, namespace: &str) {
        storage(&self.plane, namespace).await;
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.plane.client(), namespace)
    }

    async fn create(&self, namespace: &str, version: &str, kind: &str, object: Value) {
        create(&self.plane, namespace, version, kind, object).await;
    }
}

/// Makes the operator's own namespace.
async fn home(plane: &ControlPlane) {
    let home = serde_json::from_value(json!({"metadata": {"name": HOME}})).unwrap();
    Api::<Namespace>::all(plane.client()).create(&PostParams::default(), &home).await.unwrap();
}

async fn storage(plane: &ControlPlane, namespace: &str) {
    let spec = json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}]});
    let storage = json!({"metadata": {"name": "orders"}, "spec": spec});
    create(plane, namespace, "walstorage.dev/v1alpha1", "WalStorage", storage).await;
}

async fn create(plane: &ControlPlane, namespace: &str, version: &str, kind: &str, object: Value) {
    let (group, version) = version.split_once('/').unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::namespaced_with(plane.client(), namespace, &kind);
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let object = DynamicObject::new(&name, &kind).data(object);
    api.create(&PostParams::default(), &object).await.unwrap();
}

/// The webhook as in the chart, at a URL.
async fn configure(plane: &ControlPlane, address: &str) {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(plane.client());
    let hook = charts::webhook(plane, &format!("https://{address}/mutate")).expect("the chart's");
    let configuration = serde_json::from_value(json!({"metadata": {"name": CONFIGURATION}, "webhooks": [hook]}));
    configurations.create(&PostParams::default(), &configuration.unwrap()).await.unwrap();
}

/// A pod that the standard "restricted" admits.
fn spec() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "app", "image": "registry.example.com/app:1",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    })
}

fn bare(name: &str) -> Pod {
    let labels = json!({"walstorage.dev/storage": "orders"});
    serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec()})).unwrap()
}

fn template(restart: &str) -> Value {
    let mut spec = spec();
    spec["restartPolicy"] = json!(restart);
    json!({"metadata": {"labels": {"app": "x", "walstorage.dev/storage": "orders"}}, "spec": spec})
}

fn deployment(name: &str, replicas: u32, rolling: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": template("Always"),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        },
    })
}

/// What holds of every pod that was patched, as it is stored.
fn check(pod: &Pod) -> anyhow::Result<String> {
    let value = serde_json::to_value(pod)?;
    let all = value["spec"]["initContainers"].as_array().context("no sidecar")?;
    ensure!(all.len() == 1 && all[0]["name"] == "walstorage" && all[0]["restartPolicy"] == "Always", "{all:?}");
    let mounts = all[0]["volumeMounts"].as_array().context("no mounts")?;
    let token = mounts.iter().filter(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
    let token: Vec<_> = token.map(|mount| mount["name"].as_str().unwrap_or_default()).collect();
    ensure!(token == ["walstorage-no-token"], "{token:?}");
    let granted = value["metadata"]["annotations"].get("walstorage.dev/grant").is_some();
    let gated = value["spec"]["schedulingGates"] == json!([{"name": "walstorage.dev/writer"}]);
    // The controller may have let it go since.
    ensure!(gated || granted, "neither gated nor granted");
    ensure!(value["spec"]["terminationGracePeriodSeconds"] == 60, "grace");
    let app = &value["spec"]["containers"][0];
    ensure!(app["env"][0] == json!({"name": "WALSTORAGE_SOCKET", "value": "/run/walstorage/wal.sock"}), "{app}");
    let writer = value["metadata"]["labels"]["walstorage.dev/writer"].as_str().context("no writer")?;
    let claim = format!("wal-orders--a-{writer}");
    let volumes = value["spec"]["volumes"].as_array().context("no volumes")?;
    ensure!(volumes.iter().any(|volume| volume["persistentVolumeClaim"]["claimName"] == claim.as_str()), "{volumes:?}");
    Ok(writer.to_owned())
}

#[tokio::test]
async fn the_webhook_on_a_real_api_server() {
    let rig = Rig::start().await;
    pods_of_every_kind_are_patched_where_restricted_is_enforced(&rig).await;
    refusals_stand_where_their_reader_looks(&rig).await;
    a_dry_run_leaves_nothing(&rig).await;
    defaults_of_a_limit_range_stay(&rig).await;
    certificates::a_foreign_bundle_is_healed(&rig).await;
    certificates::no_pod_is_refused_while_they_change(&rig).await;
    certificates::the_old_authority_is_trusted_until_every_replica_serves_the_new_certificate(&rig).await;
    both_replicas_answer_and_one_may_end_under_load(rig).await;
}

/// Waits until `/readyz` has these lines.
async fn says(webhook: &Operator, lines: &[&str]) {
    eventually(&format!("it says {lines:?}"), || async {
        let (_, body) = webhook.get("/readyz").await?;
        ensure!(lines.iter().all(|line| body.contains(line)), "{body}");
        Ok(())
    })
    .await;
}

/// Without the pods it would take a writer for free that one of them has; and nobody trusts it before the controller has said
/// so. Until then it is no endpoint of its Service.
#[tokio::test]
async fn a_webhook_is_not_ready_before_it_has_seen_every_pod_and_is_trusted() {
    let plane = ControlPlane::start().await.expect("a control plane");
    plane.install_types().await;
    home(&plane).await;
    let door = Gateway::open(&plane, &Log::default()).await.unwrap();
    let held = door.hold(|uri| uri.path() == "/api/v1/pods");
    let address = free_address();
    let args = ["--listen", &address.to_string(), "--sidecar-image", "registry.example.com/walstorage:1"];
    let mut webhook = Operator::behind(&door, "webhook", &plane, HOME, None, &args).expect("a webhook");
    says(&webhook, &["[+] walstorages\n", "[+] walwriters\n", "[-] pods: not listed yet\n", "not ready\n"]).await;
    drop(held);
    says(&webhook, &["[+] pods\n", "[-] certificate: ", "not ready\n"]).await;
    let args = ["--tls-name", "127.0.0.1", "--tls-interval", "500ms"];
    let _controller = Operator::start("controller", &plane, HOME, None, &args).expect("a controller");
    says(&webhook, &["[+] certificate\n", "[-] trust: ", "is not there\n", "not ready\n"]).await;
    configure(&plane, &address.to_string()).await;
    webhook.ready().await;
}

async fn pods_of_every_kind_are_patched_where_restricted_is_enforced(rig: &Rig) {
    let restricted = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = rig.namespace("kinds", &restricted).await;
    rig.storage(&namespace).await;
    let set = json!({
        "metadata": {"name": "set"},
        "spec": {"replicas": 1, "serviceName": "set", "selector": {"matchLabels": {"app": "x"}}, "template": template("Always")},
    });
    rig.create(&namespace, "apps/v1", "StatefulSet", set).await;
    rig.create(&namespace, "apps/v1", "Deployment", deployment("web", 2, &json!({"maxSurge": 0, "maxUnavailable": 1})))
        .await;
    let job = |name: &str, more: Value| {
        let mut spec = json!({"template": template("Never")});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": name}, "spec": spec})
    };
    rig.create(&namespace, "batch/v1", "Job", job("plain", json!({}))).await;
    let indexed = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2});
    rig.create(&namespace, "batch/v1", "Job", job("indexed", indexed)).await;
    rig.pods(&namespace).create(&PostParams::default(), &bare("alone")).await.unwrap();

    eventually("a pod of every kind", || async {
        let pods = rig.pods(&namespace).list(&ListParams::default()).await?.items;
        let writers: BTreeSet<String> = pods.iter().map(check).collect::<anyhow::Result<_>>()?;
        let begin = |prefix: &str| writers.iter().filter(|writer| writer.starts_with(prefix)).count();
        let counts = [begin("set-0"), begin("web-"), begin("plain-"), begin("indexed-"), begin("alone")];
        ensure!(counts == [1, 2, 1, 2, 1], "{writers:?}");
        Ok(())
    })
    .await;
}

async fn refusals_stand_where_their_reader_looks(rig: &Rig) {
    let namespace = rig.namespace("refused", &json!({})).await;
    let error = rig.pods(&namespace).create(&PostParams::default(), &bare("early")).await.unwrap_err().to_string();
    let sentence = format!(
        "there is no WalStorage orders in namespace {namespace}: create it, or correct the pod's label walstorage.dev/storage"
    );
    assert!(
        error.contains(&format!("admission webhook \"pods.walstorage.dev\" denied the request: {sentence}")),
        "{error}"
    );

    // At once, although the cache may not have it yet.
    rig.storage(&namespace).await;
    rig.pods(&namespace).create(&PostParams::default(), &bare("late")).await.unwrap();

    rig.create(&namespace, "apps/v1", "Deployment", deployment("surging", 1, &json!({"maxSurge": "25%"}))).await;
    let remedy = "maxSurge: 0, maxUnavailable: 1";
    eventually("the ReplicaSet's condition has the remedy", || async {
        let sets: Api<ReplicaSet> = Api::namespaced(rig.plane.client(), &namespace);
        let set = sets.list(&ListParams::default()).await?.items.pop().context("no ReplicaSet")?;
        let conditions = set.status.and_then(|status| status.conditions).unwrap_or_default();
        let told = conditions
            .iter()
            .any(|one| one.type_ == "ReplicaFailure" && one.message.as_ref().is_some_and(|text| text.contains(remedy)));
        ensure!(told, "{conditions:?}");
        Ok(())
    })
    .await;
    eventually("an event has the remedy", || async {
        let events: Api<Event> = Api::namespaced(rig.plane.client(), &namespace);
        let events = events.list(&ListParams::default()).await?.items;
        let told = |event: &Event| {
            event.reason.as_deref() == Some("FailedCreate")
                && event.message.as_ref().is_some_and(|text| text.contains(remedy))
        };
        ensure!(events.iter().any(told), "{} events", events.len());
        Ok(())
    })
    .await;
}

async fn a_dry_run_leaves_nothing(rig: &Rig) {
    let namespace = rig.namespace("dry", &json!({})).await;
    rig.storage(&namespace).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = rig.pods(&namespace).create(&dry, &bare("orders-0")).await.unwrap();
    assert_eq!(check(&made).unwrap(), "orders-0");
    assert_eq!(rig.pods(&namespace).list(&ListParams::default()).await.unwrap().items.len(), 0);
}

/// The API server's own admission adds to our container after us, and we are called once more.
async fn defaults_of_a_limit_range_stay(rig: &Rig) {
    let namespace = rig.namespace("limits", &json!({})).await;
    rig.storage(&namespace).await;
    let ranges: Api<LimitRange> = Api::namespaced(rig.plane.client(), &namespace);
    let range = json!({
        "metadata": {"name": "defaults"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "700m"}, "defaultRequest": {"cpu": "100m"}, "min": {"cpu": "50m"}}]},
    });
    ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
    let pod = eventually("a pod with the defaults", || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let pod = rig.pods(&namespace).create(&dry, &bare("orders-0")).await?;
        let app = serde_json::to_value(&pod.spec.as_ref().unwrap().containers[0].resources)?;
        ensure!(app["limits"]["cpu"] == "700m", "the quota's cache lags: {app}");
        Ok(pod)
    })
    .await;
    let value = serde_json::to_value(&pod).unwrap();
    let resources = &value["spec"]["initContainers"][0]["resources"];
    assert_eq!(resources["limits"], json!({"cpu": "700m", "memory": "832Mi"}), "{resources}");
    assert_eq!(resources["requests"]["cpu"], "100m", "{resources}");
}

/// Makes pods (without keeping them) until it is told to stop; says how many.
async fn pods_until(pods: Api<Pod>, stop: Arc<AtomicBool>) -> anyhow::Result<u64> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let mut made = 0;
    while !stop.load(Ordering::Relaxed) {
        let pod = pods.create(&dry, &bare("storm")).await.map_err(|error| anyhow!("after {made} pods: {error}"))?;
        check(&pod)?;
        made += 1;
    }
    Ok(made)
}

async fn both_replicas_answer_and_one_may_end_under_load(rig: Rig) {
    let namespace = rig.namespace("replicas", &json!({})).await;
    rig.storage(&namespace).await;
    let stop = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..4).map(|_| tokio::spawn(pods_until(rig.pods(&namespace), Arc::clone(&stop)))).collect();
    let Rig { plane, mut webhooks, balancer, controller: _controller } = rig;
    let (address, other) = webhooks.pop().unwrap();
    // Requests share connections: the other one is asked when its connection is new.
    balancer.route(vec![address]);
    let (_, first) = webhooks.pop().unwrap();
    assert_eq!(end(first).await, 0);
    eventually("the other one answers", || async {
        let patched = other.metric("walstorage_operator_webhook_requests_total{result=\"patched\"}").await?;
        ensure!(patched.is_some_and(|patched| patched >= 10.0), "{patched:?}");
        Ok(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for storm in storm {
        storm.await.unwrap().expect("no pod was refused");
    }
    assert_eq!(end(other).await, 0);
    drop(plane);
}

/// Ends a command while everything else goes on.
async fn end(operator: Operator) -> i32 {
    tokio::task::spawn_blocking(move || operator.stop()).await.unwrap().expect("it ends by itself")
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Stands for a Service: each connection goes to the next of its endpoints that takes it. Ends with the runtime.
struct Balancer {
    address: SocketAddr,
    endpoints: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    async fn start(endpoints: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoints = Arc::new(Mutex::new(endpoints));
        let current = Arc::clone(&endpoints);
        tokio::spawn(async move {
            let mut turn = 0_usize;
            while let Ok((mut client, _)) = listener.accept().await {
                let all = current.lock().unwrap().clone();
                turn = turn.wrapping_add(1);
                tokio::spawn(async move {
                    for offset in 0..all.len() {
                        if let Ok(mut server) = TcpStream::connect(all[(turn + offset) % all.len()]).await {
                            let _ = copy_bidirectional(&mut client, &mut server).await;
                            return;
                        }
                    }
                });
            }
        });
        Self { address, endpoints }
    }

    /// Sends new connections elsewhere, as a Service does when its endpoints change.
    fn route(&self, endpoints: Vec<SocketAddr>) {
        *self.endpoints.lock().unwrap() = endpoints;
    }
}
