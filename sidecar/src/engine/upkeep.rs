//! One thread per directory beside its committer: lists the journal, measures the space, removes files. What it does
//! takes its time on the disk, and no commit waits for it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::inner::Inner;
use super::probe;
use super::stamp;
use crate::commit::collection::DirIx;
use crate::commit::log::Log;
use crate::commit::outcome::Failure;
use crate::commit::reserve::ReserveJob;
use crate::commit::slots::{FILL_PIECE, FillJob, NotStamped, StampJob};
use crate::commit::upkeep::{Gone, Listing, Upkeep};
use crate::directory::aligned::Aligned;
use crate::directory::disk::DiskFile;
use crate::directory::identity::JOURNAL;
use crate::format::Marker;
use crate::format::limits::PAGE;
use crate::format::names::SlotName;
use crate::recovery::Handle;

/// Runs until there is nothing more to keep. A panic is a failure of the directory; the thread goes on.
pub(super) fn run(inner: &Arc<Inner>, dir: DirIx, handle: &Handle) {
    let work = || {
        let mut keeper = Keeper::new(handle);
        loop {
            let done = match inner.next_upkeep(dir) {
                Upkeep::End => return,
                work => keeper.carry_out(&work),
            };
            let tells = done.tells_of_health();
            inner.with_log(|log| done.report(log, dir, Instant::now()));
            if tells {
                inner.turn();
            }
        }
    };
    while std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
        let failed = || inner.gave_up(dir, "its upkeep panicked".into());
        if std::panic::catch_unwind(AssertUnwindSafe(failed)).is_err() {
            inner.collapse();
        }
    }
}

/// Carries upkeep out on one directory.
pub(crate) struct Keeper<'a> {
    handle: &'a Handle,
    /// The spare being filled.
    spare: Option<(SlotName, Box<dyn DiskFile>)>,
    zeros: Aligned,
}

/// How a piece of upkeep ended.
#[derive(Debug)]
pub(crate) enum Done {
    Listed(Listing),
    Unlinked,
    Stamped(StampJob, Result<Marker, NotStamped>),
    Filled(FillJob, Result<(), NotStamped>),
    Reserved(ReserveJob, Result<(), Failure>),
    Probed(Result<(), String>),
    Nothing,
}

impl Done {
    /// Whether others may wait for this.
    const fn tells_of_health(&self) -> bool {
        matches!(self, Self::Probed(_) | Self::Listed(Listing { gone: Some(_), .. }))
    }

    /// Tells the log.
    pub(crate) fn report(self, log: &mut Log, dir: DirIx, now: Instant) {
        match self {
            Self::Listed(listing) => log.listed(dir, listing, now),
            Self::Unlinked => log.unlinked(dir),
            Self::Stamped(job, outcome) => log.stamped(dir, &job, outcome, now),
            Self::Filled(job, outcome) => log.filled(dir, &job, outcome, now),
            Self::Reserved(job, outcome) => log.reserved(dir, &job, outcome, now),
            Self::Probed(result) => log.probed(dir, result, now),
            Self::Nothing => {}
        }
    }
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(handle: &'a Handle) -> Self {
        Self { handle, spare: None, zeros: Aligned::default() }
    }

    pub(crate) fn carry_out(&mut self, work: &Upkeep) -> Done {
        match work {
            Upkeep::Stamp(job) => Done::Stamped(job.clone(), self.stamp(job)),
            Upkeep::Fill(job) => Done::Filled(*job, self.fill(job)),
            Upkeep::Reserve(job) => Done::Reserved(job.clone(), stamp::reserve(self.handle, job)),
            Upkeep::List => Done::Listed(self.list()),
            Upkeep::Unlink(files) => {
                self.unlink(files);
                Done::Unlinked
            }
            Upkeep::Probe => Done::Probed(probe::probe(self.handle)),
            Upkeep::Wait(_) | Upkeep::End => Done::Nothing,
        }
    }

    fn stamp(&mut self, job: &StampJob) -> Result<Marker, NotStamped> {
        self.spare = None;
        let (file, marker) = stamp::stamp(self.handle, job)?;
        if job.from.is_none() {
            self.spare = Some((SlotName { key: job.key, file: job.file }, file));
            self.zeros = Aligned::zeros(FILL_PIECE as usize);
        }
        Ok(marker)
    }

    /// Writes zeros and syncs them. Where nothing could be filled at all, the file is removed.
    fn fill(&mut self, job: &FillJob) -> Result<(), NotStamped> {
        let result = match &self.spare {
            Some((name, file)) if *name == job.name => {
                let zeros = &self.zeros.as_ref()[..job.len as usize];
                match file.write_sync_at(job.offset, zeros).map_err(stamp::failure("fill a spare")) {
                    Ok(written) if written == zeros.len() => Ok(()),
                    Ok(written) => Err(Failure::Full(format!("a spare's {} zeros ended after {written}", zeros.len()))),
                    Err(failure) => Err(failure),
                }
            }
            _ => Err(Failure::Failed("the spare is not open".into())),
        };
        if job.last || result.is_err() {
            (self.spare, self.zeros) = (None, Aligned::default());
        }
        result.map_err(|failure| {
            let keeps = matches!(failure, Failure::Full(_)) && job.offset > PAGE as u64;
            let removed = !keeps && stamp::remove(self.handle, &stamp::path(job.name));
            NotStamped { failure, removed }
        })
    }

    fn unlink(&self, files: &[String]) {
        let disk = &self.handle.disk.0;
        if let Some(objects) = disk.objects() {
            let paths: Vec<PathBuf> = files.iter().map(|name| Path::new(JOURNAL).join(name)).collect();
            if let Err((left, error)) = objects.remove(&paths) {
                // They hold nothing that is needed: a later start removes them.
                tracing::warn!(left = left.len(), of = files.len(), %error, "cannot delete objects of the journal");
            }
            return;
        }
        for name in files {
            match disk.unlink(&Path::new(JOURNAL).join(name)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // It holds nothing that is needed: the next start removes it.
                Err(error) => tracing::warn!(file = name, %error, "cannot remove a journal file"),
            }
        }
        if let Err(error) = disk.sync_dir(Path::new(JOURNAL)) {
            tracing::warn!(%error, "cannot sync the journal's folder");
        }
    }

    fn list(&self) -> Listing {
        let disk = &self.handle.disk.0;
        let entries = disk.list(Path::new(JOURNAL)).unwrap_or_default();
        let newest = entries.iter().filter_map(|entry| SlotName::parse(&entry.name)).map(|name| name.key).max();
        let gone = match disk.device_inode() {
            Ok(place) => (place != self.handle.place).then_some(Gone::Another),
            Err(error) => (error.kind() == io::ErrorKind::NotFound).then_some(Gone::Nothing),
        };
        Listing { newest, space: disk.space().ok(), gone }
    }
}
