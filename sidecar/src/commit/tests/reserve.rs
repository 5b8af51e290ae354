//! The reserve of a directory: facts go on in it on a full disk, and it is made good and grows with the collections.

use std::time::Duration;

use super::rig::{Rig, Setup, name};
use super::space::{SLOT, begun, measure, no_space, rig, used};
use crate::commit::outcome::Failure;
use crate::commit::upkeep::Upkeep;
use crate::commit::wear::Wear;
use crate::directory::disk::Space;
use crate::types::Lsn;

/// Not a byte is free from now on, as the frame of a truncation finds out; it goes on all the same.
fn truncates_on_a_full_disk(rig: &mut Rig, to: u64) {
    rig.no_new_files = true;
    rig.space[0] = used(100);
    drop(rig.truncate("c", to));
    rig.frame(0);
    no_space(rig, 0);
    rig.settle();
    assert_eq!(rig.log.find(&name("c")).unwrap().truncated_to, Lsn(to));
}

/// The stream ends for want of space; facts go on in the reserve.
fn goes_on_in_the_reserve(rig: &mut Rig) {
    truncates_on_a_full_disk(rig, 1);
    assert_eq!((rig.key(0).session, rig.log.journals[0].pool.reserve.bytes()), (1, 0), "it is used up");
}

#[test]
fn a_disk_filled_from_outside_before_the_first_spare_takes_truncations() {
    let mut rig = rig(1);
    let reserve = rig.log.journals[0].pool.reserve.bytes();
    assert!((64 << 10..=256 << 10).contains(&reserve), "before the first entry, and little: {reserve}");
    rig.send("c", &[b"1"]);
    rig.settle();
    goes_on_in_the_reserve(&mut rig);
    assert_eq!(rig.stamped[0].len(), 1, "in a file of the reserve");
}

#[test]
fn a_reserve_that_was_used_up_is_there_again_as_soon_as_there_is_room() {
    let mut rig = begun();
    let reserve = rig.log.journals[0].pool.reserve.bytes();
    goes_on_in_the_reserve(&mut rig);
    measure(&mut rig, 0, 90);
    assert_eq!(rig.log.journals[0].pool.reserve.bytes(), 0, "it is full still");
    // Nothing more is appended than what a quiet application has to say.
    rig.no_new_files = false;
    measure(&mut rig, 0, 50);
    assert_eq!(rig.log.journals[0].pool.reserve.bytes(), reserve);
    rig.send("c", &[b"2"]);
    rig.settle();
    // The second full disk is no worse.
    truncates_on_a_full_disk(&mut rig, 2);
}

#[test]
fn the_first_piece_of_a_reserve_holds_a_checkpoint_of_many_collections() {
    let collection = |number: u64| {
        let name = name(&format!("a-collection-with-a-name-of-a-usual-length-{number:05}"));
        let incarnation = crate::types::Incarnation((3 << 20) + number);
        let mut collection = crate::commit::collection::Collection::new(name, incarnation, 0, number);
        (collection.durable_head, collection.assigned_head, collection.truncated_to) = (Lsn(9), Lsn(9), Lsn(8));
        collection
    };
    let collections = (1..=6000).map(collection).collect();
    let mut rig = Rig::new(Setup { in_place: true, journal_max: 64 * SLOT, collections, ..Setup::default() });
    let reserve = rig.log.journals[0].pool.reserve.bytes();
    rig.send("c", &[b"1"]);
    rig.settle();
    goes_on_in_the_reserve(&mut rig);
    let checkpoint: u64 =
        rig.frames[0].iter().filter(|frame| frame.header.stream == rig.log.journals[0].stream.id).map(|f| f.len).sum();
    assert!(checkpoint > 512 << 10, "{checkpoint}");
    assert!(checkpoint + 4096 <= reserve, "{checkpoint} bytes do not fit {reserve}");
}

#[test]
fn a_reserve_grows_with_the_collections() {
    let mut rig = Rig::new(Setup { in_place: true, journal_max: 8 * SLOT, ..Setup::default() });
    for number in 0..1000 {
        rig.send(&format!("c{number}"), &[&[7; 500]]);
    }
    for _ in 0..200 {
        rig.pass(Duration::from_millis(5));
    }
    let files: Vec<u64> = rig.log.journals[0].pool.reserve.files.iter().map(|file| file.bytes).collect();
    assert!(files.len() == 2 && files.iter().all(|bytes| *bytes >= (256 << 10) + (448 << 10)), "{files:?}");
    assert!(rig.unlinked[0].is_empty(), "{:?}", rig.unlinked[0]);
}

#[test]
fn a_reserve_that_has_no_space_to_grow_is_what_it_was() {
    let mut rig = Rig::new(Setup { in_place: true, journal_max: 64 * SLOT, ..Setup::default() });
    rig.send("c", &[&[7; 300_000]]);
    assert!(rig.commit(0));
    rig.now += Duration::from_millis(5);
    let Upkeep::Reserve(job) = rig.log.poll_upkeep(0, rig.now) else { panic!("a piece") };
    assert_eq!(job.offset, 256 << 10);
    rig.log.reserved(0, &job, Err(Failure::Full("no space left".into())), rig.now);
    assert_eq!(rig.log.journals[0].pool.reserve.bytes(), 256 << 10);
    goes_on_in_the_reserve(&mut rig);
}

#[test]
fn a_part_of_a_reserve_that_the_last_process_left_is_gone_on_with() {
    let mut rig = Rig::closed(Setup { in_place: true, journal_max: 64 * SLOT, ..Setup::default() });
    rig.log.journals[0].discard("reserve-0000000000004-1".into(), 256 << 10, Wear::default());
    rig.settle();
    assert_eq!(rig.log.journals[0].pool.reserve.bytes(), 256 << 10, "no other is begun");
    rig.send("c", &[&[7; 300_000]]);
    for _ in 0..200 {
        rig.pass(Duration::from_millis(5));
    }
    assert!(rig.log.journals[0].pool.reserve.bytes() >= 4 << 20);
    assert!(rig.unlinked[0].is_empty(), "{:?}", rig.unlinked[0]);
}

#[test]
fn where_files_only_grow_or_the_space_is_short_there_is_no_reserve() {
    let grows = Rig::new(Setup { journal_max: 4 * SLOT, ..Setup::default() });
    assert_eq!(grows.log.journals[0].pool.reserve.bytes(), 0);
    let mut short = Rig::closed(Setup { in_place: true, journal_max: 4 * SLOT, ..Setup::default() });
    short.log.journals[0].space = Space { capacity: 100 << 20, free: (5 << 20) + 1 };
    short.settle();
    assert_eq!(short.log.journals[0].pool.reserve.bytes(), 0);
}
