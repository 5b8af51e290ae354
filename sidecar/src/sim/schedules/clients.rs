//! What clients do about answers they did not get.

use std::time::Duration;

use crate::api::Ack;
use crate::commit::log::Worker;
use crate::commit::producers::MAX_PRODUCERS;
use crate::sim::shape::Shape;
use crate::sim::world::{World, collection};
use crate::types::Lsn;

#[test]
pub(in crate::sim) fn schedule_14_a_retry_after_a_restart_truncation_and_removal_of_its_files_is_stored_once() {
    let mut world = World::new(1, Shape { journal_max: 1 << 18, ..Shape::default() });
    world.serve(|life| {
        life.produce(0, 2, 200);
        life.write_unheard();
    });
    let files = world.serve(|life| {
        let name = collection(0);
        assert_eq!(life.head(0), Lsn(2), "it was written");
        life.truncate(&name, Lsn(2));
        life.append(&name, 1, 100, Ack::Durable);
        life.pass(Duration::from_secs(5));
        assert!(life.log.journals[0].old.is_empty(), "the stream that held it is gone");
        let root = life.root(0).to_owned();
        life.world.machine.files(&root)
    });
    world.serve(|life| {
        life.produce(0, 2, 200);
        life.settle();
        assert!(!life.owes());
        let head = life.head(0);
        assert_eq!(head, Lsn(3), "the retry was stored again; files were {files:?}");
        assert_eq!(life.world.producers[0].seq, 2, "it was acknowledged");
    });
}

#[test]
fn schedule_14_a_retry_of_the_least_recent_producer_that_is_remembered_is_stored_once() {
    let mut world = World::new(2, Shape { memory_limit: 1 << 28, ..Shape::default() });
    let first = world.serve(|life| {
        let first = life.stamp(&collection(0), "first", 1, None);
        life.settle();
        for other in 1..MAX_PRODUCERS as u64 {
            life.stamp(&collection(0), &format!("other-{other}"), 1, None);
        }
        life.settle();
        life.stop();
        first
    });
    world.serve(|life| {
        let head = life.head(0);
        // Its first request again: the answer was lost.
        life.stamp(&collection(0), "first", 1, Some(first));
        life.settle();
        assert_eq!(life.head(0), head);
    });
}

#[test]
fn schedule_15_of_a_pipelined_stream_that_hits_a_limit_all_before_is_stored_and_nothing_of_what_was_refused() {
    let mut world = World::new(4, Shape { memory_limit: 1 << 19, ..Shape::default() });
    let others = [Worker::Commit, Worker::Upkeep];
    let taken = world.serve(|life| {
        let mut sent = 0;
        while life.waiting.is_empty() {
            sent += 1;
            assert!(sent <= 256, "the limit was not met");
            life.append(&collection(0), 1, 5_000, Ack::Durable);
        }
        let taken = Lsn(sent - 1);
        assert!(taken > Lsn(50), "{taken}");
        // Nothing is flushed: commits alone make no room.
        life.run(0, &others);
        assert_eq!(life.head(0), taken);
        assert!(life.owes(), "it waits for room");
        life.world.pass(Duration::from_secs(6));
        life.hear();
        life.run(0, &others);
        assert!(!life.owes(), "it is refused");
        assert_eq!(life.head(0), taken);
        life.check();
        life.truncate(&collection(0), taken);
        life.run(0, &others);
        life.append(&collection(0), 1, 5_000, Ack::Durable);
        life.run(0, &others);
        taken
    });
    world.serve(|life| assert_eq!(life.head(0), taken.next()));
}

#[test]
fn schedule_16_what_is_buffered_is_not_followed_before_it_is_durable_and_may_go_with_a_crash() {
    let mut world = World::new(3, Shape::default());
    world.serve(|life| {
        life.append_and_settle(0, 1, 100);
        life.append(&collection(0), 3, 100, Ack::Buffered);
        assert!(!life.owes(), "answered at once");
        life.check();
        let found = life.log.find(&collection(0)).unwrap();
        assert_eq!((found.assigned_head, found.durable_head), (Lsn(4), Lsn(1)));
    });
    world.serve(|life| {
        assert_eq!(life.head(0), Lsn(1));
        life.append(&collection(0), 1, 100, Ack::Buffered);
        life.pass(Duration::from_millis(500));
        assert_eq!(life.head(0), Lsn(2), "by the interval");
        life.check();
    });
    world.serve(|_| ());
}
