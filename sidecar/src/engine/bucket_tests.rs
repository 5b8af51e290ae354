//! Lives of a log in buckets, each ended at some request: the real state machine, recovery and protocol on stores in memory,
//! without threads. What was on its way at the end of a life arrives later, or never.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::life_tests::{Disks, Life, Oracle};
use super::*;
use crate::directory::disk::SharedDisk;
use crate::fencing::directory::BucketDirectory;
use crate::fencing::directory::memory::{Fate, Last, Process, Store};
use crate::recovery::{Context, Outcome, Progress, Ready, attempt};

/// Stores by URL, and disks.
#[derive(Clone, Default)]
pub(super) struct Cloud {
    stores: Arc<Mutex<std::collections::BTreeMap<WalUrl, Store>>>,
    pub(super) disks: Disks,
}

impl Cloud {
    pub(super) fn store(&self, url: &str) -> Store {
        self.stores.lock().entry(WalUrl::parse(url).unwrap()).or_default().clone()
    }

    /// The buckets as one process reaches them.
    pub(super) fn buckets(&self, process: &Process) -> Buckets {
        let (cloud, process) = (self.clone(), process.clone());
        Buckets::new(None, move |url, waiting| {
            let client = cloud.store(url.as_str()).client(&process);
            Ok(Arc::new(BucketDirectory::new(client, url.to_string(), waiting)) as SharedDisk)
        })
    }

    /// What a process starts with.
    pub(super) fn context(&self, toml: &str, process: &Process) -> Context {
        Context { buckets: Arc::new(self.buckets(process)), ..self.disks.context(toml) }
    }

    pub(super) fn arrive(&self) {
        self.stores.lock().values().for_each(Store::arrive);
    }
}

pub(super) fn config(urls: &[&str], more: &str) -> String {
    format!("[storage.wal_config]\nallow_ephemeral = true\nwal_urls = {urls:?}\n{more}\n")
}

const ONE: &[&str] = &["s3://one/wal"];

fn start(context: &Context) -> Result<Ready, String> {
    match attempt(context, &Progress::default()) {
        Outcome::Ready(ready) => Ok(*ready),
        Outcome::Waiting(waiting) => Err(format!("waits: {:?}", waiting.reasons)),
        Outcome::Ended(ended) => Err(format!("{ended:?}")),
    }
}

pub(super) fn begin(context: &Context) -> Ready {
    start(context).unwrap()
}

/// Steps everything until nothing more is done.
pub(super) fn settle(life: &mut Life<'_>, count: usize) {
    for _ in 0..60 {
        for dir in 0..count {
            life.step(dir);
            life.upkeep(dir);
            life.flush(dir);
        }
    }
}

