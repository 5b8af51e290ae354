//! Power cuts at every call that writes, seals and removes segments, on disks in memory; and what a start needs after
//! much more than its memory went through the journal.

use std::path::Path;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::flusher::{Done, SegmentWriter};
use super::life_tests::{Disks, Life, Oracle, recover};
use super::*;
use crate::commit::flush_jobs::{FlushWork, Target};
use crate::directory::disk::Disk;
use crate::directory::mem_disk::{Faults, MemDisk};
use crate::format::header::{SegmentHeader, SegmentOf};
use crate::recovery::budget::Budget;
use crate::recovery::{Ready, load};

const CONFIG: &str = "[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [\"file:///m/a\"]\n\
                      journal_max_bytes = \"64Mi\"\nmemory_flush_size_bytes = 3000\nsegment_size_bytes = 6000\n";

/// A machine with one directory, and what was promised on it.
#[derive(Default)]
struct World {
    disks: Disks,
    oracle: Oracle,
    token: u64,
}

/// A kind of work of the flush worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    New,
    Behind,
    Shared,
    Seal,
    Remove,
}

const KINDS: [Kind; 5] = [Kind::New, Kind::Behind, Kind::Shared, Kind::Seal, Kind::Remove];

fn kind(work: &FlushWork) -> Option<Kind> {
    Some(match work {
        FlushWork::Flush(job) => match job.target {
            Target::New(_) => Kind::New,
            Target::Behind(_) => Kind::Behind,
            Target::Shared(..) => Kind::Shared,
        },
        FlushWork::Seal(_) => Kind::Seal,
        FlushWork::Remove(_) => Kind::Remove,
        FlushWork::Sweep(_) | FlushWork::Wait(_) | FlushWork::End => return None,
    })
}

impl World {
    fn disk(&self) -> MemDisk {
        self.disks.disk(Path::new("/m/a"))
    }

    /// Lives for so many steps; where `ends` names a kind of work and a number of calls, until the power goes after so many
    /// calls of the `nth` work of this kind. Whether it came to that.
    fn live(&mut self, seed: u64, steps: u64, ends: Option<(Kind, u64, u64)>) -> bool {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut context = self.disks.context(CONFIG);
        context.memory_limit = 1 << 18;
        let what = format!("seed {seed}, {ends:?}");
        let Ready { mut start, handles, .. } = recover(&context, &what);
        start.seed = seed;
        let disk = self.disk();
        let mut life = Life::begin(start, &handles);
        self.oracle.check(&life.log, &handles, &what);
        let mut seen = 0;
        for step in 0..steps {
            if step % 3 == 0 {
                self.token += 1;
                life.client(&mut self.oracle, &mut random, self.token);
            }
            life.step(0);
            life.upkeep(0);
            let work = life.log.poll_flush(0, life.now);
            let due = ends.filter(|(wanted, ..)| kind(&work) == Some(*wanted));
            seen += u64::from(due.is_some());
            let ended = due.filter(|(_, nth, _)| *nth + 1 == seen);
            if let Some((_, _, calls_left)) = ended {
                disk.break_with(Faults { calls_left: Some(calls_left), ..Faults::default() });
            }
            let (log, now) = (&life.log, life.now);
            let done = life.flushers[0].carry_out(&work, |part, from| log.flush_piece(0, part, from, now));
            if ended.is_some() {
                return true;
            }
            assert!(!matches!(done, Done::FlushFailed(..)) || ends.is_none(), "{what}");
            done.report(&mut life.log, 0, life.now);
            life.hear(&mut self.oracle);
        }
        false
    }

    fn cut(&mut self, seed: u64) {
        self.disks = self.disks.after_cut(&mut SmallRng::seed_from_u64(seed));
    }
}

#[test]
fn schedule_17_a_cut_at_any_call_of_a_flush_a_seal_and_a_removal_loses_nothing() {
    let first: u64 = std::env::var("WALSTORAGE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seeds: u64 = std::env::var("WALSTORAGE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for wanted in KINDS {
        for seed in first..first + seeds {
            for calls in 0..12 {
                let mut world = World::default();
                let came = world.live(seed, 6000, Some((wanted, seed % 3, calls)));
                assert!(came, "seed {seed}: there was no {wanted:?}");
                world.cut(seed * 31 + calls);
                // The next process finds what is left, goes on, and is cut in turn.
                world.live(seed + 100, 900, None);
                world.cut(seed);
                world.live(seed + 200, 1, None);
            }
        }
    }
}

/// Segments in the folders of collections.
fn own_segments(disk: &MemDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| !name.starts_with("_wal/")).collect()
}

/// The header of a segment, where it holds.
fn header(disk: &MemDisk, path: &str) -> Option<SegmentHeader> {
    let mut head = vec![0; 1 << 16];
    let read = disk.open(Path::new(path)).unwrap().read_at(0, &mut head).unwrap();
    SegmentHeader::parse(&head[..read]).ok().map(|(header, _)| header)
}

