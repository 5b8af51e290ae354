//! The pod of a drain Job: it gets the orphan that its user named, and nobody else's; after it the writer has no pod again.

use walstorage_crds::names;
use walstorage_crds::walwriter::Phase;

use super::control::template;
use super::world::{World, storage};
use crate::grant::run::NoteReason;
use crate::identity::PodPhase;

/// A pod of a Job, past the webhook, which names a writer of `StatefulSet` db; perhaps to drain the writer of this uid.
fn pod_of_job(world: &mut World, name: &str, drains: Option<&str>) {
    let mut pod = template(&mut world.api, name, Some(["batch", "Job", "drain"]), false);
    pod.generate_name = "drain-".to_owned();
    let set = [(names::ANNOTATION_WRITER, "orders.db-0"), (names::ANNOTATION_WORKLOAD, "batch/Job/drain")];
    pod.annotations.extend(set.map(|(key, value)| (key.to_owned(), value.to_owned())));
    pod.labels.insert(names::LABEL_WRITER.to_owned(), "db-0".to_owned());
    let seal = pod.seal_for("db-0").unwrap();
    pod.annotations.insert(names::ANNOTATION_SEAL.to_owned(), seal);
    pod.annotations.extend(drains.map(|uid| (names::ANNOTATION_DRAIN.to_owned(), uid.to_owned())));
    pod.gates = vec![names::GATE.to_owned()];
    pod.claims = vec![(names::volume("orders", "a"), names::claim("orders", "a", "db-0"))];
    world.api.put_pod(pod);
}

/// A Job drains an orphan, completes, and its pod is long gone.
fn is_drained(world: &mut World, uid: &str, left: usize) {
    pod_of_job(world, "drain-now", Some(uid));
    world.rounds(8);
    assert_eq!(world.phase("db-0"), Some(Phase::Active), "{}", world.shown());
    let holder = world.status("db-0").holder.unwrap();
    assert_eq!((holder.pod_name.as_str(), world.nodes.replayed), ("drain-now", 1), "it reads what there is");
    // What it moved is in buckets, and nobody has applied it.
    world.nodes.kill(&mut world.api, &holder.pod_uid);
    world.containers_end("drain-now", "db-0", left);
    world.api.edit_pod("drain-now", |pod| pod.phase = PodPhase::Succeeded);
    world.rounds(2);
    assert_eq!(world.phase("db-0"), Some(Phase::Released));
}

#[test]
fn the_pod_of_a_drain_job_gets_the_orphan_that_it_names_and_leaves_it_an_orphan() {
    let mut world = World::serving(1, &["a"], 3);
    let uid = world.writer_uid("db-0");
    // Not under a pod that lives.
    pod_of_job(&mut world, "drain-early", Some(&uid));
    world.rounds(4);
    assert!(world.api.pods["drain-early"].is_gated(), "a Job's pod waits: deleting it would count as a failure");
    world.api.remove_pod("drain-early");
    world.stateful = 0;
    world.rounds(80);
    assert_eq!(world.phase("db-0"), Some(Phase::Orphaned));
    let workload = world.api.writers["orders.db-0"].spec.workload.clone();

    // Of another workload, or for another writer: not this one.
    let before = world.notes(NoteReason::WriterBelongsToAnother);
    for (name, drains) in [("drain-none", None), ("drain-other", Some("00000000-0000-4000-8000-000000000000"))] {
        pod_of_job(&mut world, name, drains);
        world.rounds(4);
        assert!(world.api.pods[name].is_gated(), "{name}");
        world.rounds(40);
        assert!(!world.api.pods.contains_key(name), "in the end it goes, and its Job says that it failed");
    }
    assert!(world.notes(NoteReason::WriterBelongsToAnother) >= before + 2);

    let left = world.unapplied();
    is_drained(&mut world, &uid, left);
    assert_eq!(world.api.writers["orders.db-0"].spec.workload, workload, "the writer is whose it was");
    let report = world.status("db-0").last_report.unwrap();
    assert_eq!(report.unapplied_entries, i64::try_from(left).ok());
    assert_eq!(report.empty.as_deref(), Some(&["a".to_owned()][..]));
    world.rounds(80);
    assert_eq!(world.phase("db-0"), Some(Phase::Orphaned));
    assert_eq!(world.api.claims.len(), 1, "an emptied claim goes when the writer does");
    // Its own pod comes back to all of it.
    world.stateful = 1;
    world.settle();
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
    assert!(world.unapplied() >= left);
}

/// Nothing is lost with a claim that is known to be empty, once no pod is to have it.
#[test]
fn an_emptied_claim_is_missed_only_while_its_url_is_in_the_storage() {
    for (urls, phase) in [(["a"], Phase::Lost), (["b"], Phase::Orphaned)] {
        let mut world = World::serving(1, &["a"], 3);
        let (uid, left) = (world.writer_uid("db-0"), world.unapplied());
        world.stateful = 0;
        world.rounds(80);
        is_drained(&mut world, &uid, left);
        world.rounds(80);
        world.api.remove_pod("drain-now");
        world.api.storage = Some(storage(&urls));
        world.api.delete_claim(&names::claim("orders", "a", "db-0"));
        world.rounds(8);
        assert_eq!(world.phase("db-0"), Some(phase), "{urls:?}: {}", world.shown());
    }
}
