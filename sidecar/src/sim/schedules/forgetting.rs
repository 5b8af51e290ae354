//! Schedule 12: a directory is missing at a start, is given up, and returns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::{Ack, Item};
use crate::commit::collection::Gap;
use crate::commit::log::Worker;
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::{JOURNAL_ROOT, Shape};
use crate::sim::world::{Stopped, World, collection};
use crate::types::Lsn;

/// Two collections with entries that are in segments of their homes, and in the journal for all. The home of the first.
fn fill(life: &mut Life<'_>) -> PathBuf {
    for n in 0..2 {
        life.append_and_settle(n, 2, 3_000);
        life.flush(&collection(n));
        life.settle();
    }
    let home = life.home(0);
    assert_eq!(life.log.segments_in(home), 1);
    life.root(home).to_owned()
}

/// What readers find of the first collection.
fn is_all_there(life: &mut Life<'_>) {
    life.check();
    let entries: Vec<Lsn> = life.log.find(&collection(0)).unwrap().buffer.iter(Lsn(1)).map(|(lsn, _)| lsn).collect();
    assert_eq!(entries, [Lsn(1), Lsn(2)]);
}

/// A directory is lost to `faults` and given up; it returns.
fn lose_and_find_again(faults: Faults, gaps: bool) {
    let shape = Shape { directories: 2, journal: true, gaps, ..Shape::default() };
    let mut world = World::new(8, shape);
    let lost = world.serve(fill);
    world.machine.break_with(&lost, faults);
    let Err(Stopped::Waiting(waiting)) = world.recover(&world.machine) else { panic!("nobody waits for {lost:?}") };
    let missing = waiting.unusable.iter().find(|unusable| unusable.root == lost);
    world.give_up(missing.and_then(|missing| missing.uuid).unwrap(), &lost);
    world.machine.break_with(&lost, faults);
    let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
    world.live(ready, |life| {
        life.open();
        is_all_there(life);
    });
    world.machine.kill();
    world.machine.heal();
    world.serve(is_all_there);
}

#[test]
pub(in crate::sim) fn schedule_12_what_the_journal_for_all_holds_stays_when_a_directory_that_was_given_up_returns() {
    for gaps in [false, true] {
        lose_and_find_again(Faults { dead: true, ..Faults::default() }, gaps);
        // It opens, and its journal cannot be read.
        lose_and_find_again(Faults { syncs_left: Some(0), ..Faults::default() }, gaps);
    }
}

#[test]
pub(in crate::sim) fn schedule_12_who_slept_through_a_move_is_told_of_it_by_the_next_start() {
    let mut world = World::new(9, Shape { directories: 2, ..Shape::default() });
    let dead = Faults { dead: true, ..Faults::default() };
    world.serve(|life| {
        (0..3).for_each(|n| life.append_and_settle(n, 1, 3_000));
        let left = life.home(0);
        assert_eq!(life.home(2), left, "what keeps its journal");
        move_on(life);
    });
    world.machine.heal();
    let lost = world.serve(|life| {
        life.append_and_settle(0, 1, 3_000);
        life.root(life.home(0)).to_owned()
    });
    world.machine.break_with(&lost, dead);
    let Err(Stopped::Waiting(waiting)) = world.recover(&world.machine) else { panic!("nobody waits for {lost:?}") };
    let missing = waiting.unusable.iter().find(|unusable| unusable.root == lost);
    world.give_up(missing.and_then(|missing| missing.uuid).unwrap(), &lost);
    let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
    world.live(ready, |life| {
        life.open();
        let gap = life.found(0).items.iter().any(|item| matches!(item, Item::Gap { .. }));
        assert!(gap, "what was lost with {lost:?} is not said to be lost");
    });
}

