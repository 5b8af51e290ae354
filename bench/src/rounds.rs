//! The run: everything is started and warmed up, then all take turns, round by round.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use walstorage_tests::harness::{Setup, Sidecar};

use crate::effort::Effort;
use crate::figures::{Figures, Load, Who};
use crate::server::{self, Server};
use crate::spread::Spread;
use crate::subject::{self, Order, Setting, Subject};
use crate::wire::Until;
use crate::{failure, history, machine, memory, ours, recovery, redis_benchmark, syncs};

/// Clients with one append in flight each.
pub(crate) const CLIENTS: [usize; 3] = [1, 8, 32];
/// Collections of the load with many.
pub(crate) const MANY: usize = 1000;
/// Collections of the load on two devices.
pub(crate) const SPREAD: usize = 64;
/// 256 in flight: streams and appends under way on each.
pub(crate) const OURS_256: (usize, usize) = (8, 32);
/// The same for Redis, whose clients pipeline less.
pub(crate) const REDIS_256: (usize, usize) = (32, 8);

/// What runs through all rounds.
struct Running {
    subjects: Vec<(subject::Kind, Subject)>,
    /// Our library with [`MANY`] collections.
    many: Subject,
    /// Our library with [`SPREAD`] collections on one device and on two.
    two: Option<(Subject, Subject)>,
    servers: Vec<(server::Kind, Server)>,
}

/// What is measured, and where.
pub(crate) struct Plan {
    pub(crate) effort: Effort,
    pub(crate) folder: PathBuf,
    pub(crate) peers: PathBuf,
    /// On another device.
    pub(crate) second: Option<PathBuf>,
    pub(crate) only_appends: bool,
    pub(crate) no_appends: bool,
}

/// Measures.
pub(crate) async fn run(plan: &Plan) -> anyhow::Result<Figures> {
    let Plan { effort, folder, peers, second: _, only_appends, no_appends } = plan;
    let (effort, only_appends) = (*effort, *only_appends);
    let versions: BTreeMap<_, _> =
        server::Kind::ALL.into_iter().filter_map(|kind| Some((kind, kind.version(peers)?))).collect();
    let present: Vec<_> = versions.keys().copied().collect();
    let mut figures = Figures {
        effort,
        only_appends,
        machine: machine::describe(folder),
        versions,
        syncs: None,
        loads: BTreeMap::new(),
        recoveries: BTreeMap::new(),
        starts: Ok(BTreeMap::new()),
        failures: Ok(Vec::new()),
        idle: Spread::default(),
        two_devices: Vec::new(),
    };
    if syncs::possible() && !no_appends {
        eprintln!("bench: looking whether everybody syncs");
        figures.syncs = Some(syncs::of_all(folder, peers, &present).await?);
    }
    let (mut journals, mut histories) = (Vec::new(), Vec::new());
    if !only_appends {
        for mib in effort.journals {
            eprintln!("bench: writing a journal of {mib} MiB");
            journals.push((*mib, recovery::write(folder, *mib).await?));
        }
        for entries in effort.histories {
            eprintln!("bench: writing a history of {entries} entries");
            match history::write(folder, *entries).await {
                Ok(sidecar) => histories.push((*entries, sidecar)),
                Err(error) => figures.starts = Err(format!("{error:#}")),
            }
        }
    }
    let mut running = if *no_appends { None } else { Some(start(plan, &present).await?) };
    for round in 1..=effort.rounds {
        eprintln!("bench: round {round} of {}", effort.rounds);
        if let Some(running) = &mut running {
            appends(&mut figures, running, effort.load).await?;
        }
        if only_appends {
            continue;
        }
        for (mib, sidecar) in &mut journals {
            let measured = recovery::measure(sidecar).await?;
            figures.recoveries.entry(*mib).or_default().push(measured);
        }
        if let Ok(starts) = &mut figures.starts {
            for (entries, sidecar) in &mut histories {
                starts.entry(*entries).or_default().add(history::start(sidecar).await);
            }
        }
        if figures.failures.is_ok() {
            let folder = folder.join(format!("failure-{round}"));
            std::fs::create_dir(&folder)?;
            match (&mut figures.failures, failure::measure(&folder).await) {
                (Ok(failures), Ok(measured)) => failures.push(measured),
                (failures, Err(error)) => *failures = Err(format!("{error:#}")),
                (Err(_), Ok(_)) => {}
            }
        }
        let mut idle = Sidecar::ready(Setup::below(folder, 1)).await;
        // The empty frame after a second without commits is the last thing that an idle sidecar does.
        tokio::time::sleep(Duration::from_secs(2)).await;
        figures.idle.add(memory::mib(idle.pid(), "VmRSS")?);
        idle.kill();
    }
    Ok(figures)
}

