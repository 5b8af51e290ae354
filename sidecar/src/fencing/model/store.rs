//! A store that keeps its promises, behind a network that keeps none: replies are lost, and requests land when they like.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::directory::bucket::{Bucket, CreateError, Denied};
use crate::directory::trouble::{Condition, Trouble};
use crate::fencing::trial::writer::Fortune;

/// A request.
#[derive(Clone, Debug)]
enum Request {
    Create { key: String, body: Bytes },
    Read { key: String, range: Range<u64> },
    List { prefix: String },
    Delete { key: String },
    BackOff,
}

/// An answer.
enum Reply {
    Created(Result<(), CreateError>),
    Object(Option<Bytes>),
    Keys(Vec<String>),
    Done,
}

/// What the network did, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) lost_replies: u64,
    pub(super) lost_requests: u64,
    pub(super) late_landings: u64,
}

/// The store and the network before it.
pub(super) struct World {
    pub(super) rng: StdRng,
    objects: BTreeMap<String, Bytes>,
    waiting: BTreeMap<u64, (usize, Request)>,
    replies: HashMap<u64, Reply>,
    /// Requests whose clients have given up on them: each lands some day, or never.
    stray: Vec<Request>,
    next: u64,
    pub(super) counts: Counts,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            objects: BTreeMap::new(),
            waiting: BTreeMap::new(),
            replies: HashMap::new(),
            stray: Vec::new(),
            next: 0,
            counts: Counts::default(),
        }
    }

    /// The writer's request under way, if any.
    pub(super) fn request_of(&self, writer: usize) -> Option<u64> {
        self.waiting.iter().find(|(_, (by, _))| *by == writer).map(|(id, _)| *id)
    }

    fn apply(&mut self, request: &Request) -> Reply {
        match request {
            Request::Create { key, body } => Reply::Created(if self.objects.contains_key(key) {
                Err(CreateError::Taken)
            } else {
                self.objects.insert(key.clone(), body.clone());
                Ok(())
            }),
            Request::Read { key, range } => Reply::Object(self.objects.get(key).map(|body| {
                let within = |at: u64| body.len().min(usize::try_from(at).unwrap_or(usize::MAX));
                body.slice(within(range.start)..within(range.end))
            })),
            Request::List { prefix } => {
                Reply::Keys(self.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect())
            }
            Request::Delete { key } => {
                self.objects.remove(key);
                Reply::Done
            }
            Request::BackOff => Reply::Done,
        }
    }

    /// Something happens to a request: it is answered in the end, truly or not.
    pub(super) fn serve(&mut self, id: u64) {
        let Some((_, request)) = self.waiting.remove(&id) else { return };
        let unclear = || Reply::Created(Err(CreateError::Unclear(Trouble::new(Condition::NoAnswer, "no answer"))));
        let reply = match (&request, self.rng.random_range(0..20)) {
            (Request::Create { .. }, 0..3) => {
                self.apply(&request);
                self.counts.lost_replies += 1;
                unclear()
            }
            (Request::Create { .. }, 3..5) => {
                self.stray.push(request);
                unclear()
            }
            (Request::Create { .. }, 5) => {
                self.counts.lost_requests += 1;
                unclear()
            }
            (Request::Delete { .. }, 0..5) => {
                // It was repeated behind the seam; the first attempt is still on its way.
                self.stray.push(request.clone());
                self.apply(&request)
            }
            _ => self.apply(&request),
        };
        self.replies.insert(id, reply);
    }

    /// A request lands that nobody waits for any more.
    pub(super) fn land(&mut self) {
        if self.stray.is_empty() {
            return;
        }
        let chosen = self.rng.random_range(0..self.stray.len());
        let request = self.stray.swap_remove(chosen);
        self.counts.late_landings += 1;
        self.apply(&request);
    }

    /// The writer's request is on its way, and the writer is not there any more.
    pub(super) fn leave(&mut self, writer: usize) {
        let Some((_, request)) = self.request_of(writer).and_then(|id| self.waiting.remove(&id)) else { return };
        if matches!(request, Request::Create { .. } | Request::Delete { .. }) {
            self.stray.push(request);
        }
    }
}

/// The store as one writer reaches it.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) writer: usize,
}

/// A request under way.
struct Call<'a> {
    store: &'a Store,
    id: u64,
}

impl Future for Call<'_> {
    type Output = Reply;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reply> {
        self.store.world.lock().replies.remove(&self.id).map_or(Poll::Pending, Poll::Ready)
    }
}

impl Store {
    fn call(&self, request: Request) -> Call<'_> {
        let mut world = self.world.lock();
        let id = world.next;
        world.next += 1;
        world.waiting.insert(id, (self.writer, request));
        Call { store: self, id }
    }
}

impl Bucket for Store {
    async fn create(&self, key: &str, body: Bytes) -> Result<(), CreateError> {
        match self.call(Request::Create { key: key.into(), body }).await {
            Reply::Created(result) => result,
            _ => unreachable!("a create is answered as one"),
        }
    }

    async fn read(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, Denied> {
        match self.call(Request::Read { key: key.into(), range }).await {
            Reply::Object(found) => Ok(found),
            _ => unreachable!("a read is answered as one"),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Denied> {
        match self.call(Request::List { prefix: prefix.into() }).await {
            Reply::Keys(keys) => Ok(keys),
            _ => unreachable!("a list is answered as one"),
        }
    }

    async fn delete(&self, key: &str) -> Result<(), Denied> {
        self.call(Request::Delete { key: key.into() }).await;
        Ok(())
    }

    async fn back_off(&self, _attempt: u32) {
        self.call(Request::BackOff).await;
    }
}

impl Fortune for Store {
    fn identity(&self) -> u128 {
        self.world.lock().rng.random()
    }

    fn chance(&self, of: u32) -> bool {
        self.world.lock().rng.random_range(0..of) == 0
    }

    fn patience(&self) -> u32 {
        if self.chance(40) { 2 } else { u32::MAX }
    }

    fn gives_up(&self) {
        self.world.lock().leave(self.writer);
    }
}
