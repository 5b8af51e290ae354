//! Invariant 1: refused before an LSN, or answered; never both, never neither.

use std::time::Duration;

use super::rig::{Rig, Setup, batch, name, stamped};
use crate::api::{Ack, Append};
use crate::commit::frames::Work;
use crate::error::Reason;
use crate::types::Lsn;

#[test]
fn invariant_1_an_append_is_refused_before_it_has_an_lsn_or_answered() {
    let mut rig = Rig::two();
    let refused = rig.submit(batch("c", &[])).unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidRequest);
    let one = rig.send("c", &[b"1"]);
    let out_of_sequence = rig.submit(stamped(batch("c", &[b"x"]), 4)).is_ok();
    assert!(out_of_sequence, "any first one");
    let refused = rig.submit(stamped(batch("c", &[b"x"]), 6)).unwrap_err();
    assert_eq!(refused.reason, Reason::OutOfSequence);
    assert_eq!(rig.log.find(&name("c")).unwrap().assigned_head, Lsn(2), "what was refused took no LSN");
    rig.settle();
    assert_eq!(rig.lsns(one), (1, 1));
    assert_eq!(rig.lsns(2), (2, 2));
    assert!(rig.answer(3).is_none());
}

/// Appends in flight, queued behind one in flight, queued elsewhere, duplicates of each, truncates above the head.
fn everybody_waits(
    rig: &mut Rig,
) -> (Vec<u64>, Vec<tokio::sync::oneshot::Receiver<Result<Lsn, crate::error::ApiError>>>) {
    let mut tokens = vec![rig.submit(stamped(batch("c", &[b"1"]), 1)).unwrap()];
    let dir = rig.home("c");
    rig.frame(dir);
    tokens.push(rig.submit(stamped(batch("c", &[b"2"]), 2)).unwrap());
    tokens.push(rig.submit(stamped(batch("c", &[b"2"]), 2)).unwrap());
    tokens.push(rig.submit(stamped(batch("c", &[b"1"]), 1)).unwrap());
    tokens.push(rig.send("d", &[b"1"]));
    tokens.push(rig.send("e", &[b"1"]));
    let truncates = vec![rig.truncate("c", 1), rig.truncate("c", 2)];
    (tokens, truncates)
}

#[test]
fn invariant_1_a_fence_answers_everybody() {
    let mut rig = Rig::two();
    let (tokens, truncates) = everybody_waits(&mut rig);
    rig.log.fence("test".into());
    for token in tokens {
        assert_eq!(rig.reason(token), Reason::UnknownOutcome, "{token}");
    }
    for mut truncate in truncates {
        assert!(!matches!(truncate.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty)));
    }
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::Fenced);
    assert_eq!(rig.poll(0), Work::End);
}

#[test]
fn invariant_1_a_failed_directory_answers_everybody_it_held() {
    let mut rig = Rig::two();
    let (tokens, truncates) = everybody_waits(&mut rig);
    rig.fail(rig.home("c"));
    rig.settle();
    let lsns: Vec<_> = tokens.into_iter().map(|token| rig.lsns(token).0).collect();
    assert_eq!(lsns, [1, 2, 2, 0, 1, 1], "of an older request only that it is there is known");
    for mut truncate in truncates {
        assert!(truncate.try_recv().unwrap().is_ok());
    }
}

#[test]
fn invariant_1_when_the_last_directory_fails_everybody_is_answered() {
    let mut rig = Rig::one();
    let (tokens, truncates) = everybody_waits(&mut rig);
    rig.fail(0);
    rig.settle();
    for token in tokens {
        assert_eq!(rig.reason(token), Reason::UnknownOutcome, "{token}");
    }
    for mut truncate in truncates {
        assert_eq!(truncate.try_recv().unwrap().unwrap_err().reason, Reason::NoHealthyDirectory);
    }
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
}

#[test]
fn invariant_1_without_affinity_a_group_never_waits_for_a_directory_that_failed() {
    // The other directory has room for the batch, but not for a full group.
    let setup = Setup { directories: 2, affinity: false, journal_max: 2_000_000, ..Setup::default() };
    let mut rig = Rig::new(setup);
    rig.send("c", &[b"1"]);
    rig.settle();
    for n in 0..8 {
        rig.send(&format!("fill{n}"), &[&[0; 60_000], &[0; 60_000]]);
        rig.settle();
    }
    let home = rig.home("c");
    rig.log.failed(home, rig.key(home), super::rig::failed(), rig.now);
    let other = 1 - home;
    assert!(rig.log.journals[other].has_room(100) && !rig.log.journals[other].has_room(1 << 20));
    match rig.submit(batch("c", &[b"2"])) {
        Ok(token) => {
            rig.settle();
            assert_eq!(rig.lsns(token), (2, 2));
        }
        Err(refused) => assert_eq!(refused.reason, Reason::JournalFull),
    }
}

#[test]
fn invariant_1_without_affinity_a_group_leaves_a_directory_that_fails_while_it_waits_for_its_turn() {
    let mut rig = Rig::new(Setup { directories: 2, affinity: false, ..Setup::default() });
    let first = rig.send("c", &[b"1"]);
    let dir = rig.home("c");
    rig.frame(dir);
    let second = rig.send("c", &[b"2"]);
    rig.log.failed(1 - dir, rig.key(1 - dir), super::rig::failed(), rig.now);
    rig.settle();
    assert_eq!((rig.lsns(first), rig.lsns(second)), ((1, 1), (2, 2)));
}

#[test]
fn a_journal_shared_by_all_keeps_its_bound_without_affinity_too() {
    let setup = Setup { directories: 2, journal_url: true, affinity: false, journal_max: 1 << 20, ..Setup::default() };
    let mut rig = Rig::new(setup);
    let mut refused = None;
    for _ in 0..40 {
        match rig.submit(batch("c", &[&[0; 60_000]])) {
            Ok(_) => rig.settle(),
            Err(error) => {
                refused = Some(error.reason);
                break;
            }
        }
    }
    assert_eq!(refused, Some(Reason::JournalFull));
    assert!(rig.log.journals[1].journal_bytes() <= 1 << 20);
}

#[test]
fn buffered_entries_become_durable_by_themselves() {
    let mut rig = Rig::one();
    let token = rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"1"]) }).unwrap();
    assert_eq!(rig.lsns(token), (1, 1));
    rig.settle();
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(0));
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(1));
}

#[test]
fn buffered_entries_behind_a_group_in_flight_become_durable_too() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.frame(0);
    rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"2"]) }).unwrap();
    rig.durable(0);
    rig.settle();
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(2));
}

#[test]
fn a_truncate_above_the_durable_head_waits_for_buffered_entries() {
    let mut rig = Rig::one();
    rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"1", b"2"]) }).unwrap();
    let mut truncate = rig.truncate("c", 2);
    rig.settle();
    assert!(truncate.try_recv().is_err());
    rig.pass(Duration::from_millis(100));
    assert_eq!(truncate.try_recv().unwrap().unwrap(), Lsn(2));
    assert_eq!(rig.log.memory(), 0, "nothing is left in memory");
}

#[test]
fn whoever_waits_for_room_in_a_directory_that_fails_is_told_so_at_once() {
    let mut rig = Rig::new(Setup { journal_max: 1 << 20, ..Setup::default() });
    while rig.submit(batch("c", &[&[0; 60_000]])).is_ok() {
        rig.settle();
    }
    rig.log.take_freed();
    rig.log.failed(0, rig.key(0), super::rig::failed(), rig.now);
    assert!(rig.log.take_freed(), "waiters look again");
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
}
