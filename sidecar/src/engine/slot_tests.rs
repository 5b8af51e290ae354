//! Power cuts at every call that makes, fills, stamps and fills slots again, on disks in memory: what was promised holds.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::fault_tests::{Machine, batch, contents, name, toml};
use super::life_tests::{Disks, Life, Oracle, recover};
use super::*;
use crate::api::DirectoryState;
use crate::commit::slots::Spare;
use crate::commit::upkeep::Upkeep;
use crate::directory::mem_disk::{Faults, MemDisk};
use crate::recovery::{Outcome, Progress, Ready, attempt};

const CONFIG: &str = "[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [\"file:///m/a\"]\n\
                      journal_max_bytes = \"512Ki\"\n";

/// A machine with one directory and slots of 128 KiB, and what was promised on it.
#[derive(Default)]
struct World {
    disks: Disks,
    oracle: Oracle,
    token: u64,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lived {
    /// Calls of the disk in it.
    calls: u64,
    /// Files stamped anew and again.
    made: u64,
    again: u64,
}

impl World {
    fn disk(&self) -> MemDisk {
        self.disks.disk(std::path::Path::new("/m/a"))
    }

    /// Starts, appends and truncates for so many steps, or until `ends` says so; the same calls for the same seed.
    fn live(&mut self, seed: u64, steps: u64, mut ends: impl FnMut(&Upkeep, &MemDisk) -> bool) -> Lived {
        let mut random = SmallRng::seed_from_u64(seed);
        let context = self.disks.context(CONFIG);
        let disk = self.disk();
        let ready = match attempt(&context, &Progress::default()) {
            Outcome::Ready(ready) => *ready,
            Outcome::Waiting(waiting) => {
                assert!(disk.is_dead(), "seed {seed}: {:?}", waiting.reasons);
                return Lived::default();
            }
            Outcome::Ended(ended) => panic!("seed {seed}: {ended:?}"),
        };
        let Ready { mut start, handles, .. } = ready;
        start.seed = seed;
        let mut life = Life::begin(start, &handles);
        self.oracle.check(&life.log, &handles, &format!("seed {seed}"));
        let before = disk.calls();
        let mut lived = Lived::default();
        for step in 0..steps {
            if step % 5 == 0 {
                self.token += 1;
                life.client(&mut self.oracle, &mut random, self.token);
            }
            life.step(0);
            let work = life.log.poll_upkeep(0, life.now);
            if let Upkeep::Stamp(job) = &work {
                *(if job.from.is_some() { &mut lived.again } else { &mut lived.made }) += 1;
            }
            if !matches!(work, Upkeep::Wait(_) | Upkeep::End) {
                let ended = ends(&work, &disk);
                life.keepers[0].carry_out(&work).report(&mut life.log, 0, life.now);
                if ended {
                    break;
                }
            }
            life.hear(&mut self.oracle);
        }
        lived.calls = disk.calls() - before;
        lived
    }

    fn cut(&mut self, seed: u64) {
        self.disks = self.disks.after_cut(&mut SmallRng::seed_from_u64(seed));
    }

