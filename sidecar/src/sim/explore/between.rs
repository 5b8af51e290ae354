//! What happens between two lives: the configuration is edited, disks are missing, come up empty or are taken away, and
//! what is lost is given up.
//!
//! 1. Never is the only directory in use taken from the configuration, nor found empty: what is left, new or not, would
//!    begin a log of its own, and no engine can know better. An identity without frames counts for nothing.
//! 2. One thing at a time: while damage waits to be reported no directory goes.
//! 3. A directory that only knows itself that it is in use is not lost, nor taken from the configuration.
//! 4. A directory is given up only where another one in use is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::RngExt;

use super::faults;
use crate::commit::log::Stage;
use crate::recovery::{Ready, Waiting};
use crate::sim::count::Event;
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::{JOURNAL_ROOT, Shape};
use crate::sim::world::{Stopped, World};

/// A start is tried at most so often.
const TRIES: usize = 8;

/// What is known of the disks between lives.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// They fail, and what was on them is still there.
    missing: BTreeSet<PathBuf>,
    /// They came up empty, and held what was needed.
    empty: BTreeSet<PathBuf>,
    /// They were given up, and what was on them may still be there.
    given_up: BTreeSet<PathBuf>,
    /// They may be taken away for good.
    emptied: Vec<PathBuf>,
    /// They were taken away when they were emptied. Where every directory that was told of it is lost, or wrote it
    /// elsewhere, they are waited for, and given up by name.
    taken_away: BTreeSet<PathBuf>,
    /// It fails, and no other directory that is named is in use: a start can only wait for it.
    withheld: Option<PathBuf>,
}

impl Between {
    /// Notes what the process that ends now has emptied.
    pub(super) fn note_emptied(&mut self, life: &Life<'_>) {
        self.emptied = life.evacuated();
        let in_use = life.log.journals.iter().filter(|journal| journal.in_use);
        for root in in_use.filter_map(|journal| journal.url.file_path()) {
            self.taken_away.remove(&root);
        }
        if life.log.stage == Stage::Serving && life.has_decided() {
            // What came up empty was given up for good.
            self.empty.clear();
        }
        // Whether or not every directory says so: one that does is enough.
        let forgotten = life.log.journals.iter().filter(|journal| life.log.forgotten.contains(&journal.id));
        self.given_up.extend(forgotten.filter_map(|journal| journal.url.file_path()));
    }

    /// What came back while the process stopped, and is used again, may not be taken away.
    pub(super) fn note_used_again(&mut self, life: &Life<'_>) {
        let emptied = life.evacuated();
        self.emptied.retain(|root| emptied.contains(root));
    }

    /// Lets something happen.
    pub(super) fn pass(&mut self, world: &mut World) {
        world.machine.heal();
        self.missing.clear();
        self.withheld = None;
        for root in std::mem::take(&mut self.emptied) {
            if world.random.random_bool(0.5) {
                world.machine.note(Event::Evacuated);
                world.machine.wipe(&root);
                self.given_up.remove(&root);
                self.taken_away.insert(root);
            }
        }
        let [edits, rots, loses] = [0.4, 0.1, 0.15].map(|chance| world.random.random_bool(chance));
        let may = (edits || loses) && !world.only_one_knows();
        if edits && may {
            self.edit(world);
        }
        if rots {
            faults::rot(world);
        }
        if loses && may {
            self.lose_one(world);
        }
    }

    /// The configuration is edited.
    fn edit(&mut self, world: &mut World) {
        world.machine.note(Event::Edited);
        for _ in 0..world.random.random_range(1..4) {
            match world.random.random_range(0..10) {
                0 => self.replace_one(world),
                1..6 => self.edit_directories(world),
                _ => edit_numbers(&mut world.shape, &mut world.random),
            }
        }
    }

    /// What was given up gets a new disk.
    fn replace_one(&mut self, world: &mut World) {
        let in_use = self.in_use(world);
        let not_needed = self.given_up.iter().find(|root| !in_use.contains(*root)).cloned();
        if let Some(root) = not_needed.filter(|_| !in_use.is_empty()) {
            world.machine.wipe(&root);
            self.given_up.remove(&root);
        }
    }

    fn edit_directories(&self, world: &mut World) {
        let mut shape = world.shape.clone();
        let random = &mut world.random;
        let n = random.random_range(0..shape.directories);
        match random.random_range(0..8) {
            0 | 1 if shape.directories < Shape::MOST => shape.directories += 1,
            0..4 => drop(shape.without.insert(n)),
            4 | 5 => drop(shape.draining.insert(n)),
            6 => {
                shape.without.remove(&n);
                shape.draining.remove(&n);
            }
            _ if self.given_up.contains(Path::new(JOURNAL_ROOT)) => {}
            _ => shape.journal ^= true,
        }
        let in_use = self.in_use(world);
        if self.is_safe(&shape, &in_use) && !world.oracle.may_lose() {
            world.shape = shape;
            // It may say that collections are to live elsewhere.
            world.homes.clear();
        }
    }

