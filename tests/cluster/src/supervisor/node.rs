//! Nodes: each a set of namespaces with an init process of ours, which [`crate::init`] is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kube::Client;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::cgroup::Cgroup;
use super::link::Link;
use super::{ready, volumes};
use crate::init::Plan;
use crate::network::{Block, NODES};
use crate::pki::{NodeName, Pki};
use crate::process::Daemon;
use crate::spec::{Order, Ready, Spec};
use crate::tools;

/// What unshare is asked for: the namespaces of a node. Its end ends the init process and so everything in them.
const UNSHARE: [&str; 11] = [
    "--mount",
    "--net",
    "--pid",
    "--cgroup",
    "--uts",
    "--ipc",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
];

/// A cluster; all of it goes on drop, in the order of the fields.
pub(super) struct Cluster {
    _tasks: JoinSet<()>,
    nodes: Vec<Node>,
    link: Link,
    shell: Shell,
    client: Client,
    folder: PathBuf,
    tools: PathBuf,
    emulated: Option<String>,
    /// How many archives are in its folder.
    images: usize,
}

impl Cluster {
    pub(super) async fn start(spec: &Spec, folder: &Path, images: &[PathBuf]) -> Result<(Self, Ready)> {
        let link = Link::create()?;
        let block = link.block();
        let server = format!("https://{}:6443", block.node(1));
        let pki = folder.join("pki");
        let nodes: Vec<NodeName> =
            (1..=NODES).map(|node| NodeName { name: name(node), address: block.node(node).to_string() }).collect();
        let addresses = ["127.0.0.1".to_owned(), block.node(1).to_string(), block.first_service().to_string()];
        Pki::create(&pki, &server, &addresses, &nodes)?;
        let kubeconfig = pki.join("admin.kubeconfig");
        fs::create_dir_all(folder.join("images"))?;
        let mut cluster = Self {
            _tasks: JoinSet::new(),
            nodes: vec![Node::new(1, block)],
            link,
            shell: Shell::default(),
            client: ready::client(&kubeconfig).await?,
            folder: folder.to_owned(),
            tools: spec.tools.clone(),
            emulated: spec.emulated.clone(),
            images: 0,
        };
        for image in images {
            cluster.keep(image)?;
        }
        cluster.power_on(0).await?;
        ready::wait("pods can be made", || Ok(()), || ready::accounts(&cluster.client)).await?;
        volumes::create_classes(&cluster.client).await?;
        let log = folder.join("volumes.log");
        cluster._tasks.spawn(volumes::provide(cluster.client.clone(), cluster.shell.clone(), log));
        Ok((cluster, Ready { folder: folder.to_owned(), kubeconfig, host: block.host() }))
    }

    pub(super) async fn obey(&mut self, order: Order) -> Result<String> {
        match order {
            Order::Import { archive } => {
                for index in 0..self.nodes.len() {
                    self.import(&self.nodes[index].name, &archive).await?;
                }
                self.keep(&archive)?;
            }
            Order::AddNode => {
                let number = u8::try_from(self.nodes.len() + 1)?;
                if number > NODES {
                    bail!("a cluster has at most {NODES} nodes");
                }
                self.nodes.push(Node::new(number, self.link.block()));
                self.power_on(self.nodes.len() - 1).await?;
            }
            Order::PowerOff { node } => {
                let index = self.find(&node)?;
                self.shell.forget(&node);
                self.nodes[index].running.take().with_context(|| format!("{node} is off"))?;
            }
            Order::PowerOn { node } => {
                let index = self.find(&node)?;
                self.power_on(index).await?;
            }
            Order::RestartKubelet { node } => {
                self.shell.run(&node, "kill -KILL $(cat /run/kubelet.pid)").await?;
            }
            Order::Run { node, script } => return self.shell.run(&node, &script).await,
        }
        Ok(String::new())
    }

