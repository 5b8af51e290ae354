//! Stored bytes that change: damage each time, gaps that stay.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::{Ack, Item};
use crate::commit::log::Worker;
use crate::format::limits::PAGE;
use crate::format::names::CURRENT_SEGMENT;
use crate::sim::disk::{Astray, Faults};
use crate::sim::life::Life;
use crate::sim::shape::{JOURNAL_ROOT, Shape};
use crate::sim::world::{World, collection};
use crate::types::Lsn;

const ROOT: &str = "/m/a";

/// Appends one entry of a frame's own; where that is.
fn frame(life: &mut Life<'_>) -> (PathBuf, u64) {
    let place = life.next_place(0);
    life.append_and_settle(0, 1, 3000);
    place
}

/// Appends an entry; it goes to a segment with whatever else is in memory.
fn flush(life: &mut Life<'_>) {
    life.append_and_settle(0, 1, 3000);
    life.flush(&collection(0));
    life.settle();
    assert!(!life.owes());
}

fn world(seed: u64) -> World {
    World::new(seed, Shape { journal_max: 1 << 18, ..Shape::default() })
}

/// LSNs that readers are told are lost.
fn lost(life: &Life<'_>) -> Vec<(u64, u64)> {
    let items = life.found(0).items;
    let gap = |item: &Item| match item {
        Item::Gap { first, last, .. } => Some((first.0, last.0)),
        Item::Entry(_) => None,
    };
    items.iter().filter_map(gap).collect()
}

/// Readers get every entry of the first collection.
fn is_all_read(life: &mut Life<'_>) {
    life.check();
    assert_eq!((life.found(0).unreadable, lost(life)), (Vec::new(), Vec::new()));
}

/// What is damaged takes no entry of the first collection with it, however often the process starts.
fn stays_read(mut world: World) {
    world.oracle.damaged();
    for _ in 0..3 {
        world.serve(|life| {
            is_all_read(life);
            frame(life);
        });
    }
}

/// A bit of the entry in the frame at a place flips: the start waits; where gaps are wanted it reports one that includes
/// the LSN, and that stays, whatever is freed.
fn is_damage(mut world: World, place: &(PathBuf, u64), lsn: u64) {
    world.machine.flip(Path::new(ROOT), &place.0, place.1 + 2000, 3);
    world.is_damaged();
    let gaps = world.serve(|life| {
        let gaps = lost(life);
        assert!(gaps.iter().any(|gap| (gap.0..=gap.1).contains(&lsn)), "LSN {lsn} is not in {gaps:?}");
        gaps
    });
    // What was accepted once is not asked again.
    world.shape.gaps = false;
    for _ in 0..3 {
        world.serve(|life| {
            assert_eq!(lost(life), gaps);
            // What comes before goes, and where nothing comes after only checkpoints repeat what is lost.
            life.truncate(&collection(0), Lsn(lsn - 1));
            life.append_and_settle(1, 1, 100);
            for _ in 0..12 {
                life.append_and_settle(1, 1, 20_000);
                let head = life.head(1);
                life.truncate(&collection(1), head);
                life.settle();
            }
            life.pass(Duration::from_secs(4));
            assert_eq!(lost(life), gaps);
            life.stop();
        });
    }
}

#[test]
fn schedule_04_rot_in_an_acknowledged_frame_with_the_next_head_intact() {
    let mut world = world(1);
    let place = world.serve(|life| {
        frame(life);
        let place = frame(life);
        frame(life);
        place
    });
    is_damage(world, &place, 2);
}

#[test]
fn schedule_04_rot_in_an_acknowledged_frame_with_the_next_one_torn() {
    let mut world = world(2);
    let (place, next) = world.serve(|life| {
        frame(life);
        let place = frame(life);
        let next = life.next_place(0);
        life.append(&collection(0), 1, 9000, Ack::Durable);
        life.write_unheard();
        (place, next)
    });
    // All but the head of the frame behind it is gone.
    world.machine.flip(Path::new(ROOT), &next.0, next.1 + 8000, 0);
    is_damage(world, &place, 2);
}

#[test]
fn schedule_04_rot_in_an_acknowledged_frame_with_only_the_idle_frame_behind_it() {
    let mut world = world(3);
    let place = world.serve(|life| {
        frame(life);
        let place = frame(life);
        life.pass(Duration::from_millis(1100));
        place
    });
    is_damage(world, &place, 2);
}

