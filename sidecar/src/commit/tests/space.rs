//! Full disks: entries wait or go elsewhere, facts go on, and it all goes on by itself when there is room.

use std::time::Duration;

use super::rig::{MARKER, Rig, Setup, batch, name};
use crate::commit::flush_jobs::FlushWork;
use crate::commit::frames::{IDLE, Work};
use crate::commit::journal::Health;
use crate::commit::outcome::{Committed, Failure};
use crate::commit::reserve::Reserve;
use crate::commit::slots::{FreeSlot, NotStamped, Spare};
use crate::commit::upkeep::Upkeep;
use crate::commit::wear::Wear;
use crate::directory::disk::Space;
use crate::error::Reason;
use crate::format::frame::FrameBuilder;
use crate::format::record::Kind;
use crate::types::Lsn;

pub(super) const SLOT: u64 = 1 << 20;

pub(super) fn rig(directories: usize) -> Rig {
    Rig::new(Setup { directories, in_place: true, journal_max: 4 * SLOT, ..Setup::default() })
}

/// A log of one directory, and the first entry of a collection is durable.
pub(super) fn begun() -> Rig {
    let mut rig = rig(1);
    rig.send("c", &[b"1"]);
    rig.settle();
    rig
}

/// A file system of 100 MiB used to so many percent.
pub(super) fn used(percent: u64) -> Option<Space> {
    Some(Space { capacity: 100 << 20, free: (100 - percent) << 20 })
}

pub(super) fn measure(rig: &mut Rig, dir: usize, percent: u64) {
    rig.space[dir] = used(percent);
    rig.pass(IDLE);
}

/// Appends until a spare is whole, and frames go there.
fn with_a_whole_spare(rig: &mut Rig) {
    for _ in 0..2 {
        while !matches!(rig.log.journals[0].pool.spare, Spare::Ready(_)) {
            rig.send("c", &[&[7; 30_000]]);
            rig.pass(Duration::from_millis(5));
        }
        rig.send("c", &[b"x"]);
        rig.settle();
    }
    assert!(matches!(rig.log.journals[0].pool.spare, Spare::Ready(_)));
}

/// The frame under way ends with a device that has no space.
pub(super) fn no_space(rig: &mut Rig, dir: usize) {
    rig.log.failed(dir, rig.key(dir), Failure::Full("no space left".into()), rig.now);
    rig.forget_frame(dir);
}

#[test]
fn at_95_percent_entries_are_refused_and_truncated_and_taken_again_below_85() {
    let mut rig = rig(1);
    let first = rig.send("c", &[b"1"]);
    rig.settle();
    rig.lsns(first);
    measure(&mut rig, 0, 94);
    assert!(rig.submit(batch("c", &[b"2"])).is_ok());
    rig.settle();
    measure(&mut rig, 0, 95);
    let refused = rig.submit(batch("c", &[b"3"])).unwrap_err();
    assert_eq!(refused.reason, Reason::NoHealthyDirectory);
    assert!(refused.message.contains("is full: its file system is used to 95.0 %"), "{refused}");
    let mut truncated = rig.truncate("c", 1);
    rig.settle();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(1));
    measure(&mut rig, 0, 86);
    assert!(rig.submit(batch("c", &[b"3"])).is_err(), "not every byte that comes free is fought over");
    measure(&mut rig, 0, 84);
    let third = rig.send("c", &[b"3"]);
    rig.settle();
    assert_eq!(rig.lsns(third), (3, 3));
    assert_eq!(rig.key(0).session, 0, "the stream never ended");
}