#[test]
pub(in crate::sim) fn schedule_12_what_was_flushed_outlives_the_journal_for_all() {
    let mut world = World::new(10, Shape { directories: 1, journal: true, gaps: true, ..Shape::default() });
    world.serve(|life| {
        life.append_and_settle(0, 2, 3_000);
        life.flush(&collection(0));
        life.settle();
        life.truncate(&collection(0), Lsn(1));
        life.append_and_settle(0, 1, 3_000);
        life.flush(&collection(0));
        life.settle();
        life.append_and_settle(0, 1, 3_000);
        assert_eq!(life.log.find(&collection(0)).unwrap().flushed_to, Lsn(3));
    });
    give_up(&mut world, Path::new(JOURNAL_ROOT));
    world.shape.journal = false;
    let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
    world.live(ready, |life| {
        life.open();
        life.check();
        let found = life.log.find(&collection(0)).expect("it is known without the journal");
        assert_eq!((found.truncated_to, found.flushed_to), (Lsn(1), Lsn(3)));
        assert_eq!(found.gaps.first().map(|gap| gap.first), Some(Lsn(4)), "what was not flushed is said to be lost");
    });
}

#[test]
pub(in crate::sim) fn schedule_12_what_a_lost_directory_has_numbered_is_not_numbered_again() {
    let mut world = World::new(11, Shape { directories: 2, gaps: true, ..Shape::default() });
    let dead = Faults { dead: true, ..Faults::default() };
    world.serve(|life| life.append_and_settle(0, 1, 3_000));
    // The next start is known to one directory only.
    let lived = world.life(|life| {
        let root = life.root(1).to_owned();
        life.world.machine.break_with(&root, dead);
        life.open();
        life.append_and_settle(1, 1, 3_000);
        (life.root(0).to_owned(), life.log.identity.epoch)
    });
    let (lost, epoch) = lived.unwrap_or_else(|stopped| panic!("{stopped:?}"));
    world.machine.cut();
    world.machine.heal();
    give_up(&mut world, &lost);
    let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
    assert!(ready.start.identity.epoch > epoch, "{} after {epoch}", ready.start.identity.epoch);
}

#[test]
pub(in crate::sim) fn schedule_12_who_comes_back_at_a_stop_is_told_of_what_it_missed() {
    let mut world = World::new(12, Shape { directories: 2, gaps: true, ..Shape::default() });
    let other = world.serve(|life| {
        life.append_and_settle(0, 1, 3_000);
        let left = life.home(0);
        move_on(life);
        life.world.machine.heal();
        // It is found to be well again, and begins a session; before that says anything the process is to stop.
        while !life.log.journals[left].is_open() {
            life.world.pass(Duration::from_millis(500));
            life.step(left, Worker::Upkeep);
        }
        life.stop();
        life.root(1 - left).to_owned()
    });
    give_up(&mut world, &other);
    let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
    world.live(ready, |life| {
        life.open();
        let found = life.log.find(&collection(0)).unwrap();
        let lost = |gap: &Gap| (gap.first..=gap.last).contains(&Lsn(2));
        assert!(found.gaps.iter().any(lost), "that it lived elsewhere is not said: {:?}", found.gaps);
    });
}

/// The home of the first collection dies with one entry of it; the next one goes elsewhere.
fn move_on(life: &mut Life<'_>) {
    let left = life.home(0);
    let root = life.root(left).to_owned();
    life.world.machine.break_with(&root, Faults { dead: true, ..Faults::default() });
    life.append(&collection(0), 1, 3_000, Ack::Durable);
    while life.head(0) < Lsn(2) {
        life.world.pass(Duration::from_millis(5));
        for dir in 0..2 {
            life.step(dir, Worker::Commit);
        }
    }
    assert_ne!(life.home(0), left);
}

/// A directory is lost and given up.
fn give_up(world: &mut World, lost: &Path) {
    let dead = Faults { dead: true, ..Faults::default() };
    world.machine.break_with(lost, dead);
    let Err(Stopped::Waiting(waiting)) = world.recover(&world.machine) else { panic!("nobody waits for {lost:?}") };
    let missing = waiting.unusable.iter().find(|unusable| unusable.root == lost);
    world.give_up(missing.and_then(|missing| missing.uuid).unwrap(), lost);
    world.machine.break_with(lost, dead);
}

