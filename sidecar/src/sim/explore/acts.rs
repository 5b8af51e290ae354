//! What happens in a life: workers go on, clients call, time passes, somebody looks.

use std::time::Duration;

use rand::RngExt;

use super::faults;
use crate::api::Ack;
use crate::commit::log::Stage;
use crate::sim::count::Event;
use crate::sim::life::{Life, Step};
use crate::sim::world::collection;
use crate::types::Lsn;

/// One thing happens.
pub(super) fn random_step(life: &mut Life<'_>) {
    match life.world.random.random_range(0..1000) {
        0..500 => {
            if life.step_any() != Step::Worked {
                life.world.pass(Duration::from_millis(20));
            }
        }
        500..960 => client(life),
        960..980 => {
            let jump = [1, 50, 400, 1_000, 6_000][life.world.random.random_range(0..5)];
            life.world.machine.note(Event::TimeJump);
            life.world.pass(Duration::from_millis(jump));
        }
        980..990 => {
            if life.log.stage == Stage::Serving {
                life.check();
            }
        }
        990 => faults::empty_one(life),
        991 => faults::forget_one(life),
        992..998 => life.world.look_aside(),
        _ => life.pass(Duration::from_millis(1500)),
    }
}

fn client(life: &mut Life<'_>) {
    let world = &mut life.world;
    let name = collection(world.random.random_range(0..world.shape.collections));
    let known = life.log.find(&name).ok().map(|c| (c.assigned_head, c.durable_head));
    match (world.random.random_range(0..100), known) {
        (0..2, Some(_)) => life.delete(&name),
        (2..4, Some(_)) => life.flush(&name),
        (4..20, Some((assigned, durable))) => {
            let head = if world.random.random_bool(0.2) { assigned } else { durable };
            let to = if world.random.random_bool(0.5) { head.0 } else { world.random.random_range(0..=head.0) };
            life.truncate(&name, Lsn(to));
        }
        (20..45, _) => {
            let index = world.random.random_range(0..world.producers.len());
            let entries = world.random.random_range(1..4);
            life.produce(index, entries, 200);
        }
        _ => {
            let size = match world.random.random_range(0..20) {
                0 => 30_000,
                1..4 => 5_000,
                _ => 200,
            };
            let entries = world.random.random_range(1..4);
            let ack = if world.random.random_bool(0.2) { Ack::Buffered } else { Ack::Durable };
            life.append(&name, entries, size, ack);
        }
    }
}

/// With disks that work, what is truncated is freed, everybody is answered, and every collection takes more.
pub(super) fn all_is_answered(life: &mut Life<'_>) {
    for n in 0..life.world.shape.collections {
        let name = collection(n);
        if let Some(head) = life.log.find(&name).ok().map(|found| found.durable_head) {
            assert!(life.truncate(&name, head), "{name} cannot be truncated");
        }
    }
    life.pass(Duration::from_secs(3));
    assert!(!life.owes(), "never answered: {}", life.owed());
    for n in 0..life.world.shape.collections {
        assert!(life.append(&collection(n), 1, 100, Ack::Durable), "c{n} takes nothing");
    }
    life.settle();
    assert!(!life.owes(), "not answered at once by an idle log: {}", life.owed());
}