#[test]
fn the_mark_is_met_between_two_measurements_too() {
    let mut rig = rig(1);
    measure(&mut rig, 0, 92);
    let mut taken = 0;
    let refused = loop {
        match rig.submit(batch("c", &[&[7; 300_000]])) {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        rig.settle();
    };
    assert!(matches!(refused.reason, Reason::JournalFull | Reason::NoHealthyDirectory), "{refused}");
    assert!((5..12).contains(&taken), "3 MiB were left to the mark: {taken}");
}

#[test]
fn who_waits_for_room_looks_again_when_any_file_system_has_more_of_it() {
    let mut rig = Rig::new(Setup { directories: 2, affinity: false, journal_max: 64 * SLOT, ..Setup::default() });
    measure(&mut rig, 0, 92);
    measure(&mut rig, 1, 92);
    while rig.submit(batch("c", &[&[7; 300_000]])).is_ok() {
        rig.settle();
    }
    let full: Vec<_> = (0..2).filter(|dir| rig.log.journals[*dir].full.is_some()).collect();
    assert_eq!(full.len(), 1, "one has refused, the other has too little");
    rig.log.take_freed();
    measure(&mut rig, 1 - full[0], 50);
    assert!(rig.log.take_freed());
    assert!(rig.submit(batch("c", &[&[7; 300_000]])).is_ok());
}

#[test]
fn what_is_full_leaves_its_collections_to_the_others() {
    let mut rig = rig(2);
    rig.send("c", &[b"1"]);
    rig.settle();
    let home = rig.home("c");
    measure(&mut rig, home, 96);
    let second = rig.send("c", &[b"2"]);
    rig.settle();
    assert_eq!(rig.lsns(second), (2, 2));
    assert_eq!(rig.home("c"), 1 - home);
}

#[test]
fn a_stream_that_ended_for_want_of_space_goes_on_with_facts_in_the_reserve_and_with_entries_when_there_is_room() {
    let mut rig = rig(1);
    with_a_whole_spare(&mut rig);
    let head = rig.log.find(&name("c")).unwrap().durable_head.0;
    let lost = rig.send("c", &[&[1; 100]]);
    rig.frame(0);
    no_space(&mut rig, 0);
    assert_eq!(rig.reason(lost), Reason::UnknownOutcome, "nobody can say when");
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
    // Not a byte is free; nothing but what is there is written.
    rig.space[0] = used(100);
    rig.no_new_files = true;
    let mut truncated = rig.truncate("c", head);
    rig.settle();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(head));
    assert_eq!(rig.key(0).session, 1);
    assert_eq!(rig.stamped[0].last().unwrap().key.session, 1);
    for _ in 0..3 {
        rig.pass(IDLE);
    }
    let of_session = |rig: &Rig, session: u32| {
        rig.unlinked[0].iter().filter(|file| file.contains(&format!(".{session:03}-"))).count()
    };
    assert!(of_session(&rig, 0) >= 2, "what was truncated makes room: {:?}", rig.unlinked[0]);
    // There is room: what was assigned is committed, under its LSN.
    rig.no_new_files = false;
    measure(&mut rig, 0, 60);
    let next = rig.send("c", &[b"next"]);
    rig.settle();
    assert_eq!(rig.lsns(next), (head + 2, head + 2));
    let lsns: Vec<u64> = rig.frames[0].iter().flat_map(|frame| frame.data("c")).filter(|lsn| *lsn > head).collect();
    assert_eq!(lsns, [head + 1, head + 2]);
    assert!(rig.log.journals[0].is_healthy() && rig.log.journals[0].full.is_none());
}

/// The second entry of a log found no space, and there is no reserve that facts could go on in.
fn stuck() -> Rig {
    let mut rig = begun();
    rig.send("c", &[b"2"]);
    rig.frame(0);
    rig.log.journals[0].pool.reserve = Reserve::default();
    no_space(&mut rig, 0);
    rig
}

#[test]
fn without_a_reserve_a_full_directory_is_looked_at_until_there_is_room() {
    let mut rig = stuck();
    assert!(matches!(rig.log.journals[0].health, Health::Full(_)));
    measure(&mut rig, 0, 99);
    assert!(matches!(rig.log.journals[0].health, Health::Full(_)));
    measure(&mut rig, 0, 50);
    assert!(rig.log.journals[0].is_healthy());
    rig.settle();
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(2));
}

