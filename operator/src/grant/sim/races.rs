//! Two controllers, call by call.

use super::control::Fault;
use super::world::World;
use crate::grant::call::Call;
use crate::grant::run::{Key, Outcome, Run, Step};
use walstorage_crds::walwriter::Phase;

#[test]
fn i08_two_controllers_at_once_break_nothing() {
    for seed in 1..=40 {
        let mut world = World::new(seed, &["a"]);
        (world.stateful, world.deployment) = (2, 2);
        for _ in 0..300 {
            // Call by call, in turn: as close together as two can be.
            for which in 0..2 {
                world.controllers[which].cache.advance(&world.api, usize::MAX);
                world.control(which, Fault::None);
                world.api.check();
            }
            world.workloads_act();
            for webhook in &mut world.webhooks {
                webhook.cache.advance(&world.api, 1);
            }
        }
        world.settle();
    }
}

/// One controller is about to list the claims of a writer that was given up. Before it does, another is done with that life
/// of the writer and has begun the next one.
#[test]
pub(super) fn claims_of_a_writers_next_life_are_not_those_that_were_given_up() {
    let mut world = World::serving(24, &["a"], 2);
    let key = Key::of("shop", "orders.db-0").unwrap();
    world.stateful = 0;
    world.rounds(8);
    let uid = world.writer_uid("db-0");
    world.abandon("orders.db-0", &uid);
    // A run for the change, and one for what that wrote: it reads the ledger as it is when the claims are to go.
    for phase in [Phase::Released, Phase::Reclaiming] {
        assert_eq!(world.phase("db-0"), Some(phase), "{}", world.shown());
        world.controllers[0].cache.advance(&world.api, usize::MAX);
        world.controllers[0].begin(&mut world.api, key.clone());
        while !matches!(world.controllers[0].next(), Some(Call::ListClaims)) {
            world.controllers[0].step(&mut world.api, Fault::None);
        }
        if phase == Phase::Released {
            world.controllers[0].crash(&world.api);
        }
    }

    let given_up = world.api.claims["wal-orders--a-db-0"].uid.clone();
    world.stateful = 1;
    while world.api.pods.get("db-0").is_none_or(|pod| pod.is_gated()) {
        for webhook in &mut world.webhooks {
            webhook.cache.advance(&world.api, usize::MAX);
        }
        world.workloads_act();
        world.controllers[1].cache.advance(&world.api, usize::MAX);
        world.controllers[1].begin(&mut world.api, key.clone());
        while !world.controllers[1].is_idle() {
            world.controllers[1].step(&mut world.api, Fault::None);
        }
        world.api.now += 5_000;
    }
    assert_eq!(world.writer_uid("db-0"), uid);
    let claim = world.api.claims["wal-orders--a-db-0"].uid.clone();
    assert_ne!(claim, given_up);

    while !world.controllers[0].is_idle() {
        world.controllers[0].step(&mut world.api, Fault::None);
    }
    assert!(!world.api.claims["wal-orders--a-db-0"].deleting);
    world.settle();
}

/// A controller has created a claim and not yet written who holds the writer. Another does all of it meanwhile, for the same
/// pod: its ledger and its claim are the ones that are there.
#[test]
fn a_claim_made_before_the_compare_and_swap_is_whosoever_wins() {
    let mut world = World::new(25, &["a"]);
    let key = Key::of("shop", "orders.db-0").unwrap();
    world.stateful = 1;
    while world.api.pods.is_empty() {
        world.workloads_act();
    }
    for controller in &mut world.controllers {
        controller.cache.advance(&world.api, usize::MAX);
        controller.begin(&mut world.api, key.clone());
    }
    while !matches!(world.controllers[0].next(), Some(Call::SwapStatus { .. })) {
        world.controllers[0].step(&mut world.api, Fault::None);
    }
    let claim = world.api.claims["wal-orders--a-db-0"].uid.clone();
    assert!(world.status("db-0").holder.is_none(), "nothing of the grant is written yet");
    // It has seen neither the ledger nor the claim.
    while !world.controllers[1].is_idle() {
        world.controllers[1].step(&mut world.api, Fault::None);
    }
    let granted = world.status("db-0");
    assert!(!world.api.pods["db-0"].is_gated());
    assert_eq!(granted.volumes.as_ref().unwrap()[0].claim_uid.as_ref(), Some(&claim));
    world.controllers[0].step(&mut world.api, Fault::None);
    assert!(world.controllers[0].is_idle(), "it came too late");
    assert_eq!((world.status("db-0"), world.api.claims.len()), (granted, 1));
    world.settle();
}

/// The claim is made and the run ends there, whatever became of it: the next one takes the claim and grants once.
#[test]
fn a_claim_without_its_compare_and_swap_is_taken_by_the_next_run() {
    for fault in [Fault::NotDone, Fault::NoAnswer, Fault::CrashBefore, Fault::CrashAfter] {
        let mut world = World::new(26, &["a"]);
        let key = Key::of("shop", "orders.db-0").unwrap();
        world.stateful = 1;
        while world.api.pods.is_empty() {
            world.workloads_act();
        }
        world.controllers[0].cache.advance(&world.api, usize::MAX);
        world.controllers[0].begin(&mut world.api, key.clone());
        while !matches!(world.controllers[0].next(), Some(Call::SwapStatus { .. })) {
            world.controllers[0].step(&mut world.api, Fault::None);
        }
        let claim = world.api.claims["wal-orders--a-db-0"].uid.clone();
        world.controllers[0].step(&mut world.api, fault);
        assert!(world.controllers[0].is_idle() && world.api.pods["db-0"].is_gated());
        world.rounds(8);
        assert_eq!(world.status("db-0").volumes.unwrap()[0].claim_uid.as_ref(), Some(&claim));
        assert_eq!(world.api.claims.len(), 1);
        world.settle();
    }
}

/// A claim goes while the pod that is to have it is behind its gate, and no cache has seen that: the writer is Lost, and the next
/// run, which says which claim it was, does not wait for a change: the only one is this run's own.
#[test]
fn a_loss_that_is_found_with_the_claims_is_judged_by_another_run() {
    let mut world = World::serving(28, &["a"], 2);
    let key = Key::of("shop", "orders.db-0").unwrap();
    world.stateful = 0;
    world.rounds(8);
    world.stateful = 1;
    while world.api.pods.is_empty() {
        world.workloads_act();
    }
    world.controllers[0].cache.advance(&world.api, usize::MAX);
    world.api.claims.remove("wal-orders--a-db-0");
    let (mut run, mut answer) = (Run::new(key.clone(), world.controllers[0].view(&mut world.api, &key)), None);
    let ended = loop {
        match run.step(answer) {
            Step::Call(call) => answer = Some(world.api.call(&key, &call)),
            Step::Done(ended) => break ended,
        }
    };
    assert_eq!((ended, world.phase("db-0")), (Outcome::Settled(Some(1)), Some(Phase::Lost)));
    assert!(world.status("db-0").holder.is_none() && world.api.pods["db-0"].is_gated());
}
