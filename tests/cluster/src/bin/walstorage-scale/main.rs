//! `walstorage-scale`: how long the operator takes for many pods at once, and what it costs. `make bench` runs it on a quiet
//! machine; the figures are printed and written, none is judged by a test.
//!
//! A real API server, scheduler and controllers; nodes on paper, whose pods this program reports as running, and whose
//! sidecars it plays at their admin ports. Controller and webhook are the real programs, called by the API server over TLS.
//! Before that the same StatefulSets, with claims of their own and without a WalStorage: what the cluster itself takes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool of the tests")]

mod cost;
mod figures;
mod machine;
mod pods;
mod report;
mod storages;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{Binder, ControlPlane};
use walstorage_crds::walstorage::WalStorage;

use self::cost::Cost;
use self::figures::{Histogram, most_memory, processor, series};
use self::machine::Machine;
use self::pods::{Pods, STEPS, Step};
use self::report::Row;
use self::storages::Storages;

/// Where the operator lives.
const HOME: &str = "walstorage";
/// Nodes on paper.
const NODES: usize = 20;

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
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How much the operator logs
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
    /// Write what it logged into this folder, whatever came of it
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let pods = cli.storages * cli.replicas;
    println!("{pods} pods: {} StatefulSets of {} with a WalStorage each", cli.storages, cli.replicas);
    let machine = Machine::look()?;
    for (what, is) in machine.rows() {
        println!("{what:<58}{is}");
    }
    let alone = alone(&cli).await?;
    println!("without WalStorage they run after {:.1} s", alone.seconds);
    let (rows, cost) = with_walstorage(&cli, &alone).await?;
    for (what, figure, target) in &rows {
        let target = if target.is_empty() { String::new() } else { format!("   (target: below {target})") };
        println!("{what:<58}{figure:>12}{target}");
    }
    let costs = cost::page(&alone.cost, &cost)?;
    println!("{costs}");
    if let Some(file) = &cli.report {
        let before = std::fs::read_to_string(file).unwrap_or_default();
        let page = report::page(&cli, &machine, &rows)? + &costs + &report::by_people(&before);
        std::fs::write(file, page).with_context(|| format!("{} is not written", file.display()))?;
        println!("written to {}", file.display());
    }
    Ok(())
}

/// What the cluster itself takes.
struct Alone {
    seconds: f64,
    cost: Cost,
}

/// The same StatefulSets with claims of their own, and nothing of ours.
async fn alone(cli: &Cli) -> Result<Alone> {
    let plane = ControlPlane::builder().controllers().nodes(NODES).binder(Binder::Maker).start().await?;
    let pods = Pods::follow(plane.client(), TcpListener::bind("0.0.0.0:0").await?);
    let began = Instant::now();
    create_all(cli, &plane, None).await?;
    reach(cli, &pods, Step::Running, began).await?;
    let last = pods.last(Step::Running).context("no pod runs")?;
    let cost = Cost::read(&server_metrics(&plane).await?)?;
    Ok(Alone { seconds: last.duration_since(began).as_secs_f64(), cost })
}

/// The StatefulSets with their WalStorages, and the operator.
async fn with_walstorage(cli: &Cli, alone: &Alone) -> Result<(Vec<Row>, Cost)> {
    // Of this program: all others are new.
    let before = Cost::read("")?;
    let plane = ControlPlane::builder().controllers().nodes(NODES).binder(Binder::Maker).start().await?;
    plane.install_types().await;
    let client = plane.client();
    create::<Namespace>(&Api::all(client.clone()), json!({"metadata": {"name": HOME}})).await?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    create::<MutatingWebhookConfiguration>(&Api::all(client.clone()), webhook(&address)).await?;
    let common = ["--sidecar-image", "localhost/walstorage:scale", "--log", &cli.log];
    let args = [&common[..], &["--tls-name", "127.0.0.1"]].concat();
    let token = account(&client, "controller").await?;
    let mut controller = Operator::by_token("controller", &plane, HOME, &token, &args)?;
    let args = [&common[..], &["--listen", &address]].concat();
    let token = account(&client, "webhook").await?;
    let mut admission = Operator::by_token("webhook", &plane, HOME, &token, &args)?;
    controller.ready().await;
    admission.ready().await;

    let sidecars = TcpListener::bind("0.0.0.0:0").await?;
    let port = sidecars.local_addr()?.port();
    let pods = Pods::follow(plane.client(), sidecars);
    let storages = Storages::follow(plane.client(), cli.replicas);
    let began = Instant::now();
    create_all(cli, &plane, Some(port)).await?;
    let created = began.elapsed().as_secs_f64();
    println!("created after {created:.1} s");
    let settled = settle(cli, &storages, &pods, began).await;
    write_logs(cli, &controller, &admission)?;
    let settled = settled?;
    let server = server_metrics(&plane).await?;
    let cost = Cost::read(&server)?.since(&before);
    let (by_controller, by_webhook) = (processor(controller.id())?, processor(admission.id())?);
    let open = cli.storages * cli.replicas - pods.count(Step::Closed);
    // Taken back when nobody waits for a writer.
    reach(cli, &pods, Step::Closed, began).await?;

    let webhook = Histogram::read(&admission.get("/metrics").await?.1, "walstorage_operator_webhook_seconds", "");
    let called = "apiserver_admission_webhook_admission_duration_seconds";
    let called = Histogram::read(&server, called, "name=\"pods.walstorage.dev\"");
    let (_, counted) = controller.get("/metrics").await?;
    let looks: f64 = series(&counted, "walstorage_operator_reconciles_total").map(|(_, value)| value).sum();
    let seconds = |time: Option<Duration>| time.map_or_else(String::new, |time| format!("{:.1} s", time.as_secs_f64()));
    let until = |step| seconds(pods.last(step).map(|last| last.duration_since(began)));
    let gated = |part| seconds(pods.took(Step::Made, Step::Granted, part));
    let rows = vec![
        ("without WalStorage, until the last pod was running", format!("{:.1} s", alone.seconds), ""),
        ("settled after", format!("{settled:.1} s"), "60 s"),
        ("until everything was created", format!("{created:.1} s"), ""),
        ("until the last pod was made", until(Step::Made), ""),
        ("until the last pod was granted its writer", until(Step::Granted), ""),
        ("until the last pod had volume and node", until(Step::Placed), ""),
        ("until the last pod was running", until(Step::Running), ""),
        ("grants that let a directory begin, when it had settled", format!("{open}"), ""),
        ("until no grant did", until(Step::Closed), ""),
        ("a pod's wait for its writer, p50", gated(0.5), ""),
        ("a pod's wait for its writer, p99", gated(0.99), ""),
        ("controller, most memory", format!("{} MiB", most_memory(controller.id())?), "100 MiB"),
        ("controller, processor", format!("{by_controller:.1} s"), ""),
        ("controller, looks at resources", format!("{looks}"), ""),
        ("webhook, most memory", format!("{} MiB", most_memory(admission.id())?), "100 MiB"),
        ("webhook, processor", format!("{by_webhook:.1} s"), ""),
        ("webhook, requests", format!("{}", webhook.count), ""),
        ("webhook, p50 as it measures", webhook.quantile(0.5), ""),
        ("webhook, p99 as it measures", webhook.quantile(0.99), "10 ms"),
        ("webhook, p99 as the API server measures", called.quantile(0.99), ""),
        ("requests to the API server, of everybody", format!("{}", cost.requests()), ""),
        ("the same without WalStorage", format!("{}", alone.cost.requests()), ""),
    ];
    Ok((rows, cost))
}

