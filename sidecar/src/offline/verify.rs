//! `walctl verify`: is everything that was acknowledged still there and whole?

use serde::Serialize;
use walstorage_crds::url::WalUrl;

use super::report::{CollectionReport, DirectoryReport, Problem, SegmentReport, TailReport, UnusedReport};
use super::survey::Journals;
use super::writer::{self, Surveyed};
use super::{OfflineError, OnProgress, ReadOptions};

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The directories given.
    pub directories: Vec<DirectoryReport>,
    /// The collections in them, by name; deleted ones are left out.
    pub collections: Vec<CollectionReport>,
    /// The segments that their entries are in.
    pub segments: Vec<SegmentReport>,
    /// Files beside them that nothing needs.
    pub unused: Vec<UnusedReport>,
    /// What is wrong; empty: all is well.
    pub problems: Vec<Problem>,
    /// Where streams end in bytes that nothing proves: normal after a crash.
    pub tails: Vec<TailReport>,
    /// What could not be judged, and other things worth knowing.
    pub notes: Vec<String>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads the journals of all directories of a writer and judges them as recovery would, then every segment they speak of.
///
/// # Errors
/// When a directory cannot be read at all, is locked, or was written by a later version. Damage is in the report.
pub fn verify(
    urls: &[WalUrl],
    options: ReadOptions<'_>,
    progress: OnProgress<'_>,
) -> Result<VerifyReport, OfflineError> {
    let Surveyed { journals, collections, .. } = writer::read(urls, options, progress)?;
    let Journals { directories, problems, tails, mut notes, segments, unused, .. } = journals;
    notes.extend(may_hold_what_is_lost(&problems, unused.len()));
    let collections = collections.into_iter().map(|collection| collection.report).collect();
    Ok(VerifyReport { directories, collections, segments, unused, problems, tails, notes })
}

/// After damage a start reads the segments that nothing names; this does not.
fn may_hold_what_is_lost(problems: &[Problem], unused: usize) -> Option<String> {
    let lost = problems.iter().any(|problem| !problem.lost.is_empty());
    (lost && unused > 0).then(|| {
        format!(
            "what is said to be lost may be in files that no journal names ({unused}, not read here): a start looks into \
             them, and with on_damage = \"fail\" it gives nothing up"
        )
    })
}