/// Lives of one log; answers how many entries were acknowledged.
fn lives(seed: u64, urls: &[&str], more: &str) -> usize {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut cloud = Cloud::default();
    let mut oracle = Oracle::default();
    let mut token = 0;
    for life in 0..14 {
        let flush_size = [2000, 20_000, 1 << 20][random.random_range(0..3)];
        let more = format!(
            "journal_max_bytes = \"8Mi\"\nmemory_flush_size_bytes = {flush_size}\nsegment_size_bytes = 65536\n\
             collection_affinity = {}\n{more}",
            random.random_bool(0.7)
        );
        let most = [20, 80, 400][random.random_range(0..3)];
        let dies = (life < 12).then(|| random.random_range(1..most));
        let last = [Last::Lost, Last::Done, Last::Late][random.random_range(0..3)];
        let process =
            Process::new(Fate { answered: dies, last, loses_answers: random.random_bool(0.3), silent: false });
        let mut context = cloud.context(&config(urls, &more), &process);
        context.memory_limit = [1 << 17, 1 << 26][random.random_range(0..2)];
        let what = format!("seed {seed}, life {life}");
        if random.random_bool(0.3) {
            cloud.arrive();
        }
        let Ready { start, handles, .. } = match start(&context) {
            Ok(ready) => ready,
            Err(_) if process.is_dead() => continue,
            Err(why) => panic!("{what}: {why}"),
        };
        let count = handles.len();
        let mut lived = Life::begin(start, &handles);
        let mut unchecked = true;
        for _ in 0..random.random_range(5..1200) {
            if process.is_dead() {
                break;
            }
            match random.random_range(0..10) {
                0..3 => {
                    token += 1;
                    lived.client(&mut oracle, &mut random, token);
                }
                3..8 => lived.step(random.random_range(0..count)),
                8 => lived.upkeep(random.random_range(0..count)),
                _ => lived.flush(random.random_range(0..count)),
            }
            lived.hear(&mut oracle);
            if random.random_bool(0.01) {
                cloud.arrive();
            }
            if unchecked && lived.log.stage == Stage::Serving && !process.is_dead() {
                unchecked = false;
                // Whoever reads back makes requests too.
                let fate = process.fate();
                process.set(Fate::default());
                oracle.check(&lived.log, &handles, &what);
                process.set(Fate { answered: dies, ..fate });
            }
            assert!(!matches!(lived.log.stage, Stage::Fenced(_)), "{what}: {:?}", lived.log.stage);
        }
        drop(lived);
        cloud.disks = cloud.disks.after_cut(&mut random);
    }
    oracle.acked()
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    let first = number("WALSTORAGE_SEED").unwrap_or(1);
    first..first + number("WALSTORAGE_SEEDS").unwrap_or(default)
}

#[test]
fn no_promise_is_broken_in_a_bucket_by_processes_that_die_at_any_request() {
    let acknowledged: usize = seeds(40).map(|seed| lives(seed, ONE, "")).sum();
    assert!(acknowledged > 4000, "{acknowledged}");
}

#[test]
fn no_promise_is_broken_in_three_buckets() {
    let urls = ["s3://west/wal", "s3://east/wal", "adls://a.dfs.core.windows.net/c/wal"];
    let acknowledged: usize = seeds(20).map(|seed| lives(seed, &urls, "distribution_strategy = \"Hash\"")).sum();
    assert!(acknowledged > 2000, "{acknowledged}");
}

#[test]
fn no_promise_is_broken_between_disks_and_buckets() {
    let urls = ["file:///m/a", "s3://one/wal"];
    let both = seeds(20).map(|seed| lives(seed, &urls, "distribution_strategy = \"RoundRobin\"")).sum::<usize>();
    let journal = seeds(20).map(|seed| lives(seed, ONE, "journal_url = \"file:///m/j\"")).sum::<usize>();
    assert!(both > 2000 && journal > 2000, "{both}, {journal}");
}

/// Appends until so many were acknowledged, or the process is dead or fenced.
pub(super) fn append(life: &mut Life<'_>, oracle: &mut Oracle, random: &mut SmallRng, tokens: std::ops::Range<u64>) {
    for token in tokens {
        life.client(oracle, random, token);
        for _ in 0..8 {
            for dir in 0..life.log.journals.len() {
                life.step(dir);
                life.upkeep(dir);
                life.flush(dir);
            }
        }
        life.hear(oracle);
    }
}

#[test]
fn a_process_may_die_between_any_two_requests_of_a_start_and_of_a_life() {
    let toml = config(ONE, "memory_flush_size_bytes = 2000\njournal_max_bytes = \"8Mi\"");
    for last in [Last::Lost, Last::Done, Last::Late] {
        for dies in 1..90 {
            let cloud = Cloud::default();
            let mut oracle = Oracle::default();
            let mut random = SmallRng::seed_from_u64(dies);
            // The second start dies at the same place, before the strays of the first have arrived.
            for round in 0..2 {
                let process = Process::new(Fate { answered: Some(dies), last, ..Fate::default() });
                if let Ok(Ready { start, handles, .. }) = start(&cloud.context(&toml, &process)) {
                    let mut life = Life::begin(start, &handles);
                    append(&mut life, &mut oracle, &mut random, round * 100..round * 100 + 12);
                }
            }
            for arrives in [false, true] {
                if arrives {
                    cloud.arrive();
                }
                let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
                let what = format!("{last:?} at request {dies}, arrived: {arrives}");
                let mut life = Life::begin(start, &handles);
                settle(&mut life, 1);
                assert_eq!(life.log.stage, Stage::Serving, "{what}");
                oracle.check(&life.log, &handles, &what);
            }
        }
    }
}

