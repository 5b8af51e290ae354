//! `walctl`: the log for people and scripts. Each command is a module; this file is the command line and the exit codes:
//! 0 done, 1 failed, 2 usage, 3 not ready or locked.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod append;
mod bench;
mod collections;
mod connect;
mod directory;
mod drain;
mod failure;
mod output;
mod progress;
mod read;
mod selftest;
mod status;
mod storage;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use walstorage_crds::config::DEFAULT_SOCKET;

use self::failure::Failure;
use self::output::Output;

/// Append to, read, look at and look after a WalStorage log.
#[derive(Debug, Parser)]
#[command(
    name = "walctl",
    version,
    max_term_width = 100,
    after_help = "Try it:\n  \
    seq 100 | walctl append numbers\n  \
    walctl read numbers --limit 3\n  \
    walctl status\n  \
    walctl top\n\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 not ready or locked."
)]
struct CommandLine {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(clap::Args, Debug)]
struct Global {
    /// The sidecar's unix socket
    #[arg(long, global = true, value_name = "PATH", env = "WALSTORAGE_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// How to print; raw is for read: payloads, one a line
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Append standard input: each line is an entry, acknowledged when durable
    Append(append::AppendArgs),
    /// Read entries, and with --follow wait for more
    Read(read::ReadArgs),
    /// Forget everything up to and including an LSN
    Truncate(collections::TruncateArgs),
    /// Copy committed entries into a segment
    Flush(collections::Named),
    /// Delete a collection and all that is in it
    Delete(collections::DeleteArgs),
    /// List collections
    Collections,
    /// Show directories, configuration, writer and replay progress
    Status,
    /// Watch rates, directories and the busiest collections, drawn anew every second; q ends it
    Top(top::TopArgs),
    /// Measure appends through the socket, into a collection that is deleted afterwards
    Bench(bench::BenchArgs),
    /// Append 10 entries, read them back, compare, truncate, delete
    Selftest,
    /// List directories, or give one up
    #[command(subcommand)]
    Directory(directory::DirectoryCommand),
    /// Move everything to the bucket URLs, and wait until no disk is needed any more
    Drain(drain::DrainArgs),
    /// Without a sidecar: is everything that was acknowledged still there and whole?
    Verify(storage::VerifyArgs),
    /// Without a sidecar: print the records of a journal's file or a segment as lines of JSON
    Dump(storage::DumpArgs),
    /// Without a sidecar: write clean Avro files, one per collection
    Export(storage::ExportArgs),
}

fn main() -> ExitCode {
    let CommandLine { global, command } = CommandLine::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return Failure::failed(format!("cannot start: {e}")).report(),
    };
    let result = runtime.block_on(run(&global, command));
    // A read of standard input may still be blocked; nobody waits for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    if global.output == Output::Raw && !matches!(command, Command::Read(_)) {
        return Err(Failure::usage("--output raw is for read only: table or json here"));
    }
    match command {
        Command::Append(args) => append::run(global, args).await,
        Command::Read(args) => read::run(global, args).await,
        Command::Truncate(args) => collections::truncate(global, args).await,
        Command::Flush(args) => collections::flush(global, args).await,
        Command::Delete(args) => collections::delete(global, args).await,
        Command::Collections => collections::list(global).await,
        Command::Status => status::run(global).await,
        Command::Top(args) => top::run(global, args).await,
        Command::Bench(args) => bench::run(global, args).await,
        Command::Selftest => selftest::run(global).await,
        Command::Directory(command) => directory::run(global, command).await,
        Command::Drain(args) => drain::run(global, args).await,
        Command::Verify(args) => storage::verify(global, args).await,
        Command::Dump(args) => storage::dump(args).await,
        Command::Export(args) => storage::export(global, args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }
}
