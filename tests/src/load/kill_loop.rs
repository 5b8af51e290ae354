//! Random SIGKILLs, power cuts and failing disks under eight clients over both transports.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::churn::Churn;
use super::ledger::Counts;
use super::shape::Ground;
use super::trouble::Trouble;
use super::{Client, Kind, Ledger, Shape, verify};
use crate::emulators::proxy::Proxy;
use crate::harness::calls::directory;
use crate::harness::{DEADLINE, grpc};
use crate::twin::Rig;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walstorage_sidecar::proto::{GetCollectionRequest, Status, TruncateRequest};

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

/// The capacity of a disk that is not full.
const CAPACITY: u64 = 1 << 30;

/// Of a hundred requests to a bucket so many meet a fault.
const FAULTS: u32 = 10;

/// The size of an ext4 file system: room for a few slots.
const EXT4: u64 = 192 << 20;

/// A number that the environment gives.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

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
            // A failing disk answers so; a process that is gone has no reason.
            Err(status) if !grpc::typed(&status).reason.is_empty() => {}
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

/// What the loop did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Entries sent, acknowledged, read.
    pub counts: Counts,
    /// Starts of a process.
    pub starts: u64,
    /// Ends of a process by a signal or without power.
    pub ends: u64,
    /// Calls of disks that failed, stalled or were late, and requests to a bucket that met a fault.
    pub faults: u64,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, Self { counts, starts, ends, faults }: Self) {
        self.counts.sent += counts.sent;
        self.counts.acked += counts.acked;
        self.counts.duplicates += counts.duplicates;
        self.counts.read += counts.read;
        self.counts.refused += counts.refused;
        self.counts.refused_by_disks += counts.refused_by_disks;
        self.starts += starts;
        self.ends += ends;
        self.faults += faults;
    }
}

/// Ends a sidecar `kills` times under load, in the ways that its disks allow, and judges after each what it left and
/// what it serves again.
///
/// # Errors
/// The reason, where this machine does not allow the disks that the shape wants.
///
/// # Panics
/// When anything is lost, doubled, out of order or torn apart; the message names the seed.
pub async fn kill_loop(shape: Shape, kills: u64, seed: u64) -> Result<Done, String> {
    println!("WALSTORAGE_SEED={seed}");
    let mut writer = Writer::new(shape, seed)?;
    for round in 0..=kills {
        writer.round(round, round == kills).await;
    }
    Ok(writer.finish().await)
}

/// A writer, its clients and what they know.
struct Writer {
    seed: u64,
    rng: StdRng,
    names: Arc<[String]>,
    ledger: Arc<Ledger>,
    clients: Vec<Client>,
    churn: Churn,
    journals: Vec<std::path::PathBuf>,
    troubles: &'static [Trouble],
    entries: u64,
    way: Option<Proxy>,
    done: Done,
    rig: Rig,
}

impl Writer {
    fn new(shape: Shape, seed: u64) -> Result<Self, String> {
        let Shape { setup, directories, collections, ground, troubles, entries, way } = shape;
        assert!(troubles.is_empty() || ground == Ground::Twins, "only twins make trouble");
        let names: Arc<[String]> = (0..collections).map(|n| format!("c{n}")).collect();
        let ledger = Arc::new(Ledger::default());
        if !troubles.is_empty() || way.is_some() {
            ledger.expect_failing_disks();
        }
        let clients = CLIENTS
            .iter()
            .enumerate()
            .map(|(number, (kind, producer))| Client::new(number as u32, *kind, *producer, &names, &ledger, seed));
        let clients = clients.collect();
        let mut journals: Vec<_> = (1..=directories).map(|n| setup.journal(n)).collect();
        let rig = match ground {
            Ground::Folders => Rig::on_folders(setup),
            Ground::Twins => Rig::new(setup, directories, CAPACITY)?,
            Ground::Ext4 => Rig::on_ext4(setup, directories, EXT4)?,
        };
        journals.iter_mut().for_each(|journal| *journal = rig.path(journal));
        let rng = StdRng::seed_from_u64(seed);
        Ok(Self {
            seed,
            rng,
            names,
            ledger,
            clients,
            churn: Churn::new(seed),
            journals,
            troubles,
            entries,
            way,
            done: Done::default(),
            rig,
        })
    }

