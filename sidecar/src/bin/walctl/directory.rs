//! `walctl directory`: list directories, or record the loss of one. Both also work while the sidecar is not ready, and
//! with `--config` without a sidecar: an engine is started in this process, asked, and stopped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use walstorage_sidecar::engine::Engine;
use walstorage_sidecar::engine::api::{EngineStatus, Phase};
use walstorage_sidecar::error::{ApiError, Reason};
use walstorage_sidecar::proto::{
    Directory, ForgetDirectoryReply, ForgetDirectoryRequest, ListDirectoriesReply, ListDirectoriesRequest,
};
use walstorage_sidecar::serve::{Exit, engine_options};
use walstorage_sidecar::server::convert::directory_id;
use walstorage_sidecar::server::status;

use crate::Global;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::progress::Progress;
use crate::status::show_directories;

#[derive(Debug, Subcommand)]
pub(crate) enum DirectoryCommand {
    /// List directories
    List(Offline),
    /// Give up a missing, lost or failed directory: what only it held is recorded as gaps. Cannot be undone
    Forget {
        /// Its uuid
        uuid: String,
        /// Yes, really
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        offline: Offline,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Offline {
    /// Without a sidecar: open the directories of this configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

pub(crate) async fn run(global: &Global, command: DirectoryCommand) -> Result<(), Failure> {
    match command {
        DirectoryCommand::List(Offline { config: None }) => {
            let mut client = connect(&global.socket).await?;
            let reply = client.list_directories(ListDirectoriesRequest {}).await?.into_inner();
            list(global, reply.directories)
        }
        DirectoryCommand::List(Offline { config: Some(config) }) => {
            let (engine, status) = open(&config).await?;
            engine.shutdown().await;
            list(global, status.directories.into_iter().map(status::directory).collect())
        }
        DirectoryCommand::Forget { uuid, yes, offline: Offline { config } } => {
            confirm(&uuid, yes)?;
            let reply = match config {
                None => {
                    let mut client = connect(&global.socket).await?;
                    client.forget_directory(ForgetDirectoryRequest { uuid }).await?.into_inner()
                }
                Some(config) => {
                    let directory = directory_id(&uuid).map_err(refused)?;
                    let (engine, _) = open(&config).await?;
                    let forgotten = engine.forget_directory(directory).await;
                    engine.shutdown().await;
                    forgotten.map_err(refused)?;
                    ForgetDirectoryReply { uuid: directory.to_string() }
                }
            };
            match global.output {
                Output::Json => output::json(&reply),
                Output::Table | Output::Raw => {
                    output::line(&format!("directory {} is forgotten; what only it held is now a gap", reply.uuid))
                }
            }
        }
    }
}

fn confirm(uuid: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::usage(format!("this gives up whatever only directory {uuid} holds, for good: say so with --yes")))
}

fn list(global: &Global, directories: Vec<Directory>) -> Result<(), Failure> {
    match global.output {
        Output::Json => output::json(&ListDirectoriesReply { directories }),
        Output::Table | Output::Raw => show_directories(directories),
    }
}

pub(crate) fn refused(error: ApiError) -> Failure {
    match error.reason {
        Reason::NotReady => Failure::not_ready(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}

/// How often recovery is asked how far it is.
const LOOK: Duration = Duration::from_millis(20);

/// Starts an engine and waits until recovery is done or cannot go on by itself.
pub(crate) async fn open(config: &Path) -> Result<(Engine, EngineStatus), Failure> {
    let wrong = |exit: Exit| match exit.code() {
        2 => Failure::usage(exit.messages.join("\n")),
        _ => Failure::failed(exit.messages.join("\n")),
    };
    let options = engine_options(config).map_err(wrong)?;
    let engine = Engine::start(options).map_err(|e| Failure::failed(e.to_string()))?;
    let mut progress = Progress::new("bytes of journals", Some(0));
    loop {
        let status = engine.status();
        match status.phase {
            Phase::Ready | Phase::Draining => return Ok((engine, status)),
            Phase::Waiting => {
                // Another process has a directory: what is seen here may change at any moment.
                if let Some(locked) = status.waiting_for.iter().find(|what| what.contains("LOCKED")) {
                    let failure = Failure::not_ready(locked.clone());
                    engine.shutdown().await;
                    return Err(failure);
                }
                return Ok((engine, status));
            }
            Phase::Recovering => progress.of(status.replay_done_bytes, status.replay_total_bytes),
            Phase::Stopping | Phase::Fenced => return Err(wrong(Exit::from(engine.ended().await))),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            ended = engine.ended() => return Err(wrong(Exit::from(ended))),
        }
    }
}
