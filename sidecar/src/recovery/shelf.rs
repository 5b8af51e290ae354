//! Entries that stayed in the journals while those were read, because there was not enough memory for them: they are read
//! into memory when what counts of them fits after all, else shelved, and go to segments before anything is served.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use super::budget::Budget;
use super::merge::MergedCollection;
use super::noted::Whereabouts;
use super::read::path_of;
use crate::commit::buffer::EntryBuffer;
use crate::commit::collection::DirIx;
use crate::commit::pace::AT_ONCE;
use crate::commit::shelf::{JournalRead, Stretch};
use crate::directory::disk::{Disk, SharedDisk};
use crate::directory::identity::JOURNAL;
use crate::fencing::directory::READ_AHEAD;
use crate::format::record::{self, Kind};
use crate::types::Lsn;

/// Reads entries from a journal's file, checked one by one; answers their bytes and the LSN of the last one.
///
/// # Errors
/// A sentence: the file cannot be read, or does not hold what it held when it was scanned.
pub(crate) fn read(disk: &dyn Disk, wanted: &JournalRead) -> Result<(Vec<u8>, Lsn), String> {
    let Stretch { file, offset, length, .. } = wanted.stretch;
    let path = path_of(file);
    let shown = disk.display(&path);
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", shown.display());
    let mut bytes = vec![0; length as usize];
    let found = disk.open(&path).map_err(failed)?.read_at(offset, &mut bytes).map_err(failed)?;
    bytes.truncate(found);
    entries_in(bytes, wanted, &shown)
}

/// [`read`] for several, one after the other in memory: those of a bucket are asked for together.
///
/// # Errors
/// See [`read`].
pub(crate) fn read_some(disk: &dyn Disk, wanted: &[JournalRead]) -> Result<Vec<(Vec<u8>, Lsn)>, String> {
    let Some(objects) = disk.objects() else { return wanted.iter().map(|wanted| read(disk, wanted)).collect() };
    let part = |wanted: &JournalRead| {
        let Stretch { file, offset, length, .. } = wanted.stretch;
        (path_of(file), offset..offset + u64::from(length))
    };
    let parts: Vec<(PathBuf, Range<u64>)> = wanted.iter().map(part).collect();
    let mut found = Vec::new();
    let asked = objects.parts(&parts, &mut |part| found.push(part.unwrap_or_default()));
    asked.map_err(|error| format!("cannot read {}: {error}", disk.display(Path::new(JOURNAL)).display()))?;
    let checked = |((bytes, wanted), (path, _)): ((Bytes, &JournalRead), &(PathBuf, Range<u64>))| {
        entries_in(bytes.into(), wanted, &disk.display(path))
    };
    found.into_iter().zip(wanted).zip(&parts).map(checked).collect()
}

/// How many of `wanted`, from the first on, are read together: few enough, and not more than a commit holds.
pub(crate) fn together(wanted: &[JournalRead]) -> usize {
    let dir = wanted.first().map(|wanted| wanted.stretch.dir);
    let mut bytes = 0;
    let fits = |wanted: &&JournalRead| {
        bytes += wanted.stretch.length as usize;
        Some(wanted.stretch.dir) == dir && bytes <= AT_ONCE
    };
    wanted.iter().take(READ_AHEAD).take_while(fits).count().max(1)
}

/// The entries that are wanted, of what was read of the file `shown`.
fn entries_in(mut bytes: Vec<u8>, wanted: &JournalRead, shown: &Path) -> Result<(Vec<u8>, Lsn), String> {
    let (offset, found) = (wanted.stretch.offset, bytes.len());
    let changed = |lsn: Lsn| {
        let name = wanted.name.as_str();
        format!("{} does not hold LSN {lsn} of {name:?} at offset {offset} any more", shown.display())
    };
    let (mut at, mut start, mut next) = (0, 0, wanted.from);
    while next <= wanted.to {
        let rest = bytes.get(at..found).unwrap_or_default();
        let (record, length) = record::decode(rest).map_err(|_| changed(next))?;
        let ours = record.kind == Kind::Data
            && record.collection_id == wanted.name.as_str()
            && record.incarnation == wanted.incarnation
            && record.crc_holds();
        if !ours || record.lsn > next || (record.lsn < next && next > wanted.from) {
            return Err(changed(next));
        }
        at += length;
        if record.lsn < next {
            start = at;
        } else {
            next = next.next();
        }
    }
    bytes.truncate(at);
    bytes.drain(..start);
    Ok((bytes, wanted.to))
}

