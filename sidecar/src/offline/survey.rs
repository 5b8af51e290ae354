//! Reading one directory's journal by the rules of recovery: which frames count, what is damaged, where it ends.

use std::collections::{BTreeMap, HashMap};

use super::directory::{OpenDirectory, Slot};
use super::meter::Meter;
use super::place::FileAt;
use super::report::{DirectoryReport, Lost, Problem, SegmentReport, StreamReport, TailReport, UnusedReport};
use super::source::FileSource;
use super::{OfflineError, ReadOptions};
use crate::fencing::object::{HEAD, Kind as ObjectKind, ObjectKey, Seen};
use crate::format::facts::{
    AcceptedDamage, Close, CollectionFact, DeleteFact, EpochFact, Fact, FlushedFact, GapFact, TruncateFact,
};
use crate::format::frame::FLAG_CLEAN_SHUTDOWN;
use crate::format::header::SlotHeader;
use crate::format::names::SlotName;
use crate::format::object::scan_object;
use crate::format::record::{Kind, RecordRef};
use crate::format::scan::{Frame, SlotScan, Source, read_header, salvage, scan_slot};
use crate::format::stream::{ClosedAt, Damage, End, Verdict, classify};
use crate::format::{StreamId, StreamKey};
use crate::types::Incarnation;

/// So many files of a stream are opened at once.
const OPENED_TOGETHER: usize = 64;
/// Bytes of small objects that are kept until it is their turn.
const KEPT: u64 = 64 << 20;

/// Collections by a small number: name and incarnation.
#[derive(Default)]
pub(super) struct Names {
    by_name: HashMap<String, Vec<(Incarnation, u32)>>,
    all: Vec<(String, Incarnation)>,
}

impl Names {
    fn number(&mut self, name: &str, incarnation: Incarnation) -> u32 {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Vec::new());
        }
        let lives = self.by_name.entry(name.to_owned()).or_default();
        if let Some((_, number)) = lives.iter().find(|(life, _)| *life == incarnation) {
            return *number;
        }
        let number = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        lives.push((incarnation, number));
        self.all.push((name.to_owned(), incarnation));
        number
    }

    /// Name and incarnation of every number.
    pub(super) fn all(&self) -> &[(String, Incarnation)] {
        &self.all
    }
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryAt {
    /// Number of the collection.
    pub(super) collection: u32,
    /// Length of its record.
    pub(super) length: u32,
    /// Its position.
    pub(super) lsn: u64,
    /// The epoch that wrote this copy.
    pub(super) epoch: u64,
    /// The record's crc.
    pub(super) crc: u32,
    /// Index into [`Journals::files`].
    pub(super) file: u32,
    /// Where its record starts in the file.
    pub(super) offset: u64,
}

/// A fact about a collection.
#[derive(Clone, Copy, Debug)]
pub(super) enum About {
    Collection,
    Truncate(TruncateFact),
    Flushed(FlushedFact),
    Gap(GapFact),
    Delete,
}

/// What frames that count hold.
#[derive(Default)]
pub(super) struct Content {
    pub(super) entries: Vec<EntryAt>,
    /// Collection, the record's `lsn`, the fact.
    pub(super) facts: Vec<(u32, u64, About)>,
    /// With the number of the frame each stands in.
    pub(super) epochs: Vec<(u64, EpochFact)>,
    malformed: Vec<String>,
}

impl Content {
    fn add(&mut self, other: Self) {
        let Self { entries, facts, epochs, malformed } = other;
        self.entries.extend(entries);
        self.facts.extend(facts);
        self.epochs.extend(epochs);
        self.malformed.extend(malformed);
    }
}

/// What is read of all directories together.
#[derive(Default)]
pub(super) struct Journals {
    pub(super) names: Names,
    pub(super) files: Vec<FileAt>,
    pub(super) content: Content,
    pub(super) directories: Vec<DirectoryReport>,
    pub(super) problems: Vec<Problem>,
    pub(super) tails: Vec<TailReport>,
    pub(super) notes: Vec<String>,
    pub(super) segments: Vec<SegmentReport>,
    pub(super) unused: Vec<UnusedReport>,
    /// Damage whose loss was recorded as gaps, as said by the streams read so far.
    recorded: Vec<AcceptedDamage>,
}

/// Reads one directory's journal; what it says is added to `journals`.
pub(super) fn read(
    directory: &OpenDirectory,
    options: ReadOptions<'_>,
    journals: &mut Journals,
    meter: &mut Meter<'_>,
) -> Result<(), OfflineError> {
    Survey { directory, options, journals, meter }.run()
}

