//! Invariant 5: a file goes only after a frame that says so is durable, and only when a complete durable checkpoint lies
//! behind it.

use std::collections::HashMap;

use super::rig::{Rig, Setup, batch, name};
use crate::commit::frames::{IDLE, Work};
use crate::commit::journal::OldStream;
use crate::commit::upkeep::{Listing, Upkeep};
use crate::error::Reason;
use crate::format::StreamKey;
use crate::format::frame::{FLAG_CHECKPOINT_END, FLAG_CHECKPOINT_PART};
use crate::format::record::Kind;
use crate::types::{Epoch, Incarnation, Lsn};

/// Small journals: slots of 256 KiB.
fn small(directories: usize) -> Rig {
    Rig::new(Setup { directories, journal_max: 1 << 20, ..Setup::default() })
}

/// Appends until the journal refuses.
fn fill(rig: &mut Rig, collection: &str) -> u64 {
    loop {
        match rig.submit(batch(collection, &[&[0; 30_000]])) {
            Ok(_) => rig.settle(),
            Err(error) => {
                assert_eq!(error.reason, Reason::JournalFull);
                return rig.log.find(&name(collection)).unwrap().durable_head.0;
            }
        }
    }
}

#[test]
fn invariant_5_a_file_goes_after_checkpoint_and_floor_are_durable() {
    let mut rig = small(1);
    let head = fill(&mut rig, "c");
    assert!(rig.unlinked[0].is_empty());
    let _truncated = rig.truncate("c", head);
    let mut checkpointed = false;
    let mut floor = false;
    loop {
        let _ = rig.submit(batch("c", &[&[0; 30_000]]));
        match rig.poll(0) {
            Work::Frame(job) => {
                assert!(job.header.floor == 0 || checkpointed, "the floor is stated by nothing before the checkpoint");
                let ends = job.header.flags & FLAG_CHECKPOINT_END != 0;
                let floored = job.header.floor > 0;
                rig.durable(0);
                checkpointed |= ends;
                floor |= floored;
            }
            Work::Wait(_) => rig.now += IDLE,
            Work::End => panic!("the end"),
        }
        rig.upkeep(0);
        if !rig.unlinked[0].is_empty() {
            break;
        }
    }
    assert!(checkpointed && floor);
}

#[test]
fn a_full_journal_takes_appends_again_after_truncation_however_often() {
    let mut rig = small(1);
    for _ in 0..5 {
        let head = fill(&mut rig, "c");
        let mut truncated = rig.truncate("c", head);
        rig.settle();
        assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(head));
        for _ in 0..3 {
            rig.pass(IDLE);
        }
        assert!(rig.submit(batch("c", &[b"x"])).is_ok());
        rig.settle();
    }
    assert!(!rig.unlinked[0].is_empty());
}

#[test]
fn a_directory_that_is_never_idle_still_writes_checkpoints_lists_and_removes_files() {
    let mut rig = Rig::new(Setup { journal_max: 4 << 20, ..Setup::default() });
    rig.send("c", &[&[0; 30_000]]);
    let mut truncates = Vec::new();
    for round in 0..2000_u64 {
        rig.now += IDLE / 100;
        let work = rig.poll(0);
        // There is always something due when the frame before is done.
        if let Err(refused) = rig.submit(batch("c", &[&[0; 30_000]])) {
            panic!("round {round}: {refused}; {} listings", rig.listings);
        }
        match work {
            Work::Frame(_) => rig.durable(0),
            other => panic!("{other:?}"),
        }
        rig.upkeep(0);
        if round % 10 == 0 {
            let head = rig.log.find(&name("c")).unwrap().durable_head.0;
            truncates.push(rig.truncate("c", head));
        }
    }
    assert!(rig.listings >= 10, "{}", rig.listings);
    assert!(!rig.unlinked[0].is_empty());
    let checkpoints = rig.frames[0].iter().filter(|frame| frame.header.flags & FLAG_CHECKPOINT_PART != 0).count();
    assert!(checkpoints > 0);
    assert!(rig.log.journals[0].journal_bytes() < 4 << 20);
}

#[test]
fn no_frame_waits_for_a_listing_or_for_files_being_removed() {
    let mut rig = small(1);
    rig.now += IDLE;
    assert_eq!(rig.log.poll_upkeep(0, rig.now), Upkeep::List);
    let token = rig.send("c", &[b"x"]);
    assert!(rig.commit(0));
    assert_eq!(rig.lsns(token), (1, 1));
    rig.log.listed(0, Listing::default(), rig.now);
    rig.log.journals[0].garbage.push(("0000000000004.000-000000000001.avro".into(), 4096));
    assert!(matches!(rig.log.poll_upkeep(0, rig.now), Upkeep::Unlink(files) if files.len() == 1));
    let token = rig.send("c", &[b"x"]);
    assert!(rig.commit(0));
    assert_eq!(rig.lsns(token), (2, 2));
}

