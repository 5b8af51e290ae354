//! `walstorage-cluster`: what `make cluster` and `make demo` run, and what a cluster runs of itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use walstorage_cluster_tests::{demo, init, process, supervisor};

#[derive(Parser)]
#[command(about = "Kubernetes on this machine, for tests and for a look")]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// Give a person a cluster with the charts, until Ctrl-C
    Up,
    /// Show the main job on a cluster, and count
    Demo,
    /// Own a cluster until standard input closes
    #[command(hide = true)]
    Supervise { spec: String },
    /// Become a command that dies with the thread that started it
    #[command(hide = true)]
    Tied {
        parent: i32,
        #[arg(long)]
        cgroup: Option<String>,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Be the first process of a node's namespaces
    #[command(hide = true)]
    Init { plan: PathBuf },
    /// Start the daemons of a node
    #[command(hide = true)]
    Boot { plan: String },
}

fn main() -> ExitCode {
    let done = match Cli::parse().part {
        Part::Up => person(demo::cluster()),
        Part::Demo => person(demo::demo()),
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

/// One thread, on which the process that started this one is watched.
fn person(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
