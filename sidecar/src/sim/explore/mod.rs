//! The random explorer: writers of any shape live through any faults in any order, and their configurations are edited.

mod acts;
mod between;
mod faults;

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use self::faults::Luck;
use super::count::{Event, Sum};
use super::mutant;
use super::shape::Shape;
use super::world::{Stopped, World};
use crate::commit::log::Stage;

/// Says which seed failed when a run panics.
pub(crate) struct Announce(pub(crate) u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() && !mutant::any_is_planted() {
            eprintln!("seed {}: repeat it with WALSTORAGE_SEED={} WALSTORAGE_SEEDS=1", self.0, self.0);
        }
    }
}

/// Runs the schedule of one seed.
pub(super) fn explore(seed: u64, sum: &mut Sum) {
    let announce = Announce(seed);
    let shape = Shape::draw(&mut SmallRng::seed_from_u64(!seed));
    let mut world = World::new(seed, shape);
    let mut between = between::Between::default();
    let lives = world.random.random_range(2..7);
    for _ in 0..lives {
        between.pass(&mut world);
        random_life(&mut world, &mut between);
    }
    world.machine.heal();
    last_life(&mut world, &mut between);
    sum.add(&world);
    drop(announce);
}

fn random_life(world: &mut World, between: &mut between::Between) {
    if world.random.random_bool(0.15) {
        let ahead = world.random.random_range(1..40);
        world.machine.cut_at(Some(world.machine.effects() + ahead));
    }
    let mut rots = None;
    match between.start(world) {
        Ok(ready) => world.live(ready, |life| {
            let mut luck = Luck::draw(life.world);
            for _ in 0..life.world.random.random_range(10..900) {
                luck.step(life);
                acts::random_step(life);
                if life.is_off() {
                    return;
                }
            }
            if life.log.stage == Stage::Serving && life.world.random.random_bool(0.15) {
                faults::recuperate(life);
            }
            if life.log.stage == Stage::Serving && life.world.random.random_bool(0.15) {
                rots = faults::proven_bit(life);
            }
            between.note_emptied(life);
            if life.world.random.random_bool(0.3) {
                life.stop();
            } else {
                life.abandon();
            }
            between.note_used_again(life);
        }),
        Err(Stopped::Off) => world.machine.note(Event::CutInRecovery),
        Err(Stopped::Waiting(waiting)) => {
            let may_lose = world.oracle.may_lose();
            assert!(may_lose, "the start waits: {:?}\n{:?}\n{between:?}", waiting.reasons, world.shape);
            world.shape.gaps = true;
        }
    }
    if world.machine.is_off() || world.random.random_bool(0.7) {
        world.machine.cut();
    } else {
        world.machine.kill();
    }
    if let Some((root, name, offset)) = rots {
        let bit = world.random.random_range(0..8);
        world.machine.flip(&root, &name, offset, bit);
        world.oracle.damaged();
    }
}

/// Everything is well again: the start succeeds, everybody is answered, what is truncated is freed.
fn last_life(world: &mut World, between: &mut between::Between) {
    if world.oracle.may_lose() {
        world.shape.gaps = true;
    }
    let ready = between.start(world).unwrap_or_else(|stopped| panic!("the last start: {stopped:?}"));
    world.live(ready, |life| {
        life.open();
        acts::all_is_answered(life);
        let held: usize = life.log.iter().map(|collection| collection.memory()).sum();
        assert_eq!(life.log.memory(), held as u64, "memory is counted that nobody holds");
        life.pass(Duration::from_secs(3));
        life.check();
        for dir in 0..life.directories() {
            let journal = &life.log.journals[dir];
            assert_eq!((journal.pending_bytes, journal.queue.len()), (0, 0), "{}", journal.url);
            let root = life.root(dir);
            let files = life.world.machine.files(root);
            let there: u64 =
                files.iter().filter(|(name, _)| name.starts_with("_wal/journal")).map(|(_, len)| len).sum();
            // Writes that went astray made files longer.
            let astray = life.world.machine.count(Event::Misdirected) > 0;
            assert!(there == journal.journal_bytes() || astray, "{files:?} {:?}", journal.slots);
            // A reserve that was written when slots were larger is kept.
            let reserve = journal.pool.reserve.bytes();
            assert!(there - reserve <= 3 * journal.slot_limit(), "{files:?} are not freed: {journal:#?}");
            assert!(there <= journal.journal_max || astray, "{files:?} are above the bound: {journal:#?}");
        }
        life.stop();
    });
}

/// A number that the environment gives.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in 1..6 {
        let [one, other] = [0, 1].map(|_| {
            let mut sum = Sum::default();
            explore(seed, &mut sum);
            sum.to_string()
        });
        assert_eq!(one, other, "seed {seed}");
    }
}

#[test]
fn no_promise_is_broken_whatever_fails_in_whatever_order() {
    let soak = number("WALSTORAGE_SIM_SECONDS");
    // A soak goes where none has been.
    let first = number("WALSTORAGE_SEED").unwrap_or_else(|| soak.map_or(1, |_| rand::random::<u64>() >> 16));
    let mut sum = Sum::default();
    if let Some(seconds) = soak {
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut seed = first;
        while Instant::now() < end {
            explore(seed, &mut sum);
            seed += 1;
        }
    } else {
        (first..first + number("WALSTORAGE_SEEDS").unwrap_or(200)).for_each(|seed| explore(seed, &mut sum));
    }
    println!("simulated from seed {first}: {sum}");
}
