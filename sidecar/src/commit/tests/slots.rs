//! Slots: the spare that is made ready, files that are used again, frames that wait for their file, the bound.

use std::time::Duration;

use super::rig::{MARKER, Rig, Setup, batch, name};
use crate::commit::frames::{IDLE, Work};
use crate::commit::outcome::Failure;
use crate::commit::slots::{FILL_PIECE, NotStamped, Spare, StampJob};
use crate::commit::upkeep::Upkeep;
use crate::error::Reason;
use crate::format::frame::FLAG_CHECKPOINT_END;

const SLOT: u64 = 1 << 20;

/// Slots of 1 MiB, recycled.
fn recycling() -> Rig {
    Rig::new(Setup { in_place: true, journal_max: 4 * SLOT, ..Setup::default() })
}

fn append(rig: &mut Rig, bytes: usize) -> bool {
    let sent = rig.submit(batch("c", &[&vec![7; bytes]])).is_ok();
    rig.settle();
    sent
}

/// Lets pieces of a spare come due until there is nothing more to fill.
fn fill(rig: &mut Rig) {
    for _ in 0..10 {
        rig.pass(Duration::from_millis(5));
    }
}

/// Appends until frames go to a new file.
fn rotate(rig: &mut Rig) {
    let file = rig.log.journals[0].stream.file;
    while rig.log.journals[0].stream.file == file {
        assert!(append(rig, 30_000));
    }
}

/// The next file to be stamped; it is not yet.
fn next_stamp(rig: &mut Rig) -> StampJob {
    loop {
        match rig.log.poll_upkeep(0, rig.now) {
            Upkeep::Stamp(job) => return job,
            Upkeep::Reserve(job) => rig.log.reserved(0, &job, Ok(()), rig.now),
            Upkeep::List => rig.log.listed(0, Default::default(), rig.now),
            Upkeep::Wait(_) => rig.now += Duration::from_millis(5),
            other => panic!("{other:?}"),
        }
    }
}

fn truncate_all(rig: &mut Rig) {
    let head = rig.log.find(&name("c")).unwrap().durable_head;
    drop(rig.truncate("c", head.0));
    rig.settle();
    rig.pass(IDLE);
    rig.pass(IDLE);
}

#[test]
fn a_spare_is_filled_in_paced_pieces_once_a_stream_has_taken_something() {
    let mut rig = recycling();
    append(&mut rig, 1000);
    fill(&mut rig);
    assert!(rig.stamped[0].is_empty(), "most processes write little");
    while rig.stamped[0].is_empty() {
        append(&mut rig, 30_000);
    }
    let key = rig.key(0);
    let stream = rig.log.journals[0].stream.id;
    assert_eq!(rig.stamped[0], [StampJob { key, stream, file: 2, from: None }]);
    assert_eq!(rig.filled[0].len(), 1);
    rig.settle();
    assert_eq!(rig.filled[0].len(), 1, "the next piece is not due");
    fill(&mut rig);
    let filled: Vec<(u64, u64)> = rig.filled[0].iter().map(|job| (job.offset, job.len)).collect();
    let page = 4096;
    assert_eq!(
        filled,
        [
            (page, FILL_PIECE),
            (page + FILL_PIECE, FILL_PIECE),
            (page + 2 * FILL_PIECE, FILL_PIECE),
            (page + 3 * FILL_PIECE, FILL_PIECE - page),
        ]
    );
    assert!(rig.filled[0].last().unwrap().last);
}

#[test]
fn a_file_that_grows_is_left_as_soon_as_there_is_one_that_does_not() {
    let mut rig = recycling();
    while rig.stamped[0].is_empty() {
        append(&mut rig, 30_000);
    }
    assert!(append(&mut rig, 30_000));
    assert_eq!(rig.log.journals[0].stream.file, 1);
    fill(&mut rig);
    let sent = rig.send("c", &[b"x"]);
    let Work::Frame(job) = rig.poll(0) else { panic!("a frame") };
    assert_eq!((job.place.file, job.prepared), (2, Some(MARKER)));
    rig.durable(0);
    rig.lsns(sent);
    let slot = rig.log.journals[0].slots.back().unwrap();
    assert_eq!((slot.len, slot.bytes), (SLOT, 4096 + 4096), "it is as long as it was made");
    // And that one is filled to its end.
    while rig.log.journals[0].stream.file == 2 {
        assert!(append(&mut rig, 30_000));
    }
    let full = &rig.log.journals[0].slots[1];
    assert!(full.bytes > SLOT - 40_000, "{}", full.bytes);
}

