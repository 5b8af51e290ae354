//! The sidecar on a real kubelet: a pod as the webhook makes it, without the grant of an operator. What is killed, cut off
//! and deleted while it appends loses nothing that was acknowledged.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Stdio;

use anyhow::{Context as _, anyhow, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use walstorage_cluster_tests::images::{APP, SHELL, WALSTORAGE};
use walstorage_cluster_tests::numbered::Verdict;
use walstorage_cluster_tests::skip::skipped;
use walstorage_cluster_tests::{Cluster, eventually, pods, tools};

const CONFIG: &str = "[storage.wal_config]\nwal_urls = [\"file:///wal/disk\"]\nglobal_flush_threshold = 67108864\n";

/// A namespace with a configuration and a claim, and what can be asked in it.
struct Setup<'a> {
    cluster: &'a Cluster,
    namespace: String,
}

impl<'a> Setup<'a> {
    async fn new(cluster: &'a Cluster, prefix: &str, size: &str) -> Self {
        let namespace = cluster.namespace(prefix).await;
        cluster.accounts(&namespace).await;
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), &namespace);
        let map = json!({"metadata": {"name": "config"}, "data": {"config.toml": CONFIG}});
        maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client(), &namespace);
        let claim = json!({
            "metadata": {"name": "disk"},
            "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": size}}},
        });
        claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
        Self { cluster, namespace }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    /// The last number that the app has seen acknowledged, by its log.
    fn acknowledged(&self) -> anyhow::Result<u64> {
        let log = self.cluster.kubectl(&["-n", &self.namespace, "logs", "app", "-c", "app"])?;
        Ok(last_number(&log))
    }

    async fn append_until(&self, count: u64) -> u64 {
        eventually(&format!("{count} entries are acknowledged"), || async {
            let acknowledged = self.acknowledged()?;
            ensure!(acknowledged >= count, "{acknowledged}");
            anyhow::Ok(acknowledged)
        })
        .await
    }

    /// Follows the app's log until it ends: the last number that was acknowledged after it was told to end.
    fn acknowledged_at_its_end(&self) -> JoinHandle<u64> {
        let follower = self
            .cluster
            .command("kubectl")
            .args(["-n", &self.namespace, "logs", "app", "-c", "app", "--follow"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tokio::task::spawn_blocking(move || {
            let log = follower.wait_with_output().unwrap();
            let log = String::from_utf8_lossy(&log.stdout);
            let (_, at_its_end) =
                log.split_once("terminating\n").unwrap_or_else(|| panic!("it was told to end: {log}"));
            let acknowledged = last_number(at_its_end);
            assert!(acknowledged > 0, "it appended while it ended: {at_its_end:?}");
            acknowledged
        })
    }

    /// Everything up to `acknowledged` is there, once and in order.
    async fn assert_whole(&self, acknowledged: u64) {
        let acknowledged = acknowledged.to_string();
        let command = ["/wal-app", "check", "orders", "--acknowledged", &acknowledged];
        let said = eventually("the log is read", || async {
            match pods::exec(&self.pods(), "app", "app", &command).await {
                // The judgement is final, whatever it is; a broken connection is not.
                Err(error) if error.to_string().contains("\"lost\"") => Ok(error.to_string()),
                other => other,
            }
        })
        .await;
        let verdict: Verdict = serde_json::from_str(said.trim()).unwrap_or_else(|_| panic!("{said}"));
        assert!(verdict.is_whole(), "{verdict:?}");
    }
}

fn last_number(log: &str) -> u64 {
    log.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0)
}

