//! The protocol of the buckets' writers with a rule left out, over real connections before the emulators of three clouds,
//! behind the proxy that loses answers. One schedule, whatever the proxy does: a writer stops before a commit, another takes
//! over and serves, the first goes on. The protocol holds there, and each bug breaks a promise.
//!
//! A bug is planted in what the writer sees of its bucket: the code under test is the product's own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use walstorage_sidecar::directory::bucket::{Bucket, CreateError, Denied};
use walstorage_sidecar::directory::store::BucketStore;
use walstorage_sidecar::fencing::Lost;
use walstorage_sidecar::fencing::object::{CLOSE, Kind, ObjectKey, Seen};
use walstorage_sidecar::fencing::trial::oracle::Oracle;
use walstorage_sidecar::fencing::trial::writer::{Fortune, Writer};
use walstorage_tests::emulators::proxy::Proxy;
use walstorage_tests::emulators::{Cloud, Emulated, impatient};

/// A rule that a writer leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// It puts no fence into the streams before its own.
    NoFence,
    /// It takes whatever is at the key of a create for its own.
    AnyObjectIsOurs,
}

/// Where a writer stops once, until the other end is dropped.
struct Stop {
    reached: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// A bucket as a writer with or without a bug sees it.
struct Seeming {
    store: BucketStore,
    bug: Option<Bug>,
    /// Before the second commit of its own.
    stop: Mutex<Option<Stop>>,
    /// What it has tried to create last.
    tried: Mutex<Option<(String, Bytes)>>,
}

impl Bucket for Seeming {
    async fn create(&self, key: &str, body: Bytes) -> Result<(), CreateError> {
        let at = ObjectKey::parse(key);
        let stop = at.filter(|at| at.number == CLOSE + 2).and_then(|_| self.stop.lock().take());
        if let Some(Stop { reached, released }) = stop {
            reached.send(()).expect("the schedule waits for it");
            // It is dropped, never sent to.
            let _ = released.await;
        }
        let fences = || at.and_then(|at| Seen::parse(&body, at)).is_some_and(|seen| seen.kind == Kind::Fence);
        if self.bug == Some(Bug::NoFence) && fences() {
            return Ok(());
        }
        *self.tried.lock() = Some((key.to_owned(), body.clone()));
        self.store.create(key, body).await
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, Denied> {
        let found = self.store.read(key, range.clone()).await?;
        let tried = self.tried.lock().clone().filter(|(tried, _)| tried == key && found.is_some());
        Ok(match tried {
            Some((_, body)) if self.bug == Some(Bug::AnyObjectIsOurs) => {
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(body.len());
                Some(body.slice(within(range.start)..within(range.end)))
            }
            _ => found,
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Denied> {
        self.store.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<(), Denied> {
        self.store.delete(key).await
    }

    async fn back_off(&self, attempt: u32) {
        self.store.back_off(attempt).await;
    }
}

/// No checkpoints, and all the time in the world.
struct Steady(u128);

impl Fortune for Steady {
    fn identity(&self) -> u128 {
        self.0
    }

    fn chance(&self, _of: u32) -> bool {
        false
    }

    fn patience(&self) -> u32 {
        u32::MAX
    }
}

/// What a schedule came to.
struct Outcome {
    /// How the first writer ended.
    first: Result<(), Lost>,
    lost: Vec<String>,
    zombies: Vec<String>,
}

/// A writer stops before its second commit, another one takes over, commits and ends, and the first one goes on.
async fn take_over(emulated: &Emulated, path: &str, first: Option<Bug>, second: Option<Bug>) -> Outcome {
    let proxy = Proxy::start(&emulated.address, 1, 40).await;
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let url = emulated.url(path);
    let writer = |id: u128, bug: Option<Bug>, stop: Option<Stop>, entries: u64| {
        let store = emulated.store(&url, &proxy.address, impatient());
        let bucket = Seeming { store, bug, stop: Mutex::new(stop), tried: Mutex::new(None) };
        Writer::new(bucket, Steady(id), Arc::clone(&oracle), entries)
    };
    let (reached, is_there) = oneshot::channel();
    let (release, released) = oneshot::channel();
    let running = tokio::spawn(writer(1, first, Some(Stop { reached, released }), 2).live());
    is_there.await.expect("the first one comes to its second commit");
    writer(2, second, None, 1).live().await.expect("nobody takes over from the second one");
    drop(release);
    let first = running.await.expect("it ends by itself");
    assert!(!proxy.counts().is_empty(), "the proxy was kind");
    let oracle = oracle.lock();
    Outcome { first, lost: oracle.lost.clone(), zombies: oracle.zombies.clone() }
}

async fn each_bug_is_caught(cloud: Cloud) {
    let Some(emulated) = Emulated::new("each_bug_is_caught", cloud).await else { return };
    let Outcome { first, lost, zombies } = take_over(&emulated, "whole", None, None).await;
    assert!(matches!(first, Err(Lost::Fenced { .. })), "{first:?}");
    assert!(lost.is_empty() && zombies.is_empty(), "{lost:?} {zombies:?}");
    let bugs = [("unfenced", None, Some(Bug::NoFence)), ("taken", Some(Bug::AnyObjectIsOurs), None)];
    for (path, first_bug, second_bug) in bugs {
        let Outcome { first, zombies, .. } = take_over(&emulated, path, first_bug, second_bug).await;
        assert_eq!(first, Ok(()), "{path}");
        assert_eq!(zombies.len(), 1, "nothing is noticed where a stream is {path}");
    }
}

#[tokio::test]
async fn each_bug_is_caught_on_s3() {
    each_bug_is_caught(Cloud::S3).await;
}

#[tokio::test]
async fn each_bug_is_caught_on_azure() {
    each_bug_is_caught(Cloud::Azure).await;
}

#[tokio::test]
async fn each_bug_is_caught_on_google() {
    each_bug_is_caught(Cloud::Google).await;
}
