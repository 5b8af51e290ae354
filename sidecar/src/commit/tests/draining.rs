//! Draining by a call: every directory that is no bucket is emptied while the log serves.

use super::flush::{append, flushing, small};
use super::rig::{Rig, Setup, name};
use crate::commit::collection::Gap;
use crate::commit::flush_plan::DUE_WAIT;
use crate::commit::frames::IDLE;
use crate::commit::journal::Health;
use crate::commit::outcome::Failure;
use crate::commit::rewrite::AGAIN;
use crate::error::Reason;
use crate::format::facts::GapCause;
use crate::types::Lsn;

/// Lets the watchdog tick and everything come to rest, a few times.
fn rest(rig: &mut Rig) {
    for _ in 0..6 {
        rig.log.watch(rig.now);
        rig.pass(DUE_WAIT);
        rig.pass(IDLE);
    }
}

/// A disk and a bucket, and what is in both: a segment and entries behind it of each collection.
fn disk_and_bucket() -> (Rig, usize) {
    let mut rig = flushing(Setup { directories: 2, ..small() });
    for name in ["a", "b"] {
        append(&mut rig, name, 10);
        rig.pass(DUE_WAIT);
        rig.send(name, &[b"behind"]);
        rig.settle();
    }
    let disk = rig.home("a");
    rig.log.journals[1 - disk].of_objects = true;
    assert_eq!((rig.home("b"), rig.log.segments_in(disk)), (1 - disk, 1));
    (rig, disk)
}

#[test]
fn without_a_bucket_nothing_is_drained() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    let refused = rig.log.drain(rig.now).unwrap_err();
    assert!(refused.reason == Reason::InvalidRequest && refused.message.contains("no bucket"), "{refused}");
    assert!(!rig.log.drains());
    let dir = rig.home("c");
    rig.log.journals[dir].of_objects = true;
    rig.log.journals[dir].draining = true;
    assert!(rig.log.drain(rig.now).is_err(), "that is to be emptied itself");
}

#[test]
fn schedule_24_segments_and_entries_go_to_the_bucket_and_then_nothing_needs_the_disk() {
    let (mut rig, disk) = disk_and_bucket();
    let first = rig.log.drain(rig.now).unwrap();
    assert!(first > 0 && rig.log.drains());
    let (mut left, mut rounds) = (first, 0);
    while left > 0 {
        rest(&mut rig);
        rig.check();
        let journal = &rig.log.journals[disk];
        let gone = journal.is_evacuated() && !journal.in_use && rig.log.segments_in(disk) == 0;
        left = rig.log.drain(rig.now).unwrap();
        assert_eq!(left == 0, gone, "{left} bytes are left");
        rounds += 1;
        assert!(rounds < 10, "it does not end: {left} of {first}");
    }
    assert!(rig.segments[disk].files.is_empty() && !rig.log.journals[1 - disk].draining);
    let token = rig.send("new", &[b"x"]);
    rig.settle();
    assert_eq!((rig.lsns(token), rig.home("new"), rig.home("a")), ((1, 1), 1 - disk, 1 - disk));
}

#[test]
pub(crate) fn schedule_24_what_a_call_drains_stays_empty_whatever_the_configuration_says() {
    let (mut rig, disk) = disk_and_bucket();
    rig.log.drain(rig.now).unwrap();
    let settings = rig.log.settings.clone();
    rig.log.reconfigure(settings, |journal| (false, journal.journal_max), rig.now);
    rest(&mut rig);
    assert_eq!(rig.log.drain(rig.now), Ok(0));
    assert!(!rig.log.journals[disk].in_use);
}

#[test]
fn an_edit_that_empties_a_directory_wakes_an_idle_log() {
    let (mut rig, disk) = disk_and_bucket();
    rest(&mut rig);
    let id = rig.log.journals[disk].id;
    for journal in &mut rig.log.journals {
        (journal.signalled, journal.flusher.signalled) = (false, false);
    }
    let settings = rig.log.settings.clone();
    rig.log.reconfigure(settings, |journal| (journal.id == id, journal.journal_max), rig.now);
    assert!(rig.log.journals.iter().all(|journal| journal.signalled && journal.flusher.signalled));
}

