//! The random explorer: writers of any shape live through any faults in any order.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::count::{Event, Sum};
use super::disk::Faults;
use super::life::{Life, Proven, Step};
use super::mutant;
use super::shape::Shape;
use super::world::{Stopped, World, collection};
use crate::api::Ack;
use crate::commit::log::Stage;
use crate::types::Lsn;

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
    let lives = world.random.random_range(2..7);
    for _ in 0..lives {
        random_life(&mut world);
    }
    last_life(&mut world);
    sum.add(&world);
    drop(announce);
}

fn random_life(world: &mut World) {
    world.machine.heal();
    if world.random.random_bool(0.15) {
        let ahead = world.random.random_range(1..40);
        world.machine.cut_at(Some(world.machine.effects() + ahead));
    }
    let mut rots = None;
    let lived = world.life(|life| {
        let faulty = life.world.random.random_bool(0.6);
        let steps = life.world.random.random_range(10..900);
        let faults_at = if faulty { life.world.random.random_range(0..steps) } else { steps };
        for step in 0..steps {
            if step == faults_at {
                break_something(life);
            }
            random_step(life);
            if life.is_off() {
                return;
            }
        }
        if life.log.stage == Stage::Serving && life.world.random.random_bool(0.15) {
            let proven = life.proven();
            if !proven.is_empty() {
                let Proven { root, name, end } = &proven[life.world.random.random_range(0..proven.len())];
                rots = Some((root.clone(), name.clone(), life.world.random.random_range(0..*end)));
            }
        }
        if life.world.random.random_bool(0.3) {
            life.stop();
        } else {
            life.abandon();
        }
    });
    match lived {
        Ok(()) => {}
        Err(Stopped::Off) => world.machine.note(Event::CutInRecovery),
        Err(Stopped::Waiting(reasons)) => {
            assert!(world.oracle.may_lose, "the start waits: {reasons:?}");
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
        world.oracle.may_lose = true;
    }
}

/// One thing happens: a worker goes on, a client calls, time passes, somebody looks.
fn random_step(life: &mut Life<'_>) {
    match life.world.random.random_range(0..1000) {
        0..500 => {
            if life.step_any() != Step::Worked {
                life.world.pass(Duration::from_millis(20));
            }
        }
        500..960 => client(life),
        960..980 => {
            let jump = [1, 50, 400, 1_000, 6_000][life.world.random.random_range(0..5)];
            life.world.machine.note(Event::TimeJump);
            life.world.pass(Duration::from_millis(jump));
        }
        980..992 => {
            if life.log.stage == Stage::Serving {
                life.check();
            }
        }
        992..998 => life.world.look_aside(),
        _ => life.pass(Duration::from_millis(1500)),
    }
}

fn client(life: &mut Life<'_>) {
    let world = &mut life.world;
    let name = collection(world.random.random_range(0..world.shape.collections));
    let known = life.log.find(&name).ok().map(|c| (c.assigned_head, c.durable_head));
    match (world.random.random_range(0..100), known) {
        (0..2, Some(_)) => life.delete(&name),
        (2..4, Some(_)) => life.flush(&name),
        (4..20, Some((assigned, durable))) => {
            let head = if world.random.random_bool(0.2) { assigned } else { durable };
            let to = if world.random.random_bool(0.5) { head.0 } else { world.random.random_range(0..=head.0) };
            life.truncate(&name, Lsn(to));
        }
        (20..45, _) => {
            let index = world.random.random_range(0..world.producers.len());
            let entries = world.random.random_range(1..4);
            life.produce(index, entries, 200);
        }
        _ => {
            let size = match world.random.random_range(0..20) {
                0 => 30_000,
                1..4 => 5_000,
                _ => 200,
            };
            let entries = world.random.random_range(1..4);
            let ack = if world.random.random_bool(0.2) { Ack::Buffered } else { Ack::Durable };
            life.append(&name, entries, size, ack);
        }
    }
}

/// A disk begins to fail in one of many ways.
fn break_something(life: &mut Life<'_>) {
    let dir = life.world.random.random_range(0..life.directories());
    let root = life.root(dir).to_owned();
    let random = &mut life.world.random;
    let soon = random.random_range(0..20);
    let faults = match random.random_range(0..9) {
        0 => Faults { syncs_left: Some(soon), ..Faults::default() },
        1 => Faults { syncs_until_landed: Some(soon), ..Faults::default() },
        2 => Faults { whole_writes_left: Some(soon), ..Faults::default() },
        3 => Faults { effects_left: Some(soon), ..Faults::default() },
        4 => Faults { bytes_left: Some(random.random_range(0..100_000)), ..Faults::default() },
        5 => {
            let used = life.world.machine.used(&root);
            let free = life.world.random.random_range(0..200_000);
            life.world.machine.set_capacity(&root, used + free);
            return;
        }
        6 => {
            let time = [50, 2_000, 15_000, 60_000][random.random_range(0..4)];
            life.stall(dir, Duration::from_millis(time));
            return;
        }
        7 => Faults { unmounted: true, ..Faults::default() },
        _ => Faults { dead: true, ..Faults::default() },
    };
    if faults.unmounted {
        life.world.machine.note(Event::Unmount);
    }
    life.world.machine.break_with(&root, faults);
}

/// Everything is well again: the start succeeds, everybody is answered, what is truncated is freed.
fn last_life(world: &mut World) {
    world.machine.heal();
    if world.oracle.may_lose {
        world.shape.gaps = true;
    }
    let ended = world.life(|life| {
        life.open();
        for n in 0..life.world.shape.collections {
            let name = collection(n);
            if let Some(head) = life.log.find(&name).ok().map(|found| found.durable_head) {
                assert!(life.truncate(&name, head), "{name} cannot be truncated");
            }
        }
        life.pass(Duration::from_secs(3));
        assert!(!life.owes(), "a truncation is never answered");
        let held: usize = life.log.iter().map(|collection| collection.memory()).sum();
        assert_eq!(life.log.memory(), held as u64, "memory is counted that nobody holds");
        for n in 0..life.world.shape.collections {
            assert!(life.append(&collection(n), 1, 100, Ack::Durable), "c{n} takes nothing");
        }
        life.settle();
        assert!(!life.owes(), "an append to an idle log is not answered at once");
        life.pass(Duration::from_secs(3));
        life.check();
        for dir in 0..life.directories() {
            let journal = &life.log.journals[dir];
            assert_eq!((journal.pending_bytes, journal.queue.len()), (0, 0), "{}", journal.url);
            let root = life.root(dir);
            let files = life.world.machine.files(root);
            let there: u64 =
                files.iter().filter(|(name, _)| name.starts_with("_wal/journal")).map(|(_, len)| len).sum();
            assert_eq!(there, journal.journal_bytes(), "{files:?} {:?}", journal.slots);
            assert!(there <= 3 * journal.slot_limit(), "{files:?} are not freed: {journal:#?}");
        }
        life.stop();
    });
    if let Err(stopped) = ended {
        panic!("the last start: {stopped:?}");
    }
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
