//! The client of the socket.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use walstorage_sidecar::proto::MAX_MESSAGE_BYTES;
use walstorage_sidecar::proto::wal_client::WalClient;

use crate::failure::Failure;

/// What the sidecar may send before it is read.
const WINDOW: u32 = 4 << 20;

pub(crate) type Client = WalClient<Channel>;

/// Connects to a sidecar.
pub(crate) async fn connect(socket: &Path) -> Result<Client, Failure> {
    let unreachable = |e: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "no sidecar answers at {}: {e}. Is it running? --socket or WALSTORAGE_SOCKET names its socket",
            socket.display()
        ))
    };
    // Tried by itself first: the channel would hide why.
    UnixStream::connect(socket).await.map_err(|e| unreachable(&e))?;
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://wal")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect_with_connector(connector)
        .await
        .map_err(|e| unreachable(&e))?;
    Ok(WalClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}
