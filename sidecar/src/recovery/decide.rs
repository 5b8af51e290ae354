//! The last step of an attempt: what is lost is accounted for, homes are found, and the log is built. Pure but for
//! random ids.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use super::budget::Budget;
use super::home::new_home;
use super::load::{LoadedJournal, LoadedStream};
use super::merge::{self, Input, Merged, MergedCollection};
use super::open::Opened;
use super::shared::Shared;
use super::{Context, Handle, Waiting, damage, shared, shelf, stamps, unnamed};
use crate::ambient;
use crate::api::{DamageReport, JournalIo};
use crate::commit::collection::Collection;
use crate::commit::flush_jobs::Flusher;
use crate::commit::journal::{Journal, OldStream};
use crate::commit::log::{Identity as LogIdentity, Settings, Start};
use crate::commit::segments::{Segment, SegmentPath};
use crate::commit::shelf::Shelf;
use crate::commit::slots::Pool;
use crate::commit::stream::Stream;
use crate::commit::wear::Wear;
use crate::directory::disk::SharedDisk;
use crate::directory::identity::Identity;
use crate::engine::segment_file;
use crate::fencing::directory::Objects;
use crate::format::facts::{self, AcceptedDamage, Close, EpochFact, Fact as _, FlushedFact, GapCause, Subject};
use crate::format::{StreamId, StreamKey, record};
use crate::placement::Candidate;
use crate::types::{CollectionName, DirectoryId, Epoch, Incarnation, Lsn};

/// An open directory, its journal's files noted.
pub(super) struct Place {
    pub(super) opened: Opened,
    pub(super) identity: Identity,
    old: Vec<OldStream>,
    closes: Vec<Close>,
    garbage: Vec<(String, u64)>,
    accepted: Vec<AcceptedDamage>,
    /// What lies there counts.
    pub(super) counts: bool,
    shared: Shared,
}

impl Place {
    /// `counts`: what lies there counts. Else it was emptied, or never used: its files are garbage.
    pub(super) fn new(opened: Opened, identity: Identity, journal: &mut LoadedJournal, counts: bool) -> Self {
        if !counts {
            let files = std::mem::take(&mut journal.streams).into_iter().flat_map(|stream| stream.files);
            journal.garbage.extend(files);
            journal.accepted.clear();
        }
        let here = |stream: &&LoadedStream| !stream.files.is_empty();
        Self {
            opened,
            identity,
            old: journal.streams.iter().filter(here).map(old_stream).collect(),
            closes: journal.streams.iter().filter_map(close).collect(),
            garbage: journal.garbage.clone(),
            accepted: journal.accepted.clone(),
            counts,
            shared: Shared::new(journal.shared.take()),
        }
    }
}

fn close(stream: &LoadedStream) -> Option<Close> {
    let (frame_seq, crc) = (stream.close.frame_seq, stream.close.crc);
    Some(Close { stream: stream.id?, key: stream.key, frame_seq, crc })
}

/// A stream's files and the highest and lowest LSNs in them, what was saved of damaged frames included.
fn old_stream(stream: &LoadedStream) -> OldStream {
    let mut heads: HashMap<Incarnation, Lsn> = HashMap::new();
    let mut firsts: HashMap<Incarnation, Lsn> = HashMap::new();
    for (incarnation, found) in &stream.content.found {
        if let Some((first, last)) = found.span() {
            heads.insert(*incarnation, last);
            firsts.insert(*incarnation, first);
        }
    }
    for saved in stream.losses.iter().flat_map(|loss| &loss.salvage.records) {
        if let Ok((record, _)) = record::decode(&saved.raw)
            && record.kind == record::Kind::Data
        {
            let head = heads.entry(record.incarnation).or_default();
            *head = record.lsn.max(*head);
            if !mutant!(SavedLeftBehind) {
                let first = firsts.entry(record.incarnation).or_insert(record.lsn);
                *first = record.lsn.min(*first);
            }
        }
    }
    OldStream { key: stream.key, files: stream.files.clone(), heads, firsts }
}

type Decided = (Start, Vec<Handle>, Vec<DamageReport>, Vec<String>);