#[test]
fn a_file_that_nothing_needs_is_stamped_again_and_no_new_one_is_made() {
    let mut rig = recycling();
    let round = |rig: &mut Rig| {
        rotate(rig);
        fill(rig);
        truncate_all(rig);
    };
    (0..6).for_each(|_| round(&mut rig));
    let (stamped, unlinked) = (rig.stamped[0].len(), rig.unlinked[0].len());
    (0..12).for_each(|_| round(&mut rig));
    let later = &rig.stamped[0][stamped..];
    assert!(later.len() >= 12, "{later:?}");
    assert!(later.iter().all(|job| job.from.is_some()), "{later:?}");
    assert_eq!(rig.unlinked[0].len(), unlinked);
    // Each is what lay idle then, and none is used twice.
    let from: std::collections::BTreeSet<_> = later.iter().map(|job| &job.from).collect();
    assert_eq!(from.len(), later.len());
}

#[test]
fn schedule_7_a_slot_freed_by_a_fact_that_lies_in_it_is_stamped_only_after_a_checkpoint_outside_it() {
    let mut rig = recycling();
    rotate(&mut rig);
    // The fact that frees everything in file 1, and 2, lies in file 2.
    let file = rig.log.journals[0].stream.file;
    assert!(file >= 2);
    let head = rig.log.find(&name("c")).unwrap().durable_head.0;
    let _truncated = rig.truncate("c", head);
    rig.settle();
    let fact = rig.frames[0].iter().rposition(|frame| !frame.of(crate::format::record::Kind::Truncate, "c").is_empty());
    let fact = rig.frames[0][fact.unwrap()].header;
    assert_eq!(fact.file, file);
    let name = |file: u64| crate::format::names::SlotName { key: rig.key(0), file }.to_string();
    let (first, second) = (name(1), name(file));
    for _ in 0..200 {
        let _ = rig.submit(batch("c", &[&[0; 30_000]]));
        rig.pass(Duration::from_millis(5));
        let head = rig.log.find(&super::rig::name("c")).unwrap().durable_head.0;
        drop(rig.truncate("c", head));
        let gone: Vec<&String> =
            rig.stamped[0].iter().filter_map(|job| job.from.as_ref()).chain(&rig.unlinked[0]).collect();
        let checkpoint = rig.frames[0].iter().position(|frame| {
            frame.header.frame_seq > fact.frame_seq
                && frame.header.flags & FLAG_CHECKPOINT_END != 0
                && !frame.of(crate::format::record::Kind::Truncate, "c").is_empty()
        });
        let floored =
            |checkpoint: usize, seq: u64| rig.frames[0][checkpoint + 1..].iter().any(|frame| frame.header.floor >= seq);
        if gone.contains(&&first) {
            assert!(checkpoint.is_some_and(|checkpoint| floored(checkpoint, 1)), "file 1 went too early");
        }
        if gone.contains(&&second) {
            let checkpoint = checkpoint.expect("a checkpoint behind the fact");
            assert!(rig.frames[0][checkpoint].header.file > file || floored(checkpoint, fact.frame_seq));
            return;
        }
    }
    panic!("file {file} was never freed");
}

