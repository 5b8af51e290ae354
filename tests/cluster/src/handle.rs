//! The supervisor as its owner sees it: a process with a pipe to it. When the pipe closes, which it does whatever ends
//! this process, the supervisor takes the cluster down.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail};

use crate::binaries;
use crate::spec::{Answer, Order, Ready, Spec};

/// A running supervisor; ends with the last clone.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    process: Child,
    /// Only taken by `drop`.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Supervisor {
    /// Starts a supervisor and waits until its cluster can be used.
    pub(crate) async fn start(spec: Spec) -> Result<(Self, Ready)> {
        tokio::task::spawn_blocking(move || {
            let mut inner = Inner::spawn(&spec)?;
            match inner.answer()? {
                Answer::Ready(ready) => Ok((Self(Arc::new(Mutex::new(inner))), ready)),
                Answer::Failed(why) => bail!("the cluster did not start: {why}"),
                Answer::Done(_) => bail!("the supervisor says done before it was asked"),
            }
        })
        .await?
    }

    /// Has an order carried out; returns what it printed.
    pub(crate) async fn order(&self, order: Order) -> Result<String> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let mut inner = inner.lock().expect("no holder panics");
            inner.order(&order)
        })
        .await?
    }
}

impl Inner {
    fn spawn(spec: &Spec) -> Result<Self> {
        let mut process = Command::new(binaries::program("walstorage-cluster"))
            .arg("supervise")
            .arg(serde_json::to_string(spec)?)
            // Ctrl-C on a terminal reaches the owner, who then ends the cluster in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the supervisor")?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().context("no output")?;
        Ok(Self { process, orders, answers: BufReader::new(answers) })
    }

    fn order(&mut self, order: &Order) -> Result<String> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        let orders = self.orders.as_mut().context("the supervisor is ending")?;
        orders.write_all(line.as_bytes()).context("the supervisor has ended")?;
        match self.answer()? {
            Answer::Done(output) => Ok(output),
            Answer::Failed(why) => bail!("{order:?}: {why}"),
            Answer::Ready(_) => bail!("the supervisor says ready twice"),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the supervisor has ended: {}", self.process.wait()?);
        }
        Ok(serde_json::from_str(&line)?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}
