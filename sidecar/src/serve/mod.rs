//! The process around the engine: from command line, environment and file to a running server, and from a signal to an
//! exit code.
//!
//! 1. What is wrong with the configuration ends a start at once (exit 2); what is wrong with storage never does.
//! 2. A stop answers everything that was accepted; a second signal changes nothing.

pub mod client;
pub mod command;
mod exit;
mod grant;
pub mod logs;
mod options;
mod reload;
mod termination;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use walstorage_crds::config::Config;

pub use self::exit::Exit;
use self::options::Resolved;
pub use self::options::ServeArgs;
use self::reload::Reload;
use self::termination::Termination;
use crate::engine::{Ended, Engine, Leftover, Options, StartError};
use crate::metrics::Metrics;
use crate::server::status::ConfigReport;
use crate::server::{Server, socket};

/// Threads for what blocks: reads of segments ([`crate::engine::OPEN_SEGMENTS`] at a time) leave some to what a bucket's
/// requests need in turn, files of credentials and names of hosts. Those who waited for each other would wait for ever.
const BLOCKING: usize = crate::engine::OPEN_SEGMENTS + 16;

/// How long connections may take to deliver their last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until a signal, or until the engine ends by itself.
#[must_use]
pub fn run(args: &ServeArgs) -> Exit {
    let termination = Termination::open(args.termination_log.as_ref());
    let resolved = match options::resolve(args) {
        Ok(resolved) => resolved,
        Err(exit) => {
            termination.write(&exit, None, None);
            return exit;
        }
    };
    let grant = resolved.grant.clone();
    let (exit, leftover) = match runtime() {
        Ok(runtime) => {
            let ended = runtime.block_on(serve(resolved));
            // Whatever still runs holds no answer that anybody waits for.
            runtime.shutdown_background();
            ended
        }
        Err(e) => (Exit::other(format!("cannot start threads: {e}")), None),
    };
    termination.write(&exit, grant.as_ref(), leftover.as_ref());
    exit
}

/// What an engine needs to open the directories of a configuration file, as `serve` would with the same environment.
///
/// # Errors
/// Whatever would end `serve` at once.
pub fn engine_options(config: &Path) -> Result<Options, Exit> {
    let args = ServeArgs { config: Some(config.to_owned()), ..ServeArgs::from_environment() };
    let resolved = options::resolve(&args)?;
    let observer = Metrics::new(resolved.url_names());
    let Resolved { file: _, loaded, require_mounts, grant } = resolved;
    Ok(Options { config: loaded.config, require_mounts, grant, observer })
}

/// Worker threads by the cgroup's CPU quota (which `available_parallelism` knows), not by the host's cores. One core is
/// left to the committers and to the clients, which share it: where there are two, a second worker would be woken and
/// put to sleep for each append that the first one could have taken.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).saturating_sub(1).clamp(1, 4);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(BLOCKING)
        .thread_name("walstorage-io")
        .enable_all()
        .build()
}

async fn serve(resolved: Resolved) -> (Exit, Option<Leftover>) {
    match serve_until_the_end(resolved).await {
        Ok((ended, leftover)) => (ended.into(), leftover),
        Err(exit) => (exit, None),
    }
}

/// Serves; `Err` where the engine did not start.
async fn serve_until_the_end(resolved: Resolved) -> Result<(Ended, Option<Leftover>), Exit> {
    let metrics = Metrics::new(resolved.url_names());
    let Resolved { file, loaded, require_mounts, grant } = resolved;
    let config = loaded.config;
    let socket_path = config.sidecar.socket.clone();
    let mut signals = Signals::new().map_err(|e| Exit::other(format!("cannot wait for signals: {e}")))?;
    let listener = socket::listen(&socket_path).await.map_err(|e| Exit::other(e.to_string()))?;
    let _socket_file = SocketFile(&socket_path);
    let admin = match config.sidecar.admin_address {
        None => None,
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .map_err(|e| Exit::other(format!("cannot listen at sidecar.admin_address {address}: {e}")))?,
        ),
    };
    let options = Options { config: config.clone(), require_mounts, grant, observer: metrics.clone() };
    let engine = Engine::start(options).map_err(|e| match e {
        StartError::Configuration(message) => Exit::configuration(vec![message]),
        StartError::Other(message) => Exit::other(message),
    })?;
    let report = Arc::new(Mutex::new(ConfigReport {
        hash: loaded.hash,
        error: String::new(),
        pending_restart: Vec::new(),
        warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
    }));
    started(&config, admin.as_ref());
    let server = Server::new(engine.clone(), metrics, report.clone());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn({
        let server = server.clone();
        async move { server.serve_socket(listener).await }
    });
    if let Some(admin) = admin {
        let server = server.clone();
        tasks.spawn(async move { server.serve_admin(admin).await });
    }
    let reload = tokio::spawn(Reload::new(file, config, engine.clone(), report).run());
    let ended = until_the_end(&engine, &server, &mut signals).await;
    reload.abort();
    server.close(LAST_ANSWERS).await;
    tasks.join_all().await;
    tracing::info!(?ended, "stopped");
    Ok((ended, engine.leftover()))
}

fn started(config: &Config, admin: Option<&TcpListener>) {
    let admin = admin.and_then(|listener| listener.local_addr().ok()).map(|address| address.to_string());
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %config.sidecar.socket.display(),
        admin = admin.as_deref().unwrap_or("off"),
        directories = config.wal.wal_urls.iter().map(|url| url.as_str()).collect::<Vec<_>>().join(" "),
        "listening"
    );
}

async fn until_the_end(engine: &Engine, server: &Server, signals: &mut Signals) -> Ended {
    tokio::select! {
        ended = engine.ended() => return ended,
        name = signals.next() => tracing::info!(signal = name, "stopping: new calls are refused, accepted ones answered"),
    }
    server.refuse_new();
    let shutdown = engine.shutdown();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            ended = &mut shutdown => return ended,
            name = signals.next() => {
                tracing::warn!(signal = name, "already stopping; another signal does not make it faster");
            }
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Our socket's file, removed at the end.
struct SocketFile<'a>(&'a Path);

impl Drop for SocketFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}
