//! Storage URLs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A storage URL in canonical form. Cheap to clone; equal when the canonical forms are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalUrl(Arc<str>);

/// The kind of storage behind a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `file://`
    File,
    /// `s3://`
    S3,
    /// `gcs://`, `gs://`
    Gcs,
    /// `adls://`, `abfss://`
    Adls,
}

impl WalUrl {
    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The kind of storage.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        Scheme::File
    }

    /// The decoded path of a `file://` URL, `None` for buckets.
    #[must_use]
    pub fn file_path(&self) -> Option<PathBuf> {
        self.0.strip_prefix("file://").map(PathBuf::from)
    }

    /// The `file://` URL of an absolute path.
    #[must_use]
    pub fn from_file_path(path: &std::path::Path) -> Option<Self> {
        Some(Self(format!("file://{}", path.to_str()?).into()))
    }
}

impl fmt::Display for WalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