#[test]
fn a_frame_that_needs_the_file_being_stamped_waits_for_it_and_for_nothing_else() {
    let mut rig = recycling();
    for _ in 0..2 {
        rotate(&mut rig);
        fill(&mut rig);
        truncate_all(&mut rig);
    }
    // The stamping of the next file hangs.
    let file = rig.log.journals[0].stream.file;
    while rig.log.journals[0].stream.file == file {
        rig.send("c", &[&[1; 30_000]]);
        assert!(rig.commit(0));
    }
    let job = next_stamp(&mut rig);
    let mut sent = Vec::new();
    loop {
        sent.push(rig.send("c", &[&[1; 30_000]]));
        match rig.poll(0) {
            Work::Frame(frame) => {
                assert_eq!(frame.place.file, job.file - 1, "the others go on");
                rig.durable(0);
            }
            other => break assert_eq!(other, Work::Wait(None)),
        }
    }
    assert!(sent.len() > 5);
    let waits = *sent.last().unwrap();
    assert_eq!(rig.poll(0), Work::Wait(None));
    assert!(rig.answer(waits).is_none());
    rig.log.stamped(0, &job, Ok([9; 16]), rig.now);
    assert!(rig.log.take_signals().any(|(_, worker)| worker == crate::commit::log::Worker::Commit));
    let Work::Frame(frame) = rig.poll(0) else { panic!("the frame goes") };
    assert_eq!((frame.place.file, frame.prepared), (job.file, Some([9; 16])));
    rig.durable(0);
    rig.lsns(waits);
}

#[test]
fn a_spare_that_is_needed_before_it_is_whole_is_taken_as_far_as_it_is() {
    let mut rig = recycling();
    while rig.filled[0].is_empty() {
        append(&mut rig, 30_000);
    }
    // Not filled any further, for want of time.
    rotate(&mut rig);
    let slot = rig.log.journals[0].slots.back().unwrap();
    assert_eq!((slot.file, slot.len), (2, 4096 + FILL_PIECE));
    assert_eq!(rig.filled[0].iter().filter(|job| job.name.file == 2).count(), 1);
}

#[test]
fn a_spare_that_cannot_be_made_leaves_its_place_to_the_next_frame() {
    let mut rig = recycling();
    rig.send("c", &[&[0; 300_000]]);
    assert!(rig.commit(0));
    let job = next_stamp(&mut rig);
    let failed = NotStamped { failure: Failure::Failed("test".into()), removed: true };
    rig.log.stamped(0, &job, Err(failed), rig.now);
    assert!(rig.log.journals[0].is_healthy());
    rig.send("c", &[&[0; 900_000]]);
    let Work::Frame(frame) = rig.poll(0) else { panic!("a frame") };
    assert_eq!((frame.place.file, frame.place.new_file, frame.prepared), (2, true, None));
    rig.durable(0);
    rig.pass(Duration::from_secs(9));
    assert_eq!(rig.stamped[0].len(), 0);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.stamped[0].len(), 1, "it is tried again");
}

#[test]
fn a_file_left_at_the_place_of_the_next_one_ends_the_stream() {
    let mut rig = recycling();
    rig.send("c", &[&[0; 300_000]]);
    assert!(rig.commit(0));
    let job = next_stamp(&mut rig);
    let failed = NotStamped { failure: Failure::Failed("test".into()), removed: false };
    rig.log.stamped(0, &job, Err(failed), rig.now);
    assert!(!rig.log.journals[0].is_healthy());
}

#[test]
fn a_frame_longer_than_a_slot_makes_the_spare_longer_and_such_a_file_is_removed() {
    let mut rig = recycling();
    while rig.log.journals[0].pool.spare == Spare::None {
        append(&mut rig, 30_000);
    }
    fill(&mut rig);
    assert!(append(&mut rig, 3 << 19));
    let long = rig.log.journals[0].slots.iter().find(|slot| slot.len > SLOT).unwrap();
    assert!(long.file == 2 && long.len == long.bytes, "{long:?}");
    let long = crate::format::names::SlotName { key: rig.key(0), file: long.file }.to_string();
    truncate_all(&mut rig);
    for _ in 0..3 {
        truncate_all(&mut rig);
        fill(&mut rig);
        append(&mut rig, 30_000);
    }
    assert!(rig.unlinked[0].contains(&long), "{:?}", rig.unlinked[0]);
}

