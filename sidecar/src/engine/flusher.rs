//! One thread per directory beside its committer: writes and seals segments, and removes those that are not needed. All on
//! one thread, so that a file is never removed while another is made under its name.

use std::collections::BTreeSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::FlushTold;
use super::flush_sink::{Place, Sink, device};
use super::inner::Inner;
use super::segment_file::{self, At, OpenSegment};
use super::segment_read::{self, SegmentIndex};
use super::shelved::Shelved;
use crate::ambient;
use crate::commit::collection::DirIx;
use crate::commit::flush_jobs::{FlushJob, FlushPart, FlushWork, Piece, SealJob, Target};
use crate::commit::flushed::{FlushDone, FlushFailure, PartDone, SealOutcome};
use crate::commit::log::Log;
use crate::commit::read::SegmentRead;
use crate::commit::segments::{Segment, SegmentPath, shared_folder};
use crate::commit::sweep::SweepJob;
use crate::directory::disk::{Disk, DiskFile, SharedDisk};
use crate::format::header::{SegmentHeader, SegmentOf};
use crate::format::names::{self, CURRENT_SEGMENT};
use crate::format::segment::FlushBuilder;
use crate::recovery::Handle;
use crate::types::Lsn;

/// Runs until the log has nothing more to flush. A panic is a failure of the directory.
pub(super) fn run(inner: &Arc<Inner>, dir: DirIx, handle: &Handle) {
    let writer = SegmentWriter::new(handle, inner.read_disks.get().cloned().unwrap_or_default());
    let work = || {
        loop {
            let work = inner.next_flush(dir);
            if work == FlushWork::End {
                return;
            }
            let started = Instant::now();
            let done = writer.carry_out(&work, |part, from| inner.flush_piece(dir, part, from));
            if let FlushWork::Flush(job) = &work {
                inner.observer.flushed(&done.told(job, started.elapsed()));
            }
            if let Some(why) = done.trouble() {
                tracing::warn!(directory = %inner.url(dir), why, "flushing");
            }
            inner.with_log(|log| done.report(log, dir, Instant::now()));
        }
    };
    while std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
        let failed = || {
            inner.with_log(|log| log.flusher_gave_up(dir, "its flusher panicked", Instant::now()));
            inner.gave_up(dir, "its flusher panicked".into());
        };
        if std::panic::catch_unwind(AssertUnwindSafe(failed)).is_err() {
            inner.collapse();
        }
    }
}

/// How a piece of work ended.
#[derive(Debug)]
pub(crate) enum Done {
    Flushed(FlushDone),
    FlushFailed(u64, FlushFailure),
    Sealed(u64, SealOutcome),
    /// All but these.
    Removed(Vec<Uuid>),
    Swept,
    Nothing,
}

impl Done {
    /// Tells the log.
    pub(crate) fn report(self, log: &mut Log, dir: DirIx, now: Instant) {
        match self {
            Self::Flushed(done) => log.flushed(dir, &done, now),
            Self::FlushFailed(number, failure) => log.flush_failed(dir, number, failure, now),
            Self::Sealed(number, outcome) => log.sealed(dir, number, outcome, now),
            Self::Removed(kept) => log.removed(dir, &kept),
            Self::Swept => log.swept(dir),
            Self::Nothing => {}
        }
    }

    /// What metrics want to know of a flush.
    fn told(&self, job: &FlushJob, took: Duration) -> FlushTold {
        let (result, bytes) = match self {
            Self::Flushed(done) => ("ok", done.parts.iter().flatten().map(|part| part.bytes).sum()),
            Self::FlushFailed(_, FlushFailure::Void) => ("void", 0),
            _ => ("failed", 0),
        };
        FlushTold { cause: job.why.as_str(), result, bytes, took }
    }

    /// What somebody who reads logs wants to know.
    fn trouble(&self) -> Option<String> {
        match self {
            Self::FlushFailed(
                _,
                FlushFailure::Unusable(why) | FlushFailure::Unreadable(_, _, why) | FlushFailure::Device(why),
            )
            | Self::Sealed(_, SealOutcome::Missing(why) | SealOutcome::Device(why)) => Some(why.clone()),
            Self::Removed(kept) if !kept.is_empty() => Some(format!("{} segments cannot be removed", kept.len())),
            Self::FlushFailed(..)
            | Self::Sealed(..)
            | Self::Flushed(_)
            | Self::Removed(_)
            | Self::Swept
            | Self::Nothing => None,
        }
    }
}

/// Writes segments in one directory.
pub(crate) struct SegmentWriter<'a> {
    handle: &'a Handle,
    /// The disks of all directories: what is rewritten may lie elsewhere.
    disks: Vec<SharedDisk>,
}

