//! What the annotation `walstorage.dev/patch` remembers: everything that was added to a value which is not ours alone, so
//! that a second call can take it away again and add what is right then.

use serde::{Deserialize, Serialize};

/// What was added to values of the pod. What is ours alone (container, volumes, mounts) is known by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Added {
    /// Seconds of the grace period.
    pub(crate) grace: u64,
    /// Of pod-level resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<String>,
    /// Of pod-level resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<String>,
    /// The pod had no group for its volumes.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) fs_group: bool,
    /// Nor a policy for it.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) fs_group_change_policy: bool,
    /// CPU that the sidecar got as request and limit for the sake of the pod's class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sidecar_cpu: Option<String>,
    /// The port in `traffic.sidecar.istio.io/excludeInboundPorts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) istio_port: Option<u16>,
    /// The port in `config.linkerd.io/skip-inbound-ports`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) linkerd_port: Option<u16>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Added {
    /// Reads the annotation; what cannot be read added nothing.
    pub(crate) fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// The annotation.
    pub(crate) fn write(&self) -> String {
        // A struct of numbers, texts and truth values has a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_has_its_form() {
        let added = Added {
            grace: 30,
            cpu: Some("0".to_owned()),
            memory: Some("832Mi".to_owned()),
            fs_group: true,
            ..Added::default()
        };
        assert_eq!(added.write(), r#"{"grace":30,"cpu":"0","memory":"832Mi","fsGroup":true}"#);
        assert_eq!(Added::read(Some(&added.write())), added);
        assert_eq!(Added::read(Some("{")), Added::default());
        assert_eq!(Added::read(Some(r#"{"grace":5,"of":"later"}"#)), Added { grace: 5, ..Added::default() });
    }
}
