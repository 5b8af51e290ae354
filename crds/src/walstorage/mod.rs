//! The WalStorage resource: what a user writes, and what the operator reports back.
//!
//! Every field is optional and has no default in the schema, so that today's defaults are never frozen into stored
//! objects: [`Effective`] holds the filled-in values, and descriptions name them.

mod config;
mod fill;
mod status;
mod validate;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::config::{FromConfig, NotCarried, from_config};
pub use self::fill::{
    Bucket, DEFAULT_DRAIN_SECONDS, DEFAULT_DRAINED_AFTER_SECONDS, DEFAULT_URL_NAME, DEFAULT_VOLUME_SIZE, Effective,
    EffectiveUrl, Place, Volume,
};
pub use self::status::{PodCounts, UrlState, WalStorageStatus, WriterCounts};
pub use self::validate::{Reason, Refusal, sidecar_memory, validate};
use crate::config::{Compression, DistributionStrategy, OnDamage};

/// The longest text of a byte size.
const SIZE_TEXT_MAX: usize = 24;

/// Storage for a durable write-ahead log, for all pods that name it in the label walstorage.dev/storage.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "walstorage.dev",
    version = "v1alpha1",
    kind = "WalStorage",
    plural = "walstorages",
    shortname = "wal",
    category = "walstorage-dev",
    namespaced,
    status = "WalStorageStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Storage for a durable write-ahead log, for all pods of the namespace that name it in the label walstorage.dev/storage.",
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Pods", "type": "string", "jsonPath": ".status.summary", "description": "ready/injected"}"#,
    printcolumn = r#"{"name": "Outdated", "type": "integer", "jsonPath": ".status.pods.outdated"}"#,
    printcolumn = r#"{"name": "Orphaned", "type": "integer", "jsonPath": ".status.writers.orphaned"}"#,
    printcolumn = r#"{"name": "Unapplied", "type": "integer", "jsonPath": ".status.writers.unapplied"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WalStorageSpec {
    /// Where the log lives, disks and buckets. Default: [{name: data, url: "file:///workspace/data/wal"}]. Removing one
    /// drains it: it stays mounted for every writer until it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub wal_urls: Option<Vec<UrlSpec>>,
    /// Commit here and flush to walUrls: fast acknowledgements, cheap buckets. Default: every directory has its own journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<UrlSpec>,
    /// For every volume that does not say it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_defaults: Option<VolumeSpec>,
    /// How collections are placed on walUrls. Default: LoadBalanced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution_strategy: Option<DistributionStrategy>,
    /// A collection stays on one directory. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection_affinity: Option<bool>,
    /// Memory of one collection at which it is flushed: bytes or a quantity. Default: 1Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_flush_size: Option<IntOrString>,
    /// Memory of all collections: bytes or a quantity. Default: 512Mi. The sidecar's memory follows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_flush_threshold: Option<IntOrString>,
    /// Size at which a segment is sealed: bytes or a quantity. Default: 64Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_size: Option<IntOrString>,
    /// Codec of segments. Default: snappy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Least time between starts of commits to a bucket. Default: 250ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8), regex(pattern = "^[1-9][0-9]{0,5}(ms|s)$"))]
    pub bucket_commit_interval: Option<String>,
    /// What to do about damage found at start: fail = stay not ready and name it, gap = record it as gaps and serve. Default: fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_damage: Option<OnDamage>,
    /// The injected container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<SidecarSpec>,
    /// What becomes of claims that nobody uses any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reclaim_policy: Option<ReclaimPolicy>,
}

/// One storage URL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UrlSpec {
    /// The directory's identity for ever.
    #[schemars(length(max = 16), regex(pattern = "^[a-z0-9]{1,16}$"))]
    pub name: String,
    /// file:///path, s3://bucket/prefix, gcs://bucket/prefix or adls://account.dfs.core.windows.net/container/prefix; immutable per name.
    #[schemars(length(min = 8, max = 512), regex(pattern = "^(file|s3|gcs|gs|adls|abfss)://.+$"))]
    pub url: String,
    /// The claim behind a file:// URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeSpec>,
    /// How a bucket is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<BucketSpec>,
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// May only grow. Default: 10Gi.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24), regex(pattern = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?$"))]
    pub size: Option<String>,
    /// Immutable. Default: the cluster's default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Default: ReadWriteOncePod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
}

