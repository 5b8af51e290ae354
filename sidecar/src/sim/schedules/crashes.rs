//! Crashes at every effect, twice in a row.

use std::time::Duration;

use crate::api::Ack;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{Stopped, World, collection};
use crate::types::Lsn;

/// Appends, rotations, a truncation with its checkpoint and removals, a stop.
fn busy(life: &mut Life<'_>) {
    life.open();
    if life.log.find(&collection(2)).is_err() {
        // All of it goes at once, and nothing is ever said of it again but by checkpoints.
        life.append(&collection(2), 1, 100, Ack::Durable);
        life.settle();
        life.truncate(&collection(2), Lsn(1));
        life.settle();
    }
    for round in 0..3 {
        for n in 0..2 {
            life.append(&collection(n), 2, 12_000, Ack::Durable);
            life.settle();
        }
        life.produce(0, 1, 300);
        life.settle();
        if round == 1 {
            for n in 0..2 {
                let durable = life.log.find(&collection(n)).map_or(Lsn(0), |found| found.durable_head);
                life.truncate(&collection(n), durable);
                life.settle();
            }
            life.pass(Duration::from_millis(1200));
        }
    }
    life.delete(&collection(1));
    life.pass(Duration::from_millis(2500));
    life.append(&collection(1), 1, 100, Ack::Durable);
    life.settle();
    life.stop();
}

/// A life with a power cut after so many effects; how many effects it had.
fn cut_after(world: &mut World, effects: Option<u64>, live: impl FnOnce(&mut Life<'_>)) -> u64 {
    let before = world.machine.effects();
    world.machine.cut_at(effects.map(|effects| before + effects));
    match world.life(live) {
        Ok(()) | Err(Stopped::Off) => {}
        Err(Stopped::Waiting(reasons)) => panic!("{reasons:?}"),
    }
    let took = world.machine.effects() - before;
    world.machine.cut();
    took
}

fn shape(directories: usize) -> Shape {
    Shape { directories, journal_max: 1 << 18, collections: 2, ..Shape::default() }
}

/// Every effect of a busy life, then every `step`-th of the next start.
fn everywhere(directories: usize, seed: u64, step: usize) {
    let effects = cut_after(&mut World::new(seed, shape(directories)), None, busy);
    for first in 1..=effects {
        let mut second = 1 + first % step as u64;
        loop {
            let mut world = World::new(seed + first * 1000 + second, shape(directories));
            cut_after(&mut world, Some(first), busy);
            let took = cut_after(&mut world, Some(second), |life| life.open());
            cut_after(&mut world, None, |life| {
                life.open();
                life.check();
                busy(life);
            });
            cut_after(&mut world, None, |life| life.open());
            if took < second {
                break;
            }
            second += step as u64;
        }
    }
}

#[test]
pub(in crate::sim) fn schedule_01_a_crash_at_every_effect_of_a_life_that_lets_an_earlier_one_go() {
    let mut whole = World::new(3, shape(1));
    cut_after(&mut whole, None, busy);
    let effects = cut_after(&mut whole, None, busy);
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
    let before = world
        .life(|life| {
            life.open();
            for n in 0..2 {
                life.append(&collection(n), 1, 100, Ack::Durable);
            }
            life.settle();
            assert!(!life.owes());
            homes(life)
        })
        .unwrap();
    assert_ne!(before[0], before[1]);
    world.machine.cut();
    let after = world.life(|life| {
        life.open();
        life.append(&collection(2), 1, 100, Ack::Durable);
        (homes(life), life.log.find(&collection(2)).unwrap().placement)
    });
    assert_eq!(after.unwrap(), (before, 3));
}

#[test]
fn schedule_01_a_crash_at_every_effect_twice_in_a_row_one_directory() {
    everywhere(1, 1, 4);
}

#[test]
fn schedule_01_a_crash_at_every_effect_twice_in_a_row_two_directories() {
    everywhere(2, 2, 7);
}
