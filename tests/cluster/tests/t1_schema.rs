//! The resource types on a real API server, of the current version and as the oldest that is supported: what the
//! schema's rules accept and refuse, what they cost, what users see.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use walstorage_cluster_tests::ControlPlane;
use walstorage_cluster_tests::binaries::repository;

/// The oldest Kubernetes that is supported, which the API server still emulates.
const OLDEST: &str = "1.34";

/// An API server that knows the types.
struct Server {
    plane: ControlPlane,
}

impl Server {
    async fn current() -> &'static Self {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        SERVER.get_or_init(|| Self::start(ControlPlane::builder())).await
    }

    async fn oldest() -> &'static Self {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        SERVER.get_or_init(|| Self::start(ControlPlane::builder().emulated(OLDEST))).await
    }

    async fn start(builder: walstorage_cluster_tests::control_plane::Builder) -> Self {
        let plane = builder.start().await.expect("a control plane");
        plane.install_types().await;
        Self { plane }
    }

    fn storages(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.plane.client(), namespace, &resource("WalStorage"))
    }

    fn writers(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.plane.client(), namespace, &resource("WalWriter"))
    }
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("walstorage.dev", "v1alpha1", kind))
}

fn object(kind: &str, name: &str, spec: &Value) -> DynamicObject {
    DynamicObject::new(name, &resource(kind)).data(json!({"spec": spec}))
}

fn storage(name: &str, spec: &Value) -> DynamicObject {
    object("WalStorage", name, spec)
}

fn writer(writer: &str) -> DynamicObject {
    let spec = json!({
        "storage": "orders", "writer": writer, "identity": "Named",
        "writerUid": "0b0a3f6c-5f3a-4f2d-8f2c-0a4a2f1d7c11",
        "workload": {"group": "apps", "kind": "StatefulSet", "name": "shop"},
    });
    object("WalWriter", &format!("orders.{writer}"), &spec)
}

/// What the schema refuses, the server answers with 422; anything else is no judgement.
fn judgement<T>(result: Result<T, kube::Error>) -> Result<(), String> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 => Err(status.message),
        Err(error) => panic!("neither accepted nor refused: {error}"),
    }
}

/// The cases of a file: name, lines, and whether they are accepted.
fn cases(text: &str) -> Vec<(&str, Vec<Value>, bool)> {
    let cases: Vec<_> = text
        .split("\n### ")
        .skip(1)
        .map(|case| {
            let mut lines: Vec<&str> = case.lines().filter(|line| !line.is_empty()).collect();
            let name = lines.remove(0);
            let accepted = match lines.pop() {
                Some("ok") => true,
                Some("refused") => false,
                other => panic!("{name}: {other:?}"),
            };
            (name, lines.iter().map(|line| serde_yaml::from_str(line).expect(name)).collect(), accepted)
        })
        .collect();
    assert!(cases.len() > 10, "{}", cases.len());
    cases
}

