//! What a directory cannot write goes to another. Tests named after a schedule of the design say its number.

use std::time::Duration;

use super::rig::{Rig, Setup, batch, name, stamped};
use crate::api::{Ack, Append};
use crate::commit::frames::Work;
use crate::commit::journal::Health;
use crate::error::Reason;
use crate::format::record::Kind;
use crate::types::Lsn;

/// Ends the outage of a directory.
fn bring_back(rig: &mut Rig, dir: usize) {
    rig.log.restart_stream(dir, rig.now);
    rig.log.journals[dir].health = Health::Healthy;
    rig.settle();
}

#[test]
fn a_failed_write_moves_the_group_with_its_lsns_and_the_move_stands_before_it_in_the_same_frame() {
    let mut rig = Rig::two();
    let kept = rig.send("c", &[b"1"]);
    rig.settle();
    let dir = rig.home("c");
    let in_flight = rig.send("c", &[b"2", b"3"]);
    rig.frame(dir);
    let behind = rig.send("c", &[b"4"]);
    let buffered = rig.submit(Append { ack: Ack::Buffered, ..batch("c", &[b"5"]) }).unwrap();
    rig.fail(dir);
    assert!(rig.answer(in_flight).is_none(), "nobody is told anything yet");
    let frame = rig.frame(1 - dir);
    let told: Vec<_> = frame.records.iter().filter(|r| r.name == "c").map(|r| (r.kind, r.lsn)).collect();
    assert_eq!(told[0], (Kind::Collection, 1), "the head as durable as it is");
    assert_eq!(frame.data("c"), [2, 3, 4, 5], "in order");
    rig.durable(1 - dir);
    assert_eq!(
        (rig.lsns(kept), rig.lsns(in_flight), rig.lsns(behind), rig.lsns(buffered)),
        ((1, 1), (2, 3), (4, 4), (5, 5))
    );
    let answer = rig.answer(in_flight).unwrap().unwrap();
    assert_eq!(answer.directory, rig.log.journals[1 - dir].url);
    let collection = rig.log.find(&name("c")).unwrap();
    assert_eq!((collection.home, collection.move_number, collection.durable_head), (1 - dir, 2, Lsn(5)));
    let next = rig.send("c", &[b"6"]);
    rig.settle();
    assert_eq!(rig.lsns(next), (6, 6));
}

#[test]
fn a_collection_whose_creation_was_in_flight_is_created_where_it_goes() {
    let mut rig = Rig::two();
    let token = rig.send("c", &[b"1"]);
    let dir = rig.home("c");
    rig.frame(dir);
    rig.fail(dir);
    let frame = rig.frame(1 - dir);
    let first = frame.records.iter().find(|record| record.name == "c").unwrap();
    assert_eq!((first.kind, first.lsn), (Kind::Collection, 0));
    rig.settle();
    assert_eq!(rig.lsns(token), (1, 1));
}

#[test]
fn an_idle_collection_moves_with_its_next_append() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    let dir = rig.home("c");
    rig.fail(dir);
    let token = rig.send("c", &[b"2"]);
    let frame = rig.frame(1 - dir);
    let kinds: Vec<_> = frame.records.iter().filter(|record| record.name == "c").map(|record| record.kind).collect();
    assert!(kinds.ends_with(&[Kind::Collection, Kind::Data]), "{kinds:?}");
    rig.settle();
    assert_eq!((rig.lsns(token), rig.home("c")), ((2, 2), 1 - dir));
}

