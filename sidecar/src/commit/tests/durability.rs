//! Invariants 2, 3 and 6: what an acknowledgement promises, one group in flight, nothing after a failure.

use super::rig::{Rig, Setup, name};
use crate::commit::frames::Work;
use crate::format::record::Kind;
use crate::types::Lsn;

#[test]
fn invariant_2_an_acknowledged_entry_and_all_below_it_were_synced_in_one_directory_each() {
    for affinity in [true, false] {
        let mut rig = Rig::new(Setup { directories: 3, affinity, ..Setup::default() });
        let mut sent = Vec::new();
        for round in 0..60_u64 {
            let collection = format!("c{}", round % 4);
            let token = rig.send(&collection, &[b"x", b"y"]);
            sent.push((collection, token));
            let dir = (round % 3) as usize;
            rig.step(dir);
            for (collection, token) in &sent {
                let Some(answer) = rig.answer(*token) else { continue };
                let last = answer.unwrap().last_lsn.0;
                let mut synced: Vec<u64> = rig.frames.iter().flatten().flat_map(|f| f.data(collection)).collect();
                synced.sort_unstable();
                assert!(synced.starts_with(&(1..=last).collect::<Vec<_>>()), "{collection} {last}: {synced:?}");
            }
        }
        rig.settle();
        assert!(sent.iter().all(|(_, token)| rig.answer(*token).is_some()));
    }
}

#[test]
fn invariant_3_a_collection_has_one_group_in_flight() {
    let mut rig = Rig::new(Setup { directories: 2, affinity: false, ..Setup::default() });
    rig.send("c", &[b"1"]);
    let dir = rig.home("c");
    assert_eq!(rig.frame(dir).data("c"), [1]);
    rig.send("c", &[b"2"]);
    rig.send("c", &[b"3"]);
    assert!(!matches!(rig.poll(1 - dir), Work::Frame(_)), "nothing of it goes elsewhere meanwhile");
    assert_eq!(rig.poll(dir), Work::Wait(None));
    rig.durable(dir);
    let next = rig.home("c");
    assert_eq!(rig.frame(next).data("c"), [2, 3], "what gathered goes together");
}

#[test]
fn invariant_6_after_a_failed_write_nothing_goes_to_the_stream_and_no_lsn_is_skipped_or_reused() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    let dir = rig.home("c");
    rig.send("c", &[b"2"]);
    rig.frame(dir);
    rig.send("c", &[b"3"]);
    rig.fail(dir);
    rig.settle();
    assert_eq!(rig.poll(dir), Work::Wait(None));
    let collection = rig.log.find(&name("c")).unwrap();
    assert_eq!((collection.durable_head, collection.assigned_head), (Lsn(3), Lsn(3)));
    let elsewhere: Vec<_> = rig.frames[1 - dir].iter().flat_map(|frame| frame.data("c")).collect();
    assert_eq!(elsewhere, [2, 3, 1], "and then what only that directory held");
    // The others go on.
    let mut other = None;
    for n in 0..2 {
        let collection = format!("d{n}");
        rig.send(&collection, &[b"1"]);
        other = Some(rig.home(&collection));
    }
    rig.settle();
    assert_eq!(other, Some(1 - dir));
}

#[test]
fn a_batch_is_never_divided_between_frames() {
    let mut rig = Rig::one();
    let large = vec![0_u8; 700_000];
    rig.send("c", &[&large, b"x"]);
    rig.send("c", &[&large, b"x"]);
    rig.send("d", &[&large, &large, &large]);
    rig.settle();
    let groups = rig.frames[0].iter().map(|f| (f.data("c"), f.data("d"))).filter(|(c, d)| c.len() + d.len() > 0);
    let groups: Vec<_> = groups.collect();
    assert_eq!(groups, [(vec![1, 2], vec![]), (vec![], vec![1, 2, 3]), (vec![3, 4], vec![])]);
}

#[test]
fn a_deletion_leaves_what_is_in_flight_answered_and_the_new_collection_apart() {
    let mut rig = Rig::one();
    let old = rig.send("c", &[b"1"]);
    rig.frame(0);
    let behind = rig.send("c", &[b"2"]);
    let mut deleted = rig.delete("c");
    let new = rig.send("c", &[b"new"]);
    rig.settle();
    assert_eq!((rig.lsns(old), rig.lsns(behind), rig.lsns(new)), ((1, 1), (2, 2), (1, 1)));
    let gone = deleted.try_recv().unwrap().unwrap();
    let now = rig.log.find(&name("c")).unwrap().incarnation;
    assert!(now > gone);
    assert!(rig.log.collections.iter().flatten().all(|collection| collection.incarnation == now));
}

#[test]
pub(crate) fn a_deletion_that_is_durable_after_that_of_a_later_life_does_not_bring_that_back() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1"]);
    rig.settle();
    let first = rig.home("c");
    let mut earlier = rig.delete("c");
    rig.send("c", &[b"2"]);
    while rig.home("c") == first {
        drop(rig.delete("c"));
        rig.send("c", &[b"2"]);
    }
    let second = rig.home("c");
    rig.settle_only(second);
    let mut later = rig.delete("c");
    rig.settle_only(second);
    let later = later.try_recv().unwrap().unwrap();
    rig.settle();
    assert!(earlier.try_recv().unwrap().unwrap() < later);
    assert_eq!(rig.log.tombstones[&name("c")].incarnation, later);
    // A checkpoint says so wherever the collection may have been.
    rig.log.journals[first].since_checkpoint = 1 << 40;
    let checkpoint = rig.frame(first);
    assert!(checkpoint.records.iter().any(|record| record.kind == Kind::Delete && record.incarnation == later));
}
