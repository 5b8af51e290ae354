//! A client of our own socket for the small commands: one request, one answer, five seconds.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// Sends one request without a body and waits for the answer.
///
/// # Errors
/// A sentence for people: nobody listens, or no answer within [`PATIENCE`].
pub async fn request(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, String), String> {
    match tokio::time::timeout(PATIENCE, exchange(socket, method, path)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(format!("no answer on {}: {e}", socket.display())),
        Err(_) => Err(format!("no answer on {} within {} s", socket.display(), PATIENCE.as_secs())),
    }
}

async fn exchange(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, String), anyhow::Error> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "localhost").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| anyhow::anyhow!(e))?;
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).trim_end().to_owned()))
}