/// Where the entries of a collection are, by the index of each directory; `None` for one that is not here.
pub(super) fn stretches(
    collection: &MergedCollection,
    home_of: impl Fn(Uuid) -> Option<DirIx>,
) -> impl Iterator<Item = Stretch> {
    collection.noted.iter().filter_map(move |found| stretch(found, &home_of))
}

fn stretch(found: &Whereabouts, home_of: impl Fn(Uuid) -> Option<DirIx>) -> Option<Stretch> {
    let dir = home_of(found.directory)?;
    let Whereabouts { first, last, directory: _, file, offset, length, .. } = *found;
    Some(Stretch { first, last, dir, file, offset, length })
}

/// Reads what was noted into memory when all of it fits within `limit`. Else all of it stays where it is.
///
/// # Errors
/// A sentence, when something cannot be read any more.
pub(super) fn fill(
    collections: &mut [MergedCollection],
    disks: &[SharedDisk],
    home_of: impl Fn(Uuid) -> Option<DirIx>,
    budget: &Budget,
    limit: u64,
) -> Result<(), String> {
    if !budget.notes() {
        return Ok(());
    }
    let noted = collections.iter().flat_map(|collection| &collection.noted);
    let total: u64 = noted.map(Whereabouts::bytes).sum();
    if !budget.has_room(limit, total) {
        return Ok(());
    }
    let noted: Vec<Vec<Whereabouts>> =
        collections.iter_mut().map(|collection| std::mem::take(&mut collection.noted)).collect();
    let found = noted.iter().enumerate().flat_map(|(index, noted)| noted.iter().map(move |found| (index, found)));
    let mut places = found
        .filter_map(|(index, found)| Some((index, stretch(found, &home_of)?)))
        .filter(|(_, stretch)| stretch.dir < disks.len());
    let (mut owners, mut next) = (VecDeque::new(), Vec::new());
    let mut memory = 0;
    loop {
        while next.len() < READ_AHEAD
            && let Some((index, stretch)) = places.next()
        {
            let (name, incarnation) = (collections[index].name.clone(), collections[index].incarnation);
            let (from, to) = (stretch.first, stretch.last);
            owners.push_back(index);
            next.push(JournalRead { name, incarnation, stretch, from, to });
        }
        let Some(JournalRead { stretch: Stretch { dir, .. }, .. }) = next.first() else { return Ok(()) };
        let count = together(&next);
        let read = read_some(disks[*dir].as_ref(), &next[..count])?;
        for (JournalRead { from, .. }, (bytes, _)) in next.drain(..count).zip(read) {
            let Some(index) = owners.pop_front() else { break };
            let entries = &mut collections[index].entries;
            let before = entries.capacity() as u64;
            let (mut rest, mut lsn) = (bytes.as_slice(), from);
            while let Ok((record, length)) = record::decode(rest) {
                let raw = record.raw();
                entries.push(lsn, raw.len(), |out| out.extend_from_slice(raw));
                lsn = lsn.next();
                rest = &rest[length..];
            }
            memory += entries.capacity() as u64 - before;
        }
        if !budget.has_room(limit, memory) {
            drop(places);
            for (collection, noted) in collections.iter_mut().zip(noted) {
                (collection.entries, collection.noted) = (EntryBuffer::default(), noted);
            }
            return Ok(());
        }
    }
}