#[test]
pub(crate) fn a_zombie_is_never_answered_after_a_takeover() {
    let toml = config(ONE, "");
    for late in [false, true] {
        let cloud = Cloud::default();
        let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(7));
        let process = Process::default();
        let Ready { start, handles, .. } = begin(&cloud.context(&toml, &process));
        let mut zombie = Life::begin(start, &handles);
        append(&mut zombie, &mut oracle, &mut random, 0..20);
        if late {
            // Its next commit is under way when it falls asleep.
            process.set(Fate { answered: Some(1), last: Last::Late, ..Fate::default() });
            append(&mut zombie, &mut oracle, &mut random, 20..21);
            process.set(Fate::default());
        }
        let acked_before = oracle.acked();
        assert!(acked_before > 0);

        let Ready { start, handles: theirs, .. } = begin(&cloud.context(&toml, &Process::default()));
        let mut life = Life::begin(start, &theirs);
        settle(&mut life, 1);
        oracle.check(&life.log, &theirs, "behind the takeover");
        let after = oracle.acked();

        cloud.arrive();
        let mut of_zombie = Oracle::default();
        append(&mut zombie, &mut of_zombie, &mut random, 30..60);
        assert_eq!(of_zombie.acked(), 0, "a zombie acknowledged");
        if !late {
            assert!(matches!(zombie.log.stage, Stage::Fenced(_)), "{:?}", zombie.log.stage);
        }
        append(&mut life, &mut oracle, &mut random, 60..80);
        assert!(oracle.acked() > after && life.log.stage == Stage::Serving);
        let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
        oracle.check(&Log::new(start), &handles, "a third start");
    }
}

#[test]
pub(crate) fn a_start_that_was_overtaken_before_its_close_ends() {
    let cloud = Cloud::default();
    let toml = config(ONE, "");
    let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
    let mut slow = Life::begin(start, &handles);
    let Ready { start, handles: theirs, .. } = begin(&cloud.context(&toml, &Process::default()));
    let mut fast = Life::begin(start, &theirs);
    settle(&mut fast, 1);
    settle(&mut slow, 1);
    assert_eq!(fast.log.stage, Stage::Serving);
    assert!(matches!(slow.log.stage, Stage::Fenced(_)), "{:?}", slow.log.stage);
}

#[test]
fn an_object_that_is_gone_or_rotten_is_damage_and_never_skipped() {
    for rotten in [false, true] {
        let cloud = Cloud::default();
        let toml = config(ONE, "");
        let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(3));
        let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
        let mut life = Life::begin(start, &handles);
        append(&mut life, &mut oracle, &mut random, 0..10);
        drop(life);
        let store = cloud.store(ONE[0]);
        let key = store.keys().into_iter().find(|key| key.ends_with("000000000004.avro")).unwrap();
        store.spoil(&key, rotten);
        let why = start_error(&cloud, &toml);
        assert!(why.contains("0000000000001.000/000000000004.avro") && why.contains("damage"), "{why}");
        let gap = format!("{toml}on_damage = \"gap\"\n");
        assert!(super::bucket_tests::start(&cloud.context(&gap, &Process::default())).is_ok());
    }
}

fn start_error(cloud: &Cloud, toml: &str) -> String {
    start(&cloud.context(toml, &Process::default())).map(|_| ()).unwrap_err()
}

