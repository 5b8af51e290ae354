//! Collections whose own path cannot be written: they go to shared segments until it can be.

use super::flush::{append, flushing, small};
use super::rig::{Rig, Setup, name};
use crate::commit::flush::DETOUR;
use crate::commit::flush_jobs::FlushWork;
use crate::commit::flush_plan::DUE_WAIT;
use crate::commit::flushed::FlushFailure;
use crate::error::Reason;

impl Rig {
    /// Of each segment of a collection: whether it is shared, the first LSN and the last.
    pub(super) fn segments_of(&self, collection: &str) -> Vec<(bool, u64, u64)> {
        let segments = &self.log.find(&name(collection)).unwrap().segments;
        segments.iter().map(|segment| (segment.shared, segment.first.0, segment.last.0)).collect()
    }
}

#[test]
pub(crate) fn a_collection_whose_own_path_cannot_be_written_goes_to_shared_segments_until_it_can_be() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    assert_eq!(rig.segments_of("c"), [(false, 1, 10)]);
    rig.own_blocked = true;
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    assert_eq!(rig.segments_of("c"), [(false, 1, 10), (true, 11, 20)], "at once");
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    rig.own_blocked = false;
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    let before = [(false, 1, 10), (true, 11, 20), (true, 21, 30), (true, 31, 40)];
    assert_eq!(rig.segments_of("c"), before, "not tried each time");
    rig.check();
    rig.pass(DETOUR);
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    assert_eq!(rig.segments_of("c").last(), Some(&(false, 41, 50)), "on its own path again");
    assert_eq!(rig.flushed_to("c"), 50);
    rig.check();
}

#[test]
fn one_path_that_cannot_be_written_keeps_no_other_collection_from_its_own() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 10);
    rig.own_blocked = true;
    rig.pass(DUE_WAIT);
    rig.own_blocked = false;
    append(&mut rig, "d", 10);
    rig.pass(DUE_WAIT);
    assert_eq!((rig.segments_of("c"), rig.segments_of("d")), (vec![(true, 1, 10)], vec![(false, 1, 10)]));
}

#[test]
fn a_segment_that_cannot_be_sealed_does_not_hold_up_what_follows() {
    let mut rig = flushing(small());
    for _ in 0..7 {
        append(&mut rig, "c", 8);
        rig.own_blocked = rig.log.find(&name("c")).unwrap().segments.iter().any(|segment| segment.length > 400_000);
        rig.pass(DUE_WAIT);
    }
    assert_eq!(rig.flushed_to("c"), 56);
    rig.check();
    rig.own_blocked = false;
    rig.pass(DETOUR);
    append(&mut rig, "c", 8);
    rig.pass(DUE_WAIT);
    let segments = &rig.log.find(&name("c")).unwrap().segments;
    assert!(segments[0].sealed && !segments.last().unwrap().shared, "{segments:?}");
    rig.check();
}

#[test]
fn under_pressure_collections_without_a_path_share_segments_whatever_their_size() {
    let mut rig = Rig::new(Setup { memory_limit: 16 << 20, memory_flush_size: 1 << 30, ..small() });
    rig.own_blocked = true;
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    for name in &names {
        append(&mut rig, name, 1);
        let mut answer = rig.ask_flush(name);
        while rig.flush(0) | rig.commit(0) {}
        answer.try_recv().unwrap().unwrap();
    }
    let before = rig.flushed;
    for name in &names {
        append(&mut rig, name, 65);
    }
    while rig.flush(0) | rig.commit(0) {}
    assert!(rig.log.memory() <= (16 << 20) / 4 * 3, "{}", rig.log.memory());
    assert_eq!(rig.flushed, before + 1);
    rig.check();
}

#[test]
fn collections_without_a_path_that_are_due_together_share_a_segment() {
    let mut rig = flushing(small());
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    rig.own_blocked = true;
    for name in &names {
        append(&mut rig, name, 10);
    }
    rig.pass(DUE_WAIT);
    assert!(names.iter().all(|name| rig.segments_of(name) == [(true, 1, 10)]), "each found out by itself");
    let before = rig.flushed;
    for name in &names {
        append(&mut rig, name, 10);
    }
    append(&mut rig, "fine", 10);
    rig.own_blocked = false;
    rig.pass(DUE_WAIT);
    assert!(names.iter().all(|name| rig.flushed_to(name) == 20));
    assert_eq!((rig.flushed, rig.segments_of("fine")), (before + 2, vec![(false, 1, 10)]));
    rig.check();
}

#[test]
fn where_nothing_can_be_written_the_next_directory_takes_it() {
    let mut rig = flushing(Setup { directories: 2, ..small() });
    append(&mut rig, "c", 10);
    let home = rig.home("c");
    (rig.own_blocked, rig.shared_blocked) = (true, true);
    rig.now += DUE_WAIT;
    assert!(rig.flush(home) && rig.flush(home), "its own path, then a shared segment");
    assert!(!rig.flush(home), "not there for a while");
    (rig.own_blocked, rig.shared_blocked) = (false, false);
    rig.pass(DUE_WAIT);
    let there: Vec<usize> = rig.log.find(&name("c")).unwrap().segments.iter().map(|segment| segment.dir).collect();
    assert_eq!((rig.flushed_to("c"), there), (10, vec![1 - home]));
}

#[test]
fn what_a_bucket_without_an_answer_was_to_flush_is_flushed_elsewhere() {
    let mut rig = Rig::new(Setup { directories: 2, ..small() });
    append(&mut rig, "c", 10);
    let home = rig.home("c");
    rig.log.journals[home].of_objects = true;
    rig.now += DUE_WAIT;
    // Nobody hears of it again.
    let FlushWork::Flush(lost) = rig.log.poll_flush(home, rig.now) else { panic!("nothing is due") };
    rig.fail(home);
    rig.settle();
    rig.now += DUE_WAIT;
    while rig.flush(1 - home) | rig.commit(1 - home) {}
    let there: Vec<usize> = rig.log.find(&name("c")).unwrap().segments.iter().map(|segment| segment.dir).collect();
    assert_eq!((rig.flushed_to("c"), there), (10, vec![1 - home]));
    rig.log.flush_failed(home, lost.number, FlushFailure::Device("late".into()), rig.now);
    assert!(rig.log.find(&name("c")).unwrap().flush.detour.is_none(), "a late word of it is void");
}

#[test]
fn an_asked_flush_is_answered_from_a_shared_segment_or_refused() {
    let mut rig = Rig::new(small());
    rig.send("c", &[b"1"]);
    rig.settle();
    rig.own_blocked = true;
    let mut answer = rig.ask_flush("c");
    while rig.flush(0) | rig.commit(0) {}
    assert_eq!(answer.try_recv().unwrap().unwrap().0, 1);
    rig.shared_blocked = true;
    rig.send("c", &[b"2"]);
    rig.settle();
    let mut answer = rig.ask_flush("c");
    while rig.flush(0) | rig.commit(0) {}
    assert_eq!(answer.try_recv().unwrap().unwrap_err().reason, Reason::NoHealthyDirectory);
}
