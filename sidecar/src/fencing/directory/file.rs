//! Objects as files: one that is gathered and sent as a whole, and one that is read by ranges.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use crate::directory::bucket::Bucket;
use crate::directory::disk::DiskFile;

/// An object that is sent by [`DiskFile::sync_data`], once.
pub(super) struct Unsent<B> {
    shared: Arc<Shared<B>>,
    key: String,
    stage: Mutex<Stage>,
}

/// How far an object is.
enum Stage {
    Gathered(Vec<u8>),
    /// It is there.
    Sent,
    /// Whether it is there is not known, or another one is.
    Failed,
}

impl<B> Unsent<B> {
    /// Nothing yet.
    pub(super) fn new(shared: Arc<Shared<B>>, key: String) -> Self {
        Self { shared, key, stage: Mutex::new(Stage::Gathered(Vec::new())) }
    }

    /// What is gathered, as long as it is.
    fn gathered<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        match &mut *self.stage.lock() {
            Stage::Gathered(bytes) => Ok(change(bytes)),
            Stage::Sent | Stage::Failed => Err(immutable()),
        }
    }
}

/// An object that is there.
pub(super) struct Sent<B> {
    pub(super) shared: Arc<Shared<B>>,
    pub(super) key: String,
    /// What was read of its start when it was opened.
    pub(super) head: Bytes,
    /// There is no more of it than that.
    pub(super) whole: bool,
}

fn immutable() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "an object cannot be changed")
}

fn read<B: Bucket + Send + 'static>(shared: &Shared<B>, key: &str, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let found = shared.read(key, offset..offset.saturating_add(out.len() as u64))?;
    let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no such object"))?;
    let length = found.len().min(out.len());
    out[..length].copy_from_slice(&found[..length]);
    Ok(length)
}

impl<B: Bucket + Send + 'static> DiskFile for Unsent<B> {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).map_err(|_| immutable())?;
        let end = from.saturating_add(bytes.len());
        self.gathered(|unsent| {
            unsent.resize(unsent.len().max(end), 0);
            unsent[from..end].copy_from_slice(bytes);
            bytes.len()
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Failed) {
            Stage::Gathered(bytes) => self.shared.publish(&self.key, &bytes.into())?,
            Stage::Sent => {}
            Stage::Failed => return Err(io::Error::other("an earlier attempt to create it failed")),
        }
        *stage = Stage::Sent;
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        read(&self.shared, &self.key, offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| immutable())?;
        self.gathered(|unsent| unsent.resize(len, 0))
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.gathered(|unsent| unsent.len() as u64)
    }
}

impl<B: Bucket + Send + 'static> DiskFile for Sent<B> {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<usize> {
        Err(immutable())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.head.len());
        let known = &self.head[from..];
        if self.whole || known.len() >= bytes.len() {
            let length = known.len().min(bytes.len());
            bytes[..length].copy_from_slice(&known[..length]);
            return Ok(length);
        }
        read(&self.shared, &self.key, offset, bytes)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(immutable())
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        if self.whole {
            return Ok(self.head.len() as u64);
        }
        let found = self.shared.read(&self.key, 0..u64::MAX)?;
        found.map(|bytes| bytes.len() as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
