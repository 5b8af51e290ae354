//! In the webhook: what it serves, taken from the Secret through the API and exchanged without a restart.
//!
//! What does not fit together, or would not be trusted, is never served: what was served before stays, and the process is
//! ready only while what is served verifies against the bundle that was read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::issue;
use crate::process::health::Gate;
use crate::process::metrics::CertificateMetrics;

/// How long after a failure the Secret is read again.
const RETRY: Duration = Duration::from_secs(1);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// The certificate that is served; none before the first was read.
#[derive(Debug, Default)]
pub struct Served {
    current: RwLock<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    certificate: String,
    key: Arc<CertifiedKey>,
}

impl Served {
    /// Serves nothing yet: handshakes fail.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The certificate that is served; none before the first was read.
    #[must_use]
    pub fn certificate(&self) -> Option<String> {
        self.current.read().as_ref().map(|current| current.certificate.clone())
    }

    /// A configuration that serves what is current at each handshake.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let resolver = Arc::<Self>::clone(self);
        let mut config =
            builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Takes what a Secret holds, if it would be trusted; says what is served then, in seconds until its end.
    ///
    /// # Errors
    /// A sentence, when nothing that would be trusted is served.
    pub fn take(&self, secret: &Secret, now: i64) -> Result<i64, String> {
        let text = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).ok_or_else(|| format!("{key} is missing"))
        };
        let bundle = text("ca.crt")?;
        let offered = text("tls.crt").and_then(|certificate| {
            issue::verify(&certificate, &bundle, now)?;
            let key = certified(&certificate, &text("tls.key")?)?;
            Ok(Current { certificate, key })
        });
        let mut current = self.current.write();
        let refused = match offered {
            Ok(offered) => {
                if current.as_ref().is_none_or(|current| current.certificate != offered.certificate) {
                    tracing::info!("a new certificate is served");
                }
                *current = Some(offered);
                None
            }
            Err(why) => Some(why),
        };
        let served = match (current.as_ref(), refused) {
            (None, why) => return Err(why.unwrap_or_default()),
            (Some(current), why) => {
                if let Some(why) = why {
                    tracing::warn!(why, "the Secret's certificate is not served, the one before stays");
                }
                &current.certificate
            }
        };
        issue::verify(served, &bundle, now)?;
        Ok(issue::read(served).map_err(|error| error.to_string())?.not_after)
    }
}

/// A chain and its key, as the TLS library wants them.
fn certified(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("tls.crt: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("tls.key: {error}"))?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider());
    certified.map(Arc::new).map_err(|error| format!("tls.crt and tls.key: {error}"))
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().as_ref().map(|current| Arc::clone(&current.key))
    }
}

/// Keeps what is served as the Secret has it, until the token is cancelled: by a watch, and by reading it now and then. The
/// gate is open while what is served would be trusted.
pub async fn keep_fresh(
    client: Client,
    (namespace, name): (String, String),
    resync: Duration,
    served: Arc<Served>,
    gate: Gate,
    metrics: Arc<CertificateMetrics>,
    stop: CancellationToken,
) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let keeper = Keeper { api, name, resync, served, gate, metrics };
    tokio::select! {
        () = stop.cancelled() => {}
        () = keeper.run() => {}
    }
}

struct Keeper {
    api: Api<Secret>,
    name: String,
    resync: Duration,
    served: Arc<Served>,
    gate: Gate,
    metrics: Arc<CertificateMetrics>,
}

impl Keeper {
    async fn run(&self) {
        loop {
            let version = match timeout(ANSWER, self.api.get_opt(&self.name)).await {
                Ok(Ok(Some(secret))) => {
                    self.take(&secret);
                    secret.metadata.resource_version
                }
                Ok(Ok(None)) => self.closed(format!("Secret {} is not there yet: the controller makes it", self.name)),
                Ok(Err(error)) => self.closed(format!("Secret {} cannot be read: {error}", self.name)),
                Err(_) => self.closed(format!("Secret {} cannot be read: no answer in {ANSWER:?}", self.name)),
            };
            match version {
                Some(version) => self.watch(&version).await,
                None => sleep(RETRY).await,
            }
        }
    }

    fn take(&self, secret: &Secret) {
        match self.served.take(secret, Timestamp::now().as_second()) {
            Ok(not_after) => {
                #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
                self.metrics.expiry.set(not_after as f64);
                self.gate.open();
            }
            Err(why) => {
                self.closed(why);
            }
        }
    }

    fn closed(&self, why: String) -> Option<String> {
        tracing::warn!(why, "not ready");
        self.gate.close(why);
        None
    }

    /// Takes changes as they come, until it is time to read the whole again.
    async fn watch(&self, version: &str) {
        let until = Instant::now() + self.resync;
        let seconds = u32::try_from(self.resync.as_secs()).unwrap_or(u32::MAX).clamp(1, 290);
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name)).timeout(seconds);
        let changes = timeout_at(until, self.api.watch(&params, version)).await;
        let Ok(Ok(changes)) = changes else {
            return sleep(RETRY).await;
        };
        let mut changes = std::pin::pin!(changes);
        while let Ok(Some(change)) = timeout_at(until, changes.next()).await {
            match change {
                Ok(WatchEvent::Added(secret) | WatchEvent::Modified(secret)) => self.take(&secret),
                // It is read again, and made again by the controller.
                Ok(WatchEvent::Deleted(_) | WatchEvent::Bookmark(_)) => {}
                Ok(WatchEvent::Error(_)) | Err(_) => return sleep(RETRY).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::material::Material;
    use super::super::rotation::Life;
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const LIFE: Life = Life { authority: Duration::from_secs(1000), leaf: Duration::from_secs(100) };

    fn secret(material: &Material) -> Secret {
        Secret { data: Some(material.data()), ..Secret::default() }
    }

    #[test]
    fn what_would_not_be_trusted_is_never_served_and_what_was_served_stays() {
        let names = vec!["webhook.svc".to_owned()];
        let good = Material::create(&names, NOW, LIFE).unwrap();
        let served = Served::new();
        let certificate = || served.current.read().as_ref().map(|current| current.certificate.clone());
        assert!(served.take(&Secret::default(), NOW).is_err());
        assert_eq!(served.take(&secret(&good), NOW), Ok(NOW + 100));
        assert_eq!(certificate(), Some(good.leaf.certificate.clone()));

        // A leaf of an authority that is not in the bundle; a key that is not its.
        let other = Material::create(&names, NOW, LIFE).unwrap();
        let foreign = Material { leaf: other.leaf.clone(), ..good.clone() };
        assert_eq!(served.take(&secret(&foreign), NOW), Ok(NOW + 100));
        let mut mixed = secret(&good);
        mixed.data.as_mut().unwrap().insert("tls.key".to_owned(), other.data()["tls.key"].clone());
        assert_eq!(served.take(&mixed, NOW), Ok(NOW + 100));
        assert_eq!(certificate(), Some(good.leaf.certificate.clone()));

        // The bundle no longer trusts what is served: not ready, until the leaf follows.
        let broken = Material { authority: other.authority.clone(), ..good.clone() };
        assert!(served.take(&secret(&broken), NOW).is_err());
        assert!(served.take(&secret(&good), NOW + 101).is_err(), "the leaf has ended");
        assert_eq!(served.take(&secret(&other), NOW), Ok(NOW + 100));
        assert_eq!(certificate(), Some(other.leaf.certificate));
    }
}
