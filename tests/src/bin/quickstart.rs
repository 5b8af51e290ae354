//! The main job on local folders, with nothing but the programs a user has: `walstorage-operator render`, the sidecar,
//! `walctl` and `curl`. Appends a thousand lines, kills the sidecar with appends under way, starts it again, reads all
//! back and compares. Writes to one new temporary folder only. Exit 1 on any difference.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a person")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use walstorage_tests::harness::binaries;

/// Lines sent with `walctl`, and with curl to each of its collections.
const WITH_WALCTL: usize = 500;
const WITH_CURL: usize = 250;
/// Lines in one request of curl: one atomic batch.
const BATCH: usize = 10;
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let folder = match tempfile::Builder::new().prefix("walstorage-quickstart-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("quickstart: no temporary folder: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(folder.path()) {
        Ok(true) => ExitCode::SUCCESS,
        outcome => {
            if let Err(error) = outcome {
                eprintln!("quickstart: {error:#}");
            }
            eprintln!("quickstart: everything is kept in {}", folder.keep().display());
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing was lost, doubled or altered.
fn run(folder: &Path) -> anyhow::Result<bool> {
    let orders = lines("orders", WITH_WALCTL);
    let by_curl = [("payments", lines("payments", WITH_CURL)), ("shipments", lines("shipments", WITH_CURL))];
    let file = folder.join("orders.jsonl");
    fs::write(&file, orders.concat())?;

    let rendered = Command::new(binaries::operator())
        .args(["render", "--part", "config", "-f"])
        .arg(binaries::repository().join("examples/walstorage.yaml"))
        .arg("--root")
        .arg(folder)
        .output()
        .context("walstorage-operator render")?;
    ensure!(rendered.status.success(), "render: {}", String::from_utf8_lossy(&rendered.stderr));
    let config = folder.join("config.toml");
    fs::write(&config, &rendered.stdout)?;
    let directories = String::from_utf8_lossy(&rendered.stdout).matches("file://").count();
    println!("rendered      examples/walstorage.yaml: {directories} local folders below {}", folder.display());

    let mut sidecar = Sidecar::start(folder, &config)?;
    let socket = sidecar.socket.clone();
    let outcome = std::thread::scope(|scope| {
        let mut walctl = walctl_append(&socket, "orders")?;
        let mut input = walctl.stdin.take().context("walctl's input")?;
        let (told, acknowledged) = mpsc::channel();
        let posting = by_curl.each_ref().map(|(collection, lines)| {
            let (socket, told) = (socket.clone(), told.clone());
            scope.spawn(move || post_until_broken(&socket, folder, collection, lines, &told))
        });
        // The rest of the lines goes in while the sidecar dies: appends are under way then.
        let (before, under_way) = orders.split_at(WITH_WALCTL * 3 / 5);
        input.write_all(before.concat().as_bytes())?;
        for _ in 0..BATCH {
            acknowledged.recv_timeout(DEADLINE).context("curl appends")?;
        }
        wait_for_entries(&socket, "orders", 100)?;
        let writing = scope.spawn(move || {
            // The pipe may break when walctl gives up. It stays open until the kill, so that walctl's stream does too.
            let _ = input.write_all(under_way.concat().as_bytes());
            input
        });
        sidecar.kill()?;
        drop(writing.join());
        let sent_by_walctl = walctl.wait_with_output()?;
        let posted =
            posting.map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("curl's thread failed"))));
        anyhow::Ok((sent_by_walctl, posted))
    })?;
    let (walctl, posted) = outcome;
    let said = String::from_utf8_lossy(&walctl.stderr).into_owned();
    ensure!(walctl.status.code() == Some(1), "walctl was to notice the kill; it said: {said}");
    let acknowledged_orders = last_acknowledged(&said)?;
    let posted = posted.into_iter().collect::<anyhow::Result<Vec<usize>>>()?;
    let acknowledged = acknowledged_orders + posted.iter().sum::<usize>() * BATCH;
    let sent = WITH_WALCTL + 2 * WITH_CURL;
    println!(
        "sent          {sent} lines: {WITH_WALCTL} to orders with walctl, {WITH_CURL} each to payments and shipments with curl"
    );
    println!("killed at     {acknowledged} acknowledged lines: SIGKILL, with appends under way on three connections");

    let begun = Instant::now();
    let mut sidecar = Sidecar::start(folder, &config)?;
    println!("started again ready after {} ms", begun.elapsed().as_millis());
    let survived = read_with_walctl(&socket, "orders")?;
    let mut report = Report::default();
    report.compare("orders", &orders[..acknowledged_orders.max(survived.len().min(WITH_WALCTL))], &survived);
    for ((collection, lines), batches) in by_curl.iter().zip(&posted) {
        let read = read_with_curl(&socket, collection)?;
        let whole = read.len() - read.len() % BATCH;
        report.compare(collection, &lines[..(batches * BATCH).max(whole.min(WITH_CURL))], &read);
    }
    println!("read back     {} lines: every acknowledged one, batches whole", report.read);

    // The clients go on: walctl after the last line that is there, curl with the request that was not answered.
    let rest = folder.join("rest.jsonl");
    fs::write(&rest, orders[survived.len()..].concat())?;
    let resumed = Command::new(binaries::walctl())
        .arg("--socket")
        .arg(&socket)
        .args(["append", "orders", "--file"])
        .arg(&rest)
        .output()?;
    ensure!(resumed.status.success(), "walctl append: {}", String::from_utf8_lossy(&resumed.stderr));
    let mut duplicates = 0;
    for ((collection, lines), batches) in by_curl.iter().zip(&posted) {
        for (number, batch) in (1..).zip(lines.chunks(BATCH)).skip(*batches) {
            let reply = post(&socket, folder, collection, number, batch)?;
            duplicates += usize::from(reply.contains(r#""duplicate":true"#));
        }
    }
    println!(
        "sent again    what was not acknowledged; {duplicates} batches were there already and were not stored twice"
    );
    let mut whole = Report { lost: report.lost, doubled: report.doubled, altered: report.altered, read: 0 };
    whole.compare("orders", &orders, &read_with_walctl(&socket, "orders")?);
    for (collection, lines) in &by_curl {
        whole.compare(collection, lines, &read_with_curl(&socket, collection)?);
    }
    sidecar.stop()?;
    println!("at the end    {} lines", whole.read);
    println!("lost          {}", whole.lost);
    println!("doubled       {}", whole.doubled);
    println!("altered       {}", whole.altered);
    let right = whole.lost + whole.doubled + whole.altered == 0 && whole.read == sent;
    println!("{}", if right { "everything that was acknowledged is there, once and in order" } else { "WRONG" });
    Ok(right)
}

/// JSON lines as a shop would log them.
fn lines(kind: &str, count: usize) -> Vec<String> {
    let line = |n: usize| {
        let cents = n * 7919 % 100_000;
        format!(
            "{{\"event\":\"{kind}\",\"number\":{n},\"customer\":\"c-{:04}\",\"amount\":\"{}.{:02}\"}}\n",
            n * 31 % 977,
            cents / 100,
            cents % 100
        )
    };
    (1..=count).map(line).collect()
}

#[derive(Default)]
struct Report {
    read: usize,
    lost: usize,
    doubled: usize,
    altered: usize,
}

impl Report {
    /// Compares what was read with what must be there, in order.
    fn compare(&mut self, collection: &str, expected: &[String], read: &[String]) {
        self.read += read.len();
        let mut times = std::collections::BTreeMap::<&str, usize>::new();
        read.iter().for_each(|line| *times.entry(line).or_default() += 1);
        let lost = expected.iter().filter(|line| !times.contains_key(line.as_str())).count();
        let doubled: usize = times.values().map(|count| count - 1).sum();
        let in_order = expected.iter().zip(read).filter(|(expected, read)| expected != read).count();
        let altered = if lost + doubled == 0 { in_order + read.len().saturating_sub(expected.len()) } else { 0 };
        if lost + doubled + altered > 0 {
            eprintln!("quickstart: {collection}: {lost} lost, {doubled} doubled, {altered} out of order or altered");
        }
        self.lost += lost;
        self.doubled += doubled;
        self.altered += altered;
    }
}

/// A running sidecar; killed when dropped.
struct Sidecar {
    child: Child,
    socket: PathBuf,
}

impl Sidecar {
    fn start(folder: &Path, config: &Path) -> anyhow::Result<Self> {
        let socket = folder.join("wal.sock");
        let log = File::options().create(true).append(true).open(folder.join("sidecar.log"))?;
        let child = Command::new(binaries::sidecar())
            .arg("serve")
            .arg("--config")
            .arg(config)
            .arg("--socket")
            .arg(&socket)
            .args(["--admin", "off"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("walstorage-sidecar")?;
        let mut sidecar = Self { child, socket };
        poll("the sidecar is ready", || {
            if let Some(status) = sidecar.child.try_wait()? {
                bail!("the sidecar ended: {status}; see sidecar.log");
            }
            let check = Command::new(binaries::sidecar())
                .args(["check", "ready", "--socket"])
                .arg(&sidecar.socket)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            Ok(check.success())
        })?;
        Ok(sidecar)
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the sidecar ended with {status} after SIGTERM");
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn poll(what: &str, mut probe: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let end = Instant::now() + DEADLINE;
    while !probe()? {
        ensure!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn walctl_append(socket: &Path, collection: &str) -> anyhow::Result<Child> {
    Command::new(binaries::walctl())
        .arg("--socket")
        .arg(socket)
        .args(["append", collection])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("walctl")
}

/// The number in walctl's `last acknowledged line: N`.
fn last_acknowledged(said: &str) -> anyhow::Result<usize> {
    let Some((_, rest)) = said.split_once("last acknowledged line: ") else {
        bail!("walctl did not say what was acknowledged: {said}");
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().context("walctl's last acknowledged line")
}

fn curl(socket: &Path, arguments: &[&str]) -> anyhow::Result<Option<String>> {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--fail-with-body", "--unix-socket"])
        .arg(socket)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("curl")?;
    let mut body = String::new();
    child.stdout.take().context("curl's output")?.read_to_string(&mut body)?;
    Ok(child.wait()?.success().then_some(body))
}

/// One batch, stamped with its number so that it may be sent again.
fn post_once(
    socket: &Path,
    folder: &Path,
    collection: &str,
    number: usize,
    batch: &[String],
) -> anyhow::Result<Option<String>> {
    let body = folder.join(format!("{collection}.batch"));
    fs::write(&body, batch.concat())?;
    let url = format!("http://wal/v1/collections/{collection}/entries?producerId=quickstart&producerSeq={number}");
    let data = format!("@{}", body.display());
    curl(socket, &["--header", "Content-Type: application/x-ndjson", "--data-binary", &data, &url])
}

fn post(socket: &Path, folder: &Path, collection: &str, number: usize, batch: &[String]) -> anyhow::Result<String> {
    post_once(socket, folder, collection, number, batch)?
        .with_context(|| format!("curl could not append to {collection}"))
}

/// Posts batches until the sidecar is gone; answers how many were acknowledged.
fn post_until_broken(
    socket: &Path,
    folder: &Path,
    collection: &str,
    lines: &[String],
    told: &mpsc::Sender<()>,
) -> anyhow::Result<usize> {
    let mut acknowledged = 0;
    for (number, batch) in (1..).zip(lines.chunks(BATCH)) {
        if post_once(socket, folder, collection, number, batch)?.is_none() {
            break;
        }
        acknowledged += 1;
        // Nobody listens any more once the kill is near.
        let _ = told.send(());
    }
    Ok(acknowledged)
}

fn wait_for_entries(socket: &Path, collection: &str, count: u64) -> anyhow::Result<()> {
    poll("walctl's lines are durable", || {
        let Some(body) = curl(socket, &[&format!("http://wal/v1/collections/{collection}")])? else { return Ok(false) };
        let described: serde_json::Value = serde_json::from_str(&body)?;
        Ok(described["durableHead"].as_str().and_then(|head| head.parse::<u64>().ok()) >= Some(count))
    })
}

fn split(text: &str) -> Vec<String> {
    text.split_inclusive('\n').map(str::to_owned).collect()
}

fn read_with_walctl(socket: &Path, collection: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new(binaries::walctl())
        .arg("--socket")
        .arg(socket)
        .args(["read", collection, "--output", "raw"])
        .output()?;
    ensure!(output.status.success(), "walctl read: {}", String::from_utf8_lossy(&output.stderr));
    Ok(split(&String::from_utf8_lossy(&output.stdout)))
}

fn read_with_curl(socket: &Path, collection: &str) -> anyhow::Result<Vec<String>> {
    let url = format!("http://wal/v1/collections/{collection}/entries?format=raw");
    let body = curl(socket, &[&url])?.with_context(|| format!("curl could not read {collection}"))?;
    Ok(split(&body))
}
