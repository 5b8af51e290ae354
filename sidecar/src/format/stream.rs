//! What to believe of one stream: which frames count, and at each break whether it is a torn tail or damage.
//!
//! Frames are accepted in order while they are whole and `frame_seq`, `prev_crc`, stream, file and offset fit. At the
//! first frame n that is missing or does not hold:
//!
//! 1. the successor closed the stream before n: the end; what follows is garbage;
//! 2. frame n is proven: the successor closed the stream at n or later, a later head says `durable_frame >= n`, reading
//!    failed somewhere from here on, or a file from here on has frames and no valid header: **damage**. Reading resumes at
//!    the next head;
//! 3. otherwise nobody was ever told that n is durable: a **torn tail**, the end.
//!
//! Frames up to `floor` may be gone and are not looked at. This function knows nothing of files but what the scans say,
//! and decides nothing about what to do.

use super::header::HeaderError;
use super::limits::{MAX_SLOT, PAGE, SLOT_NOMINAL};
use super::scan::{FrameError, Head, Place, SlotScan};
use crate::types::Epoch;

/// Where the successor says that the stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedAt {
    /// The last frame, 0 for none.
    pub frame_seq: u64,
    /// Its crc, 0 for none.
    pub crc: u32,
}

/// A frame that counts: which scan, and which of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAt {
    /// Index into the scans given.
    pub scan: usize,
    /// Index into its places.
    pub place: usize,
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// A head is there, and its block is no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A whole frame that does not follow the one before.
    #[error("the frame does not follow the one before it")]
    Chain,
    /// A whole frame that is another than the one the next stream closed.
    #[error("the frame is not the one that the next stream says was the last")]
    CloseCrc,
    /// There should be a frame, and there is no head.
    #[error("there is no frame where one was written")]
    NoHead,
    /// The file is not there.
    #[error("the file is missing")]
    FileMissing,
    /// The file has a bad header.
    #[error("the file's header is bad: {0}")]
    FileHeader(HeaderError),
    /// The place cannot be read.
    #[error("reading failed")]
    Unreadable,
}

/// Proven frames that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the file.
    pub file: u64,
    /// Where in it; 0 where the file is missing or its header is bad.
    pub offset: u64,
    /// What is wrong there.
    pub what: What,
    /// The first frame that is lost.
    pub first_seq: u64,
    /// The last one; `None` when it is not known.
    pub last_seq: Option<u64>,
    /// The head of the one frame that is lost, where it can be read: `first_seq` is `last_seq` then.
    pub head: Option<Head>,
    /// Where that head is, for saving records whose own crc holds.
    pub at: Option<FrameAt>,
    /// Bytes up to the next head (or the end), counting what a file could have held where it is shorter or missing.
    pub bytes: u64,
}

impl Damage {
    /// The most DATA records that can be lost here.
    #[must_use]
    pub fn most_entries(&self) -> u64 {
        match &self.head {
            Some(head) => head.entries.into(),
            None => self.bytes / super::limits::MIN_RECORD as u64,
        }
    }
}

/// How the stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Where the successor says.
    Closed,
    /// At an unproven place: nothing acknowledged can be lost there.
    Tail(Tail),
    /// Somewhere that cannot be read: the last damage says where.
    Unreadable,
}

/// The place where an open stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Number of the file.
    pub file: u64,
    /// Where in it.
    pub offset: u64,
    /// The frame that would be next.
    pub seq: u64,
    /// Its head, where that can be read: the frame is torn.
    pub head: Option<Head>,
    /// Nothing was written from here to the end of the file.
    pub blank: bool,
}

/// What to believe of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The frames that count, in order.
    pub accepted: Vec<FrameAt>,
    /// What is lost, in order.
    pub damage: Vec<Damage>,
    /// How it ends.
    pub end: End,
    /// The last frame that counts, for the successor's `closes`; zeros when there is none.
    pub last: ClosedAt,
    /// Frames up to this one may be gone and were not looked at.
    pub floor: u64,
    /// The highest `oldest` and `oldest_session` of its heads: streams before that may be gone.
    pub oldest: (Epoch, u32),
}

/// Judges a stream by the scans of its files (in any order) and by what its successor says.
#[must_use]
pub fn classify(scans: &[SlotScan], close: Option<ClosedAt>) -> Verdict {
    Judge::new(scans, close).judge()
}

/// A place in the stream: number of the file, offset.
type Position = (u64, u64);

struct Judge<'a> {
    scans: &'a [SlotScan],
    /// Indices into `scans`, by file number.
    order: Vec<usize>,
    close: Option<ClosedAt>,
    floor: u64,
    oldest: (Epoch, u32),
    /// What lies above the floor and not beyond the close, in order.
    places: Vec<FrameAt>,
    /// For each place: the highest frame that it or a later one proves.
    proves: Vec<u64>,
    /// Where the next frame should stand.
    position: Position,
    prev_crc: Option<u32>,
}

