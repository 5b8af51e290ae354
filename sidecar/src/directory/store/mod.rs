//! The driver behind the seam [`Bucket`]: a bucket of Amazon, Microsoft or Google, or of what speaks like one of them.
//!
//! | file | what it knows |
//! |---|---|
//! | `place` | the address of a storage URL |
//! | `credentials` | as whom to make requests |
//! | `client` | `object_store` for both |
//! | `google` | tokens of Google for those without a key |
//! | `http` | one attempt: connections, TLS, bounds of time and number |
//! | `verdict` | what a failed attempt means |
//!
//! Invariants:
//! 1. A create is one request, create-only, with an answer or without. It is never repeated here.
//! 2. An answer that does not say that the create took effect, or that it did not, is no answer ([`CreateError::Unclear`]).
//! 3. Reads, lists and deletions are repeated for as long as what is wrong may pass; what [stays](super::trouble::Condition::stays)
//!    ends them.
//! 4. Credentials are those of the files as they are when a request begins: repairing a file is enough.
//! 5. What is wrong is told at once ([`BucketStore::trouble`]), also while requests are still being repeated.

mod client;
mod credentials;
mod google;
mod http;
mod place;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use object_store::list::PaginatedListOptions;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, PutMode, PutOptions};
use parking_lot::Mutex;
use rand::RngExt as _;
use walstorage_crds::config::UrlOptions;
use walstorage_crds::url::WalUrl;

use self::client::Client;
use self::credentials::{Found, Sources};
use self::http::{Failure, Transport};
use self::place::Place;
use self::verdict::{Asker, Operation, Verdict};
use super::bucket::{Bucket, CreateError, Denied};
use super::trouble::{Condition, Trouble};

/// What bounds the requests of one directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way at a time.
    pub at_once: usize,
    /// For a connection.
    pub connect: Duration,
    /// For an answer to begin, beside a second for each MiB that is sent, and then for each next part of it.
    pub answer: Duration,
    /// An idle connection is closed after it.
    pub idle_connection: Duration,
    /// Before the first repetition; doubled for each next one.
    pub first_wait: Duration,
    /// Before any repetition.
    pub longest_wait: Duration,
    /// Keys in a page of a list; `None`: as many as the store likes.
    pub page: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            at_once: 16,
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            idle_connection: Duration::from_secs(60),
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(10),
            page: None,
        }
    }
}

/// The environment, as far as the driver asks it. An empty variable is one that is not set.
#[derive(Clone, Debug, Default)]
pub struct Environment(Option<Arc<BTreeMap<String, String>>>);

impl Environment {
    /// The process's own.
    #[must_use]
    pub const fn process() -> Self {
        Self(None)
    }

    /// Of these variables only.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self(Some(Arc::new(variables.iter().map(owned).collect())))
    }

    fn get(&self, name: &str) -> Option<String> {
        let value = match &self.0 {
            None => std::env::var(name).ok(),
            Some(variables) => variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// A client, and what it was made of.
struct Opened {
    found: Found,
    ca: Option<Vec<u8>>,
    client: Client,
}

/// What the files and the environment say.
type Read = (Found, Option<Vec<u8>>);

/// A bucket below one directory's root. Nothing is sent before the first request.
pub struct BucketStore {
    place: Place,
    options: UrlOptions,
    environment: Environment,
    limits: Limits,
    opened: Mutex<Option<Arc<Opened>>>,
    trouble: Mutex<Option<Trouble>>,
    heard: Arc<AtomicU64>,
}

impl std::fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketStore").field("url", &self.place.url).finish_non_exhaustive()
    }
}

impl BucketStore {
    /// A bucket's part below a URL and, with a writer id, below that.
    ///
    /// # Errors
    /// When the options cannot work.
    pub fn new(
        url: &WalUrl,
        writer_id: Option<&str>,
        options: &UrlOptions,
        environment: Environment,
        limits: Limits,
    ) -> Result<Self, Trouble> {
        let place = Place::new(url, writer_id, options, &environment)?;
        let (opened, trouble) = (Mutex::new(None), Mutex::new(None));
        Ok(Self { place, options: options.clone(), environment, limits, opened, trouble, heard: Arc::default() })
    }