#[test]
fn schedule_04_rot_in_the_last_frame_before_a_rotation() {
    let mut world = world(4);
    let (place, lsn) = world.serve(|life| {
        let first = life.next_place(0).0;
        let mut before = frame(life);
        for lsn in 2.. {
            let place = frame(life);
            let now = life.next_place(0).0;
            if now != first {
                return (before, lsn - 1);
            }
            before = place;
        }
        unreachable!()
    });
    is_damage(world, &place, lsn);
}

#[test]
pub(in crate::sim) fn schedule_04_rot_in_the_last_frame_of_a_stream_that_a_later_one_closed() {
    let mut world = world(5);
    let place = world.serve(|life| {
        frame(life);
        frame(life)
    });
    world.serve(|_| ());
    is_damage(world, &place, 2);
}

#[test]
fn schedule_04_rot_in_a_frame_that_nothing_proves_is_a_torn_tail() {
    // The one second in which damage cannot be told from a torn tail: the format says so.
    let mut world = world(6);
    let place = world.serve(|life| {
        frame(life);
        frame(life)
    });
    world.machine.flip(Path::new(ROOT), &place.0, place.1 + 2000, 3);
    world.oracle.may_vanish = true;
    world.serve(|life| {
        assert_eq!(life.head(0), Lsn(1));
    });
}

#[test]
pub(in crate::sim) fn a_segment_whose_header_cannot_be_read_is_left_alone_and_read_when_it_can_be() {
    let mut world = world(8);
    world.serve(|life| {
        flush(life);
        let files = life.world.machine.files(Path::new(ROOT));
        let (name, _) = files.into_iter().find(|(name, _)| name.ends_with(CURRENT_SEGMENT)).unwrap();
        // A device, or its cable, that reads a bit wrong for a while.
        life.world.machine.flip(Path::new(ROOT), &name, 20, 1);
        (0..3).for_each(|_| flush(life));
        life.world.machine.flip(Path::new(ROOT), &name, 20, 1);
        is_all_read(life);
    });
    world.serve(is_all_read);
}

#[test]
pub(in crate::sim) fn what_only_a_segment_holds_between_entries_in_the_journal_is_kept_by_the_next_flush() {
    let mut world = world(9);
    world.shape.gaps = true;
    world.serve(|life| {
        frame(life);
        // This one does not get where it belongs: its entry will be in the segment only, its truncation nowhere.
        let misdirect = Some((0, Astray::Further(10 * PAGE as u64)));
        life.world.machine.break_with(Path::new(ROOT), Faults { misdirect, ..Faults::default() });
        life.append(&collection(0), 1, 3000, Ack::Durable);
        life.truncate(&collection(0), Lsn(1));
        life.settle();
        frame(life);
        life.flush(&collection(0));
        life.settle();
    });
    world.serve(|life| {
        let held: Vec<u64> = life.log.find(&collection(0)).unwrap().buffer.iter(Lsn(1)).map(|(lsn, _)| lsn.0).collect();
        assert_eq!(held, [1, 3], "2 is in the segment only");
        flush(life);
        is_all_read(life);
    });
    world.serve(is_all_read);
}

#[test]
pub(in crate::sim) fn schedule_14_a_retry_of_what_a_damaged_frame_and_a_segment_held_is_stored_once() {
    let mut world = world(12);
    let (place, sent) = world.serve(|life| {
        life.open();
        let place = life.next_place(0);
        let sent = life.stamp(&collection(0), "p", 1, None);
        life.settle();
        life.flush(&collection(0));
        life.settle();
        frame(life);
        (place, sent)
    });
    world.machine.flip(Path::new(ROOT), &place.0, place.1 + 200, 3);
    world.is_damaged();
    for _ in 0..2 {
        world.serve(|life| {
            life.stamp(&collection(0), "p", 1, Some(sent.clone()));
            life.settle();
            life.check();
            let entries = life.found(0).items.iter().filter(|item| matches!(item, Item::Entry(_))).count();
            assert_eq!(entries, 2, "it is stored twice");
        });
        // What was accepted once is asked no more, and the frame is lost as before.
        world.shape.gaps = false;
    }
}

