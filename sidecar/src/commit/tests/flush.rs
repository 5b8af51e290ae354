//! Flushing: what is durable leaves memory and journals for segments, and segments go when they are not needed.

use std::time::Duration;

use tokio::sync::oneshot;

use super::rig::{Rig, Setup, name};
use crate::commit::flush::DETOUR;
use crate::commit::flush_jobs::{FlushWork, Target};
use crate::commit::flush_plan::DUE_WAIT;
use crate::commit::flushed::FlushFailure;
use crate::commit::frames::Work;
use crate::error::{ApiError, Reason};
use crate::format::frame::FLAG_CHECKPOINT_PART;
use crate::format::record::Kind;
use crate::types::Lsn;

pub(super) fn flushing(setup: Setup) -> Rig {
    Rig::new(Setup { flushes: true, ..setup })
}

/// Small: a collection is due with 64 KiB, a segment is full with 512 KiB.
pub(super) fn small() -> Setup {
    Setup { memory_flush_size: 64 << 10, segment_size: 512 << 10, ..Setup::default() }
}

pub(super) fn append(rig: &mut Rig, collection: &str, times: usize) {
    for _ in 0..times {
        rig.send(collection, &[&[0; 10_000]]);
        rig.settle();
    }
}

impl Rig {
    pub(super) fn ask_flush(&mut self, collection: &str) -> oneshot::Receiver<Result<Lsn, ApiError>> {
        let (waiter, answer) = oneshot::channel();
        self.log.flush(&name(collection), waiter, self.now).unwrap();
        self.log.take_outbox().deliver();
        answer
    }

    pub(super) fn flushed_to(&self, collection: &str) -> u64 {
        self.log.find(&name(collection)).unwrap().flushed_to.0
    }

    fn in_memory(&self, collection: &str) -> u64 {
        self.log.find(&name(collection)).unwrap().buffer.entries()
    }

    /// Every LSN that counts is in memory or in a segment that is there.
    pub(super) fn check(&self) {
        for collection in self.log.iter() {
            for lsn in collection.truncated_to.0 + 1..=collection.durable_head.0 {
                let in_memory = collection.buffer.iter(Lsn(lsn)).next().is_some_and(|(first, _)| first.0 == lsn);
                let in_segment = collection.segments.iter().any(|segment| {
                    let file = self.segments[segment.dir].files.get(&segment.id);
                    file.is_some_and(|file| file.entries.contains_key(&(collection.incarnation, Lsn(lsn))))
                });
                assert!(in_memory || in_segment, "LSN {lsn} of {} is nowhere", collection.name);
            }
        }
        let memory: usize = self.log.iter().map(crate::commit::collection::Collection::memory).sum();
        assert_eq!(self.log.memory(), memory as u64);
    }
}

#[test]
fn a_collection_is_flushed_a_second_after_it_has_enough() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 6);
    rig.pass(DUE_WAIT * 10);
    assert_eq!((rig.flushed, rig.flushed_to("c")), (0, 0), "not enough");
    append(&mut rig, "c", 1);
    rig.pass(DUE_WAIT - Duration::from_millis(1));
    assert_eq!(rig.flushed, 0, "not yet");
    append(&mut rig, "c", 3);
    rig.pass(Duration::from_millis(1));
    assert_eq!((rig.flushed, rig.flushed_to("c"), rig.in_memory("c")), (1, 10, 0));
    rig.check();
}

#[test]
fn what_is_truncated_before_its_second_is_never_written() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 10);
    drop(rig.truncate("c", 9));
    rig.settle();
    rig.pass(DUE_WAIT * 2);
    assert_eq!(rig.flushed, 0);
}

#[test]
fn memory_and_reads_change_only_when_the_fact_is_durable() {
    let mut rig = Rig::new(small());
    append(&mut rig, "c", 10);
    rig.now += DUE_WAIT;
    let memory = rig.log.memory();
    assert!(rig.flush(0));
    assert_eq!((rig.flushed, rig.flushed_to("c"), rig.log.memory()), (1, 0, memory));
    let frame = rig.frame(0);
    assert_eq!(frame.of(Kind::Flushed, "c"), [10]);
    assert_eq!((rig.flushed_to("c"), rig.log.memory()), (0, memory));
    rig.durable(0);
    assert_eq!(rig.flushed_to("c"), 10);
    assert!(rig.log.memory() < memory);
}