#[test]
fn schedule_13_without_affinity_whatever_failed_is_written_elsewhere_in_order() {
    for fails in 0..3 {
        let mut rig = Rig::new(Setup { directories: 3, affinity: false, ..Setup::default() });
        let tokens: Vec<_> = (0..6).map(|n| rig.send(&format!("c{}", n % 3), &[b"x"])).collect();
        for dir in 0..3 {
            let _ = rig.poll(dir);
        }
        rig.fail(fails);
        let more: Vec<_> = (0..3).map(|n| rig.send(&format!("c{n}"), &[b"y"])).collect();
        rig.settle();
        for (n, token) in tokens.into_iter().enumerate() {
            let lsn = n as u64 / 3 + 1;
            assert_eq!(rig.lsns(token), (lsn, lsn));
        }
        for token in more {
            assert_eq!(rig.lsns(token), (3, 3));
        }
        for collection in ["c0", "c1", "c2"] {
            let durable = rig.frames.iter().flatten().flat_map(|frame| frame.data(collection));
            let mut durable: Vec<_> = durable.collect();
            durable.sort_unstable();
            assert_eq!(durable, [1, 2, 3]);
        }
    }
}

#[test]
fn a_failing_journal_for_all_leaves_the_commits_to_the_homes_and_moves_nothing() {
    let mut rig = Rig::new(Setup { directories: 3, journal_url: true, ..Setup::default() });
    for collection in ["c", "d"] {
        rig.send(collection, &[b"1"]);
    }
    rig.settle();
    let homes = [rig.home("c"), rig.home("d")];
    let tokens = [rig.send("c", &[b"2"]), rig.send("d", &[b"2"])];
    rig.frame(2);
    rig.fail(2);
    rig.settle();
    for (n, collection) in ["c", "d"].into_iter().enumerate() {
        assert_eq!(rig.lsns(tokens[n]), (2, 2));
        assert_eq!(rig.home(collection), homes[n]);
        assert!(rig.frames[homes[n]].iter().any(|frame| frame.data(collection) == [2]));
        assert_eq!(rig.log.find(&name(collection)).unwrap().move_number, 1);
    }
    bring_back(&mut rig, 2);
    let token = rig.send("c", &[b"3"]);
    assert_eq!(rig.frame(2).data("c"), [3], "the journal takes the commits again");
    rig.settle();
    assert_eq!(rig.lsns(token), (3, 3));
}

#[test]
fn truncations_and_deletions_in_flight_are_said_elsewhere() {
    let mut rig = Rig::two();
    for collection in ["c", "e", "d", "f"] {
        rig.send(collection, &[b"1"]);
    }
    rig.settle();
    let dir = rig.home("c");
    assert_eq!(rig.home("d"), dir);
    let mut in_flight = (rig.truncate("c", 1), rig.delete("d"));
    let frame = rig.frame(dir);
    assert_eq!((frame.of(Kind::Truncate, "c"), frame.of(Kind::Delete, "d").len()), (vec![1], 1));
    let mut queued = rig.truncate("c", 1);
    rig.fail(dir);
    rig.settle();
    assert_eq!(in_flight.0.try_recv().unwrap().unwrap(), Lsn(1));
    assert!(in_flight.1.try_recv().unwrap().is_ok());
    assert_eq!(queued.try_recv().unwrap().unwrap(), Lsn(1));
    assert!(rig.records(1 - dir).any(|record| record.kind == Kind::Delete && record.name == "d"));
}

#[test]
fn duplicates_wait_for_the_original_wherever_it_goes() {
    let mut rig = Rig::two();
    let original = rig.submit(stamped(batch("c", &[b"1"]), 1)).unwrap();
    let dir = rig.home("c");
    rig.frame(dir);
    let retry = rig.submit(stamped(batch("c", &[b"1"]), 1)).unwrap();
    rig.fail(dir);
    let later = rig.submit(stamped(batch("c", &[b"1"]), 1)).unwrap();
    assert!([original, retry, later].iter().all(|token| rig.answer(*token).is_none()));
    rig.settle();
    assert_eq!((rig.lsns(original), rig.lsns(retry), rig.lsns(later)), ((1, 1), (1, 1), (1, 1)));
    assert!(rig.answer(retry).unwrap().unwrap().duplicate);
    let next = rig.submit(stamped(batch("c", &[b"2"]), 2)).unwrap();
    rig.settle();
    assert_eq!(rig.lsns(next), (2, 2));
}

