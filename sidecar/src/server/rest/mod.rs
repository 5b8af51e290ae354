//! HTTP/1.1 (and HTTP/2 without gRPC): the same calls, as JSON. Paths are matched on their raw segments, so that any
//! collection name can be percent-encoded into one.

mod body;
mod read;
mod target;

use std::sync::Arc;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::StdError;

use self::body::{Received, media_type, optional_json, receive, unsupported};
use self::target::{Query, decode};
use crate::error::{ApiError, Reason};
use crate::proto;
use crate::server::problem::{Problem, json_response};
use crate::server::{Shared, calls, probes};

/// Answers one HTTP request.
pub(crate) async fn serve<B>(shared: Arc<Shared>, request: Request<B>) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError>,
{
    match route(&shared, request).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Resource<'a> {
    Collections,
    Collection(&'a str),
    Entries(&'a str),
    Truncate(&'a str),
    Flush(&'a str),
    Status,
    Directories,
    Forget(&'a str),
    Drain,
    Prestop,
    Probe(probes::Page),
}

impl<'a> Resource<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        if let Some(page) = probes::Page::parse(path) {
            return Some(Self::Probe(page));
        }
        let segments: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
        Some(match segments.as_slice() {
            ["collections"] => Self::Collections,
            ["collections", name] => Self::Collection(name),
            ["collections", name, "entries"] => Self::Entries(name),
            ["collections", name, "truncate"] => Self::Truncate(name),
            ["collections", name, "flush"] => Self::Flush(name),
            ["status"] => Self::Status,
            ["directories"] => Self::Directories,
            ["directories", uuid, "forget"] => Self::Forget(uuid),
            ["drain"] => Self::Drain,
            ["prestop"] => Self::Prestop,
            _ => return None,
        })
    }

    const fn methods(&self) -> &'static str {
        match self {
            Self::Collections | Self::Status | Self::Directories | Self::Probe(_) => "GET",
            Self::Collection(_) => "GET, DELETE",
            Self::Entries(_) => "GET, POST",
            Self::Truncate(_) | Self::Flush(_) | Self::Forget(_) | Self::Drain | Self::Prestop => "POST",
        }
    }
}

async fn route<B>(shared: &Arc<Shared>, request: Request<B>) -> Result<Response<Body>, Problem>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError>,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let Some(resource) = Resource::parse(path) else {
        return Err(Problem::http(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path}: the paths begin with /v1/"),
        ));
    };
    let methods = resource.methods();
    if !methods.split(", ").any(|method| method == head.method.as_str()) {
        let message = format!("{} is not a method of {path}: use {methods}", head.method);
        let mut problem = Problem::http(StatusCode::METHOD_NOT_ALLOWED, message);
        problem.allow = Some(methods);
        return Err(problem);
    }
    let query = |known: &[&str]| Query::parse(head.uri.query(), known);
    // Small bodies only: a message without entries.
    let received = async |body: B| receive(&shared.engine, &head.headers, body).await.map(|received| received.bytes);
    match resource {
        Resource::Collections => {
            let query = query(&["pageSize", "pageToken"])?;
            let page_size = u32::try_from(query.number("pageSize")?).unwrap_or(u32::MAX);
            let page_token = query.text("pageToken").unwrap_or_default().to_owned();
            answer(calls::list(shared, &proto::ListCollectionsRequest { page_size, page_token }))
        }
        Resource::Collection(name) if head.method == Method::DELETE => {
            query(&[])?;
            let collection = collection(name)?;
            answer(calls::delete(shared, proto::DeleteCollectionRequest { collection }, None).await)
        }
        Resource::Collection(name) => {
            query(&[])?;
            answer(calls::collection(shared, &proto::GetCollectionRequest { collection: collection(name)? }))
        }
        Resource::Entries(name) if head.method == Method::GET => {
            let query = query(&["from", "limit", "follow", "format"])?;
            let request = proto::ReadRequest {
                collection: collection(name)?,
                from: query.number("from")?,
                limit: query.number("limit")?,
                follow: query.flag("follow")?,
            };
            let format = read::Format::parse(query.text("format"))?;
            read::respond(shared.clone(), request, format).await
        }
        Resource::Entries(name) => {
            let collection = collection(name)?;
            let kind = Kind::parse(media_type(&head.headers).as_deref())?;
            let query = query(kind.parameters())?;
            let Received { bytes, permits } = receive(&shared.engine, &head.headers, body).await?;
            let request = append_request(kind, collection, &query, bytes)?;
            // Its bytes are the engine's from here on.
            drop(permits);
            answer(calls::append(shared, request, None).await)
        }
        Resource::Truncate(name) => {
            query(&[])?;
            let name = collection(name)?;
            let bytes = received(body).await?;
            let given = match media_type(&head.headers).as_deref() {
                Some("application/json") => body::json::<proto::TruncateRequest>(&bytes)?,
                other => return Err(unsupported(other, "application/json, for example {\"upTo\":\"7\"}")),
            };
            let collection = named_by_path(name, &given.collection)?;
            answer(calls::truncate(shared, proto::TruncateRequest { collection, ..given }, None).await)
        }
        Resource::Flush(name) => {
            query(&[])?;
            let name = collection(name)?;
            let given: proto::FlushRequest = optional_json(&head.headers, &received(body).await?)?;
            let collection = named_by_path(name, &given.collection)?;
            answer(calls::flush(shared, proto::FlushRequest { collection }, None).await)
        }
        Resource::Status => {
            query(&[])?;
            answer(Ok(shared.status()))
        }
        Resource::Directories => {
            query(&[])?;
            answer(Ok(calls::directories(shared)))
        }
        Resource::Forget(uuid) => {
            query(&[])?;
            let uuid = decode(uuid).map_err(|message| ApiError::new(Reason::InvalidRequest, message))?;
            let given: proto::ForgetDirectoryRequest = optional_json(&head.headers, &received(body).await?)?;
            if !given.uuid.is_empty() && given.uuid != uuid {
                return Err(
                    ApiError::new(Reason::InvalidRequest, "the directory is named by the path, leave it out").into()
                );
            }
            answer(calls::forget(shared, proto::ForgetDirectoryRequest { uuid }, None).await)
        }
        Resource::Drain => {
            query(&[])?;
            let proto::DrainRequest {} = optional_json(&head.headers, &received(body).await?)?;
            answer(calls::drain(shared))
        }
        Resource::Prestop => {
            query(&[])?;
            let proto::PrestopRequest {} = optional_json(&head.headers, &received(body).await?)?;
            shared.engine.prestop();
            answer(Ok(proto::PrestopReply {}))
        }
        Resource::Probe(page) => Ok(page.answer(shared)),
    }
}

