//! Reading and publishing `_wal/identity.json` on a disk; what stands in it is [`crate::format::identity`]'s.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use crate::ambient;
pub use crate::format::identity::Identity;
use crate::format::identity::IdentityError as Refused;

/// The folder of everything that is not a collection.
pub const WAL_DIR: &str = "_wal";
/// The identity's file.
pub const IDENTITY: &str = "_wal/identity.json";
/// The lock's file.
pub const LOCK: &str = "_wal/lock";
/// The folder of slots.
pub const JOURNAL: &str = "_wal/journal";

/// Why an identity could not be read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The device failed.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the device said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is damaged: {source}; restore it from a copy, or forget the directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Refused,
    },
    /// A newer program wrote it.
    #[error("{path} has format {format}; this program reads format 1: use the newer program")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        format: u64,
    },
}

/// Reads the identity; `None` where there is none yet.
///
/// # Errors
/// See [`IdentityError`].
pub fn read(disk: &dyn Disk) -> Result<Option<Identity>, IdentityError> {
    let path = disk.display(Path::new(IDENTITY));
    let io = |source| IdentityError::Io { path: path.clone(), source };
    let file = match disk.open(Path::new(IDENTITY)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    // An identity is a line; a larger file is not one.
    let mut bytes = vec![0; 4096];
    let n = file.read_at(0, &mut bytes).map_err(io)?;
    match Identity::parse(&bytes[..n]) {
        Ok(identity) => Ok(Some(identity)),
        Err(Refused::Format(format)) => Err(IdentityError::Format { path, format }),
        Err(source @ Refused::Malformed(_)) => Err(IdentityError::Damaged { path, source }),
    }
}

/// Publishes the identity of a new directory: durable on return, never over an existing one.
///
/// # Errors
/// `AlreadyExists` when somebody was first; any error of the device.
pub fn publish(disk: &dyn Disk, identity: &Identity) -> io::Result<()> {
    let temporary = PathBuf::from(format!("_wal/identity.{}.tmp", ambient::uuid()));
    let bytes = identity.to_json();
    if let Some(objects) = disk.objects() {
        return objects.publish(Path::new(IDENTITY), bytes.into_bytes().into());
    }
    let bytes = bytes.as_bytes();
    let file = disk.create_excl(&temporary)?;
    let written = (|| {
        if file.write_at(0, bytes)? != bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        file.sync_data()?;
        disk.rename_noreplace(&temporary, Path::new(IDENTITY))
    })();
    if written.is_err() {
        let _ = disk.unlink(&temporary);
    }
    written?;
    disk.sync_dir(Path::new(WAL_DIR))
}
