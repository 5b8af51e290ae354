//! The node of the tests is a real one: what the suites on it rely on, and that nothing of it is left.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use walstorage_cluster_tests::images::{APP, SHELL};
use walstorage_cluster_tests::skip::skipped;
use walstorage_cluster_tests::{Cluster, eventually, pods, tools};

fn claim(name: &str, size: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": size}}},
    }))
    .unwrap()
}

/// A namespace with an interface to its pods and claims.
async fn namespace(cluster: &Cluster, prefix: &str) -> (String, Api<Pod>, Api<PersistentVolumeClaim>) {
    let namespace = cluster.namespace(prefix).await;
    cluster.accounts(&namespace).await;
    let client = cluster.client();
    let (pods, claims) = (Api::namespaced(client.clone(), &namespace), Api::namespaced(client, &namespace));
    (namespace, pods, claims)
}

#[tokio::test]
async fn a_pod_runs_speaks_and_stops() {
    let Some(cluster) = Cluster::shared_or_skip("a_pod_runs_speaks_and_stops").await else { return };
    let (namespace, pods, _) = namespace(cluster, "pod").await;
    let pod = pods::run(&pods, &pods::pod("app", APP, &["pause"])).await;
    assert!(pods::is(&pod, "Ready"));
    let help = pods::exec(&pods, "app", "app", &["/wal-app", "--help"]).await.unwrap();
    assert!(help.contains("append"), "{help}");
    let failed = pods::exec(&pods, "app", "app", &["/wal-app", "no-such-task"]).await.unwrap_err();
    assert!(failed.to_string().contains("no-such-task"), "{failed}");
    let shell = pods::pod("shell", SHELL, &["echo said; sleep infinity"]);
    pods::run(&pods, &shell).await;
    eventually("the log says it", || async {
        let log = cluster.kubectl(&["-n", &namespace, "logs", "shell"])?;
        if log == "said\n" { Ok(()) } else { Err(anyhow!(log)) }
    })
    .await;
    pods::delete(&pods, "app").await;
}

#[tokio::test]
async fn a_small_volume_fills_up_and_says_so() {
    let Some(cluster) = Cluster::shared_or_skip("a_small_volume_fills_up_and_says_so").await else { return };
    let (_, pods, claims) = namespace(cluster, "small").await;
    claims.create(&PostParams::default(), &claim("data", "16Mi")).await.unwrap();
    let pod = pods::with_claim(pods::pod("shell", SHELL, &["sleep infinity"]), "data", "/data");
    pods::run(&pods, &pod).await;
    let sh = ["sh", "-c", "dd if=/dev/zero of=/data/file bs=1M count=32"];
    let full = pods::exec(&pods, "shell", "app", &sh).await.unwrap_err();
    assert!(full.to_string().contains("No space left on device"), "{full}");
    pods::exec(&pods, "shell", "app", &["rm", "/data/file"]).await.expect("room again");
    pods::exec(&pods, "shell", "app", &["sh", "-c", "echo x > /data/file"]).await.expect("room again");
}

#[tokio::test]
async fn a_volume_grows_under_a_running_pod() {
    let Some(cluster) = Cluster::shared_or_skip("a_volume_grows_under_a_running_pod").await else { return };
    let (_, pods, claims) = namespace(cluster, "grow").await;
    claims.create(&PostParams::default(), &claim("data", "400Mi")).await.unwrap();
    let pod = pods::with_claim(pods::pod("shell", SHELL, &["sleep infinity"]), "data", "/data");
    pods::run(&pods, &pod).await;
    let size = || async {
        let text = pods::exec(&pods, "shell", "app", &["df", "--output=size", "-B1", "/data"]).await?;
        anyhow::Ok(text.lines().last().context("a line")?.trim().parse::<u64>()?)
    };
    let before = size().await.unwrap();
    let more = json!({"spec": {"resources": {"requests": {"storage": "800Mi"}}}});
    claims.patch("data", &PatchParams::default(), &Patch::Merge(&more)).await.unwrap();
    eventually("the pod sees it", || async {
        let now = size().await?;
        if now >= before + (390 << 20) { Ok(()) } else { Err(anyhow!("{before} bytes, then {now}")) }
    })
    .await;
    let pod = pods.get("shell").await.unwrap();
    assert_eq!(pods::restarts(&pod, "app"), 0);
}