#[test]
fn only_durable_entries_are_flushed() {
    let mut rig = Rig::new(small());
    append(&mut rig, "c", 10);
    rig.send("c", &[&[0; 10_000]]);
    rig.now += DUE_WAIT;
    assert!(rig.flush(0));
    while rig.commit(0) {}
    assert_eq!((rig.flushed_to("c"), rig.in_memory("c")), (10, 1));
    rig.check();
}

#[test]
fn an_asked_flush_is_answered_when_everything_durable_then_is_in_segments() {
    let mut rig = Rig::new(Setup::default());
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    rig.send("c", &[b"3"]);
    let mut answer = rig.ask_flush("c");
    assert!(rig.flush(0));
    answer.try_recv().unwrap_err();
    rig.settle();
    assert_eq!(answer.try_recv().unwrap().unwrap(), Lsn(2));
    assert_eq!(rig.flushed_to("c"), 2);
    let mut nothing_new = rig.ask_flush("c");
    assert!(rig.flush(0));
    rig.settle();
    assert_eq!(nothing_new.try_recv().unwrap().unwrap(), Lsn(3));
    let mut nothing = rig.ask_flush("c");
    assert_eq!(nothing.try_recv().unwrap().unwrap(), Lsn(3));
    let (waiter, _) = oneshot::channel();
    let refused = rig.log.flush(&name("other"), waiter, rig.now).unwrap_err();
    assert_eq!(refused.reason, Reason::CollectionNotFound);
    rig.check();
}

#[test]
fn a_full_segment_is_sealed_and_the_next_flush_begins_another() {
    let mut rig = flushing(small());
    for _ in 0..12 {
        append(&mut rig, "c", 8);
        rig.pass(DUE_WAIT);
    }
    let segments = &rig.log.find(&name("c")).unwrap().segments;
    assert_eq!(segments.len(), 2, "{segments:?}");
    assert!(segments[0].sealed && !segments[1].sealed);
    assert_eq!(rig.segments[0].sealed.len(), 1);
    assert_eq!((segments[0].first, segments[1].first), (Lsn(1), segments[0].last.next()));
    rig.check();
}

#[test]
fn segments_go_when_all_in_them_is_truncated_and_checkpoints_state_them_until_then() {
    let mut rig = flushing(small());
    for _ in 0..12 {
        append(&mut rig, "c", 8);
        rig.pass(DUE_WAIT);
    }
    let (first, second) = {
        let segments = &rig.log.find(&name("c")).unwrap().segments;
        (segments[0].clone(), segments[1].clone())
    };
    let _truncated = rig.truncate("c", first.last.0);
    while rig.commit(0) {}
    // Not removed yet: a checkpoint of now states both.
    rig.log.journals[0].since_checkpoint = 1 << 40;
    let checkpoint = rig.frame(0);
    assert!(checkpoint.header.flags & FLAG_CHECKPOINT_PART != 0);
    assert_eq!(checkpoint.of(Kind::Flushed, "c"), [second.last.0, first.last.0]);
    rig.durable(0);
    rig.settle();
    assert!(!rig.segments[0].files.contains_key(&first.id) && rig.segments[0].files.contains_key(&second.id));
    rig.log.journals[0].since_checkpoint = 1 << 40;
    assert_eq!(rig.frame(0).of(Kind::Flushed, "c"), [second.last.0]);
    rig.durable(0);
    let _truncated = rig.truncate("c", second.last.0);
    rig.settle();
    assert!(rig.segments[0].files.is_empty());
    rig.check();
}

#[test]
fn a_deleted_collection_takes_its_segments_with_it_and_its_tombstone_stays_until_they_are_gone() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    assert_eq!(rig.segments[0].files.len(), 1);
    let _deleted = rig.delete("c");
    while rig.commit(0) {}
    // Every file from before the deletion is gone, the segment is not.
    for slot in &mut rig.log.journals[0].slots {
        slot.made = u64::MAX;
    }
    rig.log.journals[0].since_checkpoint = 1 << 40;
    let checkpoint = rig.frame(0);
    assert_eq!((checkpoint.of(Kind::Delete, "c").len(), checkpoint.of(Kind::Flushed, "c").len()), (1, 1));
    rig.durable(0);
    rig.settle();
    assert!(rig.segments[0].files.is_empty());
    // The last checkpoint spoke of the segment: the tombstone stays as long as that one does.
    rig.log.journals[0].since_checkpoint = 1 << 40;
    let checkpoint = rig.frame(0);
    assert_eq!((checkpoint.of(Kind::Delete, "c").len(), checkpoint.of(Kind::Flushed, "c").len()), (0, 0));
}