#[test]
fn a_device_that_is_full_while_its_file_system_is_not_is_tried_again_after_a_minute() {
    let mut rig = stuck();
    for _ in 0..58 {
        measure(&mut rig, 0, 10);
    }
    assert!(!rig.log.journals[0].is_healthy(), "a quota is not measured");
    measure(&mut rig, 0, 10);
    measure(&mut rig, 0, 10);
    assert!(rig.log.journals[0].is_healthy());
    rig.settle();
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(2));
}

/// Everything of a collection is in a segment in its home, and then not even a fact can be written there. Its home.
fn flushed_to_a_full_disk() -> (Rig, usize) {
    let setup =
        Setup { directories: 2, in_place: true, flushes: true, memory_flush_size: 64 << 10, ..Setup::default() };
    let mut rig = Rig::new(setup);
    // The last one keeps the first file of the home's journal alive.
    for name in ["c", "other", "beside"] {
        rig.send(name, &[&[0; 10_000]]);
        rig.settle();
    }
    for _ in 1..10 {
        rig.send("c", &[&[0; 10_000]]);
        rig.settle();
    }
    let home = rig.home("c");
    assert_eq!(rig.home("beside"), home);
    rig.pass(IDLE);
    assert_eq!((rig.flushed_to("c"), rig.segments[home].files.len()), (10, 1));
    rig.send("c", &[b"x"]);
    rig.frame(home);
    rig.log.journals[home].pool.reserve = Reserve::default();
    no_space(&mut rig, home);
    (rig, home)
}

/// The collection is truncated; the other directory says so.
fn truncates_elsewhere(rig: &mut Rig, home: usize) {
    assert!(matches!(rig.log.journals[home].health, Health::Full(_)));
    drop(rig.truncate("c", 10));
    rig.settle();
    assert_eq!(rig.log.find(&name("c")).unwrap().truncated_to, Lsn(10));
    assert!(rig.segments[home].files.is_empty(), "its files are all there is to remove");
}

#[test]
fn what_is_truncated_makes_room_on_a_full_disk_that_takes_nothing_itself() {
    let (mut rig, home) = flushed_to_a_full_disk();
    measure(&mut rig, home, 100);
    truncates_elsewhere(&mut rig, home);
    measure(&mut rig, home, 50);
    assert!(rig.log.journals[home].is_healthy() && rig.log.journals[home].full.is_none(), "it goes on by itself");
}

#[test]
fn the_room_that_removed_segments_make_is_believed_at_once() {
    let (mut rig, home) = flushed_to_a_full_disk();
    measure(&mut rig, home, 10);
    truncates_elsewhere(&mut rig, home);
    assert!(rig.unlinked[home].is_empty(), "no file of the journal makes any: {:?}", rig.unlinked[home]);
    measure(&mut rig, home, 10);
    assert!(rig.log.journals[home].is_healthy(), "it need not be a quota, which is not measured");
}

/// Forty entries of one collection in two files of a journal, none of them in a segment.
fn with_two_files() -> Rig {
    let setup =
        Setup { in_place: true, flushes: true, journal_max: 4 * SLOT, memory_flush_size: 4 * SLOT, ..Setup::default() };
    let mut rig = Rig::new(setup);
    for _ in 0..40 {
        rig.send("c", &[&[0; 30_000]]);
        rig.settle();
    }
    assert_eq!((rig.flushed_to("c"), rig.log.journals[0].slots.len()), (0, 2));
    rig
}

#[test]
pub(crate) fn between_the_marks_a_full_disk_empties_its_journal_into_segments() {
    let mut rig = with_two_files();
    measure(&mut rig, 0, 96);
    rig.pass(IDLE);
    assert_eq!(rig.flushed_to("c"), 0, "a segment would take what is left for facts");
    measure(&mut rig, 0, 90);
    rig.pass(IDLE);
    assert_eq!(rig.flushed_to("c"), 40);
    assert!(!rig.unlinked[0].is_empty(), "what is in segments keeps no file of the journal");
    assert!(rig.submit(batch("c", &[b"x"])).is_err(), "entries wait for more room");
}