#[test]
fn what_nobody_needs_is_deleted_but_claims_and_fences() {
    let cloud = Cloud::default();
    let toml = config(ONE, "memory_flush_size_bytes = 2000\njournal_max_bytes = \"8Mi\"");
    let store = cloud.store(ONE[0]);
    for _ in 0..6 {
        let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(5));
        let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
        let mut life = Life::begin(start, &handles);
        append(&mut life, &mut oracle, &mut random, 0..20);
        let names: Vec<_> =
            life.log.iter().map(|collection| (collection.name.clone(), collection.durable_head)).collect();
        for (name, head) in names {
            let (waiter, _answer) = tokio::sync::oneshot::channel();
            life.log.truncate(&name, head, waiter, life.now).unwrap();
        }
        for _ in 0..4 {
            // By then it is looked at again what may go.
            life.now += Duration::from_secs(90);
            settle(&mut life, 1);
        }
    }
    let keys = store.keys();
    let of = |epoch: u64| keys.iter().filter(move |key| key.contains(&format!("/{epoch:013}.000/"))).count();
    assert_eq!([1, 2, 3, 4, 5].map(of), [2; 5], "a claim and a fence: {keys:#?}");
    assert!(of(6) < 8, "what the last life still needs: {keys:#?}");
    assert!(!keys.iter().any(|key| key.contains("wal_current") || key.contains("probe")), "{keys:#?}");
}

#[test]
fn commits_begin_an_interval_apart_whatever_waits_but_at_once_after_a_while() {
    let cloud = Cloud::default();
    let toml = config(ONE, "bucket_commit_interval_ms = 250");
    let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(5));
    let mut life = Life::begin(start, &handles);
    settle(&mut life, 1);
    let store = cloud.store(ONE[0]);
    let (mut token, before) = (0, store.counts().1);
    life.now += Duration::from_secs(5);
    life.client(&mut oracle, &mut random, token);
    let at = life.now;
    life.step(0);
    life.step(0);
    assert_eq!((store.counts().1, life.now), (before + 1, at), "the first goes at once");
    while life.now < at + Duration::from_secs(10) {
        token += 1;
        life.client(&mut oracle, &mut random, token);
        life.step(0);
    }
    let creates = store.counts().1 - before;
    assert!((20..=42).contains(&creates), "{creates} in 10 s of an interval of 250 ms");
}

#[test]
fn a_store_that_refuses_is_named_and_waited_for() {
    let cloud = Cloud::default();
    let toml = config(ONE, "");
    let process = Process::new(Fate { answered: Some(1), ..Fate::default() });
    let context = cloud.context(&toml, &process);
    let why = start(&context).map(|_| ()).unwrap_err();
    assert!(why.contains("s3://one/wal is failed") && why.contains("the process is dead"), "{why}");
    process.set(Fate::default());
    let Ready { start, .. } = begin(&context);
    assert_eq!(start.identity.epoch.0, 1, "what is there is claimed when it can be");
}

#[tokio::test]
async fn an_engine_serves_a_bucket_and_finds_all_of_it_again() {
    let cloud = Cloud::default();
    let toml = config(ONE, "bucket_commit_interval_ms = 1\nmemory_flush_size_bytes = 3000");
    let mut kept = 0;
    for round in 0..4 {
        let engine = engine(&cloud, &toml, &Process::default());
        super::fault_tests::until(&engine, crate::api::Phase::Ready).await;
        let found = super::fault_tests::contents(&engine, "c").await;
        assert_eq!(found.len(), kept, "round {round}");
        for n in 0..20 {
            let text = format!("{round} {n} {}", "x".repeat(300));
            let done = engine.append(super::fault_tests::batch("c", &[text]), None).await.unwrap();
            kept += 1;
            assert_eq!((done.last_lsn.0 as usize, done.directory.as_str()), (kept, ONE[0]));
        }
        if round == 2 {
            assert_eq!(engine.flush(&super::fault_tests::name("c")).await.unwrap().0 as usize, kept);
        }
        assert_eq!(engine.shutdown().await, Ended::Clean);
    }
    let keys = cloud.store(ONE[0]).keys();
    assert!(keys.iter().any(|key| key.starts_with("c/wal_")), "{keys:#?}");
}

