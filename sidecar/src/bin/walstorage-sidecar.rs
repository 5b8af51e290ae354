//! The sidecar's program; everything is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use walstorage_sidecar::serve::command::{self, CommandLine};

fn main() -> ExitCode {
    command::run(CommandLine::parse())
}
