//! A cluster's folder. It is locked as long as its supervisor lives, so that the next one finds and removes what a
//! killed supervisor left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

/// A folder of a cluster, removed on drop.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Removes stale folders below `parent`, and makes a new one.
    pub(crate) fn create(parent: &Path) -> Result<Self> {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        // No folder is seen between its making and its locking.
        let gate = File::create(parent.join("lock"))?;
        flock(&gate, FlockOperation::LockExclusive)?;
        remove_stale(parent);
        let path = parent.join(uuid::Uuid::new_v4().simple().to_string().split_at(8).0);
        fs::create_dir(&path)?;
        let lock = File::create(path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// What cannot be removed, as it belongs to somebody else, stays: it is in nobody's way.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // `WALSTORAGE_KEEP_CLUSTER`: the logs stay, without their lock, for a person to read.
        if std::env::var_os("WALSTORAGE_KEEP_CLUSTER").is_some() {
            for part in ["etcd", "lock"] {
                let _ = fs::remove_dir_all(self.path.join(part)).or_else(|_| fs::remove_file(self.path.join(part)));
            }
            eprintln!("kept: {}", self.path.display());
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_cluster_and_a_stale_one_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let stale = parent.path().join("stale");
        fs::create_dir(&stale).unwrap();
        fs::write(stale.join("lock"), "").unwrap();
        let foreign = parent.path().join("foreign");
        fs::create_dir(&foreign).unwrap();

        let first = Folder::create(parent.path()).unwrap();
        assert!(!stale.exists(), "nobody holds its lock");
        assert!(foreign.exists(), "it is no cluster's");
        let second = Folder::create(parent.path()).unwrap();
        assert!(first.path().exists() && second.path().exists() && first.path() != second.path());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }
}
