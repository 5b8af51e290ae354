//! Starts that are cut short between the frame that says who is there and the one that says who is in use.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sweep::cut_after;
use crate::api::Ack;
use crate::commit::journal::Opening;
use crate::commit::log::{Stage, Worker};
use crate::directory::identity::JOURNAL;
use crate::format::limits::PAGE;
use crate::format::names::SlotName;
use crate::sim::disk::Faults;
use crate::sim::life::Life;
use crate::sim::shape::{Shape, root};
use crate::sim::world::{Stopped, World, collection};
use crate::types::Lsn;

/// Opens a writer of new directories; where the frames are that say that they are in use.
fn open_noting_second_frames(life: &mut Life<'_>) -> Vec<(PathBuf, PathBuf, u64)> {
    let mut second = vec![None; life.directories()];
    for _ in 0..1000 {
        if life.log.stage == Stage::Serving {
            break;
        }
        for (dir, place) in second.iter_mut().enumerate() {
            if place.is_none() && life.log.journals[dir].opening == Opening::Second {
                let (file, offset) = life.next_place(dir);
                *place = Some((life.root(dir).to_owned(), file, offset));
            }
            life.step(dir, Worker::Commit);
            life.wake();
        }
    }
    assert_eq!(life.log.stage, Stage::Serving);
    second.into_iter().flatten().collect()
}

/// A writer that has used each of its directories, in the first second of each. `rots`: no frame is left that says so.
fn used(directories: usize, rots: bool) -> World {
    let mut world = World::new(7, Shape { directories, gaps: true, ..Shape::default() });
    let mut second = Vec::new();
    cut_after(&mut world, None, |life| {
        second = open_noting_second_frames(life);
        for n in 0..directories as u64 {
            life.append_and_settle(n, 2, 1000);
        }
        let homes: BTreeSet<usize> = (0..directories as u64).map(|n| life.home(n)).collect();
        assert_eq!(homes.len(), directories, "each is used");
    });
    assert_eq!(second.len(), directories);
    for (root, file, offset) in second.iter().filter(|_| rots) {
        // In the EPOCH record: it cannot be saved either.
        world.machine.flip(root, file, offset + 200, 3);
    }
    world
}

fn all_is_there(world: &mut World, directories: usize, what: &str) {
    cut_after(world, None, |life| {
        life.open();
        for n in 0..directories as u64 {
            assert_eq!(life.head(n), Lsn(2), "{what}");
        }
        life.check();
        assert!(life.log.journals.iter().all(|journal| journal.in_use), "{what}");
    });
}

#[test]
pub(in crate::sim) fn a_start_cut_short_at_any_effect_leaves_what_was_used_in_use() {
    for (directories, rots) in [(1, false), (2, false), (1, true), (2, true)] {
        let effects = cut_after(&mut used(directories, rots), None, |life| life.open()).effects;
        for effect in 1..=effects {
            let mut world = used(directories, rots);
            let what = format!("{directories} directories, rot: {rots}, cut after {effect} of {effects} effects");
            cut_after(&mut world, Some(effect), |life| life.open());
            cut_after(&mut world, Some(1 + effect % 7), |life| life.open());
            all_is_there(&mut world, directories, &what);
        }
    }
}

/// A writer to whose one directory a new one was added.
fn added() -> World {
    let mut world = used(1, false);
    world.shape.directories = 2;
    world
}

#[test]
pub(in crate::sim) fn no_log_is_begun_beside_one_that_cannot_be_looked_at_wherever_the_last_start_was_cut() {
    let effects = cut_after(&mut added(), None, |life| life.open()).effects;
    for effect in 0..=effects {
        let mut world = added();
        if effect > 0 {
            cut_after(&mut world, Some(effect), |life| life.open());
        }
        // The new directory may have nothing, an identity, or frames by now.
        world.machine.break_with(&root(0), Faults { dead: true, ..Faults::default() });
        let started = world.recover(&world.machine);
        assert!(matches!(started, Err(Stopped::Waiting(_))), "cut after {effect} of {effects} effects: begun anew");
        drop(started);
        world.machine.kill();
        world.machine.heal();
        all_is_there(&mut world, 1, &format!("cut after {effect} of {effects} effects"));
    }
}

