//! The seam between the engine and a file system: everything that touches a `file://` directory goes through [`Disk`],
//! so that a simulator can stand in its place and fail it in every way.
//!
//! Paths are relative to the directory's root (`<url>[/<writer_id>]`). Calls block; they are made on the engine's own
//! threads, never on the async runtime. Contracts after a failure:
//!
//! 1. A failed, short or abandoned `write_at` may have changed any byte of its range. It is not repeated on that file.
//! 2. After a failed `sync_data` nothing written to that file since the last success is known to be durable, and a later
//!    success proves nothing (the kernel drops the dirty pages). The caller gives the file up.
//! 3. `create_excl`, `rename_noreplace` and `unlink` are durable only after `sync_dir` of the folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::io::Io;
use crate::fencing::directory::Objects;

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The last part of the path; names that are not UTF-8 are not ours and left out.
    pub name: String,
    /// Size of a file in bytes.
    pub len: u64,
}

/// Space of the file system below a directory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub capacity: u64,
    /// Free for this process.
    pub free: u64,
}

/// How an attempt to lock a directory ended.
#[derive(Debug)]
pub enum Lock {
    /// Held until the guard is dropped.
    Held(Box<dyn LockGuard>),
    /// Another process has it; its pid where it is known.
    Busy(Option<u32>),
}

/// Keeps a lock until it is dropped.
pub trait LockGuard: Send + Sync + std::fmt::Debug {}

/// An open file.
pub trait DiskFile: Send {
    /// Writes `bytes` at `offset`; answers how many were written, which may be fewer.
    ///
    /// # Errors
    /// Any error of the device; ENOSPC and EDQUOT mean that the file system is full.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Makes everything written so far durable, the size included.
    ///
    /// # Errors
    /// Any error of the device; see contract 2.
    fn sync_data(&self) -> io::Result<()>;

    /// Writes `bytes` at `offset` and makes them durable, the size of the file included; answers how many were written,
    /// which may be fewer: then nothing is known to be durable. In a file of [`Disk::create_slot`] offset and length are
    /// whole pages, and it is fastest with bytes that start on a page in memory.
    ///
    /// # Errors
    /// Any error of the device; contracts 1 and 2 hold for it together.
    fn write_sync_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_at(offset, bytes)?;
        if written == bytes.len() {
            self.sync_data()?;
        }
        Ok(written)
    }

    /// Reads at `offset` until `bytes` is full or the file ends; answers how many were read.
    ///
    /// # Errors
    /// Any error of the device.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Makes the file exactly `len` bytes long; durable after `sync_data`.
    ///
    /// # Errors
    /// Any error of the device; the file is given up like after a failed write.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Forgets cached pages, so that the next read comes from the device. Call it after a successful `sync_data`.
    ///
    /// # Errors
    /// When the advice is refused; the caller may go on.
    fn drop_cache(&self) -> io::Result<()>;

    /// Size in bytes.
    ///
    /// # Errors
    /// Any error of the device.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// Any error of the device.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|n| n == 0)
    }
}

/// A file system below one directory.
pub trait Disk: Send + Sync {
    /// For messages: where a relative path is on this machine.
    fn display(&self, path: &Path) -> PathBuf;

    /// What a bucket has beside; `None`: this is a file system.
    fn objects(&self) -> Option<&dyn Objects> {
        None
    }

    /// Whether the root exists and is a folder.
    fn exists(&self) -> bool;

    /// Creates a folder and its missing parents, mode 0700.
    ///
    /// # Errors
    /// Any error of the file system.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a file that must not exist, for reading and writing.
    ///
    /// # Errors
    /// `AlreadyExists` when it does.
    fn create_excl(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading and syncing.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// [`Self::create_excl`] for a journal file: written as [`Self::io`] says.
    ///
    /// # Errors
    /// `AlreadyExists` when it does.
    fn create_slot(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.create_excl(path)
    }

    /// Opens an existing journal file for writing, as [`Self::io`] says.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn open_slot(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing journal file for syncing and for being read once, from its start to its end: around the page cache
    /// where [`Self::io`] says so, which is fastest with whole pages that start on a page in memory.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn open_scan(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    /// How journal files are written here, as far as that is known: the first refusal of the file system changes it.
    fn io(&self) -> Io {
        Io::BUFFERED
    }
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames; the target must not exist.
    ///
    /// # Errors
    /// `AlreadyExists` when it does.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder. Not durable until its parent is synced; nothing depends on it.
    ///
    /// # Errors
    /// When it does not exist or is not empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes creations, renames and removals in a folder durable.
    ///
    /// # Errors
    /// Any error of the device.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The files (not the folders) in a folder, in no order.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Space of the file system.
    ///
    /// # Errors
    /// Any error of the file system.
    fn space(&self) -> io::Result<Space>;

    /// Device and inode of the root: one directory behind two URLs has one pair.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    fn device_inode(&self) -> io::Result<(u64, u64)>;

    /// Takes the exclusive lock at `path`, without waiting.
    ///
    /// # Errors
    /// Any error other than that another process has it.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
}

/// A shared file system.
pub type SharedDisk = Arc<dyn Disk>;

/// Whether an error says that there is no space left for us.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
