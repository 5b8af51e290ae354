//! In the webhook: whether the API server trusts what is served, so that nobody is told to call it before.
//!
//! The gate is open while the served certificate verifies against the bundle of every webhook of the configuration. What
//! cannot be read changes nothing: an API server that does not answer calls nobody.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, Client};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::issue;
use super::served::Served;
use crate::process::health::Gate;

/// How often the configuration is read while it does not trust what is served.
const RETRY: Duration = Duration::from_secs(1);
/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Keeps the gate as the configuration of this name has it, until the token is cancelled. Once it is open the configuration
/// is read every `resync`.
pub async fn keep_trusted(
    client: Client,
    name: String,
    resync: Duration,
    served: Arc<Served>,
    gate: Gate,
    stop: CancellationToken,
) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client);
    let mut said = String::new();
    loop {
        let found = tokio::select! {
            () = stop.cancelled() => return,
            found = timeout(ANSWER, api.get_opt(&name)) => found,
        };
        let pause = match found {
            Ok(Ok(found)) => match judge(&name, found.as_ref(), served.certificate().as_deref()) {
                Ok(()) => {
                    gate.open();
                    said.clear();
                    resync
                }
                Err(why) => {
                    if why != said {
                        tracing::info!(why, "the API server does not trust what is served");
                        said.clone_from(&why);
                    }
                    gate.close(why);
                    RETRY
                }
            },
            Ok(Err(error)) => {
                tracing::warn!(%error, name, "the webhook's configuration cannot be read");
                RETRY
            }
            Err(_) => RETRY,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Whether a configuration trusts a certificate now.
fn judge(name: &str, found: Option<&MutatingWebhookConfiguration>, served: Option<&str>) -> Result<(), String> {
    let served = served.ok_or("no certificate is served yet")?;
    let found = found.ok_or_else(|| format!("MutatingWebhookConfiguration {name} is not there"))?;
    for hook in found.webhooks.iter().flatten() {
        let bundle = hook.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        let trusted = issue::verify(served, &String::from_utf8_lossy(bundle), Timestamp::now().as_second());
        trusted.map_err(|why| format!("caBundle of {} in MutatingWebhookConfiguration {name}: {why}", hook.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;

    use super::super::material::Material;
    use super::super::rotation::Life;
    use super::*;

    const LIFE: Life = Life { authority: Duration::from_secs(10_000), leaf: Duration::from_secs(1000) };

    fn material() -> Material {
        Material::create(&["webhook.svc".to_owned()], Timestamp::now().as_second(), LIFE).unwrap()
    }

    fn configuration(bundles: &[Option<String>]) -> MutatingWebhookConfiguration {
        let hook = |bundle: &Option<String>| {
            let mut hook = MutatingWebhook { name: "pods".to_owned(), ..MutatingWebhook::default() };
            hook.client_config.ca_bundle = bundle.clone().map(|text| ByteString(text.into_bytes()));
            hook
        };
        MutatingWebhookConfiguration {
            webhooks: Some(bundles.iter().map(hook).collect()),
            ..MutatingWebhookConfiguration::default()
        }
    }

    #[test]
    fn it_is_trusted_when_every_bundle_of_the_configuration_verifies_what_is_served() {
        let (ours, other) = (material(), material());
        let leaf = Some(ours.leaf.certificate.as_str());
        let good = || Some(ours.bundle());
        let foreign = || Some(other.bundle());
        let both = || Some(ours.bundle() + &other.bundle());
        let trusts = |bundles: &[Option<String>]| judge("c", Some(&configuration(bundles)), leaf).is_ok();
        assert!(trusts(&[good()]) && trusts(&[both(), good()]));
        assert!(!trusts(&[None]), "the controller has applied none yet");
        assert!(!trusts(&[foreign()]) && !trusts(&[good(), foreign()]));
        assert!(judge("c", None, leaf).is_err());
        assert!(judge("c", Some(&configuration(&[good()])), None).is_err());
    }
}
