//! Directories made by hand, for tests.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;
use walstorage_crds::url::WalUrl;

use crate::format::fixture::{DIRECTORY, Stream, WRITER};
use crate::format::identity::Identity;

/// A folder that looks like a directory of a writer.
pub(super) struct Made {
    folder: TempDir,
}

impl Made {
    pub(super) fn new(streams: &[&Stream]) -> Self {
        Self::of(DIRECTORY, streams)
    }

    pub(super) fn of(directory: Uuid, streams: &[&Stream]) -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(made.path().join("_wal/journal")).unwrap();
        let identity = Identity::new(directory, WRITER, "tests".into());
        std::fs::write(made.path().join("_wal/identity.json"), identity.to_json()).unwrap();
        std::fs::write(made.path().join("_wal/lock"), "").unwrap();
        std::fs::create_dir(made.path().join("lost+found")).unwrap();
        std::fs::write(made.path().join("_wal/journal/notes.txt"), "left alone").unwrap();
        for stream in streams {
            for (file, bytes) in (1..).zip(&stream.files) {
                if let Some(bytes) = bytes {
                    std::fs::write(made.slot(stream, file), bytes).unwrap();
                }
            }
        }
        made
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn url(&self) -> WalUrl {
        WalUrl::from_file_path(self.path()).unwrap()
    }

    pub(super) fn slot(&self, stream: &Stream, file: u64) -> PathBuf {
        self.path().join("_wal/journal").join(stream.name(file).to_string())
    }
}