/// Builds the log.
///
/// # Errors
/// When damage is unaccounted for and `on_damage` is `fail`.
pub(super) fn decide(
    context: &Context,
    forgotten_now: &BTreeSet<Uuid>,
    mut places: Vec<Place>,
    inputs: Vec<Input>,
    epoch: Option<&EpochFact>,
    new_epoch: Epoch,
    budget: &Budget,
) -> Result<Decided, Box<Waiting>> {
    let wal = &context.config.wal;
    let keep = wal.on_damage == walstorage_crds::config::OnDamage::Gap;
    let is_gone = |name: &CollectionName, fact: &FlushedFact, last: Lsn| {
        let Some(place) = places.iter().find(|place| place.identity.directory == fact.directory) else { return false };
        let disk = place.opened.disk.0.as_ref();
        if fact.shared {
            return shared::is_gone(disk, fact.segment);
        }
        let path = SegmentPath::of(name, &Segment::of_fact(fact, last, 0), disk.objects().is_some(), None);
        segment_file::is_gone(disk, &path, fact.segment)
    };
    let gives_up = epoch.is_some_and(|epoch| epoch.members.iter().any(|member| forgotten_now.contains(&member.uuid)));
    let mut merged = merge::merge(inputs, keep, gives_up, &is_gone);
    let mut warnings = merged.contradictions.clone();
    let only_homes = |directory: Uuid| epoch.is_some_and(|epoch| !epoch.may_be_mixed(directory));
    warnings.extend(unnamed::adopt(&mut merged, &places, only_homes));
    let mut records = Records::default();
    let mut seed = ambient::seed();
    forget(context, forgotten_now, &places, &mut merged, epoch, new_epoch, &mut records, &mut seed);
    let mut losses = merged.losses(only_homes);
    if mutant!(LossesNotReported) {
        losses.clear();
    }
    let damage = damage::reports(&places, &merged, &losses);
    if !keep && !damage.is_empty() {
        let reasons = damage.iter().map(damage::sentence).collect();
        let present =
            places.iter().map(|place| (place.opened.wanted.url.clone(), Some(place.identity.directory))).collect();
        let writer = places.first().map(|place| place.identity.writer);
        return Err(Box::new(Waiting { reasons, damage, present, writer, warnings, ..Waiting::default() }));
    }
    for &(index, first, last) in &losses {
        let collection = &mut merged.collections[index];
        collection.lose(first, last, GapCause::Damage);
        records.gap(collection, first, last, GapCause::Damage, new_epoch);
    }
    let mut concerned: Vec<usize> = losses.iter().map(|(index, ..)| *index).collect();
    concerned.dedup();
    for index in concerned {
        // How far it goes now: a later start need not wonder again what was lost.
        records.collection(&merged.collections[index], new_epoch);
    }
    if !damage.is_empty() {
        warnings.extend(damage.iter().map(damage::sentence));
    }
    let mut newly_accepted: HashMap<Uuid, Vec<AcceptedDamage>> = HashMap::new();
    for lost in &merged.unresolved {
        let place = places.iter().find(|place| place.identity.directory == lost.directory);
        let stream = place.and_then(|place| place.closes.iter().find(|close| close.key == lost.key));
        if let Some(stream) = stream {
            newly_accepted.entry(lost.directory).or_default().push(AcceptedDamage {
                stream: stream.stream,
                first_seq: lost.loss.damage.first_seq,
                last_seq: lost.loss.damage.last_seq.unwrap_or(i64::MAX as u64),
            });
        }
    }
    let home_of: HashMap<Uuid, usize> =
        places.iter().enumerate().map(|(index, place)| (place.identity.directory, index)).collect();
    let dead_segments = merged.dead_segments.iter().filter_map(|(name, incarnation, fact, last)| {
        let dir = *home_of.get(&fact.directory)?;
        Some((name.clone(), *incarnation, Segment::of_fact(fact, *last, dir)))
    });
    let dead_segments = dead_segments.collect();
    let mut shared = Vec::new();
    for (dir, place) in places.iter_mut().enumerate() {
        let segments = merged.collections.iter().flat_map(|collection| &collection.segments).map(|(fact, _)| fact);
        let here = segments.filter(|fact| fact.shared && fact.directory == place.identity.directory);
        match place.shared.list(place.opened.disk.0.as_ref(), dir, &here.map(|fact| fact.segment).collect()) {
            Ok(files) => shared.extend(files),
            Err(why) => warnings.push(format!("{}: {why}", place.opened.wanted.url)),
        }
    }
    let disks: Vec<SharedDisk> = places.iter().map(|place| place.opened.disk.0.clone()).collect();
    let home = |uuid: Uuid| home_of.get(&uuid).copied();
    if !mutant!(StampsLost) {
        warnings.extend(stamps::look_for(&mut merged, &shared, &disks, home));
    }
    if let Err(why) = shelf::fill(&mut merged.collections, &disks, home, budget, context.memory_limit) {
        return Err(Box::new(Waiting { reasons: vec![why], damage, warnings, ..Waiting::default() }));
    }
    let mut collections = Vec::new();
    let mut untold = Vec::new();
    for merged in merged.collections {
        // A new directory, or one that was not told before a crash, or was told of an earlier home: it must know what the
        // others hold, should they be missing one day.
        let not_told = places.iter().enumerate().filter(|(_, place)| !merged.is_known_to(place.identity.directory));
        untold.extend(not_told.map(|(dir, _)| (dir, merged.incarnation)));
        // Homes of forgotten directories were moved above; what is left without one lived where nothing is known of.
        let home = home_of.get(&merged.home).copied().unwrap_or(0);
        collections.push(merged.into_collection(home, &home_of));
    }
    let (grant, holder) = match (&context.grant, epoch) {
        (Some(grant), _) => (grant.epoch, grant.holder.clone()),
        // A start without a grant copies what is there.
        (None, Some(epoch)) => (epoch.grant, epoch.holder.clone()),
        (None, None) => (0, String::new()),
    };
    let mut forgotten: Vec<DirectoryId> =
        epoch.map(|epoch| epoch.forgotten.iter().copied().map(DirectoryId).collect()).unwrap_or_default();
    for uuid in forgotten_now {
        let was_member = epoch.is_some_and(|epoch| epoch.members.iter().any(|member| member.uuid == *uuid));
        if was_member && !forgotten.contains(&DirectoryId(*uuid)) {
            forgotten.push(DirectoryId(*uuid));
        }
    }
    let identity = LogIdentity {
        writer: places.first().map(|place| place.identity.writer).unwrap_or_default(),
        writer_id: wal.writer_id.clone().unwrap_or_default(),
        epoch: new_epoch,
        run: ambient::uuid(),
        grant,
        holder,
    };
    let mut journals = Vec::new();
    let mut handles = Vec::new();
    for place in places {
        let newly = newly_accepted.remove(&place.identity.directory).unwrap_or_default();
        // What counts is in use from the first frame on, whatever the newest EPOCH that can be read says: a start that is
        // cut short behind that frame must not leave one by which it does not count.
        let in_use = epoch.is_some_and(|epoch| {
            let said = || epoch.members.iter().any(|m| m.uuid == place.identity.directory && m.in_use);
            place.counts && (!mutant!(InUseByWordOnly) || said())
        });
        let mixed = epoch.is_some_and(|epoch| epoch.may_be_mixed(place.identity.directory));
        let (mut journal, handle) = place.into_journal(context, new_epoch, newly, in_use);
        journal.mixed = mixed;
        journals.push(journal);
        handles.push(handle);
    }
    let start = Start {
        settings: Settings::of(&context.config, context.memory_limit),
        identity,
        journals,
        forgotten,
        collections,
        untold,
        tombstones: merged.tombstones,
        dead_segments,
        shared,
        opening_records: records.bytes,
        opening_record_count: records.count,
        seed,
    };
    Ok((start, handles, damage, warnings))
}

