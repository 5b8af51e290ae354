//! Reading the journal of one directory, newest stream first, because a stream ends where its successor says.
//!
//! Memory: what [`super::read`] takes, and the entries that count as far as there is room for them ([`super::budget`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::budget::Budget;
use super::content::{ContentError, StreamContent};
use super::freed::Freed;
use super::noted::Spot;
use super::objects;
use super::read::{self, io_error, path_of};
use super::released::Known;
use super::salvage::{Loss, Salvage, keep_whole_batches};
use super::shared::There;
use crate::commit::reserve::is_reserve;
use crate::directory::disk::Disk;
use crate::directory::identity::JOURNAL;
use crate::format::facts::{AcceptedDamage, Close, EpochFact, Member};
use crate::format::frame::FrameHeader;
use crate::format::limits::{MAX_FRAME, PAGE};
use crate::format::names::SlotName;
use crate::format::scan::{self, Frame, MustStop, Place, SlotScan};
use crate::format::stream::{self, ClosedAt, Damage, FrameAt, Verdict};
use crate::format::{StreamId, StreamKey};
use crate::types::Epoch;

/// Why a directory's journal cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The device failed, other than on a range of a file.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the device said.
        source: io::Error,
    },
    /// A later version wrote it.
    #[error("{path}: {source}; use the newer program")]
    Newer {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: MustStop,
    },
    /// A whole frame holds what no writer writes.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What was found.
        source: ContentError,
    },
    /// Another process has taken a bucket over.
    #[error("{0}")]
    Fenced(String),
    /// There is not enough memory for the entries: they are to be noted instead.
    #[error("there is not enough memory for the entries")]
    TooMuch,
    /// A file of another directory was put here.
    #[error("{path} belongs to directory {theirs}, not to {ours}: take it away")]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// What its header says.
        theirs: Uuid,
        /// Where it lies.
        ours: Uuid,
    },
}

/// One stream as read.
#[derive(Debug)]
pub(crate) struct LoadedStream {
    pub(crate) key: StreamKey,
    /// `None` when no file of it has a header.
    pub(crate) id: Option<StreamId>,
    pub(crate) files: Vec<(String, u64)>,
    pub(crate) content: StreamContent,
    pub(crate) losses: Vec<Loss>,
    /// Where it ends, for `closes`.
    pub(crate) close: ClosedAt,
}

/// The journal of one directory as read.
#[derive(Debug, Default)]
pub(crate) struct LoadedJournal {
    /// Newest first.
    pub(crate) streams: Vec<LoadedStream>,
    /// Files that nothing needs, whatever becomes of this start: of streams that may be gone, below the floor, beyond the
    /// close, spares.
    pub(crate) garbage: Vec<(String, u64)>,
    /// Damage that earlier starts recorded as gaps.
    pub(crate) accepted: Vec<AcceptedDamage>,
    /// The highest epoch of a file name, an EPOCH or an incarnation.
    pub(crate) highest_epoch: u64,
    /// Of a bucket: its shared segments. Those of a disk are looked at when it is known which are needed.
    pub(crate) shared: Option<Vec<There>>,
}

impl LoadedJournal {
    /// Whether nothing in it counts: the newest EPOCH says that its directory is not in use. At the start of an epoch that
    /// is said before it is; what was written after that is not given away for a later EPOCH that cannot be read.
    pub(crate) fn is_stale(&self, epoch: &EpochFact, directory: Uuid) -> bool {
        let in_use = |member: &Member| member.uuid == directory && member.in_use;
        let since = |stream: &LoadedStream| stream.key.epoch >= epoch.key.epoch && !stream.content.found.is_empty();
        let first = epoch.version < 2;
        let counts = epoch.members.iter().any(in_use) || (first && self.streams.iter().any(since));
        !counts && !mutant!(EmptiedIsRead)
    }

    /// Whether it says that entries are in segments of one of these directories: then it was read without them.
    pub(crate) fn speaks_of_segments_in(&self, directories: &BTreeSet<Uuid>) -> bool {
        let mut found = self.streams.iter().flat_map(|stream| stream.content.found.values());
        found.any(|found| found.segments.0.values().any(|(fact, _)| directories.contains(&fact.directory)))
    }
}