#[test]
fn a_device_that_said_it_is_full_takes_no_segments_before_its_file_system_is_measured_to_be() {
    let mut rig = with_two_files();
    rig.send("c", &[b"x"]);
    rig.frame(0);
    no_space(&mut rig, 0);
    measure(&mut rig, 0, 80);
    rig.pass(IDLE);
    assert_eq!(rig.flushed_to("c"), 0, "a quota is not measured");
    measure(&mut rig, 0, 90);
    rig.pass(IDLE);
    assert_eq!(rig.flushed_to("c"), 40);
}

#[test]
fn what_is_due_on_a_full_disk_does_not_keep_its_flusher_awake() {
    let setup = Setup { in_place: true, flushes: true, memory_flush_size: 64 << 10, ..Setup::default() };
    let mut rig = Rig::new(setup);
    rig.send("c", &[&[0; 100_000]]);
    assert!(rig.commit(0));
    rig.log.journals[0].space = Space { capacity: 100 << 20, free: 0 };
    rig.log.journals[0].watch_space(rig.now);
    let much_later = rig.now + Duration::from_secs(10);
    assert_eq!(rig.log.poll_flush(0, much_later), FlushWork::Wait(None));
    // It is signalled when there is room.
    measure(&mut rig, 0, 50);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.flushed_to("c"), 1);
}

#[test]
fn what_a_deleted_collection_left_is_looked_for_on_a_full_disk() {
    let mut rig = Rig::new(Setup { in_place: true, flushes: true, journal_max: 4 * SLOT, ..Setup::default() });
    rig.send("c", &[b"1"]);
    rig.settle();
    measure(&mut rig, 0, 96);
    let mut deleted = rig.delete("c");
    rig.settle();
    deleted.try_recv().unwrap().unwrap();
    assert!(rig.log.journals[0].full.is_some());
    assert!(rig.log.journals[0].flusher.sweep.is_empty(), "its folder may hold all that can make room");
}

#[test]
fn a_truncation_of_what_waits_for_room_is_refused_and_not_left_waiting() {
    let mut rig = begun();
    let second = rig.send("c", &[b"2"]);
    rig.frame(0);
    no_space(&mut rig, 0);
    assert_eq!(rig.reason(second), Reason::UnknownOutcome);
    let (waiter, _answer) = tokio::sync::oneshot::channel();
    let refused = rig.log.truncate(&name("c"), Lsn(2), waiter, rig.now).unwrap_err();
    assert_eq!(refused.reason, Reason::NoHealthyDirectory);
    let mut truncated = rig.truncate("c", 1);
    rig.settle();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(1), "what is durable can go");
}

#[test]
fn a_spare_that_has_no_space_is_a_reserve_as_far_as_it_came() {
    let mut rig = rig(1);
    rig.send("c", &[&[0; 300_000]]);
    assert!(rig.commit(0));
    for _ in 0..3 {
        rig.now += Duration::from_millis(5);
        rig.upkeep(0);
    }
    rig.now += Duration::from_millis(5);
    let Upkeep::Fill(job) = rig.log.poll_upkeep(0, rig.now) else { panic!("a piece") };
    let failed = NotStamped { failure: Failure::Full("no space left".into()), removed: false };
    rig.log.filled(0, &job, Err(failed), rig.now);
    let Spare::Ready(spare) = &rig.log.journals[0].pool.spare else { panic!("a reserve") };
    assert_eq!(spare.len, job.offset);
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
    // The file that grows has no space either.
    drop(rig.truncate("c", 1));
    rig.frame(0);
    rig.space[0] = used(100);
    rig.no_new_files = true;
    no_space(&mut rig, 0);
    rig.settle();
    assert_eq!(rig.key(0).session, 1);
    assert_eq!(rig.log.find(&name("c")).unwrap().truncated_to, Lsn(1), "in the part that there is");
}

