//! etcd and the API server as processes of this machine, on free ports of the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::Result;
use tokio::task::JoinSet;

use super::{paper, paper_volumes, ready, volumes};
use crate::components::Plane;
use crate::pki::Pki;
use crate::process::Daemon;
use crate::spec::{Binder, Ready, Spec};

/// A port may be taken between its choice and its use; then others are chosen.
const TRIES: usize = 5;

/// What exists on paper beside it.
pub(super) struct OnPaper {
    pub(super) nodes: usize,
    /// Whether pods are reported as running, and as gone.
    pub(super) run_pods: bool,
    pub(super) binder: Binder,
}

pub(super) struct ControlPlane {
    _tasks: JoinSet<()>,
    /// In the order of their end.
    _daemons: Vec<Daemon>,
}

impl ControlPlane {
    pub(super) async fn start(
        spec: &Spec,
        folder: &Path,
        controllers: bool,
        on_paper: OnPaper,
    ) -> Result<(Self, Ready)> {
        let OnPaper { nodes, run_pods, binder } = on_paper;
        let logs = folder.join("log");
        std::fs::create_dir_all(&logs)?;
        let mut tries = 1;
        let started = loop {
            match start(spec, folder, &logs, controllers, binder).await {
                Err(error) if tries < TRIES && format!("{error:#}").contains("address already in use") => tries += 1,
                done => break done?,
            }
        };
        let (daemons, ready) = started;
        let mut tasks = JoinSet::new();
        if controllers {
            let client = ready::client(&ready.kubeconfig).await?;
            ready::wait("pods can be made", || Ok(()), || ready::accounts(&client)).await?;
            volumes::create_classes(&client).await?;
            tasks.spawn(paper_volumes::provide(client.clone(), binder, logs.join("volumes.log")));
            let names: Vec<String> = (1..=nodes).map(|number| format!("node{number}")).collect();
            for name in &names {
                paper::register(&client, name).await?;
            }
            tasks.spawn(paper::renew(client.clone(), names.clone()));
            if run_pods {
                tasks.spawn(paper::run_pods(client.clone()));
            }
            for name in &names {
                ready::wait("the node takes pods", || Ok(()), || ready::node(&client, name, None)).await?;
            }
        }
        Ok((Self { _tasks: tasks, _daemons: daemons }, ready))
    }
}

async fn start(
    spec: &Spec,
    folder: &Path,
    logs: &Path,
    controllers: bool,
    binder: Binder,
) -> Result<(Vec<Daemon>, Ready)> {
    let [port, etcd_port, peer_port] = free_ports()?;
    let (pki, etcd) = (folder.join("pki"), folder.join("etcd"));
    let _ = std::fs::remove_dir_all(&etcd);
    let server = format!("https://127.0.0.1:{port}");
    Pki::create(&pki, &server, &["127.0.0.1".to_owned(), "10.96.0.1".to_owned()], &[])?;
    let plane = Plane {
        pki: &pki,
        etcd: &etcd,
        etcd_port,
        peer_port,
        bind: "127.0.0.1",
        port,
        advertise: "127.0.0.1",
        in_cluster: false,
        services: "10.96.0.0/16",
        emulated: spec.emulated.as_deref(),
    };
    let daemon = |name: &str, args| Daemon::start(name, None, &spec.tools.join(name), args, logs);
    let mut daemons = vec![daemon("kube-apiserver", plane.api_server())?, daemon("etcd", plane.etcd())?];
    let kubeconfig = pki.join("admin.kubeconfig");
    let client = ready::client(&kubeconfig).await?;
    let alive = || daemons.iter_mut().try_for_each(Daemon::check);
    ready::wait("the API server is ready", alive, || ready::api_server(&client)).await?;
    if controllers {
        daemons.insert(0, daemon("kube-controller-manager", plane.controller_manager(binder))?);
        daemons.insert(0, daemon("kube-scheduler", plane.scheduler())?);
    }
    Ok((daemons, Ready { folder: folder.to_owned(), kubeconfig, host: Ipv4Addr::LOCALHOST }))
}

/// Ports of the loopback interface that nobody listened on a moment ago.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are known, or one could come twice.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
