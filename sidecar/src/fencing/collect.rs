//! What may be deleted. Claims and fences never: they are why a writer that wakes up late finds its next number taken.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _};

use super::fence::Fenced;
use super::object::{CLAIM, Kind, ObjectKey, Seen};
use super::put::{Found, look};
use super::start::Streams;
use crate::directory::bucket::{Bucket, Denied};
use crate::format::StreamKey;

/// Objects that are looked at at a time.
const LOOKED_AT_ONCE: usize = 8;

/// The objects of our own stream up to `floor`, of which `done` were named before: by exact key, oldest first, from the close on. To be called
/// when a frame that says this floor is acknowledged.
pub fn own(stream: StreamKey, done: u64, floor: u64) -> impl Iterator<Item = ObjectKey> {
    (done + 1..=floor).map(move |number| ObjectKey { stream, number })
}

/// The objects of the streams that were read at the start, oldest first. To be called when a frame is acknowledged that says
/// that streams before ours may be gone.
pub fn older(fenced: &[Fenced]) -> impl Iterator<Item = ObjectKey> {
    fenced.iter().rev().flat_map(|stream| {
        let fence = mutant!(FencesCollected).then_some(stream.fence);
        let numbers = stream.numbers.iter().copied().chain(fence);
        numbers.map(|number| ObjectKey { stream: stream.key, number })
    })
}

/// What starts before ours were about to delete when they ended: objects of streams below all that were read. A stream of a
/// claim and one more object has nothing but its fence left.
///
/// # Errors
/// When the store refuses.
pub async fn leftovers(bucket: &impl Bucket, before: &Streams, fenced: &[Fenced]) -> Result<Vec<ObjectKey>, Denied> {
    let older = before.iter().filter(|(key, _)| fenced.iter().all(|read| **key < read.key));
    let more = older.filter(|(_, numbers)| numbers.iter().filter(|number| **number != CLAIM).count() >= 2);
    let of = |(&stream, numbers): (&StreamKey, &BTreeSet<u64>)| {
        numbers.iter().map(|&number| ObjectKey { stream, number }).collect::<Vec<_>>()
    };
    let left: Vec<_> = more.flat_map(of).collect();
    let looked = futures_util::stream::iter(left).map(|key| ordinary(bucket, key)).buffered(LOOKED_AT_ONCE);
    looked.try_filter_map(|key| std::future::ready(Ok(key))).try_collect().await
}

/// The key, where an ordinary object is there.
async fn ordinary(bucket: &impl Bucket, key: ObjectKey) -> Result<Option<ObjectKey>, Denied> {
    let found = look(bucket, key).await?;
    Ok(matches!(found, Found::Valid(Seen { kind: Kind::Ordinary, .. })).then_some(key))
}
