//! Crashes at every effect: the one set-up of all schedules in which the power goes at one effect after the other.
//!
//! 1. The life is run whole first: it must do what the schedule is about, or the test proves nothing.
//! 2. Then it is run once for each of its effects, on a machine of its own, and the power goes there; the start after it
//!    is cut in turn, at every `step`-th of its effects, until one is not reached.
//! 3. What had been evacuated when the power went is taken away for ever: nothing may be missed.

use std::path::PathBuf;

use crate::sim::count::{Event, Sum};
use crate::sim::life::Life;
use crate::sim::shape::Shape;
use crate::sim::world::{Stopped, World};

/// A life whose power goes at each of its effects.
pub(super) struct Sweep {
    pub(super) shape: Shape,
    pub(super) seed: u64,
    /// Lived before, and nothing fails then.
    pub(super) before: fn(&mut Life<'_>),
    pub(super) life: fn(&mut Life<'_>),
    /// What workers must have been given in the whole life: parts of how it is shown.
    pub(super) does: &'static [&'static str],
    /// The start after it is cut at one of so many effects.
    pub(super) step: u64,
}

/// A life with a power cut after so many effects.
pub(super) struct Cut {
    /// How many effects it had.
    pub(super) effects: u64,
    /// Directories that might be removed when the power went.
    evacuated: Vec<PathBuf>,
}

/// A life that is cut after so many effects, or at its end.
pub(super) fn cut_after(world: &mut World, effects: Option<u64>, live: impl FnOnce(&mut Life<'_>)) -> Cut {
    let before = world.machine.effects();
    world.machine.cut_at(effects.map(|effects| before + effects));
    let lived = world.life(|life| {
        live(life);
        life.evacuated()
    });
    let evacuated = match lived {
        Ok(evacuated) => evacuated,
        Err(Stopped::Off) => Vec::new(),
        Err(stopped) => panic!("{stopped:?}"),
    };
    let effects = world.machine.effects() - before;
    world.machine.cut();
    Cut { effects, evacuated }
}

impl Sweep {
    fn world(&self, seed: u64) -> World {
        let mut world = World::new(seed, self.shape.clone());
        cut_after(&mut world, None, self.before);
        world
    }

    /// Disks work again, but for those that are not needed.
    fn repair(world: &World, cut: &Cut) {
        world.machine.heal();
        for root in &cut.evacuated {
            world.machine.note(Event::Evacuated);
            world.machine.wipe(root);
        }
    }

    /// The whole life; how many effects it has.
    fn whole(&self) -> u64 {
        let mut world = self.world(self.seed);
        let mut did = Vec::new();
        let cut = cut_after(&mut world, None, |life| {
            life.trace = Some(Vec::new());
            (self.life)(life);
            did = life.trace.take().unwrap_or_default();
        });
        for wanted in self.does {
            assert!(did.iter().any(|work| work.contains(wanted)), "no {wanted:?} in {did:#?}");
        }
        cut.effects
    }

    pub(super) fn run(&self) {
        let mut sum = Sum::default();
        for first in 1..=self.whole() {
            let mut second = 1 + first % self.step;
            loop {
                let mut world = self.world(self.seed + first * 1000 + second);
                let cut = cut_after(&mut world, Some(first), self.life);
                Self::repair(&world, &cut);
                let start = cut_after(&mut world, Some(second), |life| life.open());
                Self::repair(&world, &start);
                let again = cut_after(&mut world, None, |life| {
                    life.open();
                    life.check();
                    (self.life)(life);
                });
                Self::repair(&world, &again);
                cut_after(&mut world, None, |life| life.open());
                sum.add(&world);
                if start.effects < second {
                    break;
                }
                second += self.step;
            }
        }
        println!("simulated: {sum}");
    }
}