async fn start(plan: &Plan, present: &[server::Kind]) -> anyhow::Result<Running> {
    let Plan { effort, folder, peers, second, only_appends: _, no_appends: _ } = plan;
    eprintln!("bench: warming up");
    let warm_up = Order::Load { clients: 8, time: effort.warm_up };
    let warm = |setting: &Setting| {
        let mut subject = Subject::start(setting, &[])?;
        subject.order(warm_up)?;
        anyhow::Ok(subject)
    };
    let mut subjects = Vec::new();
    for kind in subject::Kind::ALL {
        subjects.push((kind, warm(&Setting::new(kind, &folder.join(format!("subject-{kind:?}"))))?));
    }
    let many = Setting { collections: MANY, ..Setting::new(subject::Kind::Library, &folder.join("many")) };
    let many = warm(&many)?;
    let mut two = None;
    if let Some(second) = second {
        let pair = |name: &str| {
            let setting = Setting::new(subject::Kind::Library, &folder.join(name));
            Setting { collections: SPREAD, ..setting }
        };
        let second = Some(second.join("second"));
        two = Some((warm(&pair("one"))?, warm(&Setting { second, ..pair("two") })?));
    }
    let mut servers = Vec::new();
    for &kind in present {
        let server = Server::start(kind, &folder.join(format!("server-{kind:?}")), peers, &[]).await?;
        server.load(8, 1, 1, Until::Passed(effort.warm_up)).await?;
        servers.push((kind, server));
    }
    Ok(Running { subjects, many, two, servers })
}

/// One round of all loads.
async fn appends(figures: &mut Figures, running: &mut Running, time: Duration) -> anyhow::Result<()> {
    for clients in CLIENTS {
        for (kind, subject) in &mut running.subjects {
            let measured = subject.order(Order::Load { clients, time })?;
            figures.add(Load::plain(Who::InProcess(*kind), clients), measured);
        }
        for (kind, server) in &running.servers {
            let measured = server.load(clients, 1, 1, Until::Passed(time)).await?;
            figures.add(Load::plain(Who::Server(*kind), clients), measured);
        }
    }
    let many = running.many.order(Order::Load { clients: 32, time })?;
    let in_library = Load::plain(Who::InProcess(subject::Kind::Library), 32);
    figures.add(Load { collections: MANY, ..in_library }, many);
    if let Some((one, two)) = &mut running.two {
        let measured = (one.order(Order::Load { clients: 32, time })?, two.order(Order::Load { clients: 32, time })?);
        figures.two_devices.push((measured.0.rate, measured.1.rate));
    }
    for (kind, server) in &running.servers {
        let plain = Load::plain(Who::Server(*kind), 32);
        let pipelined = match kind {
            server::Kind::Ours => {
                let many = server.load(32, 1, MANY, Until::Passed(time)).await?;
                figures.add(Load { collections: MANY, ..plain }, many);
                for clients in [1, 32] {
                    let Some(socket) = server.socket() else { continue };
                    let measured = ours::stock_client(socket, clients, time).await?;
                    figures.add(Load::plain(Who::StockClient, clients), measured);
                }
                OURS_256
            }
            server::Kind::Redis => {
                let Some(socket) = server.socket() else { continue };
                for (clients, in_flight) in [(1, 1), (32, 1), REDIS_256] {
                    // About as many as last as long as a load.
                    let guess = figures.rate(Who::Server(*kind), clients).unwrap_or(1000.0) * in_flight as f64;
                    let requests = (guess.min(200_000.0) * time.as_secs_f64()) as usize;
                    let measured =
                        tokio::task::block_in_place(|| redis_benchmark::measure(socket, clients, in_flight, requests))?;
                    if let Some(measured) = measured {
                        let load = Load { clients, in_flight, ..Load::plain(Who::RedisBenchmark, clients) };
                        figures.add(load, measured);
                    }
                }
                server.clear()?;
                REDIS_256
            }
            server::Kind::Etcd | server::Kind::Nats => continue,
        };
        let (clients, in_flight) = pipelined;
        let measured = server.load(clients, in_flight, 1, Until::Passed(time)).await?;
        figures.add(Load { clients, in_flight, ..plain }, measured);
    }
    Ok(())
}