impl<'a> SegmentWriter<'a> {
    pub(crate) const fn new(handle: &'a Handle, disks: Vec<SharedDisk>) -> Self {
        Self { handle, disks }
    }

    /// Entries of a segment that is rewritten.
    fn read(&self, wanted: &SegmentRead, known: &mut Option<SegmentIndex>) -> Result<(Vec<u8>, Lsn), FlushFailure> {
        let unreadable = |why: String| {
            let why = format!("a segment of {} cannot be moved: {why}", wanted.name);
            FlushFailure::Unreadable(wanted.incarnation, wanted.segment.id, why)
        };
        let disk = self.disks.get(wanted.segment.dir).ok_or_else(|| unreadable("its directory is not here".into()))?;
        let found = segment_read::read(disk.as_ref(), wanted, known.take(), u64::MAX);
        let found = found.map_err(|error| unreadable(error.to_string()))?;
        *known = Some(found.index);
        Ok((found.records, Lsn(found.next.0 - 1)))
    }

    fn disk(&self) -> &dyn Disk {
        self.handle.disk.0.as_ref()
    }

    /// Does one piece of work; `piece` answers the entries to flush, from an LSN on.
    pub(crate) fn carry_out(&self, work: &FlushWork, piece: impl FnMut(&FlushPart, Lsn) -> Piece) -> Done {
        match work {
            FlushWork::Flush(job) => match self.flush(job, piece) {
                Ok(done) => Done::Flushed(done),
                Err(failure) => Done::FlushFailed(job.number, failure),
            },
            FlushWork::Seal(job) => Done::Sealed(job.number, self.seal(job)),
            FlushWork::Remove(files) => Done::Removed(self.remove(files)),
            FlushWork::Sweep(jobs) => {
                for job in jobs {
                    if let Err(error) = self.sweep(job) {
                        tracing::warn!(collection = %job.name, %error, "cannot look for what a deleted collection left");
                    }
                }
                Done::Swept
            }
            FlushWork::Wait(_) | FlushWork::End => Done::Nothing,
        }
    }

    /// Writes and syncs one flush: durable on `Ok`, name included.
    fn flush(
        &self,
        job: &FlushJob,
        mut piece: impl FnMut(&FlushPart, Lsn) -> Piece,
    ) -> Result<FlushDone, FlushFailure> {
        let mut place: Option<Place> = None;
        let result = self.write(job, &mut piece, &mut place);
        let made = |place: &Place| place.new && matches!(place.sink, Sink::File(_));
        if let (Err(_), Some(made)) = (&result, place.filter(made)) {
            // Nothing speaks of it. If it stays, the next flush to that name replaces it.
            let _ = self.disk().unlink(&made.path);
        }
        result
    }

    fn write(
        &self,
        job: &FlushJob,
        piece: &mut impl FnMut(&FlushPart, Lsn) -> Piece,
        place: &mut Option<Place>,
    ) -> Result<FlushDone, FlushFailure> {
        let mut parts = Vec::with_capacity(job.parts.len());
        for part in &job.parts {
            let mut done: Option<PartDone> = None;
            let mut from = part.first;
            let mut known = None;
            let mut shelved = Shelved::default();
            loop {
                let (records, first, last) = match shelved.next(&self.disks, from, |from| piece(part, from))? {
                    Piece::Records(records, first, last) => (records, first, last),
                    Piece::Read(wanted) => {
                        let (records, last) = self.read(&wanted, &mut known)?;
                        (records, wanted.from, last)
                    }
                    // Those are read.
                    Piece::Journal(_) => return Err(FlushFailure::Void),
                    Piece::End => break,
                    Piece::Stop => return Err(FlushFailure::Void),
                };
                let place = match place {
                    Some(place) => place,
                    // Only now it is known what the segment begins with.
                    None => place.insert(self.place(job, part, first)?),
                };
                place.push(&records)?;
                let so_far = done.get_or_insert(PartDone { first, last, bytes: 0 });
                so_far.last = last;
                so_far.bytes += records.len() as u64;
                from = last.next();
            }
            parts.push(done);
        }
        let Some(place) = place else { return Err(FlushFailure::Void) };
        let empty = FlushBuilder::new(job.codec, [0; 16], false, 0, 0);
        let builder = std::mem::replace(&mut place.builder, empty);
        let (bytes, flushed) = builder.finish(job.key.epoch).map_err(|e| FlushFailure::Device(e.to_string()))?;
        place.write(&bytes)?;
        match &mut place.sink {
            Sink::Object(bytes) => {
                let bytes = std::mem::take(bytes);
                self.send(job, &parts, &place.path, bytes).map_err(device("create a segment"))?;
                return Ok(FlushDone { number: job.number, flushed, parts });
            }
            Sink::File(file) if !mutant!(SegmentNotSynced) => file.sync_data().map_err(device("sync a segment"))?,
            Sink::File(_) => {}
        }
        if place.new && !mutant!(SegmentNameNotSynced) {
            let folder = place.path.parent().unwrap_or_else(|| Path::new(""));
            self.disk().sync_dir(folder).map_err(device("sync a segment's folder"))?;
        }
        Ok(FlushDone { number: job.number, flushed, parts })
    }

