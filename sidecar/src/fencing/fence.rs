//! The end of a stream whose writer may be alive: an object at the number that it would use next.

use std::collections::BTreeSet;

use super::Lost;
use super::object::{Author, CLAIM, Kind, ObjectKey, Seen, folder};
use super::put::{Found, Put, look, put};
use crate::directory::bucket::{Bucket, Denied};
use crate::format::{StreamId, StreamKey};

/// A stream to which nothing can be added any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    /// The stream.
    pub key: StreamKey,
    /// Its identity, where any object of it could be read.
    pub stream: Option<StreamId>,
    /// The objects from which it is read: those above its floor, before its fence.
    pub numbers: Vec<u64>,
    /// Objects up to this number are not needed.
    pub floor: u64,
    /// The fence's number: nothing stands behind it.
    pub fence: u64,
    /// Streams before this one are not needed.
    pub oldest: StreamKey,
}

/// The end of a stream as one list shows it.
struct End {
    numbers: BTreeSet<u64>,
    stream: Option<StreamId>,
    /// The last number that its writer has used, as far as seen.
    last: u64,
    floor: u64,
    oldest: StreamKey,
    /// What stands behind that number is a fence.
    fenced: bool,
}

async fn end(bucket: &impl Bucket, key: StreamKey) -> Result<End, Denied> {
    let keys = bucket.list(&folder(key)).await?;
    let numbers: BTreeSet<u64> =
        keys.iter().filter_map(|key| ObjectKey::parse(key)).filter(|at| at.stream == key).map(|at| at.number).collect();
    let mut end = End { numbers, stream: None, last: CLAIM, floor: 0, oldest: StreamKey::default(), fenced: false };
    let mut fences = BTreeSet::new();
    // From the newest on down to the first that says how far the stream is needed.
    for &number in end.numbers.iter().rev() {
        match look(bucket, ObjectKey { stream: key, number }).await? {
            Found::Valid(Seen { kind: Kind::Fence, stream, .. }) => {
                fences.insert(number);
                end.stream = end.stream.or(Some(stream));
            }
            Found::Valid(Seen { kind: Kind::Ordinary, stream, floor, oldest, .. }) => {
                (end.stream, end.floor, end.oldest) = (Some(stream), floor, oldest);
                end.last = end.last.max(number);
                break;
            }
            Found::Valid(Seen { kind: Kind::Claim, stream, .. }) => end.stream = Some(stream),
            // It may be a commit: nothing before it ends the stream. It may be a fence as well, so nobody ever deletes it.
            Found::Invalid => end.last = end.last.max(number),
            // Deleted meanwhile: its writer, or one that has fenced it, is alive. Another list will tell.
            Found::Absent => {}
        }
    }
    end.fenced = fences.contains(&(end.last + 1));
    Ok(end)
}

/// Puts a fence behind the last object of a stream, and makes sure that its writer has not passed it.
///
/// The writer has one create under way, of the number after its last; so that is where the fence goes. It may come too late
/// for that number, and find it free: a writer that is alive may have committed there, said in a later frame that this is
/// not needed any more, and deleted it. Such a fence fences nothing. That is what the second look is for.
///
/// # Errors
/// When the store refuses.
pub async fn fence(bucket: &impl Bucket, author: &Author, mine: StreamKey, key: StreamKey) -> Result<Fenced, Lost> {
    loop {
        let before = end(bucket, key).await?;
        let number = before.last + 1;
        if !before.fenced && !mutant!(NoFence) {
            let at = ObjectKey { stream: key, number };
            let object =
                author.fence(at, before.stream.unwrap_or_default(), mine).map_err(|error| Lost::too_long(at, error))?;
            match put(bucket, &object).await? {
                Put::Ours | Put::Taken(Some(Seen { kind: Kind::Fence, .. })) => {}
                // The writer was faster: behind that, then.
                Put::Taken(_) => continue,
            }
        }
        let after = if mutant!(FenceNotVerified) { before } else { end(bucket, key).await? };
        if after.last >= number {
            // The writer is alive, and has passed the number before the fence was there.
            continue;
        }
        let End { numbers, stream, floor, oldest, .. } = after;
        let numbers = numbers.range(floor + 1..number).copied().collect();
        return Ok(Fenced { key, stream, numbers, floor, fence: number, oldest });
    }
}

/// Fences the streams before ours, the newest first, as far down as they are needed. A frame that says that older ones are
/// not was written behind a close, and so by a start that had fenced them all: a start does not get slower with the number
/// of starts before it.
///
/// # Errors
/// When the store refuses.
pub async fn fence_all(
    bucket: &impl Bucket,
    author: &Author,
    mine: StreamKey,
    before: impl Iterator<Item = StreamKey>,
) -> Result<Vec<Fenced>, Lost> {
    let mut fenced: Vec<Fenced> = Vec::new();
    for key in before {
        if fenced.iter().any(|newer| key < newer.oldest) {
            break;
        }
        fenced.push(fence(bucket, author, mine, key).await?);
    }
    Ok(fenced)
}
