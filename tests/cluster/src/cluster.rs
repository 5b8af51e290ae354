//! A cluster with real nodes.

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::connection::Connection;
use crate::handle::Supervisor;
use crate::skip::skipped;
use crate::spec::{Kind, Order, Spec};
use crate::{binaries, images, tools};

/// A control plane and its node `node1`, in namespaces of their own. Taken down on drop.
///
/// Its methods are also those of [`Connection`]. Claims of the default class `wal` get a real file system each, once a
/// pod wants them: from 300 MiB XFS, which grows online; below it ext4, which does not. Claims of `wal-immediate` get
/// theirs at once.
#[derive(Debug)]
pub struct Cluster {
    connection: Connection,
    supervisor: Supervisor,
    host: Ipv4Addr,
    folder: PathBuf,
}

impl Cluster {
    /// Starts a cluster that has the images of [`images::all`].
    ///
    /// # Errors
    /// Without root or the programs, and when one of them does not start; with the end of their logs.
    pub async fn start() -> Result<Self> {
        Self::with_images(images::all()?).await
    }

    /// Starts a cluster that has the images of these archives; the first is that of pods without containers,
    /// [`images::PAUSE`].
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn with_images(images: Vec<PathBuf>) -> Result<Self> {
        if let Some(why) = tools::why_no_node() {
            anyhow::bail!("{why}");
        }
        let tools = tools::folder()?;
        let spec =
            Spec { tools: tools.clone(), parent: binaries::clusters(), emulated: None, kind: Kind::Node { images } };
        let (supervisor, ready) = Supervisor::start(spec).await?;
        let connection = Connection::read(&ready.kubeconfig, &tools).await?;
        Ok(Self { connection, supervisor, host: ready.host, folder: ready.folder })
    }

    /// The cluster that all tests of this program share; it ends with the program. `None` where none can run, which is
    /// then said for `test`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn shared_or_skip(test: &str) -> Option<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        if let Some(why) = tools::why_no_node() {
            skipped(test, &why);
            return None;
        }
        Some(SHARED.get_or_init(|| async { Self::start().await.expect("a cluster") }).await)
    }

    /// This machine's address for the cluster: pods and the API server reach a test's own servers here.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        self.host
    }

    /// Whatever is of the cluster; logs are in `node1/log/`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Imports an image archive into all nodes.
    ///
    /// # Errors
    /// When it is none.
    pub async fn import(&self, archive: &Path) -> Result<()> {
        self.supervisor.order(Order::Import { archive: archive.to_owned() }).await.map(drop)
    }

    /// Starts a second node, `node2`, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, or is there already.
    pub async fn add_node(&self) -> Result<()> {
        self.supervisor.order(Order::AddNode).await.map(drop)
    }

    /// Cuts a node's power: SIGKILL for all its processes at once, those of the pods included. `node1` takes the
    /// control plane with it.
    ///
    /// What they have written stays: a page cache does not die with processes.
    ///
    /// # Errors
    /// When there is no such node, or it is off.
    pub async fn power_off(&self, node: &str) -> Result<()> {
        self.supervisor.order(Order::PowerOff { node: node.to_owned() }).await.map(drop)
    }

    /// Starts a node whose power was cut, on the same disks, and waits until it is ready under its new boot id. Pods
    /// may still look as before the cut for some seconds: await a changed restart count, not readiness.
    ///
    /// # Errors
    /// When there is no such node, it is on, or it does not start.
    pub async fn power_on(&self, node: &str) -> Result<()> {
        self.supervisor.order(Order::PowerOn { node: node.to_owned() }).await.map(drop)
    }

    /// Cuts a node's power and starts it again: [`Cluster::power_off`], [`Cluster::power_on`].
    ///
    /// # Errors
    /// As these.
    pub async fn power_cut(&self, node: &str) -> Result<()> {
        self.power_off(node).await?;
        self.power_on(node).await
    }

    /// Kills a node's kubelet, which is started again at once. Containers keep running.
    ///
    /// # Errors
    /// When there is no such node, or it is off.
    pub async fn restart_kubelet(&self, node: &str) -> Result<()> {
        self.supervisor.order(Order::RestartKubelet { node: node.to_owned() }).await.map(drop)
    }

    /// Kills the processes of a pod, given its uid, whose name begins with `name` (of which the kernel keeps 15 letters):
    /// SIGKILL, as the kernel does when memory is short.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill(&self, node: &str, pod_uid: &str, name: &str) -> Result<()> {
        // Control groups of a pod are named after its uid, with dashes or underscores.
        let pattern = pod_uid.replace('-', "[-_]");
        let script = format!(
            "killed=; for process in /proc/[0-9]*; do \
             grep -q '{pattern}' $process/cgroup 2>/dev/null || continue; \
             case $(cat $process/comm) in {name}*) kill -KILL ${{process#/proc/}}; killed=1;; esac; \
             done; [ -n \"$killed\" ]"
        );
        self.run(node, &script).await.map(drop)
    }

    /// Runs a script of `sh` as root in a node's namespaces and returns its output. Volumes are at
    /// `/var/lib/volumes/<name of the PersistentVolume>`.
    ///
    /// # Errors
    /// With its standard error when it fails.
    pub async fn run(&self, node: &str, script: &str) -> Result<String> {
        self.supervisor.order(Order::Run { node: node.to_owned(), script: script.to_owned() }).await
    }
}

impl Deref for Cluster {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}
