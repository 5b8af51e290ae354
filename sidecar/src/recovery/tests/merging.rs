use super::*;
use crate::format::facts::{AcceptedDamage, Close, FlushedFact};
use crate::format::fixture::{batched, collection, entry, truncate};
use crate::recovery::merge::{Merged, merge};

/// No segment was removed.
fn nothing_is_gone(_: &crate::types::CollectionName, _: &FlushedFact, _: Lsn) -> bool {
    false
}

fn losses(merged: &Merged) -> Vec<(usize, Lsn, Lsn)> {
    merged.losses(|_| true)
}

fn flip(stream: &mut Stream, offset: u64) {
    stream.files.last_mut().unwrap().as_mut().unwrap()[offset as usize] ^= 0x40;
}

#[test]
fn claim_1_only_the_highest_incarnation_counts_and_a_deletion_removes_it_and_all_below() {
    let newer = Incarnation(C.0 + 1);
    for (deleted, want) in [(None, Some(newer)), (Some(C), Some(newer)), (Some(newer), None)] {
        let mut one = Stream::new(1, 0);
        one.begin(Vec::new());
        one.frame(&[entry("c", newer, 1, Epoch(1), b"new")]);
        let mut two = other(1);
        two.begin(Vec::new());
        two.frame(&[entry("c", C, 1, Epoch(1), b"old")]);
        if let Some(deleted) = deleted {
            two.frame(&[delete("c", deleted)]);
        }
        for inputs in [vec![input(&[&one]), input(&[&two])], vec![input(&[&two]), input(&[&one])]] {
            let merged = merge(inputs, false, false, &nothing_is_gone);
            let found = merged.collections.first().map(|c| c.incarnation);
            assert_eq!(found, want, "{deleted:?}");
            assert_eq!(merged.tombstones.values().copied().next(), deleted);
        }
    }
}

#[test]
fn claim_2_every_lsn_is_an_entry_or_in_a_gap_or_a_hole() {
    let mut one = Stream::new(1, 0);
    one.begin(Vec::new());
    one.frame(&[truncate("c", C, 2, 2, Epoch(1)), entry("c", C, 3, Epoch(1), b"x"), entry("c", C, 8, Epoch(1), b"x")]);
    let mut two = other(1);
    two.begin(Vec::new());
    two.frame(&[entry("c", C, 6, Epoch(1), b"x"), gap("c", C, 4, 4), collection("c", C, 10, DIRECTORY, Epoch(1))]);
    let merged = merge(vec![input(&[&one]), input(&[&two])], false, false, &nothing_is_gone);
    let c = &merged.collections[0];
    assert_eq!((c.truncated_to, c.head), (Lsn(2), Lsn(10)));
    assert_eq!(c.holes, [(Lsn(5), Lsn(5)), (Lsn(7), Lsn(7)), (Lsn(9), Lsn(10))]);
    assert_eq!(losses(&merged).len(), 3, "a hole is reported with or without a damaged frame");
}

#[test]
fn claim_3_of_two_contents_the_higher_epoch_wins_and_it_is_reported() {
    let mut one = Stream::new(1, 0);
    one.begin(Vec::new());
    one.frame(&[entry("c", C, 1, Epoch(1), b"lower")]);
    let mut two = other(2);
    two.begin(Vec::new());
    two.frame(&[entry("c", C, 1, Epoch(2), b"higher")]);
    for inputs in [vec![input(&[&one]), input(&[&two])], vec![input(&[&two]), input(&[&one])]] {
        let merged = merge(inputs, false, false, &nothing_is_gone);
        let raw: Vec<_> = merged.collections[0].entries.iter(Lsn(1)).map(|(_, raw)| raw.to_vec()).collect();
        assert_eq!(raw, [entry("c", C, 1, Epoch(2), b"higher")]);
        assert_eq!(merged.contradictions.len(), 1);
    }
}

#[test]
fn a_copy_of_a_later_epoch_is_no_contradiction() {
    let mut one = Stream::new(1, 0);
    one.begin(Vec::new());
    one.frame(&[entry("c", C, 1, Epoch(1), b"same")]);
    let mut two = other(2);
    two.begin(Vec::new());
    two.frame(&[entry("c", C, 1, Epoch(2), b"same")]);
    let merged = merge(vec![input(&[&one]), input(&[&two])], false, false, &nothing_is_gone);
    assert!(merged.contradictions.is_empty());
    assert_eq!(merged.collections[0].entries.entries(), 1);
}