#[test]
fn a_collection_that_is_deleted_after_its_first_flush_was_cut_short_leaves_nothing_behind() {
    let mut orphans = 0;
    for (seed, calls) in (1..4).flat_map(|seed| (0..10).map(move |calls| (seed, calls))) {
        let mut world = World::default();
        assert!(world.live(seed, 6000, Some((Kind::New, seed, calls))), "there was no first flush");
        world.cut(seed * 31 + calls);
        let what = format!("seed {seed}, {calls} calls");
        for ends in ["at the deletion", "when all is done"] {
            let disk = world.disk();
            let Ready { start, handles, .. } = recover(&world.disks.context(CONFIG), &what);
            let mut life = Life::begin(start, &handles);
            while life.log.stage != Stage::Serving {
                life.step(0);
            }
            let names: Vec<_> = life.log.iter().map(|collection| collection.name.clone()).collect();
            for name in &names {
                let (waiter, _) = tokio::sync::oneshot::channel();
                life.log.delete(name, waiter, life.now).unwrap();
            }
            while life.log.iter().next().is_some() {
                life.step(0);
            }
            if ends == "at the deletion" {
                orphans += own_segments(&disk).len();
                world.cut(seed);
                continue;
            }
            for _ in 0..200 {
                let work = life.log.poll_flush(0, life.now);
                life.flushers[0].carry_out(&work, |_, _| unreachable!("nothing is left to flush")).report(
                    &mut life.log,
                    0,
                    life.now,
                );
                life.step(0);
            }
            // A header that the cut has torn says nothing: such a file is left alone.
            let mut left = own_segments(&disk);
            left.retain(|path| header(&disk, path).is_some());
            assert_eq!(left, Vec::<String>::new(), "{what}");
        }
    }
    assert!(orphans > 10, "{orphans}");
}

#[test]
fn what_is_not_proven_to_be_of_a_deleted_collection_is_left_alone() {
    let mut world = World::default();
    world.live(1, 2000, None);
    let disk = world.disk();
    let before = own_segments(&disk);
    let Ready { handles, .. } = recover(&world.disks.context(CONFIG), "here");
    let writer = SegmentWriter::new(&handles[0], Vec::new());
    let path = before.iter().find(|name| name.ends_with("wal_current.avro")).unwrap();
    let SegmentOf::Collection { name, incarnation, .. } = header(&disk, path).unwrap().of else { panic!("{path}") };
    let folder = Path::new(path).parent().unwrap();
    for other in ["notes.txt", "wal_x.avro"] {
        disk.create_excl(&folder.join(other)).unwrap();
    }
    let sweep = |incarnation: u64, lives| {
        let name = CollectionName::new(&name).unwrap();
        let job = crate::commit::sweep::SweepJob { name, incarnation: Incarnation(incarnation), lives };
        drop(writer.carry_out(&FlushWork::Sweep(vec![job]), |_, _| unreachable!()));
    };
    sweep(incarnation.0 - 1, true);
    assert!(disk.files().contains(path), "an earlier life was deleted, not this one");
    sweep(incarnation.0, false);
    let left = own_segments(&disk);
    assert!(!left.iter().any(|name| name.starts_with(folder.to_str().unwrap()) && name.contains("wal_current")));
    assert!(left.contains(&folder.join("notes.txt").to_str().unwrap().to_owned()), "{left:?}");
    assert!(left.iter().all(|name| before.contains(name) || name.contains("notes") || name.contains("wal_x")));
}

#[test]
fn schedule_23_what_is_in_segments_takes_no_memory_at_a_start_however_much_went_through_the_journal() {
    let mut world = World::default();
    world.live(7, 12_000, None);
    let context = world.disks.context(CONFIG);
    let disk = world.disk();
    let names = disk.files();
    let bytes: u64 = names
        .iter()
        .filter(|name| name.starts_with("_wal/journal"))
        .map(|name| disk.open(Path::new(name)).unwrap().len().unwrap())
        .sum();
    assert!(bytes > 3 << 20, "{bytes} bytes of journal");
    let ready = recover(&context, "here");
    let here = Arc::new(ready.handles.iter().map(|handle| handle.identity.directory).collect());
    let ours = ready.handles[0].identity.directory;
    drop(ready);
    let held = |here: &Arc<std::collections::HashSet<uuid::Uuid>>, disk: &dyn Disk| -> usize {
        let budget = Arc::new(Budget::keeping(u64::MAX));
        let journal = load::load(disk, ours, here, &budget, &|_| {}, &|_| {}).unwrap();
        let streams = journal.streams.iter().flat_map(|stream| stream.content.found.values());
        streams.map(|found| found.entries.capacity()).sum()
    };
    let with = held(&here, &disk);
    assert!(with < 1 << 18, "{with} bytes of memory, the bound was 256 KiB");
    // Of segments that are not here nothing may be left out.
    assert!(held(&Arc::default(), &disk) > 4 * with);
}
