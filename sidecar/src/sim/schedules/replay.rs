//! Starts on a journal that holds several times what memory may hold.

use std::path::Path;
use std::time::Duration;

use super::sweep::cut_after;
use crate::api::{Ack, Item};
use crate::commit::log::Stage;
use crate::directory::identity::JOURNAL;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{World, collection};

/// What memory may hold when the journal is read.
const BOUND: u64 = 1 << 17;

/// What is written before: collections, entries of each, bytes of an entry.
#[derive(Clone, Copy)]
struct Written(u64, usize, usize);

const ONE_BIG: Written = Written(1, 34, 12_000);
const MANY_SMALL: Written = Written(40, 10, 1_000);

fn shape(directories: usize) -> Shape {
    let (journal_max, memory_limit, flush_size) = (1 << 22, 1 << 24, 1 << 24);
    Shape { directories, journal_max, memory_limit, flush_size, segment_size: 1 << 17, ..Shape::default() }
}

/// A machine on which a process was killed that held three times the bound.
fn written(seed: u64, shape: Shape, Written(collections, entries, size): Written) -> World {
    let mut world = World::new(seed, shape);
    let written = world.life(|life| {
        life.open();
        for _ in 0..entries {
            for n in 0..collections {
                life.append(&collection(n), 1, size, Ack::Durable);
            }
            life.settle();
        }
        assert!(!life.owes());
        life.log.iter().map(|collection| collection.buffer.bytes()).sum::<u64>()
    });
    assert!(written.unwrap() >= 3 * BOUND);
    world.machine.kill();
    world.shape.memory_limit = BOUND;
    world
}

/// It serves, holds no more than it may, and everything is there.
fn is_within(life: &mut Life<'_>) {
    life.open();
    assert!(life.log.memory() <= BOUND, "{} bytes", life.log.memory());
    life.check();
}

/// A crash at every effect of the start, and again in the start after it.
fn crash_everywhere(seed: u64, shape: &Shape, what: Written, step: usize) {
    let effects = cut_after(&mut written(seed, shape.clone(), what), None, is_within).effects;
    for first in (1..=effects).step_by(step) {
        let mut world = written(seed, shape.clone(), what);
        cut_after(&mut world, Some(first), |life| life.open());
        cut_after(&mut world, Some(1 + first % 11), |life| life.open());
        cut_after(&mut world, None, |life| {
            is_within(life);
            life.append(&collection(0), 1, 100, Ack::Durable);
            life.pass(Duration::from_secs(3));
            life.check();
            life.stop();
        });
        cut_after(&mut world, None, is_within);
    }
}

#[test]
pub(in crate::sim) fn schedule_23_three_times_the_bound_of_one_collection_with_a_crash_at_every_effect_of_the_start() {
    crash_everywhere(1, &shape(1), ONE_BIG, 1);
}

#[test]
fn schedule_23_three_times_the_bound_of_many_collections_with_a_crash_at_every_effect_of_the_start() {
    crash_everywhere(2, &shape(1), MANY_SMALL, 1);
}

#[test]
fn schedule_23_three_times_the_bound_spread_over_directories_without_affinity() {
    crash_everywhere(3, &Shape { affinity: false, ..shape(3) }, MANY_SMALL, 5);
}

#[test]
fn schedule_23_three_times_the_bound_in_a_journal_of_its_own() {
    crash_everywhere(4, &Shape { journal: true, ..shape(2) }, MANY_SMALL, 5);
    crash_everywhere(5, &Shape { journal: true, ..shape(1) }, ONE_BIG, 5);
}

#[test]
fn schedule_23_copies_of_an_emptied_directory_that_came_back_count_once() {
    let mut world = World::new(6, shape(2));
    world
        .life(|life| {
            life.open();
            for _ in 0..34 {
                life.append_and_settle(0, 1, 12_000);
            }
            // Where the home is: what it holds is committed again elsewhere.
            let home = life.log.find(&collection(0)).unwrap().home;
            life.log.journals[home].draining = true;
            life.append(&collection(1), 1, 100, Ack::Durable);
            for _ in 0..4 {
                life.pass(Duration::from_millis(5));
                life.append_and_settle(0, 1, 12_000);
            }
        })
        .unwrap();
    world.machine.kill();
    world.shape.memory_limit = BOUND;
    world.life(is_within).unwrap();
}

#[test]
fn schedule_23_where_all_that_counts_fits_after_all_nothing_is_written_for_it() {
    let Written(_, entries, size) = ONE_BIG;
    let mut world = World::new(7, shape(1));
    world
        .life(|life| {
            life.open();
            for n in 0..2 {
                for _ in 0..entries / 2 {
                    life.append(&collection(n), 1, size, Ack::Durable);
                }
                life.settle();
            }
            // The journal holds both for a while.
            for n in 0..2 {
                let head = life.log.find(&collection(n)).unwrap().durable_head;
                life.truncate(&collection(n), crate::types::Lsn(head.0 - 2));
            }
            life.settle();
        })
        .unwrap();
    world.machine.kill();
    world.shape.memory_limit = BOUND;
    world
        .life(|life| {
            is_within(life);
            assert!(life.log.iter().all(|collection| collection.segments.is_empty()));
        })
        .unwrap();
}

#[test]
fn schedule_23_damage_in_what_does_not_fit_becomes_exactly_a_gap() {
    let mut world = written(8, shape(1), ONE_BIG);
    let (slot, _) =
        world.machine.files(Path::new("/m/a")).into_iter().find(|(name, _)| name.starts_with(JOURNAL)).unwrap();
    // Inside the payload of an early frame: each holds one entry of 12,000 bytes.
    world.machine.flip(Path::new("/m/a"), &slot, 4096 * 20, 3);
    world.is_damaged();
    for _ in 0..2 {
        world
            .life(|life| {
                is_within(life);
                let items = life.found(0).items;
                let lost: Vec<&Item> = items.iter().filter(|item| matches!(item, Item::Gap { .. })).collect();
                assert!(matches!(lost[..], [Item::Gap { first, last, .. }] if first == last), "{lost:?}");
                assert_eq!(items.len(), 34);
            })
            .unwrap();
        world.machine.cut();
    }
}

#[test]
fn schedule_23_on_a_full_disk_it_says_why_it_does_not_serve_and_goes_on_when_there_is_room() {
    let mut world = written(9, shape(1), ONE_BIG);
    let root = Path::new("/m/a");
    let used = world.machine.used(root);
    world.machine.set_capacity(root, used + (100 << 10));
    world
        .life(|life| {
            life.pass(Duration::from_secs(8));
            assert_eq!(life.log.stage, Stage::Opening);
            let why = life.log.waits_for_shelves().unwrap();
            assert!(why.contains("no storage space") && why.contains("global_flush_threshold"), "{why}");
            life.world.machine.set_capacity(root, 1 << 30);
            life.pass(Duration::from_secs(90));
            is_within(life);
        })
        .unwrap();
}