/// Records that frame 1 of every directory will hold.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    count: u64,
}

impl Records {
    fn gap(&mut self, of: &MergedCollection, first: Lsn, last: Lsn, reason: GapCause, epoch: Epoch) {
        let subject = Subject { collection_id: of.name.as_str(), incarnation: of.incarnation, lsn: first };
        facts::GapFact { last, reason }.encode(&mut self.bytes, subject, epoch);
        self.count += 1;
    }

    /// COLLECTION after a move or a loss. Producers stay in the facts and entries that name them.
    fn collection(&mut self, of: &MergedCollection, epoch: Epoch) {
        let subject = Subject { collection_id: of.name.as_str(), incarnation: of.incarnation, lsn: of.head };
        let fact = facts::CollectionFact {
            home: of.home,
            move_number: of.move_number,
            placement: of.placement,
            producers: Vec::new(),
        };
        fact.encode(&mut self.bytes, subject, epoch);
        self.count += 1;
    }
}

/// Gives up the directories that an administrator named: what they may have held becomes gaps, their collections get
/// new homes.
#[allow(clippy::too_many_arguments, reason = "one step of `decide`, on all that it has")]
fn forget(
    context: &Context,
    forgotten_now: &BTreeSet<Uuid>,
    places: &[Place],
    merged: &mut Merged,
    epoch: Option<&EpochFact>,
    new_epoch: Epoch,
    records: &mut Records,
    seed: &mut u64,
) {
    let Some(epoch) = epoch else { return };
    let mut turn = merged.collections.iter().map(|collection| collection.placement).max().unwrap_or(0);
    for member in epoch.members.iter().filter(|member| forgotten_now.contains(&member.uuid)) {
        for collection in merged.collections.iter_mut().filter(|_| !mutant!(ForgottenWithoutGaps)) {
            // Holes are what it took with it, whatever affinity was then.
            let concerned = collection.home == member.uuid || !collection.holes.is_empty();
            if !epoch.may_be_mixed(member.uuid) && !concerned {
                continue;
            }
            for (first, last) in std::mem::take(&mut collection.holes) {
                collection.lose(first, last, GapCause::DirectoryForgotten);
                records.gap(collection, first, last, GapCause::DirectoryForgotten, new_epoch);
            }
            let (first, last) = (collection.head.next(), Lsn(collection.head.0.saturating_add(merge::UNHEARD_SPAN)));
            collection.lose(first, last, GapCause::DirectoryForgotten);
            records.gap(collection, first, last, GapCause::DirectoryForgotten, new_epoch);
            if collection.home == member.uuid {
                turn += 1;
                let candidates = places.iter().filter_map(Place::candidate).collect::<Vec<_>>();
                if let Some(home) = new_home(context, &candidates, &collection.name, turn, seed) {
                    collection.home = home;
                    collection.move_number += 1;
                    records.collection(collection, new_epoch);
                }
            }
        }
    }
}

