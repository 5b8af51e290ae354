//! Which writer a pod of a pool gets.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use walstorage_crds::walwriter::{
    Holder, Identity, Phase, WalWriter, WalWriterSpec, WalWriterStatus, Workload, condition,
};

use super::super::*;
use super::pod;

const NOW: i64 = 1_800_000_000_000;

fn web() -> Workload {
    Workload { group: "apps".into(), kind: "Deployment".into(), name: "web".into() }
}

fn writer(name: &str, phase: Phase) -> WalWriter {
    let spec = WalWriterSpec {
        storage: "orders".into(),
        writer: name.into(),
        writer_uid: format!("uid-{name}"),
        identity: Identity::Pooled,
        workload: web(),
    };
    let mut writer = WalWriter::new(&format!("orders.{name}"), spec);
    writer.status = Some(WalWriterStatus { phase: Some(phase), ..WalWriterStatus::default() });
    writer
}

fn held(name: &str, phase: Phase, uid: &str) -> WalWriter {
    let mut writer = writer(name, phase);
    let holder = Holder { pod_uid: uid.into(), ..Holder::default() };
    writer.status.as_mut().unwrap().holder = Some(holder);
    writer
}

fn marked(name: &str, phase: Phase, kind: &str, since: i64) -> WalWriter {
    let mut writer = writer(name, phase);
    writer.status.as_mut().unwrap().conditions = Some(vec![Condition {
        type_: kind.into(),
        status: "True".into(),
        reason: "R".into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::from_millisecond(since).unwrap()),
    }]);
    writer
}

fn names_writer(uid: &str, writer: &str) -> PodFacts {
    let meta = json!({"name": uid, "uid": uid, "labels": {"walstorage.dev/storage": "orders"},
        "annotations": {"walstorage.dev/writer": format!("orders.{writer}")}});
    pod(meta, None)
}

fn ending(uid: &str, writer: &str) -> PodFacts {
    PodFacts { deletion: Some(NOW), ..names_writer(uid, writer) }
}

/// The pool of a storage as a cache shows it now.
fn pool<'a>(workload: &'a Workload, writers: &'a [&'a WalWriter], pods: &'a [&'a PodFacts]) -> Pool<'a> {
    Pool { namespace: "shop", storage: "orders", workload, writers, pods, listed: false, now: NOW }
}

/// Every writer that chance can choose, and the class.
fn all_choices(writers: &[WalWriter], pods: &[PodFacts], reservations: &Reservations) -> (BTreeSet<String>, Class) {
    let writers: Vec<&WalWriter> = writers.iter().collect();
    let pods: Vec<&PodFacts> = pods.iter().collect();
    let workload = web();
    let pool = pool(&workload, &writers, &pods);
    let mut chosen = BTreeSet::new();
    let mut class = Class::Fresh;
    for at in 0..10 {
        let choice = choose(&pool, reservations, &mut |n| at % n);
        class = choice.class;
        chosen.insert(choice.writer);
    }
    (chosen, class)
}

fn choices(writers: &[WalWriter], pods: &[PodFacts]) -> (String, Class) {
    let (names, class) = all_choices(writers, pods, &Reservations::new(30_000));
    (if class == Class::Fresh { String::new() } else { Vec::from_iter(names).join(" ") }, class)
}

#[test]
fn entries_go_first_then_a_handover_then_the_drained_then_a_fresh_one() {
    let all = [
        writer("d1", Phase::Drained),
        held("h1", Phase::Releasing, "p1"),
        writer("o1", Phase::Orphaned),
        writer("r1", Phase::Released),
    ];
    let pods = [ending("p1", "h1")];
    assert_eq!(choices(&all, &pods), ("o1 r1".into(), Class::Entries));
    assert_eq!(choices(&all[..2], &pods), ("h1".into(), Class::Handover));
    assert_eq!(choices(&all[..1], &pods), ("d1".into(), Class::Drained));
    assert_eq!(choices(&[], &pods).1, Class::Fresh);
}

