//! What goes wrong in a life, and how it is mended.

use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt;

use crate::commit::journal::Journal;
use crate::commit::log::Stage;
use crate::sim::count::Event;
use crate::sim::disk::{Astray, Faults};
use crate::sim::life::{Life, Proven};
use crate::sim::world::World;

/// Longer than a directory that failed is left alone.
const LONG: Duration = Duration::from_secs(62);

/// How badly a life goes.
pub(super) struct Luck {
    /// In so many steps one disk begins to fail.
    breaks: Option<u32>,
    /// In so many steps one that fails works again.
    heals: Option<u32>,
    broken: Vec<PathBuf>,
}

impl Luck {
    pub(super) fn draw(world: &mut World) -> Self {
        let random = &mut world.random;
        let breaks = random.random_bool(0.6).then(|| [150, 500, 1_000][random.random_range(0..3)]);
        let heals = random.random_bool(0.6).then(|| [20, 100, 300][random.random_range(0..3)]);
        Self { breaks, heals, broken: Vec::new() }
    }

    /// What goes wrong, or right, in one step.
    pub(super) fn step(&mut self, life: &mut Life<'_>) {
        let random = &mut life.world.random;
        let happens = |random: &mut rand::rngs::SmallRng, steps: Option<u32>| {
            steps.is_some_and(|steps| random.random_range(0..steps) == 0)
        };
        if happens(random, self.breaks) {
            self.broken.extend(break_something(life));
            return;
        }
        if !self.broken.is_empty() && happens(random, self.heals) {
            let index = random.random_range(0..self.broken.len());
            let root = self.broken.remove(index);
            life.world.machine.note(Event::Repaired);
            life.world.machine.repair(&root);
            return;
        }
        // Those that failed are left alone for a minute before they are tried again.
        if !life.log.journals.iter().all(|journal| journal.is_healthy()) && happens(random, Some(60)) {
            life.world.machine.note(Event::TimeJump);
            life.world.pass(LONG);
        } else if happens(random, Some(8_000)) {
            rot(life.world);
        }
    }
}

/// A disk begins to fail in one of many ways; its root, where that does not end by itself.
fn break_something(life: &mut Life<'_>) -> Option<PathBuf> {
    let dir = life.world.random.random_range(0..life.directories());
    let root = life.root(dir).to_owned();
    let random = &mut life.world.random;
    let soon = random.random_range(0..20);
    let faults = match random.random_range(0..20) {
        0..2 => Faults { syncs_left: Some(soon), ..Faults::default() },
        2..4 => Faults { syncs_until_landed: Some(soon), ..Faults::default() },
        4..6 => Faults { whole_writes_left: Some(soon), ..Faults::default() },
        6..8 => Faults { effects_left: Some(soon), ..Faults::default() },
        8..10 => Faults { bytes_left: Some(random.random_range(0..100_000)), ..Faults::default() },
        10..12 => {
            let used = life.world.machine.used(&root);
            let free = life.world.random.random_range(0..200_000);
            life.world.machine.set_capacity(&root, used + free);
            return Some(root);
        }
        12..14 => {
            let time = [50, 2_000, 15_000, 60_000][random.random_range(0..4)];
            life.stall(dir, Duration::from_millis(time));
            return None;
        }
        14..16 => Faults { unmounted: true, ..Faults::default() },
        16 => {
            let astray = match random.random_range(0..3) {
                0 => Astray::Further(4096 * random.random_range(1..6)),
                1 => Astray::Further(random.random_range(1..20_000)),
                _ => Astray::Another(random.random_range(0..100)),
            };
            Faults { misdirect: Some((soon, astray)), ..Faults::default() }
        }
        _ => Faults { dead: true, ..Faults::default() },
    };
    if faults.unmounted {
        life.world.machine.note(Event::Unmount);
    }
    life.world.machine.break_with(&root, faults);
    Some(root)
}

/// A bit flips in a segment.
pub(super) fn rot(world: &mut World) {
    let roots = world.shape.roots();
    let root = &roots[world.random.random_range(0..roots.len())];
    let mut files = world.machine.files(root);
    files.retain(|(name, len)| is_segment(name) && *len > 0);
    if files.is_empty() {
        return;
    }
    let (name, len) = &files[world.random.random_range(0..files.len())];
    let (offset, bit) = (world.random.random_range(0..*len), world.random.random_range(0..8));
    world.machine.flip(root, name, offset, bit);
}

fn is_segment(name: &std::path::Path) -> bool {
    !name.starts_with(crate::directory::identity::JOURNAL) && name.extension().is_some_and(|end| end == "avro")
}

/// A bit in the journal that must be noticed when it flips: where it is.
pub(super) fn proven_bit(life: &mut Life<'_>) -> Option<(PathBuf, PathBuf, u64)> {
    let mut proven = life.proven();
    // Else the one copy of something goes, and at another place what says so.
    proven.retain(|Proven { root, name, .. }| !life.world.machine.is_harmed(root, name));
    if proven.is_empty() {
        return None;
    }
    let Proven { root, name, end } = &proven[life.world.random.random_range(0..proven.len())];
    Some((root.clone(), name.clone(), life.world.random.random_range(0..*end)))
}

/// An administrator gives up a directory that failed and is emptied. Nothing is lost by that.
pub(super) fn forget_one(life: &mut Life<'_>) {
    let (now, stage) = (life.world.now, life.log.stage.clone());
    let left = |journal: &Journal| journal.is_evacuated() && !journal.is_healthy();
    let Some(dir) = life.log.journals.iter().position(left) else { return };
    let id = life.log.journals[dir].id;
    if !keeps_a_place_without(life, dir) {
        return;
    }
    if stage == Stage::Serving && !life.log.forgotten.contains(&id) {
        life.log.forget(id, now).unwrap();
        life.world.machine.note(Event::GivenUp);
        if life.log.journals.iter().any(|journal| journal.id == id && journal.takes_all_commits) {
            // Who gives it up takes it out of the configuration: the next start would wait for another.
            life.world.shape.journal = false;
        }
        life.hear();
    }
}

/// Whether another directory than `dir` may take collections while this process lives, once it works.
fn keeps_a_place_without(life: &Life<'_>, dir: usize) -> bool {
    let takes = |(other, journal): (usize, &Journal)| {
        let given_up = life.log.forgotten.contains(&journal.id);
        other != dir && journal.position.is_some() && !journal.draining && !given_up
    };
    life.log.journals.iter().enumerate().any(takes)
}

/// Somebody wants a directory to be emptied for as long as the process lives. One that takes collections stays.
pub(super) fn empty_one(life: &mut Life<'_>) {
    let dir = life.world.random.random_range(0..life.directories());
    if life.log.stage == Stage::Serving && keeps_a_place_without(life, dir) {
        let now = life.world.now;
        life.log.empty(&[dir], now);
        life.world.machine.note(Event::Drained);
        life.hear();
    }
}

/// Every disk works again, and the power stays: within so long every directory is used again, and everybody is answered.
pub(super) fn recuperate(life: &mut Life<'_>) {
    life.world.machine.heal();
    life.world.machine.cut_at(None);
    life.end_stalls();
    // A probe may just have failed.
    (0..3).for_each(|_| life.pass(LONG));
    for journal in &life.log.journals {
        let forgotten = life.log.forgotten.contains(&journal.id);
        assert!(forgotten || journal.is_healthy(), "{} is well and not used: {:?}", journal.url, journal.health);
    }
    super::acts::all_is_answered(life);
}
