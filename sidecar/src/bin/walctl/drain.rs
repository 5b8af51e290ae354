//! `walctl drain`: empties every disk into the buckets of the log, while it serves, and waits until that is done. Also with
//! `--config` without a sidecar: an engine is started in this process, drained, and stopped.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;
use walstorage_sidecar::engine::Engine;
use walstorage_sidecar::error::Reason;
use walstorage_sidecar::proto::errors::error_info;
use walstorage_sidecar::proto::{Directory, DrainReply, DrainRequest, GetStatusRequest, Status};
use walstorage_sidecar::server::status;

use crate::Global;
use crate::connect::{Client, connect};
use crate::directory::{Offline, open, refused};
use crate::failure::Failure;
use crate::output::{self, Output, bytes};
use crate::progress::Progress;
use crate::status::directory_notes;

/// How often it is asked how much is left.
const LOOK: Duration = Duration::from_millis(100);
/// How often what is left is said where nobody sees a bar.
const TELL: Duration = Duration::from_secs(10);
/// So long a sidecar that gives no answer is waited for: it may be starting again.
const SILENT: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
#[command(
    after_help = "Entries and segments go to the bucket URLs of the configuration; reads and appends go on meanwhile.\n\
    When it ends with 0, nothing on a disk is needed any more: the disks may be taken away, and every later start reads all\n\
    from the buckets. Until the sidecar is restarted it writes to buckets only; a disk that is still configured at the next\n\
    start is used again, as an empty one.\n\n\
    Interrupted, or with exit 1, everything is where it was, or in both places: call it again."
)]
pub(crate) struct DrainArgs {
    /// Give up after so many seconds; what was moved stays moved
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    offline: Offline,
}

/// Whoever empties the log.
enum Drained {
    Sidecar(Box<Client>),
    Here(Engine),
}

/// What is heard of it.
enum Heard {
    /// So many bytes are left.
    Left(u64),
    /// It is not ready, and says why.
    Waits(Failure),
    /// It gives no answer.
    Silent(Failure),
}

impl Drained {
    async fn drain(&mut self) -> Result<Heard, Failure> {
        let failed = match self {
            Self::Sidecar(client) => match client.drain(DrainRequest {}).await {
                Ok(reply) => return Ok(Heard::Left(reply.into_inner().bytes_left)),
                Err(status) => status,
            },
            Self::Here(engine) => {
                return match engine.drain() {
                    Ok(left) => Ok(Heard::Left(left)),
                    Err(error) if error.reason == Reason::NotReady => Ok(Heard::Waits(refused(error))),
                    Err(error) => Err(refused(error)),
                };
            }
        };
        let reason = error_info(&failed).map(|(reason, _)| reason);
        let is = |wanted: Reason| reason.as_deref() == Some(wanted.as_str());
        if is(Reason::NotReady) {
            return Ok(Heard::Waits(failed.into()));
        }
        if reason.is_none() || is(Reason::ShuttingDown) {
            return Ok(Heard::Silent(failed.into()));
        }
        Err(failed.into())
    }

    async fn directories(&mut self) -> Vec<Directory> {
        match self {
            Self::Sidecar(client) => {
                let reply = client.get_status(GetStatusRequest {}).await.map(tonic::Response::into_inner);
                reply.map(|Status { directories, .. }| directories).unwrap_or_default()
            }
            Self::Here(engine) => engine.status().directories.into_iter().map(status::directory).collect(),
        }
    }
}

pub(crate) async fn run(global: &Global, args: DrainArgs) -> Result<(), Failure> {
    let DrainArgs { timeout, offline: Offline { config } } = args;
    let mut drained = match config {
        Some(config) => Drained::Here(open(&config).await?.0),
        None => Drained::Sidecar(Box::new(connect(&global.socket).await?)),
    };
    let end = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let result = wait(global, &mut drained, end).await;
    let directories = drained.directories().await;
    if let Drained::Here(engine) = drained {
        engine.shutdown().await;
    }
    result?;
    if global.output == Output::Json {
        return output::json(&DrainReply { bytes_left: 0 });
    }
    for Directory { url, .. } in directories.iter().filter(|directory| directory.draining && !directory.in_use) {
        output::line(&format!("{url}: nothing in it is needed any more; it may be removed"))?;
    }
    output::line("everything is in buckets")
}

/// Until nothing is left.
async fn wait(global: &Global, drained: &mut Drained, end: Option<Instant>) -> Result<(), Failure> {
    let mut progress = Progress::new("bytes", Some(0));
    let (mut most, mut told, mut answered) = (0, Instant::now(), Instant::now());
    loop {
        let heard = drained.drain().await?;
        match &heard {
            Heard::Left(0) => return Ok(()),
            Heard::Left(left) => {
                most = most.max(*left);
                progress.of(most - left, most);
            }
            Heard::Waits(_) => {}
            Heard::Silent(_) => {
                if let (Drained::Sidecar(client), Ok(again)) = (&mut *drained, connect(&global.socket).await) {
                    **client = again;
                }
            }
        }
        let now = Instant::now();
        if !matches!(heard, Heard::Silent(_)) {
            answered = now;
        }
        let over = end.is_some_and(|end| end <= now) || now >= answered + SILENT;
        if !over && (progress.is_shown() || now < told + TELL) {
            tokio::time::sleep(LOOK).await;
            continue;
        }
        told = now;
        let state = match heard {
            Heard::Left(left) => Failure::failed(format!("{} are still to be moved", bytes(left))),
            Heard::Waits(failure) | Heard::Silent(failure) => failure,
        };
        let directories = drained.directories().await;
        let notes: String = directories.iter().flat_map(directory_notes).map(|note| format!("\n  {note}")).collect();
        let state = state.and(notes);
        if over {
            return Err(state);
        }
        let _ = writeln!(std::io::stderr(), "{}", state.message());
    }
}