    fn judge(&self, wrong: &[String], when: &str) {
        if wrong.is_empty() {
            return;
        }
        if let Ok(keep) = std::env::var("WALSTORAGE_KEEP") {
            self.keep(std::path::Path::new(&keep));
        }
        let shown = wrong[..wrong.len().min(20)].join("\n");
        panic!("seed {}, {when}: {} faults\n{shown}", self.seed, wrong.len());
    }

    /// Copies the directories as they are now, and every log.
    fn keep(&self, folder: &std::path::Path) {
        let directories = self.journals.iter().filter_map(|journal| journal.parent()?.parent());
        let logs = std::fs::read_dir(self.rig.sidecar.setup.root()).into_iter().flatten().flatten();
        let logs = logs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).map(|entry| entry.path());
        let from: Vec<_> = directories.map(std::path::Path::to_path_buf).chain(logs).collect();
        let copied = std::process::Command::new("cp").arg("-r").args(from).arg(folder).status();
        println!("kept in {}: {copied:?}", folder.display());
    }

    fn start(&mut self) {
        self.done.starts += 1;
        if let Some(way) = &self.way {
            way.be_rough(FAULTS);
        }
        self.rig.sidecar.start();
    }

    /// Starts, waits until it serves, and reads everything.
    async fn recover(&mut self, when: &str) {
        self.start();
        self.rig.sidecar.wait_ready().await;
        self.ledger.reader(when);
        let mut client = self.rig.sidecar.grpc();
        let mut wrong = verify::over_the_socket(&mut client, &self.names, &self.ledger).await;
        wrong.extend(self.churn.check(&mut client).await);
        self.judge(&wrong, when);
    }

    fn heal(&mut self) {
        if let Some(way) = &self.way {
            way.be_kind();
        }
        for disk in &self.rig.disks {
            self.done.faults += disk.take_struck();
            disk.set_capacity(CAPACITY);
            disk.heal();
        }
    }

    /// Ends the process; without power everything that was not synced is at the mercy of the seed.
    async fn end(&mut self, end: End) {
        match end {
            End::Stop => {
                self.heal();
                self.rig.sidecar.stop().await;
            }
            End::Kill => self.rig.kill(),
            End::Cut => self.rig.cut(self.rng.random()),
        }
        self.done.ends += u64::from(end != End::Stop);
        self.heal();
    }

    async fn round(&mut self, round: u64, last: bool) {
        if self.rng.random_range(0..4) == 0 {
            self.start();
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..40))).await;
            self.end(if self.rig.disks.is_empty() { End::Kill } else { End::Cut }).await;
        }
        self.recover(&format!("round {round}, at start")).await;
        let (client, ledger, names) = (self.rig.sidecar.grpc(), Arc::clone(&self.ledger), Arc::clone(&self.names));
        let truncating = tokio::spawn(truncate_at_random(client, ledger, names, self.seed ^ round));
        let stop = Arc::new(AtomicBool::new(last));
        let over = Arc::new(AtomicBool::new(false));
        let running = self.set_to_work(&stop, &over);
        let churning = {
            let (socket, over) = (self.rig.sidecar.setup.socket(), Arc::clone(&over));
            let mut churn = std::mem::replace(&mut self.churn, Churn::new(0));
            tokio::spawn(async move {
                churn.run(&socket, &over).await;
                churn
            })
        };
        let end = match self.rng.random_range(0..5) {
            _ if last => End::Stop,
            0 => End::Stop,
            1..4 if !self.rig.disks.is_empty() => End::Cut,
            _ => End::Kill,
        };
        if !last {
            self.load(round, &running).await;
            // Before the process is gone: clients that meet it no more shall not try again.
            over.store(true, Ordering::Relaxed);
            self.end(end).await;
            stop.store(true, Ordering::Relaxed);
        }
        for client in running {
            let joined = tokio::time::timeout(DEADLINE, client).await;
            self.clients.push(joined.expect("a client ends").expect("a client does not panic"));
        }
        over.store(true, Ordering::Relaxed);
        self.churn = churning.await.expect("it does not panic");
        if last {
            truncating.abort();
            let _ = truncating.await;
            self.end(End::Stop).await;
        } else {
            truncating.await.expect("truncating does not panic");
        }
        // What a killed process did not sync, or failed to, is there to be seen and may be gone with the power.
        let certain = match end {
            _ if self.journals.is_empty() => false,
            End::Stop => self.troubles.is_empty(),
            End::Kill => self.rig.disks.is_empty(),
            End::Cut => true,
        };
        if certain {
            let when = format!("round {round}, {end:?}");
            self.ledger.reader(&when);
            let wrong = verify::over_the_folders(&self.journals, &self.names, &self.ledger);
            self.judge(&wrong, &when);
        }
    }

    /// Runs every client, and again when it was refused, until `over`.
    fn set_to_work(&mut self, stop: &Arc<AtomicBool>, over: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<Client>> {
        let socket = self.rig.sidecar.setup.socket();
        let again = !self.troubles.is_empty() || self.way.is_some();
        let run = |mut client: Client| {
            let (socket, stop, over) = (socket.clone(), Arc::clone(stop), Arc::clone(over));
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(5));
                loop {
                    ticks.tick().await;
                    client.run(&socket, &stop).await;
                    let answered = stop.load(Ordering::Relaxed) && client.pending() == 0;
                    if !again || over.load(Ordering::Relaxed) || answered {
                        return client;
                    }
                }
            })
        };
        self.clients.drain(..).map(run).collect()
    }

    /// Waits until some hundred requests were acknowledged or refused; first for the disk that is to make trouble, if
    /// one is, until it has.
    async fn load(&mut self, round: u64, running: &[tokio::task::JoinHandle<Client>]) {
        let mut disk = None;
        if !self.troubles.is_empty() && self.rng.random_range(0..3) > 0 {
            let trouble = self.troubles[self.rng.random_range(0..self.troubles.len())];
            let number = self.rng.random_range(0..self.rig.disks.len());
            println!("round {round}: {trouble:?} on d{}", number + 1);
            trouble.begin(&self.rig.disks[number], &mut self.rng);
            disk = Some((number, trouble));
        }
        let more = self.rng.random_range(0..self.entries);
        let passed = || self.ledger.counts().acked + self.ledger.counts().refused;
        let struck = || disk.is_none_or(|(number, _)| self.rig.disks[number].struck() > 0);
        let ended = || running.iter().all(tokio::task::JoinHandle::is_finished);
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let started = Instant::now();
        // A fault may wait for calls that do not come.
        let limit = passed() + 2000;
        while !struck() && passed() < limit && !ended() {
            ticks.tick().await;
            assert!(started.elapsed() < DEADLINE, "seed {}, round {round}: no progress", self.seed);
        }
        if let Some((number, Trouble::Stall)) = disk
            && struck()
        {
            // Its collections move when others have shown for long enough that they are not stalled.
            let url = self.rig.sidecar.setup.url(&format!("d{}", number + 1));
            let given_up = |status: &Status| directory(status, &url).state == "failed";
            self.rig.sidecar.wait_status("a stalled disk is given up", given_up).await;
        }
        let passed = || self.ledger.counts().acked + self.ledger.counts().refused;
        let target = passed() + more;
        while passed() < target && !ended() {
            ticks.tick().await;
            assert!(started.elapsed() < DEADLINE, "seed {}, round {round}: no progress", self.seed);
        }
    }

    /// Two starts more must show the same.
    async fn finish(mut self) -> Done {
        assert!(self.clients.iter().all(|client| client.pending() == 0), "every producer got all its answers");
        for again in ["first", "second"] {
            self.recover(&format!("the {again} restart")).await;
            self.end(End::Kill).await;
        }
        self.done.counts = self.ledger.counts();
        if let Some(way) = &self.way {
            let counts = way.counts();
            self.done.faults += counts.values().sum::<u64>();
            println!("on the way to the bucket: {counts:?}");
        }
        println!("{:?}; requests of unknown outcome: {}", self.done, self.ledger.unknown().len());
        assert!(self.done.counts.acked > 0 && self.done.counts.read > 0, "the loop did something");
        if self.troubles.is_empty() && self.way.is_none() {
            let expected = self.done.counts.refused_by_disks == 0;
            assert!(expected, "healthy disks refuse nothing: {:?}", self.done);
        }
        self.done
    }
}
