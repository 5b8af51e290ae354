//! What a sidecar may take, whatever is appended and not truncated: memory, journal, syncs, file descriptors, time to
//! stop. `WALSTORAGE_FULL_SIZE=1` runs the loads at the size that the design names, on real folders.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::{Duration, Instant};

use rustix::process::Signal;
use walstorage_tests::harness::http::Connection;
use walstorage_tests::harness::memory::mib;
use walstorage_tests::harness::skip::{full_size, skipped};
use walstorage_tests::harness::{Setup, Sidecar, free_port};
use walstorage_tests::load::many::{self, Load, descriptors};
use walstorage_tests::twin::Rig;

const MIB: u64 = 1 << 20;

/// What a process takes beside its entries: the bound's tenth, and this.
const BESIDE: f64 = 30.0;

fn bounded(memory: u64, journal: u64) -> Setup {
    Setup::new(1)
        .set(&format!("memory_flush_size_bytes = {}", MIB.min(memory / 8)))
        .set(&format!("global_flush_threshold = {memory}"))
        .set(&format!("journal_max_bytes = {journal}"))
}

fn within(cost: &many::Cost, memory: u64, journal: u64) {
    println!("{cost}");
    let bound = memory as f64 / MIB as f64 * 1.1 + BESIDE;
    assert!(cost.resident <= bound, "resident memory of at most {bound:.0} MiB: {cost}");
    assert!(cost.journal <= journal, "a journal of at most {} MiB: {cost}", journal / MIB);
}

