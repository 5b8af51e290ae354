//! Disks without space.

use std::time::Duration;

use crate::api::Ack;
use crate::commit::journal::Health;
use crate::sim::count::Event;
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{World, collection};

/// The device takes not a byte more, as the next entry finds out. The log comes to rest.
fn fill(life: &mut Life<'_>) {
    life.world.machine.break_with(life.root(0), Faults { bytes_left: Some(0), ..Faults::default() });
    life.append_and_settle(0, 1, 100);
    assert!(matches!(life.log.journals[0].health, Health::Full(_)));
}

/// The device is as it was, and so is the log after a while.
fn mend(life: &mut Life<'_>) {
    life.world.machine.repair(life.root(0));
    life.pass(Duration::from_secs(70));
    life.append_and_settle(0, 1, 100);
    assert!(!life.owes(), "it goes on by itself");
}

#[test]
fn a_directory_that_refuses_every_byte_comes_to_rest_and_goes_on_by_itself() {
    let mut world = World::new(10, Shape { journal_max: 1 << 18, ..Shape::default() });
    world.serve(|life| {
        while life.log.journals[0].pool.free.is_empty() {
            life.append(&collection(0), 2, 12_000, Ack::Durable);
            life.pass(Duration::from_millis(20));
            let head = life.head(0);
            life.truncate(&collection(0), head);
            life.pass(Duration::from_millis(1100));
        }
        fill(life);
        life.world.machine.note(Event::Repaired);
        mend(life);
    });
    world.serve(|_| ());
}

#[test]
fn a_full_directory_that_is_unmounted_is_looked_at_once_a_second() {
    let mut world = World::new(11, Shape::default());
    world.serve(|life| {
        life.append_and_settle(0, 1, 100);
        fill(life);
        assert!(life.log.journals[0].stream.over);
        life.world.machine.break_with(life.root(0), Faults { unmounted: true, ..Faults::default() });
        // It comes to rest between.
        life.pass(Duration::from_secs(3));
        mend(life);
    });
    world.serve(|_| ());
}
