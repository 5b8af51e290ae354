//! `walstorage-cluster`: what the test cluster runs of itself. Nobody types these: tests and `make cluster` do.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use walstorage_cluster_tests::{init, process, supervisor};

#[derive(Parser)]
#[command(about = "Parts of the test cluster")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Own a cluster until standard input closes
    Supervise { spec: String },
    /// Become a command that dies with the thread that started it
    Tied {
        parent: i32,
        #[arg(long)]
        cgroup: Option<String>,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Be the first process of a node's namespaces
    Init { plan: PathBuf },
    /// Start the daemons of a node
    Boot { plan: String },
}

fn main() -> ExitCode {
    let done = match Cli::parse().part {
        Part::Supervise { spec } => supervisor::run(&spec),
        Part::Tied { parent, cgroup, command } => {
            process::tie(parent, cgroup.as_deref(), &command).map(|never| match never {})
        }
        Part::Init { plan } => init::run(&plan).map(|never| match never {}),
        Part::Boot { plan } => init::boot(&plan).map(|never| match never {}),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("walstorage-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}
