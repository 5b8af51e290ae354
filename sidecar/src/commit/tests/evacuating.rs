//! What only one directory holds is committed again elsewhere. Tests named after a schedule of the design say its number.

use super::rig::{Rig, Setup, batch, name};
use crate::commit::frames::IDLE;
use crate::commit::journal::Closing;
use crate::commit::outcome::Failure;
use crate::commit::revival::REST;
use crate::error::Reason;
use crate::format::frame::FLAG_CHECKPOINT_END;
use crate::format::record::Kind;
use crate::types::Lsn;

/// LSNs of a collection that are durable in a directory, sorted, once each.
fn durable_in(rig: &Rig, dir: usize, collection: &str) -> Vec<u64> {
    let mut lsns: Vec<_> = rig.frames[dir].iter().flat_map(|frame| frame.data(collection)).collect();
    lsns.sort_unstable();
    lsns.dedup();
    lsns
}

/// Two directories and one entry; where it lies.
fn one_entry() -> (Rig, usize) {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    let dir = rig.home("c");
    (rig, dir)
}

/// A directory that failed and was emptied works again; nothing is written there yet.
fn emptied_and_back() -> (Rig, usize) {
    let (mut rig, dir) = one_entry();
    rig.fail(dir);
    rest(&mut rig);
    assert!(rig.log.journals[dir].is_evacuated());
    rig.now += REST;
    rig.log.probed(dir, Ok(()), rig.now);
    (rig, dir)
}

/// Lets the watchdog tick and everything come to rest, a few times.
fn rest(rig: &mut Rig) {
    for _ in 0..4 {
        rig.log.watch(rig.now);
        rig.settle();
        rig.pass(IDLE);
    }
}

#[test]
fn schedule_9_everything_that_lay_on_a_failed_disk_is_durable_elsewhere_before_it_may_be_removed() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    let dir = rig.home("c");
    for n in 2..=1000_u32 {
        rig.send("c", &[&n.to_le_bytes()]);
        if n % 50 == 0 {
            rig.settle();
        }
    }
    rig.settle();
    let mut gone = rig.truncate("c", 10);
    rig.settle();
    assert_eq!(gone.try_recv().unwrap().unwrap(), Lsn(10));
    assert!(durable_in(&rig, 1 - dir, "c").is_empty());
    rig.fail(dir);
    assert!(rig.log.journals[dir].evacuation_bytes_left() > 0);
    assert!(rig.log.journals[dir].in_use && !rig.log.journals[dir].is_evacuated());
    rest(&mut rig);
    assert_eq!(durable_in(&rig, 1 - dir, "c"), (11..=1000).collect::<Vec<_>>());
    assert_eq!(rig.log.journals[dir].evacuation_bytes_left(), 0);
    assert!(!rig.log.journals[dir].in_use && rig.log.journals[dir].is_evacuated());
    let frames = &rig.frames[1 - dir];
    let last_copy = frames.iter().rposition(|frame| !frame.data("c").is_empty()).unwrap();
    let told = frames.iter().rposition(|frame| frame.header.flags & FLAG_CHECKPOINT_END != 0).unwrap();
    let said = frames.iter().rposition(|frame| frame.records.iter().any(|record| record.kind == Kind::Epoch)).unwrap();
    assert!(last_copy < told && told < said, "entries, then facts, then the members: {last_copy} {told} {said}");
    assert!(frames[told].of(Kind::Collection, "c") == [1000] && frames[told].of(Kind::Truncate, "c") == [10]);
    assert_eq!((rig.home("c"), rig.log.find(&name("c")).unwrap().move_number), (1 - dir, 2));
    let next = rig.send("c", &[b"next"]);
    rig.settle();
    assert_eq!(rig.lsns(next), (1001, 1001));
}

