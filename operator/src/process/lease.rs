//! Drives an [`Election`] against the API server and runs what only a leader does.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client, Error};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::election::{Effect, Election, Event, Record, Stored, Times};
use super::health::Gate;

/// How often a Lease is let go of that is found to be another than it was.
const RELEASES: usize = 3;

/// Where the Lease is.
#[derive(Clone, Debug)]
pub struct LeaseName {
    /// The operator's namespace.
    pub namespace: String,
    /// The Lease.
    pub name: String,
}

/// Takes part in the election until the token is cancelled, and runs `work` while this process leads. A process that waits
/// is ready: it takes over at any time. On the way out the Lease is let go of, so that nobody waits.
///
/// # Errors
/// When `work` fails.
pub async fn lead<W, F>(
    client: Client,
    lease: LeaseName,
    identity: String,
    times: Times,
    gate: Gate,
    work: W,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    W: Fn(CancellationToken) -> F,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let api: Api<Lease> = Api::namespaced(client, &lease.namespace);
    let driver = Driver { api, name: lease.name, origin: Instant::now(), times, acquired: Mutex::new(None) };
    let mut election = Election::new(identity, times);
    let mut running: Option<Running> = None;
    let mut event = Some(Event::Tick);
    let mut failed = Ok(());
    while !stop.is_cancelled() && failed.is_ok() {
        let effects = event.take().map(|event| election.step(driver.now(), event)).unwrap_or_default();
        let mut request = None;
        for effect in effects {
            match effect {
                Effect::Lead => {
                    tracing::info!("leading");
                    let token = stop.child_token();
                    running = Some(Running { task: tokio::spawn(work(token.clone())), token });
                }
                Effect::Stop => {
                    tracing::warn!(holder = election.holder(), "leading no more");
                    if let Some(running) = running.take() {
                        failed = running.end().await;
                    }
                }
                Effect::Read | Effect::Write { .. } => request = Some(effect),
            }
        }
        let wake = driver.origin + election.wake().min(Duration::from_secs(3600));
        let answer = async {
            match &request {
                Some(request) => driver.ask(request).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            answer = answer => {
                match &answer {
                    Event::Failed => gate.close("the Lease cannot be read or written"),
                    _ => gate.open(),
                }
                event = Some(answer);
            }
            ended = Running::ended(running.as_mut()) => {
                running = None;
                failed = ended;
            }
            () = sleep_until(wake) => event = Some(if request.is_some() { Event::Failed } else { Event::Tick }),
        }
    }
    if let Some(running) = running {
        failed = running.end().await.and(failed);
    }
    for _ in 0..RELEASES {
        let Some(release) = election.release() else { break };
        if driver.ask(&release).await != Event::Refused {
            break;
        }
        // A renewal that was under way was done, and nobody heard of it.
        let found = driver.ask(&Effect::Read).await;
        election.step(driver.now(), found);
    }
    failed
}

/// The leader's work.
struct Running {
    task: JoinHandle<anyhow::Result<()>>,
    token: CancellationToken,
}

impl Running {
    async fn end(self) -> anyhow::Result<()> {
        self.token.cancel();
        self.task.await?
    }

    /// Waits for work that ends by itself: for ever where there is none.
    async fn ended(running: Option<&mut Self>) -> anyhow::Result<()> {
        match running {
            Some(running) => (&mut running.task).await?,
            None => std::future::pending().await,
        }
    }
}

struct Driver {
    api: Api<Lease>,
    name: String,
    origin: Instant,
    times: Times,
    /// Holder and transitions of the last write, and since when it is so.
    acquired: Mutex<Option<(Record, MicroTime)>>,
}

impl Driver {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Sends one request. One that is not answered in half of the time that a leader has is given up.
    async fn ask(&self, effect: &Effect) -> Event {
        let asked = timeout(self.times.renew / 2, self.send(effect)).await;
        match asked {
            Ok(Ok(event)) => event,
            Ok(Err(Error::Api(status))) if status.is_conflict() || status.is_already_exists() => Event::Refused,
            // Deleted between a read and a write: made anew after the next read.
            Ok(Err(Error::Api(status))) if status.is_not_found() => Event::Refused,
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = self.name, "the Lease cannot be read or written");
                Event::Failed
            }
            Err(_) => {
                tracing::warn!(lease = self.name, "no answer about the Lease");
                Event::Failed
            }
        }
    }

    async fn send(&self, effect: &Effect) -> Result<Event, Error> {
        match effect {
            Effect::Read => Ok(Event::Read(self.api.get_opt(&self.name).await?.as_ref().map(stored))),
            Effect::Write { record, over: None } => {
                let made = self.api.create(&PostParams::default(), &self.lease(record, None)).await?;
                Ok(Event::Written(stored(&made)))
            }
            Effect::Write { record, over: Some(version) } => {
                let lease = self.lease(record, Some(version.clone()));
                let made = self.api.replace(&self.name, &PostParams::default(), &lease).await?;
                Ok(Event::Written(stored(&made)))
            }
            Effect::Lead | Effect::Stop => Ok(Event::Tick),
        }
    }

    fn lease(&self, record: &Record, version: Option<String>) -> Lease {
        let Record { holder, duration_seconds, transitions } = record;
        let now = MicroTime(Timestamp::now());
        let mut acquired = self.acquired.lock();
        let since = match &*acquired {
            Some((known, since)) if known == record => since.clone(),
            _ => acquired.insert((record.clone(), now.clone())).1.clone(),
        };
        Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), resource_version: version, ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.clone()),
                lease_duration_seconds: Some(*duration_seconds),
                lease_transitions: Some(*transitions),
                acquire_time: Some(since),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn stored(lease: &Lease) -> Stored {
    let spec = lease.spec.clone().unwrap_or_default();
    Stored {
        record: Record {
            holder: spec.holder_identity.unwrap_or_default(),
            duration_seconds: spec.lease_duration_seconds.unwrap_or_default(),
            transitions: spec.lease_transitions.unwrap_or_default(),
        },
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
