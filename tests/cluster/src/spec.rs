//! What a test asks its supervisor for, and what they tell each other: one JSON value per line, orders on the
//! supervisor's standard input, answers on its output.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The cluster that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The folder with the built programs.
    pub(crate) tools: PathBuf,
    /// The folder in which the cluster makes its own.
    pub(crate) parent: PathBuf,
    /// The API version to emulate, like `1.34`.
    pub(crate) emulated: Option<String>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    ControlPlane {
        /// Also the controller manager and the scheduler.
        controllers: bool,
        /// Nodes that exist on paper.
        nodes: usize,
        /// Whether pods bound to those nodes are reported as running, and as gone once deleted.
        run_pods: bool,
        binder: Binder,
    },
    Node {
        /// Archives to import before the node is ready; the first holds the pause image.
        images: Vec<PathBuf>,
    },
}

/// Who binds claims to volumes on paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Binder {
    /// Who makes the volumes, and the controller manager, which comes to each claim a moment later.
    #[default]
    All,
    /// Only who makes the volumes.
    Maker,
}

/// What a cluster is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Import an image.
    Import { archive: PathBuf },
    /// Start a second node.
    AddNode,
    /// Kill all processes of a node at once and leave it off.
    PowerOff { node: String },
    /// Start a node that is off, and wait until it is ready.
    PowerOn { node: String },
    /// Kill the kubelet; it is started again at once.
    RestartKubelet { node: String },
    /// Run a shell script in a node's namespaces.
    Run { node: String, script: String },
}

/// What a supervisor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The cluster can be used.
    Ready(Ready),
    /// An order was carried out; for `Run`, the output.
    Done(String),
    /// The cluster did not start, or an order was not carried out.
    Failed(String),
}

/// Where a cluster is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) folder: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    /// This machine as the cluster sees it.
    pub(crate) host: Ipv4Addr,
}