#[test]
fn a_writer_is_no_candidate_while_somebody_else_names_or_holds_it() {
    for (writer, pods) in [
        (writer("a", Phase::Orphaned), vec![names_writer("p1", "a")]),
        (writer("a", Phase::Released), vec![ending("p1", "a")]),
        (held("a", Phase::Active, "p1"), vec![names_writer("p1", "a")]),
        (held("a", Phase::Releasing, "p1"), vec![ending("p1", "a"), names_writer("p2", "a")]),
        (writer("a", Phase::Lost), vec![]),
        (writer("a", Phase::Reclaiming), vec![]),
        (marked("a", Phase::Releasing, condition::STUCK, 0), vec![]),
        (marked("a", Phase::Orphaned, condition::UNPLACEABLE, NOW - 3_599_000), vec![]),
    ] {
        assert_eq!(choices(std::slice::from_ref(&writer), &pods).1, Class::Fresh, "{writer:?}");
    }
    // An hour later, or once the pod that named it is deleted behind its gate, it is one again.
    let hour = marked("a", Phase::Orphaned, condition::UNPLACEABLE, NOW - 3_600_000);
    assert_eq!(choices(&[hour], &[]), ("a".into(), Class::Entries));
    let gated = PodFacts { gates: vec!["walstorage.dev/writer".into()], ..ending("p1", "a") };
    assert_eq!(choices(&[writer("a", Phase::Orphaned)], &[gated]), ("a".into(), Class::Entries));
    // A holder that the cache no longer has is on its way out; the ledger has not noticed yet.
    assert_eq!(choices(&[held("a", Phase::Active, "p1")], &[]), ("a".into(), Class::Handover));
}

#[test]
fn writers_of_others_are_no_candidates() {
    let mut other_workload = writer("a", Phase::Orphaned);
    other_workload.spec.workload.name = "shop".into();
    let mut other_storage = writer("a", Phase::Orphaned);
    other_storage.spec.storage = "carts".into();
    let mut named = writer("a", Phase::Orphaned);
    named.spec.identity = Identity::Named;
    assert_eq!(choices(&[other_workload, other_storage, named], &[]).1, Class::Fresh);
}

#[test]
fn ten_pods_that_one_replica_sees_at_once_get_ten_writers() {
    let writers: Vec<WalWriter> = (0..10).map(|n| writer(&format!("o{n}"), Phase::Orphaned)).collect();
    let refs: Vec<&WalWriter> = writers.iter().collect();
    let workload = web();
    let pool = pool(&workload, &refs, &[]);
    let mut reservations = Reservations::new(30_000);
    let mut chosen = BTreeSet::new();
    for _ in 0..10 {
        let choice = choose(&pool, &reservations, &mut |n| n - 1);
        reservations.reserve(&pool, &choice.writer);
        chosen.insert(choice.writer);
    }
    assert_eq!(chosen.len(), 10);
    assert_eq!(choose(&pool, &reservations, &mut |_| 0).class, Class::Fresh);
    // Elsewhere, and after its time, a reservation holds nobody up.
    assert_eq!(choose(&Pool { namespace: "other", ..pool }, &reservations, &mut |_| 0).class, Class::Entries);
    assert_eq!(choose(&Pool { now: NOW + 30_000, ..pool }, &reservations, &mut |_| 0).class, Class::Entries);
}

