//! Schedule 10: a device that does not answer; and how a directory that failed comes back.

use std::time::Duration;

use super::rig::{Rig, Setup, batch};
use crate::api::{Ack, Append};
use crate::commit::frames::{IDLE, Work};
use crate::commit::journal::Health;
use crate::commit::outcome::Committed;
use crate::commit::revival::REST;
use crate::commit::upkeep::Upkeep;
use crate::commit::watch::STALL;
use crate::error::Reason;
use crate::format::record::Kind;
use crate::types::Lsn;

const DONE: Committed = Committed { len: 8192, crc: 7, took: Duration::from_secs(30), reserved: false };

/// Two directories, a collection with an entry in flight in one of them; answers that one and the request.
fn one_in_flight() -> (Rig, usize, u64) {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    rig.pass(IDLE);
    let dir = rig.home("c");
    let token = rig.send("c", &[b"2"]);
    rig.frame(dir);
    (rig, dir, token)
}

#[test]
fn schedule_10_a_stalled_write_goes_elsewhere_once_another_directory_has_completed_a_sync() {
    let (mut rig, dir, token) = one_in_flight();
    for _ in 1..STALL {
        rig.log.watch(rig.now);
    }
    assert!(rig.log.journals[dir].is_healthy(), "not before its time");
    rig.log.watch(rig.now);
    assert!(rig.log.journals[dir].is_healthy(), "nothing is known of the other one");
    let asked = rig.frame(1 - dir);
    assert_eq!(asked.records[0].kind, Kind::Epoch, "so it is asked");
    rig.durable(1 - dir);
    rig.log.watch(rig.now);
    assert!(matches!(&rig.log.journals[dir].health, Health::Failed(why) if why.contains("no answer")));
    rig.settle_only(1 - dir);
    assert_eq!(rig.lsns(token), (2, 2));
    assert_eq!(rig.answer(token).unwrap().unwrap().directory, rig.log.journals[1 - dir].url);
}

#[test]
fn schedule_10_when_all_stall_nothing_moves_and_everything_is_answered_when_they_are_back() {
    let (mut rig, dir, token) = one_in_flight();
    rig.send("other", &[b"1"]);
    let other = rig.home("other");
    assert_eq!(other, 1 - dir);
    rig.frame(other);
    for _ in 0..10 * STALL {
        rig.log.watch(rig.now);
    }
    assert!(rig.log.journals.iter().all(|journal| journal.is_healthy()));
    rig.settle();
    assert_eq!((rig.lsns(token), rig.home("c")), ((2, 2), dir));
}

#[test]
fn schedule_10_a_process_that_was_stopped_blames_no_device() {
    let (mut rig, dir, token) = one_in_flight();
    rig.log.watch(rig.now);
    rig.now += Duration::from_secs(3600);
    rig.log.watch(rig.now);
    assert!(rig.log.journals[dir].is_healthy(), "two ticks ran");
    rig.settle();
    assert_eq!(rig.lsns(token), (2, 2));
}

#[test]
fn schedule_10_the_last_directory_is_not_given_up_for_a_stall() {
    let (mut rig, dir, token) = one_in_flight();
    rig.fail(1 - dir);
    for _ in 0..10 * STALL {
        rig.log.watch(rig.now);
    }
    assert!(rig.log.journals[dir].is_healthy());
    rig.settle();
    assert_eq!(rig.lsns(token), (2, 2));
}

