//! A writer in the model: the real protocol, and beside it the least that makes a log of it. Each commit adds an entry; a
//! checkpoint repeats all, so that what stands before it may go.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use rand::RngExt as _;
use uuid::Uuid;

use super::oracle::Oracle;
use super::store::Store;
use crate::directory::bucket::Bucket as _;
use crate::fencing::commit::Committer;
use crate::fencing::fence::{Fenced, fence_all};
use crate::fencing::object::{Author, CLOSE, Object, ObjectKey};
use crate::fencing::start::{self, Claimed};
use crate::fencing::{Lost, collect};
use crate::format::facts::EpochFact;
use crate::format::frame::FrameHeader;
use crate::format::object::parse_object;
use crate::format::record::{self, Fields, Kind};
use crate::format::{StreamId, StreamKey};
use crate::types::{Epoch, Incarnation, Lsn};

/// What an entry is in the model.
pub(super) type Entry = u64;

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) oracle: Arc<Mutex<Oracle>>,
    author: Author,
}

fn object(author: &Author, key: ObjectKey, floor: u64, oldest: StreamKey, entries: &BTreeSet<Entry>) -> Object {
    let header = FrameHeader {
        epoch: key.stream.epoch,
        floor,
        oldest: oldest.epoch,
        oldest_session: oldest.session,
        ..FrameHeader::default()
    };
    let encode = |builder: &mut crate::format::frame::FrameBuilder| {
        for &entry in entries {
            let fields = Fields {
                kind: Kind::Data,
                collection_id: "c",
                incarnation: Incarnation::new(Epoch(1), 0),
                lsn: Lsn(entry),
                epoch: key.stream.epoch,
                ..Fields::default()
            };
            let mut bytes = Vec::new();
            record::encode(&mut bytes, &fields, []);
            builder.push(&bytes, 1, 1);
        }
    };
    author.object(key, author.stream, header, encode).unwrap()
}

impl Writer {
    pub(super) fn new(store: Store, oracle: Arc<Mutex<Oracle>>) -> Self {
        let random: u128 = store.world.lock().rng.random();
        let run = Uuid::from_u128(random);
        let epoch = EpochFact {
            key: StreamKey::default(),
            run,
            format: 1,
            grant: 0,
            holder: String::new(),
            members: Vec::new(),
            forgotten: Vec::new(),
            closes: Vec::new(),
            accepted: Vec::new(),
            version: 1,
            mixed: Vec::new(),
        };
        let author = Author {
            writer: Uuid::nil(),
            directory: Uuid::nil(),
            stream: StreamId(random.to_be_bytes()),
            marker: random.to_le_bytes(),
            epoch,
        };
        Self { store, oracle, author }
    }

    fn chance(&self, of: u32) -> bool {
        self.store.world.lock().rng.random_range(0..of) == 0
    }

    /// From the first request to the loss of the directory; a crash drops it at any request.
    pub(super) async fn live(mut self) -> Lost {
        match self.sessions().await {
            Ok(never) => match never {},
            Err(lost) => lost,
        }
    }

    async fn sessions(&mut self) -> Result<std::convert::Infallible, Lost> {
        start::probe(&self.store, &format!("_wal/probe-{}", self.author.stream)).await?;
        let mut claimed = start::claim(&self.store, &self.author, Epoch(0)).await?;
        loop {
            let last = claimed.stream;
            self.session(claimed).await?;
            // Commits of one session never end up in another: its stream has an identity of its own.
            let random: u128 = self.store.world.lock().rng.random();
            self.author.stream = StreamId(random.to_be_bytes());
            claimed = start::reclaim(&self.store, &self.author, last).await?;
        }
    }

    /// The entries of the streams before ours.
    async fn read(&self, mine: StreamKey, fenced: &[Fenced]) -> Result<BTreeSet<Entry>, Lost> {
        let mut entries = BTreeSet::new();
        for stream in fenced.iter().rev() {
            for number in stream.floor + 1..stream.fence {
                let key = ObjectKey { stream: stream.key, number };
                let Some(bytes) = self.store.read(&key.to_string(), 0..u64::MAX).await? else {
                    start::missing(&self.store, mine, key).await?;
                    continue;
                };
                let (_, frame) = parse_object(&bytes, None).expect("objects of the model hold");
                entries.extend(frame.records().map(|record| record.expect("they decode").lsn.0));
            }
        }
        Ok(entries)
    }

    /// One session, until it is given up.
    async fn session(&self, claimed: Claimed) -> Result<(), Lost> {
        let Claimed { stream, before } = claimed;
        let fenced = fence_all(&self.store, &self.author, stream, before.keys().rev().copied()).await?;
        let mut entries = self.read(stream, &fenced).await?;
        let needed = fenced.last().map_or(stream, |oldest| oldest.key);
        let close = object(&self.author, ObjectKey { stream, number: CLOSE }, 0, needed, &BTreeSet::new());
        start::close(&self.store, &close).await?;
        self.oracle.lock().serves(stream, &entries);
        let leftovers = collect::leftovers(&self.store, &before, &fenced).await?;
        self.delete(leftovers.into_iter()).await?;

        let mut committer = Committer::new(stream);
        let (mut floor, mut oldest, mut collected) = (0, needed, 0);
        loop {
            if self.chance(4) {
                let checkpoint = committer.next();
                if !self.commit(&mut committer, floor, oldest, &entries).await? {
                    return Ok(());
                }
                if mutant!(OldestNotSaid) {
                    self.delete(collect::older(&fenced)).await?;
                }
                (floor, oldest) = (checkpoint.number - 1, stream);
            }
            let entry = self.oracle.lock().next_entry();
            if !self.commit(&mut committer, floor, oldest, &BTreeSet::from([entry])).await? {
                return Ok(());
            }
            entries.insert(entry);
            self.oracle.lock().acknowledged(stream, entry);
            if floor > collected {
                self.delete(collect::older(if collected == 0 { &fenced } else { &[] })).await?;
                self.delete(collect::own(stream, collected, floor)).await?;
                collected = floor;
            }
        }
    }

    async fn delete(&self, keys: impl Iterator<Item = ObjectKey>) -> Result<(), Lost> {
        for key in keys {
            self.store.delete(&key.to_string()).await?;
        }
        Ok(())
    }

    /// Commits; `false`: it took too long, and the session is given up.
    async fn commit(
        &self,
        committer: &mut Committer,
        floor: u64,
        oldest: StreamKey,
        entries: &BTreeSet<Entry>,
    ) -> Result<bool, Lost> {
        let object = object(&self.author, committer.next(), floor, oldest, entries);
        let gives_up = self.chance(40);
        let mut polls = 0;
        let mut commit = pin!(committer.commit(&self.store, &object));
        poll_fn(|context| {
            polls += 1;
            match commit.as_mut().poll(context) {
                Poll::Pending if gives_up && polls > 1 => {
                    self.store.world.lock().leave(self.store.writer);
                    Poll::Ready(Ok(false))
                }
                other => other.map(|result| result.map(|()| true)),
            }
        })
        .await
    }
}
