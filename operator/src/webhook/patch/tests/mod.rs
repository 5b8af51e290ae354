//! What a pod becomes, as tables, committed pods and properties.

mod golden;
mod properties;
mod refusals;
mod restricted;
mod steps;

use serde_json::{Value, json};
use walstorage_crds::walstorage::{Effective, WalStorageSpec, validate};
use walstorage_crds::walwriter::WriterVolume;

use super::{Origin, Proposal, Settings, Storage, inject};
use crate::webhook::refusal::Refusal;

/// A WalStorage `orders` of the namespace `shop`, and what is decided about a pod of it.
pub(super) struct Case {
    pub(super) effective: Effective,
    pub(super) writer: String,
    pub(super) workload: String,
    pub(super) ledger: Vec<WriterVolume>,
    pub(super) settings: Settings,
}

impl Case {
    pub(super) fn new(spec: &Value) -> Self {
        let spec: WalStorageSpec = serde_json::from_value(spec.clone()).unwrap();
        Self {
            effective: validate("orders", &spec, &[]).unwrap(),
            writer: "orders-0".to_owned(),
            workload: "apps/StatefulSet/orders".to_owned(),
            ledger: Vec::new(),
            settings: Settings {
                image: "registry.example.com/walstorage:1".to_owned(),
                pull_policy: "IfNotPresent".to_owned(),
            },
        }
    }

    pub(super) fn standard() -> Self {
        Self::new(&json!({"walUrls": [{"name": "nvme1", "url": "file:///wal/nvme1"}]}))
    }

    pub(super) fn storage(&self) -> Storage<'_> {
        Storage { name: "orders", effective: &self.effective }
    }

    pub(super) fn proposal(&self) -> Proposal<'_> {
        Proposal {
            namespace: "shop",
            writer: &self.writer,
            workload: &self.workload,
            seal: "v1-0123456789abcdef0123456789abcdef",
            ledger: &self.ledger,
        }
    }

    pub(super) fn inject(&self, pod: &Value, origin: Origin) -> Result<Value, Refusal> {
        inject(pod, origin, self.storage(), &self.proposal(), &self.settings)
    }

    /// The first call on a user's pod.
    pub(super) fn first(&self, pod: &Value) -> Value {
        self.inject(pod, Origin::User).unwrap()
    }

    /// A further call on a pod that we have patched.
    pub(super) fn again(&self, pod: &Value) -> Value {
        self.inject(pod, Origin::Sealed).unwrap()
    }
}

/// A pod with one container, as the API server sends it.
pub(super) fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "orders-0", "namespace": "shop", "labels": {"walstorage.dev/storage": "orders"}},
        "spec": {
            "containers": [{"name": "app", "image": "app:1", "resources": {}}],
            "securityContext": {},
            "terminationGracePeriodSeconds": 30,
        },
    })
}
