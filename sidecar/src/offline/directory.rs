//! Finding a directory's files and taking its lock.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use walstorage_crds::url::WalUrl;

use super::place::{FileAt, Stored};
use super::{OfflineError, ReadOptions};
use crate::fencing::directory::slot_of;
use crate::fencing::object::{JOURNAL, ObjectKey};
use crate::format::identity::{Identity, IdentityError};
use crate::format::names::{
    IDENTITY, JOURNAL_DIR, LOCK, SHARED_DIR, SlotName, WAL_DIR, collection_dir, is_collection_dir, is_segment,
};

/// A directory, its lock held shared (unless read live) as long as this lives.
pub(super) struct OpenDirectory {
    /// As given.
    pub(super) url: WalUrl,
    /// The folder of the URL; a bucket's URL.
    pub(super) path: PathBuf,
    /// Who it is, or why that cannot be read.
    pub(super) identity: Result<Identity, String>,
    bucket: Option<Arc<dyn Stored>>,
    _lock: Option<File>,
}

/// A file of a journal.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) name: SlotName,
    pub(super) file: FileAt,
    /// Its size; 0 where it has gone.
    pub(super) bytes: u64,
}

impl OpenDirectory {
    /// Locks a directory and reads its identity.
    pub(super) fn open(url: &WalUrl, options: ReadOptions<'_>) -> Result<Self, OfflineError> {
        let Some(path) = url.file_path() else { return Self::open_bucket(url, options) };
        let wal = path.join(WAL_DIR);
        if !wal.is_dir() {
            return Err(OfflineError::NotADirectory { why: what_else(&path), path });
        }
        let lock = if options.live { None } else { lock(url, &wal.join(LOCK))? };
        let identity = identity(&wal.join(IDENTITY), |path| std::fs::read(path))?;
        Ok(Self { url: url.clone(), path, identity, bucket: None, _lock: lock })
    }

    fn open_bucket(url: &WalUrl, options: ReadOptions<'_>) -> Result<Self, OfflineError> {
        let stores = options.stores.ok_or_else(|| OfflineError::no_buckets(url))?;
        let bucket = stores.open(url).map_err(OfflineError::Bucket)?;
        let path = PathBuf::from(url.as_str());
        let key = format!("{WAL_DIR}/{IDENTITY}");
        let read = |_: &Path| bucket.read(&key, 0..u64::MAX)?.ok_or_else(|| std::io::ErrorKind::NotFound.into());
        let identity = identity(&path.join(&key), |path| read(path).map(Vec::from))?;
        if identity.is_err()
            && bucket.list(&format!("{WAL_DIR}/")).map_err(OfflineError::io("listing", &path))?.is_empty()
        {
            let why = format!(
                "nothing is below {WAL_DIR}/, so it is no directory of a WalStorage writer: give its URL with the writer's id"
            );
            return Err(OfflineError::NotADirectory { path, why });
        }
        Ok(Self { url: url.clone(), path, identity, bucket: Some(bucket), _lock: None })
    }

    /// Whether its journal's files are objects.
    pub(super) const fn is_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// Its journal's folder.
    fn journal(&self) -> PathBuf {
        self.path.join(WAL_DIR).join(JOURNAL_DIR)
    }

    /// Where a slot is, or would be.
    pub(super) fn slot_path(&self, name: SlotName) -> PathBuf {
        match self.bucket {
            Some(_) => self.path.join(ObjectKey { stream: name.key, number: name.file }.to_string()),
            None => self.journal().join(name.to_string()),
        }
    }

    /// Its slots, ordered. Other files are left alone.
    pub(super) fn slots(&self) -> Result<Vec<Slot>, OfflineError> {
        let mut slots = match &self.bucket {
            None => self.slot_files()?,
            Some(bucket) => {
                let listed = bucket.list(JOURNAL).map_err(OfflineError::io("listing", &self.journal()))?;
                let slot = |(key, bytes): (String, u64)| {
                    let name = slot_of(ObjectKey::parse(&key)?);
                    Some(Slot { name, file: FileAt::object(bucket, &self.path, key, bytes), bytes })
                };
                listed.into_iter().filter_map(slot).collect()
            }
        };
        slots.sort_unstable_by_key(|slot| slot.name);
        Ok(slots)
    }

    fn slot_files(&self) -> Result<Vec<Slot>, OfflineError> {
        let slot = |(name, path): (String, PathBuf)| {
            let name = SlotName::parse(&name)?;
            let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            Some(Slot { name, file: FileAt::file(path), bytes })
        };
        Ok(list(&self.journal())?.into_iter().filter_map(slot).collect())
    }

    /// Where a collection's segments, or the shared ones, are.
    pub(super) fn segment_folder(&self, shared: bool, collection: &str) -> PathBuf {
        if shared { self.path.join(WAL_DIR).join(SHARED_DIR) } else { self.path.join(collection_dir(collection)) }
    }

    /// All files that are segments by their names and places, and their sizes.
    pub(super) fn segments(&self) -> Result<Vec<(FileAt, u64)>, OfflineError> {
        let mut sized = match &self.bucket {
            None => self.segment_files()?,
            Some(bucket) => {
                let listed = bucket.list("").map_err(OfflineError::io("listing", &self.path))?;
                let shared = format!("{WAL_DIR}/{SHARED_DIR}/");
                let is = |key: &str| match key.strip_prefix(&shared) {
                    Some(name) => name.ends_with(".avro"),
                    None => {
                        key.split_once('/').is_some_and(|(folder, name)| is_collection_dir(folder) && is_segment(name))
                    }
                };
                let segments = listed.into_iter().filter(|(key, _)| is(key));
                segments.map(|(key, bytes)| (FileAt::object(bucket, &self.path, key, bytes), bytes)).collect()
            }
        };
        sized.sort_unstable_by(|(one, _), (other, _)| one.as_os_str().cmp(other.as_os_str()));
        Ok(sized)
    }

    fn segment_files(&self) -> Result<Vec<(FileAt, u64)>, OfflineError> {
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
                Ok(metadata) => sized.push((FileAt::file(path), metadata.len())),
                // Removed by the sidecar since it was listed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(OfflineError::io("reading the metadata of", &path)(error)),
            }
        }
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

fn identity(
    path: &Path,
    read: impl FnOnce(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<Result<Identity, String>, OfflineError> {
    match read(path) {
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
