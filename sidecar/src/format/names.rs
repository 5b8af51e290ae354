//! Names of files and folders.

use sha2::{Digest, Sha256};

use super::StreamKey;
use crate::types::Epoch;

/// The folder of a directory's own files.
pub const WAL_DIR: &str = "_wal";
/// The directory's identity, in [`WAL_DIR`].
pub const IDENTITY: &str = "identity.json";
/// The lock, in [`WAL_DIR`].
pub const LOCK: &str = "lock";
/// The folder of journals, in [`WAL_DIR`].
pub const JOURNAL_DIR: &str = "journal";
/// The folder of shared segments, in [`WAL_DIR`].
pub const SHARED_DIR: &str = "shared";
/// The segment being written, in its collection's folder.
pub const CURRENT_SEGMENT: &str = "wal_current.avro";

const LONGEST: usize = 180;
const KEPT: usize = 120;

/// The name of a collection's folder. Different collections have different ones.
///
/// `[a-z0-9._-]` stand for themselves, every other byte is `%XX`; so are the `.` at the start of a name and the `_` of the
/// name `_wal`. A result of more than 180 bytes becomes its first 120 bytes, `~`, and 32 hex digits of the name's SHA-256.
#[must_use]
pub fn collection_dir(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let literal = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let reserved = index == 0 && (byte == b'.' || name == WAL_DIR);
        if literal && !reserved {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    if path.len() > LONGEST {
        path.truncate(KEPT);
        path.push('~');
        for byte in &Sha256::digest(name.as_bytes())[..16] {
            path.push_str(&format!("{byte:02x}"));
        }
    }
    path
}

/// Whether a folder's name can be one that [`collection_dir`] gives.
#[must_use]
pub fn is_collection_dir(name: &str) -> bool {
    let of_ours = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'%' | b'~' | b'A'..=b'F');
    name != WAL_DIR && !name.is_empty() && !name.starts_with('.') && name.bytes().all(of_ours)
}

/// The name of a slot. Ordered by stream, then file; as numbers, not as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName {
    /// Epoch and session of the stream.
    pub key: StreamKey,
    /// Number of the file in the stream, from 1.
    pub file: u64,
}

impl SlotName {
    /// Reads a file's name; `None` when it is not one that [`std::fmt::Display`] prints.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (epoch, rest) = name.strip_suffix(".avro")?.split_once('.')?;
        let (session, file) = rest.split_once('-')?;
        let key = StreamKey { epoch: Epoch(epoch.parse().ok()?), session: session.parse().ok()? };
        let slot = Self { key, file: file.parse().ok()? };
        (slot.to_string() == name).then_some(slot)
    }
}

impl std::fmt::Display for SlotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:013}.{:03}-{:012}.avro", self.key.epoch.0, self.key.session, self.file)
    }
}

/// The name of a stream's folder in a bucket.
#[must_use]
pub fn stream_dir(key: StreamKey) -> String {
    format!("{:013}.{:03}", key.epoch.0, key.session)
}

/// The name of a commit object in its stream's folder, or of a shared segment.
#[must_use]
pub fn numbered(number: u64) -> String {
    format!("{number:012}.avro")
}

/// The name of a sealed segment.
#[must_use]
pub fn sealed_segment(first: crate::types::Lsn, last: crate::types::Lsn) -> String {
    format!("wal_{:020}-{:020}.avro", first.0, last.0)
}

/// The name of a collection's own segment in a bucket. With its uuid: the name of one that was deleted is never used again,
/// as the deletion may arrive late.
#[must_use]
pub fn object_segment(first: crate::types::Lsn, last: crate::types::Lsn, id: uuid::Uuid) -> String {
    format!("wal_{:020}-{:020}-{}.avro", first.0, last.0, id.simple())
}

/// Whether a file in a collection's folder is a segment by its name.
#[must_use]
pub fn is_segment(name: &str) -> bool {
    name == CURRENT_SEGMENT || (name.starts_with("wal_") && name.ends_with(".avro"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn folders_of_collections() {
        for (name, path) in [
            ("orders", "orders"),
            ("a.b-c_9", "a.b-c_9"),
            ("Orders", "%4Frders"),
            ("a/b", "a%2Fb"),
            (".", "%2E"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("_wal", "%5Fwal"),
            ("_wal2", "_wal2"),
            ("_", "_"),
            ("lost+found", "lost%2Bfound"),
            ("a b", "a%20b"),
            ("a~b", "a%7Eb"),
            ("%2E", "%252%45"),
            ("\0", "%00"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(collection_dir(name), path);
        }
    }

    #[test]
    fn long_names_end_in_a_hash() {
        let name = "x".repeat(180);
        assert_eq!(collection_dir(&name), name);
        let path = collection_dir(&"x".repeat(181));
        assert_eq!(path.len(), 120 + 1 + 32);
        assert_eq!(path, format!("{}~{}", "x".repeat(120), "dc31ed5afb940294fdd687c69bbba2ae"));
    }

    #[test]
    fn names_of_slots_are_compared_as_numbers() {
        let slot = SlotName { key: StreamKey { epoch: Epoch(7), session: 2 }, file: 31 };
        assert_eq!(slot.to_string(), "0000000000007.002-000000000031.avro");
        assert_eq!(SlotName::parse("0000000000007.002-000000000031.avro"), Some(slot));
        let wide = SlotName { key: StreamKey { epoch: Epoch(10_000_000_000_000), session: 1000 }, file: 1 };
        assert_eq!(SlotName::parse(&wide.to_string()), Some(wide));
        assert!(wide > slot);
        for other in [
            "",
            ".avro",
            "7.2-31.avro",
            "0000000000007.002-000000000031",
            "0000000000007.002-000000000031.avro.tmp",
            "+000000000007.002-000000000031.avro",
            "00000000000007.002-000000000031.avro",
            "0000000000007.4294967296-000000000031.avro",
            "lost+found",
        ] {
            assert_eq!(SlotName::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn folders_and_files_of_others_are_not_ours() {
        for other in ["", "_wal", ".hidden", "lost+found", "Orders", "a b"] {
            assert!(!is_collection_dir(other), "{other:?}");
        }
        assert!(is_segment(CURRENT_SEGMENT) && is_segment(&sealed_segment(crate::types::Lsn(1), crate::types::Lsn(2))));
        assert!(!is_segment("wal_current.avro.tmp") && !is_segment("orders.avro"));
    }

    #[test]
    fn other_names() {
        assert_eq!(stream_dir(StreamKey { epoch: Epoch(7), session: 2 }), "0000000000007.002");
        assert_eq!(numbered(5), "000000000005.avro");
        assert_eq!(
            sealed_segment(crate::types::Lsn(1), crate::types::Lsn(20)),
            "wal_00000000000000000001-00000000000000000020.avro"
        );
    }

    proptest! {
        #[test]
        fn folders_are_short_safe_and_different(a in "\\PC{1,80}", b in "\\PC{1,80}") {
            let (path, other) = (collection_dir(&a), collection_dir(&b));
            prop_assert!(path.len() <= 180 && is_collection_dir(&path));
            prop_assert_eq!(a == b, path == other);
        }
    }
}
