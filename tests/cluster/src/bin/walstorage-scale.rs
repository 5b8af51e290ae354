//! `walstorage-scale`: how long the operator takes for many pods at once, and what it costs. `make bench` runs it on a quiet
//! machine; the figures are printed and written, none is judged by a test.
//!
//! A real API server, scheduler and controllers; nodes on paper, whose pods this program reports as running, and whose
//! sidecars it plays at their admin ports. Controller and webhook are the real programs, called by the API server over TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a tool of the tests")]

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::sleep;
use walstorage_cluster_tests::operator::Operator;
use walstorage_cluster_tests::{ControlPlane, kubelet};
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
    /// Write the figures to this file as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
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

    let sidecars = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = sidecars.local_addr()?.port();
    let playing = tokio::spawn(answer_polls(sidecars));
    let kubelets = tokio::spawn(report_running(plane.client()));
    let load = load()?;
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
        let storage = json!({"metadata": {"name": name}, "spec": {"sidecar": {"adminPort": port}}});
        create::<WalStorage>(&Api::namespaced(client.clone(), space), storage).await?;
        create::<StatefulSet>(&Api::namespaced(client.clone(), space), workload(&name, cli.replicas)).await?;
    }
    let created = began.elapsed().as_secs_f64();
    println!("created after {created:.1} s");
    let wanted = format!("{0}/{0}", cli.replicas);
    let mut told = Instant::now();
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
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            println!("{settled} settled after {:.0} s", began.elapsed().as_secs_f64());
        }
        ensure!(began.elapsed().as_secs() < cli.deadline, "{settled} of {} settled in time", cli.storages);
        sleep(Duration::from_millis(500)).await;
    }
    let settled = began.elapsed().as_secs_f64();
    kubelets.abort();
    let webhook = Histogram::read(&admission.get("/metrics").await?.1, "walstorage_operator_webhook_seconds", "");
    let server = http::Request::get("/metrics").body(Vec::new())?;
    let server = client.request_text(server).await?;
    let called = "apiserver_admission_webhook_admission_duration_seconds";
    let called = Histogram::read(&server, called, "name=\"pods.walstorage.dev\"");
    let (_, counted) = controller.get("/metrics").await?;
    let looks: f64 = series(&counted, "walstorage_operator_reconciles_total").map(|(_, value)| value).sum();
    let rows = [
        ("settled after", format!("{settled:.1} s"), "60 s"),
        ("of that, until everything was created", format!("{created:.1} s"), ""),
        ("controller, most memory", format!("{} MiB", most_memory(controller.id())?), "100 MiB"),
        ("controller, processor", format!("{:.1} s", processor(controller.id())?), ""),
        ("controller, looks at resources", format!("{looks}"), ""),
        ("webhook, most memory", format!("{} MiB", most_memory(admission.id())?), "100 MiB"),
        ("webhook, processor", format!("{:.1} s", processor(admission.id())?), ""),
        ("webhook, requests", format!("{}", webhook.count), ""),
        ("webhook, p50 as it measures", webhook.quantile(0.5), ""),
        ("webhook, p99 as it measures", webhook.quantile(0.99), "10 ms"),
        ("webhook, p99 as the API server measures", called.quantile(0.99), ""),
    ];
    for (what, figure, target) in &rows {
        let target = if target.is_empty() { String::new() } else { format!("   (target: below {target})") };
        println!("{what:<42}{figure:>12}{target}");
    }
    playing.abort();
    if let Some(file) = &cli.report {
        let page = report(&cli, &load, &rows)? + &by_people(&std::fs::read_to_string(file).unwrap_or_default());
        std::fs::write(file, page).with_context(|| format!("{} is not written", file.display()))?;
        println!("written to {}", file.display());
    }
    Ok(())
}

/// The figures as a page of the documentation.
fn report(cli: &Cli, load: &str, rows: &[(&str, String, &str)]) -> Result<String> {
    let mut page = String::from(
        "# The operator with many pods\n\nWritten by `make scale`, which `make bench` runs too; no figure is typed by hand.\n\n",
    );
    let pods = cli.storages * cli.replicas;
    writeln!(
        page,
        "{pods} pods at once: {} StatefulSets of {} in {} namespaces, each with a WalStorage of its own, created one after the other. A real \
         API server with etcd, scheduler and controllers, the operator's real controller and webhook; the nodes are on paper, \
         and this program reports their pods as running. All of that shares the processors of one machine. Settled is when \
         every status says that all its pods are ready and hold their writers.\n",
        cli.storages, cli.replicas, cli.namespaces
    )?;
    writeln!(page, "| | |\n|---|---|")?;
    for (what, is) in machine()? {
        writeln!(page, "| {what} | {is} |")?;
    }
    writeln!(page, "| load average when it began | {load} |\n\n| | found | wanted |\n|---|---:|---:|")?;
    for (what, figure, target) in rows {
        let target = if target.is_empty() { String::new() } else { format!("below {target}") };
        writeln!(page, "| {what} | {figure} | {target} |")?;
    }
    Ok(page)
}

/// The last section of the page that was there: people write it, and it stays.
fn by_people(before: &str) -> String {
    const HEADING: &str = "## What falls short, and why";
    let kept = before.find(HEADING).map_or(HEADING, |at| before[at..].trim_end());
    format!("\n{kept}\n")
}

/// What the figures depend on.
fn machine() -> Result<[(&'static str, String); 3]> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default().trim().to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let processor = format!("{count} x {}", model.trim_start_matches([' ', '\t', ':']));
    Ok([("processor", processor), ("memory", memory), ("kernel", format!("Linux {kernel}"))])
}

fn load() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(", "))
}

/// Answers the controller's questions to sidecars, quickly and with nothing: it cannot know which writer is asked.
async fn answer_polls(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    }
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
                "metadata": {"labels": {"app": name, "walstorage.dev/storage": name}, "annotations": {kubelet::ADDRESS: "127.0.0.1"}},
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
            let (name, status) = (pod.name_any(), kubelet::running(&pod));
            async move { pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await }
        });
        // One that was deleted meanwhile is none of ours.
        futures_util::stream::iter(patches).buffer_unordered(16).for_each(|_| std::future::ready(())).await;
        sleep(Duration::from_millis(200)).await;
    }
}

/// The most memory that a process ever had, in MiB.
fn most_memory(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().next().context("no figure")?.parse()?;
    Ok(kib.div_ceil(1024))
}

/// Seconds of a processor that a process used.
fn processor(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("too short")?.parse()?) };
    // utime and stime, in hundredths.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The series of a metric: labels and value.
fn series<'m>(metrics: &'m str, name: &'m str) -> impl Iterator<Item = (&'m str, f64)> {
    metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
    })
}

/// A histogram of seconds.
struct Histogram {
    count: u64,
    /// Bounds, and how many were within.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Of all series that have these labels.
    fn read(metrics: &str, name: &str, labels: &str) -> Self {
        let bucket = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (found, count) in series(metrics, &bucket).filter(|(found, _)| found.contains(labels)) {
            let bound = found.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("+Inf");
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = buckets.last().map_or(0.0, |(_, count)| *count);
        Self { count: count as u64, buckets }
    }

    /// The bound of the bucket that this part of all is within.
    fn quantile(&self, part: f64) -> String {
        let wanted = self.count as f64 * part;
        match self.buckets.iter().find(|(_, count)| *count >= wanted && *count > 0.0) {
            Some((bound, _)) if bound.is_finite() => format!("≤ {} ms", (bound * 1e6).round() / 1000.0),
            Some(_) => "off the scale".to_owned(),
            None => "none".to_owned(),
        }
    }
}
