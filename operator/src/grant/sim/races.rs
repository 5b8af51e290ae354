//! Two controllers, call by call.

use super::control::Fault;
use super::world::World;
use crate::grant::call::Call;
use crate::grant::run::Key;
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
