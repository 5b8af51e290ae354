//! Errors over HTTP: one JSON object, whatever went wrong.

use std::collections::BTreeMap;

use ::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use tonic::body::Body;

use crate::error::{ApiError, Durability, Reason};
use crate::proto::errors::{code, code_name};

/// The HTTP status of a reason.
#[must_use]
pub const fn http_status(reason: Reason) -> StatusCode {
    match reason {
        Reason::InvalidRequest | Reason::InvalidCollectionName => StatusCode::BAD_REQUEST,
        Reason::EntryTooLarge | Reason::BatchTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::CollectionNotFound => StatusCode::NOT_FOUND,
        Reason::OutOfSequence | Reason::Fenced => StatusCode::CONFLICT,
        Reason::OutOfRange | Reason::AheadOfLog => StatusCode::RANGE_NOT_SATISFIABLE,
        Reason::MemoryLimit | Reason::JournalFull => StatusCode::TOO_MANY_REQUESTS,
        Reason::NotReady | Reason::NoHealthyDirectory | Reason::DirectoryMissing | Reason::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::UnknownOutcome | Reason::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::Unimplemented => StatusCode::NOT_IMPLEMENTED,
    }
}

/// The JSON of an error.
#[derive(Debug, serde::Serialize)]
pub struct ErrorBody<'a> {
    code: &'static str,
    reason: &'static str,
    message: &'a str,
    durability: Option<&'static str>,
    retryable: bool,
    details: &'a BTreeMap<&'static str, String>,
}

impl<'a> From<&'a ApiError> for ErrorBody<'a> {
    fn from(error: &'a ApiError) -> Self {
        let ApiError { reason, message, details } = error;
        Self {
            code: code_name(code(*reason)),
            reason: reason.as_str(),
            message,
            durability: reason.durability().map(Durability::as_str),
            retryable: reason.retryable(),
            details,
        }
    }
}

/// An error as HTTP answers it. The status is the reason's but for errors of HTTP itself: 404, 405, 413, 415.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The status line.
    pub status: StatusCode,
    /// What the body says.
    pub error: ApiError,
    /// For 405: the methods that there are.
    pub allow: Option<&'static str>,
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        Self { status: http_status(error.reason), error, allow: None }
    }
}

impl Problem {
    /// A request that HTTP itself refuses.
    pub fn http(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::new(Reason::InvalidRequest, message), allow: None }
    }

    /// The answer.
    #[must_use]
    pub fn into_response(self) -> Response<Body> {
        let mut response = json_response(self.status, &ErrorBody::from(&self.error));
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// A JSON answer, with a line end for people at a terminal.
pub fn json_response<T: serde::Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Body::new(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What a caller gets when the code that served it panicked. The panic itself is in the log.
#[must_use]
pub fn panicked() -> ApiError {
    ApiError::new(
        Reason::UnknownOutcome,
        "a bug ended the handling of this request; what it wrote may or may not be durable: read back, or retry with a producer",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::proto::errors::{ERROR_DOMAIN, to_status};
    use Reason::*;

    #[test]
    fn every_reason_has_the_codes_of_the_table() {
        let table = [
            (InvalidRequest, Code::InvalidArgument, 400, Some("not_written"), false),
            (InvalidCollectionName, Code::InvalidArgument, 400, Some("not_written"), false),
            (EntryTooLarge, Code::InvalidArgument, 413, Some("not_written"), false),
            (BatchTooLarge, Code::InvalidArgument, 413, Some("not_written"), false),
            (CollectionNotFound, Code::NotFound, 404, None, false),
            (OutOfSequence, Code::FailedPrecondition, 409, Some("not_written"), false),
            (OutOfRange, Code::OutOfRange, 416, None, false),
            (AheadOfLog, Code::OutOfRange, 416, None, false),
            (MemoryLimit, Code::ResourceExhausted, 429, Some("not_written"), true),
            (JournalFull, Code::ResourceExhausted, 429, Some("not_written"), true),
            (NotReady, Code::Unavailable, 503, Some("not_written"), true),
            (NoHealthyDirectory, Code::Unavailable, 503, Some("not_written"), true),
            (DirectoryMissing, Code::Unavailable, 503, Some("not_written"), true),
            (ShuttingDown, Code::Unavailable, 503, Some("not_written"), true),
            (Fenced, Code::Aborted, 409, Some("not_written"), false),
            (UnknownOutcome, Code::Unknown, 500, Some("unknown"), false),
            (Damaged, Code::DataLoss, 500, None, false),
            (Unimplemented, Code::Unimplemented, 501, Some("not_written"), false),
        ];
        for (reason, grpc, http, durability, retryable) in table {
            let error = ApiError::new(reason, "m").with("requestId", 7);
            let status = to_status(&error);
            assert_eq!(status.code(), grpc, "{reason:?}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason.as_str(), ERROR_DOMAIN));
            assert_eq!(info.metadata.get("durability").map(String::as_str), durability, "{reason:?}");
            assert_eq!(info.metadata.get("requestId").map(String::as_str), Some("7"));

            let response = Problem::from(error.clone()).into_response();
            assert_eq!(response.status().as_u16(), http, "{reason:?}");
            assert_eq!(response.headers().contains_key("retry-after"), http == 429, "{reason:?}");
            assert_eq!(
                serde_json::to_value(ErrorBody::from(&error)).unwrap(),
                json!({"code": code_name(grpc), "reason": reason.as_str(), "message": "m", "durability": durability,
                       "retryable": retryable, "details": {"requestId": "7"}}),
            );
        }
    }
}
