//! The segments of all directories: finding the file of each FLUSHED fact, reading it block by block, and saying what is
//! not as the journal says.
//!
//! 1. The journal decides: a file counts as far as a fact of a living collection says, and not at all without one.
//! 2. A file is known by the uuid in its header, under whatever name; one that no fact needs is told, and is no error.
//! 3. Entries that another segment holds are not in danger: a rewritten segment may be gone or rotten.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::OfflineError;
use super::directory::OpenDirectory;
use super::merge::Merged;
use super::meter::Meter;
use super::place::FileAt;
use super::ranges::{self, Range};
use super::report::{Lost, Problem, SegmentContent, SegmentReport};
use super::segment::{OpenSegment, Wrong, renamed};
use super::segment_files::Found;
use super::survey::{Journals, problem};
use crate::format::Marker;
use crate::format::facts::FlushedFact;
use crate::format::header::{Codec, SegmentHeader, SegmentOf};
use crate::format::record::RecordRef;
use crate::format::segment::IndexedBlock;
use crate::types::Incarnation;

/// A block whose entries can be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockAt {
    /// Index into [`Journals::files`].
    pub(super) file: u32,
    pub(super) codec: Codec,
    pub(super) marker: Marker,
    pub(super) at: IndexedBlock,
}

/// A fact of a living collection about a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Everything up to here is flushed.
    pub(super) to: u64,
    pub(super) fact: FlushedFact,
}

/// Entries that cannot be read at one place of a segment.
struct Bad {
    segment: usize,
    collection: usize,
    range: Range,
    wrong: Wrong,
}

/// A segment that facts speak of.
struct Wanted {
    directory: usize,
    fact: FlushedFact,
    /// Index into the collections, and what the fact claims of it.
    claims: Vec<(usize, Range)>,
    file: Option<FileAt>,
    wrong: Option<Wrong>,
}

/// Reads the segments that `collections` need; they learn what can be read there.
pub(super) fn read(
    directories: &[OpenDirectory],
    journals: &mut Journals,
    collections: &mut [Merged],
    meter: &mut Meter<'_>,
) -> Result<(), OfflineError> {
    let mut wanted = wanted(directories, collections);
    let mut bad = Vec::new();
    let mut found = Found::list(directories, meter)?;
    let mut seen = Copies::new(collections);
    for (number, segment) in wanted.iter_mut().enumerate() {
        let mut reading = Reading { number, journals, collections, meter, bad: &mut bad, seen: &mut seen };
        let url = directories[segment.directory].url.to_string();
        reading.segment(segment, &url, &mut found)?;
    }
    for collection in &mut *collections {
        collection.take_segments();
    }
    judge(directories, &wanted, &bad, collections, journals, &found);
    journals.unused = found.unused(journals);
    Ok(())
}

/// Every segment once, in the order of directories.
fn wanted(directories: &[OpenDirectory], collections: &[Merged]) -> Vec<Wanted> {
    let of = |uuid| {
        let is = |one: &OpenDirectory| one.identity.as_ref().is_ok_and(|identity| identity.directory == uuid);
        directories.iter().position(is)
    };
    let mut wanted: BTreeMap<(usize, Uuid), Wanted> = BTreeMap::new();
    for (number, collection) in collections.iter().enumerate() {
        for Claim { to, fact } in &collection.claims {
            // In a directory that was not given: `verify` says so.
            let Some(directory) = of(fact.directory) else { continue };
            let empty = Wanted { directory, fact: *fact, claims: Vec::new(), file: None, wrong: None };
            let one = wanted.entry((directory, fact.segment)).or_insert(empty);
            if fact.length > one.fact.length {
                one.fact = *fact;
            }
            one.claims.push((number, (fact.first_lsn.0, *to)));
        }
    }
    wanted.into_values().collect()
}

/// Where a copy of an entry stands, for telling of another one.
#[derive(Clone, Copy)]
struct Copy {
    crc: u32,
    epoch: u64,
    block: BlockAt,
}

