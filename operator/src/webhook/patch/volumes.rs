//! The volumes of the sidecar: the socket's, the configuration's with the credentials, and one for each claim.

use std::path::Path;

use serde_json::{Value, json};
use walstorage_crds::names::{
    self, SOCKET_DIR, VOLUME_CONFIG as CONFIG, VOLUME_NO_TOKEN as NO_TOKEN, VOLUME_SOCKET as SOCKET,
};
use walstorage_crds::url::WalUrl;
use walstorage_crds::walstorage::{Bucket, Effective, EffectiveUrl, Place};
use walstorage_crds::walwriter::{Empty, WriterVolume};

use crate::webhook::json::text;

/// Where the API server mounts the service account's token unless something is there.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds that a workload identity's token is valid; the kubelet renews it in time.
const TOKEN_SECONDS: u32 = 3600;

/// A volume and where the sidecar mounts it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mounted {
    pub(super) volume: Value,
    pub(super) mount: Value,
}

/// Whether a volume is one of ours by its name.
pub(super) fn is_ours(storage: &str, volume: &str) -> bool {
    [SOCKET, CONFIG, NO_TOKEN].contains(&volume) || volume.starts_with(&names::volume(storage, ""))
}

/// The claim that a volume is of.
pub(super) fn claim_of(volume: &Value) -> Option<&str> {
    text(volume, "/persistentVolumeClaim/claimName")
}

/// All volumes of the sidecar of a writer. `ledger` is what the writer has: what is not empty stays mounted although its
/// URL was removed.
pub(super) fn all(storage: &str, effective: &Effective, ledger: &[WriterVolume], writer: &str) -> Vec<Mounted> {
    let mut all = vec![socket(), config(storage, effective)];
    if !wants_token(effective) {
        all.push(Mounted {
            volume: json!({"name": NO_TOKEN, "emptyDir": {}}),
            mount: json!({"name": NO_TOKEN, "mountPath": TOKEN_DIR, "readOnly": true}),
        });
    }
    let urls: Vec<_> = effective.urls.iter().chain(&effective.journal).collect();
    for url in &urls {
        let known =
            ledger.iter().find(|volume| volume.name == url.name).and_then(|volume| volume.claim_name.as_deref());
        all.extend(claim(storage, &url.name, &url.url, known, writer));
    }
    for volume in ledger {
        let removed = urls.iter().all(|url| url.name != volume.name);
        if removed
            && volume.empty != Some(Empty::True)
            && let Ok(url) = WalUrl::parse(&volume.url)
        {
            all.extend(claim(storage, &volume.name, &url, volume.claim_name.as_deref(), writer));
        }
    }
    all
}

fn claim(storage: &str, name: &str, url: &WalUrl, known: Option<&str>, writer: &str) -> Option<Mounted> {
    let path = url.file_path()?;
    let volume = names::volume(storage, name);
    let claim = known.map_or_else(|| names::claim(storage, name, writer), str::to_owned);
    Some(Mounted {
        mount: json!({"name": volume, "mountPath": shown(&path)}),
        volume: json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}),
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn socket() -> Mounted {
    Mounted {
        volume: json!({"name": SOCKET, "emptyDir": {"sizeLimit": "1Mi"}}),
        mount: json!({"name": SOCKET, "mountPath": SOCKET_DIR}),
    }
}

/// How the other containers mount the socket: connecting works, replacing it does not.
pub(super) fn socket_mount() -> Value {
    json!({"name": SOCKET, "mountPath": SOCKET_DIR, "readOnly": true})
}

/// One projected volume, never a subPath: what changes in its sources changes in the container.
fn config(storage: &str, effective: &Effective) -> Mounted {
    let file = json!({"key": names::CONFIG_FILE, "path": names::CONFIG_FILE});
    let mut sources = vec![json!({"configMap": {"name": names::config_map(storage), "items": [file]}})];
    for url in effective.urls.iter().chain(&effective.journal) {
        if let Place::Bucket(bucket) = &url.place {
            sources.extend(bucket_sources(url, bucket));
        }
    }
    Mounted {
        // Read by the group of the pod's volumes, which is always set.
        volume: json!({"name": CONFIG, "projected": {"defaultMode": 0o440, "sources": sources}}),
        mount: json!({"name": CONFIG, "mountPath": names::CONFIG_DIR, "readOnly": true}),
    }
}

/// What a bucket needs. Optional: a missing Secret is the state of one directory, not a pod that cannot start.
fn bucket_sources(url: &EffectiveUrl, bucket: &Bucket) -> Vec<Value> {
    let below = |path: String| path.trim_start_matches(names::CONFIG_DIR).trim_start_matches('/').to_owned();
    let mut sources = Vec::new();
    if let Some(bundle) = &bucket.spec.ca_bundle {
        let item = json!({"key": bundle.key, "path": below(names::ca_file(&url.name))});
        sources.push(json!({"configMap": {"name": bundle.config_map_name, "items": [item], "optional": true}}));
    }
    let Some(credentials) = &bucket.spec.credentials else { return sources };
    if let Some(secret) = &credentials.secret_name {
        let folder = below(names::credentials_dir(&url.name));
        let item = |key: &&str| json!({"key": key, "path": format!("{folder}/{key}")});
        let items: Vec<_> = names::secret_keys(url.url.scheme()).iter().map(item).collect();
        sources.push(json!({"secret": {"name": secret, "items": items, "optional": true}}));
    }
    if let Some(identity) = &credentials.workload_identity {
        let path = below(names::token_file(&url.name));
        sources.push(json!({"serviceAccountToken": {
            "audience": identity.audience, "expirationSeconds": TOKEN_SECONDS, "path": path,
        }}));
    }
    sources
}

/// Whether a bucket is reached with a token of the pod's service account.
fn wants_token(effective: &Effective) -> bool {
    effective.urls.iter().chain(&effective.journal).any(|url| match &url.place {
        Place::Disk(_) => false,
        Place::Bucket(bucket) => {
            bucket.spec.credentials.as_ref().is_some_and(|given| given.workload_identity.is_some())
        }
    })
}