/// What was written before is there after; a pod that was started on a folder without its file system would not see it.
#[tokio::test]
async fn a_power_cut_leaves_the_disks_and_starts_the_pods_again() {
    let test = "a_power_cut_leaves_the_disks_and_starts_the_pods_again";
    if let Some(why) = tools::why_no_node() {
        return skipped(test, &why);
    }
    let cluster = Cluster::start().await.unwrap();
    let (_, pods, claims) = namespace(&cluster, "cut").await;
    claims.create(&PostParams::default(), &claim("data", "16Mi")).await.unwrap();
    let pod = pods::with_claim(pods::pod("shell", SHELL, &["sleep infinity"]), "data", "/data");
    pods::run(&pods, &pod).await;
    pods::exec(&pods, "shell", "app", &["sh", "-c", "echo kept > /data/file; sync"]).await.unwrap();
    cluster.power_cut("node1").await.unwrap();
    // The client's connections went with the server.
    let pods: Api<Pod> = Api::namespaced(cluster.client(), pods.namespace().unwrap());
    eventually("the container was started again", || async {
        let pod = pods.get("shell").await?;
        if pods::restarts(&pod, "app") > 0 && pods::is(&pod, "Ready") {
            Ok(())
        } else {
            Err(anyhow!("{}", serde_json::to_string(&pod.status)?))
        }
    })
    .await;
    let kept = eventually("exec", || pods::exec(&pods, "shell", "app", &["cat", "/data/file"])).await;
    assert_eq!(kept, "kept\n");
}

#[tokio::test]
async fn the_kubelet_may_be_killed_and_containers_go_on() {
    if let Some(why) = tools::why_no_node() {
        return skipped("the_kubelet_may_be_killed_and_containers_go_on", &why);
    }
    let cluster = Cluster::start().await.unwrap();
    let (_, pods, _) = namespace(&cluster, "kubelet").await;
    pods::run(&pods, &pods::pod("app", APP, &["pause"])).await;
    cluster.restart_kubelet("node1").await.unwrap();
    let help = eventually("exec", || pods::exec(&pods, "app", "app", &["/wal-app", "--help"])).await;
    assert!(help.contains("append"));
    assert_eq!(pods::restarts(&pods.get("app").await.unwrap(), "app"), 0);
}

#[tokio::test]
async fn names_of_services_are_resolved_and_others_are_unknown() {
    let Some(cluster) = Cluster::shared_or_skip("names_of_services_are_resolved_and_others_are_unknown").await else {
        return;
    };
    let (_, pods, _) = namespace(cluster, "dns").await;
    pods::run(&pods, &pods::pod("shell", SHELL, &["sleep infinity"])).await;
    let known = ["getent", "hosts", "kubernetes.default.svc.cluster.local"];
    let address = eventually("the service is known", || pods::exec(&pods, "shell", "app", &known)).await;
    let service = cluster.kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    assert_eq!(address.split_whitespace().next(), Some(service.as_str()));
    pods::exec(&pods, "shell", "app", &["getent", "hosts", "kubernetes.default"]).await.expect("search domains");
    pods::exec(&pods, "shell", "app", &["getent", "hosts", "example.org"]).await.expect_err("nothing is outside");
}

