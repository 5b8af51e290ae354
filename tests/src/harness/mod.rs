//! Real processes on temporary folders: everything a black-box test needs to start a sidecar, speak to it over both
//! transports, kill it, and look at what it left behind.
//!
//! 1. Every sidecar has folders and a socket of its own; nothing outside of them is written.
//! 2. Nothing waits for a fixed time: readiness is polled against a deadline, and what passes it fails with the log.
//! 3. A test that ends, by success or by panic, leaves no process behind.

pub mod binaries;
pub mod calls;
pub mod config;
pub mod grpc;
pub mod http;
pub mod library;
pub mod machine;
pub mod memory;
pub mod namespace;
pub mod sidecar;
pub mod skip;
pub mod tool;

pub use config::Setup;
pub use namespace::Namespace;
pub use sidecar::Sidecar;
pub use tool::{Output, run};

use std::time::Duration;

/// How long anything may take before a test gives up. Generous: it only bounds failures.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits a condition: polls `probe` every 5 ms until it gives a value.
///
/// # Panics
/// When [`DEADLINE`] passes; the message names `what`.
pub async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let polled = tokio::time::timeout(DEADLINE, async {
        loop {
            ticks.tick().await;
            if let Some(value) = probe().await {
                return value;
            }
        }
    });
    polled.await.unwrap_or_else(|_| panic!("waited {DEADLINE:?} in vain: {what}"))
}

/// A TCP port on the loopback interface that nobody listened on a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
