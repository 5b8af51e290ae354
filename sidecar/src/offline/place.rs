//! Where the tools read: files of the operating system, and objects of buckets. Both are known by a path; that of an object
//! is its URL.
//!
//! 1. Of a bucket nothing is asked but lists and reads.
//! 2. A store that gives no answer ends the tool, as one does that refuses.

use std::fs::File;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::runtime::Handle;
use walstorage_crds::config::{Config, UrlOptions};
use walstorage_crds::url::WalUrl;

use crate::directory::bucket::Bucket as _;
use crate::directory::store::{BucketStore, Environment, Limits};
use crate::directory::trouble::Trouble;
use crate::fencing::directory::Reading;

/// So much is read when an object is opened: small ones, and the header of any, need no more.
const FIRST: u64 = 64 << 10;
/// So many are opened side by side.
const SIDE_BY_SIDE: usize = 8;
/// So much is read of it at a time after that.
const WINDOW: u64 = 8 << 20;

/// A bucket that is only read. Calls block.
pub(super) trait Stored: Send + Sync {
    /// The keys below a prefix that ends in `/`, and their sizes.
    fn list(&self, prefix: &str) -> std::io::Result<Vec<(String, u64)>>;

    /// A part of an object; `None` where there is none.
    fn read(&self, key: &str, range: Range<u64>) -> std::io::Result<Option<Bytes>>;

    /// Parts of objects, side by side.
    fn read_many(&self, parts: &[(&str, Range<u64>)]) -> std::io::Result<Vec<Option<Bytes>>>;
}

type Make = dyn Fn(&WalUrl) -> Result<Arc<dyn Stored>, Trouble> + Send + Sync;

/// The buckets that the tools may read.
pub struct Stores(Box<Make>);

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

impl Stores {
    /// Over the network, waited for on `runtime`: with the `url_options` that a configuration has for a URL, or for one above
    /// it, and the credentials that these or the environment name, as a sidecar has them.
    #[must_use]
    pub fn new(config: Option<Config>, runtime: Handle) -> Self {
        Self(Box::new(move |url| {
            let options = config.as_ref().and_then(|config| options_of(config, url)).unwrap_or_default();
            let store = BucketStore::new(url, None, &options, Environment::process(), Limits::default())?;
            Ok(Arc::new(Network { reading: Reading::new(runtime.clone()), store, root: url.to_string() }))
        }))
    }

    /// What `make` makes.
    #[cfg(test)]
    pub(super) fn of(make: impl Fn(&WalUrl) -> Result<Arc<dyn Stored>, Trouble> + Send + Sync + 'static) -> Self {
        Self(Box::new(make))
    }

    pub(super) fn open(&self, url: &WalUrl) -> Result<Arc<dyn Stored>, Trouble> {
        (self.0)(url)
    }
}

