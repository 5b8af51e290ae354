//! Measures this build on this machine and prints a report.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it reports to a person")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use walstorage_tests::bench::load::{Over, Scenario, in_the_library, over_the_socket};
use walstorage_tests::bench::report::Report;
use walstorage_tests::bench::{Effort, floor, machine, memory, recovery};
use walstorage_tests::harness::{Setup, Sidecar, library};

/// Measures latency, throughput, recovery and memory, against what the disk does in the same run. Run a release build.
#[derive(Parser)]
struct Arguments {
    /// One short round: shows that everything works, its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Write the report here instead of to standard output.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Measure in a new folder below this one [default: the system's temporary folder].
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Measure recovery only.
    #[arg(long)]
    only_recovery: bool,
    /// Rounds of everything.
    #[arg(long)]
    rounds: Option<usize>,
}

const SCENARIOS: [(usize, usize); 6] = [(1, 1), (8, 1), (32, 1), (32, 100), (32, 1000), (1, 1000)];

/// One directory with room for everything that is measured.
fn setup(folder: &Option<PathBuf>) -> Setup {
    let setup = folder.as_ref().map_or_else(|| Setup::new(1), |folder| Setup::below(folder, 1));
    setup.set(r#"global_flush_threshold = "2Gi""#).set(r#"journal_max_bytes = "4Gi""#)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    effort.rounds = arguments.rounds.unwrap_or(effort.rounds);
    if cfg!(debug_assertions) {
        eprintln!("bench: this is no release build; its figures mean nothing");
    }
    let mut report = Report::default();
    let mut journals = Vec::new();
    for mib in effort.journals {
        eprintln!("bench: writing a journal of {mib} MiB");
        let setup = setup(&arguments.folder);
        recovery::write(&setup, *mib).await?;
        journals.push((*mib, Sidecar::new(setup)));
    }
    let sidecar = Sidecar::ready(setup(&arguments.folder)).await;
    let at_home = setup(&arguments.folder);
    let engine = library::ready(library::config(&at_home)).await;
    report.machine = machine::describe(at_home.root());
    for round in 1..=effort.rounds {
        eprintln!("bench: round {round} of {}", effort.rounds);
        let latencies = floor::measure(at_home.root(), effort.floor)?;
        report.floor.add(&latencies, 1e9 / latencies.mean());
        for (clients, collections) in SCENARIOS.into_iter().filter(|_| !arguments.only_recovery) {
            for over in [Over::Socket, Over::Library] {
                let scenario = Scenario { over, clients, collections };
                let measured = match over {
                    Over::Socket => over_the_socket(&sidecar.setup.socket(), scenario, effort.load).await?,
                    Over::Library => in_the_library(&engine, scenario, effort.load).await?,
                };
                report.loads.entry(scenario).or_default().add(&measured.latencies, measured.rate);
            }
        }
        for (mib, sidecar) in &mut journals {
            report.recoveries.entry(*mib).or_default().push(recovery::measure(sidecar).await?);
        }
        let mut idle = Sidecar::ready(Setup::new(1)).await;
        // The empty frame after a second without commits is the last thing that an idle sidecar does.
        tokio::time::sleep(Duration::from_secs(2)).await;
        report.idle.add(memory::mib(idle.pid(), "VmRSS")?);
        idle.kill();
    }
    engine.shutdown().await;
    let text = report.markdown(effort)?;
    match arguments.report {
        Some(path) => std::fs::write(path, text)?,
        None => print!("{text}"),
    }
    Ok(())
}
