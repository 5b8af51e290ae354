//! In the controller: makes the Secret, rotates it, and keeps the field `caBundle` of the webhook's configuration.
//!
//! Every replica makes the Secret where there is none; the leader does the rest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use rustls::ClientConfig;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use walstorage_crds::names::{ANNOTATION_ROTATE, ANNOTATION_ROTATED, CERTIFICATES};

use super::issue;
use super::material::Material;
use super::rotation::{Action, Life, Observed, Rotation, Waits};
use crate::process::duration;
use crate::process::metrics::CertificateMetrics;

/// How long one question, to the API server or to an endpoint, may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Who makes the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// This operator.
    Operator,
    /// cert-manager: the operator leaves the Secret and the configuration alone.
    CertManager,
}

/// What the controller is told about the webhook's certificates.
#[derive(Args, Clone, Debug)]
pub struct CertificateOptions {
    /// Who makes the webhook's certificates
    #[arg(long, value_enum, value_name = "WHO", env = "WALSTORAGE_OPERATOR_CERTIFICATES", default_value_t = Mode::Operator)]
    pub certificates: Mode,

    /// The Secret with them, in the operator's own namespace
    #[arg(long, value_name = "NAME", env = "WALSTORAGE_OPERATOR_TLS_SECRET", default_value = "walstorage-webhook-tls")]
    pub tls_secret: String,

    /// A name or address that the webhook is called by; several: repeat it. Default: `walstorage-webhook.<namespace>.svc`
    #[arg(long, value_name = "NAME", env = "WALSTORAGE_OPERATOR_TLS_NAME", value_delimiter = ',')]
    pub tls_name: Vec<String>,

    /// The MutatingWebhookConfiguration that is to trust them
    #[arg(
        long,
        value_name = "NAME",
        env = "WALSTORAGE_OPERATOR_WEBHOOK_CONFIGURATION",
        default_value = "walstorage-webhook"
    )]
    pub webhook_configuration: String,

    /// Label selector of the webhook's pods, in the operator's own namespace
    #[arg(
        long,
        value_name = "SELECTOR",
        env = "WALSTORAGE_OPERATOR_WEBHOOK_SELECTOR",
        default_value = "app.kubernetes.io/name=walstorage,app.kubernetes.io/component=webhook"
    )]
    pub webhook_selector: String,

    /// The port that these pods serve on
    #[arg(long, value_name = "PORT", env = "WALSTORAGE_OPERATOR_WEBHOOK_PORT", default_value_t = 10250)]
    pub webhook_port: u16,

    /// An address and port of a webhook outside of the cluster; several: repeat it
    #[arg(long, value_name = "ADDRESS", env = "WALSTORAGE_OPERATOR_WEBHOOK_ENDPOINT", value_delimiter = ',')]
    pub webhook_endpoint: Vec<String>,

    /// How often Secret and configuration are looked at, and healed
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_TLS_INTERVAL", default_value = "10s", value_parser = duration::parse)]
    pub tls_interval: Duration,

    /// How long an authority holds
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_TLS_CA_LIFE", default_value = "8760h", value_parser = duration::parse)]
    pub tls_ca_life: Duration,

    /// How long a certificate holds
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_TLS_LIFE", default_value = "720h", value_parser = duration::parse)]
    pub tls_life: Duration,

    /// How long both authorities are trusted before the new certificate is served
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_TLS_SETTLE", default_value = "15s", value_parser = duration::parse)]
    pub tls_settle: Duration,

    /// How long the old authority is trusted after every endpoint was seen with the new certificate
    #[arg(long, value_name = "TIME", env = "WALSTORAGE_OPERATOR_TLS_OVERLAP", default_value = "10m", value_parser = duration::parse)]
    pub tls_overlap: Duration,
}

/// Makes and rotates the certificates of one release.
#[derive(Clone)]
pub struct Keeper {
    client: Client,
    namespace: String,
    options: Arc<CertificateOptions>,
    names: Vec<String>,
    life: Life,
    metrics: Arc<CertificateMetrics>,
}