/// Waits until every status says that all its pods are ready and hold their writers.
async fn settle(cli: &Cli, storages: &Storages, pods: &Pods, began: Instant) -> Result<f64> {
    let mut told = Instant::now();
    loop {
        let (settled, elapsed) = (storages.settled(), began.elapsed());
        if settled == cli.storages {
            return Ok(elapsed.as_secs_f64());
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            let [made, granted, placed, running, _] = STEPS.map(|step| pods.count(step));
            println!(
                "after {:.0} s {made} pods are made, {granted} granted, {placed} placed, {running} running; {settled} settled",
                elapsed.as_secs_f64()
            );
        }
        ensure!(elapsed.as_secs() < cli.deadline, "{settled} of {} settled in time", cli.storages);
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all pods have made a step.
async fn reach(cli: &Cli, pods: &Pods, step: Step, began: Instant) -> Result<()> {
    while pods.count(step) < cli.storages * cli.replicas {
        ensure!(began.elapsed().as_secs() < cli.deadline, "{} pods are {step:?} in time", pods.count(step));
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn server_metrics(plane: &ControlPlane) -> Result<String> {
    Ok(plane.client().request_text(http::Request::get("/metrics").body(Vec::new())?).await?)
}

/// Creates all StatefulSets, each with claims of its own, or all WalStorages, whose sidecars have this admin port, and then
/// a StatefulSet for each.
async fn create_all(cli: &Cli, plane: &ControlPlane, port: Option<u16>) -> Result<()> {
    let client = plane.client();
    let spaces: Vec<String> = (0..cli.namespaces.max(1)).map(|number| format!("scale-{number}")).collect();
    let all: Api<Namespace> = Api::all(client.clone());
    for name in &spaces {
        create(&all, json!({"metadata": {"name": name}})).await?;
    }
    for name in &spaces {
        plane.accounts(name).await;
    }
    let named = || (0..cli.storages).map(|number| (&spaces[number % spaces.len()], format!("s{number}")));
    if let Some(port) = port {
        for (space, name) in named() {
            let storage = json!({"metadata": {"name": name}, "spec": {"sidecar": {"adminPort": port}}});
            create::<WalStorage>(&Api::namespaced(client.clone(), space), storage).await?;
        }
    }
    for (space, name) in named() {
        let mut set = workload(&name, cli.replicas);
        if port.is_some() {
            set["spec"]["template"]["metadata"]["labels"]["walstorage.dev/storage"] = json!(name);
        } else {
            let claim = json!({"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "10Gi"}}});
            set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": claim}]);
        }
        create::<StatefulSet>(&Api::namespaced(client.clone(), space), set).await?;
    }
    Ok(())
}

/// Makes a service account that may do everything, and gives a token of it: a certificate, as the administrator has, is verified
/// with each request, and no operator in a pod has one.
async fn account(client: &Client, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), HOME);
    create(&accounts, json!({"metadata": {"name": name}})).await?;
    let binding = json!({
        "metadata": {"name": format!("{HOME}-{name}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": HOME, "name": name}],
    });
    create::<ClusterRoleBinding>(&Api::all(client.clone()), binding).await?;
    let asked: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 86400}}))?;
    let given = accounts.create_token_request(name, &PostParams::default(), &asked).await?;
    Ok(given.status.context("no token was given")?.token)
}

fn write_logs(cli: &Cli, controller: &Operator, admission: &Operator) -> Result<()> {
    let Some(folder) = &cli.logs else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("controller.log"), controller.log())?;
    std::fs::write(folder.join("webhook.log"), admission.log())?;
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
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "paper"}]},
            },
        },
    })
}
