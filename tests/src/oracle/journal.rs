//! Judges the files of one directory's journal: which frames can be read, where a tail is torn, what is damaged.
//!
//! 1. A frame counts when its head, its checksum, its number, its predecessor's checksum, its stream, file, offset and
//!    marker are right.
//! 2. A stream ends where a later stream's `closes` says; what follows there is no concern.
//! 3. A frame that cannot be read is damaged only when it is proven: by a later head with `durable_frame` at or above
//!    it, or by `closes`. Otherwise the stream is torn there and ends.
//! 4. A file with a bad header counts as absent; with a head in it, it is damage.

use std::collections::BTreeMap;

use super::frame::{self, Head};
use super::header::{self, Header, PAGE, SlotName};
use super::record::{self, Close, EpochFact, Record, kind};

/// A file of a journal.
#[derive(Clone, Copy, Debug)]
pub struct SlotFile<'a> {
    /// Its name, without the folder.
    pub name: &'a str,
    /// All of it.
    pub bytes: &'a [u8],
}

/// A byte of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name.
    pub file: String,
    /// The offset in it.
    pub offset: u64,
}

/// A frame that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodFrame {
    /// Where it starts.
    pub place: Place,
    /// Its head.
    pub head: Head,
    /// The session of its stream.
    pub session: u64,
    /// All records but FRAME and PAD.
    pub records: Vec<Record>,
}

/// Frames that are proven to have been durable and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the first of them should start; for a file with a bad header, its start.
    pub place: Place,
    /// Collection and LSN of what can still be read of them, entries only.
    pub kept: Vec<(String, u64)>,
    /// Something was there that cannot be named.
    pub unknown: bool,
}

/// What a journal is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In order of epoch, session, number.
    pub frames: Vec<GoodFrame>,
    /// Where streams end in bytes that nothing proves.
    pub torn: Vec<Place>,
    /// What is damaged.
    pub damage: Vec<Damage>,
    /// Files whose page 0 is not a header. Those with a head in them are in `damage` too.
    pub bad_headers: Vec<String>,
}

impl Verdict {
    /// All entries that can be read.
    pub fn data(&self) -> impl Iterator<Item = &Record> {
        self.frames.iter().flat_map(|frame| &frame.records).filter(|record| record.kind == kind::DATA)
    }
}

struct Slot<'a> {
    name: &'a str,
    bytes: &'a [u8],
    header: Header,
    heads: Vec<Head>,
}

