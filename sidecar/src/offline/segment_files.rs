//! The files that are segments by their place, found by the uuids in their headers.

use std::collections::HashMap;
use std::path::Path;

use uuid::Uuid;

use super::OfflineError;
use super::directory::OpenDirectory;
use super::meter::Meter;
use super::place::FileAt;
use super::report::UnusedReport;
use super::segment::OpenSegment;
use super::survey::Journals;
use crate::format::facts::FlushedFact;
use crate::format::header::SegmentHeader;

/// A file that is a segment by its place.
pub(super) struct File {
    directory: usize,
    pub(super) path: FileAt,
    bytes: u64,
    header: Result<SegmentHeader, String>,
    pub(super) used: bool,
}

/// All of them.
pub(super) struct Found {
    files: Vec<File>,
    by_uuid: HashMap<(usize, Uuid), Vec<usize>>,
}

impl Found {
    pub(super) fn list(directories: &[OpenDirectory], meter: &mut Meter<'_>) -> Result<Self, OfflineError> {
        let mut found = Self { files: Vec::new(), by_uuid: HashMap::new() };
        for (directory, open) in directories.iter().enumerate() {
            for (path, bytes) in open.segments()? {
                meter.at(&path.display().to_string());
                let header = match OpenSegment::open(&path) {
                    Ok(Ok(segment)) => belongs(&segment.header, open).map(|()| segment.header),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(OfflineError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(OfflineError::Io { error, .. }) => Err(error.to_string()),
                    Err(other) => return Err(other),
                };
                if let Ok(header) = &header {
                    found.by_uuid.entry((directory, header.segment)).or_default().push(found.files.len());
                }
                found.files.push(File { directory, path, bytes, header, used: false });
            }
        }
        Ok(found)
    }

    /// The file of a segment; of several, one that is long enough.
    pub(super) fn file(&mut self, directory: usize, fact: &FlushedFact) -> Option<&mut File> {
        let candidates = self.by_uuid.get(&(directory, fact.segment))?;
        let long = candidates.iter().find(|at| self.files[**at].bytes >= fact.length);
        let at = *long.or(candidates.first())?;
        self.files.get_mut(at)
    }

    /// Files without a header that holds, where a collection's segments are.
    pub(super) fn headless(&self, directory: usize, folder: &Path) -> impl Iterator<Item = (&File, &str)> {
        let here = move |file: &&File| file.directory == directory && file.path.parent() == Some(folder);
        self.files.iter().filter(here).filter_map(|file| Some((file, file.header.as_ref().err()?.as_str())))
    }

    pub(super) fn unused(&self, journals: &Journals) -> Vec<UnusedReport> {
        let told = |path: &str| journals.problems.iter().any(|problem| problem.file == path);
        let unused = self.files.iter().filter(|file| !file.used);
        unused
            .map(|File { path, bytes, header, .. }| UnusedReport {
                file: path.display().to_string(),
                bytes: *bytes,
                what: match header {
                    Ok(_) => "nothing that counts needs it".into(),
                    Err(why) => format!("it is no segment of this directory: {why}"),
                },
            })
            .filter(|report| !told(&report.file))
            .collect()
    }
}

/// Whether a file was written for this directory.
fn belongs(header: &SegmentHeader, open: &OpenDirectory) -> Result<(), String> {
    match &open.identity {
        Ok(identity) if (identity.directory, identity.writer) != (header.directory, header.writer) => {
            Err(format!("it belongs to directory {} of writer {}", header.directory, header.writer))
        }
        _ => Ok(()),
    }
}
