//! The short way of a start, where it is gone and where it is not; and what a claim says to a ledger that is made anew.

use walstorage_crds::names;
use walstorage_crds::walstorage::{UrlSpec, VolumeSpec, WalStorageSpec};
use walstorage_crds::walwriter::Phase;

use super::control::Fault;
use super::world::{World, storage_of};
use crate::grant::annotation::Grant;
use crate::grant::call::Call;
use crate::grant::run::Key;
use crate::grant::view::View;
use crate::identity::PodFacts;

fn key() -> Key {
    Key::of("shop", "orders.db-0").unwrap()
}

/// A controller makes all calls of one run.
fn run(world: &mut World, which: usize) {
    world.controllers[which].begin(&mut world.api, key());
    while !world.controllers[which].is_idle() {
        world.controllers[which].step(&mut world.api, Fault::None);
    }
}

/// The StatefulSet has its pod, and the controllers have seen that.
fn made(world: &mut World) {
    world.stateful = 1;
    while world.api.pods.is_empty() {
        world.workloads_act();
    }
    watch(world);
}

fn watch(world: &mut World) {
    for controller in &mut world.controllers {
        controller.cache.advance(&world.api, usize::MAX);
    }
}

/// What the first controller sees of it, while no other writer waits.
fn quiet(world: &mut World) -> View {
    View { crowded: false, ..world.controllers[0].view(&mut world.api, &key()) }
}

/// A pod has its writer and has started, and the first controller has seen that.
fn started(seed: u64) -> World {
    let mut world = World::new(seed, &["a"]);
    made(&mut world);
    run(&mut world, 0);
    while !world.api.pods["db-0"].sidecar_started {
        world.nodes.tend(&mut world.api, "db-0", &mut world.dice);
    }
    watch(&mut world);
    world
}

#[test]
fn a_start_that_the_caches_show_is_written_without_a_read() {
    let mut world = started(29);
    let view = quiet(&mut world);
    assert_eq!(world.calls_with(&key(), view), ["SwapStatus", "PatchPod"]);
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
    assert_eq!(world.status("db-0").volumes.unwrap()[0].initialized, Some(true));
    let grant = Grant::parse(world.api.pods["db-0"].annotation(names::ANNOTATION_GRANT).unwrap()).unwrap();
    assert!(!grant.lets_begin());
    // What is left of it when the run ends between the two, too.
    let mut world = started(30);
    while !matches!(world.controllers[0].next(), Some(Call::PatchPod { .. })) {
        if world.controllers[0].is_idle() {
            world.controllers[0].begin(&mut world.api, key());
        } else {
            world.controllers[0].step(&mut world.api, Fault::None);
        }
    }
    world.controllers[0].crash(&world.api);
    let view = quiet(&mut world);
    assert_eq!(world.calls_with(&key(), view), ["PatchPod"]);
    world.settle();
}

#[test]
fn what_a_grant_lets_begin_is_taken_back_later_where_other_writers_wait() {
    let mut world = started(37);
    let view = quiet(&mut world);
    assert_eq!(world.calls_with(&key(), View { crowded: true, ..view }), ["SwapStatus"]);
    assert_eq!(world.phase("db-0"), Some(Phase::Active), "its pod is known to have started");
    watch(&mut world);
    // Whoever looks next does it, wait who may.
    let view = quiet(&mut world);
    assert_eq!(world.calls_with(&key(), View { crowded: true, ..view }), ["PatchPod"]);
    world.settle();
}

#[test]
fn what_a_grant_gives_up_is_taken_back_at_once() {
    let mut world = started(38);
    world.api.edit_pod("db-0", |pod| {
        let line = pod.annotations.get_mut(names::ANNOTATION_GRANT).unwrap();
        let grant = Grant::parse(line).unwrap();
        *line = Grant { forget: grant.init.clone(), ..grant }.to_line();
    });
    watch(&mut world);
    let view = quiet(&mut world);
    assert_eq!(world.calls_with(&key(), View { crowded: true, ..view }), ["SwapStatus", "PatchPod"]);
    world.settle();
}

#[test]
fn a_start_is_read_where_the_ledger_or_the_pod_is_another_one_by_now() {
    let mut world = started(31);
    let view = quiet(&mut world);
    world.api.annotate_writer("orders.db-0", "somebody", "was here");
    assert_eq!(world.calls_with(&key(), view), ["SwapStatus", "GetWriter", "GetPod", "SwapStatus", "PatchPod"]);
    assert_eq!(world.phase("db-0"), Some(Phase::Active));

    let mut world = started(32);
    let view = quiet(&mut world);
    world.api.edit_pod("db-0", |pod| pod.ip = "192.0.2.7".to_owned());
    assert_eq!(world.calls_with(&key(), view), ["SwapStatus", "PatchPod", "GetWriter", "GetPod", "PatchPod"]);
    assert_eq!(world.phase("db-0"), Some(Phase::Active));
    world.settle();
}

