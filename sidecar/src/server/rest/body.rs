//! Bodies of HTTP requests: received within the bound of 64 MiB and the engine's memory, then read as what their type says.

use ::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use tonic::codegen::StdError;

use crate::engine::{Engine, ReceivePermit};
use crate::error::{ApiError, Reason};
use crate::proto::codec::{MAX_PARTS, too_many_parts};
use crate::proto::json::Object;
use crate::server::problem::Problem;

/// Most bytes of a body.
pub(crate) const MAX_BODY_BYTES: usize = 64 << 20;

/// Bodies up to this size are not counted.
const UNCOUNTED: usize = 64 << 10;

/// A body without a length is counted in steps of this.
const STEP: usize = 1 << 20;

/// A body that has arrived, and what it is counted as until it is handed to the engine.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    pub(crate) permits: Vec<ReceivePermit>,
}

fn too_large() -> Problem {
    ApiError::new(Reason::BatchTooLarge, format!("a body has at most {MAX_BODY_BYTES} bytes: send several batches"))
        .into()
}

/// Receives a body.
pub(crate) async fn receive<B>(engine: &Engine, headers: &HeaderMap, mut body: B) -> Result<Received, Problem>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut permits = Vec::new();
    let mut counted = UNCOUNTED;
    if let Some(length) = announced {
        if length > MAX_BODY_BYTES {
            return Err(too_large());
        }
        if length > counted {
            permits.push(engine.receive(length as u64, None).await?);
            counted = length;
        }
    }
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| {
            let error: StdError = e.into();
            Problem::from(ApiError::new(Reason::InvalidRequest, format!("the body did not arrive: {error}")))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let total = first.len() + rest.len() + data.len();
        if total > MAX_BODY_BYTES {
            return Err(too_large());
        }
        while total > counted {
            permits.push(engine.receive(STEP as u64, None).await?);
            counted += STEP;
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            rest.reserve(announced.unwrap_or(total).max(total));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    let bytes = if rest.is_empty() { first } else { rest.freeze() };
    Ok(Received { bytes, permits })
}

/// The media type without its parameters, in lower case.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!essence.is_empty()).then_some(essence)
}

/// The refusal of a media type.
pub(crate) fn unsupported(found: Option<&str>, supported: &str) -> Problem {
    let found = found.map_or_else(|| "no content type".to_owned(), |found| format!("content type {found:?}"));
    Problem::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("{found} is not supported here: {supported}"))
}

/// Reads JSON.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Three bytes of text can become an entry of ninety in memory: count before parsing. (Only objects become parts.)
    if bytes.len() > MAX_PARTS {
        let parts = bytes.iter().filter(|b| **b == b'{').count();
        if parts > MAX_PARTS {
            return Err(too_many_parts(parts).into());
        }
    }
    serde_json::from_slice::<Object<T>>(bytes).map(|object| object.0).map_err(|e| {
        ApiError::new(Reason::InvalidRequest, format!("the body is not the JSON that is expected: {e}")).into()
    })
}

/// Reads a JSON object that may be left out.
pub(crate) fn optional_json<T: DeserializeOwned + Default>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    match media_type(headers).as_deref() {
        Some("application/json") => json(bytes),
        other => Err(unsupported(other, "application/json")),
    }
}

/// The lines of an `application/x-ndjson` body, verbatim: split at LF only, an empty line counts, and so does a last one
/// without LF.
pub(crate) fn lines(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let count = body.iter().filter(|b| **b == b'\n').count() + usize::from(!body.ends_with(b"\n"));
    if count > MAX_PARTS {
        return Err(too_many_parts(count).into());
    }
    let body_without_last = body.strip_suffix(b"\n").unwrap_or(body);
    Ok(body_without_last.split(|b| *b == b'\n').map(|line| body.slice_ref(line)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_lf_only() {
        let table: [(&str, &[&str]); 8] = [
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("a\nb", &["a", "b"]),
            ("a\r\nb\r\n", &["a\r", "b\r"]),
            ("\n", &[""]),
            ("\n\n", &["", ""]),
            ("a\n\nb\n", &["a", "", "b"]),
            ("a\u{2028}b\n", &["a\u{2028}b"]),
        ];
        for (body, expected) in table {
            let lines = lines(&Bytes::from(body)).unwrap();
            assert_eq!(lines, expected.iter().map(|l| Bytes::from(*l)).collect::<Vec<_>>(), "{body:?}");
        }
    }

    #[test]
    fn too_many_lines_are_refused_before_they_are_split() {
        let error = lines(&Bytes::from("\n".repeat(MAX_PARTS + 1))).unwrap_err();
        assert_eq!(error.error.reason, Reason::BatchTooLarge);
        assert_eq!(error.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(lines(&Bytes::from("\n".repeat(MAX_PARTS))).unwrap().len(), MAX_PARTS);
    }

    #[test]
    fn the_media_type_is_what_stands_before_the_parameters() {
        let table = [
            ("application/json", Some("application/json")),
            ("Application/JSON ; charset=utf-8", Some("application/json")),
            ("", None),
            (";", None),
        ];
        for (value, expected) in table {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(media_type(&headers).as_deref(), expected, "{value:?}");
        }
    }
}
