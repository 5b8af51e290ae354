//! A small file system in a file, on a loop device.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Namespace;

/// A kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Without blocks that are kept for root.
    Ext4,
    /// However small: xfs itself advises against less than 300 MiB.
    Xfs,
}

impl FileSystem {
    const fn tool(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }

    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["-q", "-F", "-m", "0"],
            Self::Xfs => &["-q", "-f", "--unsupported"],
        }
    }
}

/// Mounted in a namespace until it is dropped or the namespace ends; the loop device goes with the mount.
pub struct LoopDisk {
    namespace: Namespace,
    point: PathBuf,
    /// In the namespace.
    image: PathBuf,
}

impl LoopDisk {
    /// Makes an ext4 file system of `size` bytes in the file `image` and mounts it at `point`, which is created where it
    /// is missing.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn mount(namespace: &Namespace, image: &Path, point: &Path, size: u64) -> Result<Self, String> {
        Self::mount_kind(FileSystem::Ext4, namespace, image, point, size)
    }

    /// [`Self::mount`] with a file system of another kind.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn mount_kind(
        kind: FileSystem,
        namespace: &Namespace,
        image: &Path,
        point: &Path,
        size: u64,
    ) -> Result<Self, String> {
        let io = |error: std::io::Error| error.to_string();
        std::fs::create_dir_all(point).map_err(io)?;
        std::fs::File::create(namespace.path(image)).and_then(|file| file.set_len(size)).map_err(io)?;
        let made = Command::new(kind.tool()).args(kind.arguments()).arg(namespace.path(image)).output();
        let made = made.map_err(|error| format!("{}: {error}", kind.tool()))?;
        if !made.status.success() {
            return Err(format!("{}: {}", kind.tool(), String::from_utf8_lossy(&made.stderr).trim()));
        }
        let image_outside = namespace.path(image);
        let folder = image_outside.parent().unwrap_or(Path::new("/"));
        // It may lie on a disk whose power is cut.
        [&*image_outside, folder].into_iter().try_for_each(|path| std::fs::File::open(path)?.sync_all()).map_err(io)?;
        let disk = Self { namespace: namespace.clone(), point: point.to_owned(), image: image.to_owned() };
        disk.attach()?;
        Ok(disk)
    }

    /// Mounts it again after [`Self::detach`].
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn attach(&self) -> Result<(), String> {
        let mounted =
            self.namespace.command(Path::new("mount")).args(["-o", "loop"]).args([&self.image, &self.point]).output();
        let mounted = mounted.map_err(|error| format!("mount: {error}"))?;
        if mounted.status.success() {
            return Ok(());
        }
        Err(format!("mount: {}", String::from_utf8_lossy(&mounted.stderr).trim()))
    }

    /// Takes the mount away; files that are open keep working until they are closed.
    pub fn detach(&self) {
        let umount = |arguments: &[&str]| {
            let done = self.namespace.command(Path::new("umount")).args(arguments).arg(&self.point).output();
            done.is_ok_and(|output| output.status.success())
        };
        if !umount(&[]) {
            umount(&["-l"]);
        }
    }

    /// Where the disk can be reached from outside of the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.namespace.path(&self.point)
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_disk_is_small_and_keeps_what_is_on_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let disk = Namespace::of_root().and_then(|namespace| {
            LoopDisk::mount(&namespace, &folder.path().join("image"), &folder.path().join("point"), 8 << 20)
        });
        let disk = match disk {
            Ok(disk) => disk,
            Err(why) => return crate::harness::skip::skipped("a_loop_disk_is_small_and_keeps_what_is_on_it", &why),
        };
        std::fs::write(disk.path().join("small"), "x").expect("written");
        let full = std::fs::write(disk.path().join("large"), vec![1; 16 << 20]).expect_err("it is full");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        disk.detach();
        assert!(!disk.path().join("small").exists());
        disk.attach().expect("mounted again");
        assert_eq!(std::fs::read(disk.path().join("small")).expect("read"), b"x");
    }
}
