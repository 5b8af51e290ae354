//! The unix socket's file: a stale one is replaced, a live one is an error, anything else at its path is left alone.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("{0} is served by another process: end that one first, or choose another path with --socket")]
    InUse(PathBuf),
    /// The path is taken by something else.
    #[error("{0} exists and is not a socket: remove it, or choose another path with --socket")]
    NotASocket(PathBuf),
    /// A unix socket's path has at most 107 bytes.
    #[error("{path} has {length} bytes: the path of a unix socket has at most 107")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Anything else.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// Most bytes of a unix socket's path on Linux.
const MAX_PATH: usize = 107;

/// Listens at `path`, mode 0666. Folders that are missing are created.
///
/// # Errors
/// See [`SocketError`].
pub async fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    let io = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(SocketError::TooLong { path: path.to_owned(), length });
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(io("create the folder of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io("look at")(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(io("replace the stale socket"))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // Refused for another reason, or accepted: somebody is there.
            Err(_) | Ok(_) => return Err(SocketError::InUse(path.to_owned())),
        },
    }
    let listener = UnixListener::bind(path).map_err(io("listen at"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(io("set the mode of"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/wal.sock");
        let first = listen(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let error = listen(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::InUse(_)));
        assert!(error.to_string().contains(path.to_str().unwrap()));
        drop(first);
        listen(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_at_the_path_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(listen(&path).await.unwrap_err(), SocketError::NotASocket(_)));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        assert!(matches!(listen(&path).await.unwrap_err(), SocketError::TooLong { length: 108, .. }));
    }
}
