//! `wal-app`: the application in the pods of the tests. It speaks HTTP over the sidecar's socket, and shares no code with
//! the sidecar.
//!
//! `append` writes entries with the numbers 1, 2, … to each of its collections and goes on after the highest that all have,
//! with the number as the sequence of its producer, so that a retry is never doubled; each number that was acknowledged for
//! all is a line of its output, and of what it sends to a witness. `check` reads all back and judges. `pause` does nothing,
//! and is what holds the namespaces of a pod.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a person and to tests")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use walstorage_cluster_tests::numbered::Verdict;

/// Between two tries of what may be tried again.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Cli {
    /// The sidecar's socket
    #[arg(long, env = "WALSTORAGE_SOCKET", default_value = "/run/walstorage/wal.sock", global = true)]
    socket: PathBuf,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Append numbered entries, after those that are there
    Append {
        /// Separated by commas; each gets every number
        #[arg(value_delimiter = ',', required = true)]
        collections: Vec<String>,
        /// How many; without it, until the end
        #[arg(long)]
        count: Option<u64>,
        /// Milliseconds between two
        #[arg(long, default_value_t = 0)]
        every: u64,
        /// Bytes of an entry, if its number has less
        #[arg(long, default_value_t = 0)]
        bytes: usize,
        /// Then stay, doing nothing
        #[arg(long)]
        stay: bool,
        /// After SIGTERM go on appending for so many milliseconds
        #[arg(long, default_value_t = 0)]
        linger: u64,
        /// Who is told what was found and acknowledged: host and port
        #[arg(long, env = "WAL_APP_REPORT", requires = "name")]
        report: Option<String>,
        /// As whom the witness knows this
        #[arg(long, env = "WAL_APP_NAME")]
        name: Option<String>,
    },
    /// Read all entries and count what is lost, doubled and out of order
    Check {
        /// Separated by commas
        #[arg(value_delimiter = ',', required = true)]
        collections: Vec<String>,
        /// The highest number that was acknowledged
        #[arg(long, default_value_t = 0)]
        acknowledged: u64,
        /// The highest number that was truncated: entries begin after it
        #[arg(long, default_value_t = 0)]
        truncated: u64,
    },
    /// Tell the sidecar that entries up to an LSN were applied
    Truncate { collection: String, up_to: u64 },
    /// Wait for SIGTERM
    Pause,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let wal = Wal { socket: cli.socket, sender: None };
    let done = match cli.task {
        Task::Append { collections, count, every, bytes, stay, linger, report, name } => {
            let (every, linger) = (Duration::from_millis(every), Duration::from_millis(linger));
            let pace = Pace { count, every, bytes, stay, linger };
            append(wal, &collections, &pace, report.zip(name)).await
        }
        Task::Check { collections, acknowledged, truncated } => check(wal, &collections, acknowledged, truncated).await,
        Task::Truncate { collection, up_to } => truncate(wal, &collection, up_to).await,
        Task::Pause => pause().await.map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("wal-app: {error:#}");
        ExitCode::FAILURE
    })
}

/// How much is appended, and when that ends.
struct Pace {
    count: Option<u64>,
    every: Duration,
    bytes: usize,
    stay: bool,
    linger: Duration,
}

async fn append(
    mut wal: Wal,
    collections: &[String],
    pace: &Pace,
    witness: Option<(String, String)>,
) -> Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let appending = async {
        let mut told = Told::to(witness).await?;
        let mut last = wal.last_of_all(collections).await?;
        told.say(&format!("found {last}")).await?;
        let end = pace.count.map(|count| last + count);
        while end.is_none_or(|end| last < end) {
            for collection in collections {
                let path = format!(
                    "/v1/collections/{collection}/entries?producerId=wal-app&producerSeq={number}",
                    number = last + 1
                );
                let number = (last + 1).to_string();
                let payload = " ".repeat(pace.bytes.saturating_sub(number.len())) + &number;
                wal.until_done("POST", &path, payload).await?;
            }
            last += 1;
            // What was acknowledged must be known outside before the next is asked for.
            told.say(&last.to_string()).await?;
            tokio::time::sleep(pace.every).await;
        }
        anyhow::Ok(())
    };
    let terminated = async {
        terminate.recv().await;
        println!("terminating");
        tokio::time::sleep(pace.linger).await;
    };
    tokio::pin!(terminated);
    tokio::select! {
        done = appending => done?,
        () = &mut terminated => return Ok(ExitCode::SUCCESS),
    }
    if pace.stay {
        terminated.await;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever is told what was found and acknowledged: whoever reads the log, and a witness, if there is one.
struct Told(Option<TcpStream>);

impl Told {
    async fn to(witness: Option<(String, String)>) -> Result<Self> {
        let Some((address, name)) = witness else { return Ok(Self(None)) };
        let mut stream = TcpStream::connect(&address).await.with_context(|| format!("no witness at {address}"))?;
        stream.set_nodelay(true)?;
        stream.write_all(format!("{name}\n").as_bytes()).await?;
        Ok(Self(Some(stream)))
    }

    async fn say(&mut self, line: &str) -> Result<()> {
        println!("{line}");
        std::io::stdout().flush()?;
        if let Some(stream) = &mut self.0 {
            stream.write_all(format!("{line}\n").as_bytes()).await.context("the witness is gone")?;
        }
        Ok(())
    }
}

async fn check(mut wal: Wal, collections: &[String], acknowledged: u64, truncated: u64) -> Result<ExitCode> {
    let mut all = Vec::new();
    for collection in collections {
        let (numbers, gaps) = wal.numbers(collection).await?;
        // Judged as if they began with 1.
        let numbers: Vec<u64> = numbers.into_iter().filter_map(|number| number.checked_sub(truncated)).collect();
        all.push(Verdict::of(&numbers, gaps, acknowledged.saturating_sub(truncated)));
    }
    let verdict: Verdict = all.into_iter().sum();
    println!("{}", serde_json::to_string(&verdict)?);
    Ok(if verdict.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn truncate(mut wal: Wal, collection: &str, up_to: u64) -> Result<ExitCode> {
    let path = format!("/v1/collections/{collection}/truncate");
    let body = serde_json::json!({"upTo": up_to.to_string()}).to_string();
    let reply = wal.until_done("POST", &path, body).await?;
    println!("{}", String::from_utf8_lossy(&reply));
    Ok(ExitCode::SUCCESS)
}

/// As the first process of a pod's namespaces it is given the orphans.
async fn pause() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut child = signal(SignalKind::child())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = child.recv() => while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {},
        }
    }
}