impl MergedCollection {
    fn into_collection(self, home: usize, directories: &HashMap<Uuid, usize>) -> Collection {
        let shelf = Shelf::new(shelf::stretches(&self, |uuid| directories.get(&uuid).copied()));
        let mut collection = Collection::new(self.name, self.incarnation, home, self.placement);
        collection.shelf = shelf;
        collection.move_number = self.move_number;
        collection.truncated_to = self.truncated_to;
        collection.flushed_to = self.flushed_to;
        collection.segments = self
            .segments
            .iter()
            .filter_map(|(fact, last)| Some(Segment::of_fact(fact, *last, *directories.get(&fact.directory)?)))
            .collect();
        collection.durable_head = self.head;
        collection.assigned_head = self.head;
        collection.buffer = self.entries;
        collection.gaps = self.gaps;
        collection.producers = self.producers;
        collection
    }
}

impl Place {
    /// What placement knows of it before anything was measured.
    fn candidate(&self) -> Option<Candidate> {
        let Opened { wanted, disk, device_inode, space, .. } = &self.opened;
        Some(Candidate {
            id: DirectoryId(self.identity.directory),
            position: wanted.position.filter(|_| !wanted.draining)?,
            healthy: true,
            tier: u8::from(disk.0.objects().is_some()),
            device: device_inode.0,
            queued_bytes: 0,
            latency_us: 0.0,
            free_bytes: space.free,
            capacity_bytes: space.capacity,
            used_bytes: self.old.iter().map(OldStream::bytes).sum(),
        })
    }

    fn into_journal(
        self,
        context: &Context,
        epoch: Epoch,
        newly_accepted: Vec<AcceptedDamage>,
        in_use: bool,
    ) -> (Journal, Handle) {
        let Self { opened, identity, old, closes, garbage, mut accepted, counts: _, shared } = self;
        accepted.retain(|damage| closes.iter().any(|close| close.stream == damage.stream));
        accepted.extend(newly_accepted);
        // Streams older than all that were read were given up before.
        let key = StreamKey { epoch, session: 0 };
        let kept = closes.iter().map(|close| close.key).chain(old.iter().map(|stream| stream.key));
        let oldest = kept.chain([key]).min().unwrap_or(key);
        let id = StreamId(*ambient::uuid().as_bytes());
        let taken = opened.disk.0.objects().and_then(Objects::taken);
        let stream = Stream::new(taken.as_ref().map_or(id, |taken| taken.id), key, oldest);
        let io = opened.disk.0.io();
        // Numbers of shared segments are never used again, not even by others.
        let last_shared = if taken.is_some() { shared.highest.max(epoch.0 << 20) } else { shared.highest };
        let mut journal = Journal {
            position: opened.wanted.position,
            takes_all_commits: opened.wanted.takes_all_commits,
            draining: opened.wanted.draining,
            in_use,
            device: (opened.device_inode.0, opened.device.clone()),
            space: opened.space,
            journal_max: crate::engine::bounds::journal_max(&context.config, opened.space.capacity),
            closes,
            accepted_damage: accepted,
            old,
            io: if io.direct { JournalIo::Direct } else { JournalIo::Buffered },
            pool: Pool { in_place: io.in_place, ..Pool::default() },
            flusher: Flusher { last_shared, ..Flusher::default() },
            of_objects: taken.is_some(),
            ..Journal::new(DirectoryId(identity.directory), opened.wanted.url.clone(), stream, ambient::now())
        };
        journal.watch_space(ambient::now());
        for (name, bytes) in garbage {
            journal.discard(name, bytes, Wear::default());
        }
        (journal, Handle { disk: opened.disk, lock: opened.lock, identity, place: opened.device_inode })
    }
}
