//! Much data that nobody truncates, from several clients at full speed, and what it costs the sidecar.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::calls::request;
use crate::harness::memory::mib;
use crate::harness::{Sidecar, grpc};

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Collections; a client goes through its share of them in turn.
    pub collections: usize,
    /// Entries of each collection.
    pub entries: usize,
    /// Payload of an entry, bytes.
    pub payload: usize,
    /// Concurrent streams.
    pub clients: usize,
    /// Requests that a client has under way.
    pub window: usize,
    /// Ends it early.
    pub at_most: Duration,
}

/// What it cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Entries acknowledged.
    pub acked: u64,
    /// Nanoseconds from sending to acknowledgement.
    pub latencies: Histogram<u64>,
    /// How long it took.
    pub took: Duration,
    /// Highest resident memory since the process started, MiB.
    pub resident: f64,
    /// Most bytes of one journal seen.
    pub journal: u64,
    /// Most file descriptors seen.
    pub descriptors: usize,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e6;
        write!(
            f,
            "{} entries in {:.1} s, p50 {:.1} ms, p99 {:.1} ms, worst {:.0} ms; at most {:.0} MiB resident, {} MiB of \
             journal, {} descriptors",
            self.acked,
            self.took.as_secs_f64(),
            ms(0.5),
            ms(0.99),
            ms(1.0),
            self.resident,
            self.journal >> 20,
            self.descriptors
        )
    }
}

/// The name of collection `n`.
#[must_use]
pub fn name(n: usize) -> String {
    format!("many-{n:05}")
}

/// The payload of entry `index` of collection `n`.
#[must_use]
pub fn payload(n: usize, index: usize, size: usize) -> Vec<u8> {
    let word = (n as u64) << 32 | index as u64;
    word.to_le_bytes().into_iter().cycle().take(size).collect()
}

/// Open file descriptors of a process.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Runs a load to its end; every append must be acknowledged.
///
/// # Panics
/// When one is not.
pub async fn run(sidecar: &Sidecar, load: Load) -> Cost {
    let begun = Instant::now();
    let clients: Vec<_> = (0..load.clients)
        .map(|client| {
            let socket: Arc<Path> = sidecar.setup.socket().into();
            tokio::spawn(async move { append_all(&socket, client, load, begun).await })
        })
        .collect();
    let (mut journal, mut open) = (0, 0);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        ticks.tick().await;
        let status = sidecar.status().await;
        journal = status.directories.iter().map(|directory| directory.journal_bytes).max().unwrap_or(0).max(journal);
        open = descriptors(sidecar.pid()).max(open);
    }
    let mut latencies = Histogram::<u64>::new(3).expect("a histogram");
    for client in clients {
        latencies.add(client.await.expect("no panic")).expect("one histogram");
    }
    let resident = mib(sidecar.pid(), "VmHWM").expect("its memory");
    Cost { acked: latencies.len(), latencies, took: begun.elapsed(), resident, journal, descriptors: open }
}

async fn append_all(socket: &Path, client: usize, load: Load, begun: Instant) -> Histogram<u64> {
    let mut latencies = Histogram::<u64>::new(3).expect("a histogram");
    let (sender, requests) = tokio::sync::mpsc::channel(load.window);
    let mut grpc = grpc::connect(socket);
    let call = tokio::spawn(async move { grpc.append(ReceiverStream::new(requests)).await });
    let mut under_way = std::collections::VecDeque::new();
    let mine = (client..load.collections).step_by(load.clients);
    let all = (0..load.entries).flat_map(|index| mine.clone().map(move |n| (n, index)));
    let mut all = (1..).zip(all);
    let mut replies = None;
    let mut call = Some(call);
    loop {
        while under_way.len() < load.window {
            let Some((id, (n, index))) = all.next().filter(|_| begun.elapsed() < load.at_most) else { break };
            let mut message = request(&name(n), &[&payload(n, index, load.payload)]);
            message.id = id;
            sender.send(message).await.expect("the stream is open");
            under_way.push_back((id, Instant::now()));
        }
        if under_way.is_empty() {
            return latencies;
        }
        if let Some(call) = call.take() {
            replies = Some(call.await.expect("no panic").expect("a stream").into_inner());
        }
        let replies = replies.as_mut().expect("it was opened");
        let reply = replies.message().await.expect("no refusal").expect("the stream goes on");
        let at = under_way.iter().position(|(id, _)| *id == reply.id).expect("a reply to a request");
        let (_, sent) = under_way.remove(at).expect("it was found");
        latencies.record(sent.elapsed().as_nanos() as u64).expect("a latency");
    }
}

/// Reads collection `n` whole and compares it.
///
/// # Panics
/// When anything is missing or altered.
pub async fn check(client: &mut grpc::Client, n: usize, entries: usize, size: usize) {
    let found = crate::harness::calls::payloads(client, &name(n)).await;
    assert_eq!(found.len(), entries, "{}", name(n));
    for (index, found) in found.iter().enumerate() {
        assert!(*found == payload(n, index, size), "{}, entry {index} is altered", name(n));
    }
}
