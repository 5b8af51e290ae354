//! Segments, as far as FLUSHED facts vouch for them.
//!
//! 1. A file is known by the uuid in its header. Of the facts about one segment the one with the greatest length counts.
//! 2. Its last INDEX block has the crc that the fact says; each INDEX leads to the one before. Between the header and the
//!    valid length there is nothing but blocks, each where an INDEX says.
//! 3. A segment that is not there was rewritten, if others hold all of it that is not truncated.
//! 4. A block counts when its crc is right, it can be unpacked, and it holds the entries that its INDEX says.

use std::collections::{BTreeMap, BTreeSet};

use super::avro::{Cursor, crc};
use super::journal::Place;
use super::record::{self, FlushedFact, Record, kind};

/// The metadata of a segment, in the order of the format; those of one collection only are marked.
const KEYS: [(&str, bool); 15] = [
    ("avro.schema", false),
    ("avro.codec", false),
    ("wal.format", false),
    ("wal.features", false),
    ("wal.kind", false),
    ("wal.writer", false),
    ("wal.directory", false),
    ("wal.segment", false),
    ("wal.epoch", false),
    ("wal.session", false),
    ("wal.file", false),
    ("wal.collection", true),
    ("wal.incarnation", true),
    ("wal.first", true),
    ("wal.crc", false),
];
const MAX_PLAIN: u64 = 32 << 20;

/// A file that may be a segment.
#[derive(Clone, Copy, Debug)]
pub struct SegmentFile<'a> {
    /// Its path, for naming it.
    pub name: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
}

/// A header whose CRC holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The segment.
    pub segment: [u8; 16],
    /// The directory it was written for.
    pub directory: [u8; 16],
    /// How blocks are packed.
    pub codec: String,
    /// Name and incarnation of the one collection; none when it is shared.
    pub of: Option<(String, u64)>,
    /// Stands after every block.
    pub marker: [u8; 16],
    /// Where the first block starts.
    pub length: usize,
}

/// Reads the header of a segment.
#[must_use]
pub fn header(bytes: &[u8]) -> Option<Header> {
    let mut c = Cursor::new(bytes, 0);
    if c.take(4)? != b"Obj\x01" {
        return None;
    }
    let count = c.natural()?;
    let own = count == KEYS.len() as u64;
    let mut values: BTreeMap<&str, &[u8]> = BTreeMap::new();
    let mut crc_at = 0;
    for (key, _) in KEYS.iter().filter(|(_, only_own)| own || !only_own) {
        if c.string()? != *key {
            return None;
        }
        let value = c.bytes()?;
        if *key == "wal.crc" {
            crc_at = c.at() - value.len();
        }
        values.insert(key, value);
    }
    if values.len() as u64 != count || c.long()? != 0 {
        return None;
    }
    let marker = c.fixed::<16>()?;
    let length = c.at();
    let text = |key| values.get(key).and_then(|value| std::str::from_utf8(value).ok());
    let number = |key| text(key)?.parse::<u64>().ok();
    let sum = crc(&[&bytes[..crc_at], b"00000000", &bytes[crc_at + 8..length]]);
    let kind = if own { "segment" } else { "shared" };
    let sound = text("wal.crc")? == format!("{sum:08x}")
        && text("wal.format")? == "1"
        && text("wal.features")?.is_empty()
        && text("wal.kind")? == kind;
    if !sound {
        return None;
    }
    Some(Header {
        segment: uuid(text("wal.segment")?)?,
        directory: uuid(text("wal.directory")?)?,
        codec: text("avro.codec")?.to_owned(),
        of: if own { Some((text("wal.collection")?.to_owned(), number("wal.incarnation")?)) } else { None },
        marker,
        length,
    })
}

fn uuid(text: &str) -> Option<[u8; 16]> {
    super::header::unhex(text.replace('-', "").as_bytes())
}

