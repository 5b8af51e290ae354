//! Step 4: writes what was built.
//!
//! The finalizer comes first, so that nothing of ours is ever left behind unowned; the ConfigMap after it. A write that
//! finds something else than was read is refused by the API server, and everything is looked at again.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Error, ResourceExt as _};
use serde_json::json;
use walstorage_crds::names::{CONTROLLER, FINALIZER};
use walstorage_crds::walstorage::WalStorage;

use super::build::{Built, ConfigStep};
use super::dereference::Found;
use super::finalizer::Finalizer;

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The storage goes, and no status is left to write.
    Gone,
    /// It stands in this version.
    Stands(Option<String>),
}

/// Writes.
///
/// # Errors
/// When the API server does not answer or refuses; everything may then be done again.
pub async fn apply(client: &Client, found: &Found, built: &Built) -> Result<Applied, Error> {
    let namespace = found.storage.namespace().unwrap_or_default();
    let version = match &built.finalizer {
        Finalizer::Keep | Finalizer::Wait(_) => found.storage.metadata.resource_version.clone(),
        Finalizer::Add => finalizers(client, found, true).await?,
        Finalizer::Nothing => return Ok(Applied::Gone),
        Finalizer::Remove => {
            return match finalizers(client, found, false).await {
                Err(Error::Api(status)) if status.is_not_found() => Ok(Applied::Gone),
                done => done.map(|_| Applied::Gone),
            };
        }
    };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    match &built.config {
        ConfigStep::Leave => {}
        ConfigStep::Create(map) => {
            let by = PostParams { field_manager: Some(CONTROLLER.to_owned()), ..PostParams::default() };
            maps.create(&by, map).await?;
        }
        ConfigStep::Apply { map, uid } => {
            let mut map = map.clone();
            let name = map.name_any();
            // One that was made anew meanwhile may be a stranger's.
            map.metadata.uid = Some(uid.clone());
            maps.patch(&name, &PatchParams::apply(CONTROLLER).force(), &Patch::Apply(&map)).await?;
        }
    }
    Ok(Applied::Stands(version))
}

/// Puts our finalizer on or takes it off, if nobody has written the storage since it was read; gives its new version.
async fn finalizers(client: &Client, found: &Found, on: bool) -> Result<Option<String>, Error> {
    let metadata = &found.storage.metadata;
    let mut finalizers: Vec<&str> = metadata.finalizers.iter().flatten().map(String::as_str).collect();
    finalizers.retain(|finalizer| *finalizer != FINALIZER);
    if on {
        finalizers.push(FINALIZER);
    }
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": metadata.resource_version}});
    let api: Api<WalStorage> = Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
    let by = PatchParams { field_manager: Some(CONTROLLER.to_owned()), ..PatchParams::default() };
    let written = api.patch(&found.storage.name_any(), &by, &Patch::Merge(patch)).await?;
    Ok(written.metadata.resource_version)
}