/// Entries that facts say are in two segments.
struct Copies {
    twice: Vec<Vec<Range>>,
    seen: HashMap<(usize, u64), Copy>,
}

impl Copies {
    fn new(collections: &[Merged]) -> Self {
        let twice = |collection: &Merged| {
            let mut claims: Vec<Range> =
                collection.claims.iter().map(|claim| (claim.fact.first_lsn.0, claim.to)).collect();
            claims.sort_unstable();
            let mut reach = 0;
            let mut twice = Vec::new();
            for (first, last) in claims {
                twice.push((first, last.min(reach)));
                reach = reach.max(last);
            }
            ranges::union(twice)
        };
        Self { twice: collections.iter().map(twice).collect(), seen: HashMap::new() }
    }
}

struct Reading<'a, 'p> {
    number: usize,
    journals: &'a mut Journals,
    collections: &'a mut [Merged],
    meter: &'a mut Meter<'p>,
    bad: &'a mut Vec<Bad>,
    seen: &'a mut Copies,
}

impl Reading<'_, '_> {
    fn segment(&mut self, wanted: &mut Wanted, url: &str, found: &mut Found) -> Result<(), OfflineError> {
        let fact = wanted.fact;
        let Some(file) = found.file(wanted.directory, &fact) else { return Ok(()) };
        file.used = true;
        let Some((path, opened)) = open(&file.path, &fact)? else { return Ok(()) };
        wanted.file = Some(path.clone());
        let mut segment = match opened {
            Ok(segment) => segment,
            Err(wrong) => {
                wanted.wrong = Some(wrong);
                return Ok(());
            }
        };
        let number = u32::try_from(self.journals.files.len()).unwrap_or(u32::MAX);
        let text = path.display().to_string();
        self.journals.files.push(path);
        let mut blocks = 0;
        let mut content = BTreeMap::new();
        wanted.wrong = self.fits(&segment.header, wanted);
        if wanted.wrong.is_none() {
            let (indexes, wrong) = segment.indexes(&fact);
            wanted.wrong = wrong;
            for index in &indexes {
                for at in &index.blocks {
                    blocks += 1;
                    let of = &index.names[at.name as usize];
                    let block =
                        BlockAt { file: number, codec: segment.header.codec, marker: segment.header.marker, at: *at };
                    self.block(&mut segment, &wanted.claims, block, of, &mut content);
                    self.meter.add(at.length.into(), &text);
                }
            }
        }
        self.journals.segments.push(SegmentReport {
            file: text,
            directory: url.to_owned(),
            uuid: fact.segment,
            codec: segment.header.codec.as_str(),
            sealed: fact.sealed,
            shared: fact.shared,
            bytes: fact.length,
            blocks,
            collections: content.into_values().collect(),
        });
        Ok(())
    }

    /// Reads a block and keeps what counts of it.
    fn block(
        &mut self,
        segment: &mut OpenSegment,
        claims: &[(usize, Range)],
        block: BlockAt,
        (name, incarnation): &(String, Incarnation),
        content: &mut BTreeMap<usize, SegmentContent>,
    ) {
        let at = &block.at;
        let is = |number: &usize| {
            let report = &self.collections[*number].report;
            (&report.name, report.incarnation) == (name, incarnation.0)
        };
        let mine = claims.iter().map(|(number, _)| *number).find(is);
        let mut gathered = Gathered::default();
        let read = segment.block(at, (name, *incarnation), |record| {
            if let Some(collection) = mine {
                gathered.entry(record, collection, &block, self.collections, self.seen);
            }
        });
        match (read, mine) {
            (Ok(()), Some(collection)) => {
                let new = SegmentContent { collection: name.clone(), first: at.first.0, last: 0, entries: 0 };
                let known = content.entry(collection).or_insert(new);
                known.last = at.last.0;
                known.entries += u64::from(at.count);
                self.keep(collection, block, gathered);
            }
            (Ok(()), None) => {}
            (Err(wrong), Some(collection)) => {
                let range = (at.first.0, at.last.0);
                self.bad.push(Bad { segment: self.number, collection, range, wrong });
            }
            (Err(Wrong { what, .. }), None) => {
                let file = self.journals.files[block.file as usize].display();
                let note = format!("{file}: offset {}: {what}; nothing that counts is in it", at.offset);
                self.journals.notes.push(note);
            }
        }
    }

