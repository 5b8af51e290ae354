//! `walstorage-scale`: how long the operator takes for many pods at once, and what it costs. `make bench` runs it on a quiet
//! machine; the figures are printed, none is judged by a test.
//!
//! A real API server, scheduler and controllers; nodes on paper, whose pods this program reports as running. Controller and
//! webhook are the real programs, called by the API server over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool of the tests")]

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;
use walstorage_cluster_tests::ControlPlane;
use walstorage_cluster_tests::operator::Operator;
use walstorage_crds::walstorage::WalStorage;

/// Where the operator lives.
const HOME: &str = "walstorage";

#[derive(Parser)]
#[command(about = "Measure the operator with many pods at once")]
struct Cli {
    /// WalStorages, each with one StatefulSet
    #[arg(long, default_value_t = 200)]
    storages: usize,
    /// Pods of each StatefulSet
    #[arg(long, default_value_t = 10)]
    replicas: usize,
    /// Namespaces that they are spread over
    #[arg(long, default_value_t = 10)]
    namespaces: usize,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 600)]
    deadline: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let pods = cli.storages * cli.replicas;
    println!("{pods} pods: {} StatefulSets of {} with a WalStorage each", cli.storages, cli.replicas);
    let plane = ControlPlane::builder().controllers().nodes(20).start().await?;
    plane.install_types().await;
    let client = plane.client();
    create::<Namespace>(&Api::all(client.clone()), json!({"metadata": {"name": HOME}})).await?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    create::<MutatingWebhookConfiguration>(&Api::all(client.clone()), webhook(&address)).await?;
    let image = ["--sidecar-image", "localhost/walstorage:scale"];
    let args = [&image[..], &["--tls-name", "127.0.0.1", "--log", "warn"]].concat();
    let mut controller = Operator::start("controller", &plane, HOME, None, &args)?;
    let args = [&image[..], &["--listen", &address, "--log", "warn"]].concat();
    let mut admission = Operator::start("webhook", &plane, HOME, None, &args)?;
    controller.ready().await;
    admission.ready().await;

    let kubelets = tokio::spawn(report_running(plane.client()));
    let began = Instant::now();
    let spaces: Vec<String> = (0..cli.namespaces.max(1)).map(|number| format!("scale-{number}")).collect();
    let all: Api<Namespace> = Api::all(client.clone());
    for name in &spaces {
        create(&all, json!({"metadata": {"name": name}})).await?;
    }
    for name in &spaces {
        plane.accounts(name).await;
    }
    for number in 0..cli.storages {
        let (space, name) = (&spaces[number % spaces.len()], format!("s{number}"));
        create::<WalStorage>(&Api::namespaced(client.clone(), space), json!({"metadata": {"name": name}, "spec": {}}))
            .await?;
        create::<StatefulSet>(&Api::namespaced(client.clone(), space), workload(&name, cli.replicas)).await?;
    }
    println!("created after {:.1} s", began.elapsed().as_secs_f64());
    let wanted = format!("{0}/{0}", cli.replicas);
    loop {
        let all = Api::<WalStorage>::all(client.clone()).list(&ListParams::default()).await?;
        let is_settled = |storage: &&WalStorage| {
            let status = storage.status.clone().unwrap_or_default();
            let active = status.writers.and_then(|writers| writers.active);
            let ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
            status.summary.as_ref() == Some(&wanted) && ready && active == i64::try_from(cli.replicas).ok()
        };
        let settled = all.items.iter().filter(is_settled).count();
        if settled == cli.storages {
            break;
        }
        ensure!(began.elapsed().as_secs() < cli.deadline, "{settled} of {} settled in time", cli.storages);
        sleep(Duration::from_millis(500)).await;
    }
    let settled = began.elapsed().as_secs_f64();
    kubelets.abort();
    let (_, metrics) = admission.get("/metrics").await?;
    let rows = [
        ("settled", format!("{settled:.1} s"), "60 s"),
        ("controller, most memory", format!("{} MiB", most_memory(controller.id())?), "100 MiB"),
        ("webhook, most memory", format!("{} MiB", most_memory(admission.id())?), ""),
        ("webhook, p99", format!("{} ms", p99(&metrics)?), "10 ms"),
        ("webhook, requests", requests(&metrics).to_string(), ""),
    ];
    for (what, figure, target) in rows {
        let target = if target.is_empty() { String::new() } else { format!("   (target: below {target})") };
        println!("{what:<26}{figure:>12}{target}");
    }
    Ok(())
}

async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

fn webhook(address: &str) -> Value {
    json!({
        "metadata": {"name": "walstorage-webhook"},
        "webhooks": [{
            "name": "pods.walstorage.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 5,
            "clientConfig": {"url": format!("https://{address}/mutate")},
            "objectSelector": {"matchExpressions": [{"key": "walstorage.dev/storage", "operator": "Exists"}]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
        }],
    })
}

fn workload(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "serviceName": name, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "walstorage.dev/storage": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "paper"}]},
            },
        },
    })
}

/// What the nodes' kubelets would report.
async fn report_running(client: Client) -> Result<()> {
    let all: Api<Pod> = Api::all(client.clone());
    loop {
        let bound = all.list(&ListParams::default().fields("status.phase=Pending,spec.nodeName!=")).await?;
        let patches = bound.items.into_iter().map(|pod| {
            let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            let (name, status) = (pod.name_any(), running(&pod));
            async move { pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await }
        });
        // One that was deleted meanwhile is none of ours.
        futures_util::stream::iter(patches).buffer_unordered(16).for_each(|_| std::future::ready(())).await;
        sleep(Duration::from_millis(200)).await;
    }
}

fn running(pod: &Pod) -> Value {
    let now = Timestamp::now();
    let spec = pod.spec.clone().unwrap_or_default();
    let container = |name: &String| {
        json!({"name": name, "image": "paper", "imageID": "paper", "containerID": format!("paper://{name}"), "ready": true,
            "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}}})
    };
    let containers: Vec<Value> = spec.containers.iter().map(|one| container(&one.name)).collect();
    let sidecars: Vec<Value> = spec.init_containers.iter().flatten().map(|one| container(&one.name)).collect();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({"status": {
        "phase": "Running",
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": containers,
        "initContainerStatuses": sidecars,
    }})
}

/// The most memory that a process ever had, in MiB.
fn most_memory(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().next().context("no figure")?.parse()?;
    Ok(kib.div_ceil(1024))
}

fn requests(metrics: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix("walstorage_operator_webhook_seconds_count "));
    line.and_then(|count| count.parse().ok()).unwrap_or_default()
}

/// The bound of the histogram's bucket that 99 of 100 requests were within, in milliseconds.
fn p99(metrics: &str) -> Result<String> {
    let wanted = requests(metrics) as f64 * 0.99;
    let buckets =
        metrics.lines().filter_map(|line| line.strip_prefix("walstorage_operator_webhook_seconds_bucket{le=\""));
    for bucket in buckets {
        let (bound, count) = bucket.split_once("\"} ").context("a bucket")?;
        let (count, bound): (f64, f64) = (count.parse()?, bound.parse().unwrap_or(f64::INFINITY));
        if count >= wanted {
            return Ok(format!("<= {}", bound * 1000.0));
        }
    }
    Ok("none".to_owned())
}
