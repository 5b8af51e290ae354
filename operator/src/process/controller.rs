//! The command `controller`: everything but the webhook.

use std::sync::Arc;

use anyhow::anyhow;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use walstorage_crds::names;

use super::cache::Caches;
use super::election::Times;
use super::events::Events;
use super::health::Health;
use super::metrics::{self, CertificateMetrics, ControllerMetrics};
use super::options::{ControllerOptions, LeaseOptions};
use super::{LeaseName, Shutdown, client, lead, schema, serve_health, start_logs};
use crate::certificates::keeper::Keeper;
use crate::observe::{Asking, Observations};
use crate::{observe, storage, writer};

/// Storages of which sidecars said something new, and that nobody has looked at yet.
const NEWS: usize = 1024;

/// What every controller works with. Cloned freely.
#[derive(Clone)]
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// Where events are handed in.
    pub events: Events,
    /// What is counted.
    pub metrics: Arc<ControllerMetrics>,
    /// What the process was told.
    pub options: Arc<ControllerOptions>,
    /// The operator's own namespace.
    pub namespace: String,
    /// This replica's name.
    pub identity: String,
    /// Makes and rotates the webhook's certificates.
    pub certificates: Keeper,
}

/// Runs until SIGTERM or SIGINT. Logs are started here, TLS must be installed before.
///
/// # Errors
/// When it cannot start, or a controller fails in a way that trying again does not mend.
pub async fn run(options: ControllerOptions) -> anyhow::Result<()> {
    start_logs(options.process.log_format, &options.process.log).map_err(|error| anyhow!(error))?;
    options.lease.check().map_err(|error| anyhow!(error))?;
    let shutdown = Shutdown::on_signals()?;
    let stop = shutdown.token();
    let client = client("controller").await?;
    let namespace = options.process.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let identity = identity(&options.lease);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace, identity, "starting");

    let mut registry = metrics::registry();
    let metrics = ControllerMetrics::register(&mut registry);
    let certificates = CertificateMetrics::register(&mut registry);
    let health = Health::new();
    let (schema_gate, lease_gate) = (health.gate("schema", "not looked at yet"), health.gate("lease", "not read yet"));
    let port = serve_health(options.process.health, health, registry, stop.child_token()).await?;

    let certificates = Keeper::new(client.clone(), namespace.clone(), options.certificates.clone(), certificates);
    schema::wait(&client, &schema_gate, options.process.schema_retry, &stop).await;
    // Whoever comes first, so that the webhook does not wait for a leader.
    if let Err(error) = certificates.ensure().await {
        tracing::warn!(error = format!("{error:#}"), "the leader will make the webhook's certificates");
    }
    // Ends after the controllers, so that their last words are published.
    let quiet = CancellationToken::new();
    let (events, publisher) = Events::start(
        client.clone(),
        (names::CONTROLLER, identity.clone()),
        metrics.events_dropped.clone(),
        quiet.clone(),
    );
    let times = times(&options.lease);
    let options = Arc::new(options);
    let context = Context { client: client.clone(), events, metrics, options, namespace, identity, certificates };
    let lease = LeaseName { namespace: context.namespace.clone(), name: names::CONTROLLER.to_owned() };
    let identity = context.identity.clone();
    let work = move |stop: CancellationToken| controllers(context.clone(), stop);
    let led = lead(client, lease, identity, times, lease_gate, work, stop.clone()).await;
    stop.cancel();
    quiet.cancel();
    publisher.await?;
    port.await?;
    led
}

/// What only the leader runs.
async fn controllers(context: Context, stop: CancellationToken) -> anyhow::Result<()> {
    let mut watches = JoinSet::new();
    let caches = Caches::start(&context.client, &mut watches, &stop).await;
    context.metrics.leader.set(1);
    let mut running: JoinSet<anyhow::Result<()>> = JoinSet::new();
    let (certificates, until) = (context.certificates.clone(), stop.clone());
    running.spawn(async move {
        certificates.run(until).await;
        Ok(())
    });
    if let Some(caches) = caches {
        let (observations, (news, heard)) = (Observations::default(), mpsc::channel(NEWS));
        let asking = Asking { observations: observations.clone(), news };
        running.spawn(observe::run(context.clone(), caches.clone(), asking, stop.clone()));
        running.spawn(storage::run(context.clone(), caches.clone(), observations, heard, stop.clone()));
        running.spawn(writer::run(context.clone(), caches, stop.clone()));
    }
    let mut ended = Ok(());
    while let Some(done) = running.join_next().await {
        let done = done.map_err(anyhow::Error::from).and_then(|done| done);
        if done.is_err() {
            // One that fails ends the others, and so the process: it starts anew with caches that are.
            stop.cancel();
        }
        ended = ended.and(done);
    }
    context.metrics.leader.set(0);
    stop.cancel();
    watches.join_all().await;
    ended
}

fn times(options: &LeaseOptions) -> Times {
    let LeaseOptions { identity: _, lease_duration, lease_renew, lease_retry } = options;
    Times { duration: *lease_duration, renew: *lease_renew, retry: *lease_retry }
}

/// Unique for each start, so that a process never takes its predecessor's Lease for its own.
fn identity(options: &LeaseOptions) -> String {
    options.identity.clone().unwrap_or_else(|| {
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "controller".to_owned());
        format!("{host}_{}", uuid::Uuid::new_v4())
    })
}
