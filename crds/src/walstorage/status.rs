//! What the operator reports about a WalStorage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator knows; written by it only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalStorageStatus {
    /// The generation that this was derived from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods, ready/injected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub summary: Option<String>,
    /// Ready, Accepted, ConfigRendered, ClaimsReady, PodsUpToDate, DirectoriesHealthy, UndrainedData, Reconciling, Stalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub conditions: Option<Vec<Condition>>,
    /// sha256:… of the rendered config.toml, as in its first line.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub config_hash: Option<String>,
    /// Every URL, draining ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub urls: Option<Vec<UrlState>>,
    /// Live pods with the label.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Writers, by phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writers: Option<WriterCounts>,
}

/// A URL over all writers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlState {
    /// As in the spec.
    #[schemars(length(max = 16))]
    pub name: String,
    /// As rendered.
    #[schemars(length(max = 512))]
    pub url: String,
    /// The worst state that a writer reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub state: Option<String>,
    /// Writers that have a directory there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writers: Option<i64>,
    /// Bytes in use there, as far as they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<i64>,
    /// When that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// Live pods with the label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// With our sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injected: Option<i64>,
    /// Waiting for their writer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gated: Option<i64>,
    /// With another sidecar than they would get now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outdated: Option<i64>,
}

/// Writers, by phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriterCounts {
    /// Granted, not yet started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<i64>,
    /// With a running pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<i64>,
    /// Whose pod is terminating.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub releasing: Option<i64>,
    /// Whose pod ended a moment ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<i64>,
    /// Without a pod, with entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orphaned: Option<i64>,
    /// Without a pod, without entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained: Option<i64>,
    /// Being removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaiming: Option<i64>,
    /// Whose claims are not what they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<i64>,
    /// Entries that no application has applied, as far as they are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unapplied: Option<i64>,
}
