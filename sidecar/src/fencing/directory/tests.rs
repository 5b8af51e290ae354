//! How many requests of a directory are under way at a time, on a store that answers when there are as many as it waits for.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Barrier, watch};

use super::{BucketDirectory, Objects, Room, Waiting};
use crate::commit::pace::AT_ONCE;
use crate::directory::bucket::{Bucket, CreateError, Denied};
use crate::fencing::object::ObjectKey;
use crate::format::StreamKey;
use crate::types::Epoch;

/// Answers when so many requests are under way at a time, and counts the most that were.
struct Together {
    all: Barrier,
    under_way: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl Together {
    async fn request(&self) {
        let now = self.under_way.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        self.all.wait().await;
        tokio::task::yield_now().await;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Bucket for Together {
    async fn create(&self, _: &str, _: Bytes) -> Result<(), CreateError> {
        self.request().await;
        Ok(())
    }

    async fn read(&self, key: &str, _: Range<u64>) -> Result<Option<Bytes>, Denied> {
        self.request().await;
        Ok(Some(Bytes::from(key.to_owned())))
    }

    async fn list(&self, _: &str) -> Result<Vec<String>, Denied> {
        self.request().await;
        Ok(Vec::new())
    }

    async fn delete(&self, _: &str) -> Result<(), Denied> {
        self.request().await;
        Ok(())
    }

    async fn back_off(&self, _: u32) {}
}

/// What `ask` comes to on a store that waits for so many requests, and the most that were under way.
async fn at_once<T: Send + 'static>(count: usize, ask: impl FnOnce(&dyn Objects) -> T + Send + 'static) -> (T, usize) {
    let (runtime, most) = (tokio::runtime::Handle::current(), Arc::new(AtomicUsize::new(0)));
    let bucket = Together { all: Barrier::new(count), under_way: AtomicUsize::new(0), most: Arc::clone(&most) };
    let over = watch::Sender::new(false);
    let directory = BucketDirectory::new(bucket, "s3://one/wal".into(), Waiting::new(Some(runtime), over.subscribe()));
    let done = tokio::task::spawn_blocking(move || ask(&directory)).await.unwrap();
    (done, most.load(Ordering::Relaxed))
}

fn paths(count: usize) -> Vec<PathBuf> {
    (0..count).map(|n| PathBuf::from(format!("c/{n}"))).collect()
}

/// Room for so many bytes.
struct Bounded(Mutex<u64>);

impl Room for Bounded {
    fn take(&self, bytes: u64) -> bool {
        let mut left = self.0.lock();
        let fits = *left >= bytes;
        *left -= if fits { bytes } else { 0 };
        fits
    }

    fn give_back(&self, bytes: u64) {
        *self.0.lock() += bytes;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_read_ahead_in_order_as_far_as_there_is_room() {
    for (room, expected) in [(0, 1), (AT_ONCE as u64 * 3, 4), (u64::MAX, 8)] {
        let read = move |objects: &dyn Objects| {
            let stream = StreamKey { epoch: Epoch(3), session: 0 };
            let keys: Vec<_> = (2..26).map(|number| ObjectKey { stream, number }).collect();
            let (room, mut shown) = (Bounded(Mutex::new(room)), Vec::new());
            let before = *room.0.lock();
            let read = objects.read(&keys, &room, &mut |key, found| {
                assert_eq!(found.unwrap(), key.to_string());
                shown.push(key);
                true
            });
            assert_eq!((read, *room.0.lock()), (Ok(()), before));
            shown == keys
        };
        assert_eq!(at_once(expected, read).await, (true, expected), "room for {room}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_read_together_and_shown_in_order() {
    let read = |objects: &dyn Objects| {
        let wanted: Vec<_> = paths(24).into_iter().map(|path| (path, 0..10)).collect();
        let mut shown = Vec::new();
        objects
            .parts(&wanted, &mut |part| shown.push(PathBuf::from(String::from_utf8(part.unwrap().into()).unwrap())))
            .unwrap();
        shown == paths(24)
    };
    assert_eq!(at_once(8, read).await, (true, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_are_made_side_by_side_and_some_at_a_time() {
    let (removed, most) = at_once(8, |objects| objects.remove(&paths(64)).is_ok()).await;
    assert_eq!((removed, most), (true, 8));
}
