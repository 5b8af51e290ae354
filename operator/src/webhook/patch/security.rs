//! Who the sidecar runs as, and which group its claims get.
//!
//! The sidecar meets the standard "restricted" whatever the pod is. It names no user, because OpenShift assigns one, except
//! where the pod says that it is root.

use serde_json::{Map, Value, json};

use super::added::Added;
use super::volumes::is_ours;
use crate::webhook::json::{edit_object, list, name};
use crate::webhook::refusal::Refusal;

/// User of the image, and group of claims where the pod has none.
pub(super) const NOBODY: u32 = 65532;
/// Volumes without data of the user's own: what the kubelet makes for the pod, and what no group is set on.
const WITHOUT_DATA: [&str; 9] =
    ["emptyDir", "configMap", "secret", "downwardAPI", "projected", "ephemeral", "hostPath", "image", "csi"];

/// The sidecar's security context.
pub(super) fn context(pod: &Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if pod.pointer("/spec/securityContext/runAsUser").and_then(Value::as_u64) == Some(0) {
        context["runAsUser"] = NOBODY.into();
    }
    context
}

/// Makes sure that the claims have a group that the sidecar is in.
pub(super) fn set_group(
    storage: &str,
    spec: &mut Map<String, Value>,
    pod: &Value,
    added: &mut Added,
) -> Result<(), Refusal> {
    if pod.pointer("/spec/securityContext/fsGroup").is_some_and(Value::is_number) {
        return Ok(());
    }
    let with_data = |volume: &&Value| {
        let kinds = volume.as_object().into_iter().flat_map(Map::keys).filter(|key| *key != "name");
        !is_ours(storage, name(volume)) && kinds.into_iter().any(|kind| !WITHOUT_DATA.contains(&kind.as_str()))
    };
    if let Some(volume) = list(pod, "/spec/volumes").iter().find(with_data) {
        return Err(Refusal::FsGroupMissing { volume: name(volume).to_owned() });
    }
    edit_object(spec, "securityContext", |context| {
        context.insert("fsGroup".to_owned(), NOBODY.into());
        added.fs_group = true;
        if !context.contains_key("fsGroupChangePolicy") {
            context.insert("fsGroupChangePolicy".to_owned(), "OnRootMismatch".into());
            added.fs_group_change_policy = true;
        }
    });
    Ok(())
}

/// Takes away what [`set_group`] added, unless somebody has changed it since.
pub(super) fn strip(spec: &mut Map<String, Value>, added: &Added) {
    if !added.fs_group {
        return;
    }
    // The API server sends an empty context for none, so that what becomes empty may stay.
    let Some(Value::Object(context)) = spec.get_mut("securityContext") else { return };
    if context.get("fsGroup").and_then(Value::as_u64) == Some(NOBODY.into()) {
        context.remove("fsGroup");
        if added.fs_group_change_policy {
            context.remove("fsGroupChangePolicy");
        }
    }
}
