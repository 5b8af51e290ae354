//! The WalStorage controller, the real program, on a real API server: what becomes of a WalStorage, its ConfigMap and its
//! status, whoever interferes.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "storage/events.rs"]
mod events;
#[path = "storage/lag.rs"]
mod lag;
#[path = "storage/leader.rs"]
mod leader;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use walstorage_cluster_tests::binaries::{program, repository};
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{ControlPlane, eventually};
use walstorage_crds::walstorage::WalStorage;
use walstorage_crds::walwriter::WalWriter;

/// Where the operator lives.
const HOME: &str = "walstorage";
/// Whom it acts as.
const ACCOUNT: &str = "system:serviceaccount:walstorage:walstorage-controller";
/// Short timers: a test waits for seconds.
const TIMERS: [&str; 12] = [
    "--lease-duration",
    "3s",
    "--lease-renew",
    "2s",
    "--lease-retry",
    "500ms",
    "--schema-retry",
    "200ms",
    "--backoff",
    "2s",
    "--orphan-after",
    "2s",
];

/// A control plane with the types, the roles of the chart and controllers, for all tests.
async fn plane() -> &'static ControlPlane {
    static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();
    PLANE
        .get_or_init(|| async {
            let plane = ControlPlane::builder().controllers().start().await.expect("a control plane");
            plane.install_types().await;
            home(&plane).await;
            roles(&plane).expect("the chart's roles");
            plane
        })
        .await
}

/// Makes the operator's own namespace.
async fn home(plane: &ControlPlane) {
    let home: Namespace = serde_json::from_value(json!({"metadata": {"name": HOME}})).unwrap();
    Api::all(plane.client()).create(&PostParams::default(), &home).await.expect("a namespace");
}

/// The roles of the chart, and nothing else of it.
fn roles(plane: &ControlPlane) -> Result<()> {
    let chart = repository().join("charts/walstorage");
    let chart = chart.to_str().context("a path in UTF-8")?;
    let roles =
        plane.helm(&["template", "walstorage", chart, "--namespace", HOME, "-s", "templates/rbac-controller.yaml"])?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), roles)?;
    plane.kubectl(&["apply", "-f", file.path().to_str().context("a path in UTF-8")?])?;
    Ok(())
}

/// The controller that all tests share, under the rights of the chart and no other.
async fn controller() -> (&'static ControlPlane, &'static Operator) {
    static CONTROLLER: OnceCell<Operator> = OnceCell::const_new();
    let plane = plane().await;
    let operator = CONTROLLER
        .get_or_init(|| async {
            let mut operator = Operator::start("controller", plane, HOME, Some(ACCOUNT), &TIMERS).expect("it starts");
            operator.ready().await;
            operator
        })
        .await;
    (plane, operator)
}

/// A test's namespace, and what it does there.
struct Shop<'a> {
    plane: &'a ControlPlane,
    client: Client,
    namespace: String,
}

impl<'a> Shop<'a> {
    /// On the shared plane, with its controller.
    async fn open(name: &str) -> Shop<'static> {
        let (plane, _) = controller().await;
        Shop::on(plane, name).await
    }

    async fn on(plane: &'a ControlPlane, name: &str) -> Self {
        Self { plane, client: plane.client(), namespace: plane.namespace(name).await }
    }

    fn storages(&self) -> Api<WalStorage> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn writers(&self) -> Api<WalWriter> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn apply(&self, spec: &Value) -> Result<WalStorage, kube::Error> {
        let wanted = json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage",
            "metadata": {"name": "orders"}, "spec": spec});
        self.storages().patch("orders", &PatchParams::apply("test").force(), &Patch::Apply(&wanted)).await
    }

    /// Waits until the status speaks of the newest spec, and a condition is so.
    async fn until(&self, kind: &str, is: &str, reason: &str) -> WalStorage {
        eventually(&format!("{kind} is {is} ({reason})"), || async {
            let storage = self.storages().get("orders").await?;
            let status = storage.status.clone().unwrap_or_default();
            ensure!(status.observed_generation == storage.metadata.generation, "{status:?}");
            let conditions = status.conditions.clone().unwrap_or_default();
            let condition = conditions.iter().find(|condition| condition.type_ == kind);
            let so = condition.is_some_and(|condition| condition.status == is && condition.reason == reason);
            if so { Ok(storage) } else { bail!("{conditions:?}") }
        })
        .await
    }

    /// Waits for an event of the storage.
    async fn event(&self, reason: &str) -> Event {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        eventually(&format!("an event {reason}"), || async {
            let all = events.list(&ListParams::default()).await?.items;
            let seen: Vec<_> = all.iter().map(|event| event.reason.clone()).collect();
            let found = all.into_iter().find(|event| event.reason.as_deref() == Some(reason));
            found.with_context(|| format!("{seen:?}"))
        })
        .await
    }

    async fn text(&self) -> Result<String> {
        let map = self.maps().get("orders-walstorage").await?;
        map.data.unwrap_or_default().remove("config.toml").context("no config.toml")
    }

    /// Makes a writer as the grant would, with one directory.
    async fn writer(&self, status: Value) {
        let wanted: WalWriter = serde_json::from_value(json!({
            "metadata": {"name": "orders.orders-0"},
            "spec": {"storage": "orders", "writer": "orders-0", "writerUid": "0b0a3f6c-5f3a-4f2d-8f2c-0a4a2f1d7c11",
                "identity": "Named", "workload": {"group": "apps", "kind": "StatefulSet", "name": "orders"}},
        }))
        .unwrap();
        self.writers().create(&PostParams::default(), &wanted).await.expect("a writer");
        self.report(status).await;
    }

    async fn report(&self, status: Value) {
        let patch = json!({"status": status});
        self.writers().patch_status("orders.orders-0", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// A pod that has the sidecar, as far as a storage can see.
    async fn pod(&self, name: &str) -> Api<Pod> {
        self.plane.accounts(&self.namespace).await;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"walstorage.dev/storage": "orders"}},
            "spec": {
                "schedulingGates": [{"name": "example.com/never"}],
                "initContainers": [{"name": "walstorage", "image": "x", "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": "x"}],
            },
        }))
        .unwrap();
        pods.create(&PostParams::default(), &pod).await.expect("a pod");
        pods
    }
}

