//! Random SIGKILLs and power cuts under eight clients over both transports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ledger::Counts;
use super::{Client, Kind, Ledger, verify};
use crate::harness::{Namespace, Setup, Sidecar, grpc};
use crate::twin::TwinDisk;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walstorage_sidecar::proto::{GetCollectionRequest, TruncateRequest};

const CLIENTS: [(Kind, bool); 8] = [
    (Kind::Stream(32), false),
    (Kind::Stream(8), true),
    (Kind::Stream(1), false),
    (Kind::Unary, true),
    (Kind::Unary, false),
    (Kind::Json, true),
    (Kind::Json, false),
    (Kind::Lines, true),
];

/// Truncates random collections to random LSNs until the connection breaks.
async fn truncate_at_random(mut client: grpc::Client, ledger: Arc<Ledger>, names: Arc<[String]>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let collection = names[rng.random_range(0..names.len())].clone();
        let info = match client.get_collection(GetCollectionRequest { collection: collection.clone() }).await {
            Ok(info) => info.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => continue,
            Err(_) => return,
        };
        let span = info.durable_head - info.truncated_to;
        let up_to = info.truncated_to + rng.random_range(0..=span / 2);
        ledger.truncating(&collection, up_to);
        match client.truncate(TruncateRequest { collection: collection.clone(), up_to }).await {
            Ok(reply) => ledger.truncated(&collection, reply.into_inner().truncated_to),
            Err(_) => return,
        }
    }
}

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stop,
    Kill,
    Cut,
}

/// Cuts the power of all disks and the process, and brings the disks back.
fn cut(sidecar: &mut Sidecar, disks: &mut [TwinDisk], rng: &mut StdRng) {
    disks.iter().for_each(|disk| disk.cut(rng.random()));
    sidecar.kill_while(|| disks.iter_mut().for_each(TwinDisk::power_off));
    disks.iter_mut().for_each(|disk| disk.power_on().expect("mounted again"));
}

