//! A writer: the real protocol, and beside it the least that makes a log of it. Each commit adds an entry; a checkpoint
//! repeats all, so that what stands before it may go.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use uuid::Uuid;

use super::oracle::{Entry, Oracle};
use crate::directory::bucket::Bucket;
use crate::fencing::commit::Committer;
use crate::fencing::fence::{Fenced, fence_all};
use crate::fencing::object::{Author, CLOSE, Object, ObjectKey};
use crate::fencing::start::{self, Claimed};
use crate::fencing::{Lost, collect};
use crate::format::facts::EpochFact;
use crate::format::frame::{FrameBuilder, FrameHeader};
use crate::format::object::parse_object;
use crate::format::record::{self, Fields, Kind};
use crate::format::{StreamId, StreamKey};
use crate::types::{Epoch, Incarnation, Lsn};

/// What a writer leaves to whoever runs it.
pub trait Fortune: Sync {
    /// A number that nobody else gets.
    fn identity(&self) -> u128;

    /// Yes, in one of so many cases.
    fn chance(&self, of: u32) -> bool;

    /// So often the next commit is polled at most: then its session is given up, its request under way.
    fn patience(&self) -> u32;

    /// A session is given up.
    fn gives_up(&self) {}
}

/// A writer, from its start until it has committed as much as it wanted.
pub struct Writer<B, F> {
    bucket: B,
    fortune: F,
    oracle: Arc<Mutex<Oracle>>,
    author: Author,
    /// So many entries are still to be committed.
    entries: u64,
}

/// Why a life ends.
enum End {
    Done,
    Lost(Lost),
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl<B: Bucket, F: Fortune> Writer<B, F> {
    /// A writer that commits so many entries.
    pub fn new(bucket: B, fortune: F, oracle: Arc<Mutex<Oracle>>, entries: u64) -> Self {
        let id = fortune.identity();
        let epoch = EpochFact::of_a_claim(Uuid::from_u128(id), 0, String::new());
        let author = Author {
            writer: Uuid::nil(),
            directory: Uuid::nil(),
            stream: StreamId(id.to_be_bytes()),
            marker: id.to_le_bytes(),
            epoch,
        };
        Self { bucket, fortune, oracle, author, entries }
    }

    /// From the first request until enough is committed, or the directory is lost; whoever drops it crashes the writer.
    ///
    /// # Errors
    /// How it was lost.
    pub async fn live(mut self) -> Result<(), Lost> {
        match self.sessions().await {
            Ok(never) => match never {},
            Err(End::Done) => Ok(()),
            Err(End::Lost(lost)) => Err(lost),
        }
    }

    async fn sessions(&mut self) -> Result<Infallible, End> {
        start::probe(&self.bucket, &format!("_wal/probe-{}", self.author.stream)).await?;
        let mut claimed = start::claim(&self.bucket, &self.author, Epoch(0)).await?;
        loop {
            let last = claimed.stream;
            self.session(claimed).await?;
            // Commits of one session never end up in another: its stream has an identity of its own.
            self.author.stream = StreamId(self.fortune.identity().to_be_bytes());
            claimed = start::reclaim(&self.bucket, &self.author, last).await?;
        }
    }

    /// The entries of the streams before ours.
    async fn read(&self, mine: StreamKey, fenced: &[Fenced]) -> Result<BTreeSet<Entry>, Lost> {
        let mut entries = BTreeSet::new();
        for stream in fenced.iter().rev() {
            for number in stream.floor + 1..stream.fence {
                let key = ObjectKey { stream: stream.key, number };
                let Some(bytes) = self.bucket.read(&key.to_string(), 0..u64::MAX).await? else {
                    start::missing(&self.bucket, mine, key).await?;
                    continue;
                };
                let (_, frame) = parse_object(&bytes, None).map_err(|error| damage(key, &error))?;
                for record in frame.records() {
                    entries.insert(record.map_err(|error| damage(key, &error))?.lsn.0);
                }
            }
        }
        Ok(entries)
    }

    /// One session, until it is given up.
    async fn session(&mut self, claimed: Claimed) -> Result<(), End> {
        let Claimed { stream, before } = claimed;
        let fenced = fence_all(&self.bucket, &self.author, stream, before.keys().rev().copied()).await?;
        let mut entries = self.read(stream, &fenced).await?;
        let needed = fenced.last().map_or(stream, |oldest| oldest.key);
        let close = object(&self.author, ObjectKey { stream, number: CLOSE }, 0, needed, &BTreeSet::new())?;
        start::close(&self.bucket, &close).await?;
        self.oracle.lock().serves(stream, &entries);
        let leftovers = collect::leftovers(&self.bucket, &before, &fenced).await.map_err(Lost::from)?;
        self.delete(leftovers.into_iter()).await?;

        let mut committer = Committer::new(stream);
        let (mut floor, mut oldest, mut collected) = (0, needed, 0);
        while self.entries > 0 {
            if self.fortune.chance(4) {
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
            self.oracle.lock().acknowledges(stream, entry);
            self.entries -= 1;
            if floor > collected {
                self.delete(collect::older(if collected == 0 { &fenced } else { &[] })).await?;
                self.delete(collect::own(stream, collected, floor)).await?;
                collected = floor;
            }
        }
        Err(End::Done)
    }

    async fn delete(&self, keys: impl Iterator<Item = ObjectKey>) -> Result<(), Lost> {
        for key in keys {
            self.bucket.delete(&key.to_string()).await?;
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
        let object = object(&self.author, committer.next(), floor, oldest, entries)?;
        let patience = self.fortune.patience();
        let mut polls = 0;
        let mut commit = pin!(committer.commit(&self.bucket, &object));
        poll_fn(|context| {
            polls += 1;
            match commit.as_mut().poll(context) {
                Poll::Pending if polls >= patience => {
                    self.fortune.gives_up();
                    Poll::Ready(Ok(false))
                }
                other => other.map(|result| result.map(|()| true)),
            }
        })
        .await
    }
}

/// What was created is not as it was made.
fn damage(key: ObjectKey, error: &impl std::fmt::Display) -> Lost {
    Lost::Damage { key: key.to_string(), why: error.to_string() }
}

fn object(
    author: &Author,
    key: ObjectKey,
    floor: u64,
    oldest: StreamKey,
    entries: &BTreeSet<Entry>,
) -> Result<Object, Lost> {
    let header = FrameHeader {
        epoch: key.stream.epoch,
        floor,
        oldest: oldest.epoch,
        oldest_session: oldest.session,
        ..FrameHeader::default()
    };
    let fill = |builder: &mut FrameBuilder| {
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
    author.object(key, author.stream, header, fill).map_err(|error| Lost::too_long(key, error))
}
