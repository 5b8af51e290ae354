//! The protocol of the buckets' writers over real connections, before the emulators of three clouds, behind a proxy that
//! loses answers and worse; writers crash at any request, and pause until another has taken over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use walstorage_sidecar::directory::bucket::{Bucket, CreateError, Denied};
use walstorage_sidecar::directory::store::BucketStore;
use walstorage_sidecar::fencing::Lost;
use walstorage_sidecar::fencing::trial::oracle::Oracle;
use walstorage_sidecar::fencing::trial::writer::{Fortune, Writer};
use walstorage_tests::emulators::proxy::{Fault, Proxy};
use walstorage_tests::emulators::{Cloud, Emulated, impatient};

/// What becomes of a life at one of its requests.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It lives until it has committed what it wanted, or is fenced.
    Long,
    /// The process is killed while the request is under way.
    Killed { at: u64, polls: u32 },
    /// The process stops before the request, or behind it, until others have gone on.
    Paused { at: u64, before: bool },
}

/// What a life tells the schedule.
enum Event {
    /// It is paused until this is dropped.
    Paused(oneshot::Sender<()>),
    /// It is to be killed now.
    Dying(AbortHandle),
}

/// A bucket whose requests are counted, and at one of them something happens.
struct Fateful {
    store: BucketStore,
    fate: Fate,
    requests: AtomicU64,
    events: mpsc::UnboundedSender<Event>,
    me: AbortHandle,
}

