//! The port of health and metrics: `/livez`, `/readyz`, `/metrics`. Bounded in connections and in time per request, since
//! it is open to the whole cluster network.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::health::Health;

/// Connections at the same time; a probe and a scraper need one each.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and so how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until the token is cancelled; returns when the last answer under way is given.
pub async fn serve(listener: TcpListener, health: Arc<Health>, registry: Arc<Registry>, stop: CancellationToken) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = async {
                // The semaphore is never closed.
                let permit = Arc::clone(&free).acquire_owned().await.ok();
                (listener.accept().await, permit)
            } => accepted,
        };
        let (Ok((stream, _)), permit) = accepted else {
            // Out of files, mostly: others end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (health, registry, stop) = (Arc::clone(&health), Arc::clone(&registry), stop.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &health, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // What a peer does wrong is its own concern.
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            drop((ended, permit));
        });
    }
    while connections.join_next().await.is_some() {}
}

fn answer(request: &Request<Incoming>, health: &Health, registry: &Registry) -> Response<Full<Bytes>> {
    respond(request.method(), request.uri().path(), health, registry)
}

fn respond(method: &Method, path: &str, health: &Health, registry: &Registry) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n".to_owned());
    }
    match path {
        "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => {
            let (ready, report) = health.report();
            plain(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
        }
        "/metrics" => {
            let mut body = String::new();
            match text::encode(&mut body, registry) {
                Ok(()) => {
                    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    typed(StatusCode::OK, body, content)
                }
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            }
        }
        _ => plain(StatusCode::NOT_FOUND, "allowed: /livez, /readyz, /metrics\n".to_owned()),
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, body, "text/plain; charset=utf-8")
}

fn typed(status: StatusCode, body: String, content: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn got(path: &str, health: &Health, registry: &Registry) -> (u16, String) {
        let response = respond(&Method::GET, path, health, registry);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_process_that_is_not_ready_is_alive() {
        let (health, registry) = (Health::new(), Registry::default());
        let gate = health.gate("schema", "not checked");
        assert_eq!(got("/livez", &health, &registry).await, (200, "ok\n".to_owned()));
        assert_eq!(got("/readyz", &health, &registry).await, (503, "[-] schema: not checked\nnot ready\n".to_owned()));
        gate.open();
        assert_eq!(got("/readyz", &health, &registry).await, (200, "[+] schema\nready\n".to_owned()));
        assert_eq!(got("/", &health, &registry).await.0, 404);
        assert_eq!(respond(&Method::POST, "/livez", &health, &registry).status(), 405);
    }

    #[tokio::test]
    async fn the_port_is_served_until_the_token_is_cancelled() {
        let mut registry = Registry::with_prefix("walstorage_operator");
        let count: Counter = Counter::default();
        registry.register("things", "Things", count.clone());
        count.inc();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Health::new(), Arc::new(registry), stop.clone()));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("walstorage_operator_things_total 1"), "{text}");
        // A connection that says nothing does not keep the process.
        let _idle = tokio::net::TcpStream::connect(address).await.unwrap();
        stop.cancel();
        server.await.unwrap();
    }
}
