//! The certificates of the webhook, as the controller keeps them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use walstorage_cluster_tests::eventually;

use super::{CONFIGURATION, HOME, Rig, pods_until};

const SECRET: &str = "walstorage-webhook-tls";

async fn bundle(rig: &Rig) -> anyhow::Result<String> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(rig.plane.client());
    let hooks = configurations.get(CONFIGURATION).await?.webhooks.unwrap_or_default();
    let bundle = hooks[0].client_config.ca_bundle.clone().context("no bundle")?;
    Ok(String::from_utf8(bundle.0)?)
}

async fn secret(rig: &Rig, key: &str) -> anyhow::Result<String> {
    let secrets: Api<Secret> = Api::namespaced(rig.plane.client(), HOME);
    let data = secrets.get(SECRET).await?.data.unwrap_or_default();
    Ok(data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default())
}

/// Asks for another authority.
async fn rotate(rig: &Rig, once: &str) {
    let secrets: Api<Secret> = Api::namespaced(rig.plane.client(), HOME);
    let rotate = json!({"metadata": {"annotations": {"walstorage.dev/rotate": once}}});
    secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(&rotate)).await.unwrap();
}

fn authorities(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

/// Waits until another authority than this one is trusted, and it alone; returns the certificate that is served.
async fn changed(rig: &Rig, authority: &str) -> String {
    eventually("one new authority", || async {
        let (now, served) = (secret(rig, "ca.crt").await?, secret(rig, "tls.crt").await?);
        ensure!(authorities(&now) == 1 && now != authority, "{} authorities", authorities(&now));
        ensure!(bundle(rig).await? == now, "the bundle is behind");
        Ok(served)
    })
    .await
}

pub(super) async fn a_foreign_bundle_is_healed(rig: &Rig) {
    let before = bundle(rig).await.unwrap();
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(rig.plane.client());
    let patch = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let patch: Patch<()> = Patch::Json(serde_json::from_value(patch).unwrap());
    configurations.patch(CONFIGURATION, &PatchParams::default(), &patch).await.unwrap();
    eventually("the bundle is back", || async {
        let now = bundle(rig).await?;
        ensure!(now == before, "another bundle");
        Ok(())
    })
    .await;
    rig.calls().await;
}

pub(super) async fn no_pod_is_refused_while_they_change(rig: &Rig) {
    let namespace = rig.namespace("storm", &json!({})).await;
    rig.storage(&namespace).await;
    let (authority, leaf) = (secret(rig, "ca.crt").await.unwrap(), secret(rig, "tls.crt").await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..4).map(|_| tokio::spawn(pods_until(rig.pods(&namespace), Arc::clone(&stop)))).collect();

    rotate(rig, "now").await;
    let served = changed(rig, &authority).await;
    assert_ne!(served, leaf, "a new certificate besides");
    // An alert goes by it.
    let month = 30.0 * 86_400.0;
    eventually("its end is told", || async {
        let ends = rig.controller.metric("walstorage_operator_certificate_expiry_timestamp_seconds").await?;
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let left = ends.context("nobody tells it")? - Timestamp::now().as_second() as f64;
        ensure!(left > month / 2.0 && left <= month, "{left} s");
        Ok(())
    })
    .await;
    // Some more, with the new authority alone.
    rig.calls().await;
    stop.store(true, Ordering::Relaxed);
    let mut made = 0;
    for storm in storm {
        made += storm.await.unwrap().expect("no pod was refused");
    }
    assert!(made >= 20, "{made} pods");
}

/// A replica hangs: when it goes on, it is called with the certificate that it had.
pub(super) async fn the_old_authority_is_trusted_until_every_replica_serves_the_new_certificate(rig: &Rig) {
    let (authority, leaf) = (secret(rig, "ca.crt").await.unwrap(), secret(rig, "tls.crt").await.unwrap());
    let [(first, _), (second, hangs)] = rig.webhooks.as_slice() else { panic!("two replicas") };
    rig.balancer.route(vec![*first]);
    hangs.freeze().unwrap();
    rotate(rig, "once more").await;
    eventually("the new certificate is to be served", || async {
        ensure!(secret(rig, "tls.crt").await? != leaf, "the old one");
        Ok(())
    })
    .await;
    // The first of them may have begun before. One alone takes longer than the old authority would be kept.
    let looks = || rig.controller.log().matches("a webhook's certificate cannot be seen").count();
    let before = looks();
    eventually("it was looked for again and again", || async {
        let more = looks() - before;
        ensure!(more >= 3, "{more}");
        Ok(())
    })
    .await;
    let both = secret(rig, "ca.crt").await.unwrap();
    assert!(authorities(&both) == 2 && both.contains(authority.trim()), "the old one is trusted");
    assert_eq!(bundle(rig).await.unwrap(), both);
    hangs.thaw().unwrap();
    rig.balancer.route(vec![*first, *second]);
    changed(rig, &authority).await;
    rig.calls().await;
}