#[test]
fn a_deletion_is_stated_until_its_folder_was_looked_at_in_every_directory() {
    let mut rig = Rig::new(Setup { directories: 2, ..small() });
    append(&mut rig, "c", 1);
    drop(rig.delete("c"));
    while rig.commit(0) | rig.commit(1) {}
    let stated = |rig: &mut Rig| {
        for journal in &mut rig.log.journals {
            for slot in &mut journal.slots {
                slot.made = u64::MAX;
            }
        }
        rig.log.journals[0].since_checkpoint = 1 << 40;
        let checkpoint = rig.frame(0);
        rig.durable(0);
        checkpoint.of(Kind::Delete, "c").len()
    };
    assert_eq!(stated(&mut rig), 1);
    assert!(rig.flush(0));
    assert_eq!(stated(&mut rig), 1, "the other was not looked at");
    assert!(rig.flush(1));
    assert_eq!(stated(&mut rig), 0);
    assert!(!rig.flush(0) && !rig.flush(1));
}

#[test]
fn a_recreated_collection_does_not_touch_what_its_predecessor_left() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    let _deleted = rig.delete("c");
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    assert_eq!(rig.flushed_to("c"), 10);
    assert_eq!(rig.segments[0].files.len(), 1);
    rig.check();
}

#[test]
fn a_deletion_during_a_flush_leaves_nothing_behind() {
    let mut rig = Rig::new(small());
    append(&mut rig, "c", 10);
    rig.now += DUE_WAIT;
    let FlushWork::Flush(job) = rig.log.poll_flush(0, rig.now) else { panic!() };
    let mut deleted = rig.delete("c");
    while rig.commit(0) {}
    deleted.try_recv().unwrap().unwrap();
    rig.carry_out(0, FlushWork::Flush(job));
    while rig.step(0) | rig.flush(0) {}
    assert!(rig.segments[0].files.values().all(|file| file.entries.is_empty()), "nothing was written");
}

#[test]
fn a_truncation_during_a_flush_takes_the_segment_being_written_only_where_nothing_goes_behind_it() {
    for (to, flushed_to, files) in [(5, 20, 1), (10, 20, 1), (11, 10, 0), (15, 10, 0)] {
        let mut rig = Rig::new(small());
        append(&mut rig, "c", 10);
        rig.now += DUE_WAIT;
        assert!(rig.flush(0));
        while rig.commit(0) {}
        append(&mut rig, "c", 10);
        rig.now += DUE_WAIT;
        let work = rig.log.poll_flush(0, rig.now);
        let FlushWork::Flush(job) = &work else { panic!() };
        assert!(matches!(job.target, Target::Behind(_)));
        let _truncated = rig.truncate("c", to);
        while rig.commit(0) {}
        rig.carry_out(0, work);
        while rig.step(0) | rig.flush(0) {}
        assert_eq!((rig.flushed_to("c"), rig.segments[0].files.len()), (flushed_to, files), "to {to}");
        rig.check();
    }
}

#[test]
fn a_failed_flush_goes_elsewhere_and_its_segment_is_left_alone() {
    let mut rig = Rig::new(Setup { directories: 2, ..small() });
    append(&mut rig, "c", 10);
    let home = rig.home("c");
    rig.now += DUE_WAIT;
    assert!(rig.flush(home));
    while rig.commit(home) {}
    append(&mut rig, "c", 10);
    rig.now += DUE_WAIT;
    let FlushWork::Flush(job) = rig.log.poll_flush(home, rig.now) else { panic!() };
    rig.log.flush_failed(home, job.number, FlushFailure::Device("test".into()), rig.now);
    let FlushWork::Flush(shared) = rig.log.poll_flush(home, rig.now) else { panic!() };
    assert!(matches!(shared.target, Target::Shared(..)), "perhaps it was its own path only");
    rig.log.flush_failed(home, shared.number, FlushFailure::Device("test".into()), rig.now);
    rig.now += DUE_WAIT;
    assert!(!rig.flush(home), "not there for a while");
    assert!(rig.flush(1 - home));
    while rig.commit(home) | rig.commit(1 - home) {}
    assert_eq!(rig.flushed_to("c"), 20);
    rig.check();
    // Back there the segment that failed is not added to: it is sealed, and another begun.
    append(&mut rig, "c", 10);
    rig.now += DETOUR;
    for _ in 0..4 {
        while rig.flush(home) | rig.flush(1 - home) | rig.commit(home) | rig.commit(1 - home) {}
        rig.now += DUE_WAIT;
    }
    assert_eq!(rig.flushed_to("c"), 30);
    assert!(rig.segments[home].sealed.contains(&job.target.id()));
    assert_eq!(rig.segments[home].files.len(), 2);
    rig.check();
}