    /// Puts an image into the cluster's folder, where nodes that start find it, whatever becomes of the original.
    fn keep(&mut self, archive: &Path) -> Result<()> {
        let target = self.folder.join(format!("images/{}.tar", self.images));
        fs::hard_link(archive, &target)
            .or_else(|_| fs::copy(archive, &target).map(drop))
            .with_context(|| format!("cannot copy {}", archive.display()))?;
        self.images += 1;
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize> {
        self.nodes.iter().position(|node| node.name == name).with_context(|| format!("there is no node {name}"))
    }

    async fn import(&self, node: &str, archive: &Path) -> Result<()> {
        let input = fs::File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
        // Through a pipe, as the file may be where the node has a folder of its own.
        self.shell.run_with(node, "ctr -n k8s.io images import -", input.into()).await.map(drop)
    }

    async fn power_on(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        if node.running.is_some() {
            bail!("{} is on", node.name);
        }
        let boot_id = uuid::Uuid::new_v4().to_string();
        let plan = Plan {
            node: node.number,
            name: node.name.clone(),
            block: self.link.block(),
            cluster: self.folder.clone(),
            tools: self.tools.clone(),
            plugins: tools::network_plugins().context("no network plugins")?.to_owned(),
            images: self.images,
            emulated: self.emulated.clone(),
            boot_id: boot_id.clone(),
        };
        let (mut running, init) = node.start(&plan, &self.link).await?;
        self.shell.know(&node.name, init);
        let alive = || running.process.check();
        ready::wait("the node takes pods", alive, || ready::node(&self.client, &node.name, Some(&boot_id))).await?;
        node.running = Some(running);
        Ok(())
    }
}

fn name(node: u8) -> String {
    format!("node{node}")
}

/// A node, on or off.
struct Node {
    number: u8,
    name: String,
    block: Block,
    running: Option<Machine>,
}

/// The processes of a node; dropping it is the power cut.
struct Machine {
    process: Daemon,
    /// After the processes.
    cgroup: Cgroup,
}

impl Node {
    fn new(number: u8, block: Block) -> Self {
        Self { number, name: name(number), block, running: None }
    }

    /// Starts the init process and returns its id.
    async fn start(&self, plan: &Plan, link: &Link) -> Result<(Machine, u32)> {
        let folder = plan.folder();
        for part in ["log", "var"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let file = folder.join("plan.json");
        fs::write(&file, serde_json::to_string_pretty(plan)?)?;
        let group = format!("{}n{}", self.block.name(), self.number);
        let cgroup = Cgroup::create(&group)?;
        let me = std::env::current_exe()?;
        let args = UNSHARE.map(PathBuf::from).into_iter().chain([me, "init".into(), file]);
        let process = Daemon::start("init", Some(&group), Path::new("unshare"), args, &folder.join("log"))?;
        let mut machine = Machine { process, cgroup };
        let init = machine.init().await?;
        machine.cgroup.set_aside(machine.process.id())?;
        link.attach(self.number, init)?;
        Ok((machine, init))
    }
}

impl Machine {
    /// The init process, once unshare has made it.
    async fn init(&mut self) -> Result<u32> {
        let unshare = self.process.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        loop {
            self.process.check()?;
            // Before it is unshare, this process is ours, without children.
            if let Some(init) = fs::read_to_string(&children)?.split_whitespace().next() {
                return Ok(init.parse()?);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Runs scripts in the namespaces of nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Shell(Arc<Mutex<BTreeMap<String, u32>>>);

impl Shell {
    fn know(&self, node: &str, init: u32) {
        self.0.lock().expect("no holder panics").insert(node.to_owned(), init);
    }

    fn forget(&self, node: &str) {
        self.0.lock().expect("no holder panics").remove(node);
    }

    /// Runs a script of `sh` and returns its output.
    pub(super) async fn run(&self, node: &str, script: &str) -> Result<String> {
        self.run_with(node, script, std::process::Stdio::null()).await
    }

    async fn run_with(&self, node: &str, script: &str, input: std::process::Stdio) -> Result<String> {
        let init = self.0.lock().expect("no holder panics").get(node).copied();
        let init = init.with_context(|| format!("{node} is not on"))?;
        let output = Command::new("nsenter")
            .args(["--target", &init.to_string(), "--mount", "--net", "--pid", "--uts", "--ipc", "--", "sh", "-ec"])
            .arg(script)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(input)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run nsenter")?;
        if !output.status.success() {
            bail!("{script}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