    /// Creates the object of a flush. A collection's own has what is in it in its name; `path` is a shared one's.
    fn send(&self, job: &FlushJob, parts: &[Option<PartDone>], path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let Some(objects) = self.disk().objects() else { return Err(io::ErrorKind::Unsupported.into()) };
        let own = match (&job.target, parts, job.parts.as_slice()) {
            (Target::New(id), [Some(done)], [part]) => {
                let folder = names::collection_dir(part.name.as_str());
                Some(Path::new(&folder).join(names::object_segment(done.first, done.last, *id)))
            }
            _ => None,
        };
        objects.create(own.as_deref().unwrap_or(path), bytes.into())
    }

    fn place(&self, job: &FlushJob, part: &FlushPart, first: Lsn) -> Result<Place, FlushFailure> {
        let folder = names::collection_dir(part.name.as_str());
        match &job.target {
            Target::Behind(segment) => self.behind(segment, part),
            Target::New(id) => {
                let (name, incarnation) = (part.name.as_str().to_owned(), part.incarnation);
                let path = Path::new(&folder).join(CURRENT_SEGMENT);
                self.create(job, *id, 0, path, SegmentOf::Collection { name, incarnation, first })
            }
            Target::Shared(id, number) => {
                let path = shared_folder().join(names::numbered(*number));
                self.create(job, *id, *number, path, SegmentOf::Shared)
            }
        }
    }

    /// Opens the segment being written. What lies behind its valid part was never spoken of.
    fn behind(&self, segment: &Segment, part: &FlushPart) -> Result<Place, FlushFailure> {
        let path = SegmentPath::own(&part.name, segment.first, segment.last);
        let found = segment_file::find(self.disk(), &path, segment.id, true).map_err(device("open a segment"))?;
        let OpenSegment { file, header, path, .. } = found.map_err(FlushFailure::Unusable)?;
        if path.file_name() != Some(CURRENT_SEGMENT.as_ref()) {
            return Err(FlushFailure::IsSealed);
        }
        let length = file.len().map_err(device("measure a segment"))?;
        if length < segment.length {
            let shown = self.disk().display(&path);
            return Err(FlushFailure::Unusable(format!(
                "{} has {length} bytes instead of {}",
                shown.display(),
                segment.length
            )));
        }
        if length > segment.length {
            file.set_len(segment.length).map_err(device("cut a segment"))?;
        }
        let at = if mutant!(SegmentOverwritten) { segment.index_offset } else { segment.length };
        let builder = FlushBuilder::new(header.codec, header.marker, false, at, segment.index_offset);
        Ok(Place { sink: Sink::File(file), path, new: false, builder, at })
    }

    fn create(
        &self,
        job: &FlushJob,
        segment: Uuid,
        number: u64,
        path: PathBuf,
        of: SegmentOf,
    ) -> Result<Place, FlushFailure> {
        let disk = self.disk();
        let shared = number > 0;
        let marker = *ambient::uuid().as_bytes();
        let header = SegmentHeader {
            writer: self.handle.identity.writer,
            directory: self.handle.identity.directory,
            segment,
            key: job.key,
            file: number,
            codec: job.codec,
            of,
            marker,
        };
        let header = header.build();
        let builder = FlushBuilder::new(job.codec, marker, shared, header.len() as u64, 0);
        let sink = match disk.objects() {
            Some(_) => Sink::Object(Vec::new()),
            None => Sink::File(self.create_file(&path, shared)?),
        };
        let mut place = Place { sink, path, new: true, builder, at: 0 };
        if let Err(failure) = place.write(&header) {
            let _ = disk.unlink(&place.path);
            return Err(failure);
        }
        Ok(place)
    }

