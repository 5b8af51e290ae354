//! What a user applies: a WalStorage, and workloads whose pods have its log.

use serde_json::{Value, json};

use crate::images;
use crate::witness::Witness;

/// A WalStorage.
#[must_use]
pub fn storage(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "walstorage.dev/v1alpha1", "kind": "WalStorage", "metadata": {"name": name}, "spec": spec})
}

/// A disk of a WalStorage, mounted at `/wal/<name>`.
#[must_use]
pub fn disk(name: &str, size: &str) -> Value {
    json!({"name": name, "url": format!("file:///wal/{name}"), "volume": {"size": size}})
}

/// A WalStorage of these disks, each of this size.
#[must_use]
pub fn storage_of(name: &str, disks: &[&str], size: &str) -> Value {
    let urls: Vec<Value> = disks.iter().map(|name| disk(name, size)).collect();
    let spec = json!({
        "walUrls": urls,
        // So that collections are on all disks, whatever is measured of them.
        "distributionStrategy": "RoundRobin",
        // The pods' memory follows it, and a node of the tests has many.
        "globalFlushThreshold": "64Mi",
    });
    storage(name, &spec)
}

/// The template of pods labelled `app`, whose log is in a storage: they pass the restricted standard, run `wal-app` with
/// these arguments, and say to the witness, under the name of their writer, what they found and what was acknowledged.
#[must_use]
pub fn template(app: &str, storage: &str, args: &[&str], witness: Option<&Witness>) -> Value {
    let writer = json!({"fieldRef": {"fieldPath": "metadata.labels['walstorage.dev/writer']"}});
    let env: Vec<Value> = witness
        .iter()
        .flat_map(|witness| {
            [
                json!({"name": "WAL_APP_NAME", "valueFrom": writer}),
                json!({"name": "WAL_APP_REPORT", "value": witness.address()}),
            ]
        })
        .collect();
    json!({
        "metadata": {"labels": {"app": app, "walstorage.dev/storage": storage}},
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "app", "image": images::APP, "imagePullPolicy": "Never", "args": args, "env": env,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// A StatefulSet of pods of a template, which are started all at once.
#[must_use]
pub fn stateful_set(name: &str, replicas: usize, template: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": template["metadata"]["labels"]["app"]}},
            "template": template,
        },
    })
}
