//! The admission policies of the chart on a real API server, of the current version and as the oldest that is supported:
//! what each admits and refuses, in pairs.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use walstorage_cluster_tests::charts::{CONTROLLER, RELEASE, apply};
use walstorage_cluster_tests::{ControlPlane, eventually};

const OLDEST: &str = "1.34";
const OURS: &str = "walstorage.dev/writer";
const FOREIGN: &str = "example.org/quota";

/// An API server with the policies in force and the controller's rights.
async fn server(builder: walstorage_cluster_tests::control_plane::Builder) -> ControlPlane {
    let plane = builder.start().await.expect("a control plane");
    let namespaces: Api<Namespace> = Api::all(plane.client());
    let own: Namespace = serde_json::from_value(json!({"metadata": {"name": RELEASE}})).unwrap();
    namespaces.create(&PostParams::default(), &own).await.unwrap();
    apply(&plane, &["policies", "rbac-controller", "service-accounts"]).unwrap();
    account(&plane, "default").await;
    account(&plane, "kube-system").await;
    let pods: Api<Pod> = Api::namespaced(plane.client(), "default");
    let dry = PostParams { dry_run: true, field_manager: None };
    eventually("the policies are in force", || async {
        let naked = pod(json!({"labels": {"walstorage.dev/storage": "orders"}}), json!({}));
        pods.create(&dry, &naked).await.err().ok_or("a naked pod is admitted")
    })
    .await;
    plane
}

/// Who would give a namespace its account is not there.
async fn account(plane: &ControlPlane, namespace: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client(), namespace);
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
}

/// A pod with this metadata and these further fields of its spec.
fn pod(metadata: Value, spec: Value) -> Pod {
    let mut pod = json!({
        "metadata": {"generateName": "pod-"},
        "spec": {"containers": [{"name": "app", "image": "localhost/app:1"}]},
    });
    for (part, more) in [("metadata", metadata), ("spec", spec)] {
        pod[part].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }
    serde_json::from_value(pod).unwrap()
}

fn labelled() -> Value {
    json!({"labels": {"walstorage.dev/storage": "orders", "app": "shop"}, "annotations": {"walstorage.dev/seal": "s"}})
}

fn sidecar() -> Value {
    json!({"name": "walstorage", "image": "localhost/walstorage:1", "restartPolicy": "Always"})
}

fn injected() -> Value {
    json!({"initContainers": [sidecar()], "schedulingGates": [{"name": OURS}, {"name": FOREIGN}]})
}

/// `Ok` when a request is admitted; else the message of who refused it, which must be a policy.
fn judgement<T>(result: Result<T, kube::Error>) -> Result<(), String> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => Err(status.message),
        Err(error) => panic!("neither admitted nor refused by a policy: {error}"),
    }
}

fn assert_judged(case: &str, judged: Result<(), String>, refusal: Option<&str>) {
    match (judged, refusal) {
        (Ok(()), None) => {}
        (Err(message), Some(part)) if message.contains(part) => {}
        (judged, _) => panic!("{case}: {judged:?}; expected: {refusal:?}"),
    }
}

async fn a_labelled_pod_has_the_sidecar_and_its_gate(plane: &ControlPlane) {
    const NAKED: Option<&str> = Some("needs the WalStorage sidecar, and the webhook did not run");
    let dry = PostParams { dry_run: true, field_manager: None };
    let granted = json!({
        "labels": {"walstorage.dev/storage": "orders"}, "annotations": {"walstorage.dev/grant": "{}"},
    });
    let ordinary = json!({"name": "walstorage", "image": "localhost/walstorage:1"});
    let other = json!({"name": "other", "image": "localhost/walstorage:1", "restartPolicy": "Always"});
    let gate = json!([{"name": OURS}]);
    for (case, namespace, pod, refusal) in [
        ("with both", "default", pod(labelled(), injected()), None),
        ("without a label", "default", pod(json!({}), json!({})), None),
        ("naked", "default", pod(labelled(), json!({})), NAKED),
        ("without a gate", "default", pod(labelled(), json!({"initContainers": [sidecar()]})), NAKED),
        ("without a sidecar", "default", pod(labelled(), json!({"schedulingGates": gate})), NAKED),
        (
            "with another sidecar",
            "default",
            pod(labelled(), json!({"initContainers": [other], "schedulingGates": gate})),
            NAKED,
        ),
        (
            "with an ordinary init container",
            "default",
            pod(labelled(), json!({"initContainers": [ordinary], "schedulingGates": gate})),
            NAKED,
        ),
        ("with a grant of its own", "default", pod(granted, injected()), NAKED),
        ("where the webhook does not run", "kube-system", pod(labelled(), json!({})), None),
    ] {
        let pods: Api<Pod> = Api::namespaced(plane.client(), namespace);
        assert_judged(case, judgement(pods.create(&dry, &pod).await), refusal);
    }
}

/// Makes an injected pod and tries a change of it, which is not kept.
async fn change(client: &Client, plane: &ControlPlane, patch: &Value) -> Result<(), String> {
    let admin: Api<Pod> = Api::namespaced(plane.client(), "default");
    let made = admin.create(&PostParams::default(), &pod(labelled(), injected())).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = serde_json::from_value(patch.clone()).map_or_else(|_| Patch::Merge(patch.clone()), Patch::Json);
    judgement(pods.patch(made.metadata.name.as_deref().unwrap(), &dry, &patch).await)
}

fn gates(names: &[&str]) -> Value {
    let gates: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    json!({"spec": {"schedulingGates": gates}})
}

