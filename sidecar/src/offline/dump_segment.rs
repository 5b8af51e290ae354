//! `walctl dump` of a segment: its blocks as they stand in the file. Without the journal nobody knows how much of the file
//! is valid, so all of it is shown; each INDEX is compared with the blocks before it.

use std::io::Write;
use std::path::Path;

use super::OfflineError;
use super::dump::{DumpOptions, DumpReport, Place, write_line};
use super::segment::OpenSegment;
use crate::format::record::Kind;
use crate::format::segment::{Index, IndexedBlock};

pub(super) fn dump_segment(
    path: &Path,
    mut segment: OpenSegment,
    options: DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpReport, OfflineError> {
    let mut report = DumpReport::default();
    let mut flush = Vec::new();
    let mut at = segment.start();
    while let Some(stored) = segment.stored(at).map_err(OfflineError::io("reading", path))? {
        let next = at + stored.bytes.len() as u64;
        let block = match stored.parse() {
            Ok(block) => block,
            Err(error) => {
                report.notes.push(format!("offset {at}: block skipped: {error}"));
                at = next;
                continue;
            }
        };
        report.blocks += 1;
        let mut seen =
            IndexedBlock { offset: at, length: stored.length(), crc: stored.crc(), ..IndexedBlock::default() };
        for record in block.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    report.notes.push(format!("offset {at}: the rest of the block skipped: {error}"));
                    break;
                }
            };
            if record.kind == Kind::Index {
                match Index::decode(&record) {
                    Ok(index) if shape(&index.blocks) == shape(&flush) => {}
                    Ok(_) => report.notes.push(format!("offset {at}: the INDEX does not say what stands before it")),
                    Err(error) => report.notes.push(format!("offset {at}: {error}")),
                }
                flush.clear();
            }
            if seen.count == 0 {
                seen.first = record.lsn;
            }
            (seen.count, seen.last) = (seen.count + 1, record.lsn);
            let place = Place::Block(report.blocks, at);
            write_line(place, &record, options, out, &mut report.records).map_err(OfflineError::Output)?;
        }
        if block.records().next().is_some_and(|first| first.is_ok_and(|record| record.kind != Kind::Index)) {
            flush.push(seen);
        }
        at = next;
    }
    out.flush().map_err(OfflineError::Output)?;
    report.whole = report.notes.is_empty();
    report.notes.push(match segment.len().saturating_sub(at) {
        0 => format!("ends at offset {at}, the end of the file"),
        rest => format!("ends at offset {at}; {rest} bytes follow that are no block of this segment"),
    });
    Ok(report)
}

/// What can be compared: which name a block has is told by its records.
fn shape(blocks: &[IndexedBlock]) -> Vec<IndexedBlock> {
    blocks.iter().map(|block| IndexedBlock { name: 0, ..*block }).collect()
}
