//! The command `webhook`: caches, certificates, the two ports, and the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::live::Live;
use super::patch::Settings;
use super::server::{Service, serve};
use crate::certificates::served::{Served, keep_fresh};
use crate::certificates::trusted::keep_trusted;
use crate::process::health::Health;
use crate::process::metrics::{CertificateMetrics, WebhookMetrics, registry};
use crate::process::options::ProcessOptions;
use crate::process::{Shutdown, client, duration, schema, serve_health, start_logs};

/// What `webhook` is told.
#[derive(Args, Clone, Debug)]
pub struct WebhookOptions {
    /// Flags of every long-running command.
    #[command(flatten)]
    pub process: ProcessOptions,

    /// Where the API server calls: TLS, POST /mutate
    #[arg(long, value_name = "ADDRESS", env = "WALSTORAGE_OPERATOR_LISTEN", default_value = "0.0.0.0:10250")]
    pub listen: SocketAddr,

    /// The Secret with the certificate, in the operator's own namespace
    #[arg(long, value_name = "NAME", env = "WALSTORAGE_OPERATOR_TLS_SECRET", default_value = "walstorage-webhook-tls")]
    pub tls_secret: String,

    /// The MutatingWebhookConfiguration that must trust it before the webhook is ready
    #[arg(
        long,
        value_name = "NAME",
        env = "WALSTORAGE_OPERATOR_WEBHOOK_CONFIGURATION",
        default_value = "walstorage-webhook"
    )]
    pub webhook_configuration: String,

    /// The image of the sidecars
    #[arg(long, value_name = "IMAGE", env = "WALSTORAGE_OPERATOR_SIDECAR_IMAGE")]
    pub sidecar_image: String,

    /// The imagePullPolicy of the sidecars
    #[arg(long, value_name = "POLICY", env = "WALSTORAGE_OPERATOR_SIDECAR_PULL_POLICY", default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub sidecar_pull_policy: String,

    /// How long a writer that was proposed to a pod is proposed to no other
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_RESERVATION", default_value = "30s", value_parser = duration::parse)]
    pub reservation: Duration,

    /// How long a question to the API server may take; below the timeout of the webhook's configuration
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_LOOKUP_TIMEOUT", default_value = "2s", value_parser = duration::parse)]
    pub lookup_timeout: Duration,

    /// How often the certificate is read again, beside the watch of its Secret
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_TLS_RESYNC", default_value = "30s", value_parser = duration::parse)]
    pub tls_resync: Duration,

    /// How long requests are still taken after SIGTERM, until nobody sends any
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_DRAIN", default_value = "3s", value_parser = duration::parse)]
    pub drain: Duration,

    /// How long requests under way may take after that
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_STOP_TIMEOUT", default_value = "10s", value_parser = duration::parse)]
    pub stop_timeout: Duration,
}

/// Runs until SIGTERM or SIGINT. Logs are started here, TLS must be installed before.
///
/// # Errors
/// When it cannot start.
pub async fn run(options: WebhookOptions) -> anyhow::Result<()> {
    start_logs(options.process.log_format, &options.process.log).map_err(|error| anyhow!(error))?;
    let shutdown = Shutdown::on_signals()?;
    let stop = shutdown.token();
    let client = client("webhook").await?;
    let namespace = options.process.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace, "starting");

    let mut registry = registry();
    let metrics = WebhookMetrics::register(&mut registry);
    let certificate_metrics = CertificateMetrics::register(&mut registry);
    let health = Health::new();
    let (schema_gate, tls_gate) =
        (health.gate("schema", "not looked at yet"), health.gate("certificate", "not read yet"));
    let trust_gate = health.gate("trust", "not looked at yet");
    let running = health.gate("process", "starting");
    // The health port outlives the others: whoever asks during the end is told that it ends.
    let ended = CancellationToken::new();
    let port = serve_health(options.process.health, Arc::clone(&health), registry, ended.clone()).await?;

    schema::wait(&client, &schema_gate, options.process.schema_retry, &stop).await;
    let live = Live::new(client.clone(), options.lookup_timeout);
    let quiet = CancellationToken::new();
    let mut tasks = live.watch(&health, &quiet);
    let served = Served::new();
    tasks.spawn(keep_trusted(
        client.clone(),
        options.webhook_configuration.clone(),
        options.tls_resync,
        Arc::clone(&served),
        trust_gate,
        quiet.clone(),
    ));
    tasks.spawn(keep_fresh(
        client,
        (namespace, options.tls_secret.clone()),
        options.tls_resync,
        Arc::clone(&served),
        tls_gate,
        certificate_metrics,
        quiet.clone(),
    ));

    let settings = Settings { image: options.sidecar_image.clone(), pull_policy: options.sidecar_pull_policy.clone() };
    let hold = i64::try_from(options.reservation.as_millis()).unwrap_or(i64::MAX);
    let service = Arc::new(Service { admission: Admission::new(live, settings, hold), metrics });
    let listener =
        TcpListener::bind(options.listen).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    tracing::info!(address = %listener.local_addr()?, "admission requests are served");
    let closed = CancellationToken::new();
    let acceptor = TlsAcceptor::from(served.server_config()?);
    let serving = tokio::spawn(serve(listener, acceptor, service, options.stop_timeout, closed.clone()));
    running.open();

    stop.cancelled().await;
    // No longer ready: endpoints are removed, and requests that are sent until then are answered.
    running.close("ending");
    sleep(options.drain).await;
    closed.cancel();
    serving.await?;
    quiet.cancel();
    while tasks.join_next().await.is_some() {}
    ended.cancel();
    port.await?;
    Ok(())
}