/// Judges a journal. Files with other names are ignored.
#[must_use]
pub fn classify(files: &[SlotFile<'_>]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut bad_names: Vec<SlotName> = Vec::new();
    let mut streams: BTreeMap<(u64, u64), BTreeMap<u64, Slot<'_>>> = BTreeMap::new();
    for file in files {
        let Some(name) = header::parse_name(file.name) else { continue };
        match header::parse(name, file.bytes) {
            Some(header) => {
                let heads = heads_of(file.bytes, |head| head.stream == header.stream && head.file == header.file);
                let slot = Slot { name: file.name, bytes: file.bytes, header, heads };
                streams.entry((name.epoch, name.session)).or_default().insert(name.file, slot);
            }
            None => {
                bad_names.push(name);
                without_header(file, name, &mut verdict);
            }
        }
    }
    let all_heads = || streams.values().flat_map(BTreeMap::values).flat_map(|slot| &slot.heads);
    let oldest = all_heads().map(|head| (head.oldest, u64::from(head.oldest_session))).max().unwrap_or_default();
    let mut closes: Vec<Close> = Vec::new();
    let mut parts = Vec::new();
    for (id, slots) in streams.iter().rev() {
        if *id < oldest {
            continue;
        }
        let stream = slots.values().next().map(|slot| slot.header.stream).unwrap_or_default();
        let close = closes.iter().find(|close| close.stream == stream).cloned();
        let bad: Vec<u64> = bad_names.iter().filter(|name| (name.epoch, name.session) == *id).map(|n| n.file).collect();
        let part = walk(slots, &bad, close.as_ref());
        for epoch in part.frames.iter().flat_map(|f| &f.records).filter_map(epoch_fact) {
            closes.extend(epoch.closes);
        }
        parts.push(part);
    }
    for part in parts.into_iter().rev() {
        verdict.frames.extend(part.frames);
        verdict.torn.extend(part.torn);
        verdict.damage.extend(part.damage);
    }
    let present = |close: &Close| streams.contains_key(&(close.epoch, close.session));
    for close in closes.iter().filter(|c| c.frame_seq > 0 && (c.epoch, c.session) >= oldest && !present(c)) {
        let file = format!("{:013}.{:03}-{:012}.avro", close.epoch, close.session, 1);
        if !verdict.damage.iter().any(|damage| damage.place.file == file) {
            verdict.damage.push(Damage { place: Place { file, offset: 0 }, kept: Vec::new(), unknown: true });
        }
    }
    verdict
}

fn epoch_fact(record: &Record) -> Option<EpochFact> {
    (record.kind == kind::EPOCH).then(|| record::parse_epoch(&record.payload)).flatten()
}

fn heads_of(bytes: &[u8], belongs: impl Fn(&Head) -> bool) -> Vec<Head> {
    (PAGE..bytes.len())
        .step_by(PAGE)
        .filter_map(|at| frame::head_at(bytes, at).filter(|head| head.offset == at as u64 && belongs(head)))
        .collect()
}

fn without_header(file: &SlotFile<'_>, name: SlotName, verdict: &mut Verdict) {
    verdict.bad_headers.push(file.name.to_owned());
    let heads = heads_of(file.bytes, |head| head.file == name.file);
    if !heads.is_empty() {
        let survivors = heads.iter().flat_map(|head| frame::survivors(file.bytes, head));
        let kept: Vec<_> = survivors.filter_map(named).collect();
        let unknown = kept.len() < heads.iter().map(|head| head.entries as usize).sum();
        let place = Place { file: file.name.to_owned(), offset: 0 };
        verdict.damage.push(Damage { place, kept, unknown });
    }
}

fn named(record: Record) -> Option<(String, u64)> {
    (record.kind == kind::DATA).then_some((record.collection, record.lsn))
}

/// Where a walk stands: a slot (by its number) and an offset in it.
type Position = (u64, u64);

fn walk(slots: &BTreeMap<u64, Slot<'_>>, bad_headers: &[u64], close: Option<&Close>) -> Verdict {
    let mut verdict = Verdict::default();
    let heads =
        || slots.iter().flat_map(|(file, slot)| slot.heads.iter().map(move |head| ((*file, head.offset), head)));
    let floor = heads().map(|(_, head)| head.floor).max().unwrap_or(0);
    let synced = heads().map(|(_, head)| head.durable_frame).max().unwrap_or(0);
    let proven = close.map_or(synced, |close| close.frame_seq);
    let mut expected = floor + 1;
    let mut position = start(slots, floor);
    let mut prev_crc = if floor == 0 { Some(0) } else { None };
    loop {
        if close.is_some_and(|close| expected > close.frame_seq) {
            return verdict;
        }
        let good = here_or_next_slot(slots, position, expected)
            .and_then(|at| good_frame(&slots[&at.0], at.1, expected, prev_crc, close).map(|frame| (at, frame)));
        if let Some(((file, _), good)) = good {
            position = (file, good.place.offset + good.head.length as u64);
            expected += 1;
            prev_crc = Some(good.head.crc);
            verdict.frames.push(good);
            continue;
        }
        let begun = here_or_next_slot(slots, position, expected);
        if expected > proven {
            verdict.torn.extend(unproven_bytes(slots, begun.unwrap_or(position)));
            return verdict;
        }
        prev_crc = None;
        if let Some((file, offset)) = begun {
            verdict.damage.push(damage(slots, (file, offset), expected, expected));
            let head = slots[&file].heads.iter().find(|head| head.offset == offset);
            position = (file, offset + head.map_or(0, |head| head.length as u64));
            expected += 1;
            continue;
        }
        let later = |head: &Head| head.seq > expected && close.is_none_or(|close| head.seq <= close.frame_seq);
        let next = heads().find(|(at, head)| later(head) && *at > position);
        let lost = next.map_or(proven, |(_, head)| head.seq - 1);
        verdict.damage.push(damage(slots, blame(slots, bad_headers, position), expected, lost));
        let Some((at, head)) = next else { return verdict };
        position = at;
        expected = head.seq;
    }
}

/// Where a frame without a head should have been: here; or at the start of the next slot, when nothing follows here and
/// no frame starts there.
fn blame(slots: &BTreeMap<u64, Slot<'_>>, bad_headers: &[u64], at: Position) -> Position {
    let Some(slot) = slots.get(&at.0) else { return (at.0, 0) };
    if bad_headers.contains(&(at.0 + 1)) && is_blank(slot, at.1) {
        return (at.0 + 1, 0);
    }
    let next = slots.get(&(at.0 + 1)).is_some_and(|next| next.heads.iter().all(|head| head.offset != PAGE as u64));
    if next && is_blank(slot, at.1) { (at.0 + 1, PAGE as u64) } else { at }
}

fn start(slots: &BTreeMap<u64, Slot<'_>>, floor: u64) -> Position {
    let first = slots.keys().next().copied().unwrap_or(1);
    if floor == 0 {
        return (1, PAGE as u64);
    }
    let find = |seq| slots.iter().find_map(|(file, s)| s.heads.iter().find(|h| h.seq == seq).map(|h| (*file, h)));
    if let Some((file, head)) = find(floor + 1) {
        return (file, head.offset);
    }
    match find(floor) {
        Some((file, head)) => (file, head.offset + head.length as u64),
        None => (first, PAGE as u64),
    }
}

/// The place of frame `seq`: here, or at the start of the next slot when that starts with it.
fn here_or_next_slot(slots: &BTreeMap<u64, Slot<'_>>, at: Position, seq: u64) -> Option<Position> {
    let starts = |slot: &Slot<'_>, offset| slot.heads.iter().any(|head| head.offset == offset && head.seq == seq);
    if slots.get(&at.0).is_some_and(|slot| starts(slot, at.1)) {
        return Some(at);
    }
    slots.get(&(at.0 + 1)).is_some_and(|slot| starts(slot, PAGE as u64)).then_some((at.0 + 1, PAGE as u64))
}

fn good_frame(
    slot: &Slot<'_>,
    offset: u64,
    seq: u64,
    prev_crc: Option<u32>,
    close: Option<&Close>,
) -> Option<GoodFrame> {
    let head = slot.heads.iter().find(|head| head.offset == offset && head.seq == seq)?;
    let linked = prev_crc.is_none_or(|prev| prev == head.prev_crc);
    let ends = close.is_none_or(|close| close.frame_seq != seq || close.crc == head.crc);
    let records = frame::records(slot.bytes, head, &slot.header.marker)?;
    (linked && ends).then(|| GoodFrame {
        place: Place { file: slot.name.to_owned(), offset },
        head: head.clone(),
        session: slot.header.session,
        records,
    })
}

fn damage(slots: &BTreeMap<u64, Slot<'_>>, at: Position, first: u64, last: u64) -> Damage {
    let mut kept = Vec::new();
    let mut heads_seen = 0;
    let mut entries = 0;
    for slot in slots.values() {
        for head in slot.heads.iter().filter(|head| (first..=last).contains(&head.seq)) {
            heads_seen += 1;
            entries += head.entries as usize;
            kept.extend(frame::survivors(slot.bytes, head).into_iter().filter_map(named));
        }
    }
    let unknown = heads_seen < last - first + 1 || kept.len() < entries;
    Damage { place: place(slots, at), kept, unknown }
}

fn place(slots: &BTreeMap<u64, Slot<'_>>, (file, offset): Position) -> Place {
    let name = slots.get(&file).map(|slot| slot.name.to_owned());
    let name = name.or_else(|| {
        let other = slots.values().next()?;
        Some(format!("{:013}.{:03}-{file:012}.avro", other.header.epoch, other.header.session))
    });
    Place { file: name.unwrap_or_default(), offset }
}

/// The place itself when anything but zeros follows it: spare space is no torn tail.
fn unproven_bytes(slots: &BTreeMap<u64, Slot<'_>>, at: Position) -> Option<Place> {
    slots.get(&at.0).filter(|slot| !is_blank(slot, at.1)).map(|_| place(slots, at))
}

fn is_blank(slot: &Slot<'_>, offset: u64) -> bool {
    let zeros = [0u8; PAGE];
    let rest = usize::try_from(offset).ok().and_then(|offset| slot.bytes.get(offset..)).unwrap_or_default();
    rest.chunks(PAGE).all(|chunk| chunk == &zeros[..chunk.len()])
}
