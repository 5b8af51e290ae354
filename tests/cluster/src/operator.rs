//! The operator under test: the real program, against the API server of a test.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::binaries::program;
use crate::gateway::Gateway;
use crate::{Connection, eventually, process};

/// How much it logs, unless its arguments say so.
const LOG: &str = "debug,h2=info,hyper=info,kube=info,tower=info,rustls=info";

/// A running `walstorage-operator`. Killed and reaped on drop, and killed at the end of the test program where it is
/// shared and never dropped.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    health: SocketAddr,
    folder: TempDir,
}

impl Operator {
    /// Starts a long-running command as an administrator, or as `user`, with `args` besides. Its own namespace is
    /// `namespace`; its timers are short.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(
        command: &str,
        connection: &Connection,
        namespace: &str,
        user: Option<&str>,
        args: &[&str],
    ) -> Result<Self> {
        let speaker = user.map_or(Speaker::Administrator, Speaker::For);
        Self::launch(command, connection, None, namespace, speaker, args)
    }

    /// The same, by the token of a service account, as in a pod.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn by_token(
        command: &str,
        connection: &Connection,
        namespace: &str,
        token: &str,
        args: &[&str],
    ) -> Result<Self> {
        Self::launch(command, connection, None, namespace, Speaker::Token(token), args)
    }

    /// The same, behind a gateway instead of at the API server's own door.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn behind(
        gateway: &Gateway,
        command: &str,
        connection: &Connection,
        namespace: &str,
        user: Option<&str>,
        args: &[&str],
    ) -> Result<Self> {
        let speaker = user.map_or(Speaker::Administrator, Speaker::For);
        Self::launch(command, connection, Some(gateway), namespace, speaker, args)
    }

    fn launch(
        command: &str,
        connection: &Connection,
        gateway: Option<&Gateway>,
        namespace: &str,
        speaker: Speaker<'_>,
        args: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        speak_as(connection.kubeconfig(), gateway, speaker, &kubeconfig)?;
        let health = free_address()?;
        let log = File::create(folder.path().join("log"))?;
        let mut operator = process::tied(&program("walstorage-operator"));
        operator
            .arg(command)
            .args(["--namespace", namespace, "--health", &health.to_string(), "--log-format", "text"])
            .args(if args.contains(&"--log") { &[][..] } else { &["--log", LOG] })
            .args(args)
            .env("KUBECONFIG", &kubeconfig)
            .env("HOSTNAME", command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = process::for_life(operator).context("the operator does not start")?;
        Ok(Self { child, health, folder })
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Panics
    /// As soon as it has ended, and when it is not ready in time; with the end of its log.
    pub async fn ready(&mut self) {
        if let Err(ended) = self.try_ready().await {
            panic!("{ended}");
        }
    }

    /// [`Operator::ready`] for a program that may end.
    ///
    /// # Errors
    /// As soon as it has ended; with the end of its log.
    ///
    /// # Panics
    /// When it runs and is not ready in time.
    pub async fn try_ready(&mut self) -> Result<()> {
        let address = self.health;
        let ended = eventually("the operator is ready", || {
            // Whoever answers there is another one then.
            let ended = self.child.try_wait().ok().flatten();
            async move {
                match (ended, get(address, "/readyz").await) {
                    (Some(ended), _) => Ok(Some(ended)),
                    (None, Ok((200, _))) => Ok(None),
                    (None, Ok((status, body))) => bail!("{status}: {body}"),
                    (None, Err(error)) => Err(error),
                }
            }
        })
        .await;
        let ended = ended.or(self.child.try_wait()?);
        ended.map_or(Ok(()), |status| bail!("the operator ended: {status}\n{}", self.last_lines()))
    }

    /// The end of its log.
    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Asks its port of health and metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.health, path).await
    }

    /// The value of a metric with these labels; nothing when there is none.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, series: &str) -> Result<Option<f64>> {
        let (_, body) = self.get("/metrics").await?;
        let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Ok(line.and_then(|value| value.parse().ok()))
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it is, as on a machine that hangs: its connections stand, and nobody answers.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(rustix::process::Signal::CONT)
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        Ok(rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)?)
    }

    /// Ends it as a kubelet does, and returns its exit code.
    ///
    /// # Errors
    /// When it was ended by a signal, or cannot be waited for.
    pub fn stop(mut self) -> Result<i32> {
        self.signal(rustix::process::Signal::TERM)?;
        self.child.wait()?.code().context("a signal ended it")
    }

    /// Kills it, as a power cut would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the end of the operator's log:\n{}", self.last_lines());
        }
    }
}

/// Who a program is to the API server.
#[derive(Clone, Copy)]
enum Speaker<'a> {
    /// An administrator, by a certificate.
    Administrator,
    /// An administrator who speaks for this user.
    For(&'a str),
    /// The service account of this token.
    Token(&'a str),
}

/// An administrator's kubeconfig, or one made of it for somebody else, perhaps through a gateway.
fn speak_as(from: &Path, gateway: Option<&Gateway>, speaker: Speaker<'_>, to: &PathBuf) -> Result<()> {
    let text = std::fs::read_to_string(from)?;
    let mut config: Value = serde_yaml::from_str(&text)?;
    if let Some(gateway) = gateway {
        for entry in config["clusters"].as_array_mut().context("a kubeconfig has clusters")? {
            entry["cluster"] = json!({"server": gateway.url()});
        }
        // The gateway has the administrator's key.
        for entry in config["users"].as_array_mut().context("a kubeconfig has users")? {
            entry["user"] = json!({});
        }
    }
    for entry in config["users"].as_array_mut().context("a kubeconfig has users")? {
        match speaker {
            Speaker::Administrator => {}
            Speaker::For(user) => {
                entry["user"]["as"] = json!(user);
                entry["user"]["as-groups"] = json!(["system:serviceaccounts", "system:authenticated"]);
            }
            Speaker::Token(token) => entry["user"] = json!({"token": token}),
        }
    }
    // JSON is YAML.
    std::fs::write(to, config.to_string())?;
    Ok(())
}

/// An address that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_ends_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo no such cluster >&2; exit 3"]);
        command.stderr(File::create(folder.path().join("log")).unwrap());
        let child = process::for_life(command).unwrap();
        let mut operator = Operator { child, health: free_address().unwrap(), folder };
        let said = operator.try_ready().await.unwrap_err().to_string();
        assert!(said.contains("exit status: 3") && said.contains("no such cluster"), "{said}");
    }
}
