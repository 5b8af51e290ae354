//! The annotation `walstorage.dev/grant`: what the sidecar is told at its start, one line of JSON.

use serde::{Deserialize, Serialize};

/// A grant. Members that are not known are ignored when it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// 1.
    pub v: u32,
    /// The writer's uid.
    pub writer_uid: String,
    /// Of this grant; no other grant of the writer has it.
    pub epoch: i64,
    /// What the pod mounts, and the buckets.
    pub urls: Vec<GrantedUrl>,
    /// Names of the URLs where a directory may be made; anywhere else an empty one is lost.
    pub init: Vec<String>,
    /// Names of the URLs whose earlier directory is given up.
    pub forget: Vec<String>,
}

/// A URL of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedUrl {
    /// Its name.
    pub name: String,
    /// Byte for byte as in `config.toml`.
    pub url: String,
    /// The claim's uid; none for a bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
}

impl Grant {
    /// One line.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Texts, numbers and lists of them always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads an annotation; nothing if it is none of ours, or of another version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|grant: &Self| grant.v == 1)
    }

    /// The same for a sidecar that has started once: it makes no directory any more.
    #[must_use]
    pub fn started(&self) -> Self {
        Self { init: Vec::new(), forget: Vec::new(), ..self.clone() }
    }

    /// Whether anything may be begun anew or given up.
    #[must_use]
    pub fn lets_begin(&self) -> bool {
        !(self.init.is_empty() && self.forget.is_empty())
    }

    /// Whether a URL of this name is granted.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.urls.iter().any(|url| url.name == name)
    }
}
