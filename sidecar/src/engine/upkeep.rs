//! One thread per directory beside its committer: lists the journal, measures the space, removes files. What it does
//! takes its time on the disk, and no commit waits for it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::inner::Inner;
use crate::commit::collection::DirIx;
use crate::commit::log::Log;
use crate::commit::upkeep::{Listing, Upkeep};
use crate::directory::identity::JOURNAL;
use crate::format::names::SlotName;
use crate::recovery::Handle;

/// Runs until there is nothing more to keep. A panic is a failure of the directory; the thread goes on.
pub(super) fn run(inner: &Arc<Inner>, dir: DirIx, handle: &Handle) {
    let keeper = Keeper::new(handle);
    let work = || {
        loop {
            let done = match inner.next_upkeep(dir) {
                Upkeep::End => return,
                work => keeper.carry_out(&work),
            };
            inner.with_log(|log| done.report(log, dir, Instant::now()));
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
pub(super) struct Keeper<'a> {
    handle: &'a Handle,
}

/// How a piece of upkeep ended.
pub(super) enum Done {
    Listed(Listing),
    Unlinked,
    Nothing,
}

impl Done {
    /// Tells the log.
    pub(super) fn report(self, log: &mut Log, dir: DirIx, now: Instant) {
        match self {
            Self::Listed(listing) => log.listed(dir, listing, now),
            Self::Unlinked => log.unlinked(dir),
            Self::Nothing => {}
        }
    }
}

impl<'a> Keeper<'a> {
    pub(super) const fn new(handle: &'a Handle) -> Self {
        Self { handle }
    }

    pub(super) fn carry_out(&self, work: &Upkeep) -> Done {
        match work {
            Upkeep::List => Done::Listed(self.list()),
            Upkeep::Unlink(files) => {
                self.unlink(files);
                Done::Unlinked
            }
            Upkeep::Wait(_) | Upkeep::End => Done::Nothing,
        }
    }

    fn unlink(&self, files: &[String]) {
        let disk = &self.handle.disk.0;
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
        Listing { newest, space: disk.space().ok() }
    }
}