#[test]
fn with_no_directory_waiters_are_told_at_once_and_the_entries_are_committed_when_one_is_back() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.send("d", &[b"1"]);
    rig.settle();
    let in_flight = rig.submit(stamped(batch("c", &[b"2"]), 7)).unwrap();
    rig.frame(0);
    let behind = rig.send("c", &[b"3"]);
    let retry = rig.submit(stamped(batch("c", &[b"2"]), 7)).unwrap();
    let mut above = rig.truncate("c", 3);
    let mut within = rig.truncate("c", 1);
    let mut deleted = rig.delete("d");
    rig.fail(0);
    for token in [in_flight, behind, retry] {
        assert_eq!(rig.reason(token), Reason::UnknownOutcome);
    }
    assert_eq!(above.try_recv().unwrap().unwrap_err().reason, Reason::NoHealthyDirectory);
    let unknown = Err(tokio::sync::oneshot::error::TryRecvError::Closed);
    assert_eq!(within.try_recv().map(|_| ()), unknown);
    assert_eq!(deleted.try_recv().map(|_| ()), unknown);
    assert_eq!(rig.submit(batch("new", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
    rig.settle();
    assert_eq!(rig.poll(0), Work::Wait(None));
    bring_back(&mut rig, 0);
    let data: Vec<_> = rig.frames[0].iter().flat_map(|frame| frame.data("c")).collect();
    assert_eq!(data, [1, 2, 3], "neither skipped nor given again");
    assert!(rig.records(0).any(|record| record.kind == Kind::Delete), "the deletion too");
}

#[test]
fn lsns_go_on_where_they_were_when_the_only_directory_is_back() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.settle();
    let unknown = rig.submit(stamped(batch("c", &[b"2"]), 1)).unwrap();
    rig.frame(0);
    rig.fail(0);
    assert_eq!(rig.reason(unknown), Reason::UnknownOutcome);
    for request in [batch("c", &[b"x"]), stamped(batch("c", &[b"3"]), 2)] {
        assert_eq!(rig.submit(request).unwrap_err().reason, Reason::NoHealthyDirectory);
    }
    let early = rig.submit(stamped(batch("c", &[b"2"]), 1)).unwrap();
    assert_eq!(rig.reason(early), Reason::UnknownOutcome, "it is not known yet");
    bring_back(&mut rig, 0);
    let again = rig.submit(stamped(batch("c", &[b"2"]), 1)).unwrap();
    let next = rig.submit(stamped(batch("c", &[b"3"]), 2)).unwrap();
    rig.settle();
    assert_eq!((rig.lsns(again), rig.lsns(next)), ((2, 2), (3, 3)));
    assert!(rig.answer(again).unwrap().unwrap().duplicate);
}

#[test]
fn a_checkpoint_covers_a_collection_whose_move_is_not_written_yet() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    drop(rig.truncate("c", 1));
    rig.settle();
    let dir = rig.home("c");
    rig.fail(dir);
    rig.send("c", &[b"3"]);
    rig.log.journals[1 - dir].since_checkpoint = 1 << 40;
    let before = rig.frames[1 - dir].len();
    rig.settle();
    rig.pass(Duration::from_secs(1));
    let checkpoint = rig.frames[1 - dir][before..].iter().find(|frame| frame.records[0].kind == Kind::Epoch).unwrap();
    assert_eq!((checkpoint.of(Kind::Collection, "c").len(), checkpoint.of(Kind::Truncate, "c")), (1, vec![1]));
}

#[test]
fn while_stopping_a_directory_stays_open_for_what_another_cannot_write() {
    let mut rig = Rig::two();
    let token = rig.send("c", &[b"1"]);
    let dir = rig.home("c");
    rig.frame(dir);
    rig.log.stop(rig.now);
    for _ in 0..3 {
        let _ = rig.step(1 - dir);
    }
    assert_eq!(rig.poll(1 - dir), Work::Wait(None), "not its end yet");
    let _: Vec<_> = rig.log.take_signals().collect();
    rig.fail(dir);
    rig.settle();
    assert_eq!(rig.lsns(token), (1, 1));
    assert_eq!((rig.poll(dir), rig.poll(1 - dir)), (Work::End, Work::End));
}