#[test]
pub(crate) fn schedule_24_a_disk_without_space_for_facts_is_drained_from_memory() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    let disk = rig.home("c");
    rig.log.journals[1 - disk].of_objects = true;
    rig.send("c", &[b"3"]);
    rig.frame(disk);
    rig.log.failed(disk, rig.key(disk), Failure::Full("no space left".into()), rig.now);
    rig.forget_frame(disk);
    assert!(matches!(rig.log.journals[disk].health, Health::Full(_)) && rig.log.journals[disk].in_use);
    assert!(rig.log.drain(rig.now).unwrap() > 0);
    rest(&mut rig);
    assert_eq!(rig.log.drain(rig.now), Ok(0));
    let mut there: Vec<u64> = rig.frames[1 - disk].iter().flat_map(|frame| frame.data("c")).collect();
    there.sort_unstable();
    assert_eq!((there, rig.log.find(&name("c")).unwrap().durable_head.0), (vec![1, 2, 3], 3));
}

#[test]
pub(crate) fn schedule_24_a_segment_that_cannot_be_read_keeps_no_other_where_it_is() {
    let mut rig = flushing(Setup { directories: 2, ..small() });
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    for name in &names {
        append(&mut rig, name, 10);
    }
    rig.pass(DUE_WAIT);
    let disk = rig.home("c0");
    rig.log.journals[1 - disk].of_objects = true;
    let files: Vec<_> = rig.segments[disk].files.keys().copied().collect();
    assert!(files.len() > 2, "{files:?}");
    rig.unreadable.insert(files[0]);
    rig.log.drain(rig.now).unwrap();
    rest(&mut rig);
    rig.check();
    assert_eq!(rig.segments[disk].files.keys().copied().collect::<Vec<_>>(), files[..1], "only that is left");
    assert_eq!((rig.log.segments_in(disk), rig.log.unreadable_in(disk)), (1, Some("test")));
    assert!(rig.log.journals[disk].in_use && rig.log.drain(rig.now).unwrap() > 0, "it is needed");
    rig.unreadable.clear();
    rig.pass(AGAIN);
    rest(&mut rig);
    assert_eq!(rig.log.drain(rig.now), Ok(0));
    assert!(rig.segments[disk].files.is_empty() && rig.log.unreadable_in(disk).is_none());
}

#[test]
pub(crate) fn schedule_24_what_a_segment_has_in_gaps_does_not_keep_it_where_it_is() {
    for lost in [(1, 2), (9, 10), (4, 6), (1, 10)] {
        let (mut rig, disk) = disk_and_bucket();
        let ix = rig.log.by_name.get(&name("a")).unwrap();
        let gap = Gap { first: Lsn(lost.0), last: Lsn(lost.1), cause: GapCause::Damage };
        rig.log.get_mut(ix).gaps.push(gap);
        rig.log.drain(rig.now).unwrap();
        let before = rig.flushed;
        for _ in 0..3 {
            rest(&mut rig);
        }
        assert_eq!(rig.log.drain(rig.now), Ok(0), "{lost:?}");
        assert!(rig.segments[disk].files.is_empty(), "{lost:?}");
        assert_eq!(rig.flushed - before, u64::from(lost != (1, 10)), "{lost:?}: once is enough");
        let there: Vec<u64> =
            rig.segments[1 - disk].files.values().flat_map(|file| file.entries.keys()).map(|(_, lsn)| lsn.0).collect();
        let kept = (1..=10).filter(|lsn| !(lost.0..=lost.1).contains(lsn));
        assert!(kept.clone().all(|lsn| there.contains(&lsn)), "{lost:?}: {there:?}");
    }
}
