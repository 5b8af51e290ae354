//! Daemons that cannot outlive who started them.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// A process with its log; killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program`, which dies with this thread. So only the main thread of a supervisor may call this.
    ///
    /// `cgroup` is a control group of [`crate::supervisor::cgroup`] to put it into.
    pub(crate) fn start<A: AsRef<OsStr>>(
        name: &str,
        cgroup: Option<&str>,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        logs: &Path,
    ) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("tied").arg(std::process::id().to_string());
        if let Some(cgroup) = cgroup {
            command.args(["--cgroup", cgroup]);
        }
        let child = command
            .arg("--")
            .arg(program)
            .args(args)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of the log when the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, tail(&self.log)),
        }
    }

    /// Kills the process and waits for its end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Becomes `command`, to be killed as soon as the thread of `parent` that started this process ends.
///
/// # Errors
/// When that is already so, or `command` cannot be run.
pub fn tie(parent: i32, cgroup: Option<&str>, command: &[String]) -> Result<std::convert::Infallible> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the line above.
    if getppid() != Pid::from_raw(parent) {
        bail!("process {parent} has ended");
    }
    if let Some(cgroup) = cgroup {
        crate::supervisor::cgroup::enter(cgroup)?;
    }
    let (program, args) = command.split_first().context("no command")?;
    Err(Command::new(program).args(args).exec()).with_context(|| format!("cannot run {program}"))
}

/// A command that runs `program` so that it dies with the thread that spawns it: to be spawned by [`for_life`].
#[must_use]
pub(crate) fn tied(program: &Path) -> Command {
    let mut command = Command::new(crate::binaries::program("walstorage-cluster"));
    command.arg("tied").arg(std::process::id().to_string()).arg("--").arg(program);
    command
}

/// Spawns a command of [`tied`] on a thread that ends with this process only. What a test holds in a static is never
/// dropped, and the thread of a test ends before others that share it.
pub(crate) fn for_life(command: Command) -> Result<Child> {
    type Order = (Command, SyncSender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receive {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(send)
    });
    let (answer, spawned) = sync_channel(1);
    spawner.lock().expect("no holder panics").send((command, answer)).context("the spawning thread has ended")?;
    Ok(spawned.recv()??)
}

/// Runs a program of the system to its end.
///
/// # Errors
/// With its standard error when it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}: {}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
