//! Where a path is mounted, and whether what is mounted there keeps its data when the machine or the pod goes.

use std::path::{Path, PathBuf};

/// A mount as `/proc/self/mountinfo` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where.
    pub point: PathBuf,
    /// The file system's type, such as `ext4`.
    pub kind: String,
    /// `major:minor`.
    pub device: String,
}

/// Parses `/proc/self/mountinfo`; lines that do not fit are passed over.
#[must_use]
pub fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut fields = before.split(' ');
            let device = fields.nth(2)?.to_owned();
            let point = PathBuf::from(unescape(fields.nth(1)?));
            Some(Mount { point, kind: after.split(' ').next()?.to_owned(), device })
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\').then(|| text.get(i + 1..i + 4)).flatten();
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            out.push(byte);
            i += 4;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The mount that holds `path`: the one with the longest mount point; of equals the last, which hides the others.
#[must_use]
pub fn mount_of<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts.iter().filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// What a mount means for durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// A file system on a device.
    Durable,
    /// Gone with the container or the machine's power.
    Ephemeral,
    /// Over a network or in user space: sync and locks are not what they are elsewhere.
    Foreign,
}

impl Mount {
    /// Judges the file system's type.
    #[must_use]
    pub fn keeps(&self) -> Keeps {
        match self.kind.as_str() {
            "overlay" | "overlayfs" | "tmpfs" | "ramfs" => Keeps::Ephemeral,
            "nfs" | "nfs4" | "cifs" | "smb" | "smb2" | "smb3" | "smbfs" => Keeps::Foreign,
            kind if kind == "fuse" || kind.starts_with("fuse.") || kind == "fuseblk" => Keeps::Foreign,
            _ => Keeps::Durable,
        }
    }
}

/// Why a path may not be used, or what to warn about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Use it.
    Accepted,
    /// Use it and say this.
    Warn(String),
    /// The directory is `not_mounted`, for this reason.
    Refused(String),
}

/// Judges `path` (absolute, symbolic links resolved as far as it exists).
#[must_use]
pub fn judge(mounts: &[Mount], path: &Path, require_mounts: bool, allow_ephemeral: bool) -> Verdict {
    let Some(mount) = mount_of(mounts, path) else { return Verdict::Accepted };
    let (shown, kind) = (path.display(), &mount.kind);
    match (mount.keeps(), require_mounts) {
        (Keeps::Durable, true) if mount.point == Path::new("/") => {
            Verdict::Refused(format!("{shown} is not on a mount of its own"))
        }
        (Keeps::Ephemeral, _) if allow_ephemeral => Verdict::Accepted,
        (Keeps::Durable, _) => Verdict::Accepted,
        (_, true) => Verdict::Refused(format!("{shown} is on {kind}, which does not keep acknowledged entries")),
        (Keeps::Ephemeral, false) => Verdict::Warn(format!(
            "{shown} is on {kind}: its entries end with the container or the machine's power \
             (allow_ephemeral = true silences this)"
        )),
        (Keeps::Foreign, false) => Verdict::Warn(format!("{shown} is on {kind}: locks and syncs may not hold there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        40 27 0:50 / /wal/a\\040b rw shared:1 - xfs /dev/sdb rw\n\
        41 27 0:51 / /mem rw - tmpfs tmpfs rw\n\
        42 27 0:52 / /net rw - nfs4 server:/x rw\n\
        43 27 0:53 / /user rw - fuse.sshfs x rw\n";

    #[test]
    fn a_path_belongs_to_the_longest_mount_point() {
        let mounts = parse(INFO);
        assert_eq!(mounts.len(), 6);
        let of = |path: &str| mount_of(&mounts, Path::new(path)).map(|m| m.kind.clone());
        assert_eq!(of("/wal/a b/c").as_deref(), Some("xfs"));
        assert_eq!(of("/wal/a").as_deref(), Some("ext4"));
        assert_eq!(of("/memory").as_deref(), Some("ext4"));
        assert_eq!(of("/mem/x").as_deref(), Some("tmpfs"));
    }

    #[test]
    fn only_mounts_that_keep_data_are_accepted_where_mounts_are_required() {
        let mounts = parse(INFO);
        let judge = |path: &str, require, allow| judge(&mounts, Path::new(path), require, allow);
        assert_eq!(judge("/wal/a b", true, false), Verdict::Accepted);
        assert!(matches!(judge("/data", true, false), Verdict::Refused(_)));
        assert!(matches!(judge("/mem", true, false), Verdict::Refused(_)));
        assert_eq!(judge("/mem", true, true), Verdict::Accepted);
        assert!(matches!(judge("/net", true, true), Verdict::Refused(_)));
        assert!(matches!(judge("/user", true, true), Verdict::Refused(_)));
    }

    #[test]
    fn elsewhere_ephemeral_mounts_are_warned_about_unless_allowed() {
        let mounts = parse(INFO);
        let judge = |path: &str, allow| judge(&mounts, Path::new(path), false, allow);
        assert_eq!(judge("/data", false), Verdict::Accepted);
        assert!(matches!(judge("/mem", false), Verdict::Warn(_)));
        assert_eq!(judge("/mem", true), Verdict::Accepted);
        assert!(matches!(judge("/net", true), Verdict::Warn(_)));
    }
}
