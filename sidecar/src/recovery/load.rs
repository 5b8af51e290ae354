//! Reading the journal of one directory: every slot is synced, dropped from the page cache and read from the device,
//! newest stream first, because a stream ends where its successor says.
//!
//! Memory: two files at a time (one is read while the other is looked through), beside the entries that count.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use super::content::{ContentError, StreamContent};
use super::released::Known;
use crate::ambient;
use crate::commit::reserve::is_reserve;
use crate::directory::disk::{Disk, DiskFile};
use crate::directory::identity::JOURNAL;
use crate::format::facts::{AcceptedDamage, Close, EpochFact, Fact as _};
use crate::format::limits::{MAX_FRAME, PAGE};
use crate::format::names::SlotName;
use crate::format::record::{self, Kind, RecordRef};
use crate::format::scan::{self, Frame, MustStop, ReadFailed, SlotScan, Source};
use crate::format::stream::{self, ClosedAt, Damage, FrameAt, Verdict};
use crate::format::{StreamId, StreamKey};
use crate::types::{CollectionName, Epoch, Lsn};

/// Bytes read at a time.
const READ: usize = 4 << 20;

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
    /// A file of another directory was put here.
    #[error("{path} belongs to directory {theirs}, not to {ours}: take it away")]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// What its header says.
        theirs: uuid::Uuid,
        /// Where it lies.
        ours: uuid::Uuid,
    },
}

/// What is left of damaged frames: the records whose own checksum holds.
#[derive(Debug, Default)]
pub(crate) struct Salvage {
    /// Whole batches, and facts.
    pub(crate) records: Vec<Vec<u8>>,
    /// DATA among them.
    pub(crate) entries: u64,
    /// DATA of batches that are not whole: nobody gets them, but they say what is damaged.
    pub(crate) partial: Vec<Vec<u8>>,
}

/// A place where the stream is damaged, and what could be saved there.
#[derive(Debug)]
pub(crate) struct Loss {
    pub(crate) damage: Damage,
    pub(crate) salvage: Salvage,
    /// An earlier start recorded it as gaps already.
    pub(crate) accepted: bool,
}

impl Loss {
    /// What was saved of EPOCH records, with the frame.
    pub(crate) fn epochs(&self) -> impl Iterator<Item = (u64, EpochFact)> {
        let records = self.salvage.records.iter().filter_map(|raw| Some(record::decode(raw).ok()?.0));
        records
            .filter(|record| record.kind == Kind::Epoch)
            .filter_map(|record| Some((self.damage.first_seq, EpochFact::decode(&record).ok()?)))
    }
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
}

/// A file in memory, and the ranges of it that could not be read.
#[derive(Default)]
struct FileBytes {
    bytes: Vec<u8>,
    bad: Vec<(u64, u64)>,
}

impl Source for FileBytes {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<&[u8], ReadFailed> {
        let end = offset + length as u64;
        match self.bad.iter().find(|(from, to)| *from < end && offset < *to) {
            Some((from, to)) => Err(ReadFailed(format!("bytes {from} to {to}"))),
            None => {
                let rest = self.bytes.get(offset as usize..).unwrap_or_default();
                Ok(rest.get(..length).unwrap_or(rest))
            }
        }
    }
}

impl FileBytes {
    /// Reads all of `file`; what the device refuses is noted page by page.
    fn fill(&mut self, file: &dyn DiskFile, progress: &dyn Fn(u64)) -> io::Result<()> {
        let len = file.len()? as usize;
        self.bad.clear();
        self.bytes.resize(len, 0);
        for from in (0..len).step_by(READ) {
            let to = (from + READ).min(len);
            if file.read_at(from as u64, &mut self.bytes[from..to]).is_err() {
                for page in (from..to).step_by(PAGE) {
                    let end = (page + PAGE).min(to);
                    if file.read_at(page as u64, &mut self.bytes[page..end]).is_err() {
                        self.bytes[page..end].fill(0);
                        self.bad.push((page as u64, end as u64));
                    }
                }
            }
            progress((to - from) as u64);
        }
        Ok(())
    }
}

