//! [`Disk`] over the operating system's files.
//!
//! Journal files are written through the page cache and made durable by `fdatasync`; before they are read again at a
//! start they are synced and their pages dropped, because the pages of a failed sync stay readable and would be served,
//! then vanish.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation, Mode, OFlags, RenameFlags};

use super::disk::{Disk, DiskFile, Entry, Lock, LockGuard, Space};

/// The files below one root folder.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// The files below `root`, which need not exist yet.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.0.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn drop_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed)?)
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
