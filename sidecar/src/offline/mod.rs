//! Directories without a sidecar: what `walctl verify`, `dump` and `export` do.
//!
//! 1. Nothing below a directory is written, created or removed; its lock is taken shared, so that a sidecar and these
//!    tools exclude each other, or not at all with `live`. A bucket has no lock: who reads it beside a sidecar says `live`.
//! 2. A directory is judged by the rules of recovery ([`crate::format::stream`]); nothing is repaired.
//! 3. Memory is bounded by the number of records in journals and of blocks in segments (some tens of bytes each) and one
//!    frame or block, never by payloads.
//!
//! All functions block; call them from a thread of their own.

mod directory;
pub mod dump;
mod dump_segment;
pub mod export;
mod merge;
mod meter;
mod pieces;
mod place;
mod ranges;
pub mod report;
mod segment;
mod segment_files;
mod segments;
mod source;
mod survey;
pub mod verify;
mod writer;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;

use std::path::{Path, PathBuf};

use walstorage_crds::url::WalUrl;

pub use self::place::Stores;
use crate::directory::trouble::{Condition, Trouble};
use crate::format::identity::IdentityError;
use crate::format::scan::MustStop;

/// Why a tool could not do its work at all. What is wrong with stored bytes is no error but in the report.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A process has the directory open.
    #[error("{} is in use by {}; stop it, or read beside it with --live", .directory, .pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked {
        /// The directory.
        directory: WalUrl,
        /// Who has it, where the lock says so.
        pid: Option<u32>,
    },
    /// A bucket's options cannot work.
    #[error("{0}")]
    Bucket(Trouble),
    /// The folder is not a directory of ours.
    #[error("{}: {why}", .path.display())]
    NotADirectory {
        /// The folder.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// A later version wrote there.
    #[error("{}: {source}; use the version that wrote it, or a later one", .path.display())]
    Later {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two of the URLs are the same directory.
    #[error("{0} and {1} are the same directory")]
    Twice(WalUrl, WalUrl),
    /// The directories belong to different writers.
    #[error("{0} belongs to writer {1}, {2} belongs to writer {3}; give the directories of one writer")]
    Writers(WalUrl, uuid::Uuid, WalUrl, uuid::Uuid),
    /// The file to be written is there already.
    #[error("{} exists; give a folder without exported files", .0.display())]
    Exists(PathBuf),
    /// The file is none that can be dumped.
    #[error("{}: {why}", .path.display())]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The operating system said no.
    #[error("{what} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// The output could not be written.
    #[error("writing the output: {0}")]
    Output(std::io::Error),
}

impl OfflineError {
    fn no_buckets(url: &WalUrl) -> Self {
        Self::Bucket(Trouble::new(Condition::Misconfigured, format!("{url}: only file:// URLs can be read here")))
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { what, path, error }
    }

    fn later(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Later { path: path.to_owned(), source: source.into() }
    }
}

impl From<(&Path, MustStop)> for OfflineError {
    fn from((path, stop): (&Path, MustStop)) -> Self {
        Self::later(path, stop)
    }
}

impl From<(&Path, IdentityError)> for OfflineError {
    fn from((path, error): (&Path, IdentityError)) -> Self {
        Self::later(path, error)
    }
}

/// How far a tool has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes read (or entries written, for the second half of an export).
    pub done: u64,
    /// Of how many.
    pub total: u64,
    /// What is being read or written.
    pub at: &'a str,
}

/// Called now and then, on the tool's thread.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

/// How directories are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions<'a> {
    /// Read beside a running sidecar: no lock is taken, and an unproven tail is in progress instead of torn.
    pub live: bool,
    /// The buckets that may be read; none: files only.
    pub stores: Option<&'a Stores>,
}

#[cfg(test)]
mod bucket_tests;
#[cfg(test)]
mod dump_tests;
#[cfg(test)]
mod live_tests;
#[cfg(test)]
mod segment_tests;
#[cfg(test)]
mod tests;
