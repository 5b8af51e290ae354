//! The engine on disks that fail: directed cases, and power cuts at random moments with an oracle.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::api::{Ack, DirectoryState, Item, NewEntry, Phase};
use super::*;
use crate::directory::disk::SharedDisk;
use crate::directory::mem_disk::{Faults, MemDisk};

struct Silent;
impl Observer for Silent {
    fn committed(&self, _: &WalUrl, _: Duration, _: u64, _: u64) {}
}

/// A machine with disks in memory, by path.
#[derive(Clone, Default)]
pub(super) struct Machine {
    disks: Arc<Mutex<HashMap<PathBuf, MemDisk>>>,
}

impl Machine {
    pub(super) fn disk(&self, path: &str) -> MemDisk {
        let path = Path::new(path);
        self.disks.lock().entry(path.to_owned()).or_insert_with(|| MemDisk::new(path)).clone()
    }

    pub(super) fn disks(&self) -> parking_lot::MutexGuard<'_, HashMap<PathBuf, MemDisk>> {
        self.disks.lock()
    }

    /// Takes a disk out of the machine.
    pub(super) fn lend(&self, path: &str) -> MemDisk {
        self.disks.lock().remove(Path::new(path)).unwrap()
    }

    pub(super) fn start(&self, toml: &str) -> Engine {
        let config = Config::parse(toml, true).unwrap().config;
        let options = Options { config, require_mounts: false, grant: None, observer: Arc::new(Silent) };
        let machine = self.clone();
        let disks = Arc::new(move |path: &Path| -> SharedDisk { Arc::new(machine.disk(path.to_str().unwrap())) });
        Engine::start_on(options, disks, Buckets::none()).unwrap()
    }

    pub(super) async fn ready(&self, toml: &str) -> Engine {
        let engine = self.start(toml);
        until(&engine, Phase::Ready).await;
        engine
    }

    /// The machine after a power cut: what was not synced is old or new.
    pub(super) fn after_cut(&self, seed: u64) -> Self {
        let disks = self.disks.lock();
        let left = disks.iter().enumerate().map(|(n, (path, disk))| (path.clone(), disk.after_cut(seed + n as u64)));
        Self { disks: Arc::new(Mutex::new(left.collect())) }
    }

    pub(super) fn break_all(&self, faults: Faults) {
        self.disks.lock().values().for_each(|disk| disk.break_with(faults));
    }
}

pub(super) async fn until(engine: &Engine, phase: Phase) {
    let mut turns = engine.0.turns.subscribe();
    loop {
        turns.mark_unchanged();
        let status = engine.status();
        if status.phase == phase {
            return;
        }
        let wait = tokio::time::timeout(Duration::from_secs(60), turns.changed());
        wait.await.unwrap_or_else(|_| panic!("waiting for {phase:?}: {status:#?}")).unwrap();
    }
}

pub(super) fn toml(urls: &[&str], more: &str) -> String {
    format!("[storage.wal_config]\nallow_ephemeral = true\nwal_urls = {urls:?}\n{more}\n")
}

pub(super) fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

pub(super) fn batch(collection: &str, payloads: &[String]) -> Append {
    let entry = |payload: &String| NewEntry { payload: Bytes::from(payload.clone()), ..NewEntry::default() };
    Append {
        collection: name(collection),
        entries: payloads.iter().map(entry).collect(),
        ack: Ack::Durable,
        producer: None,
    }
}

pub(super) async fn contents(engine: &Engine, collection: &str) -> BTreeMap<u64, String> {
    let mut out = BTreeMap::new();
    let Ok(mut reader) = engine.read(&name(collection), Lsn(0), 0, false) else { return out };
    while let Some(items) = reader.next().await {
        for item in items.unwrap() {
            let Item::Entry(entry) = item else { panic!("a gap: {item:?}") };
            let before = out.insert(entry.lsn.0, String::from_utf8(entry.payload.to_vec()).unwrap());
            assert_eq!(before, None, "LSN {} twice", entry.lsn);
        }
    }
    out
}

const TWO: &str = "distribution_strategy = \"RoundRobin\"";