/// The one default class that claims need.
async fn class(plane: &ControlPlane) {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/none",
        "metadata": {"name": "paper", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true});
    let classes: Api<StorageClass> = Api::all(plane.client());
    classes.patch("paper", &PatchParams::apply("test").force(), &Patch::Apply(&class)).await.expect("a class");
}

const TWO: &str = r#"{"walUrls": [{"name": "a", "url": "file:///wal/a"}, {"name": "b", "url": "file:///wal/b"}]}"#;

fn two() -> Value {
    serde_json::from_str(TWO).unwrap()
}

/// The first of them.
fn one() -> Value {
    json!({"walUrls": [{"name": "a", "url": "file:///wal/a"}]})
}

/// Whether the second of two is being drained, as far as sidecars are told.
fn drains(text: &str) -> Result<()> {
    ensure!(text.contains("url_options.\"file:///wal/b\"]\ndrain = true"), "{text}");
    Ok(())
}

/// Of a writer that has both, and may have entries in the second.
fn volumes(empty: &str) -> Value {
    json!({"phase": "Active", "volumes": [{"name": "a", "url": "file:///wal/a", "claimName": "c", "claimUid": "u"},
        {"name": "b", "url": "file:///wal/b", "claimName": "d", "claimUid": "v", "empty": empty}]})
}

#[tokio::test]
async fn a_storage_gets_a_config_map_that_is_what_render_prints_and_is_ready() {
    let shop = Shop::open("made").await;
    class(shop.plane).await;
    for spec in [json!({}), json!({"memoryFlushSize": "2Mi", "compression": "zstandard"})] {
        shop.apply(&spec).await.unwrap();
        let storage = shop.until("Ready", "True", "NoPods").await;
        let document = json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage",
            "metadata": {"name": "orders"}, "spec": spec});
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), document.to_string()).unwrap();
        let rendered = std::process::Command::new(program("walstorage-operator"))
            .args(["render", "--part", "config", "-f"])
            .arg(file.path())
            .output()
            .unwrap();
        let text = shop.text().await.unwrap();
        assert_eq!(text, String::from_utf8(rendered.stdout).unwrap());
        let hash = storage.status.unwrap().config_hash.unwrap();
        assert_eq!(text.lines().next().unwrap(), format!("# walstorage v1 {hash}"));
    }
    shop.event("Accepted").await;
    let printed = shop.plane.kubectl(&["get", "wal", "-n", &shop.namespace]).unwrap();
    assert!(printed.contains("True") && printed.contains("0/0"), "{printed}");
}

#[tokio::test]
async fn a_strangers_config_map_is_never_touched() {
    let shop = Shop::open("stranger").await;
    let theirs: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "orders-walstorage"}, "data": {"config.toml": "mine"}}))
            .unwrap();
    let made = shop.maps().create(&PostParams::default(), &theirs).await.unwrap();
    shop.apply(&json!({})).await.unwrap();
    shop.until("Accepted", "False", "NameConflict").await;
    shop.event("Refused").await;
    let now = shop.maps().get("orders-walstorage").await.unwrap();
    assert_eq!(now, made, "not a byte of it");
    // Out of the way, it is made.
    shop.maps().delete("orders-walstorage", &DeleteParams::default()).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
}

