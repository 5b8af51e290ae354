//! `walctl bench`: appends through the socket, measured by the clients that wait for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use walstorage_sidecar::proto::{AppendRequest, DeleteCollectionRequest, Entry, TruncateRequest};

use crate::Global;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{self, Output, bytes};
use crate::progress::Progress;

#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Connections, each with a stream of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,
    /// Unanswered requests of each client
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: u32,
    /// Bytes of a payload
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Entries of a request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// How long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// After so many bytes a client truncates what was acknowledged, as an application would: else memory and journal fill.
const TRUNCATE_EVERY: u64 = 16 << 20;

/// Latencies up to a minute, in microseconds, to three digits.
fn latencies() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|e| Failure::failed(e.to_string()))
}

pub(crate) async fn run(global: &Global, args: BenchArgs) -> Result<(), Failure> {
    let name = format!("walctl-bench-{}", uuid::Uuid::new_v4());
    let started = Instant::now();
    let until = started + Duration::from_secs(args.seconds);
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..args.clients {
        let (socket, args, collection) = (global.socket.clone(), args.clone(), format!("{name}-{n}"));
        clients.spawn(async move { client(&socket, &args, collection, until).await });
    }
    let mut progress = Progress::new("seconds", Some(args.seconds));
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let mut all = latencies()?;
    let mut outcome = Ok(());
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                None => break,
                Some(Ok(Ok(latencies))) => {
                    all.add(latencies).map_err(|e| Failure::failed(e.to_string()))?;
                }
                Some(Ok(Err(failure))) => outcome = Err(failure),
                Some(Err(e)) => outcome = Err(Failure::failed(e.to_string())),
            },
            _ = tick.tick() => progress.at(started.elapsed().as_secs()),
        }
    }
    let took = started.elapsed().as_secs_f64();
    drop(progress);
    let mut client = connect(&global.socket).await?;
    for n in 0..args.clients {
        // One that never appended has nothing to delete.
        let _ = client.delete_collection(DeleteCollectionRequest { collection: format!("{name}-{n}") }).await;
    }
    outcome?;
    show(global, &args, &all, took)
}

fn show(global: &Global, args: &BenchArgs, all: &Histogram<u64>, took: f64) -> Result<(), Failure> {
    let acks = all.len() as f64 / took;
    let entries = acks * f64::from(args.batch);
    let (p50, p99, max) = (all.value_at_quantile(0.5), all.value_at_quantile(0.99), all.max());
    match global.output {
        Output::Json => output::json(&json!({
            "clients": args.clients, "inFlight": args.in_flight, "size": args.size, "batch": args.batch,
            "seconds": took, "acks": all.len(), "acksPerSecond": acks, "entriesPerSecond": entries,
            "p50Us": p50, "p99Us": p99, "maxUs": max,
        })),
        Output::Table | Output::Raw => {
            let volume = bytes((entries * args.size as f64) as u64);
            output::line(&format!(
                "{} acks in {took:.1} s: {acks:.0}/s, {entries:.0} entries/s, {volume}/s",
                all.len()
            ))?;
            output::line(&format!("latency of an ack: p50 {p50} µs, p99 {p99} µs, max {max} µs"))
        }
    }
}

async fn client(
    socket: &std::path::Path,
    args: &BenchArgs,
    collection: String,
    until: Instant,
) -> Result<Histogram<u64>, Failure> {
    let mut client = connect(socket).await?;
    let payload = Bytes::from(vec![b'x'; args.size]);
    let entry = Entry { payload, key: None, headers: Vec::new() };
    let entries = vec![entry; args.batch as usize];
    let truncated = collection.clone();
    let (requests, received) = mpsc::channel(args.in_flight as usize);
    let window = Arc::new(Semaphore::new(args.in_flight as usize));
    let (sent, mut sent_at) = mpsc::unbounded_channel();
    let sending = tokio::spawn({
        let window = window.clone();
        async move {
            for id in 1.. {
                let Ok(permit) = window.acquire().await else { break };
                permit.forget();
                let now = Instant::now();
                if now >= until {
                    break;
                }
                let request = AppendRequest {
                    id,
                    collection: collection.clone(),
                    entries: entries.clone(),
                    ..Default::default()
                };
                if sent.send(now).is_err() || requests.send(request).await.is_err() {
                    break;
                }
            }
        }
    });
    let mut latencies = latencies()?;
    let mut waiting = VecDeque::new();
    let mut replies = client.append(ReceiverStream::new(received)).await?.into_inner();
    let mut truncating = tokio::task::JoinSet::new();
    let mut bytes = 0;
    while let Some(reply) = replies.message().await? {
        window.add_permits(1);
        bytes += (args.size as u64 + 1) * u64::from(args.batch);
        if let Some(truncated) = truncating.try_join_next() {
            truncated.map_err(|e| Failure::failed(e.to_string()))??;
        }
        if bytes >= TRUNCATE_EVERY && truncating.is_empty() {
            bytes = 0;
            let (mut client, collection) = (client.clone(), truncated.clone());
            truncating
                .spawn(async move { client.truncate(TruncateRequest { collection, up_to: reply.last_lsn }).await });
        }
        while let Ok(at) = sent_at.try_recv() {
            waiting.push_back(at);
        }
        if let Some(at) = waiting.pop_front() {
            let micros = u64::try_from(Instant::now().duration_since(at).as_micros()).unwrap_or(u64::MAX);
            latencies.saturating_record(micros);
        }
    }
    sending.abort();
    while let Some(truncated) = truncating.join_next().await {
        truncated.map_err(|e| Failure::failed(e.to_string()))??;
    }
    Ok(latencies)
}
