//! The invariants by name, and the scenarios that must exist. Where it says so, each call of a scenario fails in each way.

use std::collections::BTreeSet;

use walstorage_crds::names;
use walstorage_crds::walstorage::{WhenDeleted, WhenDrained};
use walstorage_crds::walwriter::Phase;

use super::control::{Fault, template};
use super::stage::whatever_fails;
use super::world::World;
use crate::grant::call::ClaimFacts;
use crate::grant::run::{Key, NoteReason, Run, Step};
use crate::identity::PodPhase;

/// A StatefulSet's pod with entries, scaled away, and back.
fn down_and_up(world: &mut World) {
    world.begin(3);
    world.stateful = 0;
    world.rounds(8);
    world.stateful = 1;
    world.rounds(8);
}

/// A Deployment's pod is deleted by force; its successor takes over.
fn handover(world: &mut World) {
    world.deployment = 1;
    world.rounds(8);
    world.append(3);
    let pod = world.api.pods.keys().next().cloned();
    if let Some(pod) = pod {
        world.force_delete(&pod);
    }
    world.rounds(8);
}

#[test]
fn i01_a_writer_has_one_pod_that_may_run_whatever_call_fails() {
    whatever_fails(&["a"], down_and_up);
    whatever_fails(&["a", "b"], handover);
}

#[test]
fn i02_a_pod_that_is_not_the_holder_is_not_let_go() {
    let mut world = World::serving(2, &["a"], 0);
    // Another pod names the same writer, with a seal of its own.
    let mut rival = template(&mut world.api, "db-0-rival", Some(["apps", "StatefulSet", "db"]), false);
    rival.annotations.insert(names::ANNOTATION_WRITER.to_owned(), "orders.db-0".to_owned());
    rival.annotations.insert(names::ANNOTATION_WORKLOAD.to_owned(), "apps/StatefulSet/db".to_owned());
    rival.annotations.insert(names::ANNOTATION_SEAL.to_owned(), rival.seal_for("db-0").unwrap());
    rival.gates = vec![names::GATE.to_owned()];
    rival.claims = vec![(names::volume("orders", "a"), names::claim("orders", "a", "db-0"))];
    world.api.put_pod(rival);
    world.rounds(8);
    assert!(world.api.pods["db-0-rival"].is_gated());
    assert!(world.notes(NoteReason::WaitingForWriter) > 0);
}

#[test]
fn i03_admission_writes_nothing_and_a_dry_run_not_even_a_reservation() {
    let mut world = World::new(3, &["a"]);
    let pod = template(&mut world.api, "web-1-", Some(["apps", "ReplicaSet", "web-1"]), true);
    let admit = |world: &mut World, dry_run| {
        let seen = world.webhooks[0].admit(&world.api, pod.clone(), dry_run, &mut world.dice).unwrap();
        seen.writer().unwrap().to_owned()
    };
    orphan(&mut world, 1);
    let logged = world.api.log.len();
    let orphaned = admit(&mut world, true);
    assert_eq!(admit(&mut world, false), orphaned, "a dry run reserves nothing");
    // A quota rejects that pod after us. For a while the writer is reserved, then it is proposed again.
    assert_ne!(admit(&mut world, false), orphaned);
    world.api.now += 30_000;
    assert_eq!(admit(&mut world, false), orphaned);
    assert_eq!(world.api.log.len(), logged, "nothing is stored, so nothing leaks");
}

/// So many writers of the Deployment with entries and without a pod.
fn orphan(world: &mut World, count: usize) {
    world.deployment = count;
    world.rounds(20);
    world.append(2);
    world.deployment = 0;
    world.rounds(80);
    for webhook in &mut world.webhooks {
        webhook.cache.advance(&world.api, usize::MAX);
    }
    let orphans =
        world.api.writers.keys().filter(|name| world.phase(&name["orders.".len()..]) == Some(Phase::Orphaned));
    assert_eq!(orphans.count(), count, "{}", world.shown());
}