#[test]
fn a_directory_that_is_new_and_a_start_cut_short_at_any_effect_lose_nothing_that_was_there() {
    let effects = cut_after(&mut added(), None, |life| life.open()).effects;
    for effect in 1..=effects {
        let mut world = added();
        cut_after(&mut world, Some(effect), |life| life.open());
        cut_after(&mut world, Some(1 + effect % 11), |life| life.open());
        all_is_there(&mut world, 1, &format!("cut after {effect} of {effects} effects"));
    }
}

#[test]
pub(in crate::sim) fn a_log_whose_first_start_one_directory_did_not_follow_is_not_begun_anew_without_the_other() {
    let mut world = World::new(10, Shape { directories: 2, ..Shape::default() });
    let lived = world.life(|life| {
        let root = life.root(0).to_owned();
        // Its first frame lands, and says that nobody is in use yet.
        life.world.machine.break_with(&root, Faults { syncs_until_landed: Some(1), ..Faults::default() });
        life.open();
        life.append_and_settle(0, 1, 100);
        assert!(!life.log.journals[0].is_healthy() && life.head(0) == Lsn(1));
        life.root(1).to_owned()
    });
    let other = lived.unwrap();
    world.machine.cut();
    world.machine.heal();
    world.machine.break_with(&other, Faults { dead: true, ..Faults::default() });
    let Err(Stopped::Waiting(waiting)) = world.recover(&world.machine) else {
        panic!("a log is begun without {other:?}")
    };
    assert!(waiting.unusable.iter().any(|unusable| unusable.root == other && unusable.uuid.is_some()), "{waiting:?}");
    world.machine.heal();
    world.serve(|life| {
        life.check();
        assert_eq!(life.head(0), Lsn(1));
    });
}

/// The first frame of a new file, which is the first one to say that older ones are freed, is torn; the next start removes that
/// file, and is cut short.
#[test]
pub(in crate::sim) fn schedule_07_what_a_torn_frame_says_is_freed_is_not_removed_by_that() {
    let mut world = World::new(11, Shape { journal_max: 1 << 18, ..Shape::default() });
    let lived = world.life(|life| {
        life.open();
        let frees = |life: &Life<'_>| {
            let journal = &life.log.journals[0];
            journal.stream.floor > journal.acked_floor && journal.in_flight.is_none()
        };
        'freed: for _ in 0..100 {
            life.append(&collection(0), 1, 20_000, Ack::Durable);
            let head = life.head(0);
            if head > Lsn::ZERO {
                life.truncate(&collection(0), head);
            }
            for _ in 0..200 {
                if frees(life) {
                    break 'freed;
                }
                life.world.pass(Duration::from_millis(5));
                life.wake();
                life.step(0, Worker::Upkeep);
                life.step(0, Worker::Commit);
            }
        }
        assert!(frees(life));
        life.append(&collection(0), 1, 3_000, Ack::Durable);
        life.world.pass(Duration::from_millis(5));
        life.log.journals[0].stream.rotate = true;
        life.write_unheard();
        let journal = &life.log.journals[0];
        let place = journal.in_flight.as_ref().unwrap().place;
        assert!(place.new_file, "{place:?}");
        Path::new(JOURNAL).join(SlotName { key: journal.stream.key, file: place.file }.to_string())
    });
    let name = lived.unwrap();
    world.machine.kill();
    world.machine.flip(&root(0), &name, PAGE as u64 + 2_000, 3);
    world.oracle.may_vanish = true;
    // One start removes what is freed, the next one the file behind the end that the first one has found.
    for _ in 0..3 {
        cut_after(&mut world, None, |life| {
            while life.log.stage == Stage::Opening {
                life.step(0, Worker::Commit);
                life.step(0, Worker::Flush);
                life.wake();
            }
            life.check();
            life.run(0, &[Worker::Upkeep]);
        });
    }
}