    /// Whether the header is that of the segment the facts speak of.
    fn fits(&self, header: &SegmentHeader, wanted: &Wanted) -> Option<Wrong> {
        let wrong = |what| Some(Wrong { offset: Some(0), what });
        match (&header.of, wanted.fact.shared, wanted.claims.as_slice()) {
            (SegmentOf::Shared, true, _) => None,
            (SegmentOf::Collection { name, incarnation, .. }, false, [(number, _)]) => {
                let report = &self.collections[*number].report;
                if (name.as_str(), incarnation.0) == (report.name.as_str(), report.incarnation) {
                    None
                } else {
                    wrong(format!("the segment is one of {name:?}, and the journal says one of {:?}", report.name))
                }
            }
            (SegmentOf::Collection { name, .. }, ..) => {
                wrong(format!("the segment is one of {name:?} alone, and the journal says otherwise"))
            }
            (SegmentOf::Shared, false, _) => wrong("the segment is shared, and the journal says otherwise".into()),
        }
    }

    fn keep(&mut self, collection: usize, block: BlockAt, gathered: Gathered) {
        let Gathered { runs, copies, conflicts } = gathered;
        let merged = &mut self.collections[collection];
        for (first, last) in runs {
            merged.flushed.push((first, last));
        }
        self.seen.seen.extend(copies.into_iter().map(|(lsn, copy)| ((collection, lsn), copy)));
        for Conflict { lsn, offset, other, wins } in conflicts {
            let file = |at: u32| self.journals.files[at as usize].display().to_string();
            let what = format!("another entry has the same LSN, at offset {} of {}", other.1, file(other.0));
            let lost = vec![Lost::of(&merged.report.name, lsn, lsn)];
            self.journals.problems.push(Problem {
                file: file(block.file),
                offset: Some(offset),
                lost,
                ..problem(what)
            });
            merged.winners.insert(lsn, wins);
        }
        merged.blocks.push(block);
    }
}

/// Which of two different copies counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Winner {
    /// The journal's.
    Journal,
    /// That of the block at this offset of this file.
    Block(u32, u64),
}

struct Conflict {
    lsn: u64,
    offset: u64,
    /// File and offset.
    other: (u32, u64),
    wins: Winner,
}

/// What one block holds.
#[derive(Default)]
struct Gathered {
    runs: Vec<Range>,
    copies: Vec<(u64, Copy)>,
    conflicts: Vec<Conflict>,
}

impl Gathered {
    fn entry(
        &mut self,
        record: &RecordRef<'_>,
        collection: usize,
        block: &BlockAt,
        collections: &[Merged],
        seen: &Copies,
    ) {
        let (lsn, epoch) = (record.lsn.0, record.epoch.0);
        let offset = block.at.offset;
        ranges::push(&mut self.runs, lsn, lsn);
        let here = Winner::Block(block.file, offset);
        let entries = &collections[collection].entries;
        if let Ok(at) = entries.binary_search_by_key(&lsn, |entry| entry.lsn)
            && entries[at].crc != record.crc
        {
            let wins = if entries[at].epoch > epoch { Winner::Journal } else { here };
            self.conflicts.push(Conflict { lsn, offset, other: (entries[at].file, entries[at].offset), wins });
        }
        if ranges::holds(&seen.twice[collection], lsn) {
            let copy = Copy { crc: record.crc, epoch, block: *block };
            match seen.seen.get(&(collection, lsn)) {
                Some(other) if other.crc != record.crc => {
                    let there = (other.block.file, other.block.at.offset);
                    let wins = if other.epoch > epoch { Winner::Block(there.0, there.1) } else { here };
                    self.conflicts.push(Conflict { lsn, offset, other: there, wins });
                }
                _ => self.copies.push((lsn, copy)),
            }
        }
    }
}

