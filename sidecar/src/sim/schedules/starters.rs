//! Two processes on one directory of disks. (Buckets have their own model.)

use std::time::Duration;

use crate::api::Ack;
use crate::commit::log::{Stage, Worker};
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{Stopped, World, collection};
use crate::types::Lsn;

const ROOT: &str = "/m/a";

fn world(seed: u64) -> World {
    let mut world = World::new(seed, Shape::default());
    world.serve(|life| {
        life.append_and_settle(0, 2, 100);
    });
    world
}

#[test]
fn schedule_20_a_second_starter_waits_for_the_lock_and_touches_nothing() {
    let mut world = world(1);
    world.serve(|life| {
        let effects = life.world.machine.effects();
        match life.world.recover(&life.world.machine) {
            Err(Stopped::Waiting(waiting)) => assert!(waiting.reasons[0].contains("LOCKED"), "{waiting:?}"),
            other => panic!("{:?}", other.map(|_| "ready")),
        }
        assert_eq!(life.world.machine.effects(), effects);
        life.append_and_settle(0, 1, 100);
        assert!(!life.owes());
    });
    world.serve(|life| assert_eq!(life.head(0), Lsn(3)));
}

/// A file system whose locks hold nobody back.
fn unlocked(seed: u64) -> World {
    let world = world(seed);
    world.machine.break_with(ROOT.as_ref(), Faults { no_locks: true, ..Faults::default() });
    world
}

#[test]
fn schedule_20_of_two_starters_at_once_without_locks_the_one_that_makes_the_first_file_goes_on() {
    let fenced = |life: &Life<'_>| matches!(life.log.stage, Stage::Fenced(_));
    let mut firsts = 0;
    for steps in 0..8 {
        let mut world = unlocked(2);
        let [one, other] = [0, 1].map(|_| world.recover(&world.machine).unwrap());
        let ends = world.live(one, |life| {
            (0..steps).for_each(|_| {
                life.step(0, Worker::Commit);
            });
            let other_ends = life.world.live(other, |life| {
                life.settle();
                life.append_and_settle(0, 1, 100);
                fenced(life)
            });
            life.settle();
            [fenced(life), other_ends]
        });
        assert_ne!(ends[0], ends[1], "after {steps} steps");
        firsts += u64::from(ends[1]);
        world.machine.cut();
        world.serve(|life| assert_eq!(life.head(0), Lsn(if ends[1] { 2 } else { 3 })));
    }
    assert!((1..8).contains(&firsts), "each of them is the first one at times");
}

#[test]
fn schedule_20_a_process_that_finds_a_newer_stream_beside_its_own_ends_and_answers_nobody() {
    let mut world = unlocked(3);
    let old = world.recover(&world.machine).unwrap();
    world.live(old, |life| {
        life.open();
        let new = life.world.recover(&life.world.machine).unwrap();
        life.world.live(new, |life| {
            life.open();
            life.append_and_settle(0, 1, 100);
            assert!(!life.owes());
        });
        life.pass(Duration::from_millis(1100));
        assert!(matches!(life.log.stage, Stage::Fenced(_)), "{:?}", life.log.stage);
        assert!(!life.append(&collection(0), 1, 100, Ack::Durable));
    });
    world.machine.cut();
    world.serve(|life| assert_eq!(life.head(0), Lsn(3)));
}
