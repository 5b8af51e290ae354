//! How journal files are written on a file system: around the page cache or through it, and whether overwriting blocks
//! in place is worth anything there. A function of the file system's magic number and the `io` setting.

use walstorage_crds::config::IoMode;

/// How a file system's journal files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// O_DIRECT; else through the page cache.
    pub direct: bool,
    /// A write is made durable by its own flag (RWF_DSYNC); else `fdatasync` follows it.
    pub dsync: bool,
    /// Written blocks are overwritten where they are: slots are filled ahead and recycled. Not so where every write goes
    /// to new blocks (copy on write) or over a network.
    pub in_place: bool,
}

impl Io {
    /// Through the page cache, with `fdatasync`.
    pub const BUFFERED: Self = Self { direct: false, dsync: false, in_place: true };

    /// What `mode` makes of a file system with this magic number (`statfs`).
    #[must_use]
    pub fn choose(mode: IoMode, magic: u64) -> Self {
        let (in_place, direct) = match magic {
            // ext2, ext3, ext4; xfs.
            0xef53 | 0x5846_5342 => (true, true),
            // overlayfs: what lies below decides, and refuses O_DIRECT where it must.
            0x794c_7630 => (true, true),
            // Everything else may be copy on write, a network, memory or a program.
            _ => (false, false),
        };
        let direct = match mode {
            IoMode::Auto => direct,
            IoMode::Direct => true,
            IoMode::Buffered => false,
        };
        Self { direct, dsync: direct && matches!(magic, 0xef53 | 0x5846_5342), in_place }
    }
}

impl std::fmt::Display for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (write, sync) =
            (if self.direct { "O_DIRECT" } else { "page cache" }, if self.dsync { "RWF_DSYNC" } else { "fdatasync" });
        let slots = if self.in_place { "overwriting" } else { "appending" };
        write!(f, "{write}, {sync}, {slots}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_writes_and_recycled_slots_are_for_file_systems_that_overwrite_in_place() {
        const BTRFS: u64 = 0x9123_683e;
        const NFS: u64 = 0x6969;
        const FUSE: u64 = 0x6573_5546;
        const TMPFS: u64 = 0x0102_1994;
        let shown = |mode, magic| Io::choose(mode, magic).to_string();
        for local in [0xef53, 0x5846_5342] {
            assert_eq!(shown(IoMode::Auto, local), "O_DIRECT, RWF_DSYNC, overwriting");
            assert_eq!(shown(IoMode::Direct, local), "O_DIRECT, RWF_DSYNC, overwriting");
            assert_eq!(shown(IoMode::Buffered, local), "page cache, fdatasync, overwriting");
        }
        for other in [BTRFS, NFS, FUSE, TMPFS] {
            assert_eq!(shown(IoMode::Auto, other), "page cache, fdatasync, appending");
            assert_eq!(shown(IoMode::Direct, other), "O_DIRECT, fdatasync, appending");
        }
    }
}
