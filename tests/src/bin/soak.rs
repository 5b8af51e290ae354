//! Runs what the suites run, for as long as told: kills, power cuts, disks that fill up, fail and stall, under load.
#![allow(clippy::print_stdout, reason = "it reports to a person")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use walstorage_tests::load::kill_loop::{Done, kill_loop};
use walstorage_tests::load::{Shape, Trouble};

/// What ends or troubles the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Kind {
    /// SIGKILL on folders.
    Kill,
    /// The power of all disks is cut.
    Cut,
    /// Disks fill up.
    Fill,
    /// Disks fail: single calls, or all of them.
    Fail,
    /// Disks stall or are slow.
    Stall,
}

/// Ends and troubles a sidecar under load, again and again, and stops with an error at the first entry that is lost,
/// doubled or altered. Its programs are those beside it.
#[derive(Parser)]
struct Arguments {
    /// Stop after so many minutes, at the end of a loop.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Starts of a sidecar in each loop, about.
    #[arg(long, default_value_t = 30)]
    kills: u64,
    /// Seed of the first loop; later ones count up.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these, in turn; all by default.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
}

fn shape(kind: Kind, number: u64) -> Shape {
    const SHAPES: [fn() -> Shape; 4] =
        [Shape::one_directory, Shape::three_directories, Shape::without_affinity, Shape::own_journal];
    // A disk in trouble is of interest where there are others, and one is given up for a stall only if others commit.
    let several = SHAPES[1 + number as usize % 3];
    let committing = SHAPES[1 + number as usize % 2];
    match kind {
        Kind::Kill => SHAPES[number as usize % 4](),
        Kind::Cut if number % 2 == 1 => SHAPES[number as usize / 2 % 4]().on_ext4().long(),
        Kind::Cut => SHAPES[number as usize / 2 % 4]().on_twins(),
        Kind::Fill => several().with(&[Trouble::Full]),
        Kind::Fail => several().with(Trouble::FAILURES),
        Kind::Stall => committing().with(&[Trouble::Stall, Trouble::Slow]),
    }
}

fn show(kind: Kind, loops: u64, done: &Done) {
    let Done { counts, starts, ends, faults } = done;
    println!(
        "{:<5} {loops} schedules: {starts} starts, {ends} kills and cuts, {faults} faults; {} entries acknowledged, {} read",
        format!("{kind:?}").to_lowercase(),
        counts.acked,
        counts.read
    );
}

#[tokio::main]
async fn main() {
    let Arguments { minutes, kills, seed, only } = Arguments::parse();
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    let kinds = if only.is_empty() { Kind::value_variants().to_vec() } else { only };
    let mut seed = seed.unwrap_or_else(|| rand::random::<u64>() >> 16);
    let mut totals: BTreeMap<Kind, (u64, Done)> = BTreeMap::new();
    let mut number = 0;
    while number == 0 || Instant::now() < end {
        let kind = kinds[number as usize % kinds.len()];
        println!("--- {kind:?} {}", number / kinds.len() as u64);
        match kill_loop(shape(kind, number / kinds.len() as u64), kills, seed).await {
            Ok(done) => {
                let (loops, total) = totals.entry(kind).or_default();
                *loops += 1;
                *total += done;
            }
            Err(why) => println!("not run: {why}"),
        }
        number += 1;
        seed += 1;
    }
    println!("---");
    let mut all = (0, 0, 0);
    for (kind, (loops, done)) in &totals {
        show(*kind, *loops, done);
        all = (all.0 + loops, all.1 + done.ends, all.2 + done.faults);
    }
    println!("{} schedules, {} kills and cuts, {} faults: nothing lost, nothing doubled", all.0, all.1, all.2);
}