    /// What was wrong with the last attempt; `None` when it succeeded.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().clone()
    }

    /// The client that the files and the environment say now.
    async fn open(&self) -> Result<Arc<Opened>, Denied> {
        let (place, options, environment) = (self.place.clone(), self.options.clone(), self.environment.clone());
        let read = tokio::task::spawn_blocking(move || read(&place, &options, &environment)).await;
        let failed = |error: tokio::task::JoinError| self.misconfigured(error.to_string());
        let opened = read.unwrap_or_else(|error| Err(failed(error))).and_then(|read| self.open_with(read));
        opened.map_err(|trouble| Denied(self.note(trouble)))
    }

    fn misconfigured(&self, what: String) -> Trouble {
        Trouble::new(Condition::Misconfigured, format!("{}: {what}", self.place.url))
    }

    fn open_with(&self, (found, ca): Read) -> Result<Arc<Opened>, Trouble> {
        let mut opened = self.opened.lock();
        if let Some(opened) = opened.as_ref().filter(|opened| opened.found == found && opened.ca == ca) {
            return Ok(Arc::clone(opened));
        }
        let transport = Transport::new(ca.as_deref(), self.limits, Arc::clone(&self.heard)).map_err(|why| {
            let path = self.place.ca_file.as_deref().unwrap_or_else(|| std::path::Path::new("")).display();
            self.misconfigured(format!("ca_file {path}: {why}: put certificates in PEM there"))
        })?;
        let client = Client::new(&self.place, &found.identity, &transport, &self.environment).map_err(|error| {
            let Found { source, remedy, .. } = &found;
            let what = format!("{}: {source} cannot be used ({error}): {remedy}", self.place.url);
            Trouble::new(Condition::WrongCredentials, what)
        })?;
        let new = Arc::new(Opened { found, ca, client });
        *opened = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Where `object_store` finds a key.
    fn at(&self, key: &str) -> Result<Path, Denied> {
        let path = Path::parse(format!("{}{key}", self.place.root));
        path.map_err(|error| Denied(self.note(self.misconfigured(error.to_string()))))
    }

    /// What an error means.
    fn judge(&self, opened: &Opened, operation: Operation, error: &object_store::Error) -> Verdict {
        let Found { source, remedy, .. } = &opened.found;
        let asker = Asker { place: &self.place, source, remedy, now: Timestamp::now() };
        let verdict = match failure(error) {
            Some(failure) => asker.judge(operation, failure),
            None => asker.unreadable(error),
        };
        match &verdict {
            Verdict::Trouble(trouble) => {
                self.note(trouble.clone());
                if matches!(trouble.condition, Condition::WrongCredentials | Condition::ExpiredCredentials) {
                    // It may hold a token that was good once. Another one is asked for the next time.
                    *self.opened.lock() = None;
                }
            }
            Verdict::Taken | Verdict::Absent | Verdict::Beyond => self.fine(),
        }
        verdict
    }

    fn note(&self, trouble: Trouble) -> Trouble {
        *self.trouble.lock() = Some(trouble.clone());
        trouble
    }

    fn fine(&self) {
        *self.trouble.lock() = None;
    }

    /// The keys below a prefix that ends in `/`, in any order, and the sizes of their objects.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn sizes(&self, prefix: &str) -> Result<Vec<(String, u64)>, Denied> {
        let prefix = format!("{}{prefix}", self.place.root);
        let (mut keys, mut token, mut attempt) = (Vec::new(), None, 0);
        loop {
            match self.page(&prefix, token.clone(), &mut keys).await {
                Ok(None) => return Ok(keys),
                Ok(next) => (token, attempt) = (next, 0),
                Err(failed) => {
                    attempt += 1;
                    self.again(failed, attempt).await?;
                }
            }
        }
    }

    /// One attempt to read a page of a list.
    async fn page(
        &self,
        prefix: &str,
        token: Option<String>,
        keys: &mut Vec<(String, u64)>,
    ) -> Attempt<Option<String>> {
        let opened = self.open().await?;
        let options = PaginatedListOptions { max_keys: self.limits.page, page_token: token, ..Default::default() };
        let listed = opened.client.objects.list_paginated(Some(prefix), options).await;
        let page = listed.map_err(|error| self.judge(&opened, Operation::List, &error))?;
        self.fine();
        let below = |key: &Path| Some(key.as_ref().strip_prefix(&self.place.root)?.to_owned());
        keys.extend(page.result.objects.iter().filter_map(|object| Some((below(&object.location)?, object.size))));
        Ok(page.page_token)
    }

    /// One attempt to read.
    async fn get(&self, at: &Path, range: &Range<u64>) -> Attempt<Bytes> {
        let opened = self.open().await?;
        let range = match range.end {
            // Not every server can count so far.
            u64::MAX if range.start == 0 => None,
            u64::MAX => Some(GetRange::Offset(range.start)),
            end => Some(GetRange::Bounded(range.start..end.max(range.start + 1))),
        };
        let options = GetOptions { range, ..GetOptions::default() };
        let read = async { opened.client.objects.get_opts(at, options).await?.bytes().await };
        let bytes = read.await.map_err(|error| self.judge(&opened, Operation::Read, &error))?;
        self.fine();
        Ok(bytes)
    }

    /// One attempt to delete.
    async fn remove(&self, at: &Path) -> Attempt<()> {
        let opened = self.open().await?;
        opened.client.delete(at).await.map_err(|error| self.judge(&opened, Operation::Delete, &error))?;
        self.fine();
        Ok(())
    }

    /// What is left of a failed attempt, after the time to wait before the next.
    async fn again(&self, failed: Failed, attempt: u32) -> Result<(), Denied> {
        match failed {
            Failed::Denied(denied) => Err(denied),
            Failed::Verdict(Verdict::Trouble(trouble)) if trouble.condition.stays() => Err(Denied(trouble)),
            Failed::Verdict(_) => {
                self.back_off(attempt).await;
                Ok(())
            }
        }
    }
}