pub(super) fn engine(cloud: &Cloud, toml: &str, process: &Process) -> Engine {
    struct Silent;
    impl Observer for Silent {
        fn committed(&self, _: &WalUrl, _: Duration, _: u64, _: u64) {}
    }
    let config = Config::parse(toml, true).unwrap().config;
    let options = Options { config, require_mounts: false, grant: None, observer: Arc::new(Silent) };
    let disks = cloud.disks.clone();
    let disks = Arc::new(move |path: &Path| -> SharedDisk { Arc::new(disks.disk(path)) });
    Engine::start_on(options, disks, cloud.buckets(process)).unwrap()
}

#[test]
fn a_bucket_that_refused_for_a_while_goes_on_in_a_session_of_its_own() {
    for (urls, more) in [(ONE, ""), (&["s3://one/wal", "file:///m/a"][..], "distribution_strategy = \"RoundRobin\"")] {
        for last in [Last::Lost, Last::Done, Last::Late] {
            for after in [1, 2, 5, 9] {
                let cloud = Cloud::default();
                let toml = config(urls, more);
                let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(after));
                let process = Process::default();
                let Ready { start, handles, .. } = begin(&cloud.context(&toml, &process));
                let count = handles.len();
                let mut life = Life::begin(start, &handles);
                settle(&mut life, count);
                let mut token = 0;
                for _ in 0..3 {
                    token += 100;
                    append(&mut life, &mut oracle, &mut random, token..token + 20);
                    process.set(Fate { answered: Some(after), last, ..Fate::default() });
                    append(&mut life, &mut oracle, &mut random, token + 20..token + 40);
                    process.set(Fate::default());
                    // It is probed a minute after it failed.
                    life.now += Duration::from_secs(61);
                    settle(&mut life, count);
                    if random.random_bool(0.5) {
                        cloud.arrive();
                    }
                    life.hear(&mut oracle);
                }
                let what = format!("{urls:?} {last:?} {after}");
                assert_eq!(life.log.stage, Stage::Serving, "{what}");
                oracle.check(&life.log, &handles, &what);
                let sessions = life.log.journals.iter().map(|journal| journal.stream.key.session).max();
                assert!(sessions > Some(0), "{what}: nothing failed");
                drop(life);
                // They hold the lock of the disk.
                drop(handles);
                for arrives in [false, true] {
                    if arrives {
                        cloud.arrive();
                    }
                    let Ready { start, handles, .. } = begin(&cloud.context(&toml, &Process::default()));
                    oracle.check(&Log::new(start), &handles, &what);
                }
            }
        }
    }
}

/// What two lives leave in a bucket, the second one still under way: the store, and of each collection its name, how far it is
/// truncated, and its head.
pub(crate) fn a_log_in_a_bucket(more: &str) -> (Store, Vec<(CollectionName, Lsn, Lsn)>) {
    let cloud = Cloud::default();
    let (mut oracle, mut random) = (Oracle::default(), SmallRng::seed_from_u64(21));
    let mut collections = Vec::new();
    for round in 0..2 {
        let Ready { start, handles, .. } = begin(&cloud.context(&config(ONE, more), &Process::default()));
        let mut life = Life::begin(start, &handles);
        settle(&mut life, 1);
        append(&mut life, &mut oracle, &mut random, round * 100..round * 100 + 25);
        settle(&mut life, 1);
        let shown = |c: &crate::commit::collection::Collection| (c.name.clone(), c.truncated_to, c.durable_head);
        collections = life.log.iter().map(shown).collect();
    }
    (cloud.store(ONE[0]), collections)
}