struct Survey<'a, 'p> {
    directory: &'a OpenDirectory,
    options: ReadOptions<'a>,
    journals: &'a mut Journals,
    meter: &'a mut Meter<'p>,
}

impl Survey<'_, '_> {
    fn run(mut self) -> Result<(), OfflineError> {
        let slots = self.directory.slots()?;
        if let Err(why) = &self.directory.identity {
            let file = self.directory.path.join("_wal/identity.json").display().to_string();
            let what = format!("the directory's identity cannot be read: {why}");
            self.problem(Problem { file, ..problem(what) });
        }
        let mut streams: BTreeMap<StreamKey, Vec<Slot>> = BTreeMap::new();
        let total = slots.iter().map(|slot| slot.bytes).sum();
        for slot in slots {
            streams.entry(slot.name.key).or_default().push(slot);
        }
        let mut closes: Vec<Close> = Vec::new();
        let mut oldest = StreamKey::default();
        let mut reports = Vec::new();
        // Newest first: each says where those before it end. A stream that only a close names has no files any more.
        let mut before = None;
        while let Some(key) = newest_before(before, &streams, &closes).filter(|key| *key >= oldest) {
            before = Some(key);
            let files = streams.remove(&key).unwrap_or_default();
            let close = closes.iter().find(|close| close.key == key).copied();
            let Some((verdict, content, report)) = self.stream(key, &files, close)? else { continue };
            oldest = oldest.max(StreamKey { epoch: verdict.oldest.0, session: verdict.oldest.1 });
            for (_, epoch) in &content.epochs {
                self.journals.recorded.extend(&epoch.accepted);
                closes.extend(epoch.closes.iter().filter(|close| close.key < key));
            }
            self.journals.content.add(content);
            reports.push(report);
        }
        reports.reverse();
        let identity = self.directory.identity.as_ref().ok();
        self.journals.directories.push(DirectoryReport {
            url: self.directory.url.to_string(),
            uuid: identity.map(|identity| identity.directory),
            writer: identity.map(|identity| identity.writer),
            writer_id: identity.map(|identity| identity.writer_id.clone()),
            bytes: total,
            streams: reports,
        });
        Ok(())
    }

