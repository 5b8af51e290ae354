//! The file systems, the network and the name of a node.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use super::Plan;
use super::files::{CACHE, CLUSTER, NODE};
use crate::network::NODES;
use crate::process::run;

/// Kernel tunables that a kubelet sets, and the values that it wants. They are the host's: the node gets files instead,
/// and finds them in order.
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

pub(super) fn make(plan: &Plan) -> Result<()> {
    fs::write("/proc/sys/kernel/hostname", &plan.name)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // The network devices of this namespace.
    file_system("sysfs", "/sys", "")?;
    control_groups()?;
    folders(plan)?;
    kernel(plan)?;
    // Containers get mounts from the kubelet.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    volumes()?;
    network(plan)
}

fn file_system(kind: &str, target: impl AsRef<Path>, options: &str) -> Result<()> {
    let target = target.as_ref();
    let data = std::ffi::CString::new(options)?;
    mount(kind, target, kind, MountFlags::empty(), data.as_c_str())
        .with_context(|| format!("cannot mount {kind} {options} at {}", target.display()))
}

/// The node's own group is the root of all.
fn control_groups() -> Result<()> {
    const ROOT: &str = "/sys/fs/cgroup";
    // Mounting version 1 anew names its trees as this process sees them in /proc.
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let trees: Vec<&str> =
        text.lines().filter_map(|line| line.split(':').nth(1)).filter(|tree| !tree.is_empty()).collect();
    if trees.is_empty() {
        file_system("cgroup2", ROOT, "")?;
        // A group with processes may not give its controllers to groups below it. One is outside of these namespaces,
        // where it has no number; the supervisor moves it.
        let init = Path::new(ROOT).join("init");
        fs::create_dir(&init)?;
        loop {
            let processes = fs::read_to_string(Path::new(ROOT).join("cgroup.procs"))?;
            if processes.trim().is_empty() {
                break;
            }
            for process in processes.lines().filter(|process| *process != "0") {
                fs::write(init.join("cgroup.procs"), process)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        for controller in fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"))?.split_whitespace() {
            fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
        return Ok(());
    }
    file_system("tmpfs", ROOT, "mode=755")?;
    for tree in trees {
        let (name, options) = match tree.strip_prefix("name=") {
            Some(name) => (name, format!("none,{tree}")),
            None => (tree, tree.to_owned()),
        };
        let target = Path::new(ROOT).join(name);
        fs::create_dir(&target)?;
        file_system("cgroup", &target, &options)?;
        for controller in name.split(',').filter(|controller| *controller != name) {
            std::os::unix::fs::symlink(name, Path::new(ROOT).join(controller))?;
        }
    }
    Ok(())
}

/// `/run` and `/var` are the node's own. What it needs of the host gets a fixed place, wherever it was.
fn folders(plan: &Plan) -> Result<()> {
    let opened = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let cluster = opened(&plan.cluster)?;
    let cache = opened(plan.tools.parent().context("the tools have a folder")?)?;
    file_system("tmpfs", "/run", "mode=755")?;
    for (folder, target) in [(&cluster, CLUSTER), (&cache, CACHE)] {
        fs::create_dir_all(target)?;
        // By its descriptor: its path may be below what is now hidden.
        mount_bind(format!("/proc/self/fd/{}", folder.as_raw_fd()), target)
            .with_context(|| format!("cannot bind {target}"))?;
    }
    fs::create_dir_all(NODE)?;
    mount_bind(Path::new(CLUSTER).join(&plan.name), NODE)?;
    let var = Path::new(NODE).join("var");
    for folder in ["log", "lib/kubelet", "lib/containerd", "lib/volumes", "cache", "tmp"] {
        fs::create_dir_all(var.join(folder))?;
    }
    if !var.join("run").is_symlink() {
        std::os::unix::fs::symlink("/run", var.join("run"))?;
    }
    mount_bind(&var, "/var")?;
    for folder in ["/run/lock", "/run/netns", "/run/kernel"] {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

fn kernel(plan: &Plan) -> Result<()> {
    let fake = |name: &str, value: &str, target: PathBuf| {
        let file = Path::new("/run/kernel").join(name.replace('/', "_"));
        fs::write(&file, format!("{value}\n"))?;
        mount_bind(&file, &target).with_context(|| format!("cannot hide {}", target.display()))
    };
    for (name, value) in TUNABLES {
        fake(name, value, Path::new("/proc/sys").join(name))?;
    }
    fake("boot_id", &plan.boot_id, "/proc/sys/kernel/random/boot_id".into())
}

fn volumes() -> Result<()> {
    for entry in fs::read_dir("/var/lib/volumes")? {
        let image = entry?.path();
        if image.extension().is_some_and(|extension| extension == "img") {
            let target = image.with_extension("");
            run("mount", &["-o", "loop", &image.display().to_string(), &target.display().to_string()])?;
        }
    }
    Ok(())
}

fn network(plan: &Plan) -> Result<()> {
    let block = plan.block;
    run("ip", &["link", "set", "lo", "up"])?;
    // The supervisor gives it once this namespace is there.
    while !Path::new("/sys/class/net/eth0").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    run("ip", &["addr", "add", &format!("{}/24", block.node(plan.node)), "dev", "eth0"])?;
    run("ip", &["link", "set", "eth0", "up"])?;
    run("ip", &["route", "add", "default", "via", &block.host().to_string()])?;
    for other in (1..=NODES).filter(|other| *other != plan.node) {
        run("ip", &["route", "add", &block.pods(other), "via", &block.node(other).to_string()])?;
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // Services of pods on the same node are then also translated; kernels without the module do that anyway.
    let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tunables_are_of_this_kernel() {
        for (name, _) in TUNABLES {
            assert!(Path::new("/proc/sys").join(name).exists(), "{name}");
        }
        // Where both are mounted, version 1 has the controllers.
        assert!(
            crate::supervisor::cgroup::is_version_2()
                || fs::read_to_string("/proc/self/cgroup").unwrap().contains("memory")
        );
    }
}
