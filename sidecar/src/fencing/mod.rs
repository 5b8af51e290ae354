//! Who may write to a bucket: the protocol by which a start takes a directory over, and commits to it.
//!
//! A bucket has no lock. In its place stand keys that can be created once. Every commit of a stream is the next number of
//! its folder, `_wal/journal/<epoch>.<session>/<number>.avro`, and whoever finds that number taken has lost the directory:
//!
//! | number | object |
//! |---|---|
//! | 0 | the **claim**: this epoch is mine |
//! | 1 | the **close**: every stream before it is fenced and was read; written before anything is served |
//! | from 2 | commits, one frame each |
//!
//! A start claims an epoch ([`start::claim`]), puts a fence behind the last commit of the streams before it
//! ([`fence::fence`]), reads them, closes ([`start::close`]) and commits ([`commit::Committer`]). No clock and no lease: a
//! writer that wakes up after a year can only create keys of its own stream, and the fence stands at its next number.
//!
//! Everything here is straight-line code over the seam [`Bucket`](crate::directory::bucket::Bucket): each `await` is one
//! request, so a future is the state machine, and the tests' model polls it request by request.
//!
//! Invariants:
//! 1. An object's bytes are made once and never change: a repeated create says the same.
//! 2. A create that was not answered by success is judged by what is there, never by the answer.
//! 3. Claims and fences are never deleted. Anything else only after an acknowledged frame has said that it may be gone.

pub mod collect;
pub mod commit;
pub mod directory;
pub mod fence;
#[cfg(test)]
pub(crate) mod model;
pub mod object;
mod put;
pub mod start;
#[cfg(any(test, feature = "trial"))]
pub mod trial;

use crate::directory::bucket::Denied;
use crate::directory::trouble::Condition;
use crate::format::StreamKey;
use crate::format::frame::FrameTooLong;

/// Why a start or a commit ends for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Another process has taken the directory over.
    #[error("the stream {by} has taken the directory over")]
    Fenced {
        /// The stream that did, or ours where only its fence was seen.
        by: StreamKey,
    },
    /// The store refuses what is needed.
    #[error("{}", .0.0)]
    Denied(#[from] Denied),
    /// The store lets a key be created twice: nothing here would hold.
    #[error(
        "the store creates a key that is there (it ignores create-only requests): use another store, or set unsafe_conditional = true"
    )]
    Unconditional,
    /// An object that must be there is not, or does not hold, and nobody has taken over.
    #[error("{key}: {why}")]
    Damage {
        /// The object.
        key: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Lost {
    /// What is wrong with the store, by name, where it is the store.
    #[must_use]
    pub const fn condition(&self) -> Option<Condition> {
        match self {
            Self::Denied(Denied(trouble)) => Some(trouble.condition),
            Self::Unconditional => Some(Condition::NotCreateOnly),
            Self::Fenced { .. } | Self::Damage { .. } => None,
        }
    }

    /// Whether it is a store that gave no answer for too long: it may by itself, later.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.condition().is_some_and(|condition| !condition.stays())
    }

    /// What is wrong, with its name where it has one.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.condition().map_or_else(|| self.to_string(), |condition| format!("{self} ({condition})"))
    }

    /// An object that cannot be made.
    fn too_long(key: object::ObjectKey, error: FrameTooLong) -> Self {
        Self::Damage { key: key.to_string(), why: error.to_string() }
    }
}