#[test]
fn i04_losers_are_deleted_behind_their_gates_only() {
    let mut world = World::new(4, &["a"]);
    orphan(&mut world, 3);
    // Two replicas that know nothing of each other propose the same writers.
    world.deployment = 3;
    world.settle();
    assert_eq!(world.notes(NoteReason::LostWriterRace), world.api.losers);
}

#[test]
fn i05_claims_go_only_after_the_writer_was_given_up_whatever_call_fails() {
    whatever_fails(&["a"], |world| {
        world.stateful = 1;
        world.rounds(6);
        world.append(2);
        world.stateful = 0;
        world.rounds(6);
        let uid = world.writer_uid("db-0");
        world.abandon("orders.db-0", &uid);
        world.rounds(6);
        world.stateful = 1;
        world.rounds(6);
    });
}

#[test]
fn i06_the_epoch_rises_with_every_grant() {
    let mut world = World::new(6, &["a"]);
    let mut last = 0;
    for _ in 0..5 {
        world.stateful = 1;
        world.rounds(6);
        let epoch = world.status("db-0").epoch.unwrap();
        assert!(epoch > last);
        last = epoch;
        world.stateful = 0;
        world.rounds(6);
        // A clock that steps back changes nothing.
        world.api.now -= 60_000;
    }
}

#[test]
pub(super) fn i07_a_directory_is_made_once_and_what_comes_up_empty_is_lost() {
    let mut world = World::new(7, &["a"]);
    down_and_up(&mut world);
    world.append(2);
    let claim = world.api.claims.values().next().unwrap().uid.clone();
    world.stateful = 0;
    world.rounds(8);
    // Somebody empties the disk; the claim is the same.
    world.api.truth.disks.remove(&claim);
    world.stateful = 1;
    world.rounds(8);
    assert!(world.nodes.lost > 0 && world.nodes.processes.is_empty(), "it must not begin at LSN 1");
}

#[test]
fn i09_a_running_pod_whose_ledger_was_deleted_is_held_again_and_under_its_own_epoch() {
    let mut world = World::serving(9, &["a"], 3);
    let before = world.api.writers["orders.db-0"].clone();
    world.api.remove_writer("orders.db-0");
    let held = |world: &World| world.status("db-0").holder.map(|holder| holder.pod_uid);
    world.all_controllers_unchecked();
    world.rounds(3);
    let after = world.api.writers["orders.db-0"].clone();
    assert_eq!(after.spec, before.spec);
    assert_eq!(world.status("db-0").epoch, before.status.clone().unwrap().epoch);
    assert_eq!(held(&world), before.status.unwrap().holder.map(|holder| holder.pod_uid));
    world.rounds(3);
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
    assert_eq!(world.status("db-0").volumes.unwrap()[0].initialized, Some(true));
}

#[test]
fn i10_a_leader_killed_between_g3_and_g5_is_gone_on_from() {
    let mut world = World::new(10, &["a"]);
    world.stateful = 1;
    for webhook in &mut world.webhooks {
        webhook.cache.advance(&world.api, usize::MAX);
    }
    while world.api.pods.is_empty() {
        world.workloads_act();
    }
    world.controllers[0].cache.advance(&world.api, usize::MAX);
    while world.api.writers.get("orders.db-0").is_none_or(|w| w.status.as_ref().is_none_or(|s| s.holder.is_none())) {
        world.control(0, Fault::None);
    }
    world.controllers.remove(0);
    assert!(world.api.pods["db-0"].is_gated());
    let epoch = world.status("db-0").epoch;
    world.settle();
    assert_eq!(world.status("db-0").epoch, epoch, "it goes on with the same grant");
}

