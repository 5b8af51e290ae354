//! The process that owns a cluster. It takes everything down when its standard input closes or a signal asks it to, so
//! that a test that panics, exits or is killed leaves nothing.
//!
//! 1. Every daemon dies with this process's main thread ([`crate::process`]); so a killed supervisor leaves no process,
//!    and its folder and control group are removed by the next one.
//! 2. Orders are carried out one after the other.

pub(crate) mod cgroup;
mod control_plane;
mod link;
mod node;
mod paper;
mod paper_volumes;
pub(crate) mod ready;
mod volumes;

use std::io::{BufRead as _, Write as _};

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::control_plane::{ControlPlane, OnPaper};
use self::node::Cluster;
use crate::folder::Folder;
use crate::spec::{Answer, Kind, Order, Spec};

/// A cluster that runs.
enum Running {
    ControlPlane(#[expect(dead_code, reason = "held to be dropped")] ControlPlane),
    Cluster(Box<Cluster>),
}

/// Runs the cluster of `spec` (JSON) until standard input closes.
///
/// # Errors
/// When it does not start; this was then also said on standard output.
pub fn run(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec)?;
    // One thread: daemons die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(supervise(&spec));
    // The thread that reads standard input may be waiting for ever.
    runtime.shutdown_background();
    done
}

async fn supervise(spec: &Spec) -> Result<()> {
    let mut orders = orders();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let folder = Folder::create(&spec.parent)?;
    let started = tokio::select! {
        started = start(spec, &folder) => started,
        order = orders.recv() => match order {
            None => return Ok(()),
            Some(order) => bail!("{order} came before the cluster was ready"),
        },
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let mut running = match started {
        Ok((running, ready)) => {
            say(&Answer::Ready(ready))?;
            running
        }
        Err(error) => return say(&Answer::Failed(format!("{error:#}"))),
    };
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
        };
        let Some(order) = order else { return Ok(()) };
        let answer = tokio::select! {
            done = obey(&mut running, serde_json::from_str(&order)?) => match done {
                Ok(output) => Answer::Done(output),
                Err(error) => Answer::Failed(format!("{error:#}")),
            },
            // Nobody sends a second order before the first is answered.
            _ = orders.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        say(&answer)?;
    }
}

async fn start(spec: &Spec, folder: &Folder) -> Result<(Running, crate::spec::Ready)> {
    match &spec.kind {
        Kind::ControlPlane { controllers, nodes, run_pods, binder } => {
            let on_paper = OnPaper { nodes: *nodes, run_pods: *run_pods, binder: *binder };
            let (plane, ready) = ControlPlane::start(spec, folder.path(), *controllers, on_paper).await?;
            Ok((Running::ControlPlane(plane), ready))
        }
        Kind::Node { images } => {
            let (cluster, ready) = Cluster::start(spec, folder.path(), images).await?;
            Ok((Running::Cluster(Box::new(cluster)), ready))
        }
    }
}

async fn obey(running: &mut Running, order: Order) -> Result<String> {
    match running {
        Running::Cluster(cluster) => cluster.obey(order).await,
        Running::ControlPlane(_) => bail!("{order:?}: this cluster has no node"),
    }
}

/// The lines of standard input; the channel closes when it does.
fn orders() -> mpsc::Receiver<String> {
    let (send, receive) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if send.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receive
}

fn say(answer: &Answer) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    Ok(out.flush()?)
}
