//! Entries that stayed in the journals while those were read, because there was not enough memory for them: they are read
//! into memory when what counts of them fits after all, else shelved, and go to segments before anything is served.

use uuid::Uuid;

use super::budget::Budget;
use super::merge::MergedCollection;
use super::read::path_of;
use crate::commit::buffer::EntryBuffer;
use crate::commit::collection::DirIx;
use crate::commit::shelf::{JournalRead, Stretch};
use crate::directory::disk::{Disk, SharedDisk};
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
    collection.noted.iter().filter_map(move |found| {
        let dir = home_of(found.directory)?;
        let super::noted::Whereabouts { first, last, directory: _, file, offset, length, .. } = *found;
        Some(Stretch { first, last, dir, file, offset, length })
    })
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
    let total: u64 = noted.map(super::noted::Whereabouts::bytes).sum();
    if !budget.has_room(limit, total) {
        return Ok(());
    }
    let mut memory = 0;
    for index in 0..collections.len() {
        let collection = &collections[index];
        let (name, incarnation) = (&collection.name, collection.incarnation);
        let mut entries = EntryBuffer::default();
        for stretch in stretches(collection, &home_of) {
            let Some(disk) = disks.get(stretch.dir) else { continue };
            let (from, to) = (stretch.first, stretch.last);
            let wanted = JournalRead { name: name.clone(), incarnation, stretch, from, to };
            let (bytes, _) = read(disk.as_ref(), &wanted)?;
            let mut rest = bytes.as_slice();
            let mut lsn = from;
            while let Ok((record, length)) = record::decode(rest) {
                let raw = record.raw();
                entries.push(lsn, raw.len(), |out| out.extend_from_slice(raw));
                lsn = lsn.next();
                rest = &rest[length..];
            }
        }
        memory += entries.capacity() as u64;
        collections[index].entries = entries;
        if !budget.has_room(limit, memory) {
            collections.iter_mut().for_each(|collection| collection.entries = EntryBuffer::default());
            return Ok(());
        }
    }
    collections.iter_mut().for_each(|collection| collection.noted = Vec::new());
    Ok(())
}