impl<'a> Judge<'a> {
    fn new(scans: &'a [SlotScan], close: Option<ClosedAt>) -> Self {
        let mut order: Vec<_> = (0..scans.len()).collect();
        order.sort_by_key(|scan| scans[*scan].file);
        let all: Vec<_> = order
            .iter()
            .flat_map(|&scan| (0..scans[scan].places.len()).map(move |place| FrameAt { scan, place }))
            .collect();
        let heads = || all.iter().map(|at| &scans[at.scan].places[at.place].head.header);
        let floor = heads().map(|header| header.floor).max().unwrap_or(0);
        let oldest = heads().map(|header| (header.oldest, header.oldest_session)).max().unwrap_or_default();
        let mut judge = Self {
            scans,
            order,
            close,
            floor,
            oldest,
            places: Vec::new(),
            proves: Vec::new(),
            position: (1, PAGE as u64),
            prev_crc: Some(0),
        };
        if floor > 0 {
            judge.prev_crc = None;
            if let Some(&first) = judge.order.first() {
                judge.position = (scans[first].file, PAGE as u64);
            }
        }
        for at in all {
            let place = judge.place(at);
            let seq = place.head.header.frame_seq;
            if seq <= floor {
                judge.position = judge.end_of(at);
                judge.prev_crc = (seq == floor && place.fault.is_none()).then_some(place.head.crc);
            } else if close.is_none_or(|close| seq <= close.frame_seq) {
                judge.places.push(at);
            }
        }
        let mut proven = 0;
        for at in judge.places.iter().rev() {
            let place = judge.place(*at);
            // A file with a bad header that holds heads is damage even where nothing else proves its frames.
            let by_header = if place.fault == Some(FrameError::FileHeader) { u64::MAX } else { 0 };
            proven = proven.max(place.head.header.durable_frame).max(by_header);
            judge.proves.push(proven);
        }
        judge.proves.reverse();
        judge
    }

