//! Kills and recovers over and over: the kill loop of the suite for as long as wanted.
#![allow(clippy::print_stdout, reason = "it reports to a person")]

use std::time::{Duration, Instant};

use clap::Parser;
use walstorage_tests::load::Shape;
use walstorage_tests::load::kill_loop::kill_loop;

/// Kills a sidecar under load, again and again, and ends with an error at the first entry lost, doubled or altered.
#[derive(Parser)]
struct Arguments {
    /// Stop after so many minutes, at the end of a loop.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Kills in each loop.
    #[arg(long, default_value_t = 30)]
    kills: u64,
    /// Seed of the first loop; later ones count up.
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() {
    let Arguments { minutes, kills, seed } = Arguments::parse();
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let shapes = [Shape::one_directory, Shape::three_directories, Shape::without_affinity, Shape::own_journal];
    let mut seed = seed.unwrap_or_else(|| rand::random::<u64>() >> 16);
    let mut loops = 0;
    while loops == 0 || Instant::now() < end {
        if let Err(why) = kill_loop(shapes[loops % shapes.len()](), kills, seed).await {
            println!("not run: {why}");
        }
        loops += 1;
        seed += 1;
    }
    println!("{loops} loops, {} kills, nothing lost, nothing doubled", kills * loops as u64);
}
