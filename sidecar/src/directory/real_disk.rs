//! [`Disk`] over the operating system's files.
//!
//! Journal files are written around the page cache where the file system allows it ([`super::io`]), else through it and
//! made durable by `fdatasync`; before they are read again at a start they are synced and their pages dropped, because
//! the pages of a failed sync stay readable and would be served, then vanish.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, ReadWriteFlags};
use walstorage_crds::config::IoMode;

use super::aligned::{Aligned, is_aligned};
use super::disk::{Disk, DiskFile, Entry, Lock, LockGuard, Space};
use super::io::Io;
use crate::format::limits::PAGE;

/// The files below one root folder.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    mode: IoMode,
    /// Looked up when it is first needed: the folder may not exist before.
    io: OnceLock<Io>,
    refused: Arc<Refused>,
}

/// What the file system turned out to refuse.
#[derive(Debug, Default)]
struct Refused {
    direct: AtomicBool,
    dsync: AtomicBool,
}

impl Refused {
    fn apply(&self, io: Io) -> Io {
        let direct = io.direct && !self.direct.load(Ordering::Relaxed);
        let dsync = direct && io.dsync && !self.dsync.load(Ordering::Relaxed);
        Io { direct, dsync, ..io }
    }
}

impl RealDisk {
    /// The files below `root`, which need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf, mode: IoMode) -> Self {
        Self { root, mode, io: OnceLock::new(), refused: Arc::default() }
    }

    /// Opens a journal file as [`Disk::io`] says. With O_CREAT a file may have been made before O_DIRECT was refused: it is
    /// opened again as `made` says.
    fn slot(&self, path: &Path, options: &mut OpenOptions, made: &OpenOptions) -> io::Result<Box<dyn DiskFile>> {
        let path = self.root.join(path);
        let io = self.io();
        if io.direct {
            match options.custom_flags(OFlags::DIRECT.bits() as i32).open(&path) {
                Ok(file) => {
                    let refused = Arc::clone(&self.refused);
                    let wanted = io;
                    return Ok(Box::new(SlotFile { file, wanted, refused, buffered: AtomicBool::new(false) }));
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    tracing::info!(path = %path.display(), "the file system has no O_DIRECT: the page cache is used");
                    self.refused.direct.store(true, Ordering::Relaxed);
                    return Ok(Box::new(RealFile(made.open(&path)?)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Box::new(RealFile(options.open(&path)?)))
    }
}

/// For reading and writing.
fn for_both() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// A journal file written and read around the page cache, as long as the file system lets it.
struct SlotFile {
    file: File,
    wanted: Io,
    refused: Arc<Refused>,
    /// O_DIRECT was taken back for this file.
    buffered: AtomicBool,
}

impl SlotFile {
    fn is_direct(&self) -> bool {
        !self.buffered.load(Ordering::Relaxed)
    }

    /// One write, aligned where it must be. Where the file system refuses the way, and with it the whole write, the next
    /// one is tried.
    fn write(&self, offset: u64, bytes: &[u8], durable: bool) -> io::Result<usize> {
        if !self.is_direct() {
            return self.write_and_sync(offset, bytes, durable);
        }
        if !is_aligned(bytes) {
            return self.write(offset, Aligned::copy_of(bytes).as_ref(), durable);
        }
        let dsync = durable && self.refused.apply(self.wanted).dsync;
        let flags = if dsync { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        match rustix::io::pwritev2(&self.file, &[IoSlice::new(bytes)], offset, flags) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if dsync => {
                tracing::info!("the file system has no RWF_DSYNC: fdatasync follows each write");
                self.refused.dsync.store(true, Ordering::Relaxed);
                self.write(offset, bytes, durable)
            }
            Err(Errno::INVAL) if offset.is_multiple_of(PAGE as u64) && bytes.len().is_multiple_of(PAGE) => {
                self.take_direct_back()?;
                self.write_and_sync(offset, bytes, durable)
            }
            Err(error) => Err(error.into()),
            Ok(written) => {
                if durable && !dsync && written == bytes.len() {
                    self.file.sync_data()?;
                }
                Ok(written)
            }
        }
    }

    fn take_direct_back(&self) -> io::Result<()> {
        tracing::info!("the file system refuses O_DIRECT in units of {PAGE} bytes: the page cache is used");
        let flags = rustix::fs::fcntl_getfl(&self.file)?;
        rustix::fs::fcntl_setfl(&self.file, flags - OFlags::DIRECT)?;
        self.refused.direct.store(true, Ordering::Relaxed);
        self.buffered.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Reads into memory that is aligned where it must be. What the file system refuses of the way is not the device's
    /// word on what it holds.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        match read_full(&self.file, offset, bytes) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && self.is_direct() => {
                self.take_direct_back()?;
                read_full(&self.file, offset, bytes)
            }
            read => read,
        }
    }

    fn write_and_sync(&self, offset: u64, bytes: &[u8], durable: bool) -> io::Result<usize> {
        let written = self.file.write_at(bytes, offset)?;
        if durable && written == bytes.len() {
            self.file.sync_data()?;
        }
        Ok(written)
    }
}

impl DiskFile for SlotFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.write(offset, bytes, false)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write_sync_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.write(offset, bytes, true)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        if !self.is_direct() || is_aligned(bytes) {
            return self.read(offset, bytes);
        }
        let mut aligned = Aligned::zeros(bytes.len().next_multiple_of(PAGE));
        let read = self.read(offset, aligned.as_mut())?.min(bytes.len());
        bytes[..read].copy_from_slice(&aligned.as_ref()[..read]);
        Ok(read)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn drop_cache(&self) -> io::Result<()> {
        // O_DIRECT may be taken back at the first read.
        drop_cache(&self.file)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// A file behind the page cache.
struct RealFile(File);

fn drop_cache(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
}

/// Reads until `bytes` is full or the file ends.
fn read_full(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        read_full(&self.0, offset, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn drop_cache(&self) -> io::Result<()> {
        drop_cache(&self.0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

#[derive(Debug)]
struct FlockGuard(#[allow(dead_code, reason = "held for its lock")] File);
impl LockGuard for FlockGuard {}

impl Disk for RealDisk {
    fn display(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }

    fn exists(&self) -> bool {
        self.root.is_dir()
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = self.root.join(path);
        // Every folder made here must survive a power cut: its own entry lies in its parent.
        let mut missing: Vec<&Path> = Vec::new();
        let mut at = path.as_path();
        while !at.exists() {
            missing.push(at);
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        for made in missing {
            if let Some(parent) = made.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(())
    }

    fn create_excl(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.root.join(path))?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(File::open(self.root.join(path))?)))
    }

    fn create_slot(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.slot(path, for_both().create_new(true), for_both().create(true))
    }

    fn open_slot(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.slot(path, &mut for_both(), &for_both())
    }

    fn open_scan(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.slot(path, OpenOptions::new().read(true), OpenOptions::new().read(true))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(self.root.join(path))?)))
    }

    fn io(&self) -> Io {
        let looked = || rustix::fs::statfs(&self.root).map(|stat| Io::choose(self.mode, stat.f_type as u64));
        let io = match self.io.get() {
            Some(io) => *io,
            // A folder that is not there yet is looked at again.
            None => looked().map_or(Io::BUFFERED, |io| *self.io.get_or_init(|| io)),
        };
        self.refused.apply(io)
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.root.join(from), self.root.join(to));
        let here = rustix::fs::CWD;
        match rustix::fs::renameat_with(here, &from, here, &to, RenameFlags::NOREPLACE) {
            // Not every file system has it; a hard link refuses an existing target as well.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                std::fs::hard_link(&from, &to)?;
                std::fs::remove_file(&from)
            }
            other => Ok(other?),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(self.root.join(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(self.root.join(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(self.root.join(path))?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.root.join(path))? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(meta) if meta.is_file() => entries.push(Entry { name, len: meta.len() }),
                Ok(_) => {}
                // Unlinked between the listing and the look.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(entries)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&self.root)?;
        let unit = stat.f_frsize;
        Ok(Space { capacity: stat.f_blocks.saturating_mul(unit), free: stat.f_bavail.saturating_mul(unit) })
    }

    fn device_inode(&self) -> io::Result<(u64, u64)> {
        let meta = std::fs::metadata(&self.root)?;
        Ok((meta.dev(), meta.ino()))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let full = self.root.join(path);
        let file = File::from(rustix::fs::open(
            &full,
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let pid = std::process::id().to_string();
                // Only a help for people; on a full disk the lock holds without it.
                let _ = file.set_len(0).and_then(|()| file.write_at(pid.as_bytes(), 0));
                Ok(Lock::Held(Box::new(FlockGuard(file))))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = std::fs::read_to_string(&full).ok().and_then(|text| text.trim().parse().ok());
                Ok(Lock::Busy(pid))
            }
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests;
