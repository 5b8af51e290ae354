//! Syncs that fail, writes that land all the same, devices that do not answer.

use std::path::Path;
use std::time::Duration;

use super::sweep::Sweep;
use crate::api::Ack;
use crate::commit::log::Worker;
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{World, collection};
use crate::types::Lsn;

/// An entry whose write is made to end in `begin`; then SIGKILL, a start that reads, a power cut, another start.
fn seen_then_cut(seed: u64, trouble: impl FnOnce(&World), power_goes: bool) {
    let mut world = World::new(seed, Shape::default());
    world
        .life(|life| {
            life.open();
            life.append_and_settle(0, 1, 3000);
            trouble(life.world);
            life.append_and_settle(0, 1, 3000);
            assert_eq!(life.is_off(), power_goes);
        })
        .unwrap();
    world.machine.kill();
    world.machine.heal();
    world.serve(|_| ());
    // Whatever was read is known to the oracle by now.
    world.serve(|_| ());
}

#[test]
pub(in crate::sim) fn schedule_05_a_failed_sync_whose_pages_stay_readable_is_not_read_and_then_gone() {
    for seed in 1..30 {
        let fails = |world: &World| {
            world.machine.break_with(Path::new("/m/a"), Faults { syncs_left: Some(0), ..Faults::default() });
        };
        seen_then_cut(seed, fails, false);
    }
}

#[test]
pub(in crate::sim) fn schedule_05_a_write_that_was_killed_before_its_sync_is_not_read_and_then_gone() {
    for seed in 1..30 {
        let killed = |world: &World| world.machine.cut_at(Some(world.machine.effects() + 1));
        seen_then_cut(seed, killed, true);
    }
}

fn two() -> World {
    World::new(7, Shape { directories: 2, ..Shape::default() })
}

#[test]
pub(in crate::sim) fn schedule_11_a_failed_write_that_landed_is_there_once() {
    let mut world = two();
    world.serve(|life| {
        life.append_and_settle(0, 1, 100);
        let (before, root) = (life.home(0), life.root(life.home(0)).to_owned());
        life.world.machine.break_with(&root, Faults { syncs_until_landed: Some(0), ..Faults::default() });
        life.append(&collection(0), 3, 100, Ack::Durable);
        life.produce(0, 2, 100);
        life.settle();
        assert!(!life.owes(), "acknowledged by the other directory");
        assert_ne!(life.home(0), before);
        life.check();
    });
    world.serve(|life| {
        assert_eq!(life.head(0), Lsn(6));
    });
}

/// A sync of the home of two groups fails under both of them.
fn fail_under_two_groups(life: &mut Life<'_>) {
    life.open();
    (0..2).for_each(|n| {
        life.append_and_settle(2 * n, 1, 3_000);
    });
    let root = life.root(life.home(0)).to_owned();
    life.world.machine.break_with(&root, Faults { syncs_left: Some(0), ..Faults::default() });
    for n in [0, 2, 0] {
        life.append(&collection(n), 2, 3_000, Ack::Durable);
    }
    life.settle();
    assert!(life.is_off() || !life.owes());
    life.check();
}

#[test]
pub(in crate::sim) fn schedule_13_a_crash_at_every_effect_of_a_group_that_goes_elsewhere_twice_in_a_row() {
    Sweep {
        shape: Shape { directories: 2, affinity: false, ..Shape::default() },
        seed: 9,
        before: |life| {
            life.open();
            // Both may hold whatever is placed there.
            life.append(&collection(0), 1, 100, Ack::Durable);
            life.pass(Duration::from_secs(2));
        },
        life: fail_under_two_groups,
        does: &["kind: Normal"],
        step: 3,
    }
    .run();
}

#[test]
pub(in crate::sim) fn schedule_13_a_collection_that_has_moved_is_where_its_acknowledged_entries_are_after_a_crash() {
    let mut world = two();
    let (before, after) = world.serve(|life| {
        life.append_and_settle(0, 1, 100);
        // Everybody was told of it.
        life.pass(Duration::from_secs(2));
        let before = life.home(0);
        let root = life.root(before).to_owned();
        life.world.machine.break_with(&root, Faults { syncs_left: Some(0), ..Faults::default() });
        life.append(&collection(0), 1, 100, Ack::Durable);
        // Nothing is committed but the group itself.
        while life.owes() {
            life.step(before, Worker::Commit);
            life.step(1 - before, Worker::Commit);
        }
        (before, life.home(0))
    });
    assert_ne!(before, after);
    world.machine.heal();
    world.serve(|life| assert_eq!(life.home(0), after));
}

#[test]
fn schedule_10_a_stall_of_one_directory_moves_what_it_was_given_and_its_late_answer_changes_nothing() {
    let mut world = two();
    world.serve(|life| {
        life.append(&collection(0), 1, 100, Ack::Durable);
        life.append_and_settle(1, 1, 100);
        let stalled = life.home(0);
        life.stall(stalled, Duration::from_secs(90));
        life.append_and_settle(0, 1, 100);
        assert!(life.owes(), "its device does not answer");
        for _ in 0..15 {
            // The other one shows that it is not the process that stands still.
            life.append(&collection(1), 1, 100, Ack::Durable);
            life.pass(Duration::from_secs(1));
        }
        assert!(!life.owes(), "it went elsewhere");
        assert_ne!(life.home(0), stalled);
        life.pass(Duration::from_secs(200));
        life.check();
        life.append_and_settle(0, 1, 100);
        assert!(!life.owes());
        assert!(life.log.journals[stalled].is_healthy(), "it is back");
    });
    world.serve(|_| ());
}

#[test]
fn schedule_10_a_stall_of_all_directories_is_waited_for() {
    let mut world = two();
    world.serve(|life| {
        life.append_and_settle(0, 1, 100);
        (0..2).for_each(|dir| life.stall(dir, Duration::from_secs(40)));
        life.append(&collection(0), 1, 100, Ack::Durable);
        life.pass(Duration::from_secs(35));
        assert!(life.owes(), "nobody can say that it is durable");
        assert!(life.log.journals.iter().all(|journal| journal.is_healthy()), "none is to blame");
        life.pass(Duration::from_secs(10));
        assert!(!life.owes());
    });
    world.serve(|_| ());
}

#[test]
fn a_stop_answers_whoever_waits_for_a_flush_or_a_change_that_cannot_be() {
    let mut world = World::new(8, Shape::default());
    world.serve(|life| {
        (0..2).for_each(|n| {
            life.append(&collection(n), 1, 100, Ack::Durable);
        });
        life.settle();
        life.flush(&collection(0));
        life.delete(&collection(1));
        life.world.machine.break_with(Path::new("/m/a"), Faults { dead: true, ..Faults::default() });
        life.settle();
        life.stop();
    });
}
