//! Finding a segment's file: it is known by the uuid in its header, and lies under one of two names.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::commit::segments::SegmentPath;
use crate::directory::disk::{Disk, DiskFile};
use crate::format::header::{HeaderError, MAX_HEADER, SegmentHeader};

/// An open segment.
pub(super) struct OpenSegment {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    /// Where its first block starts.
    pub(super) start: u64,
    pub(super) path: PathBuf,
}

/// What lies under a name.
pub(super) enum At {
    Segment(OpenSegment),
    /// A file without a header that can be read.
    Unreadable(HeaderError),
    Nothing,
}

/// Opens what lies at `path`.
///
/// # Errors
/// Those of the device.
pub(super) fn open(disk: &dyn Disk, path: &Path, write: bool) -> io::Result<At> {
    let opened = if write { disk.open_write(path) } else { disk.open(path) };
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(At::Nothing),
        Err(error) => return Err(error),
    };
    let mut head = vec![0; MAX_HEADER];
    let read = file.read_at(0, &mut head)?;
    Ok(match SegmentHeader::parse(&head[..read]) {
        Ok((header, length)) => At::Segment(OpenSegment { file, header, start: length as u64, path: path.to_owned() }),
        Err(error) => At::Unreadable(error),
    })
}

/// Whether the segment `id` is surely under none of its names. Where a device says nothing, or a header cannot be read, it may
/// be there.
pub(crate) fn is_gone(disk: &dyn Disk, path: &SegmentPath, id: Uuid) -> bool {
    path.names().iter().all(|name| match open(disk, name, false) {
        Ok(At::Segment(found)) => found.header.segment != id,
        Ok(At::Nothing) => true,
        Ok(At::Unreadable(_)) | Err(_) => false,
    })
}

/// Opens the segment `id` under whichever of its names it lies. `Err` in `Ok`: it is under none; why, as far as that is
/// known.
///
/// # Errors
/// Those of the device.
pub(super) fn find(
    disk: &dyn Disk,
    path: &SegmentPath,
    id: Uuid,
    write: bool,
) -> io::Result<Result<OpenSegment, String>> {
    let mut why = Vec::new();
    for name in path.names() {
        let shown = disk.display(&name);
        match open(disk, &name, write)? {
            At::Segment(found) if found.header.segment == id => return Ok(Ok(found)),
            At::Segment(other) => why.push(format!("{} is segment {}", shown.display(), other.header.segment)),
            At::Unreadable(error) => why.push(format!("the header of {} is bad: {error}", shown.display())),
            At::Nothing => why.push(format!("{} is not there", shown.display())),
        }
    }
    Ok(Err(why.join("; ")))
}