#[test]
fn with_nowhere_to_flush_to_an_asked_flush_is_refused_and_nothing_is_lost() {
    let mut rig = Rig::new(small());
    rig.send("c", &[b"1"]);
    rig.settle();
    let mut answer = rig.ask_flush("c");
    for _ in 0..2 {
        answer.try_recv().unwrap_err();
        let FlushWork::Flush(job) = rig.log.poll_flush(0, rig.now) else { panic!() };
        rig.log.flush_failed(0, job.number, FlushFailure::Device("test".into()), rig.now);
        rig.log.take_outbox().deliver();
    }
    assert_eq!(answer.try_recv().unwrap().unwrap_err().reason, Reason::NoHealthyDirectory);
    let (waiter, _) = oneshot::channel();
    assert_eq!(rig.log.flush(&name("c"), waiter, rig.now).unwrap_err().reason, Reason::NoHealthyDirectory);
    rig.now += DUE_WAIT * 10;
    let mut again = rig.ask_flush("c");
    assert!(rig.flush(0));
    rig.settle();
    assert_eq!(again.try_recv().unwrap().unwrap(), Lsn(1));
}

#[test]
fn a_fact_whose_frame_failed_is_repeated_elsewhere_and_nothing_is_written_to_its_segment_before() {
    let mut rig = Rig::new(Setup { directories: 2, ..small() });
    append(&mut rig, "c", 10);
    let home = rig.home("c");
    rig.now += DUE_WAIT;
    assert!(rig.flush(home));
    assert_eq!(rig.frame(home).of(Kind::Flushed, "c"), [10]);
    rig.fail(home);
    assert_eq!(rig.frame(1 - home).of(Kind::Flushed, "c"), [10]);
    rig.durable(1 - home);
    assert_eq!(rig.flushed_to("c"), 10);
    rig.check();
}

#[test]
fn a_stop_flushes_everything_largest_first_and_ends_with_the_clean_frame() {
    let mut rig = Rig::new(Setup { flushes: true, ..Setup::default() });
    for n in 0..5 {
        append(&mut rig, &format!("large{n}"), 30 + n);
        append(&mut rig, &format!("small{n}"), 1);
    }
    rig.log.stop(rig.now);
    let mut order = Vec::new();
    loop {
        let work = rig.log.poll_flush(0, rig.now);
        if let FlushWork::Flush(job) = &work {
            order.push(job.parts.iter().map(|part| part.name.to_string()).collect::<Vec<_>>());
        }
        let ended = work == FlushWork::End;
        rig.carry_out(0, work);
        while rig.commit(0) {}
        if ended {
            break;
        }
    }
    assert_eq!(order[..5], ["large4", "large3", "large2", "large1", "large0"].map(|name| vec![name.to_owned()]));
    assert_eq!((order.len(), order[5].len()), (6, 5), "{order:?}");
    assert_eq!(rig.poll(0), Work::End);
    assert!(rig.log.iter().all(|collection| collection.flushed_to == collection.durable_head));
    rig.check();
}

#[test]
fn a_stop_flushes_for_five_seconds_at_most() {
    let mut rig = Rig::new(Setup::default());
    append(&mut rig, "c", 3);
    rig.log.stop(rig.now);
    let FlushWork::Flush(_) = rig.log.poll_flush(0, rig.now) else { panic!() };
    while rig.commit(0) {}
    let Work::Wait(Some(until)) = rig.poll(0) else { panic!("the flush is under way") };
    assert_eq!(until, rig.now + crate::commit::flush::STOP_FLUSH);
    rig.now = until;
    while rig.commit(0) {}
    assert_eq!(rig.poll(0), Work::End);
    assert_eq!(rig.frames[0].last().unwrap().header.flags & 2, 2, "the clean frame is the last one");
    assert_eq!(rig.flushed_to("c"), 0);
}
