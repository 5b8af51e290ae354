//! Errors over gRPC: a status and `google.rpc.ErrorInfo`, and back again for clients.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{ApiError, Reason};

/// The domain of `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "walstorage.dev";

/// The gRPC code of a reason.
#[must_use]
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidRequest | Reason::InvalidCollectionName | Reason::EntryTooLarge | Reason::BatchTooLarge => {
            Code::InvalidArgument
        }
        Reason::CollectionNotFound => Code::NotFound,
        Reason::OutOfSequence => Code::FailedPrecondition,
        Reason::OutOfRange | Reason::AheadOfLog => Code::OutOfRange,
        Reason::MemoryLimit | Reason::JournalFull => Code::ResourceExhausted,
        Reason::NotReady | Reason::NoHealthyDirectory | Reason::DirectoryMissing | Reason::ShuttingDown => {
            Code::Unavailable
        }
        Reason::Fenced => Code::Aborted,
        Reason::UnknownOutcome => Code::Unknown,
        Reason::Damaged => Code::DataLoss,
        Reason::Unimplemented => Code::Unimplemented,
    }
}

/// The canonical spelling of a gRPC code, as JSON shows it.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The gRPC status of an error.
#[must_use]
pub fn to_status(error: &ApiError) -> Status {
    let mut metadata: HashMap<String, String> =
        error.details.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    if let Some(durability) = error.reason.durability() {
        metadata.insert("durability".into(), durability.as_str().into());
    }
    let details = ErrorDetails::with_error_info(error.reason.as_str(), ERROR_DOMAIN, metadata);
    Status::with_error_details(code(error.reason), error.message.clone(), details)
}

/// The `google.rpc.ErrorInfo` of a status that a sidecar sent: the reason's name and what belongs to it.
#[must_use]
pub fn error_info(status: &Status) -> Option<(String, HashMap<String, String>)> {
    let info = status.get_details_error_info()?;
    (info.domain == ERROR_DOMAIN).then_some((info.reason, info.metadata))
}