#[test]
pub(crate) fn schedule_9_the_members_change_only_when_every_fact_is_durable_elsewhere() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    let dir = rig.home("c");
    let mut gone = rig.truncate("c", 1);
    rig.settle();
    assert!(gone.try_recv().unwrap().is_ok());
    rig.fail(dir);
    for _ in 0..100 {
        rig.log.watch(rig.now);
        if !rig.log.journals[dir].in_use {
            break;
        }
        if !rig.step(1 - dir) {
            rig.now += IDLE;
        }
    }
    assert!(!rig.log.journals[dir].in_use, "it is emptied in the end");
    let frames = &rig.frames[1 - dir];
    let copy = frames.iter().rposition(|frame| !frame.data("c").is_empty()).unwrap();
    let told = frames.iter().rposition(|frame| frame.header.flags & FLAG_CHECKPOINT_END != 0);
    assert!(told.is_some_and(|told| copy < told), "a crash now finds the truncation nowhere: {copy} {told:?}");
    assert_eq!(frames[told.unwrap()].of(Kind::Truncate, "c"), [1]);
}

#[test]
fn copies_take_turns_with_what_clients_append_and_carry_whole_batches() {
    let mut rig = Rig::two();
    let large = vec![7_u8; 200_000];
    for _ in 0..20 {
        rig.send("c", &[&large, &large, &large]);
        rig.settle();
    }
    let dir = rig.home("c");
    rig.fail(dir);
    let before = rig.frames[1 - dir].len();
    let mut tokens = Vec::new();
    while durable_in(&rig, 1 - dir, "c").len() < 60 {
        tokens.push(rig.send("d", &[b"x"]));
        rig.frame(1 - dir);
        rig.durable(1 - dir);
        rig.log.watch(rig.now);
    }
    let frames = &rig.frames[1 - dir][before..];
    for frame in frames.iter().filter(|frame| !frame.data("c").is_empty()) {
        assert_eq!(frame.data("c").len() % 3, 0, "a batch is in one frame");
    }
    let normal = frames.iter().filter(|frame| !frame.data("d").is_empty()).count();
    assert!(normal >= frames.len() / 2 - 1, "{normal} of {}", frames.len());
    rig.settle();
    for token in tokens {
        assert!(rig.answer(token).unwrap().is_ok());
    }
}

#[test]
fn schedule_9_copies_that_fail_too_go_to_yet_another_directory() {
    let mut rig = Rig::new(Setup { directories: 3, ..Setup::default() });
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    let dir = rig.home("c");
    rig.fail(dir);
    let second = rig.home("c");
    assert_ne!(second, dir);
    assert_eq!(rig.frame(second).data("c"), [1, 2]);
    rig.fail(second);
    rest(&mut rig);
    let third = 3 - dir - second;
    assert_eq!(durable_in(&rig, third, "c"), [1, 2]);
    assert!(rig.log.journals[dir].is_evacuated() && rig.log.journals[second].is_evacuated());
}

#[test]
fn a_directory_that_comes_back_before_it_is_emptied_keeps_what_it_holds() {
    let (mut rig, dir) = one_entry();
    rig.fail(dir);
    assert_eq!(rig.frame(1 - dir).data("c"), [1], "a copy is under way");
    rig.now += REST;
    rig.log.probed(dir, Ok(()), rig.now);
    rig.settle();
    rest(&mut rig);
    assert!(rig.log.journals[dir].in_use && rig.log.journals[dir].takes_data());
    assert_eq!(rig.log.journals[dir].evacuation_bytes_left(), 0);
}

#[test]
fn an_emptied_directory_that_comes_back_begins_anew() {
    let (mut rig, dir) = emptied_and_back();
    let first = rig.frame(dir).header;
    assert_eq!((first.epoch, first.oldest_session), (first.oldest, rig.key(dir).session), "what lay there may be gone");
    assert!(rig.log.journals[dir].closes.is_empty());
    rig.settle();
    rest(&mut rig);
    assert!(rig.log.journals[dir].takes_data());
    assert!(!rig.unlinked[dir].is_empty());
}

