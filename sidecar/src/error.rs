//! The error of every call: a stable reason, what the caller may assume about durability, and a message that names the
//! thing, the value and the remedy.

use std::collections::BTreeMap;
use std::fmt;

/// Why a call failed. The names are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request itself is wrong.
    InvalidRequest,
    /// The collection's name is not 1 to 255 bytes.
    InvalidCollectionName,
    /// An entry exceeds the limit of one entry.
    EntryTooLarge,
    /// A batch exceeds the limit of one batch.
    BatchTooLarge,
    /// No such collection.
    CollectionNotFound,
    /// A producer skipped a sequence number.
    OutOfSequence,
    /// The LSN was truncated away.
    OutOfRange,
    /// The LSN lies beyond what the log holds.
    AheadOfLog,
    /// The memory bound is reached.
    MemoryLimit,
    /// The journal's space is used up.
    JournalFull,
    /// Recovery is not done.
    NotReady,
    /// No directory can take the entry.
    NoHealthyDirectory,
    /// Only a directory that is not there holds the entry.
    DirectoryMissing,
    /// The process is stopping.
    ShuttingDown,
    /// Another process has taken over this writer.
    Fenced,
    /// The entry may or may not be durable.
    UnknownOutcome,
    /// Stored bytes are not what was written.
    Damaged,
    /// This build cannot do it.
    Unimplemented,
}

/// What the caller may assume about what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It is durable.
    Durable,
    /// It was not written and never will be.
    NotWritten,
    /// It may appear after a restart, or not.
    Unknown,
}

impl Durability {
    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::NotWritten => "not_written",
            Self::Unknown => "unknown",
        }
    }
}

impl Reason {
    /// The name used on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::InvalidCollectionName => "INVALID_COLLECTION_NAME",
            Self::EntryTooLarge => "ENTRY_TOO_LARGE",
            Self::BatchTooLarge => "BATCH_TOO_LARGE",
            Self::CollectionNotFound => "COLLECTION_NOT_FOUND",
            Self::OutOfSequence => "OUT_OF_SEQUENCE",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::AheadOfLog => "AHEAD_OF_LOG",
            Self::MemoryLimit => "MEMORY_LIMIT",
            Self::JournalFull => "JOURNAL_FULL",
            Self::NotReady => "NOT_READY",
            Self::NoHealthyDirectory => "NO_HEALTHY_DIRECTORY",
            Self::DirectoryMissing => "DIRECTORY_MISSING",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Fenced => "FENCED",
            Self::UnknownOutcome => "UNKNOWN_OUTCOME",
            Self::Damaged => "DAMAGED",
            Self::Unimplemented => "UNIMPLEMENTED",
        }
    }

    /// What this reason says about durability; `None` where nothing was to be written.
    #[must_use]
    pub const fn durability(self) -> Option<Durability> {
        match self {
            Self::InvalidRequest
            | Self::InvalidCollectionName
            | Self::EntryTooLarge
            | Self::BatchTooLarge
            | Self::OutOfSequence
            | Self::MemoryLimit
            | Self::JournalFull
            | Self::NotReady
            | Self::NoHealthyDirectory
            | Self::DirectoryMissing
            | Self::ShuttingDown
            | Self::Fenced
            | Self::Unimplemented => Some(Durability::NotWritten),
            Self::UnknownOutcome => Some(Durability::Unknown),
            Self::CollectionNotFound | Self::OutOfRange | Self::AheadOfLog | Self::Damaged => None,
        }
    }

    /// Whether the same request may succeed later without any change.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(
            self,
            Self::MemoryLimit
                | Self::JournalFull
                | Self::NotReady
                | Self::NoHealthyDirectory
                | Self::DirectoryMissing
                | Self::ShuttingDown
        )
    }
}

/// An error of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Why.
    pub reason: Reason,
    /// For people: the thing, the value, the remedy.
    pub message: String,
    /// For programs: `requestId`, `first`, `durableHead` and the like.
    pub details: BTreeMap<&'static str, String>,
}

impl ApiError {
    /// An error without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: BTreeMap::new() }
    }

    /// Adds one detail.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.details.insert(key, value.to_string());
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}
