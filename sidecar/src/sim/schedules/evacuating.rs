//! Directories that are emptied, because they failed or because they are to go: afterwards nobody misses them.

use std::time::Duration;

use super::sweep::Sweep;
use crate::api::Ack;
use crate::commit::journal::Opening;
use crate::commit::log::{Stage, Worker};
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{Stopped, World, collection};
use crate::types::Lsn;

fn shape() -> Shape {
    Shape { directories: 2, journal_max: 1 << 18, collections: 4, ..Shape::default() }
}

/// Collections in both directories, one of them truncated to its head.
fn fill(life: &mut Life<'_>) {
    life.open();
    for n in 0..4 {
        life.append_and_settle(n, 2, 3_000);
    }
    (2..4).for_each(|n| {
        life.truncate(&collection(n), Lsn(2));
    });
    life.settle();
}

/// A disk dies under its collections; what it held is committed elsewhere.
fn lose_a_disk(life: &mut Life<'_>) {
    fill(life);
    let home = life.home(0);
    let root = life.root(home).to_owned();
    life.world.machine.break_with(&root, Faults { dead: true, ..Faults::default() });
    life.append_and_settle(0, 1, 3_000);
    life.append(&collection(1), 1, 3_000, Ack::Durable);
    life.pass(Duration::from_millis(2500));
    life.check();
}

#[test]
pub(in crate::sim) fn schedule_09_a_crash_at_every_effect_of_the_evacuation_of_a_dead_disk_twice_in_a_row() {
    Sweep {
        shape: shape(),
        seed: 4,
        before: |life| life.open(),
        life: |life| {
            lose_a_disk(life);
            // A later life may have flushed: what only its segments hold keeps a disk from being evacuated.
            let flushed = (0..life.directories()).any(|dir| life.log.segments_in(dir) > 0);
            let stays = life.is_off() || (flushed && life.world.lives > 2);
            assert!(stays || life.evacuated().len() == 1, "{:#?}", life.log.journals);
        },
        does: &["kind: Copies", "kind: CheckpointEnd"],
        step: 7,
    }
    .run();
}

/// Segments and entries in both directories; then one URL leaves the configuration.
fn fill_and_leave(life: &mut Life<'_>) {
    fill(life);
    life.flush(&collection(0));
    life.flush(&collection(1));
    life.settle();
    for n in 0..2 {
        life.append(&collection(n), 2, 3_000, Ack::Durable);
    }
    life.settle();
    life.world.shape.without.insert(0);
}

fn drain(life: &mut Life<'_>) {
    life.open();
    life.append(&collection(0), 1, 3_000, Ack::Durable);
    life.append(&collection(1), 1, 3_000, Ack::Durable);
    life.pass(Duration::from_secs(5));
    life.check();
}

#[test]
pub(in crate::sim) fn schedule_24_a_crash_at_every_effect_of_emptying_a_removed_directory_twice_in_a_row() {
    Sweep {
        shape: shape(),
        seed: 5,
        before: fill_and_leave,
        life: |life| {
            drain(life);
            let gone = life.directories() == 1 || life.evacuated().len() == 1;
            assert!(life.is_off() || gone, "{:#?}", life.log.journals);
        },
        does: &["source: Some", "kind: Copies", "kind: CheckpointEnd"],
        step: 7,
    }
    .run();
}

#[test]
pub(in crate::sim) fn schedule_24_a_directory_is_not_removed_while_segments_in_it_are_needed() {
    let mut world = World::new(6, shape());
    world.serve(fill_and_leave);
    let lived = world.life(|life| {
        for _ in 0..60 {
            // Its segments are not rewritten.
            (0..2).for_each(|dir| life.run(dir, &[Worker::Commit, Worker::Upkeep]));
            life.world.pass(Duration::from_millis(100));
        }
        assert_eq!((&life.log.stage, life.evacuated().len()), (&Stage::Serving, 0));
        life.pass(Duration::from_secs(5));
        assert_eq!(life.evacuated().len(), 1);
    });
    lived.unwrap();
    world.machine.cut();
    world.serve(|life| assert_eq!((life.directories(), life.head(0), life.head(1)), (1, Lsn(4), Lsn(4))));
}

