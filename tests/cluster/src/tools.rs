//! The programs that a cluster is made of: those built from Go modules, and those of the system's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::binaries::repository;

/// What a node needs from the system, and the Debian package of each.
const OF_THE_SYSTEM: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("losetup", "mount"),
    ("xfs_growfs", "xfsprogs"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Where distributions put the network plugins.
const PLUGINS: [&str; 3] = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// The folder of the built programs: `WALSTORAGE_CLUSTER_TOOLS`, else the one that
/// `scripts/setup-cluster-tools.sh` has built.
///
/// # Errors
/// When they are not built yet; the message says how to.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("WALSTORAGE_CLUSTER_TOOLS") {
        return Ok(folder.into());
    }
    let script = repository().join("scripts/setup-cluster-tools.sh");
    let output = Command::new(&script).arg("--cached").output().context("scripts/setup-cluster-tools.sh")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// The folder of the network plugins.
#[must_use]
pub fn network_plugins() -> Option<&'static str> {
    PLUGINS.into_iter().find(|folder| Path::new(folder).join("bridge").exists())
}

/// Debian packages that a node needs and this machine lacks.
#[must_use]
pub fn missing_packages() -> Vec<&'static str> {
    let mut missing: Vec<_> =
        OF_THE_SYSTEM.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if network_plugins().is_none() {
        missing.push("containernetworking-plugins");
    }
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// Why no node can run here; `None` where one can.
#[must_use]
pub fn why_no_node() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a node needs root".to_owned());
    }
    let missing = missing_packages();
    (!missing.is_empty()).then(|| format!("missing packages: {}", missing.join(" ")))
}

fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|folder| Path::new(folder).join(program).exists())
}
