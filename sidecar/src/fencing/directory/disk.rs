//! The seam of disks over a bucket.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::file::{Sent, Unsent};
use super::{BucketDirectory, Objects, Shared, refused};
use crate::directory::bucket::{Bucket, CreateError, Denied};
use crate::directory::disk::{Disk, DiskFile, Entry, Lock, LockGuard, Space};
use crate::directory::identity::JOURNAL;
use crate::directory::io::Io;
use crate::fencing::object::ObjectKey;
use crate::format::header::MAX_HEADER;
use crate::format::names::SlotName;

/// Sizes are not listed. Nothing here is known to be empty.
const UNKNOWN_LEN: u64 = 1;

/// There is no lock to hold.
#[derive(Debug)]
struct NoLock;

impl LockGuard for NoLock {}

/// The key of a path. A commit has the name of a slot there and is in the folder of its stream here.
pub(super) fn key_of(path: &Path) -> io::Result<String> {
    let text = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(commit_of(text).map_or_else(|| text.to_owned(), |key| key.to_string()))
}

/// The commit that a path names.
fn commit_of(path: &str) -> Option<ObjectKey> {
    let SlotName { key: stream, file: number } = SlotName::parse(path.strip_prefix(JOURNAL)?.strip_prefix('/')?)?;
    Some(ObjectKey { stream, number })
}

/// The name of a slot that stands for a commit.
pub(crate) const fn slot_of(key: ObjectKey) -> SlotName {
    SlotName { key: key.stream, file: key.number }
}

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "a bucket has no such call")
}

/// Creates an object, as often as it takes to know whether it is ours. An answer other than success says nothing: an earlier
/// attempt may have landed.
async fn create(bucket: &impl Bucket, key: &str, body: &Bytes) -> Result<bool, Denied> {
    let mut attempt = 0;
    loop {
        match bucket.create(key, body.clone()).await {
            Ok(()) => return Ok(true),
            Err(CreateError::Denied(why)) => return Err(why),
            Err(CreateError::Taken | CreateError::Unclear(_)) => {}
        }
        if let Some(found) = bucket.read(key, 0..u64::MAX).await? {
            return Ok(found == *body);
        }
        attempt += 1;
        bucket.back_off(attempt).await;
    }
}

impl<B: Bucket + Send + 'static> Shared<B> {
    pub(super) fn read(&self, key: &str, range: Range<u64>) -> io::Result<Option<Bytes>> {
        self.ask(self.bucket.read(key, range)).map_err(refused)
    }

    pub(super) fn list(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.ask(self.bucket.list(prefix)).map_err(refused)
    }

    pub(super) fn create(&self, key: &str, body: &Bytes) -> io::Result<()> {
        self.created(key, self.wait(create(&self.bucket, key, body)))
    }

    pub(super) fn publish(&self, key: &str, body: &Bytes) -> io::Result<()> {
        self.created(key, self.ask(create(&self.bucket, key, body)))
    }

    fn created(&self, key: &str, created: Result<bool, Denied>) -> io::Result<()> {
        match created {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{}/{key} is there", self.root))),
            Err(why) => Err(refused(why)),
        }
    }
}

impl<B: Bucket + Send + 'static> Disk for BucketDirectory<B> {
    fn display(&self, path: &Path) -> PathBuf {
        let key = key_of(path).unwrap_or_default();
        let root = &self.0.root;
        PathBuf::from(if key.is_empty() { root.clone() } else { format!("{root}/{key}") })
    }

    fn objects(&self) -> Option<&dyn Objects> {
        Some(self)
    }

    fn exists(&self) -> bool {
        true
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_excl(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let key = key_of(path)?;
        Ok(Box::new(Unsent::new(Arc::clone(&self.0), key)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let key = key_of(path)?;
        let (head, whole) = if path.to_str().and_then(commit_of).is_some() {
            // Who opens a commit knows that it is there, and where to read.
            (Bytes::new(), false)
        } else {
            let head = self.0.read(&key, 0..MAX_HEADER as u64)?.ok_or(io::ErrorKind::NotFound)?;
            let whole = head.len() < MAX_HEADER;
            (head, whole)
        };
        Ok(Box::new(Sent { shared: Arc::clone(&self.0), key, head, whole }))
    }

    fn open_slot(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(unsupported())
    }

    fn io(&self) -> Io {
        Io { in_place: false, ..Io::BUFFERED }
    }

    fn open_write(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        Err(unsupported())
    }

    fn rename_noreplace(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(unsupported())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.0.ask(self.0.bucket.delete(&key_of(path)?)).map_err(refused)
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let prefix = format!("{}/", key_of(path)?);
        let of_journal = path == Path::new(JOURNAL);
        let name = |key: &str| {
            if of_journal {
                return ObjectKey::parse(key).map(|key| slot_of(key).to_string());
            }
            key.strip_prefix(&prefix).filter(|name| !name.contains('/')).map(str::to_owned)
        };
        let keys = self.0.list(&prefix)?;
        Ok(keys.iter().filter_map(|key| Some(Entry { name: name(key)?, len: UNKNOWN_LEN })).collect())
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space::default())
    }

    fn device_inode(&self) -> io::Result<(u64, u64)> {
        let hash = |text: &str| xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        // Scheme and host (S3's and Google's is the bucket) stand for the device.
        let host = self.0.root.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        Ok((hash(&host), hash(&self.0.root)))
    }

    fn lock(&self, _: &Path) -> io::Result<Lock> {
        Ok(Lock::Held(Box::new(NoLock)))
    }
}
