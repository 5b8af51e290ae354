//! The shared segments of a directory: which file is which, by the uuid in its header.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use uuid::Uuid;

use crate::ambient;
use crate::commit::segments::{SharedFile, shared_folder};
use crate::directory::disk::Disk;
use crate::format::header::{MAX_HEADER, SegmentHeader};
use crate::format::names::numbered;

/// In a file below this size header and index count for much: it is not worth to be rewritten.
const SMALL: u64 = 64 << 10;

/// The shared segments of a directory.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) files: Vec<(Uuid, SharedFile)>,
    /// The highest number of all files there.
    pub(super) highest: u64,
}

/// Lists the shared segments of the directory `dir`; facts speak of those in `needed`. A file without a header that can
/// be read is nobody's when all that are needed are there: a crash left it. Otherwise it is left alone.
///
/// # Errors
/// A sentence, when the folder cannot be listed.
pub(super) fn list(disk: &dyn Disk, dir: usize, needed: &HashSet<Uuid>) -> Result<Listed, String> {
    let folder = shared_folder();
    let entries = match disk.list(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Listed::default()),
        Err(error) => return Err(format!("its shared segments cannot be listed: {error}")),
    };
    let mut listed = Listed::default();
    let mut unreadable = Vec::new();
    for entry in entries {
        let number = entry.name.strip_suffix(".avro").and_then(|digits| digits.parse::<u64>().ok());
        let Some(number) = number.filter(|number| numbered(*number) == entry.name) else { continue };
        listed.highest = listed.highest.max(number);
        let total = if entry.len < SMALL { 0 } else { entry.len };
        let file = SharedFile { dir, number, total, users: 0 };
        match segment_at(disk, &folder.join(&entry.name)) {
            Some(id) => listed.files.push((id, file)),
            None => unreadable.push((ambient::uuid(), file)),
        }
    }
    if needed.iter().all(|id| listed.files.iter().any(|(there, _)| there == id)) {
        listed.files.extend(unreadable);
    }
    Ok(listed)
}

/// The segment that a file's header names.
fn segment_at(disk: &dyn Disk, path: &Path) -> Option<Uuid> {
    let mut head = vec![0; MAX_HEADER];
    let read = disk.open(path).ok()?.read_at(0, &mut head).ok()?;
    Some(SegmentHeader::parse(&head[..read]).ok()?.0.segment)
}
