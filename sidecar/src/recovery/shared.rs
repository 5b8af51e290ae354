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
pub(super) struct Shared {
    /// Where they were looked at already.
    there: Option<Vec<There>>,
    /// The highest number of all files there, once they are listed.
    pub(super) highest: u64,
}

impl Shared {
    pub(super) const fn new(there: Option<Vec<There>>) -> Self {
        Self { there, highest: 0 }
    }

    /// Lists those of the directory `dir`; facts speak of those in `needed`. A file without a header that can be read is
    /// nobody's when all that are needed are there: a crash left it. Otherwise it is left alone.
    ///
    /// # Errors
    /// A sentence, when the folder cannot be listed.
    pub(super) fn list(
        &mut self,
        disk: &dyn Disk,
        dir: usize,
        needed: &HashSet<Uuid>,
    ) -> Result<Vec<(Uuid, SharedFile)>, String> {
        let looked = self.there.take().map_or_else(|| look(disk), Ok);
        let there = looked.map_err(|error| format!("its shared segments cannot be listed: {error}"))?;
        let (mut files, mut unreadable) = (Vec::new(), Vec::new());
        for There { number, len, segment } in there {
            self.highest = self.highest.max(number);
            let total = if len < SMALL { 0 } else { len };
            let file = SharedFile { dir, number, total, users: 0 };
            match segment {
                Some(id) => files.push((id, file)),
                None => unreadable.push((ambient::uuid(), file)),
            }
        }
        if needed.iter().all(|id| files.iter().any(|(there, _)| there == id)) {
            files.extend(unreadable);
        }
        Ok(files)
    }
}

/// A file there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct There {
    number: u64,
    len: u64,
    /// The segment that its header names, where it can be read.
    segment: Option<Uuid>,
}

/// Looks at the shared segments of a directory.
///
/// # Errors
/// When the folder cannot be listed; of a bucket also when a header cannot be asked for.
pub(super) fn look(disk: &dyn Disk) -> io::Result<Vec<There>> {
    let folder = shared_folder();
    let entries = match disk.list(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut there = Vec::new();
    let mut paths = Vec::new();
    for entry in entries {
        let number = entry.name.strip_suffix(".avro").and_then(|digits| digits.parse::<u64>().ok());
        let Some(number) = number.filter(|number| numbered(*number) == entry.name) else { continue };
        there.push(There { number, len: entry.len, segment: None });
        paths.push(folder.join(&entry.name));
    }
    match disk.objects() {
        None => {
            for (file, path) in there.iter_mut().zip(&paths) {
                file.segment = segment_at(disk, path);
            }
        }
        Some(objects) => {
            let heads: Vec<_> = paths.into_iter().map(|path| (path, 0..MAX_HEADER as u64)).collect();
            let mut files = there.iter_mut();
            objects.parts(&heads, &mut |head| {
                if let Some(file) = files.next() {
                    file.segment = head.and_then(|head| segment_of(&head));
                }
            })?;
        }
    }
    Ok(there)
}

/// Whether a segment is surely none of the shared ones.
pub(super) fn is_gone(disk: &dyn Disk, id: Uuid) -> bool {
    look(disk).is_ok_and(|there| there.iter().all(|file| file.segment.is_some_and(|segment| segment != id)))
}

/// The segment that a file's header names.
fn segment_at(disk: &dyn Disk, path: &Path) -> Option<Uuid> {
    let mut head = vec![0; MAX_HEADER];
    let read = disk.open(path).ok()?.read_at(0, &mut head).ok()?;
    segment_of(&head[..read])
}

fn segment_of(head: &[u8]) -> Option<Uuid> {
    Some(SegmentHeader::parse(head).ok()?.0.segment)
}
