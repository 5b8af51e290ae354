//! The subject's side: opens one log, carries out orders from standard input, answers on standard output.

use std::io::BufRead as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::process::getppid;

use super::floor::Floor;
use super::library::Library;
use super::peers::{OkayWal, RaftEngine, Walrus1};
use super::{Kind, Log, Order, Setting};
use crate::PAYLOAD;
use crate::measured::Measured;
use crate::memory;

/// How often space is given back.
const TIDY: Duration = Duration::from_millis(50);

/// Runs until the orders end.
#[allow(clippy::print_stdout, reason = "its answers")]
pub(crate) fn run(setting: &Setting) -> anyhow::Result<()> {
    std::fs::create_dir_all(&setting.folder)?;
    let folder = &setting.folder;
    let log: Box<dyn Log> = match setting.kind {
        Kind::Floor => Box::new(Floor::open(folder)?),
        Kind::Library => Box::new(Library::open(setting)?),
        Kind::Okaywal => Box::new(OkayWal::open(folder)?),
        Kind::RaftEngine => Box::new(RaftEngine::open(folder)?),
        Kind::Walrus => Box::new(Walrus1::open()?),
    };
    println!("measured {}", Measured::default().line());
    for line in std::io::stdin().lock().lines() {
        let measured = match Order::parse(&line?)? {
            Order::Load { clients, time } => load(&*log, clients, time)?,
            Order::Ticks(count) => ticks(&*log, count)?,
        };
        println!("measured {}", measured.line());
    }
    Ok(())
}

fn load(log: &dyn Log, clients: usize, time: Duration) -> anyhow::Result<Measured> {
    let done = AtomicBool::new(false);
    let begun = Instant::now();
    let end = begun + time;
    let client = |number: usize| {
        let payload = vec![b'x'; PAYLOAD];
        let mut latencies = Histogram::<u64>::new(3)?;
        // Every client begins at another collection.
        for turn in (number as u64 * 31).. {
            let handed_in = Instant::now();
            if handed_in >= end {
                break;
            }
            log.append(number, turn, &payload)?;
            latencies.record(handed_in.elapsed().as_nanos() as u64)?;
        }
        anyhow::Ok(latencies)
    };
    let used = memory::cpu(std::process::id())?;
    let (latencies, took) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|number| scope.spawn(move || client(number))).collect();
        let tidier = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                std::thread::park_timeout(TIDY);
                log.tidy(false)?;
            }
            log.tidy(true)
        });
        let parts: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let took = begun.elapsed();
        done.store(true, Ordering::Release);
        tidier.thread().unpark();
        tidier.join().map_err(|_| anyhow::anyhow!("the tidier panicked"))??;
        let mut all = Histogram::<u64>::new(3)?;
        for part in parts {
            all.add(part.map_err(|_| anyhow::anyhow!("a client panicked"))??)?;
        }
        anyhow::Ok((all, took))
    })?;
    let used = memory::cpu(std::process::id())?.saturating_sub(used);
    Ok(Measured::of(&latencies, took).with_cpu(used, took))
}

/// Between two calls of getppid stands exactly one append.
fn ticks(log: &dyn Log, count: usize) -> anyhow::Result<Measured> {
    let payload = vec![b'x'; PAYLOAD];
    let mut latencies = Histogram::<u64>::new(3)?;
    let begun = Instant::now();
    // The first append of a log may prepare it.
    log.append(0, 0, &payload)?;
    let _ = getppid();
    for _ in 0..count {
        let handed_in = Instant::now();
        log.append(0, 0, &payload)?;
        latencies.record(handed_in.elapsed().as_nanos() as u64)?;
        let _ = getppid();
    }
    Ok(Measured::of(&latencies, begun.elapsed()))
}