/// Ends a sidecar `kills` times under load, in the ways that its disks allow, and judges after each what it left and
/// what it serves again.
///
/// # Panics
/// When anything is lost, doubled, out of order or torn apart; the message names the seed.
pub async fn kill_loop(shape: Shape, kills: u64, seed: u64) -> Counts {
    let Shape { setup, directories, collections, twins } = shape;
    println!("WALSTORAGE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let names: Arc<[String]> = (0..collections).map(|n| format!("c{n}")).collect();
    let ledger = Arc::new(Ledger::default());
    let mut clients: Vec<Client> = CLIENTS
        .iter()
        .enumerate()
        .map(|(n, (kind, producer))| Client::new(n as u32, *kind, *producer, &names, &ledger, seed))
        .collect();
    let mut journals: Vec<_> = (1..=directories).map(|n| setup.journal(n)).collect();
    let mut sidecar = Sidecar::new(setup);
    // Declared after the sidecar, so that a panic takes them first.
    let mut disks = Vec::new();
    if let Some((namespace, mounted)) = twins {
        journals.iter_mut().for_each(|journal| *journal = namespace.path(journal));
        sidecar = sidecar.within(namespace);
        disks = mounted;
    }
    let fail = |wrong: Vec<String>, when: &str| {
        assert!(
            wrong.is_empty(),
            "seed {seed}, {when}: {} faults\n{}",
            wrong.len(),
            wrong[..wrong.len().min(20)].join("\n")
        );
    };
    for round in 0..=kills {
        let last = round == kills;
        if rng.random_range(0..4) == 0 {
            sidecar.start();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
            if disks.is_empty() {
                sidecar.kill();
            } else {
                cut(&mut sidecar, &mut disks, &mut rng);
            }
        }
        sidecar.start();
        sidecar.wait_ready().await;
        fail(verify::over_the_socket(&mut sidecar.grpc(), &names, &ledger).await, &format!("round {round}, at start"));
        let socket = sidecar.setup.socket();
        let stop = Arc::new(AtomicBool::new(last));
        let truncating =
            tokio::spawn(truncate_at_random(sidecar.grpc(), Arc::clone(&ledger), Arc::clone(&names), seed ^ round));
        let running: Vec<_> = clients
            .drain(..)
            .map(|mut client| {
                let (socket, stop) = (socket.clone(), Arc::clone(&stop));
                tokio::spawn(async move {
                    client.run(&socket, &stop).await;
                    client
                })
            })
            .collect();
        let end = match rng.random_range(0..5) {
            _ if last => End::Stop,
            0 => End::Stop,
            1..4 if !disks.is_empty() => End::Cut,
            _ => End::Kill,
        };
        if !last {
            let target = ledger.counts().acked + rng.random_range(0..600);
            let mut ticks = tokio::time::interval(Duration::from_millis(1));
            let deadline = std::time::Instant::now() + crate::harness::DEADLINE;
            while ledger.counts().acked < target && !running.iter().all(tokio::task::JoinHandle::is_finished) {
                ticks.tick().await;
                assert!(std::time::Instant::now() < deadline, "seed {seed}, round {round}: no progress");
            }
            match end {
                End::Stop => sidecar.stop().await,
                End::Kill => sidecar.kill(),
                End::Cut => cut(&mut sidecar, &mut disks, &mut rng),
            }
            stop.store(true, Ordering::Relaxed);
        }
        for client in running {
            let joined = tokio::time::timeout(crate::harness::DEADLINE, client).await;
            clients.push(joined.expect("a client ends").expect("a client does not panic"));
        }
        if last {
            truncating.abort();
            let _ = truncating.await;
            sidecar.stop().await;
        } else {
            truncating.await.expect("truncating does not panic");
        }
        // What a killed process wrote and did not sync is there to be seen, and may be gone with the power.
        if end != End::Kill || disks.is_empty() {
            fail(verify::over_the_folders(&journals, &names, &ledger), &format!("round {round}, {end:?}"));
        }
    }
    assert!(clients.iter().all(|client| client.pending() == 0), "every producer got all its answers");
    for again in ["first", "second"] {
        sidecar.start();
        sidecar.wait_ready().await;
        fail(verify::over_the_socket(&mut sidecar.grpc(), &names, &ledger).await, &format!("the {again} restart"));
        sidecar.kill();
    }
    let counts = ledger.counts();
    println!("{counts:?}; requests of unknown outcome: {}", ledger.unknown().len());
    assert!(counts.acked > 0 && counts.read > 0, "the loop did something: {counts:?}");
    counts
}

/// What a writer looks like.
pub struct Shape {
    /// How it is started.
    pub setup: Setup,
    /// Number of directories with a journal: `d1`, `d2`, …
    pub directories: usize,
    /// Number of collections.
    pub collections: usize,
    /// Its directories, where they are disks whose power can be cut.
    pub twins: Option<(Namespace, Vec<TwinDisk>)>,
}

impl Shape {
    /// One directory.
    #[must_use]
    pub fn one_directory() -> Self {
        Self { setup: Setup::new(1), directories: 1, collections: 4, twins: None }
    }

    /// Three directories in turn.
    #[must_use]
    pub fn three_directories() -> Self {
        let setup = Setup::new(3).set(r#"distribution_strategy = "RoundRobin""#);
        Self { setup, directories: 3, collections: 7, twins: None }
    }

    /// A collection's groups go to different directories.
    #[must_use]
    pub fn without_affinity() -> Self {
        let setup = Setup::new(2).set(r#"distribution_strategy = "Hash""#).set("collection_affinity = false");
        Self { setup, directories: 2, collections: 3, twins: None }
    }

    /// All commits go to a directory of their own.
    #[must_use]
    pub fn own_journal() -> Self {
        let setup = Setup::new(2);
        let journal = setup.url("d3");
        Self { setup: setup.set(&format!("journal_url = {journal:?}")), directories: 3, collections: 3, twins: None }
    }

    /// Puts the directories on disks whose power is cut, too.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn on_twins(self) -> Result<Self, String> {
        let namespace = Namespace::of_root()?;
        let mount = |n| TwinDisk::mount(&namespace, &self.setup.path(&format!("d{n}")), 1 << 30);
        let disks = (1..=self.directories).map(mount).collect::<Result<_, _>>()?;
        Ok(Self { twins: Some((namespace, disks)), ..self })
    }
}
