//! What `make cluster` and `make demo` do: a cluster for a person, and the main job on it, counted.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::numbered::Verdict;
use crate::{Cluster, charts, images, pods, try_eventually};

const PODS: usize = 3;
/// Entries of each pod before anything is done to it.
const ENTRIES: u64 = 100;
/// Large enough to be XFS, which grows while it is mounted.
const SIZE: &str = "400Mi";
const LARGER: &str = "800Mi";
const COLLECTION: &str = "orders";

/// Gives a person a cluster until a signal comes.
///
/// # Errors
/// When the cluster does not start.
pub async fn cluster() -> Result<()> {
    until_told(async {
        let cluster = start().await?;
        if let Err(error) = charts::install(&cluster, &[]) {
            println!("the charts are not installed: {error:#}");
        }
        let kubeconfig = cluster.kubeconfig().display();
        println!("\nexport KUBECONFIG={kubeconfig} PATH={}:$PATH\n", cluster.tools().display());
        println!("  kubectl get pods --all-namespaces");
        println!("  kubectl apply -f {}", crate::binaries::repository().join("examples/walstorage.yaml").display());
        println!(
            "  kubectl run first --image {} --labels walstorage.dev/storage=orders --restart Never --command -- \
             /walctl selftest",
            images::WALSTORAGE
        );
        println!("\nCtrl-C ends it and removes all of it.");
        std::future::pending().await
    })
    .await
}

/// Shows the main job and counts; fails when an acknowledged entry is lost, doubled or out of order.
///
/// # Errors
/// With what did not happen.
pub async fn demo() -> Result<()> {
    until_told(async {
        let cluster = start().await?;
        let begun = Instant::now();
        charts::install(&cluster, &[])?;
        println!("installed     both charts in {:.0} s", begun.elapsed().as_secs_f64());
        main_job(&cluster).await
    })
    .await
}

/// Does `work` unless a signal asks to stop before; what `work` holds is dropped, and so taken down, either way.
async fn until_told(work: impl Future<Output = Result<()>>) -> Result<()> {
    // Whoever started this and ended, without a signal to it, has no use for a cluster.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

async fn start() -> Result<Cluster> {
    let begun = Instant::now();
    let cluster = Cluster::start().await?;
    println!("started       Kubernetes on one node in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(cluster)
}

/// The main job of the product on a cluster with the charts: three pods append; one is killed, the disks grow, and the
/// set is scaled to one and back; everything that was acknowledged is read back.
///
/// # Errors
/// With what is lost, doubled or out of order, or with the step that did not happen.
pub async fn main_job(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("demo").await;
    cluster.accounts(&namespace).await;
    let folder = tempfile::tempdir()?;
    let demo = Demo { cluster, namespace, folder: folder.path().to_owned() };
    demo.apply(&[storage(SIZE), workload()])?;
    for index in 0..PODS {
        demo.ready(index).await?;
    }
    println!("applied       a WalStorage and a StatefulSet with its label: {PODS} pods with a sidecar each are ready");

    let mut acknowledged = [0; PODS];
    for (index, count) in acknowledged.iter_mut().enumerate() {
        *count = demo.append_until(index, ENTRIES).await?;
    }
    println!("appended      {} entries through the sockets, acknowledged", acknowledged.iter().sum::<u64>());

    let before = demo.pods().get(&name(1)).await?;
    demo.kubectl(&["delete", "pod", &name(1), "--wait=false"])?;
    demo.another(1, &before).await?;
    demo.check(1, &mut acknowledged).await?;
    println!("killed        {}: the next pod of that name has its entries and appends on", name(1));

    demo.apply(&[storage(LARGER)])?;
    demo.grown().await?;
    println!("grew          {PODS} disks from {SIZE} to {LARGER} under the running pods");

    let before = demo.pods().get(&name(2)).await?;
    for (index, count) in acknowledged.iter_mut().enumerate().skip(1) {
        *count = (*count).max(demo.acknowledged(index)?);
    }
    demo.kubectl(&["scale", "statefulset", "demo", "--replicas=1"])?;
    demo.gone(&[1, 2]).await?;
    demo.kubectl(&["scale", "statefulset", "demo", "--replicas=3"])?;
    demo.another(2, &before).await?;
    println!("scaled        {PODS} -> 1 -> {PODS}");

    let mut total = Verdict::default();
    for index in 0..PODS {
        let verdict = demo.check(index, &mut acknowledged).await?;
        total.entries += verdict.entries;
        total.lost += verdict.lost;
        total.doubled += verdict.doubled;
        total.disordered += verdict.disordered;
        total.gaps += verdict.gaps;
    }
    let Verdict { entries, lost, doubled, disordered, gaps, last: _ } = total;
    println!(
        "read back     {entries} entries: {lost} lost, {doubled} doubled, {disordered} out of order, {gaps} in gaps"
    );
    ensure!(total.is_whole(), "the log is not whole");
    Ok(())
}

struct Demo<'a> {
    cluster: &'a Cluster,
    namespace: String,
    folder: PathBuf,
}

fn name(index: usize) -> String {
    format!("demo-{index}")
}

fn storage(size: &str) -> Value {
    json!({
        "apiVersion": "walstorage.dev/v1alpha1",
        "kind": "WalStorage",
        "metadata": {"name": "demo"},
        "spec": {
            "walUrls": [{"name": "disk", "url": "file:///wal/disk", "volume": {"size": size}}],
            "globalFlushThreshold": "64Mi",
        },
    })
}

fn workload() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "demo"},
        "spec": {
            "replicas": PODS, "serviceName": "demo", "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "demo"}},
            "template": {
                "metadata": {"labels": {"app": "demo", "walstorage.dev/storage": "demo"}},
                "spec": {
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "app", "image": images::APP, "imagePullPolicy": "Never",
                        "args": ["append", COLLECTION, "--every", "10"],
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                    }],
                },
            },
        },
    })
}