/// Reads the journal of the directory `ours`. `progress` is told bytes as they are read. What is in segments of the
/// directories `here` is left out.
///
/// # Errors
/// See [`LoadError`]. Ranges that cannot be read are damage, no error.
pub(crate) fn load(
    disk: &dyn Disk,
    ours: uuid::Uuid,
    here: &Arc<HashSet<uuid::Uuid>>,
    total: &dyn Fn(u64),
    progress: &(dyn Fn(u64) + Sync),
) -> Result<LoadedJournal, LoadError> {
    let mut loader = Loader { disk, ours, known: Known::new(here), progress, bytes: FileBytes::default() };
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
    let mut closes: HashMap<StreamId, Close> = HashMap::new();
    let mut accepted: Vec<AcceptedDamage> = Vec::new();
    let mut oldest = (Epoch(0), 0);
    for (key, mut slots) in streams.into_iter().rev() {
        slots.sort_unstable();
        loaded.highest_epoch = loaded.highest_epoch.max(key.epoch.0);
        let files = slots.iter().map(|(name, len)| (name.to_string(), *len));
        if (key.epoch, key.session) < oldest {
            loaded.garbage.extend(files);
            continue;
        }
        let (id, content, verdict, losses, needed) = loader.stream(key, &slots, &closes, &accepted)?;
        let (files, garbage): (Vec<_>, Vec<_>) = files.zip(needed).partition(|(_, needed)| *needed);
        let files = files.into_iter().map(|(file, _)| file).collect();
        loaded.garbage.extend(garbage.into_iter().map(|(file, _)| file));
        oldest = oldest.max(verdict.oldest);
        loader.known.add(&content);
        loaded.highest_epoch = loaded.highest_epoch.max(content.highest_epoch);
        if let Some((_, epoch)) = &content.epoch {
            // Newer streams speak first: what they say of a stream stands.
            for close in &epoch.closes {
                closes.entry(close.stream).or_insert(*close);
            }
            accepted.extend(&epoch.accepted);
        }
        let id = id.or_else(|| closes.values().find(|close| close.key == key).map(|close| close.stream));
        let close = match id.and_then(|id| closes.get(&id)) {
            Some(close) => ClosedAt { frame_seq: close.frame_seq, crc: close.crc },
            None => last_seen(&verdict),
        };
        loaded.streams.push(LoadedStream { key, id, files, content, losses, close });
    }
    missing_streams(&mut loaded, &closes, &accepted, oldest);
    loaded.accepted = accepted;
    Ok(loaded)
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
            content: StreamContent::default(),
            losses: vec![Loss { damage, salvage: Salvage::default(), accepted: known }],
            close: ClosedAt { frame_seq: close.frame_seq, crc: close.crc },
        });
    }
    loaded.streams.sort_by_key(|stream| std::cmp::Reverse(stream.key));
}

fn io_error(disk: &dyn Disk, what: &'static str, name: SlotName) -> impl FnOnce(io::Error) -> LoadError + use<> {
    let path = disk.display(&Path::new(JOURNAL).join(name.to_string()));
    move |source| LoadError::Io { what, path, source }
}

fn read_file(
    disk: &dyn Disk,
    name: SlotName,
    bytes: &mut FileBytes,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), LoadError> {
    let path = Path::new(JOURNAL).join(name.to_string());
    let file = disk.open(&path).map_err(io_error(disk, "open", name))?;
    // After a SIGKILL an unsynced frame is readable, would be served, and could vanish in a later power cut.
    file.sync_data().map_err(io_error(disk, "sync", name))?;
    // Where the advice is refused the pages are those just synced.
    let _ = file.drop_cache();
    bytes.fill(file.as_ref(), progress).map_err(io_error(disk, "read", name))
}

/// Reads files in order on a thread of its own, one ahead of the one that is looked through; two buffers go round.
fn read_in_order(
    disk: &dyn Disk,
    slots: &[(SlotName, u64)],
    progress: &(dyn Fn(u64) + Sync),
    mut look: impl FnMut(SlotName, &mut FileBytes) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    if ambient::on_one_thread() {
        let mut bytes = FileBytes::default();
        return slots.iter().try_for_each(|&(name, _)| {
            read_file(disk, name, &mut bytes, progress)?;
            look(name, &mut bytes)
        });
    }
    std::thread::scope(|scope| {
        let (filled, to_look_at) = mpsc::sync_channel(0);
        let (emptied, to_fill) = mpsc::channel();
        scope.spawn(move || {
            for &(name, _) in slots {
                let mut bytes: FileBytes = to_fill.try_recv().unwrap_or_default();
                let read = read_file(disk, name, &mut bytes, progress).map(|()| bytes);
                let failed = read.is_err();
                if filled.send(read).is_err() || failed {
                    return;
                }
            }
        });
        for (&(name, _), read) in slots.iter().zip(to_look_at) {
            let mut bytes = read?;
            look(name, &mut bytes)?;
            // The reader may be done.
            let _ = emptied.send(bytes);
        }
        Ok(())
    })
}

