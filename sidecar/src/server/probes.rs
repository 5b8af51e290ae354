//! `/livez`, `/readyz`, `/startedz`, `/metrics` and `/status`: the pages of the admin port, which the unix socket has too.

use std::fmt::Write as _;

use ::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use tonic::body::Body;

use crate::metrics;
use crate::server::problem::json_response;
use crate::server::{Shared, status};

/// One of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Live,
    Ready,
    Started,
    Metrics,
    Status,
}

impl Page {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/startedz" => Self::Started,
            "/metrics" => Self::Metrics,
            "/status" => Self::Status,
            _ => return None,
        })
    }

    pub(crate) fn answer(self, shared: &Shared) -> Response<Body> {
        match self {
            // That this is answered is all there is to say: no disk, no lock.
            Self::Live => text(StatusCode::OK, "text/plain; charset=utf-8", "live\n".into()),
            Self::Ready => probe("ready", status::ready(&shared.engine.status())),
            Self::Started => probe("started", status::started(&shared.engine.status())),
            Self::Metrics => {
                text(StatusCode::OK, metrics::CONTENT_TYPE, shared.metrics.scrape(&shared.engine.status()))
            }
            Self::Status => json_response(StatusCode::OK, &shared.status()),
        }
    }
}

fn probe(name: &str, outcome: Result<(), String>) -> Response<Body> {
    match outcome {
        Ok(()) => text(StatusCode::OK, "text/plain; charset=utf-8", format!("{name}\n")),
        Err(why) => {
            let mut body = String::new();
            let _ = writeln!(body, "not {name}: {why}");
            text(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", body)
        }
    }
}

fn text(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
