//! Random worlds, many of them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::world::World;

/// What the worlds came to.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) worlds: usize,
    pub(super) calls: usize,
    pub(super) granted: usize,
    pub(super) losers: usize,
    pub(super) acknowledged: u64,
    pub(super) replayed: usize,
}

/// One world: chaos for a while, then rest; twice.
pub(super) fn explore(seed: u64, figures: &mut Figures) {
    let urls: &[&str] = if seed.is_multiple_of(3) { &["a", "b"] } else { &["a"] };
    let mut world = World::new(seed, urls);
    world.stateful = world.dice.below(3);
    world.deployment = world.dice.below(4);
    let run = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..2 {
            for _ in 0..600 {
                world.chaos();
            }
            world.settle();
        }
    }));
    if let Err(panic) = run {
        println!("seed {seed}:\n{}", world.shown());
        resume_unwind(panic);
    }
    figures.worlds += 1;
    figures.calls += world.controllers.iter().map(|one| one.calls).sum::<usize>();
    figures.granted += world.api.granted;
    figures.losers += world.api.losers;
    figures.acknowledged += world.api.truth.count;
    figures.replayed += world.nodes.replayed;
}

fn seeds() -> u64 {
    std::env::var("WALSTORAGE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

#[test]
fn no_entry_is_stranded_and_no_invariant_broken_whoever_acts_in_whatever_order() {
    let mut figures = Figures::default();
    if let Some(seed) = std::env::var("WALSTORAGE_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        explore(seed, &mut figures);
    } else {
        for seed in 1..=seeds() {
            explore(seed, &mut figures);
        }
    }
    println!("{figures:?}");
    // A world in which nothing happens proves nothing.
    assert!(figures.granted > 0 && figures.acknowledged > 0 && figures.replayed > 0);
}
