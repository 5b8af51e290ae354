//! Tells when something in a folder has changed: inotify, and nothing where the kernel refuses it (the caller polls).

use std::io;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// A watched folder.
pub(crate) struct Watch(Option<Receiver>);

impl Watch {
    /// Watches a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self(Self::open(folder).inspect_err(|error| tracing::debug!(%error, "the folder is polled only")).ok())
    }

    fn open(folder: &Path) -> io::Result<Receiver> {
        let watcher = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let changes = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        inotify::add_watch(&watcher, folder, changes)?;
        // An inotify descriptor is read like a pipe: readable, non-blocking, whole events at a time.
        Receiver::from_owned_fd_unchecked(watcher)
    }

    /// Waits for a change; for ever where nothing can be watched.
    pub(crate) async fn changed(&self) {
        let Some(watcher) = &self.0 else { return std::future::pending().await };
        // What exactly changed does not matter: the events are only emptied out.
        let mut events = [0; 4096];
        loop {
            if watcher.readable().await.is_err() {
                return std::future::pending().await;
            }
            let mut changed = false;
            while watcher.try_read(&mut events).is_ok_and(|read| read > 0) {
                changed = true;
            }
            if changed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_written_a_renamed_and_a_removed_file_are_changes() {
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::new(folder.path());
        let file = folder.path().join("f");
        std::fs::write(&file, "1").unwrap();
        watch.changed().await;
        std::fs::rename(&file, folder.path().join("g")).unwrap();
        watch.changed().await;
        std::fs::remove_file(folder.path().join("g")).unwrap();
        watch.changed().await;
    }
}
