//! The buckets of a process: each is made once, and keeps its part in the protocol over all attempts to recover.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;

use super::{BucketDirectory, Waiting};
use crate::directory::disk::SharedDisk;
use crate::directory::store::{BucketStore, Environment, Limits};
#[cfg(test)]
use crate::directory::trouble::Condition;
use crate::directory::trouble::Trouble;

/// Makes the directory of a URL.
type Make = dyn Fn(&WalUrl, Waiting) -> Result<SharedDisk, Trouble> + Send + Sync;

/// The buckets of a process.
pub(crate) struct Buckets {
    make: Box<Make>,
    runtime: Option<Handle>,
    made: Mutex<HashMap<WalUrl, SharedDisk>>,
    over: watch::Sender<bool>,
}

impl Buckets {
    /// What `make` makes, waited for on `runtime`.
    pub(crate) fn new(
        runtime: Option<Handle>,
        make: impl Fn(&WalUrl, Waiting) -> Result<SharedDisk, Trouble> + Send + Sync + 'static,
    ) -> Self {
        Self { make: Box::new(make), runtime, made: Mutex::default(), over: watch::Sender::new(false) }
    }

    /// None at all.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self::new(None, |url, _| {
            Err(Trouble::new(Condition::Misconfigured, format!("{url}: there are no buckets here")))
        })
    }

    /// Those that a configuration names, over the network. Called on a runtime.
    pub(crate) fn of(config: &Config) -> Self {
        let (options, writer_id) = (config.wal.url_options.clone(), config.wal.writer_id.clone());
        Self::new(Handle::try_current().ok(), move |url, waiting| {
            let options = options.get(url).cloned().unwrap_or_default();
            let writer_id = writer_id.as_deref();
            let store = BucketStore::new(url, writer_id, &options, Environment::process(), Limits::default())?;
            let root = writer_id.map_or_else(|| url.to_string(), |id| format!("{url}/{id}"));
            Ok(Arc::new(BucketDirectory::new(store, root, waiting)))
        })
    }

    /// The directory of a URL.
    ///
    /// # Errors
    /// When its options cannot work.
    pub(crate) fn disk(&self, url: &WalUrl) -> Result<SharedDisk, Trouble> {
        let mut made = self.made.lock();
        if let Some(disk) = made.get(url) {
            return Ok(Arc::clone(disk));
        }
        let disk = (self.make)(url, Waiting::new(self.runtime.clone(), self.over.subscribe()))?;
        made.insert(url.clone(), Arc::clone(&disk));
        Ok(disk)
    }

    /// What is wrong with the store of a URL now.
    pub(crate) fn trouble(&self, url: &WalUrl) -> Option<Trouble> {
        let disk = self.made.lock().get(url).cloned()?;
        disk.objects()?.trouble()
    }

    /// Nothing is waited for any more.
    pub(crate) fn give_up(&self) {
        self.over.send_replace(true);
    }
}