    /// Directories in use that are here. None, where that cannot be told.
    fn in_use(&self, world: &World) -> BTreeSet<PathBuf> {
        let known = world.directories().unwrap_or_default();
        let here = |root: &PathBuf| !self.missing.contains(root) && !self.empty.contains(root);
        known.into_iter().filter(|(root, in_use)| *in_use && here(root)).map(|(root, _)| root).collect()
    }

    /// Whether a start with this configuration knows whose log it is, and has a place for new collections.
    fn is_safe(&self, shape: &Shape, in_use: &BTreeSet<PathBuf>) -> bool {
        let named = shape.named();
        let known = named.iter().any(|(root, _)| in_use.contains(root));
        let usable = |root: &PathBuf| {
            !self.given_up.contains(root) && !self.missing.contains(root) && root != Path::new(JOURNAL_ROOT)
        };
        known && named.iter().any(|(root, draining)| !draining && usable(root))
    }

    /// A disk that is needed is not there when the process starts, or has nothing on it.
    fn lose_one(&mut self, world: &mut World) {
        let mut in_use = self.in_use(world);
        if in_use.is_empty() || world.oracle.may_lose() {
            return;
        }
        let root = in_use.iter().nth(world.random.random_range(0..in_use.len())).cloned().unwrap_or_default();
        in_use.remove(&root);
        self.missing.insert(root.clone());
        if !self.is_safe(&world.shape, &in_use) {
            self.missing.remove(&root);
            if world.shape.named().iter().any(|(named, _)| *named == root) {
                world.machine.note(Event::Absent);
                world.machine.break_with(&root, Faults { dead: true, ..Faults::default() });
                self.withheld = Some(root);
            }
            return;
        }
        world.homes.clear();
        match world.random.random_range(0..4) {
            0 => {
                world.machine.note(Event::Wiped);
                world.machine.wipe(&root);
                self.missing.remove(&root);
                self.empty.insert(root);
            }
            1 => {
                world.machine.note(Event::Unmount);
                world.machine.break_with(&root, Faults { unmounted: true, ..Faults::default() });
            }
            _ => {
                world.machine.note(Event::Absent);
                world.machine.break_with(&root, Faults { dead: true, ..Faults::default() });
            }
        }
    }

    /// Starts a process; what it waits for comes back or is given up.
    pub(super) fn start(&mut self, world: &mut World) -> Result<Ready, Stopped> {
        world.given_up.clear();
        for _ in 0..TRIES {
            match world.recover(&world.machine) {
                Err(Stopped::Waiting(waiting)) if self.remedy(world, &waiting) => {}
                started => return started,
            }
        }
        panic!("the start waits and waits");
    }

    /// Whether something was done about what a start waits for.
    fn remedy(&mut self, world: &mut World, waiting: &Waiting) -> bool {
        if let Some(root) = self.withheld.take() {
            world.machine.note(Event::Repaired);
            world.machine.repair(&root);
            return true;
        }
        let nameless = waiting.unusable.iter().find(|it| it.uuid.is_none() && self.missing.contains(&it.root));
        if let Some(root) = nameless.map(|unusable| unusable.root.clone()) {
            // Only it itself says that it is in use: it can be waited for, but not given up.
            self.missing.remove(&root);
            world.machine.note(Event::Repaired);
            world.machine.repair(&root);
            return true;
        }
        let astray = world.machine.count(Event::Misdirected) > 0;
        let unheard = astray || !self.empty.is_empty() || !world.given_up.is_empty();
        let lost = |root: &PathBuf| {
            let away = unheard && self.taken_away.contains(root);
            self.missing.contains(root) || self.empty.contains(root) || away
        };
        let Some(unusable) = waiting.unusable.iter().find(|unusable| {
            let given_up = unusable.uuid.is_some_and(|uuid| world.given_up.contains(&uuid));
            unusable.uuid.is_some() && !given_up && lost(&unusable.root)
        }) else {
            return false;
        };
        let (Some(uuid), root) = (unusable.uuid, unusable.root.clone()) else { return false };
        if self.missing.remove(&root) {
            if world.random.random_bool(0.5) {
                world.machine.note(Event::Repaired);
                world.machine.repair(&root);
                return true;
            }
            // What was taken away there once is not what is given up now.
            self.taken_away.remove(&root);
        }
        assert!(!waiting.present.is_empty(), "{root:?} is the last one");
        world.give_up(uuid, &root);
        if root == Path::new(JOURNAL_ROOT) {
            world.shape.journal = false;
        }
        if !self.empty.contains(&root) && !self.taken_away.contains(&root) {
            self.given_up.insert(root);
        }
        true
    }
}

fn edit_numbers(shape: &mut Shape, random: &mut rand::rngs::SmallRng) {
    let other = Shape::draw(random);
    match random.random_range(0..7) {
        0 => shape.affinity = other.affinity,
        1 => shape.strategy = other.strategy,
        2 => shape.journal_max = other.journal_max,
        3 => shape.memory_limit = other.memory_limit,
        4 => shape.flush_size = other.flush_size,
        5 => shape.codec = other.codec,
        _ => shape.segment_size = [1 << 14, 1 << 16, 1 << 18][random.random_range(0..3)],
    }
}
