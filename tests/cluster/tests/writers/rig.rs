//! A cluster with the webhook and with controllers that can be watched, doubled and killed; and what a test does there.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use walstorage_cluster_tests::audit::{self, Counts, Watch};
use walstorage_cluster_tests::binaries::repository;
use walstorage_cluster_tests::gateway::{Gateway, Log, Written};
use walstorage_cluster_tests::kubelet::{self, Kubelets};
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{ControlPlane, charts, eventually};
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::{Phase, WalWriter};

/// Where the operator lives; the second controller has its Lease elsewhere, and so both lead.
const HOMES: [&str; 2] = ["walstorage", "walstorage-2"];
const CONTROLLER: &str = "system:serviceaccount:walstorage:walstorage-controller";
const WEBHOOK: &str = "system:serviceaccount:walstorage:walstorage-webhook";
const CONFIGURATION: &str = "walstorage-webhook";
const IMAGE: &str = "localhost/walstorage:paper";

/// Short timers: a test waits for seconds. The Lease alone is long: a machine with little time for the leader must not make
/// another of it, which would not have heard the last words of pods.
const TIMERS: [&str; 22] = [
    "--lease-duration",
    "60s",
    "--lease-renew",
    "40s",
    "--lease-retry",
    "200ms",
    "--backoff",
    "1s",
    "--orphan-after",
    "2s",
    "--handover-timeout",
    "2s",
    "--unwritable-after",
    "1s",
    "--poll-interval",
    "500ms",
    "--poll-timeout",
    "1s",
    "--tls-name",
    "127.0.0.1",
    "--tls-interval",
    "500ms",
];

/// The cluster.
pub(crate) struct Rig {
    pub(crate) plane: ControlPlane,
    pub(crate) client: Client,
    log: Log,
    gateways: [Gateway; 2],
    controllers: [Mutex<Option<Operator>>; 2],
    /// What the webhooks wrote: nothing.
    wrote: Log,
    _webhooks: Vec<Operator>,
    _door: Gateway,
    kubelets: Kubelets,
    watch: Watch,
}

impl Rig {
    /// A cluster with both webhooks and the first controller.
    pub(crate) async fn start() -> Self {
        let plane = ControlPlane::builder().controllers().nodes(5).start().await.expect("a control plane");
        plane.install_types().await;
        let client = plane.client();
        for home in HOMES {
            let home: Namespace = serde_json::from_value(json!({"metadata": {"name": home}})).unwrap();
            Api::all(client.clone()).create(&PostParams::default(), &home).await.expect("a namespace");
        }
        rights(&plane);
        let addresses: Vec<String> = (0..2).map(|_| free_address()).collect();
        configure(&plane, &addresses).await;
        let (log, wrote) = (Log::default(), Log::default());
        let gateways =
            [Gateway::open(&plane, &log).await.expect("a door"), Gateway::open(&plane, &log).await.expect("a door")];
        let door = Gateway::open(&plane, &wrote).await.expect("a door");
        // The first controller makes the certificates; the webhooks wait for them.
        let mut first = Operator::behind(&gateways[0], "controller", &plane, HOMES[0], Some(CONTROLLER), &arguments(0))
            .expect("a controller");
        let mut webhooks = Vec::new();
        for address in &addresses {
            let args = ["--sidecar-image", IMAGE, "--listen", address, "--tls-resync", "500ms", "--reservation", "5s"];
            let webhook = Operator::behind(&door, "webhook", &plane, HOMES[0], Some(WEBHOOK), &args);
            webhooks.push(webhook.expect("a webhook"));
        }
        first.ready().await;
        for webhook in &mut webhooks {
            webhook.ready().await;
        }
        policies(&plane);
        let (kubelets, watch) = (kubelet::start(plane.client()), audit::watch(plane.client()));
        let controllers = [Mutex::new(Some(first)), Mutex::new(None)];
        Self { plane, client, log, gateways, controllers, wrote, _webhooks: webhooks, _door: door, kubelets, watch }
    }

    /// Starts the controller of this number, unless it runs, and waits until it leads.
    pub(crate) async fn lead(&self, number: usize) {
        let mut running = self.controllers[number].lock().await;
        let mut controller = running.take().unwrap_or_else(|| {
            let (gateway, home) = (&self.gateways[number], HOMES[number]);
            let started =
                Operator::behind(gateway, "controller", &self.plane, home, Some(CONTROLLER), &arguments(number));
            started.expect("a controller")
        });
        controller.ready().await;
        eventually("it leads", || async {
            let leads = controller.metric("walstorage_operator_leader").await?;
            ensure!(leads == Some(1.0), "{leads:?}");
            Ok(())
        })
        .await;
        *running = Some(controller);
    }