#[test]
fn an_emptied_directory_that_comes_back_when_the_process_stops_may_still_be_taken_away() {
    let (mut rig, dir) = emptied_and_back();
    rig.frame(dir);
    rig.log.stop(rig.now);
    rig.settle();
    assert!(!rig.log.journals[dir].in_use && rig.log.journals[dir].joins.is_none());
}

#[test]
pub(crate) fn schedule_24_an_emptied_directory_that_closes_with_the_process_is_not_said_to_be_in_use_again() {
    let (mut rig, dir) = one_entry();
    rig.log.journals[dir].draining = true;
    rest(&mut rig);
    assert!(rig.log.journals[dir].is_evacuated());
    rig.log.stop(rig.now);
    // Its last frame is durable, and the other one's is not.
    rig.log.journals[dir].closing = Closing::CleanWritten;
    rig.log.tend_evacuations(rig.now);
    assert!(rig.log.journals[dir].has_left(), "who closes later, and states the members, leaves it out");
}

#[test]
fn with_nowhere_to_go_nothing_is_emptied_until_there_is() {
    let (mut rig, dir) = one_entry();
    rig.fail(1 - dir);
    rig.fail(dir);
    rest(&mut rig);
    assert!(rig.log.journals[dir].in_use);
    rig.now += REST;
    rig.log.probed(1 - dir, Ok(()), rig.now);
    rig.settle();
    rest(&mut rig);
    assert_eq!(durable_in(&rig, 1 - dir, "c"), [1]);
    assert!(rig.log.journals[dir].is_evacuated());
}

#[test]
fn a_failed_directory_is_given_up_while_serving_only_when_it_is_emptied() {
    let (mut rig, dir) = one_entry();
    let id = rig.log.journals[dir].id;
    assert!(rig.log.forget(id, rig.now).unwrap_err().contains("present and well"));
    rig.fail(dir);
    assert!(rig.log.forget(id, rig.now).unwrap_err().contains("bytes"));
    rest(&mut rig);
    let version = rig.log.forget(id, rig.now).unwrap();
    rig.settle();
    assert!(rig.log.settled_version() >= version);
    assert_eq!(rig.log.forgotten, [id]);
    rig.now += 10 * REST;
    rig.settle();
    assert!(!rig.log.journals[dir].is_healthy(), "it does not come back");
}

#[test]
fn a_draining_directory_is_emptied_while_its_collections_take_entries() {
    let mut rig = Rig::two();
    for n in 0..6 {
        rig.send(&format!("c{n}"), &[b"1", b"2"]);
    }
    rig.settle();
    let dir = rig.home("c0");
    let in_flight = rig.send("c0", &[b"3"]);
    rig.frame(dir);
    rig.log.journals[dir].draining = true;
    let behind = rig.send("c0", &[b"4"]);
    rig.log.watch(rig.now);
    rig.settle();
    assert_eq!((rig.lsns(in_flight), rig.lsns(behind)), ((3, 3), (4, 4)));
    rest(&mut rig);
    for n in 0..6 {
        let collection = format!("c{n}");
        assert_eq!(rig.home(&collection), 1 - dir);
        let wanted: Vec<u64> = (1..=if n == 0 { 4 } else { 2 }).collect();
        assert_eq!(durable_in(&rig, 1 - dir, &collection), wanted);
    }
    let journal = &rig.log.journals[dir];
    assert!(journal.is_evacuated() && !journal.in_use && journal.is_healthy());
    assert!(rig.submit(batch("new", &[b"x"])).is_ok());
    rig.settle();
    assert_eq!(rig.home("new"), 1 - dir);
    // It is wanted again after all.
    rig.log.journals[dir].draining = false;
    rest(&mut rig);
    assert!(rig.log.journals[dir].takes_data());
}

