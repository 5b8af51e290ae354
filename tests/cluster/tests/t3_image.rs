//! The image that is shipped, run by a kubelet as the operator will have it run: a native sidecar without a shell, as
//! nobody, on a root that cannot be written, under the seccomp profile of the runtime, in a restricted namespace.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use walstorage_cluster_tests::images::WALSTORAGE;
use walstorage_cluster_tests::{Cluster, eventually};

const UID: &str = "6f2c6d0e-5c55-4f5e-9d5a-0f6f6e3f8a11";
const CONFIG: &str = "[storage.wal_config]\nwal_urls = [\"file:///wal/data\"]\n";

/// A pod whose only container runs `walctl` with these arguments over the sidecar's socket, and ends.
fn pod(name: &str, grant: Option<&Value>, arguments: &[&str]) -> Pod {
    let restricted = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let check = |what: &str, period: u32| {
        json!({
            "exec": {"command": ["/walstorage-sidecar", "check", what]},
            "periodSeconds": period, "timeoutSeconds": 10, "failureThreshold": 600,
        })
    };
    let socket = json!({"name": "socket", "mountPath": "/run/walstorage"});
    let sidecar = json!({
        "name": "walstorage", "image": WALSTORAGE, "imagePullPolicy": "Never", "restartPolicy": "Always",
        "command": ["/walstorage-sidecar"], "args": ["serve", "--config", "/etc/walstorage/config.toml"],
        "env": [
            {"name": "WALSTORAGE_WRITER_ID", "value": "shop/orders.image"},
            {"name": "WALSTORAGE_REQUIRE_MOUNTS", "value": "true"},
            {"name": "WALSTORAGE_REQUIRE_GRANT", "value": "true"},
            field("WALSTORAGE_POD_UID", "metadata.uid"),
            field("WALSTORAGE_GRANT", "metadata.annotations['walstorage.dev/grant']"),
        ],
        "startupProbe": check("started", 1), "readinessProbe": check("ready", 10), "livenessProbe": check("live", 20),
        "lifecycle": {"preStop": {"exec": {"command": ["/walstorage-sidecar", "prestop"]}}},
        "securityContext": restricted,
        "volumeMounts": [socket, {"name": "config", "mountPath": "/etc/walstorage"}, {"name": "data", "mountPath": "/wal/data"}],
    });
    let annotations = grant.map(|grant| json!({"walstorage.dev/grant": grant.to_string()}));
    let pod = json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 30, "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "initContainers": [sidecar],
            "containers": [{
                "name": "app", "image": WALSTORAGE, "imagePullPolicy": "Never",
                "command": ["/walctl"], "args": arguments, "securityContext": restricted,
                "volumeMounts": [{"name": "socket", "mountPath": "/run/walstorage", "readOnly": true}],
            }],
            "volumes": [
                {"name": "socket", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "config", "configMap": {"name": "config"}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            ],
        },
    });
    serde_json::from_value(pod).expect("a pod")
}

fn grant(epoch: u64, init: &[&str]) -> Value {
    let urls = json!([{"name": "data", "url": "file:///wal/data", "claim": "x"}]);
    json!({"v": 1, "writerUid": UID, "epoch": epoch, "urls": urls, "init": init, "forget": []})
}

/// The end of a pod whose application ends by itself: its phase, and the message of its sidecar.
async fn ended(pods: &Api<Pod>, pod: &Pod) -> (String, Value) {
    let name = pods.create(&PostParams::default(), pod).await.expect("accepted").metadata.name.expect("a name");
    eventually(&format!("{name} ends"), || async {
        let status = pods.get(&name).await?.status.context("a status")?;
        let phase = status.phase.clone().unwrap_or_default();
        if !["Succeeded", "Failed"].contains(&phase.as_str()) {
            bail!("{}", serde_json::to_string(&status)?);
        }
        let sidecar = status.init_container_statuses.as_ref().and_then(|all| all.first()).context("a sidecar")?;
        let end = sidecar.state.as_ref().and_then(|state| state.terminated.as_ref()).context("its end")?;
        let message = serde_json::from_str(end.message.as_deref().unwrap_or_default()).context("its message")?;
        Ok((phase, message))
    })
    .await
}

#[tokio::test]
async fn the_image_serves_as_a_restricted_sidecar_and_says_at_its_end_what_is_left() {
    let test = "the_image_serves_as_a_restricted_sidecar_and_says_at_its_end_what_is_left";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let namespace = cluster.namespace("image").await;
    cluster.kubectl(&["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"]).unwrap();
    cluster.accounts(&namespace).await;
    let (pods, configs): (Api<Pod>, Api<ConfigMap>) =
        (Api::namespaced(cluster.client(), &namespace), Api::namespaced(cluster.client(), &namespace));
    let config = json!({"metadata": {"name": "config"}, "data": {"config.toml": CONFIG}});
    configs.create(&PostParams::default(), &serde_json::from_value(config).unwrap()).await.unwrap();
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "64Mi"}}},
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), claim.to_string()).unwrap();
    cluster.kubectl(&["-n", &namespace, "create", "-f", &file.path().display().to_string()]).unwrap();

    let (phase, message) = ended(&pods, &pod("first", Some(&grant(7, &["data"])), &["selftest"])).await;
    assert_eq!(phase, "Succeeded", "{message}");
    let expected = json!({"v": 1, "writerUid": UID, "granted": 7, "exit": "clean", "unappliedEntries": 0,
        "unappliedBytes": 0, "empty": []});
    assert_eq!(message, expected);

    // What is not applied is counted, and is there for the next pod.
    let append = ["append", "orders", "--file", "/etc/passwd"];
    let (phase, message) = ended(&pods, &pod("second", Some(&grant(8, &[])), &append)).await;
    assert_eq!(
        (phase.as_str(), &message["exit"], &message["unappliedEntries"]),
        ("Succeeded", &json!("clean"), &json!(2))
    );
    let (phase, message) = ended(&pods, &pod("third", Some(&grant(9, &[])), &["read", "orders"])).await;
    assert_eq!((phase.as_str(), &message["unappliedEntries"]), ("Succeeded", &json!(2)));
    let read = cluster.kubectl(&["-n", &namespace, "logs", "third", "-c", "app"]).unwrap();
    assert!(read.contains("nonroot:x:65532:65532"), "{read}");

    // An older grant is refused by what is on storage, and one that is missing by the sidecar itself.
    for (name, grant, exit) in [("older", Some(grant(8, &[])), 3), ("none", None, 4)] {
        pods.create(&PostParams::default(), &pod(name, grant.as_ref(), &["status"])).await.unwrap();
        eventually(&format!("{name} is refused"), || async {
            let status = pods.get(name).await?.status.context("a status")?;
            let sidecar = status.init_container_statuses.iter().flatten().next().context("a sidecar")?;
            let now = sidecar.state.as_ref().and_then(|state| state.terminated.as_ref());
            let before = sidecar.last_state.as_ref().and_then(|state| state.terminated.as_ref());
            let end = now.or(before).context("it has not ended")?;
            if end.exit_code == exit { Ok(()) } else { Err(anyhow!("{end:?}")) }
        })
        .await;
        cluster.kubectl(&["-n", &namespace, "delete", "pod", name, "--wait=true"]).unwrap();
    }
}