/// Reads the journal of the directory `ours`. `progress` is told bytes as they are read. What is in segments of the
/// directories `here` is left out; how the rest is kept says `budget`.
///
/// # Errors
/// See [`LoadError`]. Ranges that cannot be read are damage, no error.
pub(crate) fn load(
    disk: &dyn Disk,
    ours: Uuid,
    here: &Arc<HashSet<Uuid>>,
    budget: &Arc<Budget>,
    total: &dyn Fn(u64),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<LoadedJournal, LoadError> {
    let mut loader = Loader { disk, ours, known: Known::new(here), budget, total, progress };
    if let Some(objects) = disk.objects() {
        return objects::load(&mut loader, objects);
    }
    let journal = Path::new(JOURNAL);
    let entries = match disk.list(journal) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(LoadedJournal::default()),
        Err(source) => return Err(LoadError::Io { what: "list", path: disk.display(journal), source }),
    };
    let mut loaded = LoadedJournal::default();
    let mut streams: BTreeMap<StreamKey, Vec<(SlotName, u64)>> = BTreeMap::new();
    for entry in entries {
        if let Some(name) = SlotName::parse(&entry.name) {
            streams.entry(name.key).or_default().push((name, entry.len));
            total(entry.len);
        } else if is_reserve(&entry.name) {
            loaded.garbage.push((entry.name, entry.len));
        }
    }
    if !budget.expects(streams.values().flatten().map(|(_, len)| len).sum()) {
        return Err(LoadError::TooMuch);
    }
    let mut told = Told::default();
    let (mut oldest, mut freed) = ((Epoch(0), 0), (Epoch(0), 0));
    for (key, mut slots) in streams.into_iter().rev() {
        slots.sort_unstable();
        loaded.highest_epoch = loaded.highest_epoch.max(key.epoch.0);
        let files = slots.iter().map(|(name, len)| (name.to_string(), *len));
        if (key.epoch, key.session) < freed {
            loaded.garbage.extend(files);
            continue;
        }
        let judged = loader.stream(key, &slots, &told)?;
        oldest = oldest.max(judged.verdict.oldest);
        freed = freed.max(judged.freed.oldest);
        loaded.add(key, judged, files, &mut told, &mut loader.known);
    }
    Ok(loaded.finish(told, oldest, budget))
}

/// What newer streams say of older ones.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) closes: HashMap<StreamId, Close>,
    pub(super) accepted: Vec<AcceptedDamage>,
}

impl Told {
    /// Where a stream ends, if a newer one says so. One without a readable header is known by its epoch and session.
    pub(super) fn close(&self, key: StreamKey, id: Option<StreamId>) -> Option<&Close> {
        match id {
            Some(id) => self.closes.get(&id),
            None => self.closes.values().find(|close| close.key == key),
        }
    }
}

impl LoadedJournal {
    /// Adds a stream older than all before it, with its files.
    pub(super) fn add(
        &mut self,
        key: StreamKey,
        judged: Judged,
        files: impl Iterator<Item = (String, u64)>,
        told: &mut Told,
        known: &mut Known,
    ) {
        let Judged { id, content, verdict, losses, needed, freed: _ } = judged;
        let (files, garbage): (Vec<_>, Vec<_>) = files.zip(needed).partition(|(_, needed)| *needed);
        let files = files.into_iter().map(|(file, _)| file).collect();
        self.garbage.extend(garbage.into_iter().map(|(file, _)| file));
        known.add(&content);
        self.highest_epoch = self.highest_epoch.max(content.highest_epoch);
        if let Some((_, epoch)) = &content.epoch {
            // Newer streams speak first: what they say of a stream stands.
            for close in &epoch.closes {
                told.closes.entry(close.stream).or_insert(*close);
            }
            told.accepted.extend(&epoch.accepted);
        }
        let close = told.close(key, id);
        let id = id.or(close.map(|close| close.stream));
        let close = match close {
            Some(close) => ClosedAt { frame_seq: close.frame_seq, crc: close.crc },
            None => last_seen(&verdict),
        };
        self.streams.push(LoadedStream { key, id, files, content, losses, close });
    }

    /// All streams are read.
    pub(super) fn finish(mut self, told: Told, oldest: (Epoch, u32), budget: &Arc<Budget>) -> Self {
        missing_streams(&mut self, &told.closes, &told.accepted, oldest, budget);
        self.accepted = told.accepted;
        self
    }
}

/// The last frame that counts or that is damaged, where that one's head can be read: a close before it would make
/// garbage of what can be saved of it.
fn last_seen(verdict: &Verdict) -> ClosedAt {
    let heads = verdict.damage.iter().filter_map(|damage| damage.head);
    let damaged = heads.map(|head| ClosedAt { frame_seq: head.header.frame_seq, crc: head.crc });
    damaged.chain([verdict.last]).max_by_key(|last| last.frame_seq).unwrap_or(verdict.last)
}

