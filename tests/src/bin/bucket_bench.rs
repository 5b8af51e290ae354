//! Measures a sidecar on a bucket that is some way off: what an append waits for, what it costs, and how long a start takes.
#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "it reports to a person, and ends where it cannot measure"
)]

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use walstorage_sidecar::directory::bucket::Bucket as _;
use walstorage_sidecar::directory::store::Limits;
use walstorage_tests::emulators::proxy::Proxy;
use walstorage_tests::emulators::{Cloud, Emulated};
use walstorage_tests::harness::calls::append;
use walstorage_tests::harness::{Setup, Sidecar, machine};

/// `bucket_commit_interval_ms` when nothing is said.
const INTERVAL: Duration = Duration::from_millis(250);

/// What a thousand PUTs cost, USD: S3 Standard and Google Cloud Storage Standard, list price.
const PER_1000_PUTS: f64 = 0.005;

/// Measures the sidecar beside it on a bucket in the emulator of Google, behind a proxy that delays each request.
#[derive(Parser)]
struct Arguments {
    /// Write the figures to this file; they are printed in any case.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Measure a tenth as much.
    #[arg(long)]
    quick: bool,
}

/// Figures of one kind of thing.
struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(3).expect("a histogram"))
    }
}

impl Times {
    fn add(&mut self, since: Instant) {
        self.0.record(since.elapsed().as_micros() as u64).expect("a histogram that grows");
    }

    /// The time below which this share of all lies, milliseconds.
    fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }
}

struct Bench {
    emulated: Emulated,
    way: Proxy,
    quick: bool,
    text: String,
}

fn text(n: u64) -> Vec<u8> {
    let mut payload = vec![b'.'; 1024];
    payload[..8].copy_from_slice(&n.to_le_bytes());
    payload
}

impl Bench {
    fn many(&self, whole: usize) -> usize {
        if self.quick { (whole / 10).max(3) } else { whole }
    }

    fn puts(&self) -> u64 {
        self.way.requests().get("PUT").copied().unwrap_or_default()
    }

    fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// An append that nothing came before for a while, and beside it one PUT of the same size over the same way.
    async fn lone_appends(&mut self) {
        self.line("## One append alone\n");
        self.line("An append of 1 KiB after a pause of more than an interval, and in turn with it one PUT of 1 KiB by the same driver.\n");
        self.line("| each request takes longer by | a PUT, p50 | p99 | an append, p50 | p99 | p50, append / PUT (at most 1.2) |");
        self.line("|---:|---:|---:|---:|---:|---:|");
        for delay in [20, 100] {
            let delay = Duration::from_millis(delay);
            let url = self.emulated.url(&format!("puts-{}", delay.as_millis()));
            let store = self.emulated.store(&url, &self.way.address, Limits::default());
            let path = format!("lone-{}", delay.as_millis());
            let sidecar = Sidecar::ready(self.emulated.only_url(&path, &self.way.address)).await;
            let mut client = sidecar.grpc();
            self.way.be_slow(delay);
            let (mut puts, mut appends) = (Times::default(), Times::default());
            // The first of each opens connections.
            for n in 0..=self.many(60) as u64 {
                tokio::time::sleep(INTERVAL + INTERVAL / 2).await;
                let started = Instant::now();
                store.create(&format!("{n}"), Bytes::from(text(n))).await.expect("created");
                if n > 0 {
                    puts.add(started);
                }
                let started = Instant::now();
                append(&mut client, "c", &[&text(n)]).await;
                if n > 0 {
                    appends.add(started);
                }
            }
            self.way.be_slow(Duration::ZERO);
            let ratio = appends.quantile(0.5) / puts.quantile(0.5);
            let [put, put_99, own, own_99] =
                [puts.quantile(0.5), puts.quantile(0.99), appends.quantile(0.5), appends.quantile(0.99)];
            let delay = delay.as_millis();
            self.line(&format!(
                "| {delay} ms | {put:.1} ms | {put_99:.1} ms | {own:.1} ms | {own_99:.1} ms | {ratio:.2} |"
            ));
        }
    }