#[test]
fn a_checkpoint_shares_the_journal_with_appends() {
    let mut rig = Rig::one();
    for n in 0..20_000 {
        rig.send(&format!("a rather long name of a collection, so that it takes some space {n:0150}"), &[b"x"]);
    }
    rig.settle();
    rig.log.journals[0].since_checkpoint = 1 << 40;
    let mut order = Vec::new();
    for _ in 0..6 {
        rig.send("c", &[b"x"]);
        let frame = rig.frame(0);
        order.push(frame.header.flags & FLAG_CHECKPOINT_PART != 0);
        rig.durable(0);
    }
    assert_eq!(order.iter().filter(|part| **part).count(), 3, "{order:?}");
}

fn old(epoch: u64, incarnation: u64, head: u64) -> OldStream {
    OldStream {
        key: StreamKey { epoch: Epoch(epoch), session: 0 },
        files: vec![(format!("{epoch:013}.000-000000000001.avro"), 8192)],
        heads: HashMap::from([(Incarnation(incarnation), Lsn(head))]),
        firsts: HashMap::from([(Incarnation(incarnation), Lsn(1))]),
    }
}

#[test]
fn invariant_5_streams_of_earlier_starts_go_when_nothing_in_them_lives() {
    let incarnation = Incarnation(3 << 20);
    let mut collection = crate::commit::collection::Collection::new(name("c"), incarnation, 0, 1);
    (collection.durable_head, collection.assigned_head) = (Lsn(9), Lsn(9));
    let setup =
        Setup { old: vec![old(3, 3 << 20, 5), old(4, 3 << 20, 9)], collections: vec![collection], ..Setup::default() };
    let mut rig = Rig::new(setup);
    let files = |rig: &Rig| rig.unlinked[0].clone();
    drop(rig.truncate("c", 4));
    rig.settle();
    rig.pass(IDLE);
    rig.pass(IDLE);
    assert_eq!(files(&rig), Vec::<String>::new());
    drop(rig.truncate("c", 5));
    rig.settle();
    rig.pass(IDLE);
    rig.pass(IDLE);
    assert_eq!(files(&rig), ["0000000000003.000-000000000001.avro"]);
    drop(rig.truncate("c", 9));
    rig.settle();
    rig.pass(IDLE);
    rig.pass(IDLE);
    assert_eq!(files(&rig).len(), 2);
}

#[test]
fn a_deletion_is_stated_as_long_as_a_file_from_before_it_is_there() {
    let mut rig = small(2);
    rig.send("c", &[b"1"]);
    rig.settle();
    let mut deleted = rig.delete("c");
    rig.settle();
    deleted.try_recv().unwrap().unwrap();
    // Directory 1 is emptied of all that is older; directory 0 keeps its first file.
    rig.send("keeps", &[b"1"]);
    while rig.home("keeps") != 0 {
        drop(rig.delete("keeps"));
        rig.send("keeps", &[b"1"]);
        rig.settle();
    }
    rig.settle();
    for _ in 0..6 {
        rig.pass(IDLE);
        rig.log.journals[1].since_checkpoint = 1 << 40;
        let from = rig.frames[1].len();
        rig.settle();
        assert!(rig.frames[1][from..].iter().any(|frame| !frame.of(Kind::Delete, "c").is_empty()));
    }
}

#[test]
fn a_deletion_is_stated_while_a_file_from_before_it_waits_to_be_removed() {
    let mut rig = small(2);
    rig.send("c", &[&[0; 1000]]);
    rig.settle();
    let home = rig.home("c");
    let mut deleted = rig.delete("c");
    rig.settle();
    deleted.try_recv().unwrap().unwrap();
    // Every file from before the deletion has been given up, but one is still to be removed.
    for journal in &mut rig.log.journals {
        for slot in &mut journal.slots {
            slot.made = u64::MAX;
        }
    }
    rig.log.journals[home].garbage.push(("0000000000005.000-000000000001.avro".into(), 4096));
    let other = 1 - home;
    rig.log.journals[other].since_checkpoint = 1 << 40;
    let checkpoint = rig.frame(other);
    assert_eq!(checkpoint.of(Kind::Delete, "c").len(), 1);
}

#[test]
fn without_affinity_every_full_journal_is_looked_through_for_room() {
    let setup = Setup { directories: 2, affinity: false, journal_max: 1 << 20, ..Setup::default() };
    let mut rig = Rig::new(setup);
    let head = fill(&mut rig, "c");
    let mut truncated = rig.truncate("c", head);
    rig.settle();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(head));
    // The directory that the collection was in last fails: the other one makes room.
    let home = rig.home("c");
    rig.log.failed(home, rig.key(home), super::rig::failed(), rig.now);
    let accepted = (0..5).any(|_| {
        let accepted = rig.submit(batch("c", &[&[0; 30_000]])).is_ok();
        rig.settle();
        accepted
    });
    assert!(accepted);
}