/// What an INDEX says of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    offset: u64,
    length: u64,
    count: u64,
    first: u64,
    last: u64,
    crc: u32,
    of: (String, u64),
}

/// The entries of a collection that its segments hold, and the places where they cannot be read.
#[must_use]
pub fn stored(
    collection: &str,
    incarnation: u64,
    records: &[&Record],
    files: &[SegmentFile<'_>],
) -> (Vec<Record>, Vec<Place>) {
    let truncated_to = records.iter().filter(|r| r.kind == kind::TRUNCATE).map(|r| r.lsn).max().unwrap_or(0);
    let mut facts: BTreeMap<[u8; 16], (FlushedFact, u64)> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == kind::FLUSHED) {
        let Some(fact) = record::parse_flushed(&record.payload) else { continue };
        let known = facts.get(&fact.segment).map_or((0, 0), |(known, to)| (known.length, *to));
        if (fact.length, record.lsn) > known {
            facts.insert(fact.segment, (fact, record.lsn));
        }
    }
    let (mut entries, mut broken) = (Vec::new(), Vec::new());
    let mut missing = Vec::new();
    for (fact, to) in facts.into_values() {
        if to <= truncated_to {
            continue;
        }
        let of = (collection.to_owned(), incarnation);
        let mut wrong = |file: &str, offset: u64| broken.push(Place { file: file.to_owned(), offset });
        let is = |file: &&SegmentFile<'_>| {
            header(file.bytes).is_some_and(|h| (h.segment, h.directory) == (fact.segment, fact.directory))
        };
        let Some(file) = files.iter().find(is) else {
            missing.push((fact.first_lsn.max(truncated_to + 1), to));
            continue;
        };
        let Some(header) = header(file.bytes) else { continue };
        if header.of != if fact.shared { None } else { Some(of.clone()) } {
            wrong(file.name, 0);
            continue;
        }
        let (blocks, bad) = blocks(file.bytes, &header, &fact);
        bad.into_iter().for_each(|offset| wrong(file.name, offset));
        for block in blocks.iter().filter(|block| block.of == of) {
            match unpacked(file.bytes, &header, block) {
                Some(read) => entries.extend(read),
                None => wrong(file.name, block.offset),
            }
        }
    }
    let held: BTreeSet<u64> = entries.iter().map(|entry: &Record| entry.lsn).collect();
    let lost = missing.iter().filter(|&&(first, last)| held.range(first..=last).count() as u64 != last + 1 - first);
    broken.extend(lost.map(|_| Place { file: String::new(), offset: 0 }));
    (entries, broken)
}

/// The blocks of a segment, and where its indexes stop being readable.
fn blocks(bytes: &[u8], header: &Header, fact: &FlushedFact) -> (Vec<Block>, Option<u64>) {
    let mut found = Vec::new();
    if (bytes.len() as u64) < fact.length {
        return (found, Some(bytes.len() as u64));
    }
    let (mut at, mut end, mut sum) = (fact.index_offset, fact.length, Some(fact.index_crc));
    loop {
        let Some((previous, blocks)) = index(bytes, header, at, end, sum) else { return (found, Some(at)) };
        end = blocks.first().map_or(at, |block| block.offset);
        found.extend(blocks);
        if previous == 0 {
            return (found, None);
        }
        (at, sum) = (previous, None);
    }
}

