//! `walctl dump`: every record of one journal file or segment as a line of JSON. Names are the schema's, bytes are base64.

use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use walstorage_crds::url::WalUrl;

use super::dump_segment::dump_segment;
use super::place::FileAt;
use super::segment::OpenSegment;
use super::source::FileSource;
use super::{OfflineError, Stores};
use crate::format::facts::{CollectionFact, DeleteFact, EpochFact, Fact, FlushedFact, GapCause, GapFact, TruncateFact};
use crate::format::frame::FrameHeader;
use crate::format::header::{HeaderError, MAX_HEADER, SlotHeader};
use crate::format::limits::PAGE;
use crate::format::names::SlotName;
use crate::format::object::{ObjectError, parse_object};
use crate::format::record::{Kind, RecordRef};
use crate::format::scan::{Frame, Head, SlotScan, Source, scan_slot};
use crate::format::segment::{Index, IndexedBlock};

/// What to dump.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions {
    /// Only records of this kind.
    pub kind: Option<Kind>,
}

/// What was dumped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DumpReport {
    /// Whole frames of a journal's file.
    pub frames: u64,
    /// Whole blocks of a segment.
    pub blocks: u64,
    /// Lines written.
    pub records: u64,
    /// Where frames are missing, broken or do not follow one another, and where the file ends.
    pub notes: Vec<String>,
    /// Nothing but the end is noted.
    pub whole: bool,
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<u64>,
    offset: u64,
    kind: &'static str,
    collection_id: &'a str,
    incarnation: u64,
    lsn: u64,
    timestamp: i64,
    key: Option<String>,
    headers: Vec<Header<'a>>,
    producer_id: String,
    producer_seq: u64,
    batch_end: u64,
    ext: String,
    epoch: u64,
    crc: String,
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fact: Option<Value>,
}

#[derive(Serialize)]
struct Header<'a> {
    name: &'a str,
    value: String,
}

/// Writes the records of all whole frames of a slot, or of all whole blocks of a segment, to `out`, in the order of the
/// file. The file may have any name. What is not whole is skipped and noted; whether something counts is not judged
/// (`verify` does that).
///
/// # Errors
/// When the file cannot be read, is neither, or was written by a later version; when `out` fails.
pub fn dump(path: &Path, options: DumpOptions, out: &mut dyn Write) -> Result<DumpReport, OfflineError> {
    dump_file(&FileAt::file(path.to_owned()), options, out)
}