/// The first collection has a segment at its home, which is to be emptied; that home.
fn begin_to_empty(life: &mut Life<'_>) -> usize {
    life.append_and_settle(0, 4, 3_000);
    life.flush(&collection(0));
    life.settle();
    let home = life.home(0);
    assert_eq!(life.log.segments_in(home), 1);
    life.log.empty(&[home], life.world.now);
    home
}

/// Readers are told that the first collection's entries are lost, by this start and by the next one, to which nobody says again
/// what is given up.
fn is_a_gap_twice(mut world: World) {
    for _ in 0..2 {
        let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
        world.live(ready, |life| {
            life.open();
            let found = life.found(0);
            let gap = found.items.iter().any(|item| matches!(item, Item::Gap { first: Lsn(1), .. }));
            assert!(gap && found.unreadable.is_empty(), "{:?} {:?}", found.items, found.unreadable);
            life.check();
        });
        world.machine.cut();
        world.given_up.clear();
    }
}

#[test]
pub(in crate::sim) fn schedule_12_what_was_moved_to_a_directory_that_is_given_up_is_lost_with_it() {
    let mut world = World::new(13, Shape { directories: 2, journal: true, gaps: true, ..Shape::default() });
    let lost = world.serve(|life| {
        // Its segment is copied, and the old one removed.
        let home = begin_to_empty(life);
        life.pass(Duration::from_secs(5));
        let now = life.home(0);
        assert!(now != home && life.log.segments_in(home) == 0 && life.log.segments_in(now) == 1);
        life.root(now).to_owned()
    });
    give_up(&mut world, &lost);
    is_a_gap_twice(world);
}

/// What a directory held is copied elsewhere, it is removed, and the power goes before the others say that it is empty; then
/// all others are given up.
#[test]
pub(in crate::sim) fn schedule_12_a_directory_knows_where_went_what_was_in_it() {
    let mut world = World::new(14, Shape { directories: 2, gaps: true, ..Shape::default() });
    let lost = world.serve(|life| {
        let home = begin_to_empty(life);
        for _ in 0..1000 {
            let flusher = &life.log.journals[home].flusher;
            if life.log.segments_in(home) == 0 && flusher.remove.is_empty() && flusher.removing.is_empty() {
                break;
            }
            life.world.pass(Duration::from_millis(5));
            (0..2).for_each(|dir| life.run(dir, &[Worker::Commit, Worker::Flush]));
        }
        let segments = (life.log.segments_in(home), life.log.segments_in(1 - home));
        assert_eq!((segments, life.evacuated().len()), ((0, 1), 0));
        life.root(1 - home).to_owned()
    });
    world.machine.cut();
    give_up(&mut world, &lost);
    is_a_gap_twice(world);
}

/// As before, and one directory that has not heard of it stays beside, which knows the removed segment.
#[test]
pub(in crate::sim) fn schedule_12_what_an_old_fact_says_of_a_removed_segment_does_not_count_when_one_is_given_up() {
    let mut world = World::new(19, Shape { directories: 3, gaps: true, ..Shape::default() });
    let lost = world.serve(|life| {
        for n in 0..2 {
            life.append_and_settle(n, 4, 3_000);
            life.flush(&collection(n));
            life.settle();
        }
        // What it holds alone keeps it in use.
        let [home, deaf] = [0, 1].map(|n| life.home(n));
        let other = 3 - home - deaf;
        // It hears of the segment, and then of nothing.
        life.checkpoint(deaf);
        let unmounted = Faults { unmounted: true, ..Faults::default() };
        let root = life.root(deaf).to_owned();
        life.world.machine.break_with(&root, unmounted);
        life.log.empty(&[home], life.world.now);
        life.pass(Duration::from_secs(20));
        assert_eq!((life.log.segments_in(home), life.log.segments_in(other)), (0, 1), "{:#?}", life.log.journals);
        life.root(other).to_owned()
    });
    world.machine.heal();
    give_up(&mut world, &lost);
    is_a_gap_twice(world);
}