    /// Kills a controller, as a power cut would.
    pub(crate) async fn kill(&self, number: usize) {
        let controller = self.controllers[number].lock().await.take();
        controller.expect("it runs").kill().expect("it ends");
    }

    /// The door of a controller.
    pub(crate) fn gateway(&self, number: usize) -> &Gateway {
        &self.gateways[number]
    }

    /// What the controllers wrote.
    pub(crate) fn log(&self) -> Vec<Written> {
        self.log.read()
    }

    /// A metric of a controller; 0 when it is not there.
    pub(crate) async fn metric(&self, number: usize, series: &str) -> f64 {
        let controller = self.controllers[number].lock().await;
        let value = controller.as_ref().expect("it runs").metric(series).await;
        value.expect("it answers").unwrap_or_default()
    }

    /// The invariants over what stands in a namespace, as soon as it has come to rest.
    pub(crate) async fn at_rest(&self, shop: &Shop<'_>) {
        eventually("everything is at rest", || audit::at_rest(&self.client, &shop.namespace)).await;
        self.watch.check();
    }

    /// The invariants over everything that was written.
    pub(crate) async fn audit(&self) -> Counts {
        self.watch.check();
        assert!(self.wrote.read().is_empty(), "I3: the webhook wrote {:?}", self.wrote.read());
        let _ = &self.kubelets;
        audit::log(&self.log()).expect("the invariants hold")
    }
}

fn arguments(number: usize) -> Vec<&'static str> {
    let mut arguments = TIMERS.to_vec();
    arguments.extend(["--sidecar-image", IMAGE]);
    if number > 0 {
        // One makes the certificates.
        arguments.extend(["--certificates", "cert-manager"]);
    }
    arguments
}

/// Takes the Lease away from a controller that was killed.
pub(crate) async fn lease_of(rig: &Rig, number: usize) {
    let leases: Api<Lease> = Api::namespaced(rig.client.clone(), HOMES[number]);
    leases.delete("walstorage-controller", &DeleteParams::default()).await.expect("the Lease of the dead");
}

/// The roles of the chart.
fn rights(plane: &ControlPlane) {
    for template in ["templates/rbac-controller.yaml", "templates/rbac-webhook.yaml"] {
        apply(plane, template);
    }
    let account = "--serviceaccount=walstorage:walstorage-controller";
    plane
        .kubectl(&["create", "rolebinding", "second", "-n", HOMES[1], "--clusterrole=cluster-admin", account])
        .expect("a second Lease");
}

/// The admission policies of the chart.
fn policies(plane: &ControlPlane) {
    apply(plane, "templates/policies.yaml");
}

fn apply(plane: &ControlPlane, template: &str) {
    let chart = repository().join("charts/walstorage").display().to_string();
    let text =
        plane.helm(&["template", "walstorage", &chart, "--namespace", HOMES[0], "-s", template]).expect("rendered");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    plane.kubectl(&["apply", "-f", file.path().to_str().unwrap()]).expect("accepted");
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Two webhooks as in the chart, each asked about half of the pods.
async fn configure(plane: &ControlPlane, addresses: &[String]) {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(plane.client());
    let hook = |name: &str, address: &str, half: &Value| {
        let mut hook = charts::webhook(plane, &format!("https://{address}/mutate")).expect("the chart's");
        hook["name"] = json!(name);
        hook["matchConditions"] = json!([half]);
        hook
    };
    // As a Service spreads connections, without either knowing of the other: by the random name of the token's volume.
    let half = |not: &str| {
        let volumes = "has(object.spec.volumes) && object.spec.volumes";
        json!({"name": "half", "expression": format!("{not}({volumes}.exists(v, v.name.matches('^kube-api-access-[bcdfghjklmnpq]')))")})
    };
    let configuration = json!({
        "metadata": {"name": CONFIGURATION},
        "webhooks": [
            hook("pods.walstorage.dev", &addresses[0], &half("")),
            hook("others.walstorage.dev", &addresses[1], &half("!")),
        ],
    });
    let configuration = serde_json::from_value(configuration).unwrap();
    configurations.create(&PostParams::default(), &configuration).await.expect("a configuration");
}

/// A namespace with a WalStorage `orders`.
pub(crate) struct Shop<'r> {
    pub(crate) rig: &'r Rig,
    pub(crate) namespace: String,
}

impl<'r> Shop<'r> {
    pub(crate) async fn open(rig: &'r Rig, prefix: &str, spec: Value) -> Shop<'r> {
        let shop = Self::empty(rig, prefix).await;
        shop.storage(spec).await;
        shop
    }

    /// The same without the WalStorage.
    pub(crate) async fn empty(rig: &'r Rig, prefix: &str) -> Shop<'r> {
        let namespace = rig.plane.namespace(prefix).await;
        rig.plane.accounts(&namespace).await;
        Shop { rig, namespace }
    }

    /// Makes the WalStorage, or changes it.
    pub(crate) async fn storage(&self, spec: Value) {
        let wanted = json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage",
            "metadata": {"name": "orders"}, "spec": spec});
        let user = PatchParams::apply("test").force();
        self.storages().patch("orders", &user, &Patch::Apply(&wanted)).await.expect("a WalStorage");
    }

