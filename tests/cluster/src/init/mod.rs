//! The init process of a node: makes its namespaces a machine of its own, then reaps.
//!
//! 1. Nothing of the host changes: mounts are private, kernel tunables that a kubelet writes are files of the node, and
//!    `/run` and `/var` are its own.
//! 2. What was on a node's disks is there again after its power was cut: `/var` is in the cluster's folder, and volumes
//!    are mounted before a kubelet could start a pod on the bare folders.
//! 3. When it ends, the kernel ends every process and mount of the node.

mod boot;
mod files;
mod mounts;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rustix::process::{WaitOptions, wait};
use serde::{Deserialize, Serialize};

use crate::network::Block;

pub use boot::boot;

/// A node as it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Its number, from 1; the first also runs the control plane.
    pub(crate) node: u8,
    pub(crate) name: String,
    pub(crate) block: Block,
    /// The cluster's folder.
    pub(crate) cluster: PathBuf,
    /// The folder of the built programs.
    pub(crate) tools: PathBuf,
    /// The folder of the network plugins.
    pub(crate) plugins: String,
    /// How many image archives to import.
    pub(crate) images: usize,
    /// The API version to emulate.
    pub(crate) emulated: Option<String>,
    /// What the node says that its kernel's boot id is; a new one for each start.
    pub(crate) boot_id: String,
}

impl Plan {
    /// The node's folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.cluster.join(&self.name)
    }
}

/// Runs as the first process of a node's namespaces.
///
/// # Errors
/// When they cannot be made, and when the node's start fails.
pub fn run(plan: &Path) -> Result<Infallible> {
    let text = std::fs::read_to_string(plan).with_context(|| format!("{}", plan.display()))?;
    let plan: Plan = serde_json::from_str(&text)?;
    mounts::make(&plan)?;
    // A process of its own, as waiting for everybody's children would take those of others.
    let boot = Command::new("/proc/self/exe").arg("boot").arg(text).spawn().context("cannot start the node")?;
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((ended, status))) if u32::try_from(ended.as_raw_nonzero().get()) == Ok(boot.id()) => {
                bail!("the node ended: {status:?}");
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
    }
}