/// An attempt: what came of it, or why nothing did.
type Attempt<T> = Result<T, Failed>;

enum Failed {
    Denied(Denied),
    Verdict(Verdict),
}

impl From<Denied> for Failed {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Verdict> for Failed {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

fn read(place: &Place, options: &UrlOptions, environment: &Environment) -> Result<Read, Trouble> {
    let found = Sources { url: &place.url, options, environment }.find(&place.kind)?;
    let Some(path) = &place.ca_file else { return Ok((found, None)) };
    let ca = std::fs::read(path).map_err(|error| {
        let what = format!(
            "{}: ca_file {} cannot be read ({error}): put certificates in PEM there",
            place.url,
            path.display()
        );
        Trouble::new(Condition::Misconfigured, what)
    })?;
    Ok((found, Some(ca)))
}

/// What an attempt came to, which is at the root of what `object_store` says of it.
fn failure(error: &object_store::Error) -> Option<&Failure> {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(failure) = error.downcast_ref() {
            return Some(failure);
        }
        source = error.source();
    }
    None
}

impl Bucket for BucketStore {
    async fn create(&self, key: &str, body: Bytes) -> Result<(), CreateError> {
        let at = self.at(key)?;
        if self.place.unsafe_conditional && self.read(key, 0..1).await?.is_some() {
            return Err(CreateError::Taken);
        }
        let opened = self.open().await?;
        let mode = if self.place.unsafe_conditional { PutMode::Overwrite } else { PutMode::Create };
        let options = PutOptions { mode, ..PutOptions::default() };
        let Err(error) = opened.client.objects.put_opts(&at, body.into(), options).await else {
            self.fine();
            return Ok(());
        };
        match self.judge(&opened, Operation::Create, &error) {
            Verdict::Taken => Err(CreateError::Taken),
            Verdict::Trouble(trouble) if trouble.condition.stays() => Err(Denied(trouble).into()),
            Verdict::Trouble(trouble) => Err(CreateError::Unclear(trouble)),
            Verdict::Absent | Verdict::Beyond => {
                Err(CreateError::Unclear(Trouble::new(Condition::Failing, format!("{}: {error}", self.place.url))))
            }
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, Denied> {
        let at = self.at(key)?;
        let mut attempt = 0;
        loop {
            let failed = match self.get(&at, &range).await {
                Ok(mut bytes) => {
                    // An empty range cannot be asked for.
                    bytes.truncate(usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX));
                    return Ok(Some(bytes));
                }
                Err(Failed::Verdict(Verdict::Absent)) => return Ok(None),
                Err(Failed::Verdict(Verdict::Beyond)) => return Ok(Some(Bytes::new())),
                Err(failed) => failed,
            };
            attempt += 1;
            self.again(failed, attempt).await?;
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Denied> {
        Ok(self.sizes(prefix).await?.into_iter().map(|(key, _)| key).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), Denied> {
        let at = self.at(key)?;
        let mut attempt = 0;
        loop {
            let failed = match self.remove(&at).await {
                Ok(()) | Err(Failed::Verdict(Verdict::Absent)) => return Ok(()),
                Err(failed) => failed,
            };
            attempt += 1;
            self.again(failed, attempt).await?;
        }
    }

    fn trouble(&self) -> Option<Trouble> {
        Self::trouble(self)
    }

    fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    async fn back_off(&self, attempt: u32) {
        let Limits { first_wait, longest_wait, .. } = self.limits;
        let doubled = first_wait.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(longest_wait);
        // Writers that failed together do not come back together.
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..1.0));
        let asked = self.trouble.lock().as_ref().and_then(|trouble| trouble.retry_after).unwrap_or_default();
        tokio::time::sleep(jittered.max(asked.min(longest_wait))).await;
    }
}