    pub(crate) fn storages(&self) -> Api<WalStorage> {
        Api::namespaced(self.rig.client.clone(), &self.namespace)
    }

    pub(crate) fn writers(&self) -> Api<WalWriter> {
        Api::namespaced(self.rig.client.clone(), &self.namespace)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.rig.client.clone(), &self.namespace)
    }

    pub(crate) fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.rig.client.clone(), &self.namespace)
    }

    pub(crate) async fn list(&self) -> Vec<WalWriter> {
        self.writers().list(&ListParams::default()).await.expect("a list").items
    }

    /// A StatefulSet whose pods leave so many entries, or do not say.
    pub(crate) async fn stateful_set(&self, name: &str, replicas: usize, leaves: Option<u64>) {
        self.annotated_set(name, replicas, &annotations(leaves)).await;
    }

    /// A StatefulSet whose pods have these annotations.
    pub(crate) async fn annotated_set(&self, name: &str, replicas: usize, annotations: &Value) {
        let sets: Api<StatefulSet> = Api::namespaced(self.rig.client.clone(), &self.namespace);
        let set = json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"set": name}}, "template": template("set", name, annotations),
            },
        });
        sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.expect("a StatefulSet");
    }

    /// A Deployment whose pods take over each other's writers.
    pub(crate) async fn deployment(&self, name: &str, replicas: usize, leaves: Option<u64>) {
        let deployments: Api<Deployment> = Api::namespaced(self.rig.client.clone(), &self.namespace);
        let mut template = template("web", name, &annotations(leaves));
        template["metadata"]["labels"]["app"] = json!("pool");
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"web": name}}, "template": template,
                "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}},
            },
        });
        let deployment = serde_json::from_value(deployment).unwrap();
        deployments.create(&PostParams::default(), &deployment).await.expect("a Deployment");
    }

    /// Scales `statefulset/x` or `deployment/x`.
    pub(crate) fn scale(&self, workload: &str, replicas: usize) {
        let replicas = format!("--replicas={replicas}");
        self.rig.plane.kubectl(&["scale", "-n", &self.namespace, workload, &replicas]).expect("scaled");
    }

    /// Runs a command line of `kubectl` that the operator printed.
    pub(crate) fn as_told(&self, line: &str) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.first(), Some(&"kubectl"), "{line}");
        words.remove(0);
        if !words.contains(&"-n") {
            words.extend(["-n", &self.namespace]);
        }
        self.rig.plane.kubectl(&words).unwrap_or_else(|error| panic!("{line}: {error:#}"));
    }

    /// Waits until so many writers are Active; of many, for one part after the other.
    pub(crate) async fn active(&self, count: usize) {
        for part in (0..count).step_by(50).skip(1) {
            eventually(&format!("{part} of {count} writers are Active"), || async {
                let writers = self.list().await;
                let active =
                    |writer: &&WalWriter| writer.status.as_ref().and_then(|it| it.phase) == Some(Phase::Active);
                let active = writers.iter().filter(active).count();
                if active < part {
                    unhurried().await;
                    bail!("{active}");
                }
                Ok(())
            })
            .await;
        }
        self.phase_of(count, Phase::Active).await;
    }

    /// Waits until so many writers are in a phase.
    pub(crate) async fn phase_of(&self, count: usize, phase: Phase) -> Vec<WalWriter> {
        eventually(&format!("{count} writers are {phase:?}"), || async {
            let writers = self.list().await;
            let of = |writer: &WalWriter| writer.status.as_ref().and_then(|status| status.phase);
            let found: Vec<WalWriter> = writers.iter().filter(|one| of(one) == Some(phase)).cloned().collect();
            let all: Vec<_> = writers.iter().map(of).collect();
            if found.len() == count { Ok(found) } else { bail!("{all:?}") }
        })
        .await
    }

    /// Waits until a writer is in a phase.
    pub(crate) async fn phase(&self, writer: &str, phase: Phase) -> WalWriter {
        eventually(&format!("{writer} is {phase:?}"), || async {
            let writer = self.writers().get(writer).await?;
            let now = writer.status.as_ref().and_then(|status| status.phase);
            if now == Some(phase) { Ok(writer) } else { bail!("{:?}", writer.status) }
        })
        .await
    }

    /// Waits until a condition of the storage is so, and returns its message.
    pub(crate) async fn said(&self, kind: &str, is: &str, reason: &str) -> String {
        self.says(kind, is, reason, "").await
    }

    /// Waits until its message has this part besides: one reason may have several sentences, one after the other.
    pub(crate) async fn says(&self, kind: &str, is: &str, reason: &str, part: &str) -> String {
        eventually(&format!("{kind} is {is} ({reason}): {part}"), || async {
            let status = self.storages().get("orders").await?.status.unwrap_or_default();
            let conditions = status.conditions.unwrap_or_default();
            let found = conditions.iter().find(|one| one.type_ == kind);
            let found = found.filter(|one| one.status == is && one.reason == reason && one.message.contains(part));
            found.map(|one| one.message.clone()).with_context(|| format!("{conditions:?}"))
        })
        .await
    }

    /// Waits for an event of this reason on an object, and returns its sentence. That an API server under load gave the webhook no
    /// answer is none: who creates tries again.
    pub(crate) async fn event(&self, reason: &str, object: &str) -> String {
        self.told(reason, object, "").await
    }

    /// Waits for one whose sentence has this part.
    pub(crate) async fn told(&self, reason: &str, object: &str, part: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.rig.client.clone(), &self.namespace);
        eventually(&format!("an event {reason} on {object}: {part}"), || async {
            let all = events.list(&ListParams::default()).await?.items;
            let on = |event: &&Event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(object);
            let passes =
                |event: &&Event| event.note.as_deref().is_some_and(|note| note.contains("read now, try again"));
            let of_reason = all.iter().filter(on).filter(|event| event.reason.as_deref() == Some(reason));
            let notes = of_reason.filter(|event| !passes(event)).map(|event| event.note.clone().unwrap_or_default());
            let notes: Vec<String> = notes.collect();
            let seen: BTreeSet<_> = all.iter().filter_map(|event| event.reason.clone()).collect();
            notes.iter().find(|note| note.contains(part)).cloned().with_context(|| format!("{notes:?} of {seen:?}"))
        })
        .await
    }

    /// Uids of the pods with a label that are not being deleted.
    pub(crate) async fn uids(&self, label: &str) -> BTreeSet<String> {
        let pods = self.pods().list(&ListParams::default().labels(label)).await.expect("a list").items;
        let stay = pods.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        stay.filter_map(|pod| pod.metadata.uid).collect()
    }

    /// Waits until there are so many pods with a label, and none of these uids; of many, for one part after the other.
    pub(crate) async fn others(&self, label: &str, count: usize, old: &BTreeSet<String>) {
        for part in (0..=count).step_by(25).skip(1) {
            eventually(&format!("{part} of {count} pods with {label} are others"), || async {
                let now = self.uids(label).await;
                let new = now.difference(old).count();
                if new >= part && (part < count || now.len() == count) {
                    Ok(())
                } else {
                    bail!("{new} of {}", now.len())
                }
            })
            .await;
        }
    }

    /// Waits until a gauge of the first controller about this storage is so.
    pub(crate) async fn gauge(&self, name: &str, more: &str, value: f64) {
        let labels = format!("namespace=\"{}\",storage=\"orders\"{more}", self.namespace);
        let series = format!("walstorage_operator_{name}{{{labels}}}");
        eventually(&format!("{series} is {value}"), || async {
            let now = self.rig.metric(0, &series).await;
            ensure!((now - value).abs() < f64::EPSILON, "{now}");
            Ok(())
        })
        .await;
    }

    /// The gates of a pod.
    pub(crate) async fn gates(&self, pod: &str) -> usize {
        let pod = self.pods().get(pod).await.expect("a pod");
        pod.spec.and_then(|spec| spec.scheduling_gates).map_or(0, |gates| gates.len())
    }

    /// Sets an annotation of a pod.
    pub(crate) async fn annotate(&self, pod: &str, name: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {name: value}}});
        self.pods().patch(pod, &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotated");
    }

    /// Waits until a pod of this name is another one than the one with this uid, and returns its uid.
    pub(crate) async fn another(&self, pod: &str, uid: &str) -> String {
        eventually(&format!("another {pod}"), || async {
            let now = self.pods().get(pod).await?.metadata.uid.unwrap_or_default();
            if now == uid { bail!("the same") } else { Ok(now) }
        })
        .await
    }
}

/// Lists of hundreds, one after the other, would keep the API server from its work.
async fn unhurried() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Annotations of a pod that leaves so many entries, or does not say.
fn annotations(leaves: Option<u64>) -> Value {
    leaves.map_or_else(|| json!({}), |leaves| json!({kubelet::LEAVES: leaves.to_string()}))
}

fn template(label: &str, name: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"labels": {label: name, "walstorage.dev/storage": "orders"}, "annotations": annotations},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "paper"}]},
    })
}