struct Loader<'a> {
    disk: &'a dyn Disk,
    ours: uuid::Uuid,
    known: Known,
    progress: &'a (dyn Fn(u64) + Sync),
    bytes: FileBytes,
}

/// Id, content, verdict, losses, and which of the files are needed.
type Judged = (Option<StreamId>, StreamContent, Verdict, Vec<Loss>, Vec<bool>);

impl Loader<'_> {
    fn path(&self, name: SlotName) -> PathBuf {
        self.disk.display(&Path::new(JOURNAL).join(name.to_string()))
    }

    fn io(&self, what: &'static str, name: SlotName) -> impl FnOnce(io::Error) -> LoadError + use<> {
        io_error(self.disk, what, name)
    }

    fn read(&mut self, name: SlotName) -> Result<(), LoadError> {
        read_file(self.disk, name, &mut self.bytes, self.progress)
    }

    /// The stream's id, from the first of its files that has a header.
    fn id(&mut self, slots: &[(SlotName, u64)]) -> Result<Option<StreamId>, LoadError> {
        for &(name, _) in slots {
            let path = Path::new(JOURNAL).join(name.to_string());
            let file = self.disk.open(&path).map_err(self.io("open", name))?;
            let mut page = vec![0; PAGE];
            let Ok(read) = file.read_at(0, &mut page) else { continue };
            if let Ok(Ok(header)) = scan::read_header(&mut &page[..read], name) {
                return Ok(Some(header.stream));
            }
        }
        Ok(None)
    }

    fn stream(
        &mut self,
        key: StreamKey,
        slots: &[(SlotName, u64)],
        closes: &HashMap<StreamId, Close>,
        accepted: &[AcceptedDamage],
    ) -> Result<Judged, LoadError> {
        let id = self.id(slots)?;
        // A stream without a readable header is known by its epoch and session.
        let close = match id {
            Some(id) => closes.get(&id),
            None => closes.values().find(|close| close.key == key),
        };
        let id = id.or(close.map(|close| close.stream));
        let close = close.filter(|_| !mutant!(ClosesIgnored));
        let close = close.map(|c| ClosedAt { frame_seq: c.frame_seq, crc: c.crc });
        let mut content = StreamContent::new(self.known.clone());
        let mut scans: Vec<SlotScan> = Vec::new();
        read_in_order(self.disk, slots, self.progress, |name, bytes| {
            let mut error = None;
            let scanned = scan::scan_slot(bytes, name, id, |frame| {
                if error.is_none() {
                    error = take_frame(&mut content, key, frame).err();
                }
            });
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
            scans.push(scanned);
            Ok(())
        })?;
        // Where no header tells it, a head does.
        let heads = || scans.iter().flat_map(|scan| &scan.places).map(|place| place.head.header.stream);
        let id = id.or_else(|| heads().next());
        let verdict = stream::classify(&scans, close);
        let whole = scans.iter().flat_map(|scan| &scan.places).filter(|place| place.fault.is_none()).count();
        if whole != verdict.accepted.len() {
            // Some whole frame does not count, behind the end or up to the floor: gather again, without it.
            content = self.again(key, slots, &scans, &verdict)?;
        }
        let mut losses = Vec::new();
        for damage in &verdict.damage {
            let salvage = match damage.at {
                Some(at) => self.salvage(slots, &scans, at)?,
                None => Salvage::default(),
            };
            let last = damage.last_seq.unwrap_or(i64::MAX as u64);
            let known =
                accepted.iter().any(|a| Some(a.stream) == id && a.first_seq <= damage.first_seq && last <= a.last_seq);
            losses.push(Loss { damage: damage.clone(), salvage, accepted: known });
        }
        let needed = which_are_needed(&scans, &verdict, close);
        Ok((id, content, verdict, losses, needed))
    }

    /// Gathers only the frames that count.
    fn again(
        &mut self,
        key: StreamKey,
        slots: &[(SlotName, u64)],
        scans: &[SlotScan],
        verdict: &Verdict,
    ) -> Result<StreamContent, LoadError> {
        let mut content = StreamContent::new(self.known.clone());
        for (index, (&(name, _), scanned)) in slots.iter().zip(scans).enumerate() {
            let counts = |at: &&FrameAt| at.scan == index;
            let offsets: Vec<_> = verdict.accepted.iter().filter(counts).map(|at| scanned.places[at.place]).collect();
            let Ok(header) = &scanned.header else { continue };
            if offsets.is_empty() {
                continue;
            }
            self.read(name)?;
            for place in offsets {
                let block = self.bytes.bytes.get(place.offset as usize..).unwrap_or_default();
                if let Ok(frame) = scan::parse_frame(block, &place.head, &header.marker) {
                    take_frame(&mut content, key, &frame)
                        .map_err(|source| LoadError::Content { path: self.path(name), source })?;
                }
            }
        }
        Ok(content)
    }

    /// The records of a damaged frame whose own checksum holds: facts, and whole batches.
    fn salvage(&mut self, slots: &[(SlotName, u64)], scans: &[SlotScan], at: FrameAt) -> Result<Salvage, LoadError> {
        let (name, _) = slots[at.scan];
        let place = scans[at.scan].places[at.place];
        self.read(name)?;
        let block = self.bytes.bytes.get(place.offset as usize..).unwrap_or_default();
        let records: Vec<RecordRef<'_>> = scan::salvage(block, &place.head).map_while(Result::ok).collect();
        Ok(keep_whole_batches(&records))
    }
}