impl Fateful {
    async fn run<T>(&self, request: impl Future<Output = T>) -> T {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        match self.fate {
            Fate::Killed { at, polls } if at == number => {
                let mut request = pin!(request);
                let mut polled = 0;
                poll_fn(|context| {
                    polled += 1;
                    // Answered before it could be killed: then it is killed behind that.
                    if request.as_mut().poll(context).is_ready() || polled >= polls {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
                let _ = self.events.send(Event::Dying(self.me.clone()));
                std::future::pending().await
            }
            Fate::Paused { at, before: true } if at == number => {
                self.pause().await;
                request.await
            }
            Fate::Paused { at, before: false } if at == number => {
                let outcome = request.await;
                self.pause().await;
                outcome
            }
            Fate::Long | Fate::Killed { .. } | Fate::Paused { .. } => request.await,
        }
    }

    async fn pause(&self) {
        let (release, released) = oneshot::channel();
        let _ = self.events.send(Event::Paused(release));
        // It is dropped, never sent to.
        let _ = released.await;
    }
}

impl Bucket for Fateful {
    async fn create(&self, key: &str, body: Bytes) -> Result<(), CreateError> {
        self.run(self.store.create(key, body)).await
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, Denied> {
        self.run(self.store.read(key, range)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Denied> {
        self.run(self.store.list(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Denied> {
        self.run(self.store.delete(key)).await
    }

    async fn back_off(&self, attempt: u32) {
        self.store.back_off(attempt).await;
    }
}

/// The fortune of a life, by its seed.
struct Seeded(Mutex<StdRng>);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Fortune for Seeded {
    fn identity(&self) -> u128 {
        self.0.lock().random()
    }

    fn chance(&self, of: u32) -> bool {
        self.0.lock().random_range(0..of) == 0
    }

    fn patience(&self) -> u32 {
        if self.chance(20) { self.0.lock().random_range(1..5) } else { u32::MAX }
    }
}

/// What a schedule came to.
#[derive(Debug, Default)]
struct Sum {
    lives: u64,
    kills: u64,
    pauses: u64,
    fenced: u64,
}

/// So many lives, at most `at_once` of them at a time, over one bucket.
async fn schedule(emulated: &Emulated, seed: u64, lives: u64, at_once: usize) -> Sum {
    let mut random = StdRng::seed_from_u64(seed);
    let proxy = Proxy::start(&emulated.address, random.random(), 15).await;
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let url = emulated.url("wal");
    let limits = impatient();
    let (events, mut happens) = mpsc::unbounded_channel();
    let (mut running, mut paused, mut sum) = (JoinSet::new(), Vec::new(), Sum::default());
    loop {
        while running.len() < at_once && sum.lives < lives {
            sum.lives += 1;
            let at = random.random_range(0..30);
            let fate = match random.random_range(0..5) {
                0 | 1 => Fate::Killed { at, polls: random.random_range(1..6) },
                2 if at_once > 1 => Fate::Paused { at, before: random.random_bool(0.5) },
                _ => Fate::Long,
            };
            let store = emulated.store(&url, &proxy.address, limits);
            let (oracle, events) = (Arc::clone(&oracle), events.clone());
            let (own_seed, entries) = (random.random(), random.random_range(1..10));
            let (told, me) = oneshot::channel();
            let handle = running.spawn(async move {
                let me = me.await.expect("who it is");
                let bucket = Fateful { store, fate, requests: AtomicU64::new(0), events, me };
                Writer::new(bucket, Seeded::new(own_seed), oracle, entries).live().await
            });
            let _ = told.send(handle);
        }
        if running.is_empty() {
            break;
        }
        // Whoever waits for others goes on when there is nobody else, and sometimes earlier.
        if paused.len() == running.len() || (!paused.is_empty() && random.random_bool(0.2)) {
            drop(paused.swap_remove(random.random_range(0..paused.len())));
        }
        tokio::select! {
            event = happens.recv() => match event.expect("a sender is here") {
                Event::Paused(release) => {
                    sum.pauses += 1;
                    paused.push(release);
                }
                Event::Dying(life) => {
                    sum.kills += 1;
                    life.abort();
                }
            },
            ended = running.join_next() => match ended.expect("somebody runs") {
                Ok(Ok(())) => {}
                Ok(Err(Lost::Fenced { .. })) => sum.fenced += 1,
                Ok(Err(lost)) => panic!("{lost}"),
                Err(error) if error.is_cancelled() => {}
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
    // What nobody disturbs finds everything.
    proxy.be_kind();
    let store = emulated.store(&url, &proxy.address, limits);
    let fortune = Seeded::new(random.random());
    Writer::new(store, fortune, Arc::clone(&oracle), 1).live().await.expect("it is alone");
    report(emulated.cloud, seed, &sum, &oracle.lock(), &proxy);
    sum
}

fn report(cloud: Cloud, seed: u64, sum: &Sum, oracle: &Oracle, proxy: &Proxy) {
    let Sum { lives, kills, pauses, fenced } = sum;
    let counts = proxy.counts();
    let faults: u64 = counts.values().sum();
    println!(
        "{cloud:?}, seed {seed}: {lives} lives, {kills} kills, {pauses} pauses, {faults} faults {counts:?}: {} starts served, \
         {fenced} were fenced, {} entries were acknowledged, {} of them lost; {} acknowledgements by zombies",
        oracle.starts(),
        oracle.acknowledged(),
        oracle.lost.len(),
        oracle.zombies.len(),
    );
    assert!(oracle.lost.is_empty(), "{:#?}", oracle.lost);
    assert!(oracle.zombies.is_empty(), "{:#?}", oracle.zombies);
    let hard = oracle.acknowledged() > 0 && *kills > 0 && counts.contains_key(&Fault::LostReply);
    assert!(hard, "the schedule was too kind to show anything");
}

/// Runs a schedule: of the seed of the environment, or always the same.
async fn schedules(test: &str, cloud: Cloud, lives: u64, at_once: usize) {
    let seed = std::env::var("WALSTORAGE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let Some(emulated) = Emulated::new(test, cloud).await else { return };
    println!("{test} {cloud:?}: WALSTORAGE_SEED={seed}");
    let sum = schedule(&emulated, seed, lives, at_once).await;
    assert!(at_once > 1 || sum.fenced == 0, "false fences: {sum:?}");
}

macro_rules! on_every_cloud {
    ($($name:ident $cloud:expr)*) => { $(
        mod $name {
            use super::{Cloud, schedules};

            #[tokio::test]
            async fn a_writer_that_is_alone_is_never_fenced_and_loses_nothing() {
                schedules("a_writer_that_is_alone_is_never_fenced_and_loses_nothing", $cloud, 24, 1).await;
            }

            #[tokio::test]
            async fn writers_that_take_over_from_each_other_lose_nothing() {
                schedules("writers_that_take_over_from_each_other_lose_nothing", $cloud, 24, 3).await;
            }
        }
    )* };
}

on_every_cloud! {
    s3 Cloud::S3
    azure Cloud::Azure
    google Cloud::Google
}