/// What a sidecar counted since it started: commits of its journals, each one synced write, and flushes, each a segment
/// that is synced with its folder.
async fn commits_and_flushes(port: u16) -> (u64, u64) {
    let reply = Connection::open_port(port).await.unwrap().get("/metrics").await.unwrap();
    let metrics = String::from_utf8_lossy(&reply.body).into_owned();
    let sum = |name: &str| {
        let samples = metrics.lines().filter(|line| line.starts_with(name));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    };
    (sum("walstorage_sync_seconds_count{"), sum("walstorage_flushes_total{"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_08_many_untruncated_collections_stay_within_memory_journal_and_syncs() {
    let test = "schedule_08_many_untruncated_collections_stay_within_memory_journal_and_syncs";
    let (load, memory, journal) = if full_size() {
        (load(10_000, 32, 16 << 10), 512 * MIB, 640 * MIB)
    } else {
        (load(1000, 8, 16 << 10), 32 * MIB, 64 * MIB)
    };
    let port = free_port();
    let setup = bounded(memory, journal).admin(&format!("127.0.0.1:{port}"));
    let mut rig = if full_size() {
        Rig::on_folders(setup)
    } else {
        match Rig::new(setup, 1, 1 << 30) {
            Ok(rig) => rig,
            Err(why) => return skipped(test, &why),
        }
    };
    rig.start().await;
    let cost = many::run(&rig.sidecar, load).await;
    within(&cost, memory, journal);
    assert_eq!(cost.acked as usize, load.collections * load.entries);
    // A group has at least half of what is under way, and a flush some MiB; a flush for each collection would be
    // thousands more.
    let groups = cost.acked / 16;
    let (commits, flushes) = commits_and_flushes(port).await;
    let each_second = |count: u64| count as f64 / cost.took.as_secs_f64();
    println!("{:.0} commits and {:.1} flushes a second", each_second(commits), each_second(flushes));
    let flushed = cost.acked * load.payload as u64 / MIB;
    assert!(commits > 0 && commits < groups + 1000, "{commits} commits for {} entries", cost.acked);
    assert!(flushes > 0 && flushes < flushed + 100, "{flushes} flushes for {flushed} MiB");
    if let Some(disk) = rig.disks.first() {
        // What the file system saw of both.
        assert!(disk.counts().1 < groups + 1000, "{} syncs for {} entries", disk.counts().1, cost.acked);
    }
    rig.sidecar.kill();
    rig.start().await;
    let mut client = rig.sidecar.grpc();
    for n in (0..load.collections).step_by(load.collections / 50) {
        many::check(&mut client, n, load.entries, load.payload).await;
    }
}

fn load(collections: usize, entries: usize, payload: usize) -> Load {
    Load { collections, entries, payload, clients: 4, window: 32, at_most: Duration::MAX }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_collection_at_full_speed_stays_within_memory_and_journal() {
    let seconds = if full_size() { 60 } else { 4 };
    let (memory, journal) = if full_size() { (512 * MIB, 640 * MIB) } else { (24 * MIB, 64 * MIB) };
    let sidecar = Sidecar::ready(bounded(memory, journal)).await;
    let hot = Load {
        collections: 1,
        entries: usize::MAX,
        payload: 4 << 10,
        clients: 1,
        window: 256,
        at_most: Duration::from_secs(seconds),
    };
    let cost = many::run(&sidecar, hot).await;
    within(&cost, memory, journal);
    many::check(&mut sidecar.grpc(), 0, cost.acked as usize, hot.payload).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_many_segments_at_once_keeps_file_descriptors_bounded() {
    let memory = 16 * MIB;
    let sidecar = Sidecar::ready(bounded(memory, 64 * MIB).set("memory_flush_size_bytes = 65536")).await;
    let load = load(300, 12, 16 << 10);
    let cost = many::run(&sidecar, load).await;
    println!("{cost}");
    let before = descriptors(sidecar.pid());
    let readers = 60;
    let running: Vec<_> = (0..readers)
        .map(|reader| {
            let mut client = sidecar.grpc();
            tokio::spawn(async move {
                for n in (0..load.collections).skip(reader).step_by(75) {
                    many::check(&mut client, n, load.entries, load.payload).await;
                }
            })
        })
        .collect();
    let mut most = 0;
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    while !running.iter().all(tokio::task::JoinHandle::is_finished) {
        ticks.tick().await;
        most = descriptors(sidecar.pid()).max(most);
    }
    for reader in running {
        reader.await.expect("it read everything");
    }
    assert!(most <= before + readers + 80, "{most} descriptors for {readers} connections and {before} before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_26_a_stop_with_ten_thousand_dirty_collections_takes_less_than_ten_seconds_and_loses_nothing() {
    let mut sidecar = Sidecar::ready(Setup::new(1)).await;
    let load = Load { clients: 8, window: 256, ..load(10_000, 1, 200) };
    println!("{}", many::run(&sidecar, load).await);
    let asked = Instant::now();
    sidecar.signal(Signal::TERM);
    assert_eq!(sidecar.exit().await.code(), Some(0));
    // What Kubernetes is told to wait for.
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    sidecar.start();
    sidecar.wait_ready().await;
    assert_eq!(sidecar.status().await.collections, 10_000);
    let mut client = sidecar.grpc();
    for n in (0..load.collections).step_by(101) {
        many::check(&mut client, n, load.entries, load.payload).await;
    }
}

#[tokio::test]
async fn an_idle_sidecar_holds_little_memory_of_its_own() {
    let sidecar = Sidecar::ready(Setup::new(3)).await;
    let resident = mib(sidecar.pid(), "VmRSS").expect("memory");
    println!("idle: {resident:.1} MiB, {:.1} of its own", mib(sidecar.pid(), "RssAnon").expect("memory"));
    assert!(resident < 15.0, "{resident:.1} MiB");
}

/// Kills a process that holds `load` in memory and journal, starts one with a bound of `bound` bytes, and reads back.
async fn replayed_within(load: Load, bound: u64) {
    replayed_after(load, bound, |_| {}).await;
}

/// The same; `meanwhile` is done before the start.
async fn replayed_after(load: Load, bound: u64, meanwhile: impl FnOnce(&Setup)) {
    let roomy = Setup::new(1).set("memory_flush_size_bytes = \"512Mi\"").set("journal_max_bytes = \"512Mi\"");
    let mut sidecar = Sidecar::ready(roomy.set("global_flush_threshold = \"512Mi\"")).await;
    let cost = many::run(&sidecar, load).await;
    assert_eq!(cost.acked as usize, load.collections * load.entries);
    let held = (load.collections * load.entries * load.payload) as u64;
    assert!(held >= 3 * bound && cost.journal >= held, "{held} bytes in a journal of {}", cost.journal);
    sidecar.kill();
    sidecar.setup.add(&format!("global_flush_threshold = {bound}"));
    sidecar.setup.add(&format!("memory_flush_size_bytes = {}", bound / 2));
    meanwhile(&sidecar.setup);
    sidecar.start();
    sidecar.wait_ready().await;
    let started = mib(sidecar.pid(), "VmHWM").expect("its memory");
    let mut client = sidecar.grpc();
    for n in (0..load.collections).step_by(load.collections.div_ceil(200)) {
        many::check(&mut client, n, load.entries, load.payload).await;
    }
    // A batch above 1 MiB may stand above the bound, and what goes to a segment is laid out there.
    let most = bound as f64 / MIB as f64 * 1.1 + BESIDE + if load.payload > MIB as usize { 48.0 } else { 0.0 };
    let highest = mib(sidecar.pid(), "VmHWM").expect("its memory");
    println!("{} MiB within {}: at most {started:.1} MiB until ready, {highest:.1} read", held / MIB, bound / MIB);
    assert!(started <= most, "at most {started:.1} MiB resident until ready, {most:.1} are allowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_23_a_start_on_a_journal_of_four_times_the_bound_stays_within_it_one_collection() {
    replayed_within(load(1, 4096, 16 << 10), 16 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_23_a_start_on_a_journal_of_four_times_the_bound_stays_within_it_thousands_of_collections() {
    replayed_within(load(4000, 8, 2 << 10), 16 * MIB).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_23_a_start_over_a_lowered_bound_gets_ready_although_no_collection_has_a_path_of_its_own() {
    let load = load(20, 256, 16 << 10);
    let block = |setup: &Setup| (0..load.collections).for_each(|n| setup.block_own_path(&many::name(n)));
    replayed_after(load, 16 * MIB, block).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedule_23_the_largest_entries_are_replayed_within_the_bound_and_a_batch() {
    let largest = Load { window: 1, clients: 1, ..load(1, 4, 16 << 20) };
    replayed_within(largest, 16 * MIB).await;
}
