//! The beginning and the end of a start: to claim an epoch, and to close what came before it.

use std::collections::{BTreeMap, BTreeSet};

use super::Lost;
use super::object::{Author, CLAIM, CLOSE, JOURNAL, Object, ObjectKey};
use super::put::{Found, Put, look, put};
use crate::directory::bucket::{Bucket, CreateError, Denied};
use crate::format::StreamKey;
use crate::format::facts::{EpochFact, Fact as _};
use crate::format::object::parse_object;
use crate::types::Epoch;

/// So many claims are looked at for one that has a grant.
const CLAIMS: usize = 16;

/// Finds out whether the store keeps to create-only: creates a key of its own twice.
///
/// # Errors
/// [`Lost::Unconditional`] when it does not.
pub async fn probe(bucket: &impl Bucket, key: &str) -> Result<(), Lost> {
    let body = bytes::Bytes::from_static(b"WalStorage asks whether this store creates a key once only.\n");
    let mut created = false;
    for attempt in 1.. {
        match bucket.create(key, body.clone()).await {
            Ok(()) if created => return Err(Lost::Unconditional),
            Ok(()) => created = true,
            // Of an attempt before this one it may be, whose answer was lost: either way one was refused.
            Err(CreateError::Taken) => break,
            Err(CreateError::Unclear(_)) => bucket.back_off(attempt).await,
            Err(CreateError::Denied(why)) => return Err(why.into()),
        }
    }
    Ok(bucket.delete(key).await?)
}

/// An epoch that is ours as long as nobody claims a higher one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Our stream.
    pub stream: StreamKey,
    /// The streams before it, with the numbers of their objects.
    pub before: Streams,
}

/// Streams, and the numbers of their objects.
pub type Streams = BTreeMap<StreamKey, BTreeSet<u64>>;

async fn streams(bucket: &impl Bucket) -> Result<Streams, Denied> {
    let mut streams = Streams::new();
    for key in bucket.list(JOURNAL).await?.iter().filter_map(|key| ObjectKey::parse(key)) {
        streams.entry(key.stream).or_default().insert(key.number);
    }
    Ok(streams)
}

/// Claims an epoch: at least `granted`, and above every one that is there.
///
/// # Errors
/// [`Lost::Fenced`] when a higher epoch was claimed meanwhile.
pub async fn claim(bucket: &impl Bucket, author: &Author, granted: Epoch) -> Result<Claimed, Lost> {
    let mut epoch = granted.max(Epoch(highest(bucket).await?.0.saturating_add(1)));
    while !claim_one(bucket, author, epoch).await? {
        epoch.0 = epoch.0.saturating_add(1);
    }
    what_is_before(bucket, StreamKey { epoch, session: 0 }).await
}

/// The highest epoch of which there is an object; 0 where there is none.
///
/// # Errors
/// When the store refuses.
pub async fn highest(bucket: &impl Bucket) -> Result<Epoch, Denied> {
    Ok(streams(bucket).await?.keys().last().map_or(Epoch(0), |stream| stream.epoch))
}

/// Who was granted what last: the EPOCH of the newest claim that has a grant. Those of starts without one copy it to where it
/// takes more than one look to find.
///
/// # Errors
/// When the store refuses.
pub async fn granted(bucket: &impl Bucket) -> Result<Option<EpochFact>, Denied> {
    let streams = streams(bucket).await?;
    for &stream in streams.keys().rev().filter(|stream| stream.session == 0).take(CLAIMS) {
        let claim = ObjectKey { stream, number: CLAIM };
        let found = bucket.read(&claim.to_string(), 0..u64::MAX).await?;
        if let Some(epoch) = found.and_then(|bytes| epoch_of(&bytes, claim)).filter(|epoch| epoch.grant > 0) {
            return Ok(Some(epoch));
        }
    }
    Ok(None)
}

/// What a claim or a fence says of its author; `None` where it does not hold.
fn epoch_of(bytes: &[u8], key: ObjectKey) -> Option<EpochFact> {
    let (header, frame) = parse_object(bytes, None).ok()?;
    if (header.key, header.file) != (key.stream, key.number) {
        return None;
    }
    frame.records().filter_map(Result::ok).find_map(|record| EpochFact::decode(&record).ok())
}

/// Claims exactly this epoch; whether it is ours. A writer of several directories has one epoch in all of them, so it looks
/// at all, claims one, and takes the next where that is somebody's anywhere. [`what_is_before`] follows in each.
///
/// # Errors
/// When the store refuses.
pub async fn claim_one(bucket: &impl Bucket, author: &Author, epoch: Epoch) -> Result<bool, Lost> {
    let claim = claim_of(author, StreamKey { epoch, session: 0 })?;
    Ok(put(bucket, &claim).await? == Put::Ours)
}

/// Claims the next session of an epoch that is ours: its stream after the one before it was given up.
///
/// # Errors
/// [`Lost::Fenced`] when a higher epoch was claimed meanwhile.
pub async fn reclaim(bucket: &impl Bucket, author: &Author, last: StreamKey) -> Result<Claimed, Lost> {
    let stream = StreamKey { session: last.session + 1, ..last };
    match put(bucket, &claim_of(author, stream)?).await? {
        Put::Ours => what_is_before(bucket, stream).await,
        // Only this process makes sessions of its epoch: it can be no one but a later start, with a fence.
        Put::Taken(_) => Err(Lost::Fenced { by: stream }),
    }
}

/// The second list, behind the claim of `stream`. A start that listed before our claim was there may claim an epoch below ours: it looks again too, and
/// finds us above it. Whoever lists after this has our claim in its first list.
///
/// # Errors
/// [`Lost::Fenced`] when a higher epoch was claimed meanwhile.
pub async fn what_is_before(bucket: &impl Bucket, stream: StreamKey) -> Result<Claimed, Lost> {
    let mut before = streams(bucket).await?;
    if let Some(by) = before.keys().last().filter(|last| last.epoch > stream.epoch && !mutant!(NoSecondList)) {
        return Err(Lost::Fenced { by: *by });
    }
    before.retain(|other, _| *other < stream);
    Ok(Claimed { stream, before })
}

fn claim_of(author: &Author, stream: StreamKey) -> Result<Object, Lost> {
    author.claim(stream).map_err(|error| Lost::too_long(ObjectKey { stream, number: CLAIM }, error))
}

/// Writes the close: the object of number [`super::object::CLOSE`]. Only then may anything be served, truncated or deleted.
///
/// # Errors
/// [`Lost::Fenced`] when a later start was faster.
pub async fn close(bucket: &impl Bucket, close: &Object) -> Result<(), Lost> {
    match put(bucket, close).await? {
        Put::Ours => Ok(()),
        Put::Taken(_) => Err(Lost::Fenced { by: close.key.stream }),
    }
}

/// Why an object between the floor and the fence of an older stream is not there: a later start may have taken over from
/// us, read it, and deleted it. Then our close is taken.
///
/// # Errors
/// Always: [`Lost::Fenced`] then, else [`Lost::Damage`].
pub async fn missing(bucket: &impl Bucket, mine: StreamKey, key: ObjectKey) -> Result<(), Lost> {
    let close = ObjectKey { stream: mine, number: CLOSE };
    if look(bucket, close).await? != Found::Absent && !mutant!(OwnCloseNotLookedAt) {
        return Err(Lost::Fenced { by: mine });
    }
    Err(Lost::Damage { key: key.to_string(), why: "the object is gone".into() })
}