/// How many pods may mount a claim. Default: ReadWriteOncePod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessMode {
    /// One pod.
    #[default]
    ReadWriteOncePod,
    /// The pods of one node; for drivers that know no more.
    ReadWriteOnce,
}

/// How a bucket is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BucketSpec {
    /// Where the store is, when not at its provider's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = "^https?://[^/?#@]+(/[^?#@]*)?$"))]
    pub endpoint: Option<String>,
    /// Of the bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// The bucket's name stands in the path, not in the host name. Default: true with an endpoint, else false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// Plain HTTP may be spoken. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_http: Option<bool>,
    /// Certificates to trust besides the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// The store has no conditional requests; whoever sets this keeps a second writer away by other means. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsafe_conditional: Option<bool>,
    /// A Secret or a workload identity. Default: the identity of the pod or node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// Certificates (PEM) in a ConfigMap of the namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// The ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub config_map_name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// At most one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// A Secret of the namespace. Keys: access_key_id, secret_access_key, session_token (s3); account_key, sas_token, or
    /// client_id, client_secret and tenant_id (adls); service_account.json (gcs).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// A token of the pod's service account, exchanged at the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentity>,
}

/// A token of the pod's service account, exchanged at the provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// The role that the token is exchanged for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub role_arn: Option<String>,
    /// Whom the token is for.
    #[schemars(length(min = 1, max = 512))]
    pub audience: String,
    /// What the provider's client reads besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub env: Option<Vec<EnvVar>>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 2048))]
    pub value: String,
}

/// The injected container. Its image comes from the chart, never from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarSpec {
    /// Default: memory request and limit of globalFlushThreshold x 1.25 + 192Mi; less is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Default: info.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Health, metrics and status; 0 = none. Default: 9465.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub admin_port: Option<i32>,
    /// Added to the pod's grace period, for what is committed last. Default: 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 600))]
    pub drain_seconds: Option<i32>,
}

/// Resource requests and limits, as of any container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// At most this much.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: Option<BTreeMap<String, IntOrString>>,
    /// At least this much.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: Option<BTreeMap<String, IntOrString>>,
}

/// How much the sidecar tells. Default: info.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// And what may.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And how.
    Debug,
    /// And every step.
    Trace,
}

/// What becomes of claims that nobody uses any more.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReclaimPolicy {
    /// The claims of a writer without a pod and without entries. Default: Retain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_drained: Option<WhenDrained>,
    /// All claims, once this resource is deleted. Default: Retain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<WhenDeleted>,
    /// How long a drained writer keeps its claims. Default: 3600.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31536000))]
    pub drained_after_seconds: Option<i64>,
}

/// What becomes of the claims of a writer without a pod and without entries. Default: Retain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDrained {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted.
    Delete,
}

/// What becomes of all claims once this resource is deleted. Default: Retain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDeleted {
    /// They stay.
    #[default]
    Retain,
    /// Those of drained writers are deleted.
    DeleteDrained,
    /// They are deleted, with the entries on them.
    Delete,
}

/// A number, or a quantity in a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A text.
    String(String),
}

/// By hand, so that a wrong value is told what would be right.
impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = IntOrString;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a whole number, or a quantity in quotes")
            }

            fn visit_i64<E>(self, number: i64) -> Result<IntOrString, E> {
                Ok(IntOrString::Int(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<IntOrString, E> {
                i64::try_from(number).map(IntOrString::Int).map_err(|_| E::custom("the number is too large"))
            }

            fn visit_str<E>(self, text: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(text.to_owned()))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for IntOrString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrString".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"x-kubernetes-int-or-string": true, "maxLength": SIZE_TEXT_MAX})
    }
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