impl Keeper {
    /// A keeper for the operator in this namespace.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: String,
        options: CertificateOptions,
        metrics: Arc<CertificateMetrics>,
    ) -> Self {
        let names = match options.tls_name.as_slice() {
            [] => vec![format!("walstorage-webhook.{namespace}.svc")],
            given => given.iter().map(|name| plain(name)).collect(),
        };
        let life = Life { authority: options.tls_ca_life, leaf: options.tls_life };
        Self { client, namespace, options: Arc::new(options), names, life, metrics }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes the Secret where there is none. Any replica may do it, at any time.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn ensure(&self) -> anyhow::Result<()> {
        if self.options.certificates == Mode::CertManager || self.read().await?.is_some() {
            return Ok(());
        }
        let material = Material::create(&self.names, Timestamp::now().as_second(), self.life)?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.options.tls_secret.clone()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), "walstorage".to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(material.data()),
            ..Secret::default()
        };
        match ask(self.secrets().create(&PostParams::default(), &secret)).await? {
            Ok(_) => tracing::info!(secret = self.options.tls_secret, "certificates made"),
            // Another replica was first.
            Err(Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(error).context("the Secret of the certificates cannot be made"),
        }
        Ok(())
    }

    async fn read(&self) -> anyhow::Result<Option<Secret>> {
        let name = &self.options.tls_secret;
        ask(self.secrets().get_opt(name)).await?.with_context(|| format!("Secret {name} cannot be read"))
    }

    /// Keeps the certificates until the token is cancelled. For the leader.
    pub async fn run(&self, stop: CancellationToken) {
        if self.options.certificates == Mode::CertManager {
            return;
        }
        let waits = Waits { settle: self.options.tls_settle, overlap: self.options.tls_overlap };
        let mut rotation = Rotation::new(waits);
        loop {
            let acted = tokio::select! {
                () = stop.cancelled() => return,
                acted = self.look(&mut rotation) => acted,
            };
            let pause = match acted {
                // What was done is looked at at once.
                Ok(true) => Duration::from_millis(100),
                Ok(false) => self.options.tls_interval,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "certificates are looked at again later");
                    self.options.tls_interval
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// One look; says whether something was done.
    async fn look(&self, rotation: &mut Rotation) -> anyhow::Result<bool> {
        let now = Timestamp::now().as_second();
        let Some(secret) = self.read().await? else {
            self.ensure().await?;
            return Ok(true);
        };
        let annotations = secret.metadata.annotations.clone().unwrap_or_default();
        let asked =
            annotations.get(ANNOTATION_ROTATE).filter(|asked| annotations.get(ANNOTATION_ROTATED) != Some(asked));
        let material = match Material::read(&secret) {
            Ok(material) => material,
            Err(why) => {
                tracing::warn!(why, "the Secret's certificates are of no use and are made anew");
                self.replace(&secret, &Material::create(&self.names, now, self.life)?, None).await?;
                return Ok(true);
            }
        };
        let facts = material.facts(&self.names, now, asked.is_some()).map_err(anyhow::Error::msg)?;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        self.metrics.expiry.set(facts.leaf.1 as f64);
        let observed = Observed {
            bundle_read_back: self.published(&material).await?,
            endpoints_agree: !facts.overlap || facts.next || self.endpoints_agree(&material).await?,
        };
        let action = rotation.step(now, &facts, observed);
        if action != Action::Wait {
            tracing::info!(?action, "certificates");
        }
        match action {
            Action::Wait => return Ok(false),
            Action::Publish => self.publish(&material).await?,
            Action::Renew => self.replace(&secret, &material.renewed(&self.names, now, self.life)?, None).await?,
            Action::Begin => {
                let asked = asked.cloned();
                self.replace(&secret, &material.begun(&self.names, now, self.life)?, asked).await?;
            }
            Action::Switch => self.replace(&secret, &material.switched(), None).await?,
            Action::Drop => self.replace(&secret, &material.dropped(), None).await?,
        }
        Ok(true)
    }

    /// Replaces the Secret if nobody has changed it since.
    async fn replace(&self, old: &Secret, material: &Material, rotated: Option<String>) -> anyhow::Result<()> {
        let mut secret = Secret { data: Some(material.data()), ..old.clone() };
        secret.metadata.managed_fields = None;
        if let Some(rotated) = rotated {
            secret.metadata.annotations.get_or_insert_default().insert(ANNOTATION_ROTATED.to_owned(), rotated);
        }
        let name = &self.options.tls_secret;
        ask(self.secrets().replace(name, &PostParams::default(), &secret))
            .await?
            .context("the Secret was not replaced")?;
        Ok(())
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    /// Whether the API server's configuration has exactly this bundle; `None` where there is no configuration.
    async fn published(&self, material: &Material) -> anyhow::Result<Option<bool>> {
        let name = &self.options.webhook_configuration;
        let found = ask(self.configurations().get_opt(name)).await?;
        let found = found.with_context(|| format!("MutatingWebhookConfiguration {name} cannot be read"))?;
        let Some(found) = found else { return Ok(None) };
        let bundle = material.bundle();
        let all = found.webhooks.unwrap_or_default();
        Ok(Some(
            all.iter()
                .all(|one| one.client_config.ca_bundle.as_ref().is_some_and(|known| known.0 == bundle.as_bytes())),
        ))
    }

    /// Applies the bundle, and no other field.
    async fn publish(&self, material: &Material) -> anyhow::Result<()> {
        let name = &self.options.webhook_configuration;
        let found =
            ask(self.configurations().get(name)).await?.context("the webhook's configuration cannot be read")?;
        let bundle = BASE64_STANDARD.encode(material.bundle());
        let hooks = found.webhooks.unwrap_or_default();
        let hooks: Vec<_> =
            hooks.iter().map(|hook| json!({"name": hook.name, "clientConfig": {"caBundle": bundle}})).collect();
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": hooks,
        });
        let params = PatchParams::apply(CERTIFICATES).force();
        ask(self.configurations().patch(name, &params, &Patch::Apply(patch)))
            .await?
            .context("the bundle was not applied to the webhook's configuration")?;
        Ok(())
    }

    /// Whether every webhook that may be called serves the Secret's leaf.
    async fn endpoints_agree(&self, material: &Material) -> anyhow::Result<bool> {
        let mut endpoints = self.options.webhook_endpoint.clone();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = ListParams::default().labels(&self.options.webhook_selector);
        let pods = ask(pods.list(&selector)).await?.context("the webhook's pods cannot be listed")?;
        // One without an address has read nothing yet, and reads the Secret as it is now.
        let addresses = pods.items.iter().filter_map(|pod| {
            let status = pod.status.as_ref()?;
            let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
            status.pod_ip.as_deref().filter(|_| !ended)?.parse::<IpAddr>().ok()
        });
        let port = self.options.webhook_port;
        endpoints.extend(addresses.map(|address| std::net::SocketAddr::new(address, port).to_string()));
        let expected = issue::read(&material.leaf.certificate)?.fingerprint;
        let mut looks = JoinSet::new();
        for endpoint in endpoints {
            looks.spawn(served_by(endpoint, self.names[0].clone(), material.bundle()));
        }
        let mut agree = true;
        while let Some(look) = looks.join_next().await {
            match look? {
                Ok(found) => agree &= found == expected,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "a webhook's certificate cannot be seen");
                    agree = false;
                }
            }
        }
        Ok(agree)
    }
}

/// A name as it stands in a certificate.
fn plain(name: &str) -> String {
    name.trim().parse::<IpAddr>().map_or_else(|_| name.trim().to_ascii_lowercase(), |address| address.to_string())
}

async fn ask<T>(question: impl Future<Output = Result<T, Error>>) -> anyhow::Result<Result<T, Error>> {
    match timeout(ANSWER, question).await {
        Ok(answer) => Ok(answer),
        Err(_) => bail!("no answer from the API server in {ANSWER:?}"),
    }
}

/// Fingerprint of the certificate that an endpoint serves, to a client that trusts the bundle.
async fn served_by(endpoint: String, name: String, bundle: String) -> anyhow::Result<String> {
    let look = async {
        let roots = issue::roots(&bundle).map_err(anyhow::Error::msg)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(&endpoint).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name)?, stream).await?;
        let (_, connection) = stream.get_ref();
        let leaf = connection.peer_certificates().and_then(|chain| chain.first()).context("no certificate")?;
        Ok(issue::read_der(leaf)?.fingerprint)
    };
    timeout(ANSWER, look)
        .await
        .unwrap_or_else(|_| bail!("no handshake in {ANSWER:?}"))
        .with_context(|| endpoint.clone())
}
