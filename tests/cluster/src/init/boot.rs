//! Starts a node's daemons in their order and keeps the kubelet running.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};

use super::Plan;
use super::files::{self, CACHE, CLUSTER, NODE, PKI};
use crate::components::Plane;
use crate::spec::Binder;
use crate::supervisor::ready;

/// Starts everything; returns only when it cannot go on.
///
/// # Errors
/// When a daemon does not start.
pub fn boot(plan: &str) -> Result<std::convert::Infallible> {
    let plan: Plan = serde_json::from_str(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(start(&plan))
}

async fn start(plan: &Plan) -> Result<std::convert::Infallible> {
    files::write(plan)?;
    let daemons = Daemons { tools: Path::new(CACHE).join(plan.tools.file_name().context("the tools have a name")?) };
    let (address, services) = (plan.block.node(1).to_string(), plan.block.services());
    let control_plane = (plan.node == 1).then(|| Plane {
        pki: Path::new(PKI),
        etcd: Path::new("/run/cluster/folder/etcd"),
        etcd_port: 2379,
        peer_port: 2380,
        bind: "0.0.0.0",
        port: 6443,
        advertise: &address,
        in_cluster: true,
        services: &services,
        emulated: plan.emulated.as_deref(),
    });
    let mut running = Vec::new();
    if let Some(plane) = &control_plane {
        running.push(daemons.start("etcd", &plane.etcd())?);
        running.push(daemons.start("kube-apiserver", &plane.api_server())?);
    }
    running
        .push(daemons.start("containerd", &["--config", &format!("{NODE}/containerd.toml"), "--log-level", "info"])?);
    let images = import(plan);
    let api = async {
        let client = ready::client(&Path::new(PKI).join("admin.kubeconfig")).await?;
        ready::wait("the API server is ready", || Ok(()), || ready::api_server(&client)).await?;
        let mut running = Vec::new();
        if let Some(plane) = &control_plane {
            running.push(daemons.start("kube-controller-manager", &plane.controller_manager(Binder::All))?);
            running.push(daemons.start("kube-scheduler", &plane.scheduler())?);
            running.push(daemons.start("coredns", &["-conf", &format!("{NODE}/Corefile")])?);
        }
        running.push(daemons.start("kube-proxy", &["--config", &format!("{NODE}/kube-proxy.yaml")])?);
        Ok::<_, anyhow::Error>(running)
    };
    let ((), after) = tokio::try_join!(images, api)?;
    running.extend(after);
    loop {
        let mut kubelet = daemons.start(
            "kubelet",
            &[
                "--config",
                &format!("{NODE}/kubelet.yaml"),
                "--kubeconfig",
                &format!("{PKI}/{}.kubeconfig", plan.name),
                "--hostname-override",
                &plan.name,
                "--node-ip",
                &plan.block.node(plan.node).to_string(),
            ],
        )?;
        std::fs::write("/run/kubelet.pid", kubelet.id().unwrap_or_default().to_string())?;
        let status = kubelet.wait().await?;
        eprintln!("the kubelet ended: {status}");
        // It may end at once each time.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Daemons {
    tools: PathBuf,
}

impl Daemons {
    fn start<A: AsRef<std::ffi::OsStr>>(&self, name: &str, args: &[A]) -> Result<Child> {
        let log = File::options().create(true).append(true).open(format!("{NODE}/log/{name}.log"))?;
        let ours = self.tools.join(name);
        let program = if ours.exists() { ours } else { name.into() };
        Command::new(program)
            .args(args)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))
    }
}

/// Imports the images as soon as containerd listens. After a restart they are still there.
async fn import(plan: &Plan) -> Result<()> {
    while !Path::new("/run/containerd/containerd.sock").exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let done = Path::new("/var/lib/images-imported");
    if done.exists() {
        return Ok(());
    }
    for image in (0..plan.images).map(|number| Path::new(CLUSTER).join(format!("images/{number}.tar"))) {
        let output = Command::new("ctr").args(["-n", "k8s.io", "images", "import"]).arg(&image).output().await?;
        if !output.status.success() {
            bail!("cannot import {}: {}", image.display(), String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(std::fs::write(done, "")?)
}