impl Demo<'_> {
    fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(&[&["--namespace", &self.namespace], args].concat())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), &self.namespace)
    }

    fn apply(&self, objects: &[Value]) -> Result<()> {
        let file = self.folder.join("objects.json");
        std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;
        let file: &Path = &file;
        self.kubectl(&["apply", "--filename", &file.display().to_string()]).map(drop)
    }

    async fn ready(&self, index: usize) -> Result<()> {
        let (pods, name) = (self.pods(), name(index));
        try_eventually(&format!("{name} is ready"), || async {
            let pod = pods.get(&name).await?;
            if pods::is(&pod, "Ready") { Ok(()) } else { bail!("{}", serde_json::to_string(&pod.status)?) }
        })
        .await
    }

    /// Waits until another pod has the name of `before`, and is ready.
    async fn another(&self, index: usize, before: &Pod) -> Result<()> {
        let (pods, name) = (self.pods(), name(index));
        try_eventually(&format!("another {name}"), || async {
            let pod = pods.get(&name).await?;
            ensure!(pod.metadata.uid != before.metadata.uid, "the old one is still there");
            Ok(())
        })
        .await?;
        self.ready(index).await
    }

    async fn gone(&self, indices: &[usize]) -> Result<()> {
        let pods = self.pods();
        for index in indices {
            try_eventually(&format!("{} is gone", name(*index)), || async {
                ensure!(pods.get_opt(&name(*index)).await?.is_none(), "it is there");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The last number that a pod's log says was acknowledged.
    fn acknowledged(&self, index: usize) -> Result<u64> {
        let log = self.kubectl(&["logs", &name(index), "--container", "app"])?;
        Ok(log.lines().rev().find_map(|line| line.parse().ok()).unwrap_or(0))
    }

    async fn append_until(&self, index: usize, count: u64) -> Result<u64> {
        try_eventually(&format!("{} has appended {count} entries", name(index)), || async {
            let acknowledged = self.acknowledged(index)?;
            ensure!(acknowledged >= count, "{acknowledged}");
            Ok(acknowledged)
        })
        .await
    }

    /// Reads a pod's log back through its socket; it must have every number that was ever acknowledged.
    async fn check(&self, index: usize, acknowledged: &mut [u64; PODS]) -> Result<Verdict> {
        let (pods, name) = (self.pods(), name(index));
        acknowledged[index] = acknowledged[index].max(self.acknowledged(index)?);
        let count = acknowledged[index].to_string();
        let command = ["/wal-app", "check", COLLECTION, "--acknowledged", &count];
        let said = pods::exec(&pods, &name, "app", &command).await.with_context(|| format!("{name} is not whole"))?;
        Ok(serde_json::from_str(said.trim())?)
    }

    async fn grown(&self) -> Result<()> {
        try_eventually("the claims have grown", || async {
            let capacity = "jsonpath={.items[*].status.capacity.storage}";
            let sizes = self.kubectl(&["get", "persistentvolumeclaims", "--output", capacity])?;
            let grown = sizes.split_whitespace().filter(|size| *size == LARGER).count();
            ensure!(grown == PODS, "{sizes}");
            Ok(())
        })
        .await
    }
}