/// A pod that is deleted soon after it was made is replaced by one with its writer.
#[test]
fn a_reservation_ends_with_the_grant_that_it_was_for() {
    let with_epoch = |writer: WalWriter, epoch| {
        let mut writer = writer;
        writer.status.as_mut().unwrap().epoch = Some(epoch);
        writer
    };
    let workload = web();
    let mut reservations = Reservations::new(30_000);
    let mut proposed = |writer: &WalWriter, pods: &[&PodFacts], reserve: bool| {
        let writers = [writer];
        let pool = pool(&workload, &writers, pods);
        let choice = choose(&pool, &reservations, &mut |_| 0);
        if reserve {
            reservations.reserve(&pool, "w");
        }
        choice.class
    };
    let (first, second) = (ending("p", "w"), ending("q", "w"));
    assert_eq!(proposed(&writer("w", Phase::Drained), &[], true), Class::Drained);
    assert_eq!(proposed(&writer("w", Phase::Drained), &[], false), Class::Fresh, "not granted yet");
    let granted = with_epoch(held("w", Phase::Active, "p"), 7);
    assert_eq!(proposed(&granted, &[&first], true), Class::Handover);
    assert_eq!(proposed(&granted, &[&first], false), Class::Fresh, "another pod waits for it");
    let again = with_epoch(held("w", Phase::Active, "q"), 8);
    assert_eq!(proposed(&again, &[&second], false), Class::Handover);
}

/// A pod that a quota refuses after us was proposed a writer all the same.
#[test]
fn a_list_that_does_not_show_the_pod_ends_a_reservation_sooner_and_until_then_its_entries_are_kept() {
    let workload = web();
    let (orphan, drained) = (writer("a", Phase::Orphaned), writer("b", Phase::Drained));
    let releasing = held("a", Phase::Releasing, "p");
    // The pod that had it is gone, or still there on its way out.
    for (with_entries, old, class) in
        [(&orphan, names_writer("s", "d"), Class::Entries), (&releasing, ending("p", "a"), Class::Handover)]
    {
        let writers = [with_entries, &drained];
        let (taker, other) = (names_writer("q", "a"), names_writer("r", "c"));
        let pool = |pods, listed, later| Pool { listed, now: NOW + later, ..pool(&workload, &writers, pods) };
        let (unseen, seen) = ([&old, &other], [&old, &taker]);
        let mut reservations = Reservations::new(30_000);
        assert!(!reservations.keep_entries(&pool(&unseen, true, 0)));
        reservations.reserve(&pool(&unseen, false, 0), "a");
        for (pods, listed, later, kept, expected) in [
            (&unseen, false, 29_999, true, Class::Drained),
            (&unseen, true, 2_999, true, Class::Drained),
            (&unseen, true, 3_000, false, class),
            (&seen, true, 2_999, false, Class::Drained),
        ] {
            let pool = pool(pods, listed, later);
            assert_eq!(reservations.keep_entries(&pool), kept, "{listed} {later}");
            assert_eq!(choose(&pool, &reservations, &mut |_| 0).class, expected, "{listed} {later}");
        }
        reservations.reserve(&pool(&unseen, false, 30_000), "b");
        assert!(!reservations.keep_entries(&pool(&unseen, false, 30_000)), "nothing waits in one that is drained");
    }
}

#[test]
fn a_fresh_name_is_nobodys_name() {
    let taken = [writer("web-bbbbb", Phase::Lost)];
    let mut draws = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1].into_iter();
    let refs: Vec<&WalWriter> = taken.iter().collect();
    let workload = web();
    let pool = pool(&workload, &refs, &[]);
    let choice = choose(&pool, &Reservations::new(1), &mut |_| draws.next().unwrap());
    assert_eq!(choice, Chosen { writer: "web-ccccc".into(), class: Class::Fresh });
}

#[test]
fn a_drain_takes_the_writer_it_names_and_only_without_a_pod() {
    let writers = [writer("a", Phase::Orphaned), held("b", Phase::Active, "p")];
    let refs: Vec<&WalWriter> = writers.iter().collect();
    assert_eq!(to_drain(&refs, "orders", "uid-a"), Ok("a"));
    let refused = to_drain(&refs, "orders", "uid-b").unwrap_err().to_string();
    assert!(refused.contains("Active") && refused.contains("wait"), "{refused}");
    assert!(to_drain(&refs, "orders", "uid-c").unwrap_err().to_string().contains("writerUid"));
    assert!(to_drain(&refs, "carts", "uid-a").is_err());
}
