//! The tables of identity, seal and choice.

mod choice;
mod table;

use serde_json::{Value, json};

use super::PodFacts;

/// A pod as an admission request has it: label, name or prefix, owner.
pub(super) fn pod(meta: Value, owner: Option<[&str; 4]>) -> PodFacts {
    let mut meta = meta;
    if meta["labels"].is_null() {
        meta["labels"] = json!({"walstorage.dev/storage": "orders"});
    }
    if let Some([version, kind, name, uid]) = owner {
        let other = json!({"apiVersion": "v1", "kind": "Node", "name": "other", "uid": "0"});
        let controller = json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true});
        meta["ownerReferences"] = json!([other, controller]);
    }
    PodFacts::of(&json!({"metadata": meta, "spec": {"containers": [{"name": "app"}]}}), "shop")
}
