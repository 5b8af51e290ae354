//! Making the next file of a stream: a new one, or a free one under a new name. In this order: the name, the folder
//! synced, the first page written and synced. A crash at any step leaves a file without frames of this stream: the old
//! one under its old name, the old one's content under the new name (its header names another place, so that it counts
//! as absent), or a spare.

use std::io;
use std::path::{Path, PathBuf};

use crate::ambient;
use crate::commit::outcome::Failure;
use crate::commit::reserve::ReserveJob;
use crate::commit::slots::{NotStamped, StampJob};
use crate::directory::aligned::Aligned;
use crate::directory::disk::{self, DiskFile};
use crate::directory::identity::JOURNAL;
use crate::format::Marker;
use crate::format::header::SlotHeader;
use crate::format::limits::GROUP_CUT;
use crate::format::names::SlotName;
use crate::recovery::Handle;

/// Where a slot is.
pub(super) fn path(name: SlotName) -> PathBuf {
    Path::new(JOURNAL).join(name.to_string())
}

/// The file, ready for frames, and its marker.
pub(super) type Stamped = (Box<dyn DiskFile>, Marker);

/// Makes the file of `job`: durable on `Ok`. What it made and could not finish is removed.
pub(super) fn stamp(handle: &Handle, job: &StampJob) -> Result<Stamped, NotStamped> {
    let disk = &handle.disk.0;
    let path = path(SlotName { key: job.key, file: job.file });
    let marker = *ambient::uuid().as_bytes();
    let header = SlotHeader {
        writer: handle.identity.writer,
        directory: handle.identity.directory,
        stream: job.stream,
        key: job.key,
        file: job.file,
        marker,
    };
    let named = match &job.from {
        None => disk.create_slot(&path),
        Some(from) => disk.rename_noreplace(&Path::new(JOURNAL).join(from), &path).and_then(|()| disk.open_slot(&path)),
    };
    let file = named.map_err(|error| {
        let exists = error.kind() == io::ErrorKind::AlreadyExists;
        if exists && job.file == 1 {
            let shown = disk.display(&path);
            let why = format!("{} exists: another process has taken over this writer", shown.display());
            return NotStamped { failure: Failure::Fenced(why), removed: false };
        }
        let removed = !exists && remove(handle, &path);
        NotStamped { failure: failure("make a slot")(error), removed }
    })?;
    let stamped = (|| {
        if !mutant!(StampNameNotSynced) {
            disk.sync_dir(Path::new(JOURNAL)).map_err(failure("sync the journal's folder"))?;
        }
        if mutant!(SpareNotStamped) && job.from.is_some() {
            return Ok(());
        }
        let page = header.build_slot();
        let write = if mutant!(StampNotSynced) { DiskFile::write_at } else { DiskFile::write_sync_at };
        let written = write(file.as_ref(), 0, &page).map_err(failure("write a slot's header"))?;
        if written != page.len() {
            return Err(Failure::Full(format!("a slot's header of {} bytes ended after {written}", page.len())));
        }
        Ok(())
    })();
    match stamped {
        Ok(()) => Ok((file, marker)),
        Err(failure) => Err(NotStamped { failure, removed: remove(handle, &path) }),
    }
}

/// Writes a piece of a file of the reserve. Where the space ends, what was there before is left; else, where that fails,
/// nothing.
pub(super) fn reserve(handle: &Handle, job: &ReserveJob) -> Result<(), Failure> {
    let disk = &handle.disk.0;
    let path = Path::new(JOURNAL).join(&job.file);
    let mut made = None;
    let written = (|| -> io::Result<()> {
        let file = if job.offset == 0 { disk.create_slot(&path)? } else { disk.open_slot(&path)? };
        let file = made.insert(file);
        let zeros = Aligned::zeros(job.len.min(GROUP_CUT as u64) as usize);
        let mut at = 0;
        while at < job.len {
            let piece = &zeros.as_ref()[..(job.len - at).min(GROUP_CUT as u64) as usize];
            if file.write_sync_at(job.offset + at, piece)? != piece.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            at += piece.len() as u64;
        }
        if job.offset == 0 {
            disk.sync_dir(Path::new(JOURNAL))?;
        }
        Ok(())
    })();
    written.map_err(|error| {
        let no_space = job.offset > 0 && disk::is_full(&error);
        let cut = |file: Box<dyn DiskFile>| file.set_len(job.offset).is_ok();
        if no_space && made.is_some_and(cut) {
            return failure("write a reserve")(error);
        }
        remove(handle, &path);
        match failure("write a reserve")(error) {
            // What is reported as a lack of space leaves what was there before.
            Failure::Full(why) if no_space => Failure::Failed(why),
            failure => failure,
        }
    })
}

/// Removes a file that could not be finished; whether nothing is at its place any more.
pub(super) fn remove(handle: &Handle, path: &Path) -> bool {
    match handle.disk.0.unlink(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot remove a journal file that could not be made");
            false
        }
    }
}

/// A device's error as the log understands it.
pub(super) fn failure(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| {
        let sentence = format!("cannot {what}: {error}");
        if disk::is_full(&error) { Failure::Full(sentence) } else { Failure::Failed(sentence) }
    }
}