#[test]
pub(crate) fn schedule_24_what_has_no_room_elsewhere_waits_in_a_draining_directory_and_is_not_copied_back_into_it() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    let dir = rig.home("c");
    let room = std::mem::replace(&mut rig.log.journals[1 - dir].journal_max, 0);
    rig.log.journals[dir].draining = true;
    rest(&mut rig);
    assert!(rig.log.journals[dir].in_use && rig.log.journals[dir].evacuation_bytes_left() > 0);
    let written: Vec<u64> = rig.frames[dir].iter().flat_map(|frame| frame.data("c")).collect();
    assert_eq!((rig.home("c"), written), (dir, vec![1, 2]));
    rig.log.journals[1 - dir].journal_max = room;
    rest(&mut rig);
    assert_eq!((rig.home("c"), durable_in(&rig, 1 - dir, "c")), (1 - dir, vec![1, 2]));
    assert!(rig.log.journals[dir].is_evacuated());
}

#[test]
fn a_collection_without_entries_moves_off_a_draining_directory_when_another_has_room() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    rig.truncate("c", 1);
    rig.settle();
    let dir = rig.home("c");
    let room = std::mem::replace(&mut rig.log.journals[1 - dir].journal_max, 0);
    rig.log.journals[dir].draining = true;
    rest(&mut rig);
    assert!(rig.log.journals[dir].in_use && rig.home("c") == dir);
    let told = |rig: &Rig| rig.records(1 - dir).filter(|rec| rec.kind == Kind::Collection && rec.name == "c").count();
    let before = told(&rig);
    rig.log.journals[1 - dir].journal_max = room;
    rest(&mut rig);
    assert!(rig.home("c") == 1 - dir && rig.log.journals[dir].is_evacuated());
    assert!(told(&rig) > before, "the other one knows where it lives now");
}

/// Copies of two entries are on their way from one directory into a second, where a third entry is durable, and which is to be
/// emptied as well; both, and where everything goes in the end.
fn copies_on_their_way() -> (Rig, [usize; 3]) {
    let mut rig = Rig::new(Setup { directories: 3, ..Setup::default() });
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    let first = rig.home("c");
    rig.log.journals[first].draining = true;
    rig.log.watch(rig.now);
    let second = rig.home("c");
    let (behind, third) = (rig.send("c", &[b"3"]), 3 - first - second);
    while rig.frame(second).data("c") != [1, 2] {
        rig.durable(second);
    }
    assert_eq!(rig.lsns(behind), (3, 3));
    rig.log.journals[second].draining = true;
    (rig, [first, second, third])
}

/// Both are emptied, and nothing is left behind.
fn all_is_in(mut rig: Rig, [first, second, third]: [usize; 3]) {
    rest(&mut rig);
    assert_eq!(durable_in(&rig, third, "c"), [1, 2, 3]);
    assert!(rig.log.journals[first].is_evacuated() && rig.log.journals[second].is_evacuated());
}

#[test]
pub(crate) fn schedule_24_copies_on_their_way_into_a_directory_that_is_drained_meanwhile_go_on_from_there() {
    let (mut rig, directories) = copies_on_their_way();
    let [_, second, third] = directories;
    for _ in 0..4 {
        rig.log.watch(rig.now);
        rig.settle_only(third);
        rig.now += IDLE;
    }
    assert_eq!((rig.home("c"), durable_in(&rig, third, "c")), (third, vec![3]));
    rig.durable(second);
    all_is_in(rig, directories);
}

#[test]
pub(crate) fn schedule_24_copies_that_come_while_what_is_newer_is_copied_go_on_from_there() {
    let (mut rig, directories) = copies_on_their_way();
    let [_, second, third] = directories;
    for _ in 0..4 {
        rig.log.watch(rig.now);
        rig.now += IDLE;
    }
    while rig.frame(third).data("c") != [3] {
        rig.durable(third);
    }
    rig.durable(second);
    rig.durable(third);
    all_is_in(rig, directories);
}