#[test]
fn schedule_10_the_late_answer_of_an_abandoned_write_is_ignored_and_the_directory_comes_back_only_after_it() {
    let (mut rig, dir, token) = one_in_flight();
    let ended = rig.key(dir);
    rig.stall(dir);
    rig.settle_only(1 - dir);
    assert_eq!(rig.lsns(token), (2, 2));
    rig.now += 2 * REST;
    assert_eq!(rig.log.poll_upkeep(dir, rig.now), Upkeep::Wait(None), "its committer is not back");
    rig.log.committed(dir, ended, DONE, rig.now);
    assert_eq!(rig.log.find(&super::rig::name("c")).unwrap().durable_head, Lsn(2));
    assert_eq!(rig.log.poll_upkeep(dir, rig.now), Upkeep::Probe);
    rig.log.probed(dir, Ok(()), rig.now);
    rig.forget_under_way(dir);
    rig.settle();
    assert!(rig.log.journals[dir].takes_data());
    let next = rig.send("c", &[b"3"]);
    rig.settle();
    assert_eq!((rig.lsns(next), rig.home("c")), ((3, 3), 1 - dir), "it stays where it went");
}

#[test]
fn schedule_27_a_sync_that_never_returns_does_not_hold_the_end() {
    let mut rig = Rig::one();
    let token = rig.send("c", &[b"1"]);
    rig.frame(0);
    let buffered = rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"2"]) }).unwrap();
    assert_eq!(rig.lsns(buffered), (2, 2));
    rig.log.stop(rig.now);
    for _ in 0..STALL {
        rig.log.watch(rig.now);
    }
    assert_eq!(rig.reason(token), Reason::UnknownOutcome);
    assert!(rig.log.is_stalled(0), "nobody waits for its committer");
    rig.log.committed(0, rig.key(0), DONE, rig.now);
    assert_eq!(rig.poll(0), Work::End);
}

#[test]
fn a_failed_directory_is_probed_after_a_minute_and_again_after_each_that_fails() {
    let mut rig = Rig::two();
    rig.fail(0);
    assert_eq!(rig.log.poll_upkeep(0, rig.now), Upkeep::Wait(Some(rig.now + REST)));
    rig.now += REST;
    assert_eq!(rig.log.poll_upkeep(0, rig.now), Upkeep::Probe);
    rig.log.probed(0, Err("still broken".into()), rig.now);
    assert_eq!(rig.log.journals[0].health, Health::Failed("still broken".into()));
    assert_eq!(rig.log.poll_upkeep(0, rig.now), Upkeep::Wait(Some(rig.now + REST)));
    rig.now += REST;
    rig.log.probed(0, Ok(()), rig.now);
    assert!(!rig.log.journals[0].takes_data(), "not before its first frame is durable");
    rig.settle();
    assert!(rig.log.journals[0].takes_data());
}

#[test]
fn a_directory_that_comes_back_is_told_everything_it_missed() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.send("d", &[b"1"]);
    rig.settle();
    let dir = rig.home("c");
    rig.fail(dir);
    rig.send("missed", &[b"1"]);
    rig.send("c", &[b"2"]);
    rig.settle();
    let before = rig.frames[dir].len();
    rig.now += REST;
    rig.log.probed(dir, Ok(()), rig.now);
    rig.settle();
    let told: Vec<_> = rig.frames[dir][before..].iter().flat_map(|frame| &frame.records).collect();
    for collection in ["c", "d", "missed"] {
        assert!(told.iter().any(|record| record.kind == Kind::Collection && record.name == collection));
    }
}

#[test]
fn a_member_that_was_not_in_use_takes_entries_only_when_every_directory_says_that_it_is() {
    let mut rig = Rig::closed(Setup { directories: 3, in_use: false, ..Setup::default() });
    for dir in 0..3 {
        rig.frame(dir);
    }
    rig.fail(0);
    rig.settle();
    assert_eq!((rig.log.journals[0].in_use, rig.log.journals[1].in_use), (false, true));
    rig.now += REST;
    rig.log.probed(0, Ok(()), rig.now);
    rig.frame(0);
    rig.durable(0);
    for dir in 0..3 {
        assert!(!rig.log.journals[0].takes_data());
        let said = rig.frame(dir);
        assert!(said.records.iter().any(|record| record.kind == Kind::Epoch));
        rig.durable(dir);
    }
    assert!(rig.log.journals[0].takes_data());
}