    /// Collections that each append as fast as they are answered.
    async fn costs(&mut self) {
        let seconds = self.many(20) as u64;
        self.line("\n## What it costs\n");
        self.line(&format!(
            "So many collections, each with one append of 1 KiB under way, for {seconds} s; each request takes 20 ms longer. \
             USD a month are PUTs at {PER_1000_PUTS} USD a thousand, all day long, without what is stored and read.\n"
        ));
        self.line("| collections | entries a second | PUTs a second (at most 4) | entries a PUT | USD a month |");
        self.line("|---:|---:|---:|---:|---:|");
        for collections in [1_u64, 100, 1000] {
            let path = format!("cost-{collections}");
            let sidecar = Sidecar::ready(self.emulated.only_url(&path, &self.way.address)).await;
            self.way.be_slow(Duration::from_millis(20));
            let answered = Arc::new(AtomicU64::new(0));
            let mut clients = JoinSet::new();
            for n in 0..collections {
                let (mut client, answered) = (sidecar.grpc(), Arc::clone(&answered));
                clients.spawn(async move {
                    loop {
                        append(&mut client, &format!("c{n}"), &[&text(n)]).await;
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            while answered.load(Ordering::Relaxed) < collections {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let (began, puts, before) = (Instant::now(), self.puts(), answered.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let took = began.elapsed().as_secs_f64();
            let (puts, entries) = (self.puts() - puts, answered.load(Ordering::Relaxed) - before);
            clients.shutdown().await;
            self.way.be_slow(Duration::ZERO);
            let (rate, each) = (puts as f64 / took, entries as f64 / puts as f64);
            let month = rate * 86_400.0 * 30.0 / 1000.0 * PER_1000_PUTS;
            self.line(&format!(
                "| {collections} | {:.0} | {rate:.2} | {each:.0} | {month:.0} |",
                entries as f64 / took
            ));
        }
    }

    /// A start behind so many commits.
    async fn starts(&mut self) {
        self.line("\n## How long a start takes\n");
        self.line("A process that was killed starts again; each request takes 20 ms longer, and commits are read eight at a time. Checkpoints have freed some of the last row.\n");
        self.line("| commits in the bucket | requests of the start | until it serves |");
        self.line("|---:|---:|---:|");
        for commits in [10, 100, 1000, 4000] {
            let path = format!("start-{commits}");
            let setup = self.emulated.only_url(&path, &self.way.address).set("bucket_commit_interval_ms = 1");
            let mut sidecar = Sidecar::ready(setup).await;
            let mut client = sidecar.grpc();
            for n in 0..self.many(commits) as u64 {
                append(&mut client, "c", &[&text(n)]).await;
            }
            sidecar.kill();
            self.way.be_slow(Duration::from_millis(20));
            let (started, before) = (Instant::now(), self.way.requests().values().sum::<u64>());
            sidecar.start();
            sidecar.wait_ready().await;
            let took = started.elapsed().as_secs_f64();
            let requests = self.way.requests().values().sum::<u64>() - before;
            self.way.be_slow(Duration::ZERO);
            self.line(&format!("| {} | {requests} | {took:.2} s |", self.many(commits)));
        }
    }

    /// Appends one after the other to a local directory, with and without a bucket behind it.
    async fn journals(&mut self) {
        let rounds = 5;
        let count = self.many(2000);
        self.line("\n## A disk in front of it\n");
        self.line(&format!(
            "`journal_url` on a local disk, segments in the bucket, each request to which takes 100 ms longer; beside it the same disk \
             alone. {rounds} rounds in turn of {count} appends of 1 KiB, one after the other: median of the medians (lowest to highest).\n"
        ));
        self.line("| | p50 |");
        self.line("|---|---:|");
        let with = self.emulated.only_url("behind", &self.way.address);
        let journal = format!("journal_url = {:?}", with.url("d1"));
        let with = Sidecar::ready(with.set(&journal)).await;
        let alone = Sidecar::ready(Setup::new(1)).await;
        self.way.be_slow(Duration::from_millis(100));
        let (mut both, mut disk) = (Times::default(), Times::default());
        for _ in 0..rounds {
            for (sidecar, medians) in [(&with, &mut both), (&alone, &mut disk)] {
                let mut client = sidecar.grpc();
                let mut times = Times::default();
                for n in 0..count as u64 {
                    let started = Instant::now();
                    append(&mut client, "c", &[&text(n)]).await;
                    times.add(started);
                }
                medians.0.record(times.0.value_at_quantile(0.5)).expect("a histogram that grows");
            }
        }
        self.way.be_slow(Duration::ZERO);
        for (what, times) in [("the disk alone", &disk), ("the disk, the bucket behind it", &both)] {
            let [low, middle, high] = [0.0, 0.5, 1.0].map(|share| 1000.0 * times.quantile(share));
            self.line(&format!("| {what} | {middle:.0} us ({low:.0} to {high:.0}) |"));
        }
        let ratio = both.quantile(0.5) / disk.quantile(0.5);
        self.line(&format!("| ratio | {ratio:.2} |"));
    }
}

/// What the figures were measured on.
fn measured_on() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(", ");
    let mut text = String::from("| | |\n|---|---|\n");
    for (what, value) in machine::describe().into_iter().chain([("load average when it began", load)]) {
        writeln!(text, "| {what} | {value} |").expect("a string grows");
    }
    text
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { report, quick } = Arguments::parse();
    let emulated = Emulated::new("bucket_bench", Cloud::Google).await.context("the emulator is not there")?;
    let way = Proxy::start(&emulated.address, 1, 0).await;
    let head = "# Buckets, measured\n\nWritten by `make bench`; no figure is typed by hand. The bucket is the emulator of Google Cloud Storage \
                that the suites use, on the same machine; a proxy before it makes each request take longer. What a real store takes \
                beyond that is not in these figures.\n";
    let mut bench = Bench { emulated, way, quick, text: String::new() };
    bench.line(head);
    bench.line(&measured_on());
    bench.lone_appends().await;
    bench.costs().await;
    bench.starts().await;
    bench.journals().await;
    if let Some(report) = report {
        std::fs::write(&report, &bench.text).with_context(|| report.display().to_string())?;
    }
    Ok(())
}
