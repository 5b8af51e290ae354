//! A control plane without nodes: for what needs an API server, and controllers, but no running pod.

use std::ops::Deref;

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::connection::Connection;
use crate::handle::Supervisor;
use crate::spec::{Binder, Kind, Spec};
use crate::{binaries, tools};

/// etcd and an API server with ports and certificates of their own. Taken down on drop.
///
/// Its methods are those of [`Connection`].
#[derive(Debug)]
pub struct ControlPlane {
    connection: Connection,
    _supervisor: Supervisor,
}

/// What a control plane is made of.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    emulated: Option<String>,
    controllers: bool,
    nodes: usize,
    run_pods: bool,
    binder: Binder,
}

impl Builder {
    /// Has the API server behave like an older version, like `1.34`.
    pub fn emulated(mut self, version: &str) -> Self {
        self.emulated = Some(version.to_owned());
        self
    }

    /// Also runs the controller manager and the scheduler: workloads make pods, and claims of class `wal` get volumes,
    /// on paper.
    pub fn controllers(mut self) -> Self {
        self.controllers = true;
        self
    }

    /// Registers `count` nodes `node1`, `node2`, … that exist on paper and stay ready; pods are bound to them, and
    /// their status is the test's to write.
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes = count;
        self
    }

    /// Reports pods that are bound to those nodes as running, and removes them once they are deleted, as a kubelet
    /// would.
    pub fn run_pods(mut self) -> Self {
        self.run_pods = true;
        self
    }

    /// Has `binder` bind claims to volumes. Where that is not the controller manager, no claim is Lost and no volume Released.
    pub fn binder(mut self, binder: Binder) -> Self {
        self.binder = binder;
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When the programs are not there, or do not start; with the end of their logs.
    pub async fn start(self) -> Result<ControlPlane> {
        let Self { emulated, controllers, nodes, run_pods, binder } = self;
        let tools = tools::folder()?;
        let kind = Kind::ControlPlane { controllers, nodes, run_pods, binder };
        let spec = Spec { tools: tools.clone(), parent: binaries::clusters(), emulated, kind };
        let (supervisor, ready) = Supervisor::start(spec).await?;
        let connection = Connection::read(&ready.kubeconfig, &tools).await?;
        Ok(ControlPlane { connection, _supervisor: supervisor })
    }
}

impl ControlPlane {
    /// Chooses what it is made of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts etcd and an API server.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// The API server that all tests of this program share; it ends with the program.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_init(|| async { Self::start().await.expect("a control plane") }).await
    }
}

impl Deref for ControlPlane {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}
