//! Measures WalStorage and what people would use instead, on this machine in this run, and writes `docs/benchmarks.md`.
//!
//! 1. Every figure is measured in rounds, in which all take turns: a slow minute of the machine touches all alike. A report
//!    gives medians with the lowest and the highest round, and ratios of medians.
//! 2. The same durability for all: a sync before each acknowledgement, seen in the kernel's record of calls (`syncs`).
//! 3. Nothing is typed by hand: the report says what ran, on what, and all its numbers, those where we lose too. Its last
//!    section is written by people, and kept.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a person")]

mod effort;
mod failure;
mod figures;
mod history;
mod machine;
mod measured;
mod memory;
mod ours;
mod recovery;
mod redis_benchmark;
mod report;
mod rounds;
mod server;
mod spread;
mod subject;
mod syncs;
mod targets;
mod wire;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use walstorage_tests::harness::Setup;

use self::effort::Effort;
use self::subject::Setting;

/// Bytes of payload in each entry.
const PAYLOAD: usize = 1024;

/// One of our writers with room for everything that is measured. Applied entries are truncated long before a flush of a
/// collection would be due.
fn setup(folder: &Path) -> Setup {
    Setup::below(folder, 1)
        .set(r#"global_flush_threshold = "2Gi""#)
        .set(r#"journal_max_bytes = "4Gi""#)
        .set(r#"memory_flush_size_bytes = "1Gi""#)
}

/// Measures appends, recovery, starts, failures and memory, beside peers and the raw disk. Run a release build.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Fewer and shorter rounds: about three minutes.
    #[arg(long, global = true)]
    quick: bool,
    /// Write the report here instead of to standard output; the last section of what is there is kept.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Measure in a new folder below this one [default: the system's temporary folder].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Where the programs of peers are that are not on the path.
    #[arg(long, default_value = ".")]
    peers: PathBuf,
    /// Rounds of everything.
    #[arg(long)]
    rounds: Option<usize>,
    /// A folder on another device than the first: measures what a second directory there adds.
    #[arg(long)]
    second_folder: Option<PathBuf>,
    /// Measure appends only.
    #[arg(long, conflicts_with = "no_appends")]
    only_appends: bool,
    /// Measure everything but appends.
    #[arg(long)]
    no_appends: bool,
}

#[derive(Subcommand)]
enum Part {
    /// One log in this process, told by standard input what to do. Started by this program itself.
    #[command(hide = true)]
    Subject {
        kind: subject::Kind,
        folder: PathBuf,
        #[arg(long, default_value_t = 1)]
        collections: usize,
        #[arg(long)]
        second: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Part::Subject { kind, folder, collections, second }) = arguments.part {
        return subject::run(&Setting { kind, folder, collections, second });
    }
    let mut effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    effort.rounds = arguments.rounds.unwrap_or(effort.rounds);
    if cfg!(debug_assertions) {
        eprintln!("bench: this is no release build; its figures mean nothing");
    }
    let below = arguments.folder.unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(below)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plan = rounds::Plan {
        effort,
        folder: folder.path().to_owned(),
        peers: arguments.peers,
        second: arguments.second_folder.filter(|second| machine::on_another_device(folder.path(), second)),
        only_appends: arguments.only_appends,
        no_appends: arguments.no_appends,
    };
    let figures = runtime.block_on(rounds::run(&plan))?;
    let text = report::markdown(&figures)?;
    match arguments.report {
        Some(path) => {
            let before = std::fs::read_to_string(&path).unwrap_or_default();
            std::fs::write(&path, report::with_last_section(&text, &before))?;
            print!("{}", targets::table(&figures)?);
        }
        None => print!("{text}"),
    }
    Ok(())
}