#[test]
fn schedule_24_a_directory_that_has_left_takes_nothing_though_it_failed_and_came_back() {
    let mut world = World::new(7, shape());
    world.serve(fill_and_leave);
    let lived = world.life(|life| {
        drain(life);
        let gone = life.evacuated()[0].clone();
        life.world.machine.break_with(&gone, Faults { unmounted: true, ..Faults::default() });
        life.pass(Duration::from_secs(5));
        life.world.machine.repair(&gone);
        let other = (0..2).map(|dir| life.root(dir).to_owned()).find(|root| *root != gone).unwrap();
        life.world.machine.break_with(&other, Faults { dead: true, ..Faults::default() });
        life.append(&collection(0), 1, 100, Ack::Durable);
        life.pass(Duration::from_secs(130));
        // Nobody but itself could say that it is used again, and no configuration names it.
        life.append(&collection(1), 1, 100, Ack::Durable);
        life.pass(Duration::from_secs(2));
    });
    lived.unwrap();
    world.machine.cut();
    world.machine.heal();
    world.serve(|life| life.check());
}

#[test]
pub(in crate::sim) fn schedule_24_emptying_goes_on_when_the_directory_that_was_to_take_it_fails() {
    let mut world = World::new(8, Shape { directories: 3, ..Shape::default() });
    world.serve(|life| {
        life.append_and_settle(0, 4, 3_000);
        life.flush(&collection(0));
        life.settle();
        let home = life.home(0);
        // It is taken for healthy until it is written to.
        let next = life.root((home + 1) % 3).to_owned();
        life.world.machine.break_with(&next, Faults { unmounted: true, ..Faults::default() });
        life.log.empty(&[home], life.world.now);
        life.pass(Duration::from_secs(20));
        assert_eq!(life.log.segments_in(home), 0, "{:#?}", life.log.journals);
        life.check();
    });
}

#[test]
pub(in crate::sim) fn schedule_24_who_was_emptied_and_comes_back_at_a_stop_may_be_taken_away() {
    let mut world = World::new(9, Shape { directories: 3, ..shape() });
    let dead = Faults { dead: true, ..Faults::default() };
    let gone = world.serve(|life| {
        lose_a_disk(life);
        let gone = life.evacuated()[0].clone();
        let dir = (0..3).find(|dir| life.root(*dir) == gone).unwrap();
        let home = life.home(1);
        let next = life.root(home).to_owned();
        life.world.machine.break_with(&next, dead);
        life.append(&collection(1), 1, 3_000, Ack::Durable);
        life.pass(Duration::from_millis(2500));
        life.world.machine.repair(&gone);
        life.world.pass(Duration::from_secs(65));
        life.run(dir, &[Worker::Upkeep]);
        assert!(life.log.journals[dir].is_healthy(), "{:?}", life.log.journals[dir].health);
        life.log.stop(life.world.now);
        for _ in 0..100 {
            life.wake();
            life.step(dir, Worker::Commit);
            if life.log.journals[dir].opening == Opening::Done {
                break;
            }
        }
        assert_eq!(life.log.journals[dir].opening, Opening::Done);
        // The other one that failed is given up: who the members are is said once more.
        life.log.forget(life.log.journals[home].id, life.world.now).unwrap();
        life.stop();
        assert_eq!(life.evacuated().len(), 2);
        gone
    });
    world.machine.heal();
    world.machine.wipe(&gone);
    world.serve(|life| life.check());
}

/// A directory is emptied while it writes the last entries of a collection, and lost: others say that the collection lives
/// elsewhere by then, or not, but never that these entries were not there.
#[test]
pub(in crate::sim) fn schedule_24_entries_under_way_to_a_directory_that_is_emptied_are_lost_with_it_by_name() {
    for cut in 1..30 {
        let mut world = World::new(10, Shape { gaps: true, ..shape() });
        let lost = world.life(|life| {
            life.open();
            for n in 0..2 {
                life.append_and_settle(n, 2, 3_000);
            }
            let home = life.home(0);
            life.append(&collection(0), 2, 3_000, Ack::Durable);
            life.world.pass(Duration::from_millis(5));
            // It is asked for, and no answer has come.
            while life.log.journals[home].in_flight.is_none() {
                life.step(home, Worker::Commit);
            }
            life.log.empty(&[home], life.world.now);
            for step in 0..cut {
                // The other one is ahead.
                life.world.pass(Duration::from_millis(5));
                life.wake();
                life.step(1 - home, Worker::Commit);
                if step % 4 == 3 {
                    life.step(home, Worker::Commit);
                }
            }
            life.root(home).to_owned()
        });
        let lost = lost.unwrap();
        world.machine.kill();
        world.machine.break_with(&lost, Faults { dead: true, ..Faults::default() });
        if let Err(Stopped::Waiting(waiting)) = world.recover(&world.machine) {
            let missing = waiting.unusable.iter().find(|unusable| unusable.root == lost);
            world.give_up(missing.and_then(|missing| missing.uuid).unwrap(), &lost);
        }
        let ready = world.recover(&world.machine).unwrap_or_else(|stopped| panic!("{stopped:?}"));
        world.live(ready, |life| {
            life.open();
            life.check();
        });
    }
}
