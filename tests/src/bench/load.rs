//! Closed loops: each client has one append of 1 KiB under way, and measures from handing it in to its acknowledgement.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_stream::wrappers::ReceiverStream;
use walstorage_sidecar::engine::Engine;
use walstorage_sidecar::proto::TruncateRequest;
use walstorage_sidecar::types::Lsn;

use crate::harness::calls::request;
use crate::harness::grpc;
use crate::harness::library::{batch, name};

/// Bytes of payload in each entry.
pub const PAYLOAD: usize = 1024;

/// How the clients reach the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Over {
    /// gRPC streams, a connection each.
    Socket,
    /// Calls of the library in the same process.
    Library,
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scenario {
    /// How the log is reached.
    pub over: Over,
    /// Concurrent clients.
    pub clients: usize,
    /// Collections, each client goes through all of them in turn.
    pub collections: usize,
}

/// What one round of a load gave.
pub struct Measured {
    /// Nanoseconds from handing in to acknowledgement.
    pub latencies: Histogram<u64>,
    /// Acknowledgements per second.
    pub rate: f64,
}

fn gather(parts: Vec<Histogram<u64>>, took: Duration) -> anyhow::Result<Measured> {
    let mut latencies = Histogram::new(3)?;
    for part in parts {
        latencies.add(part)?;
    }
    let rate = latencies.len() as f64 / took.as_secs_f64();
    Ok(Measured { latencies, rate })
}

/// The collections that client `client` appends to, in turn, starting at another one than the others.
fn targets(scenario: Scenario, client: usize) -> impl Iterator<Item = String> {
    let first = client * scenario.collections / scenario.clients;
    (0..scenario.collections).cycle().skip(first).take(usize::MAX).map(|n| format!("bench-{n}"))
}

/// Runs a load over the socket for `time`, after a warm-up that creates all collections.
///
/// # Errors
/// When an append fails.
pub async fn over_the_socket(socket: &Path, scenario: Scenario, time: Duration) -> anyhow::Result<Measured> {
    let mut client = grpc::connect(socket);
    for n in 0..scenario.collections {
        client.append_batch(request(&format!("bench-{n}"), &[b"warm-up"])).await?;
    }
    let begun = Instant::now();
    let end = begun + time;
    let clients: Vec<_> = (0..scenario.clients)
        .map(|number| {
            let mut client = grpc::connect(socket);
            tokio::spawn(async move {
                let payload = vec![b'x'; PAYLOAD];
                let (sender, requests) = tokio::sync::mpsc::channel(1);
                let mut replies = client.append(ReceiverStream::new(requests)).await?.into_inner();
                let mut latencies = Histogram::<u64>::new(3)?;
                for (id, target) in (1..).zip(targets(scenario, number)) {
                    let mut message = request(&target, &[&payload]);
                    message.id = id;
                    let handed_in = Instant::now();
                    if handed_in >= end {
                        break;
                    }
                    sender.send(message).await?;
                    anyhow::ensure!(replies.message().await?.is_some(), "the stream ended");
                    latencies.record(handed_in.elapsed().as_nanos() as u64)?;
                }
                Ok(latencies)
            })
        })
        .collect();
    let mut parts = Vec::new();
    for client in clients {
        parts.push(client.await??);
    }
    let measured = gather(parts, begun.elapsed());
    for n in 0..scenario.collections {
        let collection = format!("bench-{n}");
        let up_to = crate::harness::calls::describe(&mut client, &collection).await.durable_head;
        client.truncate(TruncateRequest { collection, up_to }).await?;
    }
    measured
}

/// Runs a load on an engine of this process for `time`.
///
/// # Errors
/// When an append fails.
pub async fn in_the_library(engine: &Engine, scenario: Scenario, time: Duration) -> anyhow::Result<Measured> {
    for n in 0..scenario.collections {
        engine.append(batch(&format!("bench-{n}"), &[b"warm-up"]), None).await?;
    }
    let begun = Instant::now();
    let end = begun + time;
    let clients: Vec<_> = (0..scenario.clients)
        .map(|number| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let payload = vec![b'x'; PAYLOAD];
                let mut latencies = Histogram::<u64>::new(3)?;
                for target in targets(scenario, number) {
                    let request = batch(&target, &[&payload]);
                    let handed_in = Instant::now();
                    if handed_in >= end {
                        break;
                    }
                    engine.append(request, None).await?;
                    latencies.record(handed_in.elapsed().as_nanos() as u64)?;
                }
                anyhow::Ok(latencies)
            })
        })
        .collect();
    let mut parts = Vec::new();
    for client in clients {
        parts.push(client.await??);
    }
    let measured = gather(parts, begun.elapsed());
    for n in 0..scenario.collections {
        let collection = name(&format!("bench-{n}"));
        let up_to: Lsn = engine.collection(&collection)?.durable_head;
        engine.truncate(&collection, up_to).await?;
    }
    measured
}
