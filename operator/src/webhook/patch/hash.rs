//! One number for what the sidecar is: two pods with one number need no restart for each other's sake.
//!
//! It covers the container, its volumes and its environment as they are written today, without what differs from writer to
//! writer. Settings that a running sidecar reads again are in none of these, and so never count; `globalFlushThreshold` does
//! through the memory that it needs.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use walstorage_crds::walwriter::WriterVolume;

use super::container::{self, WriterId};
use super::{Settings, Storage, resources, volumes};
use crate::webhook::json::canonical;
use crate::webhook::refusal::Refusal;

/// How many hexadecimal digits.
const DIGITS: usize = 16;

/// The number of a pod that has nothing of ours in it.
pub(super) fn of(
    bare: &Value,
    storage: Storage<'_>,
    ledger: &[WriterVolume],
    settings: &Settings,
) -> Result<String, Refusal> {
    let Storage { name, effective } = storage;
    // No writer: neither its id nor its claims count.
    let nobody: Vec<_> = ledger.iter().map(|volume| WriterVolume { claim_name: None, ..volume.clone() }).collect();
    let mounted = volumes::all(name, effective, &nobody, "");
    let (volumes, mounts): (Vec<_>, Vec<_>) =
        mounted.into_iter().map(|mounted| (mounted.volume, mounted.mount)).unzip();
    let id = WriterId::Known { namespace: "", writer: "" };
    let resources = resources::sidecar(effective, bare);
    let container = container::build(bare, name, effective, &id, mounts, &resources.value, settings)?;
    let hash = Sha256::digest(canonical(&json!({"container": container, "volumes": volumes})));
    let mut digits = String::new();
    for byte in &hash[..DIGITS / 2] {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}
