//! What a segment holds by its own word: whole flushes from the header on, each block as the INDEX behind it says. This is
//! for segments of which no journal says anything any more; else what a FLUSHED fact says counts, and nothing behind it.

use std::io;
use std::path::Path;

use uuid::Uuid;

use super::segment_file::{self, At, OpenSegment};
use crate::directory::disk::Disk;
use crate::format::cursor::Cursor;
use crate::format::header::SegmentHeader;
use crate::format::limits::MAX_FRAME;
use crate::format::record::Kind;
use crate::format::segment::{BLOCK_HEAD, Block, Flushed, Index, IndexedBlock};
use crate::types::{Incarnation, Lsn};

/// A segment's whole flushes.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) header: SegmentHeader,
    /// What a FLUSHED of the last one would say.
    pub(crate) flushed: Flushed,
    pub(crate) parts: Vec<Part>,
}

/// What is in it of one collection.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
    /// First and last LSN of each run without a hole, rising.
    pub(crate) runs: Vec<(Lsn, Lsn)>,
}

/// Reads what lies at `path` to its end, if it is a segment that is `wanted`. `None`: it is not, or holds no whole flush.
///
/// # Errors
/// Those of the device.
pub(crate) fn scan(disk: &dyn Disk, path: &Path, wanted: impl Fn(Uuid) -> bool) -> io::Result<Option<Contents>> {
    let At::Segment(OpenSegment { file, header, start, path: _ }) = segment_file::open(disk, path, false)? else {
        return Ok(None);
    };
    if !wanted(header.segment) {
        return Ok(None);
    }
    let mut at = start;
    let (mut flushed, mut parts): (Option<Flushed>, Vec<Part>) = (None, Vec::new());
    // Blocks since the last INDEX.
    let mut blocks: Vec<IndexedBlock> = Vec::new();
    let mut stored = Vec::new();
    while let Some(length) = length_at(file.as_ref(), at)? {
        stored.resize(length as usize, 0);
        if file.read_at(at, &mut stored)? < stored.len() {
            break;
        }
        let crc = crc32c::crc32c(&stored);
        let Ok(block) = Block::parse(&stored, crc, header.codec, &header.marker) else { break };
        let mut records = block.records();
        let Some(Ok(first)) = records.next() else { break };
        if first.kind != Kind::Index {
            let Ok(rest) = records.collect::<Result<Vec<_>, _>>() else { break };
            let last = rest.last().map_or(first.lsn, |record| record.lsn);
            let count = 1 + rest.len() as u32;
            blocks.push(IndexedBlock { offset: at, length, count, first: first.lsn, last, crc, name: 0 });
            at += u64::from(length);
            continue;
        }
        let Ok(index) = Index::decode(&first) else { break };
        let previous = flushed.map_or(0, |flushed| flushed.index_offset);
        let unnamed = |block: &IndexedBlock| IndexedBlock { name: 0, ..*block };
        if index.previous != previous || !index.blocks.iter().map(unnamed).eq(blocks.drain(..)) {
            break;
        }
        add(&mut parts, &index);
        flushed = Some(Flushed { length: at + u64::from(length), index_offset: at, index_crc: crc });
        at += u64::from(length);
    }
    Ok(flushed.map(|flushed| Contents { header, flushed, parts }))
}

/// Length of the block that seems to begin at `at`.
fn length_at(file: &dyn crate::directory::disk::DiskFile, at: u64) -> io::Result<Option<u32>> {
    let mut head = [0; BLOCK_HEAD];
    let read = file.read_at(at, &mut head)?;
    let mut head = Cursor::new(&head[..read]);
    let (Ok(count), Ok(size)) = (head.number("block"), head.number("block")) else { return Ok(None) };
    let length = size.saturating_add((head.at() + size_of::<crate::format::Marker>()) as u64);
    Ok(u32::try_from(length).ok().filter(|length| count > 0 && *length as usize <= MAX_FRAME))
}

fn add(parts: &mut Vec<Part>, index: &Index) {
    for block in &index.blocks {
        let Some((name, incarnation)) = index.names.get(block.name as usize) else { continue };
        let same = |part: &Part| part.name == *name && part.incarnation == *incarnation;
        let known = parts.iter().position(same).unwrap_or_else(|| {
            parts.push(Part { name: name.clone(), incarnation: *incarnation, runs: Vec::new() });
            parts.len() - 1
        });
        let runs = &mut parts[known].runs;
        match runs.last_mut() {
            Some(run) if run.1.next() == block.first => run.1 = block.last,
            _ => runs.push((block.first, block.last)),
        }
    }
}