    fn place(&self, at: FrameAt) -> &'a Place {
        &self.scans[at.scan].places[at.place]
    }

    fn end_of(&self, at: FrameAt) -> Position {
        let place = self.place(at);
        (self.scans[at.scan].file, place.offset.saturating_add(place.head.length.into()))
    }

    fn scan_of(&self, file: u64) -> Option<&'a SlotScan> {
        let index = self.order.binary_search_by_key(&file, |scan| self.scans[*scan].file).ok()?;
        Some(&self.scans[self.order[index]])
    }

    fn judge(mut self) -> Verdict {
        let mut accepted = Vec::new();
        let mut damage = Vec::new();
        let mut last = ClosedAt { frame_seq: 0, crc: 0 };
        let mut expected = self.floor.saturating_add(1);
        let mut index = 0;
        let end = loop {
            if self.close.is_some_and(|close| expected > close.frame_seq) {
                break End::Closed;
            }
            let next = self.places.get(index).map(|at| (*at, self.place(*at)));
            let seq = next.map(|(_, place)| place.head.header.frame_seq);
            if seq.is_some_and(|seq| seq < expected) {
                index += 1;
                continue;
            }
            let here = next.filter(|_| seq == Some(expected));
            let fault = here.map(|(_, place)| self.fault(place));
            if let (Some((at, place)), Some(None)) = (here, &fault) {
                accepted.push(at);
                last = ClosedAt { frame_seq: expected, crc: place.head.crc };
                self.position = self.end_of(at);
                self.prev_crc = Some(place.head.crc);
                expected = expected.saturating_add(1);
                index += 1;
                continue;
            }
            let unreadable = self.unreadable();
            let proven = self.close.is_some()
                || self.proves.get(index).is_some_and(|proven| *proven >= expected)
                || unreadable.is_some();
            if !proven || mutant!(DamageTakenForTail) {
                break End::Tail(self.tail(expected, here.map(|(_, place)| place)));
            }
            self.prev_crc = None;
            if let (Some((at, place)), Some(Some(what))) = (here, fault) {
                let scan = &self.scans[at.scan];
                let (offset, what) = match &scan.header {
                    Err(error) => (0, What::FileHeader(error.clone())),
                    Ok(_) => (place.offset, what),
                };
                damage.push(Damage {
                    file: scan.file,
                    offset,
                    what,
                    first_seq: expected,
                    last_seq: Some(expected),
                    head: Some(place.head),
                    at: Some(at),
                    bytes: place.head.length.into(),
                });
                self.position = self.end_of(at);
                expected = expected.saturating_add(1);
                index += 1;
                continue;
            }
            let resume = next.map(|(at, place)| (self.scans[at.scan].file, place.offset));
            let (place, what) = self.what(resume, unreadable);
            let last_seq = match (seq, self.close) {
                (Some(seq), _) => Some(seq - 1),
                (None, Some(close)) => Some(close.frame_seq),
                (None, None) => None,
            };
            let bytes = self.bytes_between(resume);
            let (file, offset) = place;
            damage.push(Damage { file, offset, what, first_seq: expected, last_seq, head: None, at: None, bytes });
            match (seq, resume) {
                (Some(seq), Some(resume)) => {
                    expected = seq;
                    self.position = resume;
                }
                _ if self.close.is_some() => break End::Closed,
                _ => break End::Unreadable,
            }
        };
        Verdict { accepted, damage, end, last, floor: self.floor, oldest: self.oldest }
    }

    /// Why the place with the expected number does not count.
    fn fault(&self, place: &Place) -> Option<What> {
        let header = &place.head.header;
        let close = self.close.filter(|close| close.frame_seq == header.frame_seq);
        match place.fault {
            Some(fault) => Some(What::Frame(fault)),
            None if self.prev_crc.is_some_and(|crc| crc != header.prev_crc) && !mutant!(NoPrevCrc) => Some(What::Chain),
            None if close.is_some_and(|close| close.crc != place.head.crc) => Some(What::CloseCrc),
            None => None,
        }
    }

    /// The first place from here on that could not be read.
    fn unreadable(&self) -> Option<Position> {
        let (file, offset) = self.position;
        self.order.iter().map(|scan| &self.scans[*scan]).filter(|scan| scan.file >= file).find_map(|scan| {
            let from = if scan.file == file { offset } else { 0 };
            scan.unreadable.iter().find(|(_, to)| *to > from).map(|(start, _)| (scan.file, (*start).max(from)))
        })
    }

    fn tail(&self, seq: u64, torn: Option<&Place>) -> Tail {
        let (file, offset) = match torn {
            Some(place) => (place.head.header.file, place.offset),
            None => self.position,
        };
        let blank = torn.is_none() && self.scan_of(file).is_none_or(|scan| scan.blank_from <= offset.max(PAGE as u64));
        Tail { file, offset, seq, head: torn.map(|place| place.head), blank }
    }

    /// Where and why there is no frame at the position where one must be.
    fn what(&self, resume: Option<Position>, unreadable: Option<Position>) -> (Position, What) {
        let (file, offset) = self.position;
        if let Some(place) = unreadable
            && resume.is_none_or(|resume| place < resume)
        {
            return (place, What::Unreadable);
        }
        let here = self.scan_of(file);
        // Where the next file begins with a frame, what is missing stood in this one.
        let rotated = here.is_some_and(|scan| scan.blank_from <= offset)
            && match resume {
                Some(resume) => resume > (file.saturating_add(1), PAGE as u64),
                None => self.scan_of(file.saturating_add(1)).is_some(),
            };
        let (file, offset) = if rotated { (file.saturating_add(1), PAGE as u64) } else { (file, offset) };
        match self.scan_of(file) {
            None => ((file, 0), What::FileMissing),
            Some(scan) => match &scan.header {
                Ok(_) => ((file, offset), What::NoHead),
                Err(error) => ((file, 0), What::FileHeader(error.clone())),
            },
        }
    }

    /// Bytes in which the lost frames stood, at most: where a file is shorter than a slot or missing, what it could have
    /// held.
    fn bytes_between(&self, resume: Option<Position>) -> u64 {
        let (file, offset) = self.position;
        let could_hold = |file| self.scan_of(file).map_or(MAX_SLOT, |scan| scan.len.max(SLOT_NOMINAL));
        match resume {
            Some((last, end)) if last == file => end.saturating_sub(offset),
            _ => {
                let (last, end) = match resume {
                    Some((last, end)) => (last, end.saturating_sub(PAGE as u64)),
                    None => (self.order.last().map_or(file, |scan| self.scans[*scan].file + 1).max(file + 1), 0),
                };
                let present = || self.order.iter().map(|scan| self.scans[*scan].file);
                let between = || present().filter(|number| *number > file && *number < last);
                let held = between().map(|number| could_hold(number) - PAGE as u64).fold(0, u64::saturating_add);
                let missing = (last - file - 1).saturating_sub(between().count() as u64);
                could_hold(file)
                    .saturating_sub(offset)
                    .saturating_add(held)
                    .saturating_add(missing.saturating_mul(MAX_SLOT - PAGE as u64))
                    .saturating_add(end)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
