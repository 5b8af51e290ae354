//! One thread per directory: asks the log what to do next, does it on the disk, reports. While it syncs, the next group
//! gathers.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::inner::Inner;
use super::stamp::{self, failure};
use crate::ambient;
use crate::commit::collection::DirIx;
use crate::commit::frames::{FrameJob, Work};
use crate::commit::outcome::{Committed, Failure};
use crate::commit::slots::StampJob;
use crate::directory::disk::DiskFile;
use crate::fencing::Lost;
use crate::fencing::directory::Objects;
use crate::fencing::object::{CLOSE, Object};
use crate::format::Marker;
use crate::format::frame::FrameBuilder;
use crate::format::header::SlotHeader;
use crate::format::limits::{GROUP_CUT, PAGE};
use crate::format::names::SlotName;
use crate::recovery::Handle;

/// A sync that takes longer is logged.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// Runs until nothing more is to be written. A panic is a failure of the directory: nobody is left without an answer,
/// and the next session of the directory is written by the same thread.
pub(super) fn run(inner: &Arc<Inner>, dir: DirIx, handle: &Handle) {
    loop {
        let mut writer = Writer::new(handle);
        if std::panic::catch_unwind(AssertUnwindSafe(|| writer.work(inner, dir))).is_ok() {
            return;
        }
        let failed = || inner.gave_up(dir, "its committer panicked".into());
        if std::panic::catch_unwind(AssertUnwindSafe(failed)).is_err() {
            inner.collapse();
        }
    }
}

pub(crate) struct Writer<'a> {
    handle: &'a Handle,
    file: Option<Box<dyn DiskFile>>,
    marker: Marker,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(handle: &'a Handle) -> Self {
        Self { handle, file: None, marker: [0; 16] }
    }

    fn work(&mut self, inner: &Arc<Inner>, dir: DirIx) {
        let mut builder = FrameBuilder::new();
        loop {
            match inner.next_work(dir, &mut builder) {
                Work::Frame(job) => {
                    let outcome = self.write(&job, &mut builder);
                    let large = builder.bytes() > 4 * GROUP_CUT;
                    match outcome {
                        Ok(done) => {
                            if done.took > SLOW_SYNC && self.handle.disk.0.objects().is_none() {
                                tracing::warn!(directory = %inner.url(dir), took = ?done.took, "slow sync");
                            }
                            inner.committed(dir, job.key, done);
                        }
                        Err(failure) => inner.failed(dir, job.key, failure),
                    }
                    if large {
                        // A rare large batch does not keep its memory.
                        builder = FrameBuilder::new();
                    }
                }
                // The log waits by itself before it answers.
                Work::Wait(_) => {}
                Work::End => return,
            }
        }
    }

    /// Makes the file where the job needs one, writes the frame and syncs it: durable on `Ok`.
    pub(crate) fn write(&mut self, job: &FrameJob, builder: &mut FrameBuilder) -> Result<Committed, Failure> {
        if let Some(objects) = self.handle.disk.0.objects() {
            return self.commit(objects, job, builder);
        }
        if job.place.new_file {
            self.begin_file(job)?;
        }
        let Some(file) = &self.file else { return Err(Failure::Failed("no file is open".into())) };
        let frame = builder.finish_slot(&job.header, &self.marker).map_err(|e| Failure::Failed(e.to_string()))?;
        let (len, crc) = (frame.bytes.len(), frame.crc);
        let started = ambient::now();
        let written = file.write_sync_at(job.place.offset, frame.bytes).map_err(failure("write"))?;
        if written != len {
            // The rest may fit or not: what is on the disk now is torn, and the stream is over. The kernel says why when
            // it is asked again, about bytes that nobody will read.
            let ask = |from: usize| file.write_at(job.place.offset + from as u64, &frame.bytes[from..]).err();
            let unaligned = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidInput;
            let error =
                ask(written).and_then(|error| if unaligned(&error) { ask(written / PAGE * PAGE) } else { Some(error) });
            return Err(match error {
                Some(error) => failure("write")(error),
                None => Failure::Failed(format!("a write of {len} bytes ended after {written}")),
            });
        }
        let took = ambient::now().duration_since(started);
        let reserved = job.reserve.as_ref().is_some_and(|job| match stamp::reserve(self.handle, job) {
            Ok(()) => true,
            Err(failure) => {
                tracing::warn!(directory = %self.handle.disk.0.display(Path::new("")).display(), ?failure, "no reserve");
                false
            }
        });
        Ok(Committed { len: len as u64, crc, took, reserved })
    }

    /// Commits the frame as an object: durable on `Ok`.
    fn commit(&self, objects: &dyn Objects, job: &FrameJob, builder: &mut FrameBuilder) -> Result<Committed, Failure> {
        let lost = |lost: Lost| match lost {
            Lost::Fenced { .. } => Failure::Fenced(format!(
                "{}: {lost}: another process writes this log now",
                self.handle.disk.0.display(Path::new("")).display()
            )),
            Lost::Denied(_) | Lost::Unconditional | Lost::Damage { .. } => Failure::Failed(lost.sentence()),
        };
        if job.header.frame_seq == CLOSE && job.key.session > 0 {
            objects.next_session(job.key, job.header.stream).map_err(lost)?;
        }
        let head = SlotHeader {
            writer: self.handle.identity.writer,
            directory: self.handle.identity.directory,
            stream: job.header.stream,
            key: job.key,
            file: job.place.file,
            marker: *ambient::uuid().as_bytes(),
        };
        let object = Object::of_frame(&head, job.header, builder).map_err(|e| Failure::Failed(e.to_string()))?;
        let started = ambient::now();
        objects.commit(&object).map_err(lost)?;
        let took = ambient::now().duration_since(started);
        Ok(Committed { len: object.bytes.len() as u64, crc: object.seen.crc, took, reserved: false })
    }

    /// Opens the spare, or makes the next file of the stream: header written and synced, the name durable.
    fn begin_file(&mut self, job: &FrameJob) -> Result<(), Failure> {
        if let Some(marker) = job.prepared {
            let name = SlotName { key: job.key, file: job.place.file };
            let file = self.handle.disk.0.open_slot(&stamp::path(name)).map_err(failure("open a spare"))?;
            (self.file, self.marker) = (Some(file), marker);
            return Ok(());
        }
        let next = StampJob { key: job.key, stream: job.header.stream, file: job.place.file, from: None };
        let (file, marker) = stamp::stamp(self.handle, &next).map_err(|failed| match failed.failure {
            Failure::Full(why) if failed.removed => Failure::NoFile(why),
            failure => failure,
        })?;
        (self.file, self.marker) = (Some(file), marker);
        Ok(())
    }
}
