//! What a process may do, and leave undone, that another one has overtaken or that is not the holder any more.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use uuid::Uuid;

use super::bucket_tests::{Cloud, append, begin, config, settle};
use super::life_tests::{Life, Oracle};
use super::*;
use crate::fencing::directory::memory::{Fate, Process};
use crate::recovery::{Context, Outcome, Progress, Ready, attempt};

const ONE: &[&str] = &["s3://one/wal"];

fn context(cloud: &Cloud, grant: Option<(u64, &str)>) -> Context {
    let grant = grant.map(|(epoch, holder)| Grant {
        writer_uid: Uuid::from_u128(9),
        epoch,
        holder: holder.into(),
        urls: vec![GrantedUrl { name: "one".into(), url: WalUrl::parse(ONE[0]).unwrap() }],
        init: ["one".to_owned()].into(),
        forget: BTreeSet::new(),
    });
    Context { grant, ..cloud.context(&config(ONE, ""), &Process::default()) }
}

fn refused(context: &Context) -> String {
    match attempt(context, &Progress::default()) {
        Outcome::Ended(Ended::Fenced(why)) => why,
        Outcome::Ended(ended) => panic!("{ended:?}"),
        Outcome::Waiting(waiting) => panic!("{:?}", waiting.reasons),
        Outcome::Ready(_) => panic!("it began"),
    }
}

#[test]
fn a_start_whose_grant_is_over_writes_nothing_and_fences_nobody() {
    let cloud = Cloud::default();
    let store = cloud.store(ONE[0]);
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(2));
    let mut token = 0;
    // The third has none, and copies that of the second to where its claim does not show it.
    for grant in [Some((1, "a")), Some((2, "b")), None, Some((2, "b"))] {
        let Ready { start, handles, .. } = begin(&context(&cloud, grant));
        let mut life = Life::begin(start, &handles);
        settle(&mut life, 1);
        append(&mut life, &mut oracle, &mut random, token..token + 20);
        token += 20;
        if grant == Some((1, "a")) {
            continue;
        }
        let before = store.keys();
        for stale in [(1, "a"), (2, "c")] {
            let why = refused(&context(&cloud, Some(stale)));
            assert!(why.contains("storage has grant 2 of pod \"b\""), "{why}");
            assert_eq!(store.keys(), before, "behind {grant:?}, {stale:?}");
        }
        let acknowledged = oracle.acked();
        append(&mut life, &mut oracle, &mut random, token..token + 20);
        token += 20;
        assert!(oracle.acked() > acknowledged && life.log.stage == Stage::Serving, "{grant:?}: {:?}", life.log.stage);
    }
}

#[test]
fn a_commit_that_comes_back_fenced_ends_the_log_though_it_was_given_up() {
    let cloud = Cloud::default();
    let toml = config(&["s3://one/wal", "s3://two/wal"], "distribution_strategy = \"RoundRobin\"");
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(6));
    let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
    let mut slow = Life::begin(start, &handles);
    settle(&mut slow, 2);
    let mut token = 0;
    let mut client = |life: &mut Life<'_>| {
        token += 1;
        life.client(&mut oracle, &mut random, token);
        life.now += Duration::from_secs(1);
        life.step(0);
        life.step(0);
    };
    // A frame of the second bucket is under way; the first goes on.
    while slow.log.journals[1].in_flight.is_none() {
        client(&mut slow);
        slow.step(1);
    }
    while slow.log.journals[0].synced <= slow.log.journals[1].in_flight.as_ref().unwrap().built {
        client(&mut slow);
    }
    for _ in 0..crate::commit::watch::STALL {
        slow.log.watch(slow.now);
    }
    assert!(slow.log.journals[1].stream.over && slow.log.stage == Stage::Serving);
    let Ready { start, handles: theirs, .. } = begin(&cloud.context(&toml, &Process::default()));
    let mut fast = Life::begin(start, &theirs);
    settle(&mut fast, 2);
    slow.step(1);
    assert!(matches!(slow.log.stage, Stage::Fenced(_)), "{:?}", slow.log.stage);
}

#[test]
fn a_fence_that_rots_keeps_its_number() {
    let cloud = Cloud::default();
    // What the zombie committed stays in its stream, so that the next start reads that once more.
    let toml = config(ONE, "");
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(8));
    let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
    let mut zombie = Life::begin(start, &handles);
    settle(&mut zombie, 1);
    append(&mut zombie, &mut oracle, &mut random, 0..10);
    let store = cloud.store(ONE[0]);
    let before = store.keys();
    for round in 1..3 {
        let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
        let mut life = Life::begin(start, &handles);
        settle(&mut life, 1);
        oracle.check(&life.log, &handles, "behind a fence");
        if round == 1 {
            let fence = |key: &String| key.contains("/0000000000001.000/") && !before.contains(key);
            let fence = store.keys().into_iter().find(fence).unwrap();
            let mut bytes = store.get(&fence).unwrap().to_vec();
            bytes[40] ^= 1;
            store.put(&fence, bytes.into());
            continue;
        }
        // By then what nobody needs is deleted.
        for _ in 0..4 {
            life.now += Duration::from_secs(90);
            settle(&mut life, 1);
        }
    }
    let mut of_zombie = Oracle::default();
    append(&mut zombie, &mut of_zombie, &mut random, 900..920);
    assert_eq!(of_zombie.acked(), 0, "a zombie acknowledged");
    assert!(matches!(zombie.log.stage, Stage::Fenced(_)), "{:?}", zombie.log.stage);
}

#[test]
fn an_object_that_could_not_be_created_is_never_said_to_be_there() {
    let cloud = Cloud::default();
    let process = Process::default();
    let disk = cloud.buckets(&process).disk(&WalUrl::parse(ONE[0]).unwrap()).unwrap();
    let file = disk.create_excl(std::path::Path::new("_wal/probe.tmp")).unwrap();
    file.write_at(0, b"x").unwrap();
    process.set(Fate { answered: Some(0), ..Fate::default() });
    file.sync_data().unwrap_err();
    process.set(Fate::default());
    file.sync_data().unwrap_err();
    assert_eq!(cloud.store(ONE[0]).keys(), [""; 0]);
    let file = disk.create_excl(std::path::Path::new("_wal/probe.tmp")).unwrap();
    file.sync_data().and_then(|()| file.sync_data()).unwrap();
}