fn answer<T: serde::Serialize>(result: Result<T, ApiError>) -> Result<Response<Body>, Problem> {
    Ok(json_response(StatusCode::OK, &result?))
}

fn collection(segment: &str) -> Result<String, ApiError> {
    decode(segment).map_err(|message| ApiError::new(Reason::InvalidCollectionName, message))
}

fn named_by_path(name: String, given: &str) -> Result<String, ApiError> {
    if given.is_empty() {
        return Ok(name);
    }
    Err(ApiError::new(Reason::InvalidRequest, "the collection is named by the path, leave it out"))
}

/// The form of an append's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    OnePayload,
    Lines,
}

impl Kind {
    fn parse(media_type: Option<&str>) -> Result<Self, Problem> {
        match media_type {
            Some("application/json") => Ok(Self::Json),
            Some("application/octet-stream") => Ok(Self::OnePayload),
            Some("application/x-ndjson") => Ok(Self::Lines),
            other => Err(unsupported(other, "application/json, application/octet-stream or application/x-ndjson")),
        }
    }

    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Json => &[],
            Self::OnePayload | Self::Lines => &["ack", "producerId", "producerSeq"],
        }
    }
}

fn append_request(kind: Kind, collection: String, query: &Query, body: Bytes) -> Result<proto::AppendRequest, Problem> {
    let payload = |payload| proto::Entry { payload, key: None, headers: Vec::new() };
    if kind != Kind::OnePayload && body.is_empty() {
        return Err(ApiError::new(Reason::InvalidRequest, "the body is empty: a request has at least one entry").into());
    }
    let entries = match kind {
        Kind::Json => {
            let given: proto::AppendRequest = body::json(&body)?;
            let collection = named_by_path(collection, &given.collection)?;
            return Ok(proto::AppendRequest { collection, ..given });
        }
        Kind::OnePayload => vec![payload(body)],
        Kind::Lines => body::lines(&body)?.into_iter().map(payload).collect(),
    };
    let ack = match query.text("ack") {
        None => 0,
        Some(name) => proto::Ack::from_str_name(name).map(|ack| ack as i32).ok_or_else(|| {
            ApiError::new(Reason::InvalidRequest, format!("ack={name} is unknown: DURABLE or BUFFERED"))
        })?,
    };
    let producer_id = query.text("producerId").unwrap_or_default().to_owned();
    Ok(proto::AppendRequest {
        id: 0,
        collection,
        entries,
        ack,
        producer_id,
        producer_seq: query.number("producerSeq")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_by_raw_segments() {
        let table = [
            ("/v1/collections", Some(Resource::Collections)),
            ("/v1/collections/", Some(Resource::Collection(""))),
            ("/v1/collections/a%2Fb", Some(Resource::Collection("a%2Fb"))),
            ("/v1/collections/entries", Some(Resource::Collection("entries"))),
            ("/v1/collections/../entries", Some(Resource::Entries(".."))),
            ("/v1/collections//entries", Some(Resource::Entries(""))),
            ("/v1/collections/c/truncate", Some(Resource::Truncate("c"))),
            ("/v1/collections/c/flush", Some(Resource::Flush("c"))),
            ("/v1/directories/u/forget", Some(Resource::Forget("u"))),
            ("/v1/status", Some(Resource::Status)),
            ("/v1/status/", None),
            ("/v1/", None),
            ("/", None),
            ("", None),
            ("*", None),
            ("/v2/collections", None),
            ("/v1/collections/a/b", None),
            ("/v1/collections/a/b/entries", None),
        ];
        for (path, expected) in table {
            assert_eq!(Resource::parse(path), expected, "{path}");
        }
    }

    fn query(text: &str) -> Query {
        Query::parse(Some(text), Kind::Lines.parameters()).unwrap()
    }

    #[test]
    fn each_body_type_becomes_the_same_message() {
        let json =
            r#"{"entries":[{"payload":"YQ=="},{"payload":"Yg"}],"ack":"BUFFERED","producer_id":"p","producerSeq":3}"#;
        let from_json = append_request(Kind::Json, "c".into(), &Query::default(), json.into()).unwrap();
        let parameters = query("ack=BUFFERED&producerId=p&producer_seq=3");
        let from_lines = append_request(Kind::Lines, "c".into(), &parameters, "a\nb".into()).unwrap();
        assert_eq!(from_json, from_lines);
        let one = append_request(Kind::OnePayload, "c".into(), &query(""), "a\nb".into()).unwrap();
        assert_eq!(one.entries, [proto::Entry { payload: "a\nb".into(), ..Default::default() }]);
        let empty = append_request(Kind::OnePayload, "c".into(), &query(""), Bytes::new()).unwrap();
        assert_eq!(empty.entries, [proto::Entry::default()]);
    }

    #[test]
    fn wrong_bodies_are_invalid_requests() {
        let table = [
            (Kind::Json, "", "", "the body is empty"),
            (Kind::Lines, "", "", "the body is empty"),
            (Kind::Lines, "ack=durable", "a", "ack=durable is unknown"),
            (Kind::Lines, "producerSeq=-1", "a", "producerSeq=-1 is not a whole number"),
            (Kind::Json, "", "{", "not the JSON"),
            (Kind::Json, "", "[]", "expected an object"),
            (Kind::Json, "", "null", "expected an object"),
            (Kind::Json, "", "{} x", "trailing characters"),
            (Kind::Json, "", r#"{"entry":[]}"#, "unknown field `entry`"),
            (Kind::Json, "", r#"{"entries":[[]]}"#, "expected an object"),
            (Kind::Json, "", r#"{"entries":[{"payload":"*"}]}"#, "not base64"),
            (Kind::Json, "", r#"{"entries":[{"payload":1}]}"#, "a base64 string"),
            (Kind::Json, "", r#"{"entries":[{"payload":"","payload":""}]}"#, "duplicate field"),
            (Kind::Json, "", r#"{"ack":"SOON"}"#, "DURABLE or BUFFERED"),
            (Kind::Json, "", r#"{"producerSeq":9007199254740992}"#, "below 2^53"),
            (Kind::Json, "", r#"{"producerSeq":-1}"#, "a whole number"),
            (Kind::Json, "", r#"{"producerSeq":1.5}"#, "a whole number"),
            (Kind::Json, "", r#"{"collection":"d"}"#, "named by the path"),
        ];
        for (kind, parameters, body, message) in table {
            let problem = append_request(kind, "c".into(), &query(parameters), body.into()).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{body}");
            assert_eq!(problem.error.reason, Reason::InvalidRequest, "{body}");
            assert!(problem.error.message.contains(message), "{body}: {}", problem.error.message);
        }
    }

    #[test]
    fn a_body_of_many_tiny_entries_is_refused_before_it_is_parsed() {
        let body = format!(r#"{{"entries":[{}{{}}]}}"#, "{},".repeat(proto::codec::MAX_PARTS));
        let problem = append_request(Kind::Json, "c".into(), &Query::default(), body.into()).unwrap_err();
        assert_eq!(problem.error.reason, Reason::BatchTooLarge);
    }
}