    fn create_file(&self, path: &Path, shared: bool) -> Result<Box<dyn DiskFile>, FlushFailure> {
        let disk = self.disk();
        if let Some(folder) = path.parent() {
            disk.create_dir_all(folder).map_err(device("make a segment's folder"))?;
        }
        let created = match disk.create_excl(path) {
            // A crash left it, or a collection that is deleted: no fact needs it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !shared => {
                disk.unlink(path).map_err(device("remove an unused segment"))?;
                disk.create_excl(path)
            }
            created => created,
        };
        created.map_err(device("create a segment"))
    }

    /// Gives a segment its final name, durably.
    fn seal(&self, job: &SealJob) -> SealOutcome {
        let disk = self.disk();
        let names = job.path.names();
        let found = match segment_file::find(disk, &job.path, job.segment.id, false) {
            Ok(Ok(found)) => found.path,
            Ok(Err(why)) => return SealOutcome::Missing(why),
            Err(error) => return SealOutcome::Device(format!("cannot open a segment: {error}")),
        };
        let renamed = match (names.as_slice(), found) {
            ([current, sealed], found) if *current == found => match disk.rename_noreplace(current, sealed) {
                // What lies there is not this segment, and no fact needs it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    disk.unlink(sealed).and_then(|()| disk.rename_noreplace(current, sealed))
                }
                renamed => renamed,
            },
            // A crash came between the rename and its fact.
            _ => Ok(()),
        };
        let synced = || if mutant!(SealNotSynced) { Ok(()) } else { disk.sync_dir(&job.path.folder()) };
        match renamed.and_then(|()| synced()) {
            Ok(()) => SealOutcome::Sealed,
            Err(error) => SealOutcome::Device(format!("cannot seal a segment: {error}")),
        }
    }

    /// Removes files, durably; answers those that could not be.
    fn remove(&self, files: &[(Uuid, SegmentPath)]) -> Vec<Uuid> {
        let disk = self.disk();
        if let Some(objects) = disk.objects() {
            // Their names are their own: nothing else was ever there, or will be.
            let names = files.iter().flat_map(|(id, path)| path.names().into_iter().map(move |name| (*id, name)));
            let (ids, paths): (Vec<Uuid>, Vec<PathBuf>) = names.unzip();
            let Err((left, error)) = objects.remove(&paths) else { return Vec::new() };
            tracing::warn!(left = left.len(), of = files.len(), %error, "cannot delete segments");
            return left.into_iter().map(|index| ids[index]).collect();
        }
        let mut kept = Vec::new();
        let mut folders = BTreeSet::new();
        for (id, path) in files {
            match self.remove_one(*id, path) {
                Ok(()) => drop(folders.insert(path.folder())),
                Err(error) => {
                    tracing::warn!(segment = %id, %error, "cannot remove a segment");
                    kept.push(*id);
                }
            }
        }
        for folder in folders {
            match disk.sync_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    tracing::warn!(%error, "cannot sync a segment's folder");
                    kept.extend(files.iter().filter(|(_, path)| path.folder() == folder).map(|(id, _)| *id));
                }
            }
            if folder != shared_folder() {
                // The folder of a collection without segments is of no use; where there are some it stays.
                let _ = disk.remove_dir(&folder);
            }
        }
        kept
    }

    /// Removes what a deleted collection left and no fact speaks of.
    fn sweep(&self, job: &SweepJob) -> io::Result<()> {
        let disk = self.disk();
        let folder = PathBuf::from(names::collection_dir(job.name.as_str()));
        let entries = match disk.list(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            listed => listed?,
        };
        let ours = (self.handle.identity.writer, self.handle.identity.directory);
        let mut removed = false;
        for entry in entries.iter().filter(|entry| names::is_segment(&entry.name)) {
            let path = folder.join(&entry.name);
            let dead = match segment_file::open(disk, &path, false)? {
                At::Segment(OpenSegment { header, .. }) => {
                    let of = matches!(&header.of, SegmentOf::Collection { name, incarnation, .. }
                        if *name == job.name.as_str() && *incarnation <= job.incarnation);
                    of && (header.writer, header.directory) == ours
                }
                At::Unreadable(_) => entry.len == 0 && !job.lives,
                At::Nothing => false,
            };
            if dead {
                disk.unlink(&path)?;
                removed = true;
            }
        }
        if removed {
            disk.sync_dir(&folder)?;
            // Where there are other files it stays.
            let _ = disk.remove_dir(&folder);
        }
        Ok(())
    }

    fn remove_one(&self, id: Uuid, path: &SegmentPath) -> io::Result<()> {
        let disk = self.disk();
        for name in path.names() {
            let it_is = match segment_file::open(disk, &name, false)? {
                At::Segment(found) => found.header.segment == id,
                // A shared file's number is its own; at the names of a collection there may be what is needed.
                At::Unreadable(_) => matches!(path, SegmentPath::Shared { .. }),
                At::Nothing => false,
            };
            if it_is {
                disk.unlink(&name)?;
            }
        }
        Ok(())
    }
}
