//! The last requests of producers, where a journal is damaged: lost frames held stamps that perhaps no fact repeats, but
//! the entries may be in segments, and with them their stamps. Without them a retry would be stored again.
//!
//! Only segments are read that were written since the oldest stream with damage began: what a frame held is flushed in
//! its own epoch or a later one.

use std::collections::HashMap;

use bytes::Bytes;
use uuid::Uuid;

use super::content;
use super::merge::{Merged, MergedCollection};
use crate::commit::collection::DirIx;
use crate::commit::producers::LastRequest;
use crate::commit::read::SegmentRead;
use crate::commit::segments::{Segment, SegmentPath, SharedFile, epoch_of};
use crate::directory::disk::SharedDisk;
use crate::engine::segment_read::{self, ReadError};
use crate::format::record;

/// Adds what the segments say of producers, where frames are lost. Answers a sentence for each segment that says nothing.
pub(super) fn look_for(
    merged: &mut Merged,
    shared: &[(Uuid, SharedFile)],
    disks: &[SharedDisk],
    home_of: impl Fn(Uuid) -> Option<DirIx>,
) -> Vec<String> {
    let Some(since) = merged.damaged_since else { return Vec::new() };
    let number_of: HashMap<Uuid, u64> = shared.iter().map(|(id, file)| (*id, file.number)).collect();
    let mut warnings = Vec::new();
    for collection in &mut merged.collections {
        let mut requests: HashMap<Bytes, LastRequest> = HashMap::new();
        for (fact, last) in &collection.segments {
            let Some(dir) = home_of(fact.directory).filter(|_| epoch_of(fact.segment) >= since) else { continue };
            let Some(disk) = disks.get(dir) else { continue };
            let segment = Segment::of_fact(fact, *last, dir);
            let number = number_of.get(&segment.id).copied();
            let path = SegmentPath::of(&collection.name, &segment, disk.objects().is_some(), number);
            let from = segment.first.max(collection.truncated_to.next());
            let (name, incarnation) = (collection.name.clone(), collection.incarnation);
            let wanted = SegmentRead { name, incarnation, path, from, to: segment.last, segment };
            if let Err(why) = read(disk, wanted, &mut requests) {
                warnings.push(not_known(collection, &why));
            }
        }
        let mut requests: Vec<(Bytes, LastRequest)> = requests.into_iter().collect();
        requests.sort_by_key(|(_, request)| request.first);
        for (id, request) in requests {
            collection.producers.recovered(&id, request);
        }
    }
    warnings
}

/// The last request of each producer in a segment.
fn read(
    disk: &SharedDisk,
    mut wanted: SegmentRead,
    requests: &mut HashMap<Bytes, LastRequest>,
) -> Result<(), ReadError> {
    let mut index = None;
    while wanted.from <= wanted.to {
        let found = segment_read::read(disk.as_ref(), &wanted, index.take(), u64::MAX)?;
        let mut rest = found.records.as_slice();
        while let Ok((record, length)) = record::decode(rest) {
            rest = &rest[length..];
            if let Some(request) = LastRequest::of(&record) {
                content::note_request(requests, record.producer_id, request);
            }
        }
        (wanted.from, index) = (found.next, Some(found.index));
    }
    Ok(())
}

fn not_known(collection: &MergedCollection, why: &ReadError) -> String {
    format!(
        "{why}: what producers sent last to {:?} may not be known, and a request that is repeated may be stored again",
        collection.name.as_str()
    )
}
