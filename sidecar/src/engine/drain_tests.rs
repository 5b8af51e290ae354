//! Logs on disks that are moved to a bucket while they serve; afterwards nobody misses the disks.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::bucket_tests::{Cloud, append, begin, config, settle};
use super::life_tests::{Disks, Life, Oracle};
use super::*;
use crate::fencing::directory::memory::{Fate, Last, Process};
use crate::recovery::Ready;

const BUCKET: &str = "s3://one/wal";

/// Configurations with disks and one bucket.
const MIXED: [(&[&str], &str); 3] = [
    (&["file:///m/a", BUCKET], "distribution_strategy = \"RoundRobin\"\n"),
    (&["file:///m/a", "file:///m/b", BUCKET], "distribution_strategy = \"Hash\"\ncollection_affinity = false\n"),
    (&[BUCKET], "journal_url = \"file:///m/j\"\n"),
];

const SMALL: &str = "memory_flush_size_bytes = 2000\nsegment_size_bytes = 65536\njournal_max_bytes = \"8Mi\"\n";

/// Drains until nothing is left or the process is dead; whether nothing is left. Clients go on meanwhile.
fn drain(life: &mut Life<'_>, process: &Process, oracle: &mut Oracle, random: &mut SmallRng, token: &mut u64) -> bool {
    let count = life.log.journals.len();
    for _ in 0..40 {
        match life.log.drain(life.now) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(_) if process.is_dead() => return false,
            Err(error) => panic!("{error}"),
        }
        append(life, oracle, random, *token..*token + 1);
        *token += 1;
        life.now += Duration::from_secs(1);
        for _ in 0..10 {
            for dir in 0..count {
                life.step(dir);
                life.upkeep(dir);
                life.flush(dir);
            }
        }
        life.hear(oracle);
        if process.is_dead() {
            return false;
        }
    }
    panic!("draining does not end: {:#?}", life.log.journals);
}

#[test]
fn schedule_24_a_log_is_drained_to_a_bucket_by_processes_that_die_at_any_request() {
    let mut died = 0;
    for (urls, more) in MIXED {
        let mixed = config(urls, &format!("{SMALL}{more}"));
        let alone = config(&[BUCKET], SMALL);
        for (last, dies) in
            [Last::Lost, Last::Done, Last::Late].into_iter().flat_map(|last| (1..60).map(move |n| (last, n)))
        {
            let what = format!("{urls:?} {last:?} at request {dies}");
            let mut cloud = Cloud::default();
            let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(dies));
            let process = Process::default();
            let Ready { start, handles, .. } = begin(&cloud.context(&mixed, &process));
            let mut life = Life::begin(start, &handles);
            settle(&mut life, handles.len());
            append(&mut life, &mut oracle, &mut random, 0..40);
            let mut token = 100;
            process.set(Fate { answered: Some(dies), last, ..Fate::default() });
            let mut drained = drain(&mut life, &process, &mut oracle, &mut random, &mut token);
            drop(life);
            drop(handles);
            died += u32::from(!drained);
            if random.random_bool(0.5) {
                cloud.arrive();
            }
            while !drained {
                cloud.disks = cloud.disks.after_cut(&mut random);
                let process = Process::default();
                let Ready { start, handles, .. } = begin(&cloud.context(&mixed, &process));
                let mut life = Life::begin(start, &handles);
                settle(&mut life, handles.len());
                oracle.check(&life.log, &handles, &what);
                drained = drain(&mut life, &process, &mut oracle, &mut random, &mut token);
                oracle.check(&life.log, &handles, &what);
            }
            cloud.disks = Disks::default();
            for _ in 0..2 {
                cloud.arrive();
                let Ready { start, handles, .. } = begin(&cloud.context(&alone, &Process::default()));
                let mut life = Life::begin(start, &handles);
                settle(&mut life, 1);
                oracle.check(&life.log, &handles, &what);
                assert_eq!((life.log.journals.len(), &life.log.stage), (1, &Stage::Serving), "{what}");
                append(&mut life, &mut oracle, &mut random, token..token + 3);
                token += 3;
            }
        }
    }
    assert!(died > 100, "{died} processes died while they drained");
}

#[test]
fn schedule_24_disks_that_are_still_configured_after_a_drain_begin_anew() {
    for (urls, more) in MIXED {
        let mixed = config(urls, &format!("{SMALL}{more}"));
        let cloud = Cloud::default();
        let (mut oracle, mut random, mut token) = (Oracle::default(), SmallRng::seed_from_u64(9), 0);
        for _ in 0..3 {
            let process = Process::default();
            let Ready { start, handles, .. } = begin(&cloud.context(&mixed, &process));
            let mut life = Life::begin(start, &handles);
            settle(&mut life, handles.len());
            oracle.check(&life.log, &handles, "after a drain");
            append(&mut life, &mut oracle, &mut random, token..token + 30);
            token += 100;
            assert!(life.log.journals.iter().all(|journal| journal.in_use), "{:#?}", life.log.journals);
            assert!(drain(&mut life, &process, &mut oracle, &mut random, &mut token));
            oracle.check(&life.log, &handles, "drained");
            let disks = life.log.journals.iter().filter(|journal| !journal.of_objects);
            assert!(disks.clone().count() > 0 && disks.clone().all(|journal| !journal.in_use && journal.draining));
        }
    }
}
