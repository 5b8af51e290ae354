//! Flushing for want of room: memory, journals, shared segments and their rewriting.

use std::time::Duration;

use super::flush::{append, flushing, small};
use super::rig::{Rig, Setup, batch};
use crate::commit::flush_plan::DUE_WAIT;
use crate::commit::frames::IDLE;
use crate::types::Lsn;

#[test]
fn under_memory_pressure_large_collections_are_flushed_alone_and_small_ones_together() {
    let mut rig = flushing(Setup { memory_limit: 4 << 20, ..Setup::default() });
    for n in 0..6 {
        for _ in 0..5 {
            append(&mut rig, &format!("large{n}"), 6);
        }
        append(&mut rig, &format!("small{n}"), 2);
    }
    for n in 0..60 {
        append(&mut rig, &format!("tiny{n}"), 2);
    }
    assert!(rig.flushed > 0);
    assert!(rig.log.memory() < 4 << 20);
    let shared: Vec<usize> = rig.segments[0]
        .files
        .values()
        .filter(|file| file.shared)
        .map(|file| {
            file.entries.keys().map(|(incarnation, _)| incarnation).collect::<std::collections::BTreeSet<_>>().len()
        })
        .collect();
    assert!(shared.iter().all(|collections| *collections > 1), "{shared:?}");
    let own = rig.segments[0].files.values().filter(|file| !file.shared);
    assert!(own.map(|file| file.length).all(|length| length > 256 << 10));
    rig.check();
}

#[test]
fn a_shared_segment_goes_when_nobody_needs_it() {
    let mut rig = flushing(Setup { memory_limit: 768 << 10, ..Setup::default() });
    for n in 0..80 {
        append(&mut rig, &format!("c{n}"), 1);
    }
    rig.check();
    assert!(rig.segments[0].files.values().any(|file| file.shared));
    for n in 0..79 {
        if n % 2 == 0 {
            drop(rig.truncate(&format!("c{n}"), 1));
        } else {
            drop(rig.delete(&format!("c{n}")));
        }
        rig.settle();
        rig.check();
    }
    drop(rig.delete("c79"));
    rig.settle();
    assert!(rig.segments[0].files.is_empty());
}

#[test]
fn a_journal_that_fills_is_cleaned_oldest_file_first_and_appends_go_on() {
    let mut rig = flushing(Setup { journal_max: 1 << 20, ..Setup::default() });
    append(&mut rig, "keeps", 1);
    for round in 0..300 {
        append(&mut rig, &format!("c{}", round % 7), 1);
        assert!(rig.log.journals[0].journal_bytes() <= 1 << 20);
    }
    assert_eq!(rig.flushed_to("keeps"), 1, "the oldest file held it");
    assert!(!rig.unlinked[0].is_empty());
    rig.check();
}

#[test]
fn a_batch_too_large_for_the_journal_as_it_is_gets_room_by_flushing() {
    let mut rig = flushing(Setup { journal_max: 1 << 20, ..Setup::default() });
    append(&mut rig, "c", 30);
    let large = vec![0; 500_000];
    rig.submit(batch("d", &[&large])).unwrap_err();
    rig.settle();
    for _ in 0..3 {
        rig.pass(IDLE);
    }
    rig.submit(batch("d", &[&large])).unwrap();
    rig.settle();
    rig.check();
}

/// Schedule 8, small: what is never truncated goes through a small journal and a small memory, however much it is.
#[test]
fn many_collections_and_a_hot_one_stay_within_memory_and_journal() {
    let (memory_limit, journal_max) = (8 << 20, 8 << 20);
    let mut rig = flushing(Setup { memory_limit, journal_max, memory_flush_size: 512 << 10, ..Setup::default() });
    let mut refused = 0;
    for round in 0..40 {
        for n in 0..200 {
            for name in [format!("c{n}"), "hot".to_owned()] {
                while rig.submit(batch(&name, &[&[0; 2000]])).is_err() {
                    refused += 1;
                    assert!(refused < 2000, "no progress in round {round}");
                    rig.settle();
                    rig.now += Duration::from_millis(20);
                }
                rig.step(0);
            }
            assert!(rig.log.memory() <= memory_limit);
            assert!(rig.log.journals[0].journal_bytes() <= journal_max);
        }
    }
    rig.settle();
    // 32 MB went through; every flush is worth its sync.
    assert!(rig.flushed < 200, "{}", rig.flushed);
    rig.check();
}

#[test]
fn a_shared_segment_of_which_little_is_live_is_rewritten() {
    let mut rig = flushing(Setup { memory_limit: 768 << 10, ..Setup::default() });
    for n in 0..80 {
        append(&mut rig, &format!("c{n}"), 1);
    }
    let shared = |rig: &Rig| rig.segments[0].files.values().filter(|file| file.shared).map(|f| f.entries.len()).max();
    let before = shared(&rig).unwrap();
    assert!(before > 20, "{before} collections together");
    for n in 0..80 {
        if n % 10 > 0 {
            drop(rig.truncate(&format!("c{n}"), 1));
            rig.settle();
        }
    }
    for _ in 0..5 {
        rig.pass(DUE_WAIT);
        rig.check();
    }
    assert!(shared(&rig).unwrap() < 10, "{:?}", shared(&rig));
    let flushed = rig.flushed;
    for _ in 0..5 {
        rig.pass(DUE_WAIT);
    }
    assert_eq!(rig.flushed, flushed, "once is enough");
}

#[test]
fn segments_of_a_directory_that_is_to_be_emptied_are_rewritten_elsewhere() {
    let mut rig = flushing(Setup { directories: 2, ..small() });
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    let home = rig.home("c");
    assert_eq!(rig.segments[home].files.len(), 1);
    rig.log.journals[home].draining = true;
    rig.log.signal_flushers();
    for _ in 0..5 {
        rig.pass(DUE_WAIT);
        rig.check();
    }
    assert_eq!((rig.segments[home].files.len(), rig.segments[1 - home].files.len()), (0, 1));
    assert_eq!((rig.log.segments_in(home), rig.flushed_to("c")), (0, 10));
}

#[test]
pub(crate) fn schedule_17_a_truncation_that_comes_before_a_flush_is_written_leaves_no_hole_in_its_segment() {
    let mut rig = flushing(small());
    append(&mut rig, "c", 10);
    rig.pass(DUE_WAIT);
    assert_eq!((rig.segments_of("c"), rig.flushed), (vec![(false, 1, 10)], 1));
    for _ in 0..5 {
        rig.send("c", &[&[0; 10_000]]);
        while rig.commit(0) {}
    }
    let mut flushed = rig.ask_flush("c");
    let work = rig.log.poll_flush(0, rig.now);
    let mut truncated = rig.truncate("c", 12);
    while rig.commit(0) {}
    assert_eq!(truncated.try_recv().unwrap(), Ok(Lsn(12)));
    rig.carry_out(0, work);
    for _ in 0..4 {
        rig.pass(DUE_WAIT);
        rig.check();
    }
    assert_eq!(flushed.try_recv().unwrap(), Ok(Lsn(15)));
    for file in rig.segments[0].files.values() {
        let lsns: Vec<u64> = file.entries.keys().map(|(_, lsn)| lsn.0).collect();
        assert_eq!(lsns[lsns.len() - 1] - lsns[0] + 1, lsns.len() as u64, "{lsns:?}");
    }
    assert_eq!(rig.segments_of("c"), [(false, 13, 15)]);
}