/// A pod as the webhook makes it, whose container `app` runs `image` with `args`.
fn pod(image: &str, args: &[&str]) -> Pod {
    let restricted = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let program = |arguments: &[&str]| -> Value {
        let command: Vec<&str> = std::iter::once("/walstorage-sidecar").chain(arguments.iter().copied()).collect();
        json!({"exec": {"command": command}})
    };
    let probe = |check: &str, period: u32, failures: u32, timeout: u32| {
        let mut probe = program(&["check", check]);
        probe["periodSeconds"] = json!(period);
        probe["failureThreshold"] = json!(failures);
        probe["timeoutSeconds"] = json!(timeout);
        probe
    };
    serde_json::from_value(json!({
        "metadata": {"name": "app"},
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "securityContext": {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"},
            "initContainers": [{
                "name": "walstorage", "image": WALSTORAGE, "imagePullPolicy": "Never", "restartPolicy": "Always",
                "command": ["/walstorage-sidecar"],
                "args": ["serve", "--config", "/etc/walstorage/config.toml"],
                "env": [
                    {"name": "WALSTORAGE_WRITER_ID", "value": "shop/orders.app"},
                    {"name": "WALSTORAGE_REQUIRE_MOUNTS", "value": "true"},
                ],
                "startupProbe": probe("started", 1, 86_400, 5),
                "readinessProbe": probe("ready", 10, 3, 5),
                "livenessProbe": probe("live", 20, 6, 10),
                "lifecycle": {"preStop": program(&["prestop"])},
                "securityContext": restricted,
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"name": "socket", "mountPath": "/run/walstorage"},
                    {"name": "config", "mountPath": "/etc/walstorage", "readOnly": true},
                    {"name": "disk", "mountPath": "/wal/disk"},
                ],
            }],
            "containers": [{
                "name": "app", "image": image, "imagePullPolicy": "Never", "args": args,
                "env": [{"name": "WALSTORAGE_SOCKET", "value": "/run/walstorage/wal.sock"}],
                "securityContext": restricted,
                "volumeMounts": [{"name": "socket", "mountPath": "/run/walstorage", "readOnly": true}],
            }],
            "volumes": [
                {"name": "socket", "emptyDir": {"sizeLimit": "1Mi"}},
                {"name": "config", "projected": {"sources": [{"configMap": {"name": "config"}}]}},
                {"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}},
            ],
        },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_killed_sidecar_starts_again_and_has_lost_nothing() {
    let Some(cluster) = Cluster::shared_or_skip("a_killed_sidecar_starts_again_and_has_lost_nothing").await else {
        return;
    };
    let setup = Setup::new(cluster, "kill", "128Mi").await;
    let pod = pods::run(&setup.pods(), &pod(APP, &["append", "orders", "--every", "2"])).await;
    let uid = pod.metadata.uid.unwrap();
    for kills in 1..=3 {
        let before = setup.append_until(setup.acknowledged().unwrap() + 100).await;
        cluster.kill("node1", &uid, "walstorage-side").await.unwrap();
        eventually("the sidecar was started again", || async {
            let pod = setup.pods().get("app").await?;
            let restarts = pods::restarts(&pod, "walstorage");
            if restarts >= kills { Ok(()) } else { Err(anyhow!("{restarts} restarts")) }
        })
        .await;
        setup.append_until(before + 100).await;
    }
    setup.assert_whole(setup.acknowledged().unwrap()).await;
    let pod = setup.pods().get("app").await.unwrap();
    assert_eq!(pods::restarts(&pod, "app"), 0, "the app only sees a broken connection");
}

#[tokio::test]
async fn a_power_cut_of_the_node_loses_no_acknowledged_entry() {
    let test = "a_power_cut_of_the_node_loses_no_acknowledged_entry";
    if let Some(why) = tools::why_no_node() {
        return skipped(test, &why);
    }
    let cluster = Cluster::start().await.unwrap();
    let setup = Setup::new(&cluster, "cut", "128Mi").await;
    pods::run(&setup.pods(), &pod(APP, &["append", "orders", "--every", "2"])).await;
    let acknowledged = setup.append_until(200).await;
    cluster.power_cut("node1").await.unwrap();
    eventually("app and sidecar were started again", || async {
        let pod = setup.pods().get("app").await?;
        let restarts = ["walstorage", "app"].map(|container| pods::restarts(&pod, container));
        if restarts.iter().all(|count| *count > 0) { Ok(()) } else { Err(anyhow!("{restarts:?} restarts")) }
    })
    .await;
    setup.assert_whole(acknowledged).await;
    setup.append_until(acknowledged + 100).await;
}

/// The order of the end: the app first, for as long as it takes, the sidecar after it.
#[tokio::test]
async fn an_app_that_takes_long_to_end_appends_until_its_end_and_the_next_pod_has_it_all() {
    let test = "an_app_that_takes_long_to_end_appends_until_its_end_and_the_next_pod_has_it_all";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let setup = Setup::new(cluster, "slow", "128Mi").await;
    let slow = pod(APP, &["append", "orders", "--every", "2", "--linger", "2000"]);
    pods::run(&setup.pods(), &slow).await;
    setup.append_until(100).await;
    let acknowledged = setup.acknowledged_at_its_end();
    pods::delete(&setup.pods(), "app").await;
    let acknowledged = acknowledged.await.unwrap();
    pods::run(&setup.pods(), &pod(APP, &["append", "orders", "--every", "2"])).await;
    setup.assert_whole(acknowledged).await;
}

/// The app is killed when the pod's time is over, and what a kubelet leaves to the sidecar then are two seconds.
#[tokio::test]
async fn an_app_that_uses_up_the_time_of_the_pod_loses_nothing_that_was_acknowledged_until_its_end() {
    let test = "an_app_that_uses_up_the_time_of_the_pod_loses_nothing_that_was_acknowledged_until_its_end";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let setup = Setup::new(cluster, "late", "128Mi").await;
    let args = ["append", "orders", "--every", "2", "--bytes", "4000", "--linger", "600000"];
    let mut slow = pod(APP, &args);
    slow.spec.as_mut().unwrap().termination_grace_period_seconds = Some(3);
    // Its last status can be read when it has ended.
    slow.metadata.finalizers = Some(vec!["example.com/read".to_owned()]);
    let (pods, uid) = (setup.pods(), pods::run(&setup.pods(), &slow).await.metadata.uid);
    setup.append_until(100).await;
    let acknowledged = setup.acknowledged_at_its_end();
    pods.delete("app", &DeleteParams::default()).await.unwrap();
    let acknowledged = acknowledged.await.unwrap();
    let ends = eventually("both containers have ended", || async {
        let status = pods.get("app").await?.status.unwrap_or_default();
        let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        let ends: Vec<_> = all.filter_map(|one| one.state.as_ref()?.terminated.clone()).collect();
        ensure!(ends.len() == 2, "{status:?}");
        Ok(ends)
    })
    .await;
    assert_eq!(ends[0].exit_code, 137, "the app was killed: {ends:?}");
    println!("the sidecar ended with {}: {:?}", ends[1].exit_code, ends[1].message);
    let read = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    pods.patch("app", &PatchParams::default(), &read).await.unwrap();
    eventually("the pod is gone", || async {
        let left = pods.get_opt("app").await?;
        ensure!(left.is_none_or(|pod| pod.metadata.uid != uid), "it is there");
        Ok(())
    })
    .await;
    pods::run(&pods, &pod(APP, &["append", "orders", "--every", "2"])).await;
    setup.assert_whole(acknowledged).await;
}

#[tokio::test]
async fn an_app_can_speak_through_the_socket_and_not_replace_it() {
    let test = "an_app_can_speak_through_the_socket_and_not_replace_it";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let setup = Setup::new(cluster, "socket", "128Mi").await;
    pods::run(&setup.pods(), &pod(SHELL, &["sleep infinity"])).await;
    for script in ["rm /run/walstorage/wal.sock", "touch /run/walstorage/other"] {
        let refused = pods::exec(&setup.pods(), "app", "app", &["sh", "-c", script]).await.unwrap_err();
        assert!(refused.to_string().contains("Read-only file system"), "{refused}");
    }
    let seen = pods::exec(&setup.pods(), "app", "app", &["sh", "-c", "ls -l /run/walstorage"]).await.unwrap();
    assert!(seen.contains("srw-rw-rw-"), "{seen}");
    let walctl = pods::exec(&setup.pods(), "app", "walstorage", &["/walctl", "selftest"]).await;
    walctl.expect("the sidecar serves");
}

/// A volume is a file system of its own, never the node's: the check for mounts sees that.
#[tokio::test]
async fn a_sidecar_whose_volume_is_no_mount_does_not_start() {
    let test = "a_sidecar_whose_volume_is_no_mount_does_not_start";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let setup = Setup::new(cluster, "mount", "128Mi").await;
    let mut wrong: Value = serde_json::to_value(pod(APP, &["append", "orders"])).unwrap();
    wrong["spec"]["volumes"][2] = json!({"name": "disk", "emptyDir": {"medium": "Memory"}});
    setup.pods().create(&PostParams::default(), &serde_json::from_value(wrong).unwrap()).await.unwrap();
    eventually("the sidecar says why", || async {
        let log = cluster.kubectl(&["-n", &setup.namespace, "logs", "app", "-c", "walstorage"])?;
        ensure!(log.contains("not_mounted") || log.contains("not mounted"), "{log}");
        Ok(())
    })
    .await;
    let pod = setup.pods().get("app").await.unwrap();
    assert!(!pods::is(&pod, "Initialized"), "the app has not started");
}

#[tokio::test]
async fn a_sidecar_sees_its_volume_grow_and_is_not_restarted() {
    let test = "a_sidecar_sees_its_volume_grow_and_is_not_restarted";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let setup = Setup::new(cluster, "grow", "320Mi").await;
    pods::run(&setup.pods(), &pod(APP, &["append", "orders", "--every", "2"])).await;
    let capacity = || async {
        let status = ["/walctl", "status", "--output", "json"];
        let status = pods::exec(&setup.pods(), "app", "walstorage", &status).await?;
        let status: Value = serde_json::from_str(&status)?;
        let bytes = status["directories"][0]["capacityBytes"].as_str().and_then(|text| text.parse::<u64>().ok());
        bytes.with_context(|| status.to_string())
    };
    let before = capacity().await.unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client(), &setup.namespace);
    let more = json!({"spec": {"resources": {"requests": {"storage": "640Mi"}}}});
    claims.patch("disk", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    eventually("the sidecar sees it", || async {
        let now = capacity().await?;
        ensure!(now > before + (250 << 20), "{before} bytes, then {now}");
        Ok(())
    })
    .await;
    setup.append_until(setup.acknowledged().unwrap() + 100).await;
    let pod = setup.pods().get("app").await.unwrap();
    assert_eq!(pods::restarts(&pod, "walstorage"), 0);
    setup.assert_whole(setup.acknowledged().unwrap()).await;
}

/// A new volume is root's. Nothing is lost when nobody may write: the app does not start, and the log says why.
#[tokio::test]
async fn without_a_group_for_its_files_a_sidecar_says_so_and_the_app_waits() {
    let test = "without_a_group_for_its_files_a_sidecar_says_so_and_the_app_waits";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    let setup = Setup::new(cluster, "group", "128Mi").await;
    let mut wrong: Value = serde_json::to_value(pod(APP, &["append", "orders"])).unwrap();
    wrong["spec"]["securityContext"] = json!({});
    setup.pods().create(&PostParams::default(), &serde_json::from_value(wrong).unwrap()).await.unwrap();
    eventually("the sidecar says why", || async {
        let log = cluster.kubectl(&["-n", &setup.namespace, "logs", "app", "-c", "walstorage"])?;
        ensure!(log.contains("Permission denied"), "{log}");
        Ok(())
    })
    .await;
    let pod = setup.pods().get("app").await.unwrap();
    assert!(!pods::is(&pod, "Initialized"), "the app has not started");
}