async fn judges_each_spec(server: &Server) {
    let namespace = server.plane.namespace("pairs").await;
    let storages = server.storages(&namespace);
    let dry = PostParams { dry_run: true, field_manager: None };
    let mut wrong = Vec::new();
    for (name, specs, accepted) in cases(include_str!("../../../operator/tests/schema_pairs.txt")) {
        let [spec] = specs.as_slice() else { panic!("{name}: one spec") };
        let judged = judgement(storages.create(&dry, &storage("orders", spec)).await);
        if judged.is_ok() != accepted {
            wrong.push(format!("{name}: {judged:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn judges_each_update(server: &Server) {
    let namespace = server.plane.namespace("updates").await;
    let storages = server.storages(&namespace);
    let mut wrong = Vec::new();
    for (number, (name, specs, accepted)) in cases(include_str!("updates.txt")).into_iter().enumerate() {
        let [old, new] = specs.as_slice() else { panic!("{name}: two specs") };
        let object = format!("orders-{number}");
        let mut made = storages.create(&PostParams::default(), &storage(&object, old)).await.expect(name);
        made.data = json!({"spec": new});
        let judged = judgement(storages.replace(&object, &PostParams::default(), &made).await);
        if judged.is_ok() != accepted {
            wrong.push(format!("{name}: {judged:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn specs_are_accepted_and_refused_as_written_down() {
    judges_each_spec(Server::current().await).await;
}

#[tokio::test]
async fn the_oldest_kubernetes_judges_specs_the_same() {
    judges_each_spec(Server::oldest().await).await;
}

#[tokio::test]
async fn updates_are_accepted_and_refused_as_written_down() {
    judges_each_update(Server::current().await).await;
}

#[tokio::test]
async fn the_oldest_kubernetes_judges_updates_the_same() {
    judges_each_update(Server::oldest().await).await;
}

#[tokio::test]
async fn the_oldest_kubernetes_is_the_oldest() {
    let request = http::Request::get("/version").body(Vec::new()).unwrap();
    let version: Value = Server::oldest().await.plane.client().request(request).await.unwrap();
    let part = |name: &str| version[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(format!("{}.{}", part("emulationMajor"), part("emulationMinor")), OLDEST, "{version}");
}

/// A rule that costs too much, and a schema that is not structural, are refused or reported in conditions.
#[tokio::test]
async fn the_types_are_accepted_with_the_cost_of_their_rules() {
    for server in [Server::current().await, Server::oldest().await] {
        let types: Api<CustomResourceDefinition> = Api::all(server.plane.client());
        for name in ["walstorages.walstorage.dev", "walwriters.walstorage.dev"] {
            let status = types.get(name).await.unwrap().status.expect("a status");
            let of = |kind: &str| {
                status.conditions.iter().flatten().find(|it| it.type_ == kind).map(|it| it.status.as_str())
            };
            assert_eq!(of("Established"), Some("True"), "{name}");
            assert_eq!(of("NamesAccepted"), Some("True"), "{name}");
            assert!(matches!(of("NonStructuralSchema"), None | Some("False")), "{name}");
        }
    }
}

/// A rule over all pairs of a list costs most with the longest list.
#[tokio::test]
async fn the_longest_list_of_the_longest_urls_is_within_the_budget_at_run_time() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("longest").await;
    let urls: Vec<Value> = (10..26)
        .map(|number| {
            let path: String = (0..3).map(|_| format!("/{number}{}", "x".repeat(60))).collect();
            json!({"name": format!("u{number}"), "url": format!("file://{path}")})
        })
        .collect();
    let spec = json!({"walUrls": urls, "journal": {"name": "j", "url": "file:///j"}});
    let storages = server.storages(&namespace);
    storages.create(&PostParams::default(), &storage("orders", &spec)).await.expect("16 URLs");
}

#[tokio::test]
async fn nothing_is_filled_in_where_the_user_says_nothing() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("defaults").await;
    for spec in [json!({}), json!({"walUrls": [{"name": "a", "url": "file:///a", "volume": {}}], "sidecar": {}})] {
        let dry = PostParams { dry_run: true, field_manager: None };
        let made = server.storages(&namespace).create(&dry, &storage("orders", &spec)).await.unwrap();
        assert_eq!(made.data["spec"], spec);
    }
}

#[tokio::test]
async fn a_storage_without_a_spec_is_refused_or_empty_but_never_something_else() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("nothing").await;
    let mut bare = storage("orders", &json!({}));
    bare.data = json!({});
    let dry = PostParams { dry_run: true, field_manager: None };
    if let Ok(made) = server.storages(&namespace).create(&dry, &bare).await {
        assert!(made.data["spec"].is_null() || made.data["spec"] == json!({}), "{}", made.data);
    }
}

#[tokio::test]
async fn names_fit_into_names_of_claims() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("names").await;
    let longest = "a".repeat(40);
    let too_long = "a".repeat(41);
    let dry = PostParams { dry_run: true, field_manager: None };
    for (name, accepted) in [("orders", true), (&longest, true), (&too_long, false), ("a--b", false), ("a.b", false)] {
        let judged = judgement(server.storages(&namespace).create(&dry, &storage(name, &json!({}))).await);
        assert_eq!(judged.is_ok(), accepted, "{name}: {judged:?}");
    }
}

async fn columns(server: &Server, plural: &str) -> Vec<String> {
    let request = http::Request::get(format!("/apis/walstorage.dev/v1alpha1/{plural}"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = server.plane.client().request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().expect("a table");
    columns.iter().map(|column| column["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_shows_what_an_operator_of_it_looks_for() {
    let server = Server::current().await;
    let storages = ["Name", "Ready", "Pods", "Outdated", "Orphaned", "Unapplied", "Age"];
    assert_eq!(columns(server, "walstorages").await, storages);
    let writers = ["Name", "Phase", "Pod", "Workload", "Unapplied", "Drained", "Age"];
    assert_eq!(columns(server, "walwriters").await, writers);
}

#[tokio::test]
async fn every_name_of_the_types_finds_what_it_says_and_no_more() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("short").await;
    server.storages(&namespace).create(&PostParams::default(), &storage("orders", &json!({}))).await.unwrap();
    server.writers(&namespace).create(&PostParams::default(), &writer("shop-0")).await.unwrap();
    let (of_storages, of_writers) = ("walstorage.walstorage.dev/orders", "walwriter.walstorage.dev/orders.shop-0");
    for (name, found) in [
        ("wal", vec![of_storages]),
        ("walstorage", vec![of_storages]),
        ("walstorages", vec![of_storages]),
        ("walw", vec![of_writers]),
        ("walwriter", vec![of_writers]),
        ("walstorage-dev", vec![of_storages, of_writers]),
    ] {
        let printed = server.plane.kubectl(&["-n", &namespace, "get", name, "-o", "name"]).unwrap();
        assert_eq!(printed.lines().collect::<BTreeSet<_>>(), found.into_iter().collect(), "{name}");
    }
    // A category of the type's own name would take these for two types at once, and refuse them.
    for one in [["walstorage", "orders"], ["wal", "orders"], ["walwriter", "orders.shop-0"]] {
        let [kind, object] = one;
        server.plane.kubectl(&["-n", &namespace, "get", kind, object]).expect("one object by its name");
    }
}

#[tokio::test]
async fn status_is_written_apart_from_the_rest() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("status").await;
    let storages = server.storages(&namespace);
    let made = storages.create(&PostParams::default(), &storage("orders", &json!({}))).await.unwrap();
    let merge = PatchParams::default();
    let both = json!({"status": {"summary": "3/3"}, "spec": {"distributionStrategy": "Hash"}});

    let changed = storages.patch("orders", &merge, &Patch::Merge(&both)).await.unwrap();
    assert_eq!(changed.data["spec"]["distributionStrategy"], "Hash");
    assert!(changed.data["status"].is_null(), "{}", changed.data);
    assert_eq!(changed.metadata.generation, made.metadata.generation.map(|it| it + 1));

    let both = json!({"status": {"summary": "3/3"}, "spec": {"distributionStrategy": "RoundRobin"}});
    let reported = storages.patch_status("orders", &merge, &Patch::Merge(&both)).await.unwrap();
    assert_eq!(reported.data["status"]["summary"], "3/3");
    assert_eq!(reported.data["spec"]["distributionStrategy"], "Hash");
    assert_eq!(reported.metadata.generation, changed.metadata.generation, "a report is no change of what is wanted");
}

#[tokio::test]
async fn two_appliers_own_a_url_each() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("appliers").await;
    let storages = server.storages(&namespace);
    let apply = |manager: &'static str, urls: Value| {
        let storages = storages.clone();
        async move {
            let wanted = storage("orders", &json!({"walUrls": urls}));
            storages.patch("orders", &PatchParams::apply(manager), &Patch::Apply(&wanted)).await
        }
    };
    let url = |name: &str| json!({"name": name, "url": format!("file:///{name}")});
    let names = |object: &DynamicObject| -> Vec<String> {
        let urls = object.data["spec"]["walUrls"].as_array().expect("URLs");
        urls.iter().map(|url| url["name"].as_str().unwrap().to_owned()).collect()
    };
    apply("first", json!([url("a")])).await.unwrap();
    let both = apply("second", json!([url("b")])).await.unwrap();
    assert_eq!(names(&both), ["a", "b"], "a list by name, not one value");
    let conflict =
        apply("second", json!([{"name": "a", "url": "file:///a", "volume": {"size": "1Gi"}}, url("b")])).await;
    conflict.expect("a field that nobody owns");
    let conflict = apply("first", json!([{"name": "a", "url": "file:///a", "volume": {"size": "2Gi"}}])).await;
    let Err(kube::Error::Api(status)) = conflict else { panic!("{conflict:?}") };
    assert_eq!(status.code, 409, "{}", status.message);
    let rest = apply("first", json!([])).await.unwrap();
    assert_eq!(names(&rest), ["a", "b"], "the second owns both now");
}

#[tokio::test]
async fn a_writer_is_never_another_one() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("writers").await;
    let writers = server.writers(&namespace);
    writers.create(&PostParams::default(), &writer("shop-0")).await.unwrap();
    let merge = PatchParams::default();
    for change in [
        json!({"spec": {"writerUid": "11111111-5f3a-4f2d-8f2c-0a4a2f1d7c11"}}),
        json!({"spec": {"workload": {"name": "other"}}}),
        json!({"spec": {"identity": "Pooled"}}),
    ] {
        let judged = judgement(writers.patch("orders.shop-0", &merge, &Patch::Merge(&change)).await);
        assert!(judged.as_ref().is_err_and(|why| why.contains("immutable")), "{change}: {judged:?}");
    }
    let label = json!({"metadata": {"annotations": {"walstorage.dev/abandon": "x"}}});
    writers.patch("orders.shop-0", &merge, &Patch::Merge(&label)).await.expect("metadata is not the spec");
}

#[tokio::test]
async fn the_examples_are_admitted() {
    for server in [Server::current().await, Server::oldest().await] {
        let namespace = server.plane.namespace("examples").await;
        let dry = PostParams { dry_run: true, field_manager: None };
        let mut admitted = 0;
        for entry in std::fs::read_dir(repository().join("examples")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            for document in serde_yaml::Deserializer::from_str(&std::fs::read_to_string(&path).unwrap()) {
                let value: Value = serde::Deserialize::deserialize(document).unwrap();
                if value["kind"] != "WalStorage" {
                    continue;
                }
                let mut example: DynamicObject = serde_json::from_value(value).unwrap();
                example.metadata = ObjectMeta { name: example.metadata.name, ..ObjectMeta::default() };
                let made = server.storages(&namespace).create(&dry, &example).await;
                made.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                admitted += 1;
            }
        }
        assert!(admitted > 0);
    }
}

/// What the schema does not know would be dropped silently: a typing error must be told.
#[tokio::test]
async fn a_field_with_a_typing_error_is_refused_where_it_is_asked_for() {
    let server = Server::current().await;
    let namespace = server.plane.namespace("typo").await;
    let spec = json!({"memoryFlushSizes": "1Mi"});
    let body = serde_json::to_vec(&storage("orders", &spec)).unwrap();
    let path = format!("/apis/walstorage.dev/v1alpha1/namespaces/{namespace}/walstorages?fieldValidation=Strict");
    let request = http::Request::post(path).header("content-type", "application/json").body(body).unwrap();
    let answer = server.plane.client().request::<Value>(request).await;
    let Err(kube::Error::Api(status)) = answer else { panic!("{answer:?}") };
    assert!(status.message.contains("unknown field \"spec.memoryFlushSizes\""), "{}", status.message);
}
