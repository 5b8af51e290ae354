//! Reading the journal of a bucket: the streams that were fenced when it was taken over, each from its floor to its fence.
//!
//! 1. Only a stream that has a fence is read, so what is read stays as it is. Every number up to the fence was used: one that
//!    is missing there, or does not hold, is damage, unless a later start has deleted it, which has fenced ours then.
//! 2. A stream ends where a newer one says, else at its fence.
//! 3. What does not hold is never deleted: it may be a fence, at the very number that a writer which wakes up would use next.

use std::io::ErrorKind;

use bytes::Bytes;

use super::load::{LoadError, LoadedJournal, Loader, Told, take_frame};
use super::shared;
use crate::commit::pace::WEIGHT;
use crate::commit::segments::shared_folder;
use crate::directory::bucket::Denied;
use crate::fencing::Lost;
use crate::fencing::directory::{Objects, slot_of};
use crate::fencing::fence::Fenced;
use crate::fencing::object::ObjectKey;
use crate::format::limits::MAX_FRAME;
use crate::format::names::SlotName;
use crate::format::object::scan_object;
use crate::format::scan::SlotScan;
use crate::format::stream::{ClosedAt, Verdict, What};
use crate::format::{StreamId, StreamKey};
use crate::types::Epoch;

/// Reads what was taken over; nothing where nothing was.
pub(super) fn load(loader: &mut Loader<'_>, objects: &dyn Objects) -> Result<LoadedJournal, LoadError> {
    let mut loaded = LoadedJournal::default();
    let Some(taken) = objects.taken() else { return Ok(loaded) };
    let looked = shared::look(loader.disk);
    let unlisted = |source| LoadError::Io { what: "list", path: loader.disk.display(&shared_folder()), source };
    loaded.shared = Some(looked.map_err(unlisted)?);
    loaded.garbage.extend(taken.leftovers.iter().map(|key| (slot_of(*key).to_string(), 0)));
    let mut told = Told::default();
    let mut oldest = (Epoch(0), 0);
    for fenced in &taken.fenced {
        let key = fenced.key;
        loaded.highest_epoch = loaded.highest_epoch.max(key.epoch.0);
        if (key.epoch, key.session) < oldest || fenced.numbers.is_empty() {
            continue;
        }
        let (judged, slots) = stream(loader, objects, fenced, &told)?;
        oldest = oldest.max(judged.verdict.oldest);
        let files = slots.into_iter().map(|(name, len)| (name.to_string(), len));
        loaded.add(key, judged, files, &mut told, &mut loader.known);
    }
    Ok(loaded.finish(told, oldest, loader.budget))
}

type Read = (super::load::Judged, Vec<(SlotName, u64)>);

fn stream(loader: &Loader<'_>, objects: &dyn Objects, fenced: &Fenced, told: &Told) -> Result<Read, LoadError> {
    let close = told.close(fenced.key, fenced.stream);
    let id = fenced.stream.or(close.map(|close| close.stream));
    let last = close.map_or(fenced.fence - 1, |close| close.frame_seq.min(fenced.fence - 1));
    let keys: Vec<ObjectKey> =
        (fenced.floor + 1..fenced.fence).map(|number| ObjectKey { stream: fenced.key, number }).collect();
    let mut content = loader.content();
    let (mut slots, mut scans) = (Vec::new(), Vec::new());
    let mut failed = None;
    let mut gone = None;
    let read = objects.read(&keys, loader.budget.as_ref(), &mut |at, bytes| {
        let Some(bytes) = bytes else {
            gone.get_or_insert(at);
            return true;
        };
        let length = bytes.len() as u64;
        (loader.total)(length);
        (loader.progress)(length);
        let counts = at.number <= last;
        let scanned = scan_one(loader, at, id, &bytes, counts.then_some((&mut content, fenced.key)));
        match scanned {
            Ok(scanned) => {
                slots.push((slot_of(at), length.max(WEIGHT)));
                scans.push(scanned);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    });
    read.map_err(|lost| refused(loader, fenced.key, lost))?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(key) = gone.filter(|key| key.number <= last) {
        match objects.missing(key) {
            // Then it is damage, like a file that is gone.
            Ok(()) | Err(Lost::Damage { .. }) => {}
            Err(lost) => return Err(refused(loader, fenced.key, lost)),
        }
    }
    let close = match close {
        Some(close) => ClosedAt { frame_seq: close.frame_seq, crc: close.crc },
        None => {
            let places = scans.iter().flat_map(|scan: &SlotScan| &scan.places);
            let at_end = places.filter(|place| place.head.header.frame_seq == last).map(|place| place.head.crc).next();
            ClosedAt { frame_seq: last, crc: at_end.unwrap_or(0) }
        }
    };
    let mut judged = loader.judge(fenced.key, &slots, id, Some(close), &told.accepted, content, &scans)?;
    let holds = |index: usize| !scans[index].places.is_empty();
    judged.needed = keep(judged.needed, holds);
    Ok((judged, keep(slots, holds)))
}

/// The items whose index passes.
fn keep<T>(items: Vec<T>, passes: impl Fn(usize) -> bool) -> Vec<T> {
    items.into_iter().enumerate().filter(|(index, _)| passes(*index)).map(|(_, item)| item).collect()
}

fn scan_one(
    loader: &Loader<'_>,
    at: ObjectKey,
    id: Option<StreamId>,
    bytes: &Bytes,
    mut content: Option<(&mut super::content::StreamContent, StreamKey)>,
) -> Result<SlotScan, LoadError> {
    let mut error = None;
    let scanned = scan_object(bytes, slot_of(at), id, |frame| {
        if let Some((content, key)) = &mut content {
            error = take_frame(content, *key, frame).err();
        }
    });
    loader.scanned(slot_of(at), scanned, error)
}

/// Says of what is lost which object it was: each frame is one, and has its number.
pub(crate) fn place(verdict: &mut Verdict, scans: &[SlotScan]) {
    for damage in verdict.damage.iter_mut().filter(|damage| damage.at.is_none()) {
        (damage.file, damage.offset) = (damage.first_seq, 0);
        damage.what = match scans.iter().find(|scan| scan.file == damage.file).map(|scan| &scan.header) {
            None => What::FileMissing,
            Some(Err(error)) => What::FileHeader(error.clone()),
            Some(Ok(_)) => What::NoHead,
        };
        let lost = damage.last_seq.map_or(1, |last| last.saturating_sub(damage.first_seq).saturating_add(1));
        damage.bytes = lost.saturating_mul(MAX_FRAME as u64);
    }
}

/// Why the protocol does not let a journal be read.
fn refused(loader: &Loader<'_>, key: StreamKey, lost: Lost) -> LoadError {
    match lost {
        Lost::Fenced { by } => LoadError::Fenced(format!(
            "{}: the stream {by} has an object of another process: it has taken over this writer",
            loader.disk.display(std::path::Path::new("")).display()
        )),
        lost @ (Lost::Denied(Denied(_)) | Lost::Unconditional | Lost::Damage { .. }) => {
            let kind = if lost.passes() { ErrorKind::TimedOut } else { ErrorKind::Other };
            LoadError::Io {
                what: "read",
                path: loader.disk.display(std::path::Path::new(crate::directory::identity::JOURNAL)),
                source: std::io::Error::new(kind, format!("stream {key}: {}", lost.sentence())),
            }
        }
    }
}
