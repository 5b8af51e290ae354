//! Kubernetes for tests, on a bare machine: a control plane in three seconds, a whole node in five.
//!
//! - [`ControlPlane`] is etcd and the API server, and on demand the controller manager, the scheduler and nodes that
//!   exist on paper. It needs no root.
//! - [`Cluster`] is a control plane with a real kubelet, containerd, kube-proxy and DNS, in namespaces of its own, with
//!   volumes that are real file systems: they fill up and grow. It needs root; where it cannot run, [`skip`] says so.
//!
//! Both end when they are dropped and when their test process ends, however that ends: they are owned by a supervisor
//! process that goes when its standard input closes ([`supervisor`]). Nothing outlives it: no process, mount, link,
//! cgroup or file. Any number run side by side.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use walstorage_cluster_tests::{Cluster, images};
//!
//! let Some(cluster) = Cluster::shared_or_skip("an_app_appends").await else { return Ok(()) };
//! let client = cluster.client(); // one for each test: it belongs to the runtime of the test
//! let namespace = cluster.namespace("an-app").await;
//! cluster.kubectl(&["-n", &namespace, "run", "app", "--image", images::APP, "--", "idle"])?;
//! # Ok(())
//! # }
//! ```
//!
//! 1. A test has a namespace of its own; clusters are shared by the tests of one program. One that kills a kubelet or
//!    cuts a node's power starts a cluster of its own.
//! 2. Nothing waits for a fixed time: [`eventually`] polls against a deadline that only fails a hang.
//! 3. Programs under test are the ones that all other suites run; images are made of them ([`images`]).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this whole crate is tests")]

pub mod archive;
pub mod audit;
pub mod binaries;
pub mod charts;
pub mod cluster;
mod components;
pub mod connection;
pub mod control_plane;
pub mod demo;
mod folder;
pub mod gateway;
mod handle;
pub mod images;
pub mod init;
pub mod kubelet;
mod mirror;
pub mod network;
pub mod numbered;
pub mod objects;
pub mod operator;
mod pki;
pub mod pods;
pub mod process;
pub mod runbook;
pub mod skip;
mod spec;
pub mod starts;
pub mod store;
pub mod story;
pub mod supervisor;
pub mod team;
pub mod tools;
pub mod witness;

use std::time::Duration;

pub use cluster::Cluster;
pub use connection::Connection;
pub use control_plane::ControlPlane;
pub use spec::Binder;

/// How long anything may take before a test gives up. Generous: it only bounds failures.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// How long one probe of [`eventually`] may take before the next one: a connection to a server that was killed may never
/// end by itself.
const PROBE: Duration = Duration::from_secs(20);

/// Awaits a condition: polls `probe` every 20 ms until it gives a value.
///
/// # Panics
/// When [`DEADLINE`] passes; the message names `what` and the last thing that `probe` found instead.
pub async fn eventually<T, E, F>(what: &str, probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    try_eventually(what, probe).await.unwrap_or_else(|error| panic!("{error}"))
}

/// [`eventually`] for what is no test.
///
/// # Errors
/// Where that panics.
pub async fn try_eventually<T, E, F>(what: &str, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    loop {
        ticks.tick().await;
        let found = match tokio::time::timeout(PROBE, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(found)) => format!("{found:#}"),
            Err(_) => format!("no answer within {PROBE:?}"),
        };
        if tokio::time::Instant::now() > deadline {
            anyhow::bail!("waited {DEADLINE:?} in vain: {what}; at last: {found}");
        }
    }
}
