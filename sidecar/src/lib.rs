//! WalStorage's sidecar: a multi-directory write-ahead log behind a unix socket.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[macro_use]
mod planted;

mod ambient;
pub mod api;
pub mod commit;
pub mod directory;
pub mod engine;
pub mod error;
pub mod fencing;
pub mod format;
pub mod metrics;
pub mod offline;
pub mod placement;
pub mod proto;
pub mod recovery;
pub mod serve;
pub mod server;
#[cfg(test)]
mod sim;
pub mod types;