#[tokio::test]
async fn what_others_change_is_reverted_said_and_counted() {
    let shop = Shop::open("drift").await;
    let (_, operator) = controller().await;
    shop.apply(&json!({})).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    let text = shop.text().await.unwrap();
    let series = "walstorage_operator_drift_reverted_total{kind=\"ConfigMap\"}";
    let before = operator.metric(series).await.unwrap().unwrap_or_default();
    let mine = json!({"data": {"config.toml": "mine"}});
    shop.maps().patch("orders-walstorage", &PatchParams::default(), &Patch::Merge(&mine)).await.unwrap();
    let back = || async {
        ensure!(shop.text().await? == text, "not yet");
        Ok(())
    };
    eventually("the text is as it was", back).await;
    shop.event("DriftReverted").await;
    shop.maps().delete("orders-walstorage", &DeleteParams::default()).await.unwrap();
    eventually("the ConfigMap is back", back).await;
    eventually("both are counted", || async {
        let now = operator.metric(series).await?.unwrap_or_default();
        ensure!(now >= before + 2.0, "{now}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_must_not_change_is_refused_with_the_reason_and_changes_nothing() {
    let shop = Shop::open("refused").await;
    shop.apply(&two()).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    let text = shop.text().await.unwrap();
    shop.writer(json!({"phase": "Active", "volumes": [
        {"name": "a", "url": "file:///wal/a", "claimName": "c", "claimUid": "u", "size": "10Gi"},
        {"name": "b", "url": "file:///wal/b", "claimName": "d", "claimUid": "v", "size": "10Gi"}]}))
        .await;
    let url = |name: &str, url: &str, size: &str| json!({"name": name, "url": url, "volume": {"size": size}});
    // Removed and added again at once, each goes round the rules of the schema.
    for (spec, reason) in [
        (json!({"walUrls": [url("a", "file:///wal/a", "10Gi"), url("b", "file:///wal/other", "10Gi")]}), "UrlChanged"),
        (json!({"walUrls": [url("a", "file:///wal/a", "10Gi"), url("c", "file:///wal/b", "10Gi")]}), "UrlChanged"),
        (json!({"walUrls": [url("a", "file:///wal/a", "5Gi"), url("b", "file:///wal/b", "10Gi")]}), "SizeShrinks"),
        (json!({"sidecar": {"resources": {"limits": {"memory": "64Mi"}}}}), "MemoryTooSmall"),
        (json!({"memoryFlushSize": "4Gi"}), "InvalidConfig"),
    ] {
        // The schema refuses what it can see in one step; the ledger sees it in two.
        shop.storages().delete("orders", &DeleteParams::default()).await.unwrap();
        eventually("the storage is gone", || async {
            ensure!(shop.storages().get_opt("orders").await?.is_none(), "not yet");
            Ok(())
        })
        .await;
        shop.apply(&spec).await.unwrap();
        let storage = shop.until("Accepted", "False", reason).await;
        let conditions = storage.status.unwrap().conditions.unwrap();
        let stalled = conditions.iter().find(|condition| condition.type_ == "Stalled").unwrap();
        assert_eq!(stalled.status, "True");
        // And back to what is right.
        let _ = text;
    }
    shop.apply(&two()).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    assert_eq!(shop.text().await.unwrap(), text);
    shop.apply(&json!({"memoryFlushSize": "4Gi", "walUrls": two()["walUrls"]})).await.unwrap();
    shop.until("Accepted", "False", "InvalidConfig").await;
    assert_eq!(shop.text().await.unwrap(), text, "the ConfigMap of what was accepted last stands");
}

#[tokio::test]
async fn a_mount_that_pods_need_themselves_is_refused_by_the_schema_already() {
    let shop = Shop::open("mount").await;
    for url in ["file:///etc/wal", "file:///run", "file:///proc/1"] {
        let refused = shop.apply(&json!({"walUrls": [{"name": "a", "url": url}]})).await;
        assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 422), "{refused:?}");
    }
    let shared = json!({"walUrls": [{"name": "a", "url": "file:///wal"}, {"name": "b", "url": "file:///wal/b"}]});
    assert!(shop.apply(&shared).await.is_err(), "one inside of the other");
}

#[tokio::test]
async fn a_removed_url_stays_draining_until_no_writer_may_have_entries_there() {
    let shop = Shop::open("drained").await;
    class(shop.plane).await;
    shop.apply(&two()).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    shop.writer(volumes("Unknown")).await;
    shop.apply(&one()).await.unwrap();
    shop.until("Reconciling", "True", "Draining").await;
    eventually("the URL drains", || async { drains(&shop.text().await?) }).await;
    shop.event("UrlDraining").await;
    shop.report(volumes("True")).await;
    shop.until("Reconciling", "False", "Done").await;
    eventually("the URL is gone", || async {
        let text = shop.text().await?;
        ensure!(!text.contains("file:///wal/b"), "{text}");
        Ok(())
    })
    .await;
    shop.event("UrlDrained").await;
}

#[tokio::test]
async fn a_class_that_is_not_there_is_said_before_a_pod_waits_for_it() {
    let shop = Shop::open("class").await;
    let spec = json!({"walUrls": [{"name": "a", "url": "file:///wal/a", "volume": {"storageClassName": "absent"}}]});
    shop.apply(&spec).await.unwrap();
    let storage = shop.until("ClaimsReady", "False", "ClassMissing").await;
    let conditions = storage.status.unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert!(ready.message.contains("StorageClass absent does not exist"), "{}", ready.message);
}

#[tokio::test]
async fn a_storage_in_use_stays_until_its_pods_are_gone() {
    let shop = Shop::open("in-use").await;
    shop.apply(&json!({})).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    let pods = shop.pod("app").await;
    eventually("the pod is counted", || async {
        let status = shop.storages().get("orders").await?.status.unwrap_or_default();
        ensure!(status.summary.as_deref() == Some("0/1"), "{status:?}");
        Ok(())
    })
    .await;
    shop.storages().delete("orders", &DeleteParams::default()).await.unwrap();
    let storage = shop.until("Reconciling", "True", "Deleting").await;
    let conditions = storage.status.unwrap().conditions.unwrap();
    let waits = conditions.iter().find(|condition| condition.type_ == "Reconciling").unwrap();
    assert!(waits.message.contains("1 pod (app) still uses it"), "{}", waits.message);
    shop.text().await.expect("its ConfigMap stays with it");
    pods.delete("app", &DeleteParams::default().grace_period(0)).await.unwrap();
    eventually("the storage is gone", || async {
        ensure!(shop.storages().get_opt("orders").await?.is_none(), "not yet");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_ledger_outlives_a_storage_that_retains() {
    let shop = Shop::open("retain").await;
    shop.apply(&json!({})).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    let status = json!({"phase": "Orphaned", "volumes": [{"name": "data", "url": "file:///workspace/data/wal",
        "claimName": "c", "claimUid": "u"}]});
    shop.writer(status).await;
    shop.storages().delete("orders", &DeleteParams::default()).await.unwrap();
    eventually("the storage is gone", || async {
        ensure!(shop.storages().get_opt("orders").await?.is_none(), "not yet");
        Ok(())
    })
    .await;
    shop.writers().get("orders.orders-0").await.expect("the ledger stays");
    shop.apply(&json!({"walUrls": [{"name": "data", "url": "file:///elsewhere"}]})).await.unwrap();
    shop.until("Accepted", "False", "UrlChanged").await;
}

#[tokio::test]
async fn a_namespace_with_a_storage_can_be_deleted() {
    let shop = Shop::open("ends").await;
    shop.apply(&json!({"reclaimPolicy": {"whenDeleted": "Delete"}})).await.unwrap();
    shop.until("ConfigRendered", "True", "Rendered").await;
    let status = json!({"phase": "Orphaned", "volumes": [{"name": "data", "url": "file:///workspace/data/wal",
        "claimName": "c", "claimUid": "u"}]});
    shop.writer(status).await;
    let namespaces: Api<Namespace> = Api::all(shop.client.clone());
    namespaces.delete(&shop.namespace, &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", || async {
        let left = namespaces.get_opt(&shop.namespace).await?;
        ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_is_newer_than_the_schemas_waits_and_says_what_to_run() {
    let plane = ControlPlane::start().await.unwrap();
    home(&plane).await;
    let mut operator = Operator::start("controller", &plane, HOME, None, &TIMERS).unwrap();
    let not_ready = eventually("it says that it waits", || async {
        let (status, body) = operator.get("/readyz").await?;
        ensure!(status == 503 && body.contains("is not installed"), "{status}: {body}");
        Ok(body)
    })
    .await;
    assert!(not_ready.contains("walstorage-operator crds | kubectl apply --server-side -f -"), "{not_ready}");
    assert_eq!(operator.get("/livez").await.unwrap().0, 200);
    plane.install_types().await;
    operator.ready().await;
}