/// The sidecar, over one connection that is made again when it breaks.
struct Wal {
    socket: PathBuf,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Wal {
    /// Sends a request until it is done: a sidecar that starts, replays or is gone for a moment is waited for.
    async fn until_done(&mut self, method: &str, path: &str, body: String) -> Result<Bytes> {
        let mut last = String::new();
        loop {
            match self.send(method, path, body.clone()).await {
                Ok((StatusCode::OK, reply)) => return Ok(reply),
                Ok((status, reply)) => {
                    let text = String::from_utf8_lossy(&reply).into_owned();
                    let error: Value = serde_json::from_slice(&reply).unwrap_or_default();
                    // An unknown outcome may be tried again, as there is a producer.
                    if error["retryable"] != true && error["reason"] != "UNKNOWN_OUTCOME" {
                        bail!("{method} {path}: {status}: {text}");
                    }
                    say_once(&mut last, text);
                }
                Err(error) => {
                    self.sender = None;
                    say_once(&mut last, format!("{error:#}"));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn send(&mut self, method: &str, path: &str, body: String) -> Result<(StatusCode, Bytes)> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = UnixStream::connect(&self.socket).await.context("cannot connect")?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut().context("no connection")?;
        sender.ready().await?;
        let kind = if path.ends_with("/truncate") { "application/json" } else { "application/octet-stream" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body)))?;
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        Ok((status, reply.into_body().collect().await?.to_bytes()))
    }

    /// The highest number that is in each of the collections.
    async fn last_of_all(&mut self, collections: &[String]) -> Result<u64> {
        let mut last = u64::MAX;
        for collection in collections {
            last = last.min(self.numbers(collection).await?.0.last().copied().unwrap_or(0));
        }
        Ok(last)
    }

    /// All numbers that can be read, and how many entries the log reports as gone.
    async fn numbers(&mut self, collection: &str) -> Result<(Vec<u64>, u64)> {
        let path = format!("/v1/collections/{collection}/entries");
        let reply = loop {
            match self.send("GET", &path, String::new()).await {
                Ok((StatusCode::OK, reply)) => break reply,
                Ok((StatusCode::NOT_FOUND, _)) => return Ok((Vec::new(), 0)),
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => {}
                Ok((status, reply)) => bail!("{path}: {status}: {}", String::from_utf8_lossy(&reply)),
                Err(_) => self.sender = None,
            }
            tokio::time::sleep(PAUSE).await;
        };
        let (mut numbers, mut gaps) = (Vec::new(), 0);
        for line in reply.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let item: Value = serde_json::from_slice(line)?;
            if let Some(payload) = item["entry"]["payload"].as_str() {
                numbers.push(number(payload)?);
            } else if item["gap"].is_object() {
                let end = |name: &str| item["gap"][name].as_str().and_then(|text| text.parse::<u64>().ok());
                gaps += end("last").zip(end("first")).map_or(1, |(last, first)| last - first + 1);
            } else {
                bail!("{path}: {item}");
            }
        }
        Ok((numbers, gaps))
    }
}

fn number(payload: &str) -> Result<u64> {
    let bytes: k8s_openapi::ByteString = serde_json::from_value(Value::from(payload))?;
    let text = String::from_utf8(bytes.0)?;
    text.trim_start().parse().with_context(|| format!("the payload {text:?} is no number"))
}

fn say_once(last: &mut String, text: String) {
    if *last != text {
        eprintln!("wal-app: {text}");
        *last = text;
    }
}
