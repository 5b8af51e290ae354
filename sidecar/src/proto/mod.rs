//! The wire vocabulary, generated from `proto/wal.proto`: messages, the gRPC client and server of service `Wal`, and the
//! JSON mapping of api.md as serde implementations of the same messages.

pub mod codec;
pub mod errors;
pub mod json;

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    tonic::include_proto!("walstorage.v1");
}

pub use generated::*;

/// The compiled descriptors of the service, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/wal.bin"));

/// Most bytes of one gRPC message, in both directions.
pub const MAX_MESSAGE_BYTES: usize = 48 << 20;
