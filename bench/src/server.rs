//! Servers that a process could append to over a socket, each told to sync before it acknowledges.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use walstorage_sidecar::proto::GetStatusRequest;
use walstorage_tests::harness::{Setup, binaries, free_port, grpc};

use crate::measured::Measured;
use crate::memory;
use crate::wire::protocols::{Ask, Etcd, Nats, Redis, Wal};
use crate::wire::{self, Address, Protocol, Until};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    Redis,
    Etcd,
    Nats,
}

impl Kind {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 4] = [Self::Ours, Self::Redis, Self::Etcd, Self::Nats];

    /// As the report shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "**our sidecar**, gRPC streams",
            Self::Redis => "Redis, `appendfsync always`",
            Self::Etcd => "etcd, one member",
            Self::Nats => "NATS JetStream, `sync_interval: always`",
        }
    }

    /// Its program: below `peers`, else on the path.
    fn program(self, peers: &Path) -> PathBuf {
        let name = match self {
            Self::Ours => return binaries::sidecar(),
            Self::Redis => "redis-server",
            Self::Etcd => "etcd",
            Self::Nats => "nats-server",
        };
        let built = peers.join(name);
        if built.exists() { built } else { PathBuf::from(name) }
    }

    /// The first line of its `--version`; `None`: it is not on this machine.
    pub(crate) fn version(self, peers: &Path) -> Option<String> {
        let output = Command::new(self.program(peers)).arg("--version").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
    }

    /// What client `number` says to it.
    pub(crate) fn protocol(self, number: usize, collections: usize) -> Box<dyn Protocol> {
        match self {
            Self::Ours => Box::new(Wal::new(number, collections)),
            Self::Redis => Box::new(Redis::new()),
            Self::Etcd => Box::new(Etcd::new(number)),
            Self::Nats => Box::new(Nats::new(number)),
        }
    }
}

/// A running server, ended when dropped.
pub(crate) struct Server {
    kind: Kind,
    child: Child,
    address: Address,
    /// Another program runs it.
    under: bool,
    /// Of our sidecar.
    setup: Option<Setup>,
}