/// For each file of a stream whether a frame in it counts, or could tell something. Of a damaged stream every file is.
fn which_are_needed(scans: &[SlotScan], verdict: &Verdict, close: Option<ClosedAt>) -> Vec<bool> {
    let whole = verdict.damage.is_empty() && scans.iter().all(|scan| scan.unreadable.is_empty());
    let over = |seq: u64| seq <= verdict.floor || close.is_some_and(|close| seq > close.frame_seq);
    let needed = |scan: &SlotScan| !scan.places.iter().all(|place| over(place.head.header.frame_seq));
    let blank = |scan: &SlotScan| scan.places.is_empty();
    let last = scans.iter().filter(|scan| !blank(scan)).map(|scan| scan.file).max();
    // A file without frames is a spare where it comes after the last one; before that it is a riddle, and stays.
    scans.iter().map(|scan| !whole || needed(scan) || (blank(scan) && Some(scan.file) < last)).collect()
}

/// Which records of a damaged frame to keep. Where the record before a batch is bad, the batch may have begun with it.
fn keep_whole_batches(records: &[RecordRef<'_>]) -> Salvage {
    let good = |record: &RecordRef<'_>| {
        record.crc_holds() && (record.kind == Kind::Epoch || CollectionName::new(record.collection_id).is_ok())
    };
    let mut kept = Salvage::default();
    let mut index = 0;
    while let Some(record) = records.get(index) {
        let is_data = record.kind == Kind::Data;
        let wanted = if is_data { record.batch_end.0.saturating_sub(record.lsn.0) + 1 } else { 1 };
        let batch = usize::try_from(wanted).ok().and_then(|wanted| records.get(index..index.checked_add(wanted)?));
        let begins = !is_data
            || record.batch_end == Lsn::ZERO
            || match index.checked_sub(1).map(|before| &records[before]) {
                None => true,
                Some(before) => good(before) && (before.kind != Kind::Data || before.batch_end != record.batch_end),
            };
        let continues = |(i, part): (usize, &RecordRef<'_>)| {
            good(part) && part.lsn.0 == record.lsn.0 + i as u64 && part.incarnation == record.incarnation
        };
        match batch {
            Some(batch) if begins && batch.iter().enumerate().all(continues) => {
                kept.records.extend(batch.iter().map(|part| part.raw().to_vec()));
                kept.entries += if is_data { wanted } else { 0 };
                index += batch.len();
            }
            _ => {
                if is_data && good(record) {
                    kept.partial.push(record.raw().to_vec());
                }
                index += 1;
            }
        }
    }
    kept
}

fn take_frame(content: &mut StreamContent, key: StreamKey, frame: &Frame<'_>) -> Result<(), ContentError> {
    for record in frame.records() {
        content.take(key, frame.head.header.frame_seq, &record?)?;
    }
    Ok(())
}