#[test]
fn a_frame_of_facts_without_space_for_its_file_waits_for_a_free_one_and_goes_there_unchanged() {
    let mut rig = rig(1);
    with_a_whole_spare(&mut rig);
    let file = rig.log.journals[0].stream.file;
    rig.log.journals[0].pool.spare = Spare::None;
    rig.log.journals[0].discard("0000000000004.000-000000000007.avro".into(), SLOT, Wear::default());
    rig.log.journals[0].stream.rotate = true;
    let mut truncated = rig.truncate("c", 1);
    let mut builder = FrameBuilder::new();
    let Work::Frame(job) = rig.log.poll(0, rig.now, &mut builder) else { panic!("a frame") };
    assert_eq!((job.place.file, job.prepared), (file + 1, None));
    rig.log.failed(0, rig.key(0), Failure::NoFile("no space".into()), rig.now);
    assert_eq!(rig.log.poll(0, rig.now, &mut builder), Work::Wait(None));
    let Upkeep::Stamp(stamp) = rig.log.poll_upkeep(0, rig.now) else { panic!("a file to stamp") };
    assert!(stamp.from.is_some());
    rig.log.stamped(0, &stamp, Ok(MARKER), rig.now);
    let Work::Frame(again) = rig.log.poll(0, rig.now, &mut builder) else { panic!("the frame goes") };
    assert_eq!((again.place, again.header, again.prepared), (job.place, job.header, Some(MARKER)));
    let (len, crc) = {
        let frame = builder.finish_slot(&again.header, &MARKER).unwrap();
        (frame.bytes.len() as u64, frame.crc)
    };
    rig.log.committed(0, rig.key(0), Committed { len, crc, took: Duration::from_millis(1), reserved: false }, rig.now);
    rig.log.take_outbox().deliver();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(1));
    assert!(rig.log.journals[0].full.is_some());
}

#[test]
fn a_start_on_a_full_disk_begins_its_stream_in_a_free_file_and_serves_truncations() {
    let mut collection =
        crate::commit::collection::Collection::new(name("c"), crate::types::Incarnation(3 << 20), 0, 1);
    (collection.durable_head, collection.assigned_head) = (Lsn(9), Lsn(9));
    let setup = Setup { in_place: true, journal_max: 4 * SLOT, collections: vec![collection], ..Setup::default() };
    let mut rig = Rig::closed(setup);
    rig.log.journals[0].discard("0000000000004.000-000000000007.avro".into(), SLOT, Wear::default());
    rig.no_new_files = true;
    rig.space[0] = used(100);
    rig.settle();
    assert_eq!(rig.stamped[0].len(), 1);
    assert_eq!((rig.stamped[0][0].file, rig.key(0).session), (1, 0));
    assert_eq!(rig.frames[0][0].records[0].kind, Kind::Epoch);
    assert_eq!(rig.submit(batch("c", &[b"x"])).unwrap_err().reason, Reason::NoHealthyDirectory);
    let mut truncated = rig.truncate("c", 9);
    rig.settle();
    assert_eq!(truncated.try_recv().unwrap().unwrap(), Lsn(9));
    rig.no_new_files = false;
    measure(&mut rig, 0, 50);
    let next = rig.send("c", &[b"x"]);
    rig.settle();
    assert_eq!(rig.lsns(next), (10, 10));
}

#[test]
pub(crate) fn a_free_file_that_was_the_first_of_a_session_begins_no_other_on_a_full_disk() {
    let mut rig = begun();
    rig.send("c", &[b"2"]);
    rig.frame(0);
    let free = FreeSlot { name: "worn".into(), bytes: SLOT, wear: Wear::default().with(0, 1) };
    rig.log.journals[0].pool.free.push(free);
    rig.log.journals[0].pool.reserve = Reserve::default();
    no_space(&mut rig, 0);
    assert!(matches!(rig.log.journals[0].health, Health::Full(_)), "no session could begin");
    measure(&mut rig, 0, 99);
    measure(&mut rig, 0, 50);
    rig.settle();
    assert_eq!(rig.log.find(&name("c")).unwrap().durable_head, Lsn(2), "it goes on by itself");
}
