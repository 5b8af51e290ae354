//! gRPC over the unix socket.

use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;
use walstorage_sidecar::proto::wal_client::WalClient;
use walstorage_sidecar::proto::{Item, MAX_MESSAGE_BYTES, ReadRequest};

/// The generated client.
pub type Client = WalClient<Channel>;

/// A channel that connects at its first call.
#[must_use]
pub fn channel(socket: &Path) -> Channel {
    let socket: Arc<Path> = socket.into();
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = Arc::clone(&socket);
        async move { UnixStream::connect(&socket).await.map(TokioIo::new) }
    }))
}

/// A client of the service with the limits that the sidecar has.
#[must_use]
pub fn connect(socket: &Path) -> Client {
    WalClient::new(channel(socket))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// All items of a collection from `from` on, without following.
///
/// # Errors
/// As the sidecar answers.
pub async fn read(client: &mut Client, collection: &str, from: u64, limit: u64) -> Result<Vec<Item>, tonic::Status> {
    let request = ReadRequest { collection: collection.into(), from, limit, follow: false };
    let mut replies = client.read(request).await?.into_inner();
    let mut items = Vec::new();
    while let Some(reply) = replies.message().await? {
        items.extend(reply.items);
    }
    Ok(items)
}

/// The typed part of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// gRPC's own code.
    pub code: tonic::Code,
    /// Ours.
    pub reason: String,
    /// What the caller may assume; empty where nothing was to be written.
    pub durability: String,
    /// The other details.
    pub details: std::collections::HashMap<String, String>,
}

/// Reads the typed part of an error; the reason is empty where there is none.
#[must_use]
pub fn typed(status: &tonic::Status) -> Typed {
    let info = status.get_details_error_info();
    let (reason, mut details) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
    let durability = details.remove("durability").unwrap_or_default();
    Typed { code: status.code(), reason, durability, details }
}