/// The block of one INDEX record between two offsets: where the index before it is, and what it says.
fn index(bytes: &[u8], header: &Header, at: u64, end: u64, sum: Option<u32>) -> Option<(u64, Vec<Block>)> {
    let start = header.length as u64;
    if at < start || at > end {
        return None;
    }
    let stored = bytes.get(at as usize..end as usize)?;
    if sum.is_some_and(|sum| sum != crc(&[stored])) {
        return None;
    }
    let (count, plain) = plain(stored, header)?;
    let mut c = Cursor::new(&plain, 0);
    let record = record::parse(&plain, &mut c)?;
    if count != 1 || c.at() != plain.len() || record.kind != kind::INDEX || !record.crc_holds {
        return None;
    }
    let payload = &record.payload;
    let mut c = Cursor::new(payload, 0);
    let u32_of = |c: &mut Cursor<'_>| c.fixed().map(u32::from_le_bytes);
    let u64_of = |c: &mut Cursor<'_>| c.fixed().map(u64::from_le_bytes);
    if c.take(8)? != b"WALIDX01" || u32_of(&mut c)? != crc(&[&payload[12..]]) {
        return None;
    }
    let (blocks, names, previous) = (u32_of(&mut c)?, u32_of(&mut c)?, u64_of(&mut c)?);
    let mut of = Vec::new();
    for _ in 0..names {
        let length = u32_of(&mut c)?;
        let name = std::str::from_utf8(c.take(length as usize)?).ok()?.to_owned();
        of.push((name, u64_of(&mut c)?));
    }
    let mut found: Vec<Block> = Vec::new();
    for _ in 0..blocks {
        let (offset, length, count) = (u64_of(&mut c)?, u32_of(&mut c)?.into(), u32_of(&mut c)?.into());
        let (first, last, crc) = (u64_of(&mut c)?, u64_of(&mut c)?, u32_of(&mut c)?);
        let name = u32_of(&mut c)?;
        if found.last().is_some_and(|before| before.offset + before.length != offset) {
            return None;
        }
        found.push(Block { offset, length, count, first, last, crc, of: of.get(name as usize)?.clone() });
    }
    let begin = found.first().map_or(at, |block| block.offset);
    let behind = found.last().map_or(at, |block| block.offset.saturating_add(block.length));
    let follows = if previous == 0 { begin == start } else { previous >= start && previous < begin };
    (c.at() == payload.len() && behind == at && follows).then_some((previous, found))
}

/// How many records a stored block says it has, and their bytes.
fn plain(stored: &[u8], header: &Header) -> Option<(u64, Vec<u8>)> {
    let mut c = Cursor::new(stored, 0);
    let (count, size) = (c.natural()?, c.natural()?);
    let data = c.take(usize::try_from(size).ok()?)?;
    if c.fixed::<16>()? != header.marker || c.at() != stored.len() {
        return None;
    }
    let plain = match header.codec.as_str() {
        "null" => data.to_vec(),
        "snappy" => {
            let (packed, sum) = data.split_at(data.len().checked_sub(4)?);
            let plain = snap::raw::Decoder::new().decompress_vec(packed).ok()?;
            (crc32fast::hash(&plain).to_be_bytes() == sum).then_some(plain)?
        }
        "zstandard" => zstd::stream::decode_all(data).ok()?,
        _ => return None,
    };
    (plain.len() as u64 <= MAX_PLAIN).then_some((count, plain))
}

/// The entries of a block, all of them right.
fn unpacked(bytes: &[u8], header: &Header, block: &Block) -> Option<Vec<Record>> {
    let end = block.offset.checked_add(block.length)?;
    let stored = bytes.get(block.offset as usize..end as usize)?;
    if crc(&[stored]) != block.crc {
        return None;
    }
    let (count, plain) = plain(stored, header)?;
    let mut c = Cursor::new(&plain, 0);
    let mut records: Vec<Record> = Vec::new();
    while c.at() < plain.len() {
        let record = record::parse(&plain, &mut c)?;
        let mine = record.kind == kind::DATA && (&record.collection, record.incarnation) == (&block.of.0, block.of.1);
        let later = records.last().is_none_or(|before| before.lsn < record.lsn);
        if !mine || !later || !record.crc_holds {
            return None;
        }
        records.push(record);
    }
    let edges = (records.first()?.lsn, records.last()?.lsn);
    let said = count == block.count && records.len() as u64 == count && edges == (block.first, block.last);
    said.then_some(records)
}
