//! All directories of a writer together: their journals, what these say of collections, and their segments.

use walstorage_crds::url::WalUrl;

use super::directory::OpenDirectory;
use super::merge::{Merged, merge, newest_epoch};
use super::meter::Meter;
use super::report::Problem;
use super::survey::{self, Journals, problem};
use super::{OfflineError, OnProgress, ReadOptions, segments};

/// What all directories hold together.
pub(super) struct Surveyed {
    pub(super) journals: Journals,
    pub(super) collections: Vec<Merged>,
    /// Locked as long as what was read is in use.
    pub(super) open: Vec<OpenDirectory>,
}

/// Opens and reads all directories: journals, then the segments they speak of.
pub(super) fn read(
    urls: &[WalUrl],
    options: ReadOptions<'_>,
    progress: OnProgress<'_>,
) -> Result<Surveyed, OfflineError> {
    let open: Vec<_> = urls.iter().map(|url| OpenDirectory::open(url, options)).collect::<Result<_, _>>()?;
    for (index, one) in open.iter().enumerate() {
        for other in &open[..index] {
            if let (Ok(a), Ok(b)) = (&other.identity, &one.identity) {
                if a.directory == b.directory {
                    return Err(OfflineError::Twice(other.url.clone(), one.url.clone()));
                }
                if a.writer != b.writer {
                    return Err(OfflineError::Writers(other.url.clone(), a.writer, one.url.clone(), b.writer));
                }
            }
        }
    }
    // Beside a running sidecar a file may go away, or a frame be half written, between two reads: what is really wrong
    // is still wrong when one looks again.
    let mut again = if options.live { 3 } else { 0 };
    let mut meter = Meter::new(progress);
    let mut before: Option<Vec<Problem>> = None;
    loop {
        let (mut journals, collections) = all(&open, options, &mut meter)?;
        if again == 0 || journals.problems.is_empty() {
            if let Some(before) = before {
                journals.problems.retain(|problem| before.iter().any(|other| same(problem, other)));
            }
            return Ok(Surveyed { journals, collections, open });
        }
        again -= 1;
        before = Some(journals.problems);
    }
}

/// Whether two looks found the same thing, of whatever extent.
fn same(one: &Problem, other: &Problem) -> bool {
    (&one.directory, &one.file, one.offset, &one.what) == (&other.directory, &other.file, other.offset, &other.what)
}

/// The collections as the journals say now, their segments not looked at.
pub(super) fn facts(open: &[OpenDirectory], options: ReadOptions<'_>) -> Result<Vec<Merged>, OfflineError> {
    let mut journals = Journals::default();
    let mut unseen = |_: super::Progress<'_>| {};
    let mut meter = Meter::new(&mut unseen);
    for directory in open {
        survey::read(directory, options, &mut journals, &mut meter)?;
    }
    Ok(merge(&journals).0)
}

/// Everything once more, without telling how far it is.
pub(super) fn again(open: &[OpenDirectory], options: ReadOptions<'_>) -> Result<(Journals, Vec<Merged>), OfflineError> {
    all(open, options, &mut Meter::new(&mut |_| {}))
}

fn all(
    open: &[OpenDirectory],
    options: ReadOptions<'_>,
    meter: &mut Meter<'_>,
) -> Result<(Journals, Vec<Merged>), OfflineError> {
    let mut journals = Journals::default();
    let mut total = 0;
    for directory in open {
        total += directory.slots()?.iter().map(|slot| slot.bytes).sum::<u64>();
        total += directory.segments()?.iter().map(|(_, size)| size).sum::<u64>();
    }
    meter.expect(total);
    for directory in open {
        survey::read(directory, options, &mut journals, meter)?;
    }
    let (mut collections, conflicts) = merge(&journals);
    journals.problems.extend(conflicts);
    segments::read(open, &mut journals, &mut collections, meter)?;
    let mut notes = std::mem::take(&mut journals.notes);
    let all_there = members(&mut journals, &mut notes);
    if options.live {
        notes.push("read beside a running sidecar: missing entries cannot be told from those written meanwhile".into());
    } else if all_there {
        journals.problems.extend(collections.iter().flat_map(Merged::missing));
    }
    journals.notes = notes;
    meter.end();
    Ok((journals, collections))
}

/// Compares the directories given with those that the newest start names. Answers whether all that may hold entries are
/// among them.
fn members(journals: &mut Journals, notes: &mut Vec<String>) -> bool {
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