#[test]
fn spares_and_free_files_never_bring_a_journal_above_its_bound() {
    let mut rig = recycling();
    let mut refused = 0;
    for round in 0..600_u64 {
        match rig.submit(batch("c", &[&[7; 30_000]])) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.reason, Reason::JournalFull);
                refused += 1;
                truncate_all(&mut rig);
            }
        }
        rig.pass(Duration::from_millis(round % 7));
        let journal = &rig.log.journals[0];
        let bytes = journal.journal_bytes();
        assert!(bytes <= journal.journal_max, "round {round}: {bytes} of {}", journal.journal_max);
        assert!(journal.pool.free.len() <= 2);
    }
    assert!(refused >= 3, "{refused}: the bound was never met");
    assert!(rig.stamped[0].iter().any(|job| job.from.is_some()));
}

#[test]
fn free_files_go_after_a_minute_without_commits_and_the_reserve_stays() {
    let mut rig = recycling();
    for _ in 0..2 {
        rotate(&mut rig);
        fill(&mut rig);
    }
    truncate_all(&mut rig);
    rotate(&mut rig);
    truncate_all(&mut rig);
    let free = rig.log.journals[0].pool.free.clone();
    assert!(!free.is_empty());
    let before = rig.unlinked[0].len();
    rig.pass(Duration::from_secs(50));
    assert_eq!(rig.log.journals[0].pool.free, free);
    rig.pass(Duration::from_secs(11));
    assert_eq!(rig.log.journals[0].pool.free, []);
    assert_eq!(rig.unlinked[0].len(), before + free.len());
    assert!(matches!(rig.log.journals[0].pool.spare, Spare::Ready(_)));
}

#[test]
fn without_overwriting_in_place_files_grow_and_go() {
    let mut rig = Rig::new(Setup { journal_max: 4 * SLOT, ..Setup::default() });
    for _ in 0..3 {
        rotate(&mut rig);
        fill(&mut rig);
        truncate_all(&mut rig);
    }
    assert_eq!((rig.stamped[0].len(), rig.filled[0].len()), (0, 0));
    assert!(rig.unlinked[0].len() >= 3);
}

#[test]
fn a_spare_of_a_stream_that_is_over_is_stamped_for_the_next_session() {
    let mut rig = recycling();
    while rig.stamped[0].is_empty() {
        append(&mut rig, 30_000);
    }
    fill(&mut rig);
    let spare = crate::format::names::SlotName { key: rig.key(0), file: 2 }.to_string();
    rig.fail(0);
    rig.log.restart_stream(0, rig.now);
    rig.log.journals[0].health = crate::commit::journal::Health::Healthy;
    rig.settle();
    while rig.stamped[0].len() < 2 {
        assert!(append(&mut rig, 30_000));
    }
    let job = rig.stamped[0].last().unwrap();
    assert_eq!((job.key.session, job.from.as_ref()), (1, Some(&spare)));
}

#[test]
fn a_report_about_the_spare_of_a_stream_that_is_over_leaves_nothing_behind() {
    let mut rig = recycling();
    rig.send("c", &[&[0; 300_000]]);
    assert!(rig.commit(0));
    let job = next_stamp(&mut rig);
    rig.fail(0);
    rig.log.restart_stream(0, rig.now);
    rig.log.journals[0].health = crate::commit::journal::Health::Healthy;
    rig.settle();
    rig.log.stamped(0, &job, Ok(MARKER), rig.now);
    rig.settle();
    assert_eq!(rig.unlinked[0], [crate::format::names::SlotName { key: job.key, file: job.file }.to_string()]);
}

#[test]
pub(crate) fn whoever_waits_for_room_looks_again_when_a_file_is_kept_to_be_used_again() {
    let mut rig = recycling();
    while append(&mut rig, 30_000) {
        fill(&mut rig);
    }
    let head = rig.log.find(&name("c")).unwrap().durable_head;
    drop(rig.truncate("c", head.0));
    for _ in 0..1000 {
        rig.log.take_freed();
        if !rig.commit(0) {
            rig.now += IDLE;
        }
        if rig.log.journals[0].has_room(30_000) {
            assert!(rig.log.take_freed(), "waiters look again");
            assert!(append(&mut rig, 30_000));
            return;
        }
        while rig.upkeep(0) {}
        assert!(!rig.log.journals[0].has_room(30_000), "not what is asked here: files were removed");
    }
    panic!("there never is room again");
}
