//! What every long-running command of the operator shares: how it is told what to do, how it says what it does, when it is
//! ready, who leads, and how it ends.
//!
//! 1. One TLS provider, [`install_tls`], first thing in `main`.
//! 2. One token ends the process; every task has an owner that joins it ([`Shutdown`]).
//! 3. Nothing reads or writes a resource before the cluster's schemas are new enough ([`schema`]).
//! 4. Two leaders break nothing: the Lease ([`election`]) only saves work. Safety is the compare-and-swap of the grant.

pub mod cache;
pub mod controller;
pub mod duration;
pub mod election;
pub mod events;
pub mod health;
mod http;
mod index;
mod last_words;
mod lease;
mod logs;
pub mod metrics;
pub mod options;
pub mod schema;
mod shutdown;
pub mod work;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::health::Health;
pub use self::http::serve;
pub use self::lease::{LeaseName, lead};
pub use self::logs::start as start_logs;
pub use self::shutdown::Shutdown;

/// Installs the one TLS provider. The first thing in `main`: a client that is made before it panics as soon as a second
/// provider is linked.
pub fn install_tls() {
    // An error says that one is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client for the cluster: the pod's service account, else the kubeconfig. Its user agent names the command.
///
/// # Errors
/// When there is neither, or what is there cannot be read.
pub async fn client(command: &str) -> anyhow::Result<Client> {
    let mut config =
        Config::infer().await.context("no cluster: neither a service account nor a kubeconfig was found")?;
    let agent = format!("walstorage-operator/{} ({command})", env!("CARGO_PKG_VERSION"));
    let agent = agent.parse().context("the user agent is no header")?;
    config.headers.push((hyper::header::USER_AGENT, agent));
    Client::try_from(config).context("the client for the cluster cannot be made")
}

/// Binds the port of health and metrics and serves it until the token is cancelled.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve_health(
    address: SocketAddr,
    health: Arc<Health>,
    registry: Registry,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "health and metrics are served");
    }
    Ok(tokio::spawn(serve(listener, health, Arc::new(registry), stop)))
}
