//! WalStorage's operator. What it renders offline and what it applies in a cluster come from the same code.
//!
//! [`manifests`], [`render`] and [`resource`] are pure: text in, text out. [`process`] is what the long-running commands
//! share, [`storage`] the WalStorage controller, [`grant`] who may hold a writer, [`writer`] the controller that carries it
//! out, and [`observe`] asks sidecars how they are. [`identity`] says who a pod is, [`webhook`] admits pods, and
//! [`certificates`] lets the API server trust it.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod certificates;
pub mod grant;
pub mod identity;
pub mod manifests;
pub mod observe;
mod planted;
pub mod process;
pub mod render;
pub mod resource;
pub mod storage;
pub mod webhook;
pub mod writer;
mod yaml;