#[test]
pub(crate) fn schedule_24_a_fact_that_a_draining_directory_takes_at_last_is_durable_elsewhere_before_it_leaves() {
    let mut rig = Rig::new(Setup { directories: 3, ..Setup::default() });
    let names = ["c0", "c1", "c2"];
    for name in names {
        rig.send(name, &[b"1", b"2"]);
    }
    rig.settle();
    let name = names.into_iter().find(|name| rig.home(name) == 1).unwrap();
    let leaving = names.into_iter().find(|name| rig.home(name) == 0).unwrap();
    rig.truncate(leaving, 2);
    rig.settle();
    rig.log.journals[0].draining = true;
    rig.log.watch(rig.now);
    // The checkpoint by which the third one is told everything is under way,
    while rig.frame(2).header.flags & FLAG_CHECKPOINT_END == 0 {
        rig.durable(2);
    }
    // when the second one has no space for a truncation, which the first one takes.
    let mut truncated = rig.truncate(name, 1);
    while rig.frame(1).of(Kind::Truncate, name).is_empty() {
        rig.durable(1);
    }
    rig.forget_under_way(1);
    rig.log.failed(1, rig.key(1), Failure::Full("test".into()), rig.now);
    assert_eq!(rig.frame(0).of(Kind::Truncate, name), [1]);
    rig.durable(0);
    assert!(truncated.try_recv().unwrap().is_ok());
    rig.durable(2);
    for _ in 0..100 {
        rig.log.watch(rig.now);
        let said = rig.frames[2].iter().any(|frame| !frame.of(Kind::Truncate, name).is_empty());
        assert!(said || rig.log.journals[0].in_use, "the truncation is nowhere else");
        rig.settle_only(2);
        rig.settle_only(0);
        rig.now += IDLE;
    }
    assert!(!rig.log.journals[0].in_use, "it is emptied in the end");
}

#[test]
pub(crate) fn schedule_24_who_has_left_is_no_witness_that_another_directory_is_empty() {
    let mut rig = Rig::new(Setup { directories: 3, ..Setup::default() });
    rig.send("c", &[b"1"]);
    rig.settle();
    rig.log.journals[0].draining = true;
    rest(&mut rig);
    assert!(rig.log.journals[0].is_evacuated());
    let dir = rig.home("c");
    let other = 3 - dir;
    rig.fail(dir);
    for _ in 0..100 {
        rig.log.watch(rig.now);
        if !rig.log.journals[dir].in_use {
            break;
        }
        if !rig.step(other) {
            rig.now += IDLE;
        }
    }
    assert!(!rig.log.journals[dir].in_use && !rig.log.journals[dir].is_evacuated());
    rig.fail(other);
    rest(&mut rig);
    assert!(rig.log.journals[0].takes_facts() && !rig.log.journals[dir].is_evacuated(), "who would know?");
}

#[test]
fn the_last_directory_is_not_drained() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.settle();
    rig.log.journals[0].draining = true;
    rest(&mut rig);
    assert!(rig.log.journals[0].in_use);
    let token = rig.send("c", &[b"2"]);
    rig.settle();
    assert_eq!(rig.lsns(token), (2, 2));
    assert_eq!(rig.submit(batch("new", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
}

#[test]
fn a_collection_whose_deletion_is_not_durable_yet_is_copied_like_any_other() {
    let (mut rig, dir) = one_entry();
    let mut deleted = rig.delete("c");
    rig.fail(dir);
    assert!(deleted.try_recv().is_err() && rig.log.journals[dir].evacuation_bytes_left() > 0);
    rest(&mut rig);
    assert!(deleted.try_recv().unwrap().is_ok());
    assert!(rig.log.journals[dir].is_evacuated());
    assert!(rig.log.collections.iter().flatten().next().is_none());
}
