//! Segments: written, sealed, removed, behind the back of the journal that says what of them counts.

use std::time::Duration;

use super::sweep::Sweep;
use crate::api::Ack;
use crate::commit::log::Worker;
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{World, collection};
use crate::types::Lsn;

fn shape() -> Shape {
    Shape { journal_max: 1 << 18, segment_size: 1 << 16, collections: 2, ..Shape::default() }
}

/// Flushes, into new segments and behind what is there, seals, and a removal.
fn flush(life: &mut Life<'_>) {
    life.open();
    for _ in 0..4 {
        life.append(&collection(0), 2, 12_000, Ack::Durable);
        life.append_and_settle(1, 1, 3_000);
        (0..2).for_each(|n| life.flush(&collection(n)));
        life.settle();
        life.check();
    }
    // The sealed segment goes, the one being written stays.
    let head = life.head(0);
    life.truncate(&collection(0), Lsn(head.0.saturating_sub(2)));
    life.settle();
    life.check();
    // The journal lets go of what it held.
    life.pass(Duration::from_millis(2200));
    life.append_and_settle(0, 1, 100);
}

#[test]
pub(in crate::sim) fn schedule_17_a_crash_at_every_effect_of_flushes_seals_and_removals_twice_in_a_row() {
    Sweep {
        shape: shape(),
        seed: 2,
        before: |life| life.open(),
        life: flush,
        does: &["Flush(FlushJob", "target: Behind", "target: New", "Seal(", "Remove("],
        step: 6,
    }
    .run();
}

/// Small collections share a segment, most of which is truncated: it is rewritten.
fn share(life: &mut Life<'_>) {
    life.open();
    life.log.flush_eagerly();
    for n in 0..4 {
        life.append(&collection(n), 2, 2_000, Ack::Durable);
    }
    life.settle();
    life.pass(Duration::from_millis(1500));
    for n in 0..3 {
        let head = life.head(n);
        life.truncate(&collection(n), head);
    }
    let head = life.head(3);
    life.truncate(&collection(3), Lsn(head.0.saturating_sub(1)));
    life.settle();
    life.pass(Duration::from_millis(2500));
    life.check();
}

#[test]
pub(in crate::sim) fn schedule_17_a_crash_at_every_effect_of_shared_segments_and_their_rewriting_twice_in_a_row() {
    Sweep {
        shape: Shape { collections: 4, ..shape() },
        seed: 3,
        before: |life| life.open(),
        life: share,
        does: &["target: Shared", "source: Some", "Remove("],
        step: 7,
    }
    .run();
}

/// A process with one flushed entry and one that is only in the journal.
fn flushed(life: &mut Life<'_>) {
    life.append_and_settle(0, 1, 3_000);
    life.flush(&collection(0));
    life.settle();
    life.append_and_settle(0, 1, 3_000);
}

#[test]
pub(in crate::sim) fn schedule_17_what_is_being_flushed_is_read_after_every_step() {
    let mut world = World::new(4, shape());
    world.serve(|life| {
        flushed(life);
        life.flush(&collection(0));
        let mut steps = 0;
        for worker in [Worker::Flush, Worker::Flush, Worker::Commit, Worker::Commit] {
            life.step(0, worker);
            life.check();
            steps += u64::from(life.owes());
        }
        assert!((1..4).contains(&steps), "the flush was under way");
    });
    world.serve(|_| ());
}

#[test]
pub(in crate::sim) fn schedule_17_no_segment_goes_before_the_truncation_is_durable() {
    let mut world = World::new(5, shape());
    world.serve(|life| {
        flushed(life);
        let segments = life.log.find(&collection(0)).unwrap().segments.len();
        life.truncate(&collection(0), Lsn(1));
        // The frame is made and never written.
        life.step(0, Worker::Commit);
        for _ in 0..20 {
            life.step(0, Worker::Flush);
        }
        assert!(life.owes());
        assert_eq!(life.log.find(&collection(0)).unwrap().segments.len(), segments);
    });
    world.serve(|life| assert_eq!(life.log.find(&collection(0)).unwrap().truncated_to, Lsn(0)));
}

#[test]
pub(in crate::sim) fn schedule_17_no_file_of_the_journal_goes_before_the_flush_is_said_durably() {
    let mut world = World::new(6, shape());
    world.serve(|life| {
        life.append_and_settle(0, 1, 3_000);
        life.flush(&collection(0));
        // It is under way from now on, and its device is slow.
        life.step(0, Worker::Flush);
        let file = life.next_place(0).0;
        for _ in 0..12 {
            life.append(&collection(1), 1, 20_000, Ack::Durable);
            life.run(0, &[Worker::Commit, Worker::Upkeep]);
            let head = life.head(1);
            life.truncate(&collection(1), head);
            for _ in 0..12 {
                life.run(0, &[Worker::Commit, Worker::Upkeep]);
                life.world.pass(Duration::from_millis(100));
            }
        }
        let root = life.root(0).to_owned();
        assert_ne!(life.next_place(0).0, file, "the journal went on");
        assert!(life.world.machine.files(&root).iter().any(|(name, _)| *name == file), "the first file is needed");
    });
    world.serve(|life| assert_eq!(life.head(0), Lsn(1)));
}

#[test]
fn schedule_17_a_flush_of_what_is_truncated_meanwhile_is_answered() {
    let mut world = World::new(7, shape());
    world.serve(|life| {
        life.append_and_settle(0, 1, 3_000);
        life.flush(&collection(0));
        life.truncate(&collection(0), Lsn(1));
        life.run(0, &[Worker::Commit]);
        life.settle();
        assert!(!life.owes(), "nobody answers the flush");
    });
    world.serve(|_| ());
}