#[test]
fn a_start_is_read_where_there_is_anything_else_to_do() {
    type Edit = fn(&mut View);
    fn pod(view: &mut View) -> &mut PodFacts {
        &mut view.pods[0]
    }
    let edits: [(&str, Edit); 11] = [
        ("another pod wants it", |view| {
            let rival = PodFacts { uid: "rival".into(), gates: vec![names::GATE.into()], ..view.pods[0].clone() };
            view.pods.push(rival);
        }),
        ("it is another pod", |view| pod(view).uid.push('2')),
        ("it has not started", |view| pod(view).sidecar_started = false),
        ("it ends", |view| pod(view).deletion = Some(1)),
        ("it is gated", |view| pod(view).gates.push(names::GATE.into())),
        ("another epoch", |view| {
            let grant = pod(view).annotations.get_mut(names::ANNOTATION_GRANT).unwrap();
            let mut other = Grant::parse(grant).unwrap();
            other.epoch += 1;
            *grant = other.to_line();
        }),
        ("a verb", |view| {
            let metadata = &mut view.ledger.as_mut().unwrap().metadata;
            metadata.annotations.get_or_insert_default().insert(names::ANNOTATION_ABANDON.into(), "x".into());
        }),
        ("a claim that is not seen", |view| view.claims.clear()),
        ("a claim without a mark", |view| {
            view.claims.values_mut().for_each(|claim| claim.annotations.clear());
        }),
        ("a claim that is to grow", |view| {
            let volume = VolumeSpec { size: Some("20Gi".into()), ..VolumeSpec::default() };
            let url =
                UrlSpec { name: "a".into(), url: "file:///wal/a".into(), volume: Some(volume), ..UrlSpec::default() };
            view.storage = Some(storage_of(WalStorageSpec { wal_urls: Some(vec![url]), ..WalStorageSpec::default() }));
        }),
        ("a ledger that is not seen", |view| view.ledger = None),
    ];
    for (what, edit) in edits {
        let mut world = started(33);
        let mut view = quiet(&mut world);
        edit(&mut view);
        assert_eq!(world.calls_with(&key(), view)[0], "GetWriter", "{what}");
    }
}

/// The watch of ledgers shows the next holder, that of pods still the one before, which had started.
#[test]
pub(super) fn a_start_that_a_late_watch_shows_is_not_the_next_pods() {
    let mut world = World::serving(34, &["a"], 2);
    world.force_delete("db-0");
    world.stateful = 1;
    while world.api.pods.is_empty() {
        for webhook in &mut world.webhooks {
            webhook.cache.advance(&world.api, usize::MAX);
        }
        world.workloads_act();
    }
    world.controllers[1].cache.advance(&world.api, usize::MAX);
    run(&mut world, 1);
    assert_eq!(world.phase("db-0"), Some(Phase::Pending), "{}", world.shown());
    let late = world.controllers[0].view(&mut world.api, &key());
    assert!(late.pods[0].sidecar_started && late.pods[0].uid != world.api.pods["db-0"].uid);
    let ledger = world.api.writers["orders.db-0"].clone();
    world.calls_with(&key(), View { ledger: Some(Box::new(ledger)), ..late });
    assert_eq!(world.phase("db-0"), Some(Phase::Pending), "it has not started");
    world.settle();
}

#[test]
pub(super) fn a_directory_is_not_made_anew_for_a_ledger_that_is() {
    let mut world = World::serving(35, &["a"], 3);
    world.stateful = 0;
    world.rounds(8);
    let claim = world.api.claims["wal-orders--a-db-0"].clone();
    assert_eq!(
        claim.annotations.get(names::ANNOTATION_INITIALIZED),
        world.api.writers["orders.db-0"].metadata.uid.as_ref()
    );
    // Somebody deletes the ledger and empties the disk. What was on it, the claim says.
    world.api.remove_writer("orders.db-0");
    world.api.truth.disks.remove(&claim.uid);
    world.stateful = 1;
    while world.api.pods.is_empty() {
        world.stateful_set_acts();
    }
    for _ in 0..3 {
        world.all_controllers_unchecked();
    }
    world.rounds(8);
    assert_eq!(world.status("db-0").volumes.unwrap()[0].initialized, Some(true));
    assert!(world.nodes.lost > 0 && world.nodes.processes.is_empty(), "it must not begin at LSN 1");
}

#[test]
fn a_claim_that_never_had_a_volume_is_new_to_a_ledger_that_is_made_anew() {
    let mut world = World::new(36, &["a"]);
    made(&mut world);
    world.controllers[0].begin(&mut world.api, key());
    while world.api.claims.is_empty() {
        world.controllers[0].step(&mut world.api, Fault::None);
    }
    world.controllers[0].crash(&world.api);
    world.api.remove_writer("orders.db-0");
    world.settle();
    assert_eq!((world.phase("db-0"), world.nodes.lost), (Some(Phase::Active), 0));
}
