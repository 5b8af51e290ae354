//! Invariant 4: a fact states only what is durable when its frame is built, or lies earlier in the same frame.

use super::rig::{Rig, Setup, batch, stamped};
use crate::commit::frames::IDLE;
use crate::format::record::Kind;

#[test]
fn invariant_4_a_creation_states_no_head_that_its_frame_may_not_make_durable() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1", b"2"]);
    let dir = rig.home("c");
    let frame = rig.frame(dir);
    assert_eq!(frame.of(Kind::Collection, "c"), [0]);
    let kinds: Vec<_> = frame.records.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [Kind::Collection, Kind::Data, Kind::Data], "before its first entry");
    rig.durable(dir);
    rig.send("c", &[b"3"]);
    rig.frame(dir);
    rig.now += IDLE;
    let told = rig.frame(1 - dir);
    assert_eq!(told.of(Kind::Collection, "c"), [2], "what is in flight is not stated elsewhere");
}

#[test]
pub(crate) fn invariant_4_a_truncation_is_written_only_when_what_it_names_is_durable() {
    let mut rig = Rig::one();
    rig.send("c", &[b"1"]);
    rig.frame(0);
    rig.send("c", &[b"2", b"3"]);
    let _low = rig.truncate("c", 1);
    let _high = rig.truncate("c", 3);
    rig.durable(0);
    let frame = rig.frame(0);
    assert_eq!((frame.of(Kind::Truncate, "c"), frame.data("c")), (vec![1], vec![2, 3]));
    rig.durable(0);
    assert_eq!(rig.frame(0).of(Kind::Truncate, "c"), [3]);
}

#[test]
fn invariant_4_a_checkpoint_states_durable_producers_only() {
    let mut rig = Rig::one();
    rig.submit(stamped(batch("c", &[b"1"]), 1)).unwrap();
    rig.settle();
    rig.submit(stamped(batch("c", &[b"2"]), 2)).unwrap();
    let collection = rig.log.find(&super::rig::name("c")).unwrap();
    assert_eq!(collection.producers.durable_table().map(|(_, request)| request.seq).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_checkpoint_keeps_what_is_being_deleted_until_that_is_durable() {
    let mut rig = Rig::two();
    rig.send("c", &[b"1", b"2"]);
    rig.settle();
    let mut truncated = rig.truncate("c", 1);
    rig.settle();
    truncated.try_recv().unwrap().unwrap();
    let (home, other) = (rig.home("c"), 1 - rig.home("c"));
    let _deleted = rig.delete("c");
    rig.frame(home);
    // While the deletion is under way, another directory writes a checkpoint.
    rig.log.journals[other].since_checkpoint = 1 << 40;
    let mut checkpoint = rig.frame(other);
    while checkpoint.records.iter().all(|record| record.kind != Kind::Epoch) {
        rig.durable(other);
        checkpoint = rig.frame(other);
    }
    assert_eq!(checkpoint.of(Kind::Collection, "c"), [2]);
    assert_eq!(checkpoint.of(Kind::Truncate, "c"), [1]);
}

#[test]
fn a_checkpoint_covers_every_collection_in_every_directory() {
    let mut rig = Rig::new(Setup { directories: 2, journal_max: 1 << 20, ..Setup::default() });
    for n in 0..200 {
        rig.send(&format!("c{n}"), &[b"x"]);
    }
    rig.settle();
    for dir in 0..2 {
        let from = rig.frames[dir].len();
        rig.log.journals[dir].since_checkpoint = 1 << 40;
        rig.settle();
        let stated: std::collections::BTreeSet<_> = rig.frames[dir][from..]
            .iter()
            .flat_map(|frame| &frame.records)
            .filter(|record| record.kind == Kind::Collection)
            .map(|record| record.name.clone())
            .collect();
        assert_eq!(stated.len(), 200);
    }
}