#[test]
fn without_a_fact_the_home_does_not_depend_on_the_order_of_directories() {
    let mut one = Stream::new(1, 0);
    one.begin(Vec::new());
    one.frame(&[entry("c", C, 1, Epoch(1), b"x")]);
    let mut two = other(1);
    two.begin(Vec::new());
    two.frame(&[entry("c", C, 2, Epoch(1), b"x")]);
    let straight = merge(vec![input(&[&one]), input(&[&two])], false, false, &nothing_is_gone);
    let turned = merge(vec![input(&[&two]), input(&[&one])], false, false, &nothing_is_gone);
    assert_eq!(straight.collections[0].home, turned.collections[0].home);
}

/// Frames 2 to 4 of a stream of epoch 1 hold LSN 1 and 2, 3, 4; frame 3 was lost, and accepted by a start of epoch 2
/// with a gap. Then frame 4 is lost as well.
#[test]
fn claim_4_a_gap_recorded_since_does_not_hide_that_later_entries_were_lost() {
    let mut first = Stream::new(1, 0);
    first.begin(Vec::new());
    first.frame(&[
        collection("c", C, 0, DIRECTORY, Epoch(1)),
        entry("c", C, 1, Epoch(1), b"x"),
        entry("c", C, 2, Epoch(1), b"x"),
    ]);
    let third = first.frame(&[entry("c", C, 3, Epoch(1), b"x")]);
    let fourth = first.frame(&[entry("c", C, 4, Epoch(1), b"x")]);
    let close: Close = first.close();
    // Inside the records, behind FRAME.
    flip(&mut first, third + 150);
    let mut second = Stream::new(2, 0);
    let mut fact = second.epoch_fact(vec![close]);
    fact.accepted = vec![AcceptedDamage { stream: first.id, first_seq: 3, last_seq: 3 }];
    let mut buf = Vec::new();
    fact.encode_record(&mut buf);
    second.frame(&[buf, gap("c", C, 3, 3)]);
    let merged = merge(vec![input(&[&first, &second])], true, false, &nothing_is_gone);
    assert_eq!((merged.unresolved.len(), losses(&merged)), (0, vec![]));
    flip(&mut first, fourth + 150);
    let merged = merge(vec![input(&[&first, &second])], true, false, &nothing_is_gone);
    assert_eq!(merged.unresolved.len(), 1);
    assert_eq!(losses(&merged), [(0, Lsn(4), Lsn(4))]);
}

#[test]
fn claim_4_the_last_entries_may_have_been_in_a_journal_that_is_nobodys_home() {
    let mut journal = Stream::new(1, 0);
    journal.begin(Vec::new());
    // Its home is elsewhere; all its entries but the lost ones are truncated and gone.
    journal.frame(&[collection("c", C, 3, OTHER, Epoch(1)), truncate("c", C, 3, 3, Epoch(1))]);
    let lost = journal.frame(&[entry("c", C, 4, Epoch(1), b"x"), entry("c", C, 5, Epoch(1), b"x")]);
    journal.frame(&[]);
    flip(&mut journal, lost + 150);
    flip(&mut journal, lost + 195);
    let merged = merge(vec![input(&[&journal])], true, false, &nothing_is_gone);
    assert_eq!(merged.losses(|directory| directory != DIRECTORY), [(0, Lsn(4), Lsn(5))]);
    assert_eq!(merged.losses(|_| true), [], "where collections have their home, another's is not concerned");
}

#[test]
fn a_torn_batch_is_kept_whole_or_not_at_all() {
    let mut stream = Stream::new(1, 0);
    stream.begin(Vec::new());
    let records: Vec<_> = (1..=3).map(|lsn| batched("c", C, lsn, 3, Epoch(1), &[9; 100])).collect();
    let offset = stream.frame(&records);
    stream.frame(&[entry("c", C, 4, Epoch(1), b"x")]);
    flip(&mut stream, offset + 400);
    let merged = merge(vec![input(&[&stream])], true, false, &nothing_is_gone);
    let c = &merged.collections[0];
    assert_eq!(c.entries.iter(Lsn(1)).map(|(lsn, _)| lsn.0).collect::<Vec<_>>(), [4]);
    assert_eq!(c.holes, [(Lsn(1), Lsn(3))]);
}
