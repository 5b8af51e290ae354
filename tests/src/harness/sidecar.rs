//! A sidecar process under test.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use walstorage_sidecar::proto::{GetStatusRequest, Status};

use super::{DEADLINE, Namespace, Setup, binaries, eventually, grpc, http};

/// A sidecar on its own folders; killed when dropped.
pub struct Sidecar {
    /// What it was started with; may be changed between two starts.
    pub setup: Setup,
    child: Option<Child>,
    starts: usize,
    namespace: Option<Namespace>,
}

impl Sidecar {
    /// A sidecar that is not started yet.
    #[must_use]
    pub const fn new(setup: Setup) -> Self {
        Self { setup, child: None, starts: 0, namespace: None }
    }

    /// Runs its processes where these mounts are.
    #[must_use]
    pub fn within(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Where its processes run.
    #[must_use]
    pub const fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    /// Starts a process and waits until it serves.
    pub async fn ready(setup: Setup) -> Self {
        let mut sidecar = Self::new(setup);
        sidecar.start();
        sidecar.wait_ready().await;
        sidecar
    }

    /// Starts a process and returns at once.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs");
        self.starts += 1;
        let log = File::create(self.log_path()).expect("a log file");
        let child = self
            .command()
            .arg("serve")
            .arg("--config")
            .arg(self.setup.write())
            .env("WALSTORAGE_LOG", "info,walstorage_sidecar=debug")
            .envs(self.setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log twice"))
            .stderr(log)
            .spawn()
            .expect("the sidecar starts");
        self.child = Some(child);
    }

    fn command(&self) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.command(&binaries::sidecar()),
            None => Command::new(binaries::sidecar()),
        }
    }

    fn log_path(&self) -> PathBuf {
        self.setup.path(&format!("log.{}", self.starts))
    }

    /// What the latest process printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.kill_while(|| {});
    }

    /// Sends SIGKILL, does what it takes for the process to leave its calls, and waits for the end.
    pub fn kill_while(&mut self, release: impl FnOnce()) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("SIGKILL is sent");
        release();
        child.wait().expect("it ends");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().expect("it runs"));
        kill_process(pid, signal).expect("the signal is sent");
    }

    /// Sends SIGTERM and waits for a clean end.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.exit().await;
        assert_eq!(status.code(), Some(0), "a clean stop; {}", self.log());
    }

    /// Waits until the process ends by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        let ended = tokio::time::timeout(DEADLINE, async {
            loop {
                ticks.tick().await;
                if let Some(status) = child.try_wait().expect("its state") {
                    return status;
                }
            }
        });
        match ended.await {
            Ok(status) => status,
            Err(_) => {
                child.kill().expect("SIGKILL is sent");
                panic!("the sidecar did not end in {DEADLINE:?}\n{}", self.log());
            }
        }
    }

    /// Kills it, starts it again and waits until it serves.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.start();
        self.wait_ready().await;
    }

    /// Stops it cleanly, starts it again and waits until it serves.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start();
        self.wait_ready().await;
    }

    /// Waits until the status satisfies `holds`, and answers it. Panics with the log when the process ends before.
    pub async fn wait_status(&mut self, what: &str, holds: impl Fn(&Status) -> bool) -> Status {
        let started = std::time::Instant::now();
        let mut last = String::from("no answer");
        let mut ticks = tokio::time::interval(Duration::from_millis(3));
        loop {
            ticks.tick().await;
            if let Some(status) = self.child.as_mut().expect("it runs").try_wait().expect("its state") {
                panic!("the sidecar ended ({status}) before {what}\n{}", self.log());
            }
            if UnixStream::connect(self.setup.socket()).await.is_ok() {
                match self.grpc().get_status(GetStatusRequest {}).await {
                    Ok(status) if holds(status.get_ref()) => return status.into_inner(),
                    Ok(status) => last = format!("{:#?}", status.into_inner()),
                    Err(error) => last = error.to_string(),
                }
            }
            assert!(started.elapsed() < DEADLINE, "{what}: not in {DEADLINE:?}; last: {last}\n{}", self.log());
        }
    }

    /// Waits until it serves.
    pub async fn wait_ready(&mut self) -> Status {
        self.wait_status("ready", |status| status.phase == "ready").await
    }

    /// The status now.
    pub async fn status(&self) -> Status {
        self.grpc().get_status(GetStatusRequest {}).await.expect("a status").into_inner()
    }

    /// A gRPC client, connected at its first call.
    #[must_use]
    pub fn grpc(&self) -> grpc::Client {
        grpc::connect(&self.setup.socket())
    }

    /// An HTTP/1.1 connection.
    pub async fn http(&self) -> http::Connection {
        let socket = self.setup.socket();
        eventually("an HTTP connection", || async { http::Connection::open(&socket).await.ok() }).await
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- the sidecar's last lines");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