/// Two directories, one collection on each; answers the engine, the disk and the name of the first one's collection, and
/// that of the other.
async fn two_homes(machine: &Machine) -> (Engine, MemDisk, &'static str, &'static str) {
    let engine = machine.ready(&toml(&["file:///m/a", "file:///m/b"], TWO)).await;
    for collection in ["c1", "c2"] {
        engine.append(batch(collection, &["kept".into()]), None).await.unwrap();
    }
    let on_a = engine.collection(&name("c1")).unwrap().directory.as_str() == "file:///m/a";
    let (on, off) = if on_a { ("c1", "c2") } else { ("c2", "c1") };
    (engine, machine.disk("/m/a"), on, off)
}

async fn a_broken_directory_stands_alone(faults: Faults, state: DirectoryState) {
    let machine = Machine::default();
    let (engine, disk, on, off) = two_homes(&machine).await;
    disk.break_with(faults);
    let moved = engine.append(batch(on, &["moved".into()]), None).await.unwrap();
    assert_eq!((moved.first_lsn, moved.directory.as_str()), (Lsn(2), "file:///m/b"));
    engine.append(batch(on, &["behind".into()]), None).await.unwrap();
    engine.append(batch(off, &["fine".into()]), None).await.unwrap();
    engine.append(batch("new", &["elsewhere".into()]), None).await.unwrap();
    let all = [(1, "kept"), (2, "moved"), (3, "behind")].map(|(lsn, text)| (lsn, text.to_owned()));
    assert_eq!(contents(&engine, on).await, BTreeMap::from(all.clone()), "what it held stays readable");
    assert_eq!(engine.truncate(&name(on), Lsn(1)).await.unwrap(), Lsn(1), "truncation goes on elsewhere");
    let status = engine.status();
    let shown = status.directories.iter().find(|dir| dir.url.as_str() == "file:///m/a").unwrap();
    assert_eq!(shown.state, state, "{shown:?}");
    assert!(!shown.reason.is_empty() && !shown.remedy.is_empty());
    assert_eq!(engine.shutdown().await, Ended::Clean);

    disk.break_with(Faults::default());
    let engine = machine.ready(&toml(&["file:///m/a", "file:///m/b"], TWO)).await;
    // What the failed write left is there a second time, or not: either way it is read once.
    assert_eq!(contents(&engine, on).await, all.into_iter().skip(1).collect::<BTreeMap<_, _>>());
    engine.append(batch(on, &["again".into()]), None).await.unwrap();
    assert_eq!(contents(&engine, off).await.len(), 2);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_stream_and_leaves_the_others() {
    a_broken_directory_stands_alone(Faults { syncs_left: Some(0), ..Faults::default() }, DirectoryState::Failed).await;
}

#[tokio::test]
async fn a_full_directory_is_full_and_leaves_the_others() {
    a_broken_directory_stands_alone(Faults { bytes_left: Some(100), ..Faults::default() }, DirectoryState::Full).await;
}

#[tokio::test]
async fn a_short_write_ends_the_stream_and_leaves_the_others() {
    let faults = Faults { whole_writes_left: Some(0), ..Faults::default() };
    a_broken_directory_stands_alone(faults, DirectoryState::Failed).await;
}

#[tokio::test]
async fn with_no_directory_left_reads_go_on_and_the_process_lives() {
    let machine = Machine::default();
    let engine = machine.ready(&toml(&["file:///m/a"], "")).await;
    engine.append(batch("c", &["x".into()]), None).await.unwrap();
    machine.break_all(Faults { dead: true, ..Faults::default() });
    assert_eq!(engine.append(batch("c", &["y".into()]), None).await.unwrap_err().reason, Reason::UnknownOutcome);
    for collection in ["c", "d"] {
        let error = engine.append(batch(collection, &["z".into()]), None).await.unwrap_err();
        assert_eq!(error.reason, Reason::NoHealthyDirectory);
    }
    assert_eq!(engine.truncate(&name("c"), Lsn(1)).await.unwrap_err().reason, Reason::NoHealthyDirectory);
    assert_eq!(contents(&engine, "c").await.len(), 1);
    assert_eq!(engine.status().phase, Phase::Ready);
    assert_eq!(engine.shutdown().await, Ended::Clean);
}

#[tokio::test]
async fn a_newer_stream_in_the_journal_fences_this_process() {
    let machine = Machine::default();
    let engine = machine.ready(&toml(&["file:///m/a"], "")).await;
    engine.append(batch("c", &["x".into()]), None).await.unwrap();
    machine.disk("/m/a").intrude("_wal/journal/0000000000009.000-000000000001.avro");
    let ended = tokio::time::timeout(Duration::from_secs(60), engine.ended()).await.unwrap();
    assert!(matches!(&ended, Ended::Fenced(why) if why.contains("9.0")), "{ended:?}");
    assert_eq!(engine.append(batch("c", &["y".into()]), None).await.unwrap_err().reason, Reason::Fenced);
    assert_eq!(engine.truncate(&name("c"), Lsn(1)).await.unwrap_err().reason, Reason::Fenced);
}

#[tokio::test]
async fn a_read_only_new_directory_is_failed_and_the_other_serves() {
    let machine = Machine::default();
    machine.disk("/m/a").break_with(Faults { read_only: true, ..Faults::default() });
    let engine = machine.ready(&toml(&["file:///m/a", "file:///m/b"], "")).await;
    for n in 0..10 {
        let done = engine.append(batch(&format!("c{n}"), &["x".into()]), None).await.unwrap();
        assert_eq!(done.directory.as_str(), "file:///m/b");
    }
    let states: Vec<_> = engine.status().directories.iter().map(|dir| (dir.url.to_string(), dir.state)).collect();
    assert!(states.contains(&("file:///m/a".to_owned(), DirectoryState::Failed)), "{states:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn a_known_directory_that_is_full_at_the_start_is_read_and_not_written() {
    let machine = Machine::default();
    let (engine, disk, on, off) = two_homes(&machine).await;
    engine.shutdown().await;
    disk.break_with(Faults { bytes_left: Some(0), ..Faults::default() });
    let engine = machine.ready(&toml(&["file:///m/a", "file:///m/b"], TWO)).await;
    assert_eq!(contents(&engine, on).await.len(), 1);
    let moved = engine.append(batch(on, &["x".into()]), None).await.unwrap();
    assert_eq!(moved.directory.as_str(), "file:///m/b");
    engine.append(batch(off, &["x".into()]), None).await.unwrap();
    engine.shutdown().await;
}

#[tokio::test]
async fn one_large_batch_goes_above_the_memory_bound_and_then_nothing_until_it_is_truncated() {
    let machine = Machine::default();
    let bounds = "memory_flush_size_bytes = \"64Ki\"\nglobal_flush_threshold = \"1Mi\"\njournal_max_bytes = \"1Gi\"\n\
                  journal_url = \"file:///m/j\"";
    let engine = machine.ready(&toml(&["file:///m/a"], bounds)).await;
    // No flush makes room meanwhile.
    machine.disk("/m/a").break_with(Faults { hangs: true, ..Faults::default() });
    let large = batch("c", &["x".repeat(3 << 20)]);
    let soon = || Some(Instant::now() + Duration::from_millis(1));
    engine.append(large.clone(), None).await.unwrap();
    for refused in [large.clone(), batch("d", &["small".into()])] {
        assert_eq!(engine.append(refused, soon()).await.unwrap_err().reason, Reason::MemoryLimit);
    }
    engine.truncate(&name("c"), Lsn(1)).await.unwrap();
    assert_eq!(engine.append(large, None).await.unwrap().first_lsn, Lsn(2));
    machine.disk("/m/a").break_with(Faults::default());
    engine.shutdown().await;
}

/// What clients know of one collection.
#[derive(Default)]
struct Known {
    acked: BTreeMap<u64, String>,
    truncated_acked: u64,
    truncated_asked: u64,
    /// Batches that were acknowledged or may be there: all of their payloads, to see that none is torn.
    batches: Vec<Vec<String>>,
}

async fn client(engine: Engine, known: Arc<Mutex<HashMap<String, Known>>>, ids: Arc<AtomicU64>, mut random: SmallRng) {
    let mut full = 0;
    loop {
        let collection = format!("c{}", random.random_range(0..4));
        if random.random_bool(0.15) {
            let up_to = {
                let mut known = known.lock();
                let known = known.entry(collection.clone()).or_default();
                let Some((&head, _)) = known.acked.last_key_value() else { continue };
                let up_to = if random.random_bool(0.6) { head } else { random.random_range(head / 2..=head) };
                known.truncated_asked = known.truncated_asked.max(up_to);
                up_to
            };
            match engine.truncate(&name(&collection), Lsn(up_to)).await {
                Ok(truncated) => {
                    let mut known = known.lock();
                    let known = known.entry(collection).or_default();
                    known.truncated_acked = known.truncated_acked.max(truncated.0);
                }
                Err(_) => return,
            }
            continue;
        }
        let entries = random.random_range(1..5);
        let size = if random.random_bool(0.1) { 5000 } else { 20 };
        let payloads: Vec<String> =
            (0..entries).map(|_| format!("{:0size$}", ids.fetch_add(1, Ordering::Relaxed))).collect();
        known.lock().entry(collection.clone()).or_default().batches.push(payloads.clone());
        let deadline = Some(Instant::now() + Duration::from_millis(20));
        match engine.append(batch(&collection, &payloads), deadline).await {
            Ok(done) => {
                let mut known = known.lock();
                let known = known.entry(collection).or_default();
                for (n, payload) in payloads.into_iter().enumerate() {
                    let before = known.acked.insert(done.first_lsn.0 + n as u64, payload);
                    assert_eq!(before, None, "an LSN was acknowledged twice");
                }
            }
            // Somebody has to truncate first.
            Err(error) if error.reason == Reason::JournalFull && full < 20 => full += 1,
            Err(_) => return,
        }
    }
}

async fn check(engine: &Engine, known: &Mutex<HashMap<String, Known>>, seed: u64) {
    let collections: Vec<String> = known.lock().keys().cloned().collect();
    for collection in collections {
        let read = contents(engine, &collection).await;
        let truncated = engine.collection(&name(&collection)).map_or(0, |info| info.truncated_to.0);
        let mut known = known.lock();
        let known = known.get_mut(&collection).unwrap();
        assert!(truncated >= known.truncated_acked, "seed {seed}: a truncation of {collection} was forgotten");
        assert!(truncated <= known.truncated_asked, "seed {seed}: {collection} was truncated further than asked");
        for (lsn, payload) in known.acked.range(truncated + 1..) {
            assert_eq!(read.get(lsn), Some(payload), "seed {seed}: LSN {lsn} of {collection}");
        }
        let dense = read.keys().zip(truncated + 1..).all(|(lsn, wanted)| *lsn == wanted);
        assert!(dense, "seed {seed}: {collection} has a hole: {:?}", read.keys());
        let there: HashMap<&String, u64> = read.iter().map(|(lsn, payload)| (payload, *lsn)).collect();
        assert_eq!(there.len(), read.len(), "seed {seed}: an entry of {collection} is there twice");
        for batch in &known.batches {
            let found: Vec<u64> = batch.iter().filter_map(|payload| there.get(payload).copied()).collect();
            let cut = found.first().is_some_and(|first| *first == truncated + 1);
            assert!(found.is_empty() || found.len() == batch.len() || cut, "seed {seed}: a batch is torn");
            assert!(found.windows(2).all(|pair| pair[0] + 1 == pair[1]), "seed {seed}: a batch is out of order");
        }
        // What is there now must stay.
        known.acked.extend(read);
    }
}

/// One machine through several lives, each ended by a power cut or a failing disk.
async fn lives(seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let urls: &[&str] = if random.random_bool(0.5) { &["file:///m/a"] } else { &["file:///m/a", "file:///m/b"] };
    let affinity = random.random_bool(0.7);
    let more = format!("collection_affinity = {affinity}\njournal_max_bytes = \"2Mi\"");
    let toml = toml(urls, &more);
    let known = Arc::new(Mutex::new(HashMap::new()));
    let ids = Arc::new(AtomicU64::new(0));
    let mut machine = Machine::default();
    for life in 0..4 {
        let engine = machine.ready(&toml).await;
        check(&engine, &known, seed).await;
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let random = SmallRng::seed_from_u64(random.random());
            clients.spawn(client(engine.clone(), Arc::clone(&known), Arc::clone(&ids), random));
        }
        let after = random.random_range(0..120);
        let faults = match random.random_range(0..3) {
            0 => Faults { syncs_left: Some(after), ..Faults::default() },
            1 => Faults { whole_writes_left: Some(after), ..Faults::default() },
            _ => Faults { bytes_left: Some(after * 3000), ..Faults::default() },
        };
        // One fails and the other goes on, or all fail.
        let one = urls.len() > 1 && random.random_bool(0.6);
        let forgets_pages = random.random_bool(0.5);
        let faults = Faults { forgets_pages, ..faults };
        if one {
            // It may come back, emptied or not, and another may fail then.
            engine.0.with_log(|log| log.rest = Duration::from_millis(random.random_range(1..20)));
            for _ in 0..random.random_range(0..4) {
                let disk = machine.disk(if random.random_bool(0.5) { "/m/a" } else { "/m/b" });
                disk.break_with(faults);
                tokio::time::sleep(Duration::from_millis(random.random_range(1..40))).await;
                disk.break_with(Faults::default());
                tokio::time::sleep(Duration::from_millis(random.random_range(1..40))).await;
            }
            let path = if random.random_bool(0.5) { "/m/a" } else { "/m/b" };
            machine.disk(path).break_with(faults);
        } else {
            machine.break_all(faults);
        }
        if one || random.random_bool(0.5) {
            // Some lives end in the middle of everything.
            let cut = random.random_range(0..400);
            for _ in 0..2000 {
                if ids.load(Ordering::Relaxed) >= cut * (life + 1) {
                    break;
                }
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            machine.break_all(Faults { dead: true, ..Faults::default() });
        }
        while let Some(ended) =
            tokio::time::timeout(Duration::from_secs(30), clients.join_next()).await.unwrap_or_else(|_| {
                panic!("seed {seed}: a client was never answered: {:#?}", engine.0.peek(|log| format!("{log:#?}")))
            })
        {
            ended.unwrap();
        }
        let left = machine.after_cut(random.random());
        engine.shutdown().await;
        machine = left;
    }
    let engine = machine.ready(&toml).await;
    check(&engine, &known, seed).await;
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_power_cuts_and_failing_disks() {
    let first: u64 = std::env::var("WALSTORAGE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seeds: u64 = std::env::var("WALSTORAGE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    for seed in first..first + seeds {
        let life = tokio::time::timeout(Duration::from_secs(120), lives(seed));
        assert!(life.await.is_ok(), "seed {seed} hangs");
    }
}

#[tokio::test]
async fn a_committer_that_panics_fails_its_directory_and_leaves_nobody_waiting() {
    let machine = Machine::default();
    let (engine, disk, on, off) = two_homes(&machine).await;
    disk.break_with(Faults { panics: true, ..Faults::default() });
    let moved = engine.append(batch(on, &["moved".into()]), None).await.unwrap();
    assert_eq!(moved.directory.as_str(), "file:///m/b");
    engine.append(batch(off, &["fine".into()]), None).await.unwrap();
    assert_eq!(engine.shutdown().await, Ended::Clean);
}

#[tokio::test]
async fn a_committer_that_panics_at_the_start_does_not_hold_the_others() {
    let machine = Machine::default();
    let (engine, disk, _, off) = two_homes(&machine).await;
    engine.shutdown().await;
    disk.break_with(Faults { creating_panics: true, ..Faults::default() });
    let engine = machine.ready(&toml(&["file:///m/a", "file:///m/b"], TWO)).await;
    engine.append(batch(off, &["fine".into()]), None).await.unwrap();
    assert_eq!(engine.shutdown().await, Ended::Clean);
}

#[tokio::test]
async fn a_panic_in_recovery_ends_the_engine_instead_of_hanging_it() {
    let machine = Machine::default();
    machine.disk("/m/a").break_with(Faults { panics: true, ..Faults::default() });
    let engine = machine.start(&toml(&["file:///m/a"], ""));
    let ended = tokio::time::timeout(Duration::from_secs(60), engine.ended()).await.unwrap();
    assert!(matches!(&ended, Ended::Refused(why) if why.contains("panicked")), "{ended:?}");
    assert_eq!(engine.shutdown().await, ended);
}

#[tokio::test]
async fn a_broken_log_leaves_nobody_waiting() {
    let machine = Machine::default();
    let engine = machine.ready(&toml(&["file:///m/a"], "buffered_commit_interval_ms = 60000")).await;
    let buffered = Append { ack: Ack::Buffered, ..batch("c", &["x".into()]) };
    engine.append(buffered, None).await.unwrap();
    // It waits for an entry that is a minute from being durable.
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.truncate(&name("c"), Lsn(1)).await }
    });
    while engine.0.peek(|log| log.find(&name("c")).map(|c| c.truncates.len()).unwrap_or(0)) == Some(0) {
        tokio::task::yield_now().await;
    }
    engine.0.collapse();
    let answer = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap();
    assert_eq!(answer.unwrap_err().reason, Reason::UnknownOutcome);
    let ended = tokio::time::timeout(Duration::from_secs(60), engine.ended()).await.unwrap();
    assert!(matches!(ended, Ended::Refused(_)), "{ended:?}");
}
