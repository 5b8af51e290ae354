//! Taking our own earlier work out of a pod, so that everything is computed from what its user wrote.

use serde_json::Value;
use walstorage_crds::config::DEFAULT_SOCKET;
use walstorage_crds::names::{ANNOTATION_PATCH, CONTAINER, VOLUME_SOCKET};

use super::added::Added;
use super::{SOCKET_VARIABLE, mesh, resources, security, volumes};
use crate::webhook::json::{as_object_mut, edit_list, list, meta, name, object_mut, text};
use crate::webhook::refusal::Refusal;

/// What was ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stripped {
    /// The container as it stood there.
    pub(super) container: Option<Value>,
    /// Volumes of claims.
    pub(super) claims: Vec<Value>,
    /// What had been added to values of the pod.
    pub(super) added: Added,
}

/// Takes everything that is ours out of a pod that we have patched or rendered.
pub(super) fn strip(pod: &mut Value, storage: &str) -> Result<Stripped, Refusal> {
    let added = Added::read(meta(pod, "annotations", ANNOTATION_PATCH));
    let pod = as_object_mut(pod);
    mesh::strip(object_mut(pod, "metadata"), &added);
    let spec = object_mut(pod, "spec");

    let container = edit_list(spec, "initContainers", |all| {
        let at = all.iter().position(|container| name(container) == CONTAINER)?;
        Some(all.remove(at))
    });
    let mounts = container.as_ref().and_then(|container| container.get("volumeMounts")).and_then(Value::as_array);
    let mounted: Vec<_> = mounts.into_iter().flatten().map(name).collect();
    let mut claims = Vec::new();
    edit_list(spec, "volumes", |all| {
        all.retain(|volume| {
            // A user's volume may look like ours; only ours are mounted in our container.
            let ours = volumes::is_ours(storage, name(volume)) && mounted.contains(&name(volume));
            if ours && volumes::claim_of(volume).is_some() {
                claims.push(volume.clone());
            }
            !ours
        });
    });
    for kind in ["initContainers", "containers"] {
        // A container without the mount has not got the variable from us either.
        edit_list(spec, kind, |all| all.iter_mut().filter(|one| mounts_socket(one)).for_each(take_socket));
    }

    if added.grace > 0
        && let Some(grace) = spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64)
    {
        // Below what was added somebody has written it anew.
        spec.insert("terminationGracePeriodSeconds".to_owned(), grace.checked_sub(added.grace).unwrap_or(grace).into());
    }
    security::strip(spec, &added);
    resources::strip(spec, &added)?;
    Ok(Stripped { container, claims, added })
}

fn mounts_socket(container: &Value) -> bool {
    list(container, "/volumeMounts").iter().any(|mount| name(mount) == VOLUME_SOCKET)
}

/// Takes the socket out of a container of the user.
pub(super) fn take_socket(container: &mut Value) {
    let container = as_object_mut(container);
    edit_list(container, "volumeMounts", |mounts| mounts.retain(|mount| name(mount) != VOLUME_SOCKET));
    edit_list(container, "env", |all| {
        let ours = |variable: &Value| text(variable, "/value") == Some(DEFAULT_SOCKET);
        all.retain(|variable| name(variable) != SOCKET_VARIABLE || !ours(variable));
    });
}
