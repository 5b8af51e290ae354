//! A store in memory that keeps its promises, and clients of it that lose answers, stop, or die at a request.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::directory::bucket::{Bucket, CreateError, Denied};
use crate::directory::trouble::{Condition, Trouble};

/// What the store holds, and what is still on its way there.
#[derive(Debug, Default)]
struct World {
    objects: BTreeMap<String, Bytes>,
    /// Creates and deletions whose clients are gone.
    stray: Vec<(String, Option<Bytes>)>,
    requests: u64,
    creates: u64,
}

/// A store that processes share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(Arc<Mutex<World>>);

/// What becomes of the requests of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// So many requests are answered; the process dies at the next one. `None`: it does not.
    pub(crate) answered: Option<u64>,
    /// A create at which it dies: it is done, is on its way, or never was.
    pub(crate) last: Last,
    /// The answer of each create that is done is lost.
    pub(crate) loses_answers: bool,
    /// It does not die: there is no answer from then on, and no error.
    pub(crate) silent: bool,
}

/// What becomes of the request at which a process dies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Last {
    #[default]
    Lost,
    Done,
    Late,
}

/// A process, with one fate for all its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process(Arc<Mutex<Fate>>);

/// The store as one process reaches it.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    store: Store,
    process: Process,
}

impl Store {
    /// A process's way to it.
    pub(crate) fn client(&self, process: &Process) -> Client {
        Client { store: self.clone(), process: process.clone() }
    }

    /// Every key.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.0.lock().objects.keys().cloned().collect()
    }

    pub(crate) fn remove(&self, key: &str) {
        self.0.lock().objects.remove(key);
    }

    pub(crate) fn put(&self, key: &str, bytes: Bytes) {
        self.0.lock().objects.insert(key.to_owned(), bytes);
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        self.0.lock().objects.get(key).cloned()
    }

    /// An object is gone, or a bit of it flips near its end.
    pub(crate) fn spoil(&self, key: &str, rotten: bool) {
        let mut world = self.0.lock();
        let Some(object) = world.objects.remove(key).filter(|_| rotten) else { return };
        let mut bytes = object.to_vec();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        world.objects.insert(key.to_owned(), bytes.into());
    }

    /// Requests so far, and creates among them.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let world = self.0.lock();
        (world.requests, world.creates)
    }

    /// What is on its way arrives.
    pub(crate) fn arrive(&self) {
        let mut world = self.0.lock();
        for (key, body) in std::mem::take(&mut world.stray) {
            match body {
                Some(body) => drop(world.objects.entry(key).or_insert(body)),
                None => drop(world.objects.remove(&key)),
            }
        }
    }
}

fn lost() -> CreateError {
    CreateError::Unclear(Trouble::new(Condition::NoAnswer, "the answer was lost"))
}

impl Process {
    pub(crate) fn new(fate: Fate) -> Self {
        Self(Arc::new(Mutex::new(fate)))
    }

    /// Changes what becomes of requests from now on.
    pub(crate) fn set(&self, fate: Fate) {
        *self.0.lock() = fate;
    }

    /// What becomes of its requests now.
    pub(crate) fn fate(&self) -> Fate {
        *self.0.lock()
    }

    /// Whether it has died.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().answered == Some(0)
    }
}

impl Client {
    /// What a request of a dead process comes to.
    async fn dead(&self) -> Denied {
        let silent = self.process.0.lock().silent;
        if silent {
            std::future::pending::<()>().await;
        }
        Denied(Trouble::new(Condition::Refused, "the process is dead"))
    }

    /// Whether the process lives through this request; what becomes of it otherwise.
    fn lives(&self) -> Result<Fate, Option<Last>> {
        self.store.0.lock().requests += 1;
        let mut fate = self.process.0.lock();
        match &mut fate.answered {
            None => Ok(*fate),
            Some(0) => Err(None),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(Some(fate.last)) } else { Ok(*fate) }
            }
        }
    }
}

impl Client {
    /// `None`: it was the last request.
    fn create_now(&self, key: &str, body: &Bytes) -> Option<Result<(), CreateError>> {
        let lives = self.lives();
        let mut world = self.store.0.lock();
        world.creates += 1;
        let mut apply = || {
            if world.objects.contains_key(key) {
                return Err(CreateError::Taken);
            }
            world.objects.insert(key.to_owned(), body.clone());
            Ok(())
        };
        match lives {
            Ok(Fate { loses_answers: false, .. }) => Some(apply()),
            Ok(_) => Some(apply().and(Err(lost()))),
            Err(Some(Last::Done)) => {
                let _ = apply();
                None
            }
            Err(Some(Last::Late)) => {
                world.stray.push((key.to_owned(), Some(body.clone())));
                None
            }
            Err(Some(Last::Lost) | None) => None,
        }
    }
}

impl Bucket for Client {
    async fn create(&self, key: &str, body: Bytes) -> Result<(), CreateError> {
        match self.create_now(key, &body) {
            Some(created) => created,
            None => Err(self.dead().await.into()),
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, Denied> {
        if self.lives().is_err() {
            return Err(self.dead().await);
        }
        let found = self.store.get(key);
        Ok(found.map(|body| {
            let within = |at: u64| body.len().min(usize::try_from(at).unwrap_or(usize::MAX));
            body.slice(within(range.start)..within(range.end))
        }))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Denied> {
        if self.lives().is_err() {
            return Err(self.dead().await);
        }
        Ok(self.store.keys().into_iter().filter(|key| key.starts_with(prefix)).collect())
    }

    async fn delete(&self, key: &str) -> Result<(), Denied> {
        match self.lives() {
            Ok(_) => {
                self.store.remove(key);
                return Ok(());
            }
            Err(Some(Last::Done)) => self.store.remove(key),
            Err(Some(Last::Late)) => self.store.0.lock().stray.push((key.to_owned(), None)),
            Err(Some(Last::Lost) | None) => {}
        }
        Err(self.dead().await)
    }

    async fn back_off(&self, _: u32) {}
}
