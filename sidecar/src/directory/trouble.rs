//! What is wrong with a bucket, in words that stay: a name for programs, a sentence for people.
//!
//! Invariants:
//! 1. A name never changes and never gets another meaning.
//! 2. A sentence names the place, what the store said, and what to do. It never holds a secret.

use std::time::Duration;

/// What is wrong, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The options of the URL cannot work.
    Misconfigured,
    /// The credentials that the options name are not there.
    NoCredentials,
    /// Where credentials are asked for does not answer.
    NoIdentity,
    /// The store does not know the credentials, or their signature is wrong.
    WrongCredentials,
    /// The credentials were good once.
    ExpiredCredentials,
    /// This machine's clock is too far from the store's.
    ClockSkew,
    /// The bucket lies in another region.
    WrongRegion,
    /// There is no such bucket or container.
    MissingBucket,
    /// Listing is not allowed.
    DeniedList,
    /// Reading is not allowed.
    DeniedRead,
    /// Creating is not allowed.
    DeniedWrite,
    /// Deleting is not allowed.
    DeniedDelete,
    /// The store has no create-only requests, or ignores that one is.
    NotCreateOnly,
    /// The store refuses the request for a reason that has no name here.
    Refused,
    /// No connection.
    Unreachable,
    /// The store asks for fewer requests.
    Throttled,
    /// The store answers with errors of its own.
    Failing,
    /// The connection broke, or nothing came in time.
    NoAnswer,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 18] = [
        Self::Misconfigured,
        Self::NoCredentials,
        Self::NoIdentity,
        Self::WrongCredentials,
        Self::ExpiredCredentials,
        Self::ClockSkew,
        Self::WrongRegion,
        Self::MissingBucket,
        Self::DeniedList,
        Self::DeniedRead,
        Self::DeniedWrite,
        Self::DeniedDelete,
        Self::NotCreateOnly,
        Self::Refused,
        Self::Unreachable,
        Self::Throttled,
        Self::Failing,
        Self::NoAnswer,
    ];

    /// Its name, as a status shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Misconfigured => "misconfigured",
            Self::NoCredentials => "no_credentials",
            Self::NoIdentity => "no_identity",
            Self::WrongCredentials => "wrong_credentials",
            Self::ExpiredCredentials => "expired_credentials",
            Self::ClockSkew => "clock_skew",
            Self::WrongRegion => "wrong_region",
            Self::MissingBucket => "missing_bucket",
            Self::DeniedList => "denied_list",
            Self::DeniedRead => "denied_read",
            Self::DeniedWrite => "denied_write",
            Self::DeniedDelete => "denied_delete",
            Self::NotCreateOnly => "not_create_only",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::Failing => "failing",
            Self::NoAnswer => "no_answer",
        }
    }

    /// Whether it stays until a person does something. Everything else passes by itself, and is waited for.
    #[must_use]
    pub const fn stays(self) -> bool {
        match self {
            Self::Misconfigured
            | Self::NoCredentials
            | Self::WrongCredentials
            | Self::ExpiredCredentials
            | Self::ClockSkew
            | Self::WrongRegion
            | Self::MissingBucket
            | Self::DeniedList
            | Self::DeniedRead
            | Self::DeniedWrite
            | Self::DeniedDelete
            | Self::NotCreateOnly
            | Self::Refused => true,
            Self::NoIdentity | Self::Unreachable | Self::Throttled | Self::Failing | Self::NoAnswer => false,
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Trouble {
    /// By name.
    pub condition: Condition,
    /// The place, what happened there, and the remedy.
    pub sentence: String,
    /// So long the store asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Trouble {
    /// Trouble without a wish of the store.
    pub fn new(condition: Condition, sentence: impl Into<String>) -> Self {
        Self { condition, sentence: sentence.into(), retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_knows_every_name() {
        let known = walstorage_crds::buckets::STATES.map(|(name, _)| name);
        assert_eq!(Condition::ALL.map(Condition::as_str), known);
    }
}