#[test]
pub(in crate::sim) fn schedule_04_what_was_saved_of_a_damaged_frame_is_committed_elsewhere_when_its_directory_fails() {
    let mut world = World::new(15, Shape { directories: 2, gaps: true, ..Shape::default() });
    let (root, place) = world.serve(|life| {
        // Its collection lives where the first of them goes.
        life.append_and_settle(0, 1, 3000);
        let home = life.home(0);
        let place = life.next_place(home);
        for _ in 0..3 {
            life.append(&collection(0), 1, 3000, Ack::Durable);
        }
        life.settle();
        life.append_and_settle(0, 1, 3000);
        life.truncate(&collection(0), Lsn(1));
        life.settle();
        (life.root(home).to_owned(), place)
    });
    world.machine.flip(&root, &place.0, place.1 + 7000, 3);
    world.oracle.damaged();
    world.serve(|life| {
        assert_eq!(lost(life), [(4, 4), (6, 6)], "two of three in that frame are saved");
        life.world.machine.break_with(&root, Faults { dead: true, ..Faults::default() });
        life.append(&collection(0), 1, 3000, Ack::Durable);
        life.pass(Duration::from_secs(5));
        assert_eq!(life.evacuated(), std::slice::from_ref(&root));
    });
    world.machine.heal();
    world.machine.wipe(&root);
    world.serve(|life| {
        life.check();
        let entries = life.found(0).items.into_iter().filter_map(|item| match item {
            Item::Entry(entry) => Some(entry.lsn.0),
            Item::Gap { .. } => None,
        });
        assert_eq!(entries.collect::<Vec<_>>(), [2, 3, 5, 7]);
    });
}

#[test]
pub(in crate::sim) fn schedule_04_copies_behind_a_lost_frame_do_not_hide_what_it_held() {
    let mut world = World::new(16, Shape { directories: 1, journal: true, gaps: true, ..Shape::default() });
    world.serve(|life| {
        life.append_and_settle(0, 2, 3000);
        let dead = Faults { dead: true, ..Faults::default() };
        life.world.machine.break_with(Path::new(JOURNAL_ROOT), dead);
        life.append(&collection(0), 1, 3000, Ack::Durable);
        // The disk that takes it then writes it elsewhere, and says that it is written.
        let astray = Faults { misdirect: Some((0, Astray::Further(2141))), ..Faults::default() };
        life.world.machine.break_with(Path::new(ROOT), astray);
        while life.head(0) < Lsn(3) {
            life.world.pass(Duration::from_millis(5));
            for dir in 0..2 {
                life.step(dir, Worker::Commit);
            }
        }
        // What the journal for all held is written behind it, and nothing else yet.
        let incarnation = life.log.find(&collection(0)).unwrap().incarnation;
        while life.log.journals[0].slots.iter().all(|slot| slot.firsts.get(&incarnation) != Some(&Lsn(1))) {
            life.world.pass(Duration::from_millis(5));
            life.step(0, Worker::Commit);
        }
    });
    world.machine.heal();
    world.serve(|life| {
        let lost = lost(life);
        assert!(lost.iter().any(|gap| (gap.0..=gap.1).contains(&3)), "LSN 3 is not in {lost:?}");
    });
}

/// A collection moves, and the frame that says so, with its first entry there, is lost. What follows is of others.
#[test]
pub(in crate::sim) fn schedule_04_a_move_in_a_lost_frame_is_known_from_the_next_one() {
    let mut world = World::new(18, Shape { directories: 2, gaps: true, ..Shape::default() });
    world.serve(|life| {
        for n in 0..4 {
            life.append_and_settle(n, 1, 3000);
        }
        life.truncate(&collection(0), Lsn(1));
        life.settle();
        let home = life.home(0);
        assert!((1..4).any(|n| life.home(n) == home), "what is copied behind the lost frame");
        let other = life.root(1 - home).to_owned();
        life.world.machine.break_with(life.root(home), Faults { dead: true, ..Faults::default() });
        life.append(&collection(0), 1, 3000, Ack::Durable);
        let astray = Faults { misdirect: Some((0, Astray::Further(10 * PAGE as u64))), ..Faults::default() };
        life.world.machine.break_with(&other, astray);
        let frames = |life: &Life<'_>| life.log.journals[1 - home].stream.durable_frame;
        while life.head(0) < Lsn(2) {
            life.world.pass(Duration::from_millis(5));
            for dir in 0..2 {
                life.step(dir, Worker::Commit);
            }
        }
        let lost = frames(life);
        while frames(life) == lost {
            life.world.pass(Duration::from_millis(5));
            life.step(1 - home, Worker::Commit);
        }
    });
    world.machine.heal();
    world.serve(|life| {
        let lost = lost(life);
        assert!(lost.iter().any(|gap| (gap.0..=gap.1).contains(&2)), "LSN 2 is not in {lost:?}");
    });
}

