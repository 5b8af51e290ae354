//! `walctl verify`: is everything that was acknowledged still there and whole?

use serde::Serialize;
use walstorage_crds::url::WalUrl;

use super::merge::{merge, newest_epoch};
use super::report::{CollectionReport, DirectoryReport, Problem, TailReport};
use super::survey::{self, Journals, problem};
use super::{OfflineError, OnProgress, ReadOptions};

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The directories given.
    pub directories: Vec<DirectoryReport>,
    /// The collections in them, by name; deleted ones are left out.
    pub collections: Vec<CollectionReport>,
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

/// Reads the journals of all directories of a writer, and judges them as recovery would.
///
/// # Errors
/// When a directory cannot be read at all, is locked, or was written by a later version. Damage is in the report.
pub fn verify(urls: &[WalUrl], options: ReadOptions, progress: OnProgress<'_>) -> Result<VerifyReport, OfflineError> {
    let (_locks, mut journals) = survey::read(urls, options, progress)?;
    let (collections, conflicts) = merge(&journals);
    journals.problems.extend(conflicts);
    let mut notes = std::mem::take(&mut journals.notes);
    let all_there = members(&mut journals, &mut notes);
    if options.live {
        notes.push("read beside a running sidecar: missing entries cannot be told from those written meanwhile".into());
    } else if all_there {
        journals.problems.extend(collections.iter().flat_map(|collection| collection.missing()));
    }
    for collection in collections.iter().filter(|collection| collection.flushed_to > collection.report.truncated_to) {
        let name = &collection.report.name;
        notes.push(format!("{name}: entries up to {} are in segments, which were not read", collection.flushed_to));
    }
    let Journals { directories, problems, tails, .. } = journals;
    let collections = collections.into_iter().map(|collection| collection.report).collect();
    Ok(VerifyReport { directories, collections, problems, tails, notes })
}

/// Compares the directories given with those that the newest start names. Answers whether all that may hold entries are
/// among them.
pub(super) fn members(journals: &mut Journals, notes: &mut Vec<String>) -> bool {
    let Some(epoch) = newest_epoch(journals) else { return true };
    let given = |uuid| journals.directories.iter().any(|directory| directory.uuid == Some(uuid));
    let absent: Vec<_> = epoch.members.iter().filter(|member| member.in_use && !given(member.uuid)).collect();
    for member in &absent {
        let (uuid, url) = (member.uuid, &member.url);
        notes.push(format!("directory {uuid} ({url}) was not given: entries that are missing cannot be told"));
    }
    let complete = absent.is_empty();
    let forgotten = epoch.forgotten.clone();
    for directory in &journals.directories {
        if directory.uuid.is_some_and(|uuid| forgotten.contains(&uuid)) {
            journals.problems.push(Problem {
                directory: directory.url.clone(),
                ..problem("the directory was given up (forgotten); its entries do not count any more".into())
            });
        }
    }
    complete
}
