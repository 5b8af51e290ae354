//! The WalWriter resource: the operator's ledger, one object for each writer. Users read it; their verbs are annotations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who a writer is. Immutable.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "walstorage.dev",
    version = "v1alpha1",
    kind = "WalWriter",
    plural = "walwriters",
    shortname = "walw",
    category = "walstorage-dev",
    namespaced,
    status = "WalWriterStatus",
    derive = "PartialEq",
    doc = "The operator's record of one writer of a WalStorage: which pod holds it, and which claims hold its entries.",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Pod", "type": "string", "jsonPath": ".status.holder.podName"}"#,
    printcolumn = r#"{"name": "Workload", "type": "string", "jsonPath": ".spec.workload.name"}"#,
    printcolumn = r#"{"name": "Unapplied", "type": "integer", "jsonPath": ".status.lastReport.unappliedEntries"}"#,
    printcolumn = r#"{"name": "Drained", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Drained\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WalWriterSpec {
    /// Name of the WalStorage.
    #[schemars(length(min = 1, max = 40))]
    pub storage: String,
    /// Name of the writer.
    #[schemars(length(min = 1, max = 63))]
    pub writer: String,
    /// Minted once; also on each claim and in every identity.json.
    #[schemars(length(min = 36, max = 36))]
    pub writer_uid: String,
    /// Whether the pod's name names it.
    pub identity: Identity,
    /// Whose pods may hold it.
    pub workload: Workload,
}

/// Where a writer's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Identity {
    /// From the pod's name.
    Named,
    /// Chosen among those of the workload.
    Pooled,
}

/// A workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Its API group; empty for the core group.
    #[schemars(length(max = 253))]
    pub group: String,
    /// Its kind.
    #[schemars(length(min = 1, max = 63))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the operator knows of a writer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalWriterStatus {
    /// Where it is in its life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Since when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_since: Option<Time>,
    /// The phase before Pending or Lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Phase>,
    /// Of the newest grant; only rises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The pod that was granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Every directory it ever had and has not emptied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub volumes: Option<Vec<WriterVolume>>,
    /// The newest termination message that was believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_report: Option<LastReport>,
    /// Granted, ClaimsReady, Drained, Stuck, Unplaceable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub conditions: Option<Vec<Condition>>,
}

impl WalWriterStatus {
    /// A condition, one of those that [`condition`] names.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().flatten().find(|condition| condition.type_ == kind)
    }
}

/// The types of a writer's conditions.
pub mod condition {
    /// A pod holds it, and was let go.
    pub const GRANTED: &str = "Granted";
    /// Its claims are there and as large as asked for.
    pub const CLAIMS_READY: &str = "ClaimsReady";
    /// It has no entries that an application has not applied.
    pub const DRAINED: &str = "Drained";
    /// Its holder does not end, long after it should have.
    pub const STUCK: &str = "Stuck";
    /// No node can have both its claims and its pod.
    pub const UNPLACEABLE: &str = "Unplaceable";
}

/// Where a writer is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Granted, not yet started.
    Pending,
    /// Its pod runs.
    Active,
    /// Its pod is terminating.
    Releasing,
    /// Its pod is gone.
    Released,
    /// Without a pod for long, with entries.
    Orphaned,
    /// Without a pod, without entries.
    Drained,
    /// Its claims are being deleted.
    Reclaiming,
    /// A claim is missing or another one.
    Lost,
}

impl Phase {
    /// The name in the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Active => "Active",
            Self::Releasing => "Releasing",
            Self::Released => "Released",
            Self::Orphaned => "Orphaned",
            Self::Drained => "Drained",
            Self::Reclaiming => "Reclaiming",
            Self::Lost => "Lost",
        }
    }
}

/// The pod that was granted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Its name.
    #[schemars(length(max = 253))]
    pub pod_name: String,
    /// Its uid.
    #[schemars(length(max = 64))]
    pub pod_uid: String,
    /// Its node, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub node_name: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_at: Option<Time>,
}

/// One directory of a writer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriterVolume {
    /// The URL's name.
    #[schemars(length(max = 16))]
    pub name: String,
    /// The URL.
    #[schemars(length(max = 512))]
    pub url: String,
    /// The claim; none for buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub claim_name: Option<String>,
    /// The claim's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub claim_uid: Option<String>,
    /// The size that was asked for last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    pub size: Option<String>,
    /// The directory was initialised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initialized: Option<bool>,
    /// What the directory of this name held before is given up with the next grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forget: Option<bool>,
    /// As the sidecar reports it; none where it is healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub state: Option<String>,
    /// Whether nothing is left in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub empty: Option<Empty>,
}

/// Whether nothing is left in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Empty {
    /// Nothing is left.
    True,
    /// Entries are left.
    False,
    /// Nobody said, so entries may be left.
    #[default]
    Unknown,
}

/// A termination message that was believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastReport {
    /// The grant that it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted: Option<i64>,
    /// clean, fenced or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub exit: Option<String>,
    /// Entries that the application has not applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unapplied_entries: Option<i64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unapplied_bytes: Option<i64>,
    /// Names of the URLs where nothing is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(max = 16)))]
    pub empty: Option<Vec<String>>,
    /// When it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_at: Option<Time>,
}
