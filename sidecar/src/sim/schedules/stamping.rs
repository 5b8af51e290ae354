//! Files of the journal that are made ready, used, let go and used again.

use std::time::Duration;

use super::sweep::Sweep;
use crate::api::Ack;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::collection;

/// One file after the other is filled and let go, so that spares are made of what was let go.
fn recycle(life: &mut Life<'_>) {
    life.open();
    for _ in 0..7 {
        for _ in 0..2 {
            life.append(&collection(0), 2, 12_000, Ack::Durable);
            life.pass(Duration::from_millis(20));
        }
        let head = life.head(0);
        life.truncate(&collection(0), head);
        life.pass(Duration::from_millis(1100));
    }
    life.append_and_settle(0, 1, 3_000);
}

#[test]
pub(in crate::sim) fn schedule_06_a_crash_at_every_effect_of_stamping_twice_in_a_row() {
    Sweep {
        shape: Shape { journal_max: 1 << 18, collections: 1, ..Shape::default() },
        seed: 1,
        before: |life| life.open(),
        life: recycle,
        does: &["from: None", "from: Some", "Fill(", "Unlink("],
        step: 9,
    }
    .run();
}