impl Server {
    /// Starts one on a folder of its own and waits until it takes appends. `prefix`: the program that runs it.
    pub(crate) async fn start(kind: Kind, folder: &Path, peers: &Path, prefix: &[String]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let program = kind.program(peers).to_string_lossy().into_owned();
        let words: Vec<String> = prefix.iter().cloned().chain([program]).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        let socket = folder.join("s");
        let port = free_port();
        let mut setup = None;
        let address = match kind {
            Kind::Ours => {
                let made = crate::setup(folder);
                let address = Address::Unix(made.socket());
                command.arg("serve").arg("--config").arg(made.write()).env("WALSTORAGE_LOG", "warn");
                setup = Some(made);
                address
            }
            Kind::Redis => {
                command.args(["--port", "0", "--unixsocket"]).arg(&socket).arg("--dir").arg(folder);
                command.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
                command.args(["--auto-aof-rewrite-percentage", "0", "--daemonize", "no"]);
                Address::Unix(socket)
            }
            Kind::Etcd => {
                let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
                command.arg("--data-dir").arg(folder.join("etcd")).args(["--name", "one", "--log-level", "error"]);
                command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
                command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
                command.args(["--initial-cluster", &format!("one={peer}"), "--quota-backend-bytes", "8589934592"]);
                Address::Tcp(([127, 0, 0, 1], port).into())
            }
            Kind::Nats => {
                let config = format!(
                    "listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
                    folder.join("nats").display().to_string()
                );
                let path = folder.join("nats.conf");
                std::fs::write(&path, config)?;
                command.arg("--config").arg(path);
                Address::Tcp(([127, 0, 0, 1], port).into())
            }
        };
        let log = File::create(folder.join("log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("{} does not start", kind.name()))?;
        let mut server = Self { kind, child, address, under: !prefix.is_empty(), setup };
        server.wait().await.with_context(|| format!("{}: see {}", kind.name(), folder.join("log").display()))?;
        Ok(server)
    }

    /// The server itself. Under another program, which ends with it, it is that one's child.
    fn process(&self) -> Pid {
        let runner = self.child.id();
        let child = if self.under {
            let children = std::fs::read_to_string(format!("/proc/{runner}/task/{runner}/children"));
            children.ok().and_then(|pids| Pid::from_raw(pids.split_whitespace().next()?.parse().ok()?))
        } else {
            None
        };
        child.unwrap_or_else(|| Pid::from_child(&self.child))
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.is_ready().await? {
            anyhow::ensure!(begun.elapsed() < PATIENCE, "not ready after {PATIENCE:?}");
            anyhow::ensure!(self.child.try_wait()?.is_none(), "it ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> anyhow::Result<bool> {
        if !self.address.answers() {
            return Ok(false);
        }
        match self.kind {
            Kind::Ours => {
                let status = self.grpc()?.get_status(GetStatusRequest {}).await;
                Ok(status.is_ok_and(|status| status.get_ref().phase == "ready"))
            }
            Kind::Redis => Ok(self.ask(&Ask::redis(&["PING"])).is_ok()),
            Kind::Etcd => Ok(self.run(1, 1, 1, Until::Acked(1)).is_ok()),
            Kind::Nats => {
                let stream = r#"{"name":"log","subjects":["log"],"storage":"file","max_bytes":268435456}"#;
                Ok(self.ask(&Ask::nats("$JS.API.STREAM.CREATE.log", stream)).is_ok())
            }
        }
    }

    /// The sidecar's own client.
    pub(crate) fn grpc(&self) -> anyhow::Result<grpc::Client> {
        Ok(grpc::connect(&self.setup.as_ref().context("not ours")?.socket()))
    }

    /// Where it listens, where that is a unix socket.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match &self.address {
            Address::Unix(path) => Some(path),
            Address::Tcp(_) => None,
        }
    }

    /// One request that is no append; answers when it is answered.
    fn ask(&self, ask: &Ask) -> anyhow::Result<Measured> {
        wire::load(&self.address, 1, 1, Until::Acked(1), |_| Box::new(ask.clone()))
    }

    fn run(&self, clients: usize, in_flight: usize, collections: usize, until: Until) -> anyhow::Result<Measured> {
        let (begun, used) = (Instant::now(), memory::cpu(self.child.id())?);
        let protocol = |number| self.kind.protocol(number, collections);
        let measured = wire::load(&self.address, clients, in_flight, until, protocol)?;
        let used = memory::cpu(self.child.id())?.saturating_sub(used);
        Ok(measured.with_cpu(used, begun.elapsed()))
    }

    /// Appends one after the other: when each was handed in and acknowledged, in seconds since 1970.
    pub(crate) fn windows(&self, count: usize) -> anyhow::Result<Vec<(f64, f64)>> {
        // What the first append of a connection prepares is not looked at.
        let windows = wire::times(&self.address, count + 1, self.kind.protocol(0, 1))?;
        Ok(windows.into_iter().skip(1).collect())
    }

    /// A closed loop of appends, and everything that was appended given back.
    pub(crate) async fn load(
        &self,
        clients: usize,
        in_flight: usize,
        collections: usize,
        until: Until,
    ) -> anyhow::Result<Measured> {
        let measured = match self.kind {
            Kind::Ours => {
                let mut client = self.grpc()?;
                crate::ours::create(&mut client, collections).await?;
                // What an application does behind its appends.
                let tidier = tokio::spawn(crate::ours::keep_short(client.clone(), collections));
                let measured = tokio::task::block_in_place(|| self.run(clients, in_flight, collections, until));
                tidier.abort();
                crate::ours::truncate(&mut client, collections, 0).await?;
                measured?
            }
            Kind::Redis | Kind::Etcd | Kind::Nats => {
                tokio::task::block_in_place(|| self.run(clients, in_flight, collections, until))?
            }
        };
        self.clear()?;
        Ok(measured)
    }

    /// Takes from Redis what was appended to it.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        if self.kind == Kind::Redis {
            self.ask(&Ask::redis(&["FLUSHALL"]))?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill_process(self.process(), Signal::TERM);
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(10) {
                let _ = kill_process(self.process(), Signal::KILL);
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
