//! The least that makes a log of the protocol by which writers take a bucket over from each other: each commit adds an
//! entry, a checkpoint repeats all, so that what stands before it may go. Beside it, what was promised to clients.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;
use walstorage_sidecar::directory::bucket::Bucket;
use walstorage_sidecar::fencing::commit::Committer;
use walstorage_sidecar::fencing::fence::{Fenced, fence_all};
use walstorage_sidecar::fencing::object::{Author, CLOSE, Object, ObjectKey};
use walstorage_sidecar::fencing::start::{self, Claimed};
use walstorage_sidecar::fencing::{Lost, collect};
use walstorage_sidecar::format::facts::EpochFact;
use walstorage_sidecar::format::frame::{FrameBuilder, FrameHeader};
use walstorage_sidecar::format::object::parse_object;
use walstorage_sidecar::format::record::{self, Fields, Kind};
use walstorage_sidecar::format::{StreamId, StreamKey};
use walstorage_sidecar::types::{Epoch, Incarnation, Lsn};

/// What an entry is here.
pub type Entry = u64;

/// Knows what was acknowledged and who serves what, and counts every promise that is broken.
#[derive(Debug, Default)]
pub struct Oracle {
    last: Entry,
    acknowledged: BTreeMap<Entry, StreamKey>,
    /// What each start had found when it began to serve.
    found: BTreeMap<StreamKey, BTreeSet<Entry>>,
    /// Acknowledged entries that a later start did not find.
    pub lost: Vec<String>,
    /// Acknowledgements of a writer from whom another had taken over.
    pub zombies: Vec<String>,
}

impl Oracle {
    fn next_entry(&mut self) -> Entry {
        self.last += 1;
        self.last
    }

    /// How many starts came to serve.
    #[must_use]
    pub fn starts(&self) -> usize {
        self.found.len()
    }

    /// How many entries were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    fn serves(&mut self, stream: StreamKey, found: &BTreeSet<Entry>) {
        for (entry, by) in &self.acknowledged {
            if *by < stream && !found.contains(entry) {
                self.lost.push(format!("{stream} serves without entry {entry}, which {by} had acknowledged"));
            }
        }
        self.found.insert(stream, found.clone());
    }

    fn acknowledges(&mut self, stream: StreamKey, entry: Entry) {
        for (later, found) in self.found.range(stream..).filter(|(later, _)| **later != stream) {
            if !found.contains(&entry) {
                self.zombies.push(format!("{stream} acknowledges entry {entry} while {later} serves without it"));
            }
        }
        self.acknowledged.insert(entry, stream);
    }
}

/// A writer, from its start until it has committed as much as it wanted.
pub struct Writer<B> {
    bucket: B,
    oracle: Arc<Mutex<Oracle>>,
    random: Mutex<StdRng>,
    author: Author,
    /// So many entries are committed in all.
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

impl<B: Bucket> Writer<B> {
    /// A writer that commits so many entries.
    pub fn new(bucket: B, oracle: Arc<Mutex<Oracle>>, seed: u64, entries: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let id: u128 = random.random();
        let epoch = EpochFact {
            key: StreamKey::default(),
            run: Uuid::from_u128(id),
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
            stream: StreamId(id.to_be_bytes()),
            marker: id.to_le_bytes(),
            epoch,
        };
        Self { bucket, oracle, random: Mutex::new(random), author, entries }
    }

    fn chance(&self, of: u32) -> bool {
        self.random.lock().random_range(0..of) == 0
    }

    /// From the first request until enough is committed, or the directory is lost.
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
            let id: u128 = self.random.lock().random();
            self.author.stream = StreamId(id.to_be_bytes());
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
                let (_, frame) = parse_object(&bytes, None).expect("what was created holds");
                entries.extend(frame.records().map(|record| record.expect("it decodes").lsn.0));
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
        let close = object(&self.author, ObjectKey { stream, number: CLOSE }, 0, needed, &BTreeSet::new());
        start::close(&self.bucket, &close).await?;
        self.oracle.lock().serves(stream, &entries);
        self.delete(collect::leftovers(&self.bucket, &before, &fenced).await.map_err(Lost::from)?.into_iter()).await?;

        let mut committer = Committer::new(stream);
        let (mut floor, mut oldest, mut collected) = (0, needed, 0);
        while self.entries > 0 {
            if self.chance(4) {
                let checkpoint = committer.next();
                if !self.commit(&mut committer, floor, oldest, &entries).await? {
                    return Ok(());
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

    /// Commits; `false`: it was given up while a request was under way, and so is the session.
    async fn commit(
        &self,
        committer: &mut Committer,
        floor: u64,
        oldest: StreamKey,
        entries: &BTreeSet<Entry>,
    ) -> Result<bool, Lost> {
        let object = object(&self.author, committer.next(), floor, oldest, entries);
        let most = if self.chance(20) { self.random.lock().random_range(1..5) } else { u32::MAX };
        let mut polls = 0;
        let mut commit = pin!(committer.commit(&self.bucket, &object));
        poll_fn(|context| {
            polls += 1;
            match commit.as_mut().poll(context) {
                Poll::Pending if polls >= most => Poll::Ready(Ok(false)),
                other => other.map(|result| result.map(|()| true)),
            }
        })
        .await
    }
}

fn object(author: &Author, key: ObjectKey, floor: u64, oldest: StreamKey, entries: &BTreeSet<Entry>) -> Object {
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
    author.object(key, author.stream, header, fill).expect("it fits into a frame")
}
