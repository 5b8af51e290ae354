//! The protocol as blocking calls: one start's part in it, kept from its claim to its last commit.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

use super::disk::key_of;
use super::{BucketDirectory, Objects, Room, Shared, Taken, refused};
use crate::commit::pace::AT_ONCE;
use crate::directory::bucket::{Bucket, Denied};
use crate::directory::trouble::Trouble;
use crate::fencing::commit::Committer;
use crate::fencing::fence::fence_all;
use crate::fencing::object::{Author, CLOSE, Object, ObjectKey};
use crate::fencing::{Lost, collect, start};
use crate::format::facts::EpochFact;
use crate::format::{StreamId, StreamKey};
use crate::types::Epoch;
use crate::{ambient, fencing};

/// Objects that are read at a time. Each counts as large as a commit is cut; one large batch may be more.
pub(crate) const READ_AHEAD: usize = 8;
/// Objects that are deleted at a time: commits have to pass between them.
const REMOVED_AT_ONCE: usize = 8;

/// Room for one object that is read ahead, until it is dropped.
struct Taking<'a>(&'a dyn Room);

impl<'a> Taking<'a> {
    fn of(room: &'a dyn Room) -> Option<Self> {
        room.take(AT_ONCE as u64).then(|| Self(room))
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.0.give_back(AT_ONCE as u64);
    }
}

impl<B: Bucket + Send + 'static> Shared<B> {
    /// What is asked out of turn.
    fn not_ours(&self, what: &str) -> Lost {
        Lost::Damage { key: self.root.clone(), why: format!("{what}: this is a defect") }
    }
}