    /// Reads a stream; none where it is one of a bucket to which nothing was committed.
    fn stream(
        &mut self,
        key: StreamKey,
        files: &[Slot],
        close: Option<Close>,
    ) -> Result<Option<(Verdict, Content, StreamReport)>, OfflineError> {
        let objects = self.directory.is_bucket();
        let mut sources = Vec::new();
        // Large ones are read whole when it is their turn; there may be thousands.
        let mut room = KEPT;
        for part in files.chunks(OPENED_TOGETHER) {
            let together: Vec<&FileAt> = part.iter().map(|slot| &slot.file).collect();
            for (Slot { name, file, .. }, opened) in part.iter().zip(FileSource::open_all(&together)?) {
                match opened {
                    Ok(source) if !objects => sources.push((*name, file.clone(), source)),
                    Ok(mut source) => {
                        if !is_control(&mut source, *name) {
                            source.release_but_small(&mut room);
                            sources.push((*name, file.clone(), source));
                        }
                    }
                    // Collected by the sidecar since it was listed.
                    Err(OfflineError::Io { error, .. })
                        if (self.options.live || objects) && error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if objects && sources.is_empty() {
            return Ok(None);
        }
        let headers = sources.iter_mut().filter_map(|(name, _, source)| header_of(source, *name, objects));
        let id: Option<StreamId> = close.map(|close| close.stream).or(headers.map(|header| header.stream).next());
        let mut scans: Vec<SlotScan> = Vec::new();
        let mut held: HashMap<(usize, u64), Content> = HashMap::new();
        for (index, (name, at, source)) in sources.iter_mut().enumerate() {
            self.meter.at(&at.display().to_string());
            let file = u32::try_from(self.journals.files.len()).unwrap_or(u32::MAX);
            self.journals.files.push(at.clone());
            let names = &mut self.journals.names;
            let visit = |frame: &Frame<'_>| {
                held.insert((index, frame.head.header.offset), content_of(frame, file, names));
            };
            let scan = if objects {
                let length = usize::try_from(source.len()).unwrap_or(usize::MAX);
                let bytes = source.exactly(0, length);
                let bytes = bytes.map_err(|failed| OfflineError::io("reading", at)(std::io::Error::other(failed.0)))?;
                scan_object(bytes, *name, id, visit)
            } else {
                scan_slot(source, *name, id, visit)
            };
            let scan = scan.map_err(|stop| OfflineError::from((&**at, stop)))?;
            if objects {
                source.release();
            }
            self.meter.add(scan.len, &at.display().to_string());
            self.check_header(&scan, at);
            scans.push(scan);
        }
        let mut closed_at = close.map(|close| ClosedAt { frame_seq: close.frame_seq, crc: close.crc });
        if objects {
            // An object is there as a whole or not at all: the last one ends the stream.
            closed_at = closed_at.or_else(|| last_object(&scans));
        }
        let mut verdict = classify(&scans, closed_at);
        if objects {
            crate::recovery::objects::place(&mut verdict, &scans);
        }
        let mut content = Content::default();
        for at in &verdict.accepted {
            let offset = scans[at.scan].places[at.place].offset;
            content.add(held.remove(&(at.scan, offset)).unwrap_or_default());
        }
        for what in std::mem::take(&mut content.malformed) {
            self.problem(problem(what));
        }
        for damage in &verdict.damage {
            self.damage(key, id, damage, &scans, &mut sources);
        }
        let used_before = |file| scans.iter().any(|scan| scan.file == file && scan.used_before);
        if let End::Tail(tail) = &verdict.end
            && (tail.head.is_some() || !(tail.blank || used_before(tail.file)))
        {
            let path = self.directory.slot_path(SlotName { key, file: tail.file });
            self.journals.tails.push(TailReport {
                file: path.display().to_string(),
                offset: tail.offset,
                in_progress: self.options.live && close.is_none(),
                entries: tail.head.map(|head| head.entries),
            });
        }
        let last = verdict.accepted.last().map(|at| scans[at.scan].places[at.place].head.header.flags);
        let report = StreamReport {
            epoch: key.epoch.0,
            session: key.session,
            files: scans.len() as u64,
            frames: verdict.accepted.len() as u64,
            entries: content.entries.len() as u64,
            closed: close.is_some(),
            clean_shutdown: last.is_some_and(|flags| flags & FLAG_CLEAN_SHUTDOWN != 0),
        };
        Ok(Some((verdict, content, report)))
    }

    fn check_header(&mut self, scan: &SlotScan, path: &std::path::Path) {
        if let (Ok(header), Ok(identity)) = (&scan.header, &self.directory.identity)
            && (header.directory, header.writer) != (identity.directory, identity.writer)
        {
            let what = format!("the file belongs to directory {} of writer {}", header.directory, header.writer);
            self.problem(Problem { file: path.display().to_string(), offset: Some(0), ..problem(what) });
        }
    }

    fn damage(
        &mut self,
        key: StreamKey,
        stream: Option<StreamId>,
        damage: &Damage,
        scans: &[SlotScan],
        sources: &mut [(SlotName, FileAt, FileSource)],
    ) {
        let mut kept: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut count = 0_u64;
        if let (Some(at), Some(head)) = (damage.at, &damage.head)
            && let Ok(block) = sources[at.scan].2.read(scans[at.scan].places[at.place].offset, head.length as usize)
        {
            for record in salvage(block, head).flatten().filter(RecordRef::crc_holds) {
                if record.kind == Kind::Data {
                    let lsn = record.lsn.0;
                    let range = kept.entry(record.collection_id.to_owned()).or_insert((lsn, lsn));
                    *range = (range.0.min(lsn), range.1.max(lsn));
                    count += 1;
                }
            }
        }
        let known = |(name, (first, last))| Lost { collection: Some(name), first: Some(first), last: Some(last) };
        let mut lost: Vec<_> = kept.into_iter().map(known).collect();
        if damage.head.is_none_or(|head| u64::from(head.entries) > count) {
            lost.push(Lost { collection: None, first: None, last: None });
        }
        let frames = match damage.last_seq {
            Some(last) if last == damage.first_seq => format!("frame {last}"),
            Some(last) => format!("frames {} to {last}", damage.first_seq),
            None => format!("frame {} and later", damage.first_seq),
        };
        let path = self.directory.slot_path(SlotName { key, file: damage.file });
        let problem = Problem {
            file: path.display().to_string(),
            offset: Some(damage.offset),
            lost,
            most_entries: Some(damage.most_entries()),
            ..problem(format!("{frames} of stream {key}: {}", damage.what))
        };
        let last = damage.last_seq.unwrap_or(i64::MAX as u64);
        let covers = |one: &AcceptedDamage| {
            Some(one.stream) == stream && one.first_seq <= damage.first_seq && last <= one.last_seq
        };
        if self.journals.recorded.iter().any(covers) {
            self.journals.notes.push(format!("{problem}; the loss is recorded as gaps"));
        } else {
            self.problem(problem);
        }
    }

    fn problem(&mut self, problem: Problem) {
        self.journals.problems.push(Problem { directory: self.directory.url.to_string(), ..problem });
    }
}

/// Whether an object is a claim or a fence, which are no part of what was committed.
fn is_control(source: &mut FileSource, name: SlotName) -> bool {
    let at = ObjectKey { stream: name.key, number: name.file };
    let seen = source.exactly(0, HEAD).ok().and_then(|bytes| Seen::parse(bytes, at));
    seen.is_some_and(|seen| seen.kind != ObjectKind::Ordinary)
}

fn header_of(source: &mut FileSource, name: SlotName, object: bool) -> Option<SlotHeader> {
    if !object {
        return read_header(source, name).ok()?.ok();
    }
    let (header, _) = SlotHeader::parse_object(source.exactly(0, HEAD).ok()?).ok()?;
    Some(header)
}

/// Where a stream of objects ends by what is there.
fn last_object(scans: &[SlotScan]) -> Option<ClosedAt> {
    let last = scans.iter().max_by_key(|scan| scan.file)?;
    let crc = last.places.first().map_or(0, |place| place.head.crc);
    Some(ClosedAt { frame_seq: last.file, crc })
}

/// A problem that is about no file.
pub(super) const fn problem(what: String) -> Problem {
    Problem { directory: String::new(), file: String::new(), offset: None, what, lost: Vec::new(), most_entries: None }
}

/// The newest stream older than `before` that has files or that a close names.
fn newest_before(
    before: Option<StreamKey>,
    streams: &BTreeMap<StreamKey, Vec<Slot>>,
    closes: &[Close],
) -> Option<StreamKey> {
    let named = closes.iter().map(|close| close.key);
    streams.keys().copied().chain(named).filter(|key| before.is_none_or(|before| *key < before)).max()
}

fn content_of(frame: &Frame<'_>, file: u32, names: &mut Names) -> Content {
    let mut content = Content::default();
    let header = &frame.head.header;
    let mut wrong = |what: String| {
        content.malformed.push(format!("frame {} at offset {}: {what}", header.frame_seq, header.offset));
    };
    let mut entries = Vec::new();
    let mut facts = Vec::new();
    let mut epochs = Vec::new();
    let block = frame.block();
    for record in frame.records() {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                wrong(format!("a record was written wrong: {error}"));
                break;
            }
        };
        if !record.crc_holds() {
            wrong(format!(
                "the {} of {:?} at {} was written with a wrong crc",
                record.kind.as_str(),
                record.collection_id,
                record.lsn
            ));
            continue;
        }
        if record.kind == Kind::Data {
            let within = record.raw().as_ptr() as usize - block.as_ptr() as usize;
            entries.push(EntryAt {
                collection: names.number(record.collection_id, record.incarnation),
                length: u32::try_from(record.raw().len()).unwrap_or(u32::MAX),
                lsn: record.lsn.0,
                epoch: record.epoch.0,
                crc: record.crc,
                file,
                offset: header.offset + within as u64,
            });
            continue;
        }
        let about = match record.kind {
            Kind::Epoch => match EpochFact::decode(&record) {
                Ok(fact) => {
                    epochs.push((header.frame_seq, fact));
                    continue;
                }
                Err(error) => Err(error),
            },
            Kind::Collection => CollectionFact::decode(&record).map(|_| About::Collection),
            Kind::Truncate => TruncateFact::decode(&record).map(About::Truncate),
            Kind::Flushed => FlushedFact::decode(&record).map(About::Flushed),
            Kind::Gap => GapFact::decode(&record).map(About::Gap),
            Kind::Delete => DeleteFact::decode(&record).map(|DeleteFact| About::Delete),
            Kind::Unknown | Kind::Data | Kind::Frame | Kind::Pad | Kind::Index | Kind::Reserved(_) => continue,
        };
        match about {
            Ok(about) => facts.push((names.number(record.collection_id, record.incarnation), record.lsn.0, about)),
            Err(error) => wrong(format!("a {} was written wrong: {error}", record.kind.as_str())),
        }
    }
    if entries.len() != frame.head.entries as usize {
        wrong(format!("it holds {} entries and says {}", entries.len(), frame.head.entries));
    }
    content.entries = entries;
    content.facts = facts;
    content.epochs = epochs;
    content
}
