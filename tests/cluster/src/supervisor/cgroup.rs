//! The control group of a node: the root of what its processes see.
//!
//! Version 1 has a tree for each controller, version 2 one for all; a machine with both is of version 1, as only one of
//! them can have a controller.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";

/// A control group in every tree; removed on drop, when its processes are gone.
#[derive(Debug)]
pub(crate) struct Cgroup(String);

impl Cgroup {
    /// Makes the group; what an earlier one of this name left is removed.
    pub(crate) fn create(name: &str) -> Result<Self> {
        remove(name)?;
        for tree in trees()? {
            let group = tree.join(name);
            fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
            // Without these two a group of version 1 may have no process.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read_to_string(tree.join(file))
                    && !is_version_2()
                {
                    fs::write(group.join(file), value)?;
                    fs::write(group.join("cgroup.clone_children"), "1")?;
                }
            }
        }
        if is_version_2() {
            // Those that a kubelet asks for; some may be there already, or not be built into this kernel.
            for controller in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"] {
                let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        Ok(Self(name.to_owned()))
    }

    /// Moves a process that stays outside of the namespaces out of the way: in version 2 a group with processes may not
    /// give its controllers to groups below it. To be called once the namespaces are made, whose root the group is.
    pub(crate) fn set_aside(&self, process: u32) -> Result<()> {
        if !is_version_2() {
            return Ok(());
        }
        let outside = Path::new(ROOT).join(&self.0).join("outside");
        fs::create_dir(&outside)?;
        Ok(fs::write(outside.join("cgroup.procs"), process.to_string())?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Whether this machine has one tree for all controllers.
pub(crate) fn is_version_2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The trees that have a controller, or a name.
fn trees() -> Result<Vec<PathBuf>> {
    if is_version_2() {
        return Ok(vec![PathBuf::from(ROOT)]);
    }
    let mut trees: Vec<PathBuf> = fs::read_dir(ROOT)
        .with_context(|| format!("{ROOT}: no control groups"))?
        .flatten()
        // Those of several controllers have a link for each.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|tree| tree.join("cgroup.procs").exists() && !tree.join("cgroup.controllers").exists())
        .collect();
    trees.sort();
    if trees.is_empty() {
        bail!("no control groups are mounted below {ROOT}");
    }
    Ok(trees)
}

/// Moves this process into the group.
pub(crate) fn enter(name: &str) -> Result<()> {
    for tree in trees()? {
        let file = tree.join(name).join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("cannot enter {}", file.display()))?;
    }
    Ok(())
}

/// Removes the group with all below it. The kernel takes a moment to let go of killed processes, so a busy one is tried
/// again.
fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    for tree in trees()? {
        let group = tree.join(name);
        while let Err(error) = remove_tree(&group) {
            if Instant::now() > deadline {
                bail!("cannot remove {}: {error}", group.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
