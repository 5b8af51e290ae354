//! HTTP/1.1 over the unix socket, one connection, kept alive.

use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

/// A whole reply.
#[derive(Debug)]
pub struct Reply {
    /// Its code.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Each line of the body as JSON.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line of JSON")).collect()
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        Self::over(UnixStream::connect(socket).await?).await
    }

    /// Connects to a TCP port of this machine.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open_port(port: u16) -> anyhow::Result<Self> {
        Self::over(TcpStream::connect(("127.0.0.1", port)).await?).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// One request and its whole reply.
    ///
    /// # Errors
    /// When the connection breaks, before or within the reply.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Reply> {
        self.sender.ready().await?;
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let reply = self.sender.send_request(request.body(Full::new(body.into()))?).await?;
        let (parts, body) = reply.into_parts();
        Ok(Reply { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }

    /// GET.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Reply> {
        self.send("GET", path, None, Bytes::new()).await
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.send("POST", path, Some("application/json"), body.to_string()).await
    }
}