async fn nobody_else_changes_what_is_ours(plane: &ControlPlane) {
    const LABELS: Option<&str> = Some("walstorage.dev labels of a pod are the operator's");
    const ANNOTATIONS: Option<&str> = Some("walstorage.dev annotations of a pod are the operator's");
    const GATE: Option<&str> = Some("only the operator lifts the gate walstorage.dev/writer");
    let client = plane.client();
    for (case, patch, refusal) in [
        ("another label", json!({"metadata": {"labels": {"app": "other"}}}), None),
        ("another annotation", json!({"metadata": {"annotations": {"example.org/a": "1"}}}), None),
        ("another gate", gates(&[OURS]), None),
        ("our label changed", json!({"metadata": {"labels": {"walstorage.dev/storage": "other"}}}), LABELS),
        ("a label of ours added", json!({"metadata": {"labels": {"walstorage.dev/writer": "w"}}}), LABELS),
        ("a grant", json!({"metadata": {"annotations": {"walstorage.dev/grant": "{}"}}}), ANNOTATIONS),
        ("our annotation removed", json!({"metadata": {"annotations": {"walstorage.dev/seal": null}}}), ANNOTATIONS),
        ("our gate", gates(&[FOREIGN]), GATE),
        ("all gates", gates(&[]), GATE),
    ] {
        // Gates are a list that is merged by name; only a JSON patch takes one out.
        let patch = match patch["spec"]["schedulingGates"].as_array() {
            Some(gates) => json!([{"op": "replace", "path": "/spec/schedulingGates", "value": gates}]),
            None => patch,
        };
        assert_judged(case, change(&client, plane, &patch).await, refusal);
    }
    // Nor by way of the status, where kubelets write.
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let name = pods.create(&PostParams::default(), &pod(labelled(), injected())).await.unwrap().metadata.name.unwrap();
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    for (case, patch, refusal) in [
        ("a status", json!({"status": {"message": "m"}}), None),
        ("a label with it", json!({"metadata": {"labels": {"walstorage.dev/storage": "other"}}}), LABELS),
        ("a grant with it", json!({"metadata": {"annotations": {"walstorage.dev/grant": "{}"}}}), ANNOTATIONS),
    ] {
        assert_judged(case, judgement(pods.patch_status(&name, &dry, &Patch::Merge(patch)).await), refusal);
    }
    // The label itself: without it the object would no longer match.
    let removed = json!({"metadata": {"labels": {"walstorage.dev/storage": null}}});
    assert_judged("our label removed", change(&client, plane, &removed).await, LABELS);
}

async fn the_operator_changes_what_is_ours_and_nothing_else(plane: &ControlPlane) {
    const ONLY: Option<&str> = Some("the operator changes only walstorage.dev metadata and its gate");
    let client = plane.client_as(CONTROLLER);
    let replace = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    for (case, patch, refusal) in [
        ("a grant", json!({"metadata": {"annotations": {"walstorage.dev/grant": "{}"}}}), None),
        ("its label", json!({"metadata": {"labels": {"walstorage.dev/writer": "w"}}}), None),
        ("its gate", replace("/spec/schedulingGates", json!([{"name": FOREIGN}])), None),
        (
            "another gate",
            replace("/spec/schedulingGates", json!([{"name": OURS}])),
            Some("the operator lifts no gate but its own"),
        ),
        ("an image", replace("/spec/containers/0/image", json!("localhost/other:1")), ONLY),
        ("an image of the sidecar", replace("/spec/initContainers/0/image", json!("localhost/other:1")), ONLY),
        ("a deadline", replace("/spec/activeDeadlineSeconds", json!(1)), ONLY),
        ("a node selector", replace("/spec/nodeSelector", json!({"disk": "fast"})), ONLY),
        ("a finalizer", replace("/metadata/finalizers", json!(["example.org/f"])), ONLY),
        (
            "another label",
            json!({"metadata": {"labels": {"app": "other"}}}),
            Some("the operator changes no labels but walstorage.dev's"),
        ),
        (
            "another annotation",
            json!({"metadata": {"annotations": {"example.org/a": "1"}}}),
            Some("the operator changes no annotations but walstorage.dev's"),
        ),
    ] {
        assert_judged(case, change(&client, plane, &patch).await, refusal);
    }
}

async fn the_operator_deletes_no_pod_that_was_scheduled(plane: &ControlPlane) {
    let admin: Api<Pod> = Api::namespaced(plane.client(), "default");
    let operator: Api<Pod> = Api::namespaced(plane.client_as(CONTROLLER), "default");
    let gated = admin.create(&PostParams::default(), &pod(labelled(), injected())).await.unwrap();
    let deleted = operator.delete(gated.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await;
    assert_judged("gated", judgement(deleted), None);

    let scheduled = pod(json!({}), json!({"nodeName": "node1"}));
    let made = admin.create(&PostParams::default(), &scheduled).await.unwrap();
    let name = made.metadata.name.unwrap();
    let refused = operator.delete(&name, &DeleteParams::default()).await;
    assert_judged("scheduled", judgement(refused), Some("the operator deletes only pods that were never scheduled"));
    assert_judged("by somebody else", judgement(admin.delete(&name, &DeleteParams::default()).await), None);
}

async fn all(plane: &ControlPlane) {
    a_labelled_pod_has_the_sidecar_and_its_gate(plane).await;
    nobody_else_changes_what_is_ours(plane).await;
    the_operator_changes_what_is_ours_and_nothing_else(plane).await;
    the_operator_deletes_no_pod_that_was_scheduled(plane).await;
}

#[tokio::test]
async fn the_policies_admit_and_refuse_as_written_down() {
    all(&server(ControlPlane::builder()).await).await;
}

#[tokio::test]
async fn the_oldest_kubernetes_admits_and_refuses_the_same() {
    all(&server(ControlPlane::builder().emulated(OLDEST)).await).await;
}
