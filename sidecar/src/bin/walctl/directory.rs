//! `walctl directory`: list directories, or record the loss of one. Both also work while the sidecar is not ready.

use clap::Subcommand;
use walstorage_sidecar::proto::{ForgetDirectoryReply, ForgetDirectoryRequest, ListDirectoriesRequest};

use crate::Global;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::status::show_directories;

#[derive(Debug, Subcommand)]
pub(crate) enum DirectoryCommand {
    /// List directories
    List,
    /// Give up a missing, lost or failed directory: what only it held is recorded as gaps. Cannot be undone
    Forget {
        /// Its uuid
        uuid: String,
        /// Yes, really
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(global: &Global, command: DirectoryCommand) -> Result<(), Failure> {
    match command {
        DirectoryCommand::List => {
            let mut client = connect(&global.socket).await?;
            let reply = client.list_directories(ListDirectoriesRequest {}).await?.into_inner();
            match global.output {
                Output::Json => output::json(&reply),
                Output::Table | Output::Raw => show_directories(reply.directories),
            }
        }
        DirectoryCommand::Forget { uuid, yes } => {
            confirm(&uuid, yes)?;
            let mut client = connect(&global.socket).await?;
            let reply = client.forget_directory(ForgetDirectoryRequest { uuid }).await?.into_inner();
            forgotten(global, &reply)
        }
    }
}

fn confirm(uuid: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::usage(format!("this gives up whatever only directory {uuid} holds, for good: say so with --yes")))
}

fn forgotten(global: &Global, reply: &ForgetDirectoryReply) -> Result<(), Failure> {
    match global.output {
        Output::Json => output::json(reply),
        Output::Table | Output::Raw => {
            output::line(&format!("directory {} is forgotten; what only it held is now a gap", reply.uuid))
        }
    }
}