/// [`dump`] of an object: of a commit, a claim, a fence or a segment of a bucket.
///
/// # Errors
/// See [`dump`].
pub fn dump_object(
    url: &str,
    stores: &Stores,
    options: DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpReport, OfflineError> {
    let path = Path::new(url);
    let no_object = |why: String| OfflineError::NotAJournal { path: path.to_owned(), why };
    let (folder, name) = url.rsplit_once('/').ok_or_else(|| no_object("it is no URL of an object".into()))?;
    let folder = WalUrl::parse(folder).map_err(|error| no_object(error.to_string()))?;
    let bucket = stores.open(&folder).map_err(OfflineError::Bucket)?;
    let listed = bucket.list("").map_err(OfflineError::io("listing", Path::new(folder.as_str())))?;
    let found = listed.into_iter().find(|(key, _)| key == name);
    let (key, len) = found.ok_or_else(|| no_object("there is no such object".into()))?;
    dump_file(&FileAt::object(&bucket, Path::new(folder.as_str()), key, len), options, out)
}

fn dump_file(file: &FileAt, options: DumpOptions, out: &mut dyn Write) -> Result<DumpReport, OfflineError> {
    if let Ok(segment) = OpenSegment::open(file)? {
        return dump_segment(file, segment, options, out);
    }
    let mut source = FileSource::open(file)?;
    let head = source.exactly(0, MAX_HEADER).unwrap_or_default();
    if SlotHeader::parse_slot(head).is_err() && SlotHeader::parse_object(head).is_ok() {
        return dump_commit(file, source, options, out);
    }
    dump_slot(file, source, options, out)
}

/// An object of a bucket's journal, or a copy of one: a header and one frame.
fn dump_commit(
    path: &Path,
    mut source: FileSource,
    options: DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpReport, OfflineError> {
    let length = usize::try_from(source.len()).unwrap_or(usize::MAX);
    let bytes = source.exactly(0, length);
    let bytes = bytes.map_err(|failed| OfflineError::io("reading", path)(std::io::Error::other(failed.0)))?;
    let mut report = DumpReport::default();
    match parse_object(bytes, None) {
        Ok((_, frame)) => {
            report.frames = 1;
            lines(&frame, options, out, &mut report.records).map_err(OfflineError::Output)?;
            report.whole = true;
            report.notes.push(format!("ends at offset {length}, the end of the file"));
        }
        Err(error @ ObjectError::Flags(_)) => return Err(OfflineError::later(path, error)),
        Err(error) => report.notes.push(format!("the object does not hold: {error}")),
    }
    out.flush().map_err(OfflineError::Output)?;
    Ok(report)
}

fn dump_slot(
    path: &Path,
    mut source: FileSource,
    options: DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpReport, OfflineError> {
    let not_ours = |why: String| OfflineError::NotAJournal { path: path.to_owned(), why };
    let page = source.read(0, PAGE).map_err(|error| not_ours(error.to_string()))?;
    let header = SlotHeader::parse_slot(page).map_err(|error| match error {
        error if error.must_stop() => OfflineError::later(path, error),
        error @ HeaderError::Crc => not_ours(format!("the header is damaged: {error}")),
        HeaderError::Kind { .. } => not_ours("the header of the segment is damaged".into()),
        error => not_ours(format!("no header of a journal's slot or of a segment: {error}")),
    })?;
    let name = SlotName { key: header.key, file: header.file };
    let mut report = DumpReport::default();
    let mut failed = None;
    let scan = scan_slot(&mut source, name, None, |frame| {
        report.frames += 1;
        if failed.is_none() {
            failed = lines(frame, options, out, &mut report.records).err();
        }
    });
    if let Some(error) = failed {
        return Err(OfflineError::Output(error));
    }
    out.flush().map_err(OfflineError::Output)?;
    let scan = scan.map_err(|stop| OfflineError::from((path, stop)))?;
    report.notes = notes(&scan);
    report.whole = report.notes.is_empty();
    report.notes.push(end(&scan));
    Ok(report)
}

fn end(scan: &SlotScan) -> String {
    let end = scan.places.last().map_or(PAGE as u64, |place| match place.fault {
        None => place.offset + u64::from(place.head.length),
        Some(_) => place.offset,
    });
    match scan.len.saturating_sub(end) {
        0 => format!("ends at offset {end}, the end of the file"),
        rest if scan.blank_from <= end => format!("ends at offset {end}; {rest} blank bytes follow"),
        rest => format!("ends at offset {end}; {rest} bytes follow that are no frame of this stream"),
    }
}

/// What is wrong between the first frame and the last.
fn notes(scan: &SlotScan) -> Vec<String> {
    let mut notes = Vec::new();
    let mut expected = PAGE as u64;
    let mut before: Option<&Head> = None;
    for place in &scan.places {
        let seq = place.head.header.frame_seq;
        if place.offset != expected {
            notes.push(format!("offset {expected}: no frame; resumed at offset {}", place.offset));
            before = None;
        }
        if let Some(fault) = place.fault {
            notes.push(format!("offset {}: frame {seq} skipped: {fault}", place.offset));
            before = None;
        } else {
            let follows = |head: &Head| seq == head.header.frame_seq + 1 && place.head.header.prev_crc == head.crc;
            if before.is_some_and(|head| !follows(head)) {
                notes.push(format!("offset {}: frame {seq} does not follow the one before it", place.offset));
            }
            before = Some(&place.head);
        }
        expected = place.offset + u64::from(place.head.length);
    }
    for (from, to) in &scan.unreadable {
        notes.push(format!("offset {from}: {} bytes cannot be read", to - from));
    }
    notes
}

fn lines(frame: &Frame<'_>, options: DumpOptions, out: &mut dyn Write, written: &mut u64) -> std::io::Result<()> {
    for record in frame.all_records() {
        let Ok(record) = record else { break };
        write_line(Place::Frame(&frame.head), &record, options, out, written)?;
    }
    Ok(())
}

/// Where a record stands.
#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    /// In a frame.
    Frame(&'a Head),
    /// In a segment's block: which one, and where it starts.
    Block(u64, u64),
}

/// Writes a record's line, if it is of the kind that is wanted.
pub(super) fn write_line(
    place: Place<'_>,
    record: &RecordRef<'_>,
    options: DumpOptions,
    out: &mut dyn Write,
    written: &mut u64,
) -> std::io::Result<()> {
    if options.kind.is_none_or(|kind| kind == record.kind) {
        serde_json::to_writer(&mut *out, &line(place, record))?;
        out.write_all(b"\n")?;
        *written += 1;
    }
    Ok(())
}

fn line<'a>(place: Place<'_>, record: &RecordRef<'a>) -> Line<'a> {
    let bytes = |bytes: &[u8]| STANDARD.encode(bytes);
    let payload = match record.kind {
        Kind::Pad => None,
        _ => Some(bytes(record.payload)),
    };
    let (frame, block, offset) = match place {
        Place::Frame(head) => (Some(head.header.frame_seq), None, head.header.offset),
        Place::Block(number, offset) => (None, Some(number), offset),
    };
    Line {
        frame,
        block,
        offset,
        kind: record.kind.as_str(),
        collection_id: record.collection_id,
        incarnation: record.incarnation.0,
        lsn: record.lsn.0,
        timestamp: record.timestamp,
        key: record.key.map(bytes),
        headers: record.headers.iter().map(|(name, value)| Header { name, value: bytes(value) }).collect(),
        producer_id: bytes(record.producer_id),
        producer_seq: record.producer_seq,
        batch_end: record.batch_end.0,
        ext: bytes(record.ext),
        epoch: record.epoch.0,
        crc: format!("{:08x}", record.crc),
        payload,
        fact: fact(place, record),
    }
}

fn fact(place: Place<'_>, record: &RecordRef<'_>) -> Option<Value> {
    match record.kind {
        Kind::Frame => match place {
            Place::Frame(head) => Some(frame_fact(head)),
            Place::Block(..) => None,
        },
        Kind::Pad => Some(json!({ "zeros": record.payload.len() })),
        Kind::Epoch => EpochFact::decode(record).ok().map(|fact| epoch_fact(&fact)),
        Kind::Collection => CollectionFact::decode(record).ok().map(|fact| {
            let CollectionFact { home, move_number, placement, producers } = fact;
            let producers: Vec<_> = producers
                .iter()
                .map(|one| json!({ "id": STANDARD.encode(&one.id), "last_seq": one.last_seq, "first_lsn": one.first_lsn.0, "count": one.count }))
                .collect();
            json!({ "home": home, "move": move_number, "placement": placement, "producers": producers })
        }),
        Kind::Truncate => TruncateFact::decode(record).ok().map(|fact| json!({ "head": fact.head.0 })),
        Kind::Flushed => FlushedFact::decode(record).ok().map(|fact| {
            let FlushedFact { segment, directory, first_lsn, length, index_offset, index_crc, sealed, shared, bytes } =
                fact;
            let mut shown = json!({
                "segment": segment, "directory": directory, "first_lsn": first_lsn.0, "length": length,
                "index_offset": index_offset, "index_crc": format!("{index_crc:08x}"), "sealed": sealed, "shared": shared,
            });
            if bytes > 0 {
                shown["bytes"] = bytes.into();
            }
            shown
        }),
        Kind::Gap => GapFact::decode(record).ok().map(|fact| {
            let reason = match fact.reason {
                GapCause::Damage => 1,
                GapCause::DirectoryForgotten => 2,
                GapCause::Other(number) => number,
            };
            json!({ "last": fact.last.0, "reason": reason })
        }),
        Kind::Delete => DeleteFact::decode(record).ok().map(|DeleteFact| json!({})),
        Kind::Index => Index::decode(record).ok().map(|index| index_fact(&index)),
        Kind::Unknown | Kind::Data | Kind::Reserved(_) => None,
    }
}

fn index_fact(index: &Index) -> Value {
    let Index { previous, names, blocks } = index;
    let names: Vec<_> = names.iter().map(|(name, life)| json!({ "name": name, "incarnation": life.0 })).collect();
    let block = |block: &IndexedBlock| {
        let IndexedBlock { offset, length, count, first, last, crc, name } = block;
        json!({
            "offset": offset, "length": length, "count": count, "first": first.0, "last": last.0,
            "crc": format!("{crc:08x}"), "name": name,
        })
    };
    let blocks: Vec<_> = blocks.iter().map(block).collect();
    json!({ "previous": previous, "names": names, "blocks": blocks })
}

fn frame_fact(head: &Head) -> Value {
    let FrameHeader {
        flags,
        stream,
        file,
        offset,
        frame_seq,
        durable_frame,
        prev_crc,
        epoch,
        floor,
        oldest,
        oldest_session,
    } = &head.header;
    json!({
        "crc": format!("{:08x}", head.crc), "length": head.length, "flags": flags, "stream": stream.to_string(),
        "file": file, "offset": offset, "frame_seq": frame_seq, "durable_frame": durable_frame,
        "prev_crc": format!("{prev_crc:08x}"), "entries": head.entries, "epoch": epoch.0, "floor": floor,
        "oldest": oldest.0, "oldest_session": oldest_session,
    })
}

fn epoch_fact(fact: &EpochFact) -> Value {
    let EpochFact { key, run, format, grant, holder, members, forgotten, closes, accepted, version, mixed } = fact;
    let members: Vec<_> =
        members.iter().map(|one| json!({ "uuid": one.uuid, "url": one.url, "in_use": one.in_use })).collect();
    let closes: Vec<_> = closes
        .iter()
        .map(|one| {
            json!({
                "stream": one.stream.to_string(), "epoch": one.key.epoch.0, "session": one.key.session,
                "frame_seq": one.frame_seq, "crc": format!("{:08x}", one.crc),
            })
        })
        .collect();
    let accepted: Vec<_> = accepted
        .iter()
        .map(|one| json!({ "stream": one.stream.to_string(), "first_seq": one.first_seq, "last_seq": one.last_seq }))
        .collect();
    let mut shown = json!({
        "epoch": key.epoch.0, "session": key.session, "run": run, "format": format, "grant": grant, "holder": holder,
        "members": members, "forgotten": forgotten, "closes": closes, "accepted": accepted,
    });
    if let (Some(shown), 1..) = (shown.as_object_mut(), *version) {
        shown.insert("version".into(), json!(version));
        shown.insert("mixed".into(), json!(mixed));
    }
    shown
}