/// Opens a segment's file, under a new name if it has got one since it was found; none: it is gone.
#[allow(clippy::type_complexity, reason = "a path, and the file or what is wrong with it")]
fn open(path: &FileAt, fact: &FlushedFact) -> Result<Option<(FileAt, Result<OpenSegment, Wrong>)>, OfflineError> {
    let mut path = path.clone();
    let opened = match OpenSegment::open(&path) {
        Err(OfflineError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            match renamed(&path, |header| header.segment == fact.segment) {
                Some(now) => path = now,
                None => return Ok(None),
            }
            OpenSegment::open(&path)
        }
        opened => opened,
    };
    let opened = match opened {
        Ok(Ok(segment)) => Ok(segment),
        Ok(Err(error)) => Err(Wrong { offset: Some(0), what: error.to_string() }),
        Err(OfflineError::Io { error, .. }) => Err(Wrong { offset: None, what: error.to_string() }),
        Err(other) => return Err(other),
    };
    Ok(Some((path, opened)))
}

/// Says what cannot be read and is in no other segment.
fn judge(
    directories: &[OpenDirectory],
    wanted: &[Wanted],
    bad: &[Bad],
    collections: &[Merged],
    journals: &mut Journals,
    found: &Found,
) {
    for (number, segment) in wanted.iter().enumerate() {
        let Wanted { directory, fact, claims, file, wrong } = segment;
        let open = &directories[*directory];
        let text = file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let at = |file: &str, wrong: &Wrong, lost: Vec<Lost>| Problem {
            directory: open.url.to_string(),
            file: file.to_owned(),
            offset: wrong.offset,
            most_entries: Some(lost.iter().filter_map(|lost| Some(lost.last? - lost.first? + 1)).sum()),
            lost,
            ..problem(wrong.what.clone())
        };
        let mut named: BTreeMap<usize, Vec<Range>> = BTreeMap::new();
        for Bad { collection, range, wrong, .. } in bad.iter().filter(|bad| bad.segment == number) {
            named.entry(*collection).or_default().push(*range);
            let lost = collections[*collection].lacks(*range, &[]);
            if lost.is_empty() {
                let offset = wrong.offset.unwrap_or_default();
                journals.notes.push(format!("{text}: offset {offset}: {}; nothing that counts is in it", wrong.what));
            } else {
                journals.problems.push(at(&text, wrong, lost));
            }
        }
        let mut lost = Vec::new();
        for (collection, range) in claims {
            let named = ranges::union(named.remove(collection).unwrap_or_default());
            lost.extend(collections[*collection].lacks(*range, &named));
        }
        let missing = || {
            let what = format!("segment {} is not there: no file has it", fact.segment);
            let [(collection, _), ..] = claims.as_slice() else { return (String::new(), what) };
            let folder = open.segment_folder(fact.shared, &collections[*collection].report.name);
            match found.headless(*directory, &folder).next() {
                Some((file, why)) if !fact.shared => (file.path.display().to_string(), format!("{what}; here {why}")),
                _ => (folder.display().to_string(), what),
            }
        };
        match (lost.is_empty(), wrong, file) {
            (true, None, _) => {}
            (true, Some(wrong), _) => {
                journals.notes.push(format!("{text}: {}; nothing that counts is in it", wrong.what))
            }
            (false, Some(wrong), _) => journals.problems.push(at(&text, wrong, lost)),
            (false, None, Some(_)) => {
                let what = "the segment does not hold all that the journal says".into();
                journals.problems.push(at(&text, &Wrong { offset: None, what }, lost));
            }
            (false, None, None) => {
                let (file, what) = missing();
                journals.problems.push(at(&file, &Wrong { offset: None, what }, lost));
            }
        }
    }
}