/// A stream that a successor closed behind a frame, that may not be gone, and of which there is no file, is damage.
fn missing_streams(
    loaded: &mut LoadedJournal,
    closes: &HashMap<StreamId, Close>,
    accepted: &[AcceptedDamage],
    oldest: (Epoch, u32),
    budget: &Arc<Budget>,
) {
    let mut missing: Vec<&Close> = closes
        .values()
        .filter(|close| close.frame_seq > 0 && (close.key.epoch, close.key.session) >= oldest)
        .filter(|close| loaded.streams.iter().all(|stream| stream.key != close.key))
        .collect();
    missing.sort_by_key(|close| std::cmp::Reverse(close.key));
    for close in missing {
        let known = accepted.iter().any(|a| a.stream == close.stream && a.last_seq >= close.frame_seq);
        let damage = Damage {
            file: 1,
            offset: PAGE as u64,
            what: stream::What::FileMissing,
            first_seq: 1,
            last_seq: Some(close.frame_seq),
            head: None,
            at: None,
            // Nothing says how much was in it: as much as can have been.
            bytes: close.frame_seq.saturating_mul(MAX_FRAME as u64),
        };
        loaded.streams.push(LoadedStream {
            key: close.key,
            id: Some(close.stream),
            files: Vec::new(),
            content: StreamContent::new(Known::default(), Arc::clone(budget)),
            losses: vec![Loss { damage, salvage: Salvage::default(), accepted: known, alone: true }],
            close: ClosedAt { frame_seq: close.frame_seq, crc: close.crc },
        });
    }
    loaded.streams.sort_by_key(|stream| std::cmp::Reverse(stream.key));
}

pub(super) struct Loader<'a> {
    pub(super) disk: &'a dyn Disk,
    ours: Uuid,
    pub(super) known: Known,
    pub(super) budget: &'a Arc<Budget>,
    pub(super) total: &'a dyn Fn(u64),
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
}

/// A stream as it was judged.
pub(super) struct Judged {
    id: Option<StreamId>,
    content: StreamContent,
    pub(super) verdict: Verdict,
    losses: Vec<Loss>,
    /// Which of the files are needed.
    pub(super) needed: Vec<bool>,
    freed: Freed,
}

