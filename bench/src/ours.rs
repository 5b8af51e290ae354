//! What an application does with our sidecar beside appending, and appends through the stock client.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_stream::wrappers::ReceiverStream;
use walstorage_sidecar::proto::{Collection, TruncateRequest};
use walstorage_tests::harness::calls::{describe, request};
use walstorage_tests::harness::grpc::{self, Client};

use crate::PAYLOAD;
use crate::measured::Measured;

/// How often what is applied is truncated.
const TIDY: Duration = Duration::from_millis(50);

/// A collection keeps about this many entries.
pub(crate) const KEPT: u64 = 4096;

fn name(n: usize) -> String {
    format!("bench-{n}")
}

/// Makes the collections of a load.
pub(crate) async fn create(client: &mut Client, collections: usize) -> anyhow::Result<()> {
    for n in 0..collections {
        client.append_batch(request(&name(n), &[b"warm-up"])).await?;
    }
    Ok(())
}

/// Truncates the collections of a load that hold more than `kept` entries.
pub(crate) async fn truncate(client: &mut Client, collections: usize, kept: u64) -> anyhow::Result<()> {
    for n in 0..collections {
        let Collection { durable_head: up_to, truncated_to, .. } = describe(client, &name(n)).await;
        if up_to - truncated_to > kept {
            client.truncate(TruncateRequest { collection: name(n), up_to }).await?;
        }
    }
    Ok(())
}

/// Truncates one collection over and over while a load runs; many are left alone until it has ended.
pub(crate) async fn keep_short(mut client: Client, collections: usize) -> anyhow::Result<()> {
    if collections > 1 {
        return Ok(());
    }
    let mut ticks = tokio::time::interval(TIDY);
    loop {
        ticks.tick().await;
        truncate(&mut client, 1, KEPT).await?;
    }
}

/// A closed loop through tonic, a connection and a stream for each client.
pub(crate) async fn stock_client(socket: &Path, clients: usize, time: Duration) -> anyhow::Result<Measured> {
    let mut control = grpc::connect(socket);
    create(&mut control, 1).await?;
    let tidier = tokio::spawn(keep_short(control.clone(), 1));
    let begun = Instant::now();
    let end = begun + time;
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let mut client = grpc::connect(socket);
            tokio::spawn(async move {
                let payload = vec![b'x'; PAYLOAD];
                let (sender, requests) = tokio::sync::mpsc::channel(1);
                let mut replies = client.append(ReceiverStream::new(requests)).await?.into_inner();
                let mut latencies = Histogram::<u64>::new(3)?;
                for id in 1.. {
                    let mut message = request(&name(0), &[&payload]);
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
    let mut all = Histogram::<u64>::new(3)?;
    for task in tasks {
        all.add(task.await??)?;
    }
    let took = begun.elapsed();
    tidier.abort();
    truncate(&mut control, 1, 0).await?;
    Ok(Measured::of(&all, took))
}