/// What the first grant of a pod costs: each call is in the way of thousands that start together.
#[test]
fn a_fresh_pod_is_granted_with_six_calls_of_which_two_are_lists() {
    let mut world = World::new(22, &["a"]);
    world.stateful = 1;
    while world.api.pods.is_empty() {
        world.workloads_act();
    }
    assert_eq!(
        world.calls_of("db-0"),
        ["ListPods", "ListClaims", "CreateWriter", "CreateClaim", "SwapStatus", "PatchPod"]
    );
    assert!(!world.api.pods["db-0"].is_gated());
    // Until it is scheduled each look at it is two reads.
    assert_eq!(world.calls_of("db-0"), ["GetWriter", "GetPod"]);
}

#[test]
fn a_ledger_that_nobody_has_seen_yet_is_met_when_it_is_made_again() {
    let mut world = World::serving(27, &["a"], 1);
    let (key, before) = (Key::of("shop", "orders.db-0").unwrap(), world.status("db-0"));
    let view =
        crate::grant::View { has_ledger: false, ledger: None, ..world.controllers[0].view(&mut world.api, &key) };
    let calls = world.calls_with(&key, view);
    assert_eq!(calls, ["ListPods", "ListClaims", "CreateWriter", "GetWriter", "GetPod"]);
    assert_eq!(world.status("db-0"), before, "it is the holder's still");
}

#[test]
fn a_claim_that_is_there_already_is_read_whether_a_quota_is_full_or_not() {
    for full in [false, true] {
        let mut world = World::new(23, &["a"]);
        world.stateful = 1;
        while world.api.pods.is_empty() {
            world.workloads_act();
        }
        // As a StatefulSet makes it of its template: without a writer, so that no cache of ours has it.
        let labels = [(names::LABEL_STORAGE, "orders"), (names::LABEL_URL, "a")];
        world.api.put_claim(ClaimFacts {
            name: "wal-orders--a-db-0".to_owned(),
            uid: "claim".to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            size: "10Gi".to_owned(),
            ..ClaimFacts::default()
        });
        world.api.quota_is_full = full;
        let calls = world.calls_of("db-0");
        assert_eq!(calls[3..], ["CreateClaim", "GetClaim", "MarkClaim", "SwapStatus", "PatchPod"], "{calls:?}");
        assert_eq!(world.status("db-0").volumes.unwrap()[0].claim_uid.as_deref(), Some("claim"));
    }
}

#[test]
fn ten_replicas_take_over_ten_orphans_through_two_webhooks() {
    let mut world = World::new(11, &["a"]);
    (world.most, world.admits_all) = (10, true);
    orphan(&mut world, 10);
    let left = world.unapplied();
    let writers: BTreeSet<String> = world.api.writers.keys().cloned().collect();
    world.deployment = 10;
    world.settle();
    let held = world.api.writers.values().filter_map(|writer| writer.status.clone()?.holder);
    let holders: BTreeSet<String> = held.map(|holder| holder.pod_uid).collect();
    assert_eq!(holders.len(), 10);
    assert_eq!(world.api.writers.keys().cloned().collect::<BTreeSet<_>>(), writers, "no fresh writer beside them");
    assert!(left >= 20 && world.unapplied() >= left);
    println!("{} pods lost a race on the way", world.api.losers);
}

#[test]
fn a_stateful_set_from_five_to_three_to_five_replays_everything() {
    let mut world = World::new(12, &["a"]);
    world.most = 5;
    world.stateful = 5;
    world.settle();
    world.append(4);
    world.stateful = 3;
    world.settle();
    assert_eq!(world.phase("db-4"), Some(Phase::Orphaned));
    assert!(world.unapplied() >= 20);
    let replayed = world.nodes.replayed;
    world.stateful = 5;
    world.settle();
    assert_eq!(world.nodes.replayed - replayed, 2);
}

#[test]
fn after_a_force_deletion_the_successor_waits_for_the_old_process_and_replays_what_it_acknowledged() {
    let mut world = World::serving(13, &["a"], 2);
    world.force_delete("db-0");
    world.rounds(8);
    assert_eq!(world.phase("db-0"), Some(Phase::Pending));
    assert!(!world.api.pods["db-0"].sidecar_started, "the old process has its directory open");
    world.append(2);
    let left = world.unapplied();
    let replayed = world.nodes.replayed;
    world.settle();
    assert_eq!((world.nodes.replayed - replayed, world.phase("db-0")), (1, Some(Phase::Active)));
    assert!(left >= 4 && world.unapplied() >= left);
}

