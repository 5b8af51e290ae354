//! Crashes at every effect, twice in a row.

use std::time::Duration;

use super::sweep::{Sweep, cut_after};
use crate::api::Ack;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{World, collection};
use crate::types::Lsn;

/// Appends, rotations, a truncation with its checkpoint and removals, a stop.
fn busy(life: &mut Life<'_>) {
    life.open();
    if life.log.find(&collection(2)).is_err() {
        // All of it goes at once, and nothing is ever said of it again but by checkpoints.
        life.append_and_settle(2, 1, 100);
        life.truncate(&collection(2), Lsn(1));
        life.settle();
    }
    for round in 0..3 {
        for n in 0..2 {
            life.append_and_settle(n, 2, 12_000);
        }
        life.produce(0, 1, 300);
        life.settle();
        if round == 1 {
            for n in 0..2 {
                let durable = life.head(n);
                life.truncate(&collection(n), durable);
                life.settle();
            }
            life.pass(Duration::from_millis(1200));
        }
    }
    life.delete(&collection(1));
    life.pass(Duration::from_millis(2500));
    life.append_and_settle(1, 1, 100);
    life.stop();
}

fn shape(directories: usize) -> Shape {
    Shape { directories, journal_max: 1 << 18, collections: 2, ..Shape::default() }
}

fn sweep(directories: usize, seed: u64, step: u64) -> Sweep {
    Sweep {
        shape: shape(directories),
        seed,
        before: |_| {},
        life: busy,
        does: &["kind: CheckpointEnd", "Unlink("],
        step,
    }
}

#[test]
pub(in crate::sim) fn schedule_01_a_crash_at_every_effect_of_a_life_that_lets_an_earlier_one_go() {
    let mut whole = World::new(3, shape(1));
    cut_after(&mut whole, None, busy);
    let effects = cut_after(&mut whole, None, busy).effects;
    for (effect, seed) in (1..=effects).flat_map(|effect| (0..24).map(move |seed| (effect, seed))) {
        let mut world = World::new(effect * 100 + seed, shape(1));
        cut_after(&mut world, None, busy);
        cut_after(&mut world, Some(effect), busy);
        cut_after(&mut world, None, |life| life.open());
    }
}

#[test]
pub(in crate::sim) fn a_new_collection_stays_where_its_first_entries_went() {
    let mut world = World::new(4, shape(2));
    let homes = |life: &Life<'_>| [0, 1].map(|n| life.log.describe(&collection(n)).unwrap().directory);
    let before = world.serve(|life| {
        for n in 0..2 {
            life.append(&collection(n), 1, 100, Ack::Durable);
        }
        life.settle();
        assert!(!life.owes());
        homes(life)
    });
    assert_ne!(before[0], before[1]);
    let after = world.serve(|life| {
        life.append(&collection(2), 1, 100, Ack::Durable);
        (homes(life), life.log.find(&collection(2)).unwrap().placement)
    });
    assert_eq!(after, (before, 3));
}

#[test]
fn schedule_01_a_crash_at_every_effect_twice_in_a_row_one_directory() {
    sweep(1, 1, 4).run();
}

#[test]
fn schedule_01_a_crash_at_every_effect_twice_in_a_row_two_directories() {
    sweep(2, 2, 7).run();
}