/// The frame of an entry and that of the FLUSHED of its segment are lost.
#[test]
pub(in crate::sim) fn schedule_04_what_a_lost_frame_said_of_a_segment_is_read_in_the_segment() {
    let mut world = world(17);
    world.shape.gaps = true;
    let places = world.serve(|life| {
        frame(life);
        let entry = frame(life);
        life.flush(&collection(0));
        let said = life.next_place(0);
        life.settle();
        frame(life);
        [entry, said]
    });
    for (name, offset) in places {
        world.machine.flip(Path::new(ROOT), &name, offset + 50, 3);
    }
    stays_read(world);
}

/// A shared segment was rewritten and removed; the frame that speaks of the new one is lost.
#[test]
fn schedule_04_what_is_in_a_segment_that_a_lost_frame_put_in_place_of_another_is_read() {
    let mut world = World::new(18, Shape { journal_max: 1 << 18, collections: 4, gaps: true, ..Shape::default() });
    let said = world.serve(|life| {
        life.log.flush_eagerly();
        for n in 0..4 {
            life.append(&collection(n), 2, 2_000, Ack::Durable);
        }
        life.settle();
        life.pass(Duration::from_millis(1500));
        for n in 1..4 {
            life.truncate(&collection(n), Lsn(2));
        }
        life.truncate(&collection(0), Lsn(1));
        life.settle();
        let files = |life: &Life<'_>| {
            let files = life.world.machine.files(Path::new(ROOT)).into_iter().map(|(name, _)| name);
            files.filter(|name| name.starts_with("_wal/shared")).collect::<Vec<_>>()
        };
        let before = files(life);
        assert_eq!(before.len(), 1);
        let mut said = None;
        for _ in 0..1000 {
            if !files(life).contains(&before[0]) {
                break;
            }
            life.world.pass(Duration::from_millis(10));
            life.step(0, Worker::Flush);
            let place = life.next_place(0);
            life.run(0, &[Worker::Commit]);
            if life.next_place(0) != place && files(life).len() == 2 {
                said.get_or_insert(place);
            }
        }
        assert_eq!(files(life).len(), 1);
        frame(life);
        said.unwrap()
    });
    world.machine.flip(Path::new(ROOT), &said.0, said.1 + 50, 3);
    stays_read(world);
}

/// Of a collection one directory has heard long ago, and the other one states it in a checkpoint, which is lost.
#[test]
pub(in crate::sim) fn schedule_04_an_lsn_that_only_a_lost_checkpoint_spoke_of_is_not_given_again() {
    let shape = Shape { directories: 2, gaps: true, journal_max: 1 << 18, ..Shape::default() };
    let mut world = World::new(19, shape);
    let (root, (name, end), given) = world.serve(|life| {
        for n in 0..2 {
            life.append_and_settle(n, 2, 3_000);
            life.flush(&collection(n));
            life.settle();
        }
        let [home, deaf] = [0, 1].map(|n| life.home(n));
        assert_ne!(home, deaf);
        life.checkpoint(deaf);
        let root = life.root(deaf).to_owned();
        life.world.machine.break_with(&root, Faults { unmounted: true, ..Faults::default() });
        for _ in 0..100 {
            if life.log.journals[home].stream.floor > 0 {
                break;
            }
            life.append_and_settle(0, 1, 20_000);
            let head = life.head(0);
            life.truncate(&collection(0), head);
            life.settle();
        }
        assert!(life.log.journals[home].stream.floor > 0);
        life.pass(Duration::from_millis(1500));
        // All that is left is in this file, and goes but for the last frame, which says that there was more.
        (life.root(home).to_owned(), life.next_place(home), life.head(0))
    });
    world.machine.heal();
    for page in (PAGE as u64..end - PAGE as u64).step_by(PAGE) {
        // Behind a frame's head, which says that no entries are in it.
        world.machine.flip(&root, &name, page + 150, 3);
    }
    world.oracle.damaged();
    world.serve(|life| {
        life.check();
        life.append_and_settle(0, 1, 100);
        let head = life.head(0);
        assert!(head > given, "{head} is given a second time");
    });
}