#[test]
fn a_claim_deleted_under_its_pod_makes_the_writer_lost_and_only_the_user_gives_it_up() {
    let mut world = World::serving(14, &["a", "b"], 8);
    world.api.delete_claim("wal-orders--a-db-0");
    world.rounds(4);
    assert_eq!(world.phase("db-0"), Some(Phase::Active), "the pod goes on");
    world.stateful = 0;
    world.rounds(8);
    world.stateful = 1;
    world.rounds(8);
    assert_eq!(world.phase("db-0"), Some(Phase::Lost));
    assert!(world.api.pods["db-0"].is_gated());
    let told = |world: &World| {
        let notes = world.controllers.iter().flat_map(|one| &one.notes);
        notes.filter(|note| note.reason == NoteReason::Lost).map(|note| note.message.clone()).collect::<BTreeSet<_>>()
    };
    let remedy = format!("{}=a@", names::ANNOTATION_ACCEPT_LOSS);
    assert!(told(&world).iter().any(|message| message.contains(&remedy)), "{:?}", told(&world));
    // Another loss than this one accepts nothing.
    world.api.annotate_writer("orders.db-0", names::ANNOTATION_ACCEPT_LOSS, "a@another");
    world.rounds(4);
    assert_eq!(world.phase("db-0"), Some(Phase::Lost));
    world.accept_losses();
    world.rounds(1);
    let told = world.api.pods["db-0"].annotation(names::ANNOTATION_GRANT).unwrap().to_owned();
    assert!(told.contains(r#""init":["a"],"forget":["a"]"#), "{told}");
    world.settle();
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
    assert!(
        !world.api.writers["orders.db-0"]
            .metadata
            .annotations
            .clone()
            .unwrap_or_default()
            .contains_key(names::ANNOTATION_ACCEPT_LOSS)
    );
}

#[test]
fn a_namespace_that_ends_is_not_fought_with() {
    let mut world = World::serving(15, &["a"], 0);
    world.api.namespace_ends = true;
    for key in world.controllers[0].keys() {
        let view = world.controllers[0].view(&mut world.api, &key);
        assert!(matches!(Run::new(key, view).step(None), Step::Done(_)), "no call is made");
    }
    // One that has not heard of it is refused what it would make, and ends.
    let key = Key::of("shop", "orders.db-9").unwrap();
    let view = crate::grant::View { namespace_ends: false, ..world.controllers[0].view(&mut world.api, &key) };
    let mut run = Run::new(key.clone(), view);
    let mut answer = None;
    while let Step::Call(call) = run.step(answer) {
        answer = Some(world.api.call(&key, &call));
    }
    assert_eq!(world.api.writers.len(), 1);
}

#[test]
fn a_full_quota_for_claims_holds_the_pod_and_leaves_nothing_half_done() {
    let mut world = World::new(16, &["a", "b"]);
    world.stateful = 1;
    world.api.quota_is_full = true;
    world.rounds(8);
    assert!(world.api.pods["db-0"].is_gated() && world.api.claims.is_empty());
    let ready = world.status("db-0");
    let ready = ready.condition("ClaimsReady").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "QuotaExceeded"));
    world.settle();
    assert_eq!(world.status("db-0").condition("ClaimsReady").unwrap().status, "True");
}