    fn check(&mut self, what: &str) {
        let ready = recover(&self.disks.context(CONFIG), what);
        self.oracle.check(&Log::new(ready.start), &ready.handles, what);
    }
}

fn run(seed: u64) -> Lived {
    World::default().live(seed, 2500, |_, _| false)
}

#[test]
fn schedule_1_a_cut_at_any_call_of_append_rotate_stamp_fill_and_checkpoint_twice_in_a_row_loses_nothing() {
    let seed: u64 = std::env::var("WALSTORAGE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let tries: u64 = std::env::var("WALSTORAGE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(30);
    let whole = run(seed);
    assert!(whole.made >= 2 && whole.again >= 5, "{whole:?}");
    let mut random = SmallRng::seed_from_u64(seed);
    for n in 0..tries {
        // One cut in every stretch, so that all of the life is covered.
        let at = whole.calls * n / tries + random.random_range(0..=whole.calls / tries);
        let mut world = World::default();
        let cuts = [at, random.random_range(0..300), random.random_range(0..1000)];
        for (life, left) in cuts.into_iter().enumerate() {
            // Recovery is cut short too: then there is no life, and the next start finds what it left.
            world.disk().break_with(Faults { calls_left: Some(left), ..Faults::default() });
            world.live(seed + life as u64, 2500, |_, _| false);
            world.cut(random.random());
        }
        world.check(&format!("seed {seed}, try {n}, cuts {cuts:?}"));
    }
}

#[test]
fn schedule_6_a_cut_inside_re_stamping_leaves_a_spare_or_a_file_that_counts_as_absent() {
    for calls in 0..6 {
        for seed in 0..6 {
            let mut world = World::default();
            let mut stamped = 0;
            world.live(seed, 5000, |work, disk| {
                let again = matches!(work, Upkeep::Stamp(job) if job.from.is_some());
                stamped += u64::from(again);
                let ends = again && stamped == 1 + seed;
                if ends {
                    disk.break_with(Faults { calls_left: Some(calls), ..Faults::default() });
                }
                ends
            });
            assert_eq!(stamped, 1 + seed, "the cut was not inside a stamping");
            world.cut(seed * 7 + calls);
            world.check(&format!("seed {seed}, {calls} calls"));
            // The next process stamps what it finds, and is cut in turn.
            world.live(seed + 100, 1500, |_, _| false);
            world.cut(seed);
            world.check(&format!("seed {seed}, {calls} calls, later"));
        }
    }
}

/// One directory that is full, with nothing but what is written ahead.
async fn filled(machine: &Machine, config: &str) -> (Engine, u64) {
    let engine = machine.ready(config).await;
    let mut head = 0;
    for _ in 0..20 {
        head = engine.append(batch("c", &["x".repeat(20_000)]), None).await.unwrap().last_lsn.0;
    }
    let mut waited = 0;
    let ahead = |log: &Log| {
        let pool = &log.journals[0].pool;
        matches!(pool.spare, Spare::Ready(_)) && pool.reserve.is_whole()
    };
    while !engine.0.peek(ahead).unwrap() {
        waited += 1;
        assert!(waited < 3000, "no spare is made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    machine.break_all(Faults { bytes_left: Some(0), ..Faults::default() });
    let refused = loop {
        match engine.append(batch("c", &["y".repeat(20_000)]), None).await {
            Ok(done) => head = done.last_lsn.0,
            Err(error) => break error,
        }
    };
    let reasons = [Reason::UnknownOutcome, Reason::NoHealthyDirectory];
    assert!(reasons.contains(&refused.reason), "{refused}");
    (engine, head)
}

const SMALL: &str = "journal_max_bytes = \"12Mi\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncation_works_with_zero_bytes_free_and_service_resumes_by_itself() {
    let machine = Machine::default();
    let config = toml(&["file:///m/a"], SMALL);
    let (engine, head) = filled(&machine, &config).await;
    let truncated = engine.truncate(&name("c"), Lsn(head)).await;
    assert_eq!(truncated.unwrap(), Lsn(head));
    let status = engine.status();
    assert_eq!(status.directories[0].state, DirectoryState::Full, "{status:?}");
    assert!(!status.directories[0].remedy.contains("restart"), "{status:?}");
    machine.break_all(Faults::default());
    resumes(&engine).await;
    let read = contents(&engine, "c").await;
    assert!(read.keys().all(|lsn| *lsn > head), "{:?}", read.keys());
    assert_eq!(engine.shutdown().await, Ended::Clean);
    let engine = machine.ready(&config).await;
    assert_eq!(contents(&engine, "c").await, read);
    assert_eq!(contents(&engine, "d").await.len(), 1);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_on_a_full_disk_comes_up_takes_truncations_and_goes_on_by_itself() {
    let machine = Machine::default();
    let config = toml(&["file:///m/a"], SMALL);
    let (engine, head) = filled(&machine, &config).await;
    engine.shutdown().await;
    // The stream begins in the reserve of the one before.
    let engine = machine.ready(&config).await;
    let read = contents(&engine, "c").await;
    assert!(read.len() as u64 >= head, "{} of {head}", read.len());
    assert_eq!(engine.truncate(&name("c"), Lsn(1)).await.unwrap(), Lsn(1), "{:?}", engine.status());
    engine.shutdown().await;
    // However often: what is there is read, and when there is room it goes on.
    let machine = machine.after_cut(3);
    for _ in 0..3 {
        machine.break_all(Faults { bytes_left: Some(0), ..Faults::default() });
        let engine = machine.ready(&config).await;
        assert_eq!(contents(&engine, "c").await.len(), read.len() - 1);
        engine.shutdown().await;
    }
    let engine = machine.ready(&config).await;
    assert_eq!(engine.status().directories[0].state, DirectoryState::Full);
    machine.break_all(Faults::default());
    resumes(&engine).await;
    assert_eq!(engine.truncate(&name("c"), Lsn(2)).await.unwrap(), Lsn(2));
    engine.shutdown().await;
}

async fn resumes(engine: &Engine) {
    let mut tries = 0;
    while let Err(error) = engine.append(batch("d", &["again".into()]), None).await {
        assert_eq!(error.reason, Reason::NoHealthyDirectory, "{error}");
        tries += 1;
        assert!(tries < 3000, "it never resumes: {:?}", engine.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(engine.status().directories[0].state, DirectoryState::Healthy);
}
