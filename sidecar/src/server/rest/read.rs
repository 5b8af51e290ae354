//! Reads over HTTP: newline-delimited JSON, one item a line, or with `format=raw` the payloads themselves.

use std::sync::Arc;

use ::http::{HeaderValue, Response, header};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;
use tonic::body::Body;
use tonic::codegen::StdError;

use crate::engine::Reader;
use crate::engine::api::Item;
use crate::error::{ApiError, Reason};
use crate::proto;
use crate::server::problem::{ErrorBody, Problem, panicked};
use crate::server::{Shared, calls, convert};

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON object a line.
    Json,
    /// Payload and LF.
    Raw,
}

impl Format {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("json") => Ok(Self::Json),
            Some("raw") => Ok(Self::Raw),
            Some(other) => {
                Err(ApiError::new(Reason::InvalidRequest, format!("format={other} is unknown: json or raw")))
            }
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-ndjson",
            Self::Raw => "application/octet-stream",
        }
    }

    /// The text of some items. An error breaks the connection.
    fn write(self, items: Vec<Item>) -> Result<Bytes, StdError> {
        let payloads: usize = items
            .iter()
            .map(|item| match item {
                Item::Entry(entry) => entry.payload.len(),
                Item::Gap { .. } => 0,
            })
            .sum();
        match self {
            Self::Json => {
                let mut out = BytesMut::with_capacity(payloads / 3 * 4 + items.len() * 128);
                for item in items {
                    serde_json::to_writer((&mut out).writer(), &convert::item(item))?;
                    out.put_u8(b'\n');
                }
                Ok(out.freeze())
            }
            Self::Raw => {
                let mut out = BytesMut::with_capacity(payloads + items.len());
                for item in items {
                    match item {
                        Item::Entry(entry) => {
                            out.put(entry.payload);
                            out.put_u8(b'\n');
                        }
                        Item::Gap { first, last, .. } => return Err(format!("LSNs {first} to {last} are lost").into()),
                    }
                }
                Ok(out.freeze())
            }
        }
    }

    /// The text of an error after the first byte.
    fn write_error(self, error: ApiError) -> Result<Bytes, StdError> {
        match self {
            Self::Json => Ok(format!("{}\n", json!({ "error": ErrorBody::from(&error) })).into()),
            Self::Raw => Err(error.into()),
        }
    }
}

pub(crate) async fn respond(
    shared: Arc<Shared>,
    request: proto::ReadRequest,
    format: Format,
) -> Result<Response<Body>, Problem> {
    let mut reader = calls::read(&shared, &request)?;
    // What is wrong from the start is a status; a follower may have nothing to say for long.
    let first = if request.follow { reader.next().now_or_never() } else { Some(reader.next().await) };
    let (first, reader) = match first {
        Some(Some(Err(error))) => return Err(error.into()),
        Some(Some(Ok(items))) => (Some(items), Some(reader)),
        Some(None) => (None, None),
        None => (None, Some(reader)),
    };
    let parts = stream::unfold((first, reader), move |(first, reader)| part(shared.clone(), format, first, reader));
    let guarded = std::panic::AssertUnwindSafe(parts).catch_unwind();
    let frames = guarded.map(move |part| part.unwrap_or_else(|_| format.write_error(panicked())).map(Frame::data));
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    Ok(response)
}

type Part = Option<(Result<Bytes, StdError>, (Option<Vec<Item>>, Option<Reader>))>;

async fn part(shared: Arc<Shared>, format: Format, first: Option<Vec<Item>>, reader: Option<Reader>) -> Part {
    let mut reader = reader?;
    let next = match first {
        Some(items) => Some(Ok(items)),
        None => reader.next().await,
    };
    Some(match next? {
        Ok(items) => {
            shared.count_gaps(&items);
            match format.write(items) {
                Ok(text) => (Ok(text), (None, Some(reader))),
                Err(error) => (Err(error), (None, None)),
            }
        }
        Err(error) => (format.write_error(error), (None, None)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::api::{GapReason, StoredEntry};
    use crate::types::Lsn;

    fn entry(key: Option<&'static str>) -> Item {
        Item::Entry(StoredEntry {
            lsn: Lsn(u64::MAX),
            timestamp_micros: 1_763_857_930_123_456,
            key: key.map(Bytes::from),
            headers: vec![("n".into(), Bytes::from_static(&[0xff, 0xfe]))],
            payload: Bytes::from_static(b"hello"),
        })
    }

    fn gap() -> Item {
        Item::Gap { first: Lsn(8), last: Lsn(9), reason: GapReason::Damage }
    }

    #[test]
    fn items_are_lines_of_json() {
        let text = Format::Json.write(vec![entry(None), entry(Some("")), gap()]).unwrap();
        let lines = [
            r#"{"entry":{"lsn":"18446744073709551615","timestamp":"2025-11-23T00:32:10.123456Z","key":null,"headers":[{"name":"n","value":"//4="}],"payload":"aGVsbG8="}}"#,
            r#"{"entry":{"lsn":"18446744073709551615","timestamp":"2025-11-23T00:32:10.123456Z","key":"","headers":[{"name":"n","value":"//4="}],"payload":"aGVsbG8="}}"#,
            r#"{"gap":{"first":"8","last":"9","reason":"DAMAGE"}}"#,
        ];
        assert_eq!(std::str::from_utf8(&text).unwrap().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn raw_is_payloads_and_a_gap_breaks_it() {
        assert_eq!(Format::Raw.write(vec![entry(None), entry(Some("k"))]).unwrap(), "hello\nhello\n");
        assert!(Format::Raw.write(vec![entry(None), gap()]).is_err());
        let error = ApiError::new(Reason::OutOfRange, "gone");
        assert!(Format::Raw.write_error(error.clone()).is_err());
        let line = Format::Json.write_error(error).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(parsed["error"]["reason"], "OUT_OF_RANGE");
    }
}
