//! What `make cluster` and `make demo` do: a cluster for a person, and the main job on it, counted.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::numbered::Verdict;
use crate::objects::{stateful_set, storage_of, template};
use crate::team::Team;
use crate::{Cluster, charts, images, try_eventually};

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
        if let Err(error) = install(&cluster) {
            println!("the charts are not installed: {error:#}");
        }
        give_to_caller(cluster.kubeconfig())?;
        let kubeconfig = cluster.kubeconfig().display();
        println!(
            "\nIn another terminal:\n\n  export KUBECONFIG={kubeconfig} PATH={}:$PATH\n",
            cluster.tools().display()
        );
        println!("A WalStorage, a pod that tests the log that it gets there, and what becomes of both:\n");
        for command in next_commands() {
            println!("  {command}");
        }
        println!("\nCtrl-C here ends the cluster and removes all of it.");
        std::future::pending().await
    })
    .await?;
    println!("\nremoved");
    Ok(())
}

/// With sudo the file is root's, and whoever called it is to use the cluster.
fn give_to_caller(file: &Path) -> Result<()> {
    let id = |name: &str| std::env::var(name).ok().and_then(|id| id.parse().ok());
    std::os::unix::fs::chown(file, id("SUDO_UID"), id("SUDO_GID"))
        .with_context(|| format!("{} cannot be given to who called sudo", file.display()))
}

/// What a person may do first on such a cluster, with `kubectl`.
#[must_use]
pub fn next_commands() -> [String; 3] {
    let example = crate::binaries::repository().join("examples/walstorage.yaml");
    [
        format!("kubectl apply -f {}", example.display()),
        format!(
            "kubectl run first --image {} --labels walstorage.dev/storage=orders --restart Never --command -- /walctl selftest",
            images::WALSTORAGE
        ),
        "kubectl get wal,walw,pods".to_owned(),
    ]
}

/// Shows the main job and counts; fails when an acknowledged entry is lost, doubled or out of order.
///
/// # Errors
/// With what did not happen.
pub async fn demo() -> Result<()> {
    until_told(async {
        let cluster = start().await?;
        install(&cluster)?;
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

fn install(cluster: &Cluster) -> Result<()> {
    let begun = Instant::now();
    charts::install(cluster, &[])?;
    println!("installed     both charts in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The main job of the product on a cluster with the charts: three pods append; one is killed, the disks grow, and the
/// set is scaled to one and back; everything that was acknowledged is read back.
///
/// # Errors
/// With what is lost, doubled or out of order, or with the step that did not happen.
pub async fn main_job(cluster: &Cluster) -> Result<()> {
    let demo = Demo { team: Team::new(cluster, "demo").await? };
    let workload =
        stateful_set("demo", PODS, &template("demo", "demo", &["append", COLLECTION, "--every", "10"], None));
    demo.team.apply(&[storage_of("demo", &["disk"], SIZE), workload])?;
    for index in 0..PODS {
        demo.team.ready(&name(index)).await?;
    }
    println!("applied       a WalStorage and a StatefulSet with its label: {PODS} pods with a sidecar each are ready");

    let mut acknowledged = [0; PODS];
    for (index, count) in acknowledged.iter_mut().enumerate() {
        *count = demo.team.append_until(&name(index), ENTRIES).await?;
    }
    println!("appended      {} entries through the sockets, acknowledged", acknowledged.iter().sum::<u64>());

    let before = demo.team.pods().get(&name(1)).await?;
    demo.team.kubectl(&["delete", "pod", &name(1), "--wait=false"])?;
    demo.team.another(&before).await?;
    demo.check(1, &mut acknowledged).await?;
    println!("killed        {}: the next pod of that name has its entries and appends on", name(1));

    demo.team.apply(&[storage_of("demo", &["disk"], LARGER)])?;
    demo.grown().await?;
    println!("grew          {PODS} disks from {SIZE} to {LARGER} under the running pods");

    let before = demo.team.pods().get(&name(2)).await?;
    for (index, count) in acknowledged.iter_mut().enumerate().skip(1) {
        *count = (*count).max(demo.team.acknowledged(&name(index))?);
    }
    demo.team.kubectl(&["scale", "statefulset", "demo", "--replicas=1"])?;
    for index in [1, 2] {
        demo.team.gone("pod", &name(index)).await?;
    }
    demo.team.kubectl(&["scale", "statefulset", "demo", "--replicas=3"])?;
    demo.team.another(&before).await?;
    println!("scaled        {PODS} -> 1 -> {PODS}");

    let mut verdicts = Vec::new();
    for index in 0..PODS {
        verdicts.push(demo.check(index, &mut acknowledged).await?);
    }
    let total: Verdict = verdicts.into_iter().sum();
    println!("read back     {total}");
    ensure!(total.is_whole(), "the log is not whole");
    Ok(())
}

struct Demo<'a> {
    team: Team<'a>,
}

fn name(index: usize) -> String {
    format!("demo-{index}")
}

impl Demo<'_> {
    /// Reads a pod's log back through its socket; it must have every number that was ever acknowledged.
    async fn check(&self, index: usize, acknowledged: &mut [u64; PODS]) -> Result<Verdict> {
        acknowledged[index] = acknowledged[index].max(self.team.acknowledged(&name(index))?);
        self.team.read_back(&name(index), COLLECTION, acknowledged[index]).await
    }

    async fn grown(&self) -> Result<()> {
        try_eventually("the claims have grown", || async {
            let capacity = "jsonpath={.items[*].status.capacity.storage}";
            let sizes = self.team.kubectl(&["get", "persistentvolumeclaims", "--output", capacity])?;
            let grown = sizes.split_whitespace().filter(|size| *size == LARGER).count();
            ensure!(grown == PODS, "{sizes}");
            Ok(())
        })
        .await
    }
}