impl Loader<'_> {
    pub(super) fn path(&self, name: SlotName) -> PathBuf {
        self.disk.display(&path_of(name))
    }

    fn io(&self, what: &'static str, name: SlotName) -> impl FnOnce(io::Error) -> LoadError + use<> {
        io_error(self.disk, what, name)
    }

    /// The stream's id, from the first of its files that has a header.
    fn id(&self, slots: &[(SlotName, u64)]) -> Result<Option<StreamId>, LoadError> {
        for &(name, _) in slots {
            let file = self.disk.open(&path_of(name)).map_err(self.io("open", name))?;
            let mut page = vec![0; PAGE];
            let Ok(read) = file.read_at(0, &mut page) else { continue };
            if let Ok(Ok(header)) = scan::read_header(&mut &page[..read], name) {
                return Ok(Some(header.stream));
            }
        }
        Ok(None)
    }

    fn stream(&self, key: StreamKey, slots: &[(SlotName, u64)], told: &Told) -> Result<Judged, LoadError> {
        let id = self.id(slots)?;
        let close = told.close(key, id);
        let id = id.or(close.map(|close| close.stream));
        let close = close.filter(|_| !mutant!(ClosesIgnored));
        let close = close.map(|c| ClosedAt { frame_seq: c.frame_seq, crc: c.crc });
        let mut content = self.content();
        let mut scans: Vec<SlotScan> = Vec::new();
        read::in_order(self.disk, slots, self.progress, |name, window| {
            let mut error = None;
            let scanned = scan::scan_slot(window, name, id, |frame| {
                if error.is_none() && !self.budget.is_over() {
                    error = take_frame(&mut content, key, frame).err();
                }
            });
            scans.push(self.scanned(name, scanned, error)?);
            Ok(())
        })?;
        self.judge(key, slots, id, close, &told.accepted, content, &scans)
    }

    /// What a scan found, where that is what may be there.
    pub(super) fn scanned(
        &self,
        name: SlotName,
        scanned: Result<SlotScan, MustStop>,
        error: Option<ContentError>,
    ) -> Result<SlotScan, LoadError> {
        if self.budget.is_over() {
            return Err(LoadError::TooMuch);
        }
        let scanned = scanned.map_err(|source| LoadError::Newer { path: self.path(name), source })?;
        if let Some(source) = error {
            return Err(LoadError::Content { path: self.path(name), source });
        }
        if let Ok(header) = &scanned.header
            && header.directory != self.ours
        {
            let (theirs, ours) = (header.directory, self.ours);
            return Err(LoadError::Misplaced { path: self.path(name), theirs, ours });
        }
        Ok(scanned)
    }

    /// What counts of a stream whose files were scanned; `content` was gathered from all whole frames.
    #[allow(clippy::too_many_arguments, reason = "the second half of reading a stream, on all of the first")]
    pub(super) fn judge(
        &self,
        key: StreamKey,
        slots: &[(SlotName, u64)],
        id: Option<StreamId>,
        close: Option<ClosedAt>,
        accepted: &[AcceptedDamage],
        mut content: StreamContent,
        scans: &[SlotScan],
    ) -> Result<Judged, LoadError> {
        // Where no header tells it, a head does.
        let heads = || scans.iter().flat_map(|scan| &scan.places).map(|place| place.head.header.stream);
        let id = id.or_else(|| heads().next());
        let mut verdict = stream::classify(scans, close);
        if self.disk.objects().is_some() {
            objects::place(&mut verdict, scans);
        }
        let whole = scans.iter().flat_map(|scan| &scan.places).filter(|place| place.fault.is_none()).count();
        if whole != verdict.accepted.len() {
            // Some whole frame does not count, behind the end or up to the floor: gather again, without it.
            content.give_up();
            content = self.again(key, slots, scans, &verdict)?;
        }
        let mut losses = Vec::new();
        let mut heads = scans.iter().flat_map(|scan| &scan.places).map(|place| &place.head.header);
        let alone = verdict.floor > 0 || heads.any(|head| (head.oldest, head.oldest_session) < verdict.oldest);
        for damage in &verdict.damage {
            let salvage = match damage.at {
                Some(at) => self.salvage(slots, scans, at),
                None => Salvage::default(),
            };
            let last = damage.last_seq.unwrap_or(i64::MAX as u64);
            let known =
                accepted.iter().any(|a| Some(a.stream) == id && a.first_seq <= damage.first_seq && last <= a.last_seq);
            losses.push(Loss { damage: damage.clone(), salvage, accepted: known, alone });
        }
        let freed = Freed::of(scans, &verdict);
        let needed = freed.leaves(scans, &verdict, close);
        Ok(Judged { id, content, verdict, losses, needed, freed })
    }

    pub(super) fn content(&self) -> StreamContent {
        StreamContent::new(self.known.clone(), Arc::clone(self.budget))
    }

    /// Gathers only the frames that count.
    fn again(
        &self,
        key: StreamKey,
        slots: &[(SlotName, u64)],
        scans: &[SlotScan],
        verdict: &Verdict,
    ) -> Result<StreamContent, LoadError> {
        let mut content = self.content();
        for at in &verdict.accepted {
            let ((name, _), scanned) = (slots[at.scan], &scans[at.scan]);
            let place = scanned.places[at.place];
            let Ok(header) = &scanned.header else { continue };
            let block = read::frame(self.disk, name, place.offset, place.head.length).map_err(self.io("read", name))?;
            let changed = |error| self.io("read", name)(io::Error::new(io::ErrorKind::InvalidData, error));
            let parse = if self.disk.objects().is_some() { scan::parse_object_frame } else { scan::parse_frame };
            let frame = parse(&block, &place.head, &header.marker).map_err(changed)?;
            take_frame(&mut content, key, &frame)
                .map_err(|source| LoadError::Content { path: self.path(name), source })?;
            if self.budget.is_over() {
                return Err(LoadError::TooMuch);
            }
        }
        Ok(content)
    }

    /// The records of a damaged frame whose own checksum holds: facts, and whole batches.
    fn salvage(&self, slots: &[(SlotName, u64)], scans: &[SlotScan], at: FrameAt) -> Salvage {
        let (name, _) = slots[at.scan];
        let Place { offset, head, .. } = scans[at.scan].places[at.place];
        let length = head.length.min(MAX_FRAME as u32);
        // What cannot be read cannot be saved.
        let block = read::frame(self.disk, name, offset, length).unwrap_or_default();
        let records = scan::salvage(&block, &head).map_while(Result::ok);
        let records: Vec<_> = records
            .map(|record| (record, Spot { file: name.file, offset: offset + place_in(&block, record.raw()) }))
            .collect();
        keep_whole_batches(&records)
    }
}

/// Where a part of a block begins in it.
fn place_in(block: &[u8], part: &[u8]) -> u64 {
    (part.as_ptr() as usize - block.as_ptr() as usize) as u64
}

pub(super) fn take_frame(content: &mut StreamContent, key: StreamKey, frame: &Frame<'_>) -> Result<(), ContentError> {
    let FrameHeader { frame_seq, file, offset, .. } = frame.head.header;
    for record in frame.records() {
        let record = record?;
        let spot = Spot { file, offset: offset + place_in(frame.block(), record.raw()) };
        content.take(key, frame_seq, &record, spot)?;
    }
    content.count(frame.block().len() as u64);
    Ok(())
}
