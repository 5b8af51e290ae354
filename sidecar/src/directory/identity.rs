//! `_wal/identity.json`: which directory this is and whose. Written once, never changed.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::disk::Disk;

/// The folder of everything that is not a collection.
pub const WAL_DIR: &str = "_wal";
/// The identity's file.
pub const IDENTITY: &str = "_wal/identity.json";
/// The lock's file.
pub const LOCK: &str = "_wal/lock";
/// The folder of slots.
pub const JOURNAL: &str = "_wal/journal";

/// Who a directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of the on-disk format.
    pub format: u32,
    /// The directory's uuid.
    pub directory: Uuid,
    /// The writer's uid.
    pub writer: Uuid,
    /// The writer's id; empty without one.
    pub writer_id: String,
}

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
        source: serde_json::Error,
    },
    /// A newer program wrote it.
    #[error("{path} has format {format}; this program reads format 1: use the newer program")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        format: u32,
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
    let identity: Identity =
        serde_json::from_slice(&bytes[..n]).map_err(|source| IdentityError::Damaged { path: path.clone(), source })?;
    if identity.format != 1 {
        return Err(IdentityError::Format { path, format: identity.format });
    }
    Ok(Some(identity))
}

/// Publishes the identity of a new directory: durable on return, never over an existing one.
///
/// # Errors
/// `AlreadyExists` when somebody was first; any error of the device.
pub fn publish(disk: &dyn Disk, identity: &Identity) -> io::Result<()> {
    let temporary = PathBuf::from(format!("_wal/identity.{}.tmp", Uuid::new_v4()));
    let bytes = serde_json::to_vec(identity)?;
    let file = disk.create_excl(&temporary)?;
    let written = (|| {
        if file.write_at(0, &bytes)? != bytes.len() {
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
