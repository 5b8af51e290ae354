//! Schedule 12: a directory is missing at a start, is given up, and returns.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::{Ack, Item};
use crate::commit::log::Worker;
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
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
        let root = life.root(left).to_owned();
        life.world.machine.break_with(&root, dead);
        life.append(&collection(0), 1, 3_000, Ack::Durable);
        while life.head(0) < Lsn(2) {
            life.world.pass(Duration::from_millis(5));
            for dir in 0..2 {
                life.step(dir, Worker::Commit);
            }
        }
        assert_ne!(life.home(0), left);
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
