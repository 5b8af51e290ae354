//! Finding a directory's files and taking its lock.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use walstorage_crds::url::WalUrl;

use super::{OfflineError, ReadOptions};
use crate::format::identity::{Identity, IdentityError};
use crate::format::names::{
    IDENTITY, JOURNAL_DIR, LOCK, SHARED_DIR, SlotName, WAL_DIR, collection_dir, is_collection_dir, is_segment,
};

/// A directory, its lock held shared (unless read live) as long as this lives.
pub(super) struct OpenDirectory {
    /// As given.
    pub(super) url: WalUrl,
    /// The folder of the URL.
    pub(super) path: PathBuf,
    /// Who it is, or why that cannot be read.
    pub(super) identity: Result<Identity, String>,
    _lock: Option<File>,
}

impl OpenDirectory {
    /// Locks a directory and reads its identity.
    pub(super) fn open(url: &WalUrl, options: ReadOptions) -> Result<Self, OfflineError> {
        let path = url.file_path().ok_or_else(|| OfflineError::Bucket(url.clone()))?;
        let wal = path.join(WAL_DIR);
        if !wal.is_dir() {
            return Err(OfflineError::NotADirectory { why: what_else(&path), path });
        }
        let lock = if options.live { None } else { lock(url, &wal.join(LOCK))? };
        let identity = identity(&wal.join(IDENTITY))?;
        Ok(Self { url: url.clone(), path, identity, _lock: lock })
    }

    /// Its journal's folder.
    pub(super) fn journal(&self) -> PathBuf {
        self.path.join(WAL_DIR).join(JOURNAL_DIR)
    }

    /// Its slots, ordered. Other files are left alone.
    pub(super) fn slots(&self) -> Result<Vec<SlotName>, OfflineError> {
        let names = list(&self.journal())?;
        let mut slots: Vec<_> = names.iter().filter_map(|(name, _)| SlotName::parse(name)).collect();
        slots.sort_unstable();
        Ok(slots)
    }

    /// Bytes of a slot; 0 where it has gone.
    pub(super) fn slot_size(&self, slot: SlotName) -> u64 {
        std::fs::metadata(self.journal().join(slot.to_string())).map_or(0, |metadata| metadata.len())
    }

    /// Where a collection's segments, or the shared ones, are.
    pub(super) fn segment_folder(&self, shared: bool, collection: &str) -> PathBuf {
        if shared { self.path.join(WAL_DIR).join(SHARED_DIR) } else { self.path.join(collection_dir(collection)) }
    }

    /// All files that are segments by their names and places, and their sizes.
    pub(super) fn segments(&self) -> Result<Vec<(PathBuf, u64)>, OfflineError> {
        let mut segments = Vec::new();
        for (name, folder) in list(&self.path)? {
            if is_collection_dir(&name) && folder.is_dir() {
                segments.extend(list(&folder)?.into_iter().filter(|(name, _)| is_segment(name)));
            }
        }
        let shared = list(&self.path.join(WAL_DIR).join(SHARED_DIR))?;
        segments.extend(shared.into_iter().filter(|(name, _)| name.ends_with(".avro")));
        let mut sized = Vec::new();
        for (_, path) in segments {
            match std::fs::metadata(&path) {
                Ok(metadata) => sized.push((path, metadata.len())),
                // Removed by the sidecar since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(OfflineError::io("reading the metadata of", &path)(error)),
            }
        }
        sized.sort_unstable();
        Ok(sized)
    }
}

/// The names in a folder, and their paths; none where it is not there.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>, OfflineError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OfflineError::io("listing", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(OfflineError::io("listing", folder))?;
        names.extend(entry.file_name().into_string().ok().map(|name| (name, entry.path())));
    }
    Ok(names)
}

fn lock(url: &WalUrl, path: &Path) -> Result<Option<File>, OfflineError> {
    let file = match File::open(path) {
        Ok(file) => file,
        // Never opened by a sidecar of ours, or a copy without it: nobody can hold it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OfflineError::io("opening", path)(error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let pid = text.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok());
            Err(OfflineError::Locked { directory: url.clone(), pid })
        }
        Err(error) => Err(OfflineError::io("locking", path)(error.into())),
    }
}

fn identity(path: &Path) -> Result<Result<Identity, String>, OfflineError> {
    match std::fs::read(path) {
        Ok(bytes) => match Identity::parse(&bytes) {
            Ok(identity) => Ok(Ok(identity)),
            Err(error @ IdentityError::Format(_)) => Err((path, error).into()),
            Err(error @ IdentityError::Malformed(_)) => Ok(Err(error.to_string())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Err("it is missing".into())),
        Err(error) => Err(OfflineError::io("reading", path)(error)),
    }
}

/// What a folder without `_wal` is, for the message.
fn what_else(path: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(path) else { return "there is no such folder".into() };
    let is_ours = |entry: &std::fs::DirEntry| entry.path().join(WAL_DIR).is_dir();
    let names = entries.flatten().filter(is_ours).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut writers: Vec<_> = names.collect();
    writers.sort();
    if writers.is_empty() {
        format!("it has no {WAL_DIR} folder, so it is no directory of a WalStorage writer")
    } else {
        format!("it holds the directories of writers; give one of them: {}", writers.join(", "))
    }
}