#[test]
fn what_is_drained_goes_when_the_policy_says_so_and_what_has_entries_stays() {
    let mut world = World::new(17, &["a"]);
    if let Some(storage) = &mut world.api.storage {
        storage.when_drained = WhenDrained::Delete;
        storage.drained_after = 60_000;
    }
    (world.stateful, world.most) = (2, 2);
    world.settle();
    world.append(3);
    // Ends with a word: a kill is not what this is about.
    while world.phase("db-0") != Some(Phase::Drained) {
        world.stateful = 2;
        world.settle();
        world.api.truth.truncate(&world.writer_uid("db-0"));
        world.stateful = 0;
        world.rounds(6);
    }
    world.rounds(40);
    let claims: Vec<&String> = world.api.claims.keys().collect();
    assert_eq!(claims, ["wal-orders--a-db-1"], "{}", world.shown());
    assert_eq!(world.phase("db-0"), Some(Phase::Drained), "its tombstone keeps the uid");
}

#[test]
fn a_deleted_storage_takes_what_its_policy_names() {
    for (policy, left) in [(WhenDeleted::Retain, 1), (WhenDeleted::DeleteDrained, 1), (WhenDeleted::Delete, 0)] {
        let mut world = World::serving(18, &["a"], 2);
        world.stateful = 0;
        world.rounds(8);
        if let Some(storage) = &mut world.api.storage {
            (storage.deleting, storage.when_deleted) = (true, policy);
        }
        world.rounds(12);
        assert_eq!((world.api.claims.len(), world.api.writers.len()), (left, left), "{policy:?} {}", world.shown());
    }
}

#[test]
fn entries_that_outlive_their_storage_are_orphaned_and_found_by_the_next_one() {
    let mut world = World::serving(20, &["a"], 3);
    world.stateful = 0;
    world.rounds(8);
    let storage = world.api.storage.take();
    world.rounds(80);
    assert_eq!(world.phase("db-0"), Some(Phase::Orphaned), "{}", world.shown());
    assert!(world.notes(NoteReason::Orphaned) > 0);
    world.api.storage = storage;
    world.stateful = 1;
    world.settle();
    assert!(world.unapplied() >= 3);
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
}

#[test]
pub(super) fn what_a_container_said_before_it_started_again_is_not_believed_after_a_force_deletion() {
    let mut world = World::serving(19, &["a"], 0);
    world.api.truth.truncate(&world.writer_uid("db-0"));
    // Both containers ended well, and both run again, which the node could not report.
    world.containers_end("db-0", "db-0", 0);
    world.append(3);
    let left = world.unapplied();
    world.force_delete("db-0");
    world.stateful = 0;
    world.rounds(4);
    assert!(left >= 3);
    assert_eq!(world.phase("db-0"), Some(Phase::Released));
}

#[test]
pub(super) fn what_a_pod_said_last_is_waited_for_while_the_watch_is_behind() {
    let mut world = World::new(21, &["a"]);
    world.controllers.truncate(1);
    world.stateful = 1;
    world.rounds(8);
    world.api.truth.truncate(&world.writer_uid("db-0"));
    let uid = world.api.pods["db-0"].uid.clone();
    let run = |world: &mut World| {
        world.controllers[0].begin(&mut world.api, Key::of("shop", "orders.db-0").unwrap());
        while !world.controllers[0].is_idle() {
            world.controllers[0].step(&mut world.api, Fault::None);
        }
    };
    // It ends, says that nothing is left, and goes, and its successor waits: all before the watch tells of any of it.
    world.nodes.kill(&mut world.api, &uid);
    world.containers_end("db-0", "db-0", 0);
    world.api.edit_pod("db-0", |pod| pod.phase = PodPhase::Succeeded);
    world.api.remove_pod("db-0");
    run(&mut world);
    assert_eq!(world.status("db-0").holder.map(|holder| holder.pod_uid), Some(uid), "what it said is on its way");
    world.controllers[0].cache.advance(&world.api, usize::MAX);
    run(&mut world);
    assert_eq!(world.phase("db-0"), Some(Phase::Drained));
    // Where the watch was interrupted meanwhile nothing will come any more, and nobody waits for it.
    world.rounds(8);
    world.api.remove_pod("db-0");
    world.controllers[0].cache.relist(&world.api);
    run(&mut world);
    assert_eq!(world.phase("db-0"), Some(Phase::Released));
}