impl<B: Bucket + Send + 'static> Objects for BucketDirectory<B> {
    fn trouble(&self) -> Option<Trouble> {
        self.0.bucket.trouble()
    }

    fn begin(&self) {
        self.0.silent.store(false, Ordering::Relaxed);
    }

    fn probe(&self) -> Result<(), Lost> {
        let mut probed = self.0.probed.lock();
        if !*probed {
            self.0.ask(start::probe(&self.0.bucket, &format!("_wal/probe-{}", ambient::uuid())))?;
            *probed = true;
        }
        Ok(())
    }

    fn highest(&self) -> Result<Epoch, Lost> {
        self.0.ask(async { Ok::<_, Lost>(start::highest(&self.0.bucket).await?) })
    }

    fn granted(&self) -> Result<Option<EpochFact>, Lost> {
        self.0.ask(async { Ok::<_, Lost>(start::granted(&self.0.bucket).await?) })
    }

    fn claim(&self, author: Author, epoch: Epoch) -> Result<bool, Lost> {
        let mut part = self.0.part.lock();
        *self.0.taken.lock() = None;
        (part.author, part.claimed, part.committer) = (None, None, None);
        let ours = self.0.ask(start::claim_one(&self.0.bucket, &author, epoch))?;
        if ours {
            (part.author, part.claimed) = (Some(author), Some(StreamKey { epoch, session: 0 }));
        }
        Ok(ours)
    }

    fn take_over(&self) -> Result<(), Lost> {
        let part = self.0.part.lock();
        let (Some(author), Some(stream)) = (&part.author, part.claimed) else {
            return Err(self.0.not_ours("nothing is claimed"));
        };
        let bucket = &self.0.bucket;
        let taken = self.0.ask(async {
            let start::Claimed { stream, before } = start::what_is_before(bucket, stream).await?;
            let fenced = fence_all(bucket, author, stream, before.keys().rev().copied()).await?;
            let leftovers = collect::leftovers(bucket, &before, &fenced).await?;
            Ok::<_, Lost>(Taken { stream, id: author.stream, fenced, leftovers })
        })?;
        *self.0.taken.lock() = Some(Arc::new(taken));
        Ok(())
    }

    fn taken(&self) -> Option<Arc<Taken>> {
        self.0.taken.lock().clone()
    }

    fn read(
        &self,
        keys: &[ObjectKey],
        room: &dyn Room,
        each: &mut dyn FnMut(ObjectKey, Option<Bytes>) -> bool,
    ) -> Result<(), Lost> {
        let bucket = &self.0.bucket;
        let read = |key: ObjectKey| async move { (key, bucket.read(&key.to_string(), 0..u64::MAX).await) };
        self.0.ask(async {
            let mut keys = keys.iter().copied();
            let mut reads = FuturesOrdered::new();
            // For all of them but the next.
            let mut taken = VecDeque::new();
            loop {
                if reads.is_empty() {
                    let Some(key) = keys.next() else { return Ok(()) };
                    reads.push_back(read(key));
                } else {
                    // It is needed next, whatever room there is.
                    drop(taken.pop_front());
                }
                while reads.len() < READ_AHEAD
                    && keys.len() > 0
                    && let Some(more) = Taking::of(room)
                    && let Some(key) = keys.next()
                {
                    taken.push_back(more);
                    reads.push_back(read(key));
                }
                let Some((key, found)) = reads.next().await else { return Ok(()) };
                if !each(key, found?) {
                    return Ok(());
                }
            }
        })
    }

    fn parts(&self, wanted: &[(PathBuf, Range<u64>)], each: &mut dyn FnMut(Option<Bytes>)) -> io::Result<()> {
        let bucket = &self.0.bucket;
        let keys: Vec<(String, Range<u64>)> =
            wanted.iter().map(|(path, range)| Ok((key_of(path)?, range.clone()))).collect::<io::Result<_>>()?;
        let read = |(key, range): (String, Range<u64>)| async move { bucket.read(&key, range).await };
        let all = self.0.ask(async {
            let mut parts = std::pin::pin!(futures_util::stream::iter(keys).map(read).buffered(READ_AHEAD));
            while let Some(part) = parts.next().await {
                each(part?);
            }
            Ok::<_, Denied>(())
        });
        all.map_err(refused)
    }

    fn missing(&self, key: ObjectKey) -> Result<(), Lost> {
        let Some(taken) = self.taken() else { return Err(self.0.not_ours("nothing is claimed")) };
        self.0.ask(start::missing(&self.0.bucket, taken.stream, key))
    }

    fn next_session(&self, stream: StreamKey, id: StreamId) -> Result<(), Lost> {
        let mut part = self.0.part.lock();
        part.committer = None;
        let Some(author) = part.author.as_mut() else { return Err(self.0.not_ours("nothing is claimed")) };
        author.stream = id;
        let (bucket, author) = (&self.0.bucket, &*author);
        let Some(session) = stream.session.checked_sub(1) else { return Err(self.0.not_ours("no session before")) };
        let last = StreamKey { session, ..stream };
        self.0.wait(async {
            let fencing::start::Claimed { stream, before } = start::reclaim(bucket, author, last).await?;
            // Those of earlier starts have their fences.
            let sessions = before.keys().rev().copied().filter(|other| other.epoch == stream.epoch);
            fence_all(bucket, author, stream, sessions).await?;
            Ok::<_, Lost>(())
        })?;
        part.claimed = Some(stream);
        Ok(())
    }

    fn commit(&self, object: &Object) -> Result<(), Lost> {
        let mut part = self.0.part.lock();
        let (bucket, stream) = (&self.0.bucket, object.key.stream);
        let result = if object.key.number == CLOSE && part.claimed == Some(stream) {
            self.0.wait(start::close(bucket, object)).map(|()| part.committer = Some(Committer::new(stream)))
        } else {
            match &mut part.committer {
                Some(committer) if committer.next() == object.key => self.0.wait(committer.commit(bucket, object)),
                _ => Err(self.0.not_ours(&format!("{} is not next", object.key))),
            }
        };
        if result.is_err() {
            // Its outcome is not known: nothing goes behind it.
            (part.committer, part.claimed) = (None, None);
        }
        result
    }

    fn create(&self, path: &Path, bytes: Bytes) -> io::Result<()> {
        self.0.create(&key_of(path)?, &bytes)
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<(), (BTreeSet<usize>, io::Error)> {
        let bucket = &self.0.bucket;
        let left = RefCell::new((0..paths.len()).collect::<BTreeSet<_>>());
        let first = RefCell::new(None);
        let remove = |(index, path): (usize, &PathBuf)| {
            let key = key_of(path);
            let (left, first) = (&left, &first);
            async move {
                let removed = match key {
                    Ok(key) => bucket.delete(&key).await.map_err(refused),
                    Err(error) => Err(error),
                };
                match removed {
                    Ok(()) => drop(left.borrow_mut().remove(&index)),
                    Err(error) => drop(first.borrow_mut().get_or_insert(error)),
                }
            }
        };
        let all = futures_util::stream::iter(paths.iter().enumerate()).for_each_concurrent(REMOVED_AT_ONCE, remove);
        let asked = self.0.ask(async {
            all.await;
            Ok::<_, Denied>(())
        });
        match first.into_inner().or(asked.err().map(refused)) {
            None => Ok(()),
            Some(error) => Err((left.into_inner(), error)),
        }
    }

    fn publish(&self, path: &Path, bytes: Bytes) -> io::Result<()> {
        self.0.publish(&key_of(path)?, &bytes)
    }
}