#[tokio::test]
async fn a_second_node_takes_pods_and_is_missed_when_its_power_goes() {
    let test = "a_second_node_takes_pods_and_is_missed_when_its_power_goes";
    if let Some(why) = tools::why_no_node() {
        return skipped(test, &why);
    }
    let cluster = Cluster::start().await.unwrap();
    cluster.add_node().await.unwrap();
    let (_, pods, claims) = namespace(&cluster, "two").await;
    claims.create(&PostParams::default(), &claim("data", "16Mi")).await.unwrap();
    let mut pod = pods::with_claim(pods::pod("shell", SHELL, &["sleep infinity"]), "data", "/data");
    let there = [("kubernetes.io/hostname".to_owned(), "node2".to_owned())];
    pod.spec.as_mut().unwrap().node_selector = Some(there.into());
    pods::run(&pods, &pod).await;
    pods::exec(&pods, "shell", "app", &["sh", "-c", "echo kept > /data/file; sync"]).await.unwrap();
    let dns = ["getent", "hosts", "kubernetes.default"];
    eventually("DNS across nodes", || pods::exec(&pods, "shell", "app", &dns)).await;

    cluster.power_off("node2").await.unwrap();
    eventually("the node is missed", || async {
        let ready = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        let state = cluster.kubectl(&["get", "node", "node2", "-o", ready])?;
        if state == "Unknown" { Ok(()) } else { Err(anyhow!(state)) }
    })
    .await;
    cluster.power_on("node2").await.unwrap();
    eventually("the container was started again", || async {
        let pod = pods.get("shell").await?;
        if pods::restarts(&pod, "app") > 0 { Ok(()) } else { Err(anyhow!("{:?}", pod.status)) }
    })
    .await;
    let kept = eventually("exec", || pods::exec(&pods, "shell", "app", &["cat", "/data/file"])).await;
    assert_eq!(kept, "kept\n");
}

/// Names of this machine's links, control groups, mounts and loop devices that are of test clusters of this folder.
fn traces(folder: &Path) -> Vec<String> {
    let mut traces = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap();
    traces.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(name) {
            traces.push(command);
        }
    }
    for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
        let file = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if file.contains(name) {
            traces.push(file);
        }
    }
    traces
}

/// Numbers and names of a cluster's links: its bridge, and the ends of its nodes' links.
fn links(bridge: &str) -> BTreeSet<String> {
    let output = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let link = |line: &str| {
        let mut words = line.split_whitespace();
        let (number, name) = (words.next()?, words.next()?.split(['@', ':']).next()?);
        let is_its = name == bridge || name.starts_with(&format!("{bridge}n"));
        is_its.then(|| format!("{number} {name}"))
    };
    output.lines().filter_map(link).collect()
}

#[tokio::test]
async fn clusters_run_side_by_side_and_nothing_is_left_of_one_that_ends() {
    let test = "clusters_run_side_by_side_and_nothing_is_left_of_one_that_ends";
    let Some(other) = Cluster::shared_or_skip(test).await else { return };
    let cluster = Cluster::start().await.unwrap();
    let (_, pods, claims) = namespace(&cluster, "traces").await;
    claims.create(&PostParams::default(), &claim("data", "16Mi")).await.unwrap();
    let pod = pods::with_claim(pods::pod("shell", SHELL, &["sleep infinity"]), "data", "/data");
    pods::run(&pods, &pod).await;
    assert_ne!(cluster.host_address(), other.host_address());
    let folder = cluster.folder().to_owned();
    assert!(!traces(&folder).is_empty(), "what is looked for below is there");
    let host = cluster.host_address().to_string();
    let addresses = String::from_utf8(Command::new("ip").args(["-o", "addr"]).output().unwrap().stdout).unwrap();
    let line = addresses.lines().find(|line| line.contains(&host)).unwrap();
    let mut words = line.split_whitespace();
    // A cluster that starts next gets the same name, under another number.
    let bridge = words.nth(1).unwrap();
    let its_links = links(bridge);
    assert_eq!(its_links.len(), 2, "what is looked for below is there: {its_links:?}");
    let groups = || {
        let name = format!("{bridge}n*");
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", &name, "-printf", "%i %p\n"])
            .output()
            .unwrap();
        let lines = String::from_utf8(found.stdout).unwrap();
        lines.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let its_groups = groups();
    assert!(!its_groups.is_empty(), "what is looked for below is there");

    drop(cluster);
    assert_eq!(traces(&folder), Vec::<String>::new());
    assert!(!folder.exists());
    assert_eq!(links(bridge).intersection(&its_links).count(), 0, "{:?}", links(bridge));
    assert_eq!(groups().intersection(&its_groups).count(), 0);
    other.kubectl(&["get", "nodes"]).expect("the other one goes on");
}
