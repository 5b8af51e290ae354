//! WalStorage's sidecar: a multi-directory write-ahead log behind a unix socket.

pub mod engine;
pub mod error;
pub mod proto;
pub mod types;