/// The options of the URL that is this one, or above it: none lies within another.
fn options_of(config: &Config, url: &WalUrl) -> Option<UrlOptions> {
    let above = |other: &WalUrl| {
        let rest = url.as_str().strip_prefix(other.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    config.wal.url_options.iter().find(|(other, _)| above(other)).map(|(_, options)| options.clone())
}

struct Network {
    reading: Reading,
    store: BucketStore,
    root: String,
}

impl Stored for Network {
    fn list(&self, prefix: &str) -> std::io::Result<Vec<(String, u64)>> {
        self.reading.ask(&self.root, &self.store, self.store.sizes(prefix))
    }

    fn read(&self, key: &str, range: Range<u64>) -> std::io::Result<Option<Bytes>> {
        self.reading.ask(&self.root, &self.store, self.store.read(key, range))
    }

    fn read_many(&self, parts: &[(&str, Range<u64>)]) -> std::io::Result<Vec<Option<Bytes>>> {
        let reads = parts.iter().map(|(key, range)| self.store.read(key, range.clone()));
        let reads = futures_util::stream::iter(reads).buffered(SIDE_BY_SIDE);
        self.reading.ask(&self.root, &self.store, reads.try_collect())
    }
}

/// A file, or an object.
#[derive(Clone)]
pub(super) struct FileAt {
    path: PathBuf,
    object: Option<Object>,
}

#[derive(Clone)]
struct Object {
    bucket: Arc<dyn Stored>,
    key: String,
    len: u64,
}

impl FileAt {
    /// A file.
    pub(super) const fn file(path: PathBuf) -> Self {
        Self { path, object: None }
    }

    /// An object below `root`, as it was listed.
    pub(super) fn object(bucket: &Arc<dyn Stored>, root: &Path, key: String, len: u64) -> Self {
        Self { path: root.join(&key), object: Some(Object { bucket: Arc::clone(bucket), key, len }) }
    }

    /// Whether it never changes, and never gets another name.
    pub(super) const fn is_object(&self) -> bool {
        self.object.is_some()
    }

    /// Opens it for reading.
    pub(super) fn open(&self) -> std::io::Result<Raw> {
        let Some(object) = &self.object else { return Ok(Raw::File(File::open(&self.path)?)) };
        let mut opened = Opened { object: object.clone(), at: 0, window: Bytes::new() };
        opened.fetch(0, FIRST)?;
        Ok(Raw::Object(opened))
    }

    /// Opens several; objects of one bucket side by side.
    ///
    /// # Errors
    /// What ends the tool; what is wrong with one of them alone stands in its place.
    pub(super) fn open_all(files: &[&Self]) -> std::io::Result<Vec<std::io::Result<Raw>>> {
        let objects: Vec<&Object> = files.iter().filter_map(|file| file.object.as_ref()).collect();
        let Some(first) = objects.first().filter(|_| objects.len() == files.len()) else {
            return Ok(files.iter().map(|file| file.open()).collect());
        };
        let parts: Vec<_> = objects.iter().map(|object| (object.key.as_str(), object.part(0, FIRST))).collect();
        let found = first.bucket.read_many(&parts)?;
        let opened = objects.into_iter().zip(found).map(|(object, window)| {
            let window = window.ok_or_else(gone)?;
            Ok(Raw::Object(Opened { object: object.clone(), at: 0, window }))
        });
        Ok(opened.collect())
    }
}

impl Object {
    fn part(&self, from: u64, most: u64) -> Range<u64> {
        from..from.saturating_add(most).min(self.len.max(from + 1))
    }
}

fn gone() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such object")
}

impl Deref for FileAt {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// An open file or object.
pub(super) enum Raw {
    File(File),
    Object(Opened),
}

/// An open object and a part of it.
pub(super) struct Opened {
    object: Object,
    at: u64,
    window: Bytes,
}

impl Opened {
    fn fetch(&mut self, from: u64, most: u64) -> std::io::Result<()> {
        let Object { bucket, key, len: _ } = &self.object;
        self.window = bucket.read(key, self.object.part(from, most))?.ok_or_else(gone)?;
        self.at = from;
        Ok(())
    }

    fn held(&self, offset: u64) -> &[u8] {
        let from = offset.checked_sub(self.at).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.window.get(from..)).unwrap_or_default()
    }
}

impl Raw {
    /// Bytes of it when it was opened, or listed.
    pub(super) fn len(&self) -> std::io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Object(opened) => Ok(opened.object.len),
        }
    }

    /// Reads at `offset`; answers how many bytes, none at the end.
    pub(super) fn read_at(&mut self, bytes: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let opened = match self {
            Self::File(file) => return file.read_at(bytes, offset),
            Self::Object(opened) => opened,
        };
        if opened.held(offset).is_empty() && offset < opened.object.len {
            opened.fetch(offset, WINDOW.max(bytes.len() as u64))?;
        }
        let held = opened.held(offset);
        let count = held.len().min(bytes.len());
        bytes[..count].copy_from_slice(&held[..count]);
        Ok(count)
    }

    /// Reads all of `bytes` at `offset`.
    pub(super) fn read_exact_at(&mut self, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes that are held of an object, where that is all of it.
    pub(super) fn held_whole(&self) -> Option<u64> {
        let Self::Object(opened) = self else { return None };
        let held = opened.window.len() as u64;
        (opened.at == 0 && held >= opened.object.len).then_some(held)
    }

    /// Lets go of what was read of an object.
    pub(super) fn release(&mut self) {
        if let Self::Object(opened) = self {
            opened.window = Bytes::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_a_url_are_those_of_the_one_that_is_above_it() {
        let toml = "[storage.wal_config]\nwal_urls = [\"s3://b/wal\", \"s3://b/other\"]\n\
                    [storage.wal_config.url_options.\"s3://b/wal\"]\nregion = \"one\"\n\
                    [storage.wal_config.url_options.\"s3://b/other\"]\nregion = \"two\"\n";
        let config = Config::parse(toml, true).unwrap().config;
        let region = |url: &str| options_of(&config, &WalUrl::parse(url).unwrap()).and_then(|options| options.region);
        let table = [
            ("s3://b/wal", Some("one")),
            ("s3://b/wal/shop/orders.orders-0", Some("one")),
            ("s3://b/other/x", Some("two")),
            ("s3://b/wally", None),
            ("s3://c/wal", None),
        ];
        for (url, expected) in table {
            assert_eq!(region(url).as_deref(), expected, "{url}");
        }
    }
}
