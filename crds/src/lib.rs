//! The contract that the operator and the sidecar share: what `config.toml` says, what a storage URL is, what a quantity
//! is and, behind the feature `k8s`, the resource types. No I/O.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod buckets;
pub mod config;
#[cfg(feature = "k8s")]
pub mod manifests;
#[cfg(feature = "k8s")]
pub mod names;
pub mod quantity;
pub mod url;
#[cfg(feature = "k8s")]
pub mod walstorage;
#[cfg(feature = "k8s")]
pub mod walwriter;
