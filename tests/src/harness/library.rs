//! The engine inside of the test's own process: for tests that need thousands of starts, and for benchmarks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;
use walstorage_sidecar::engine::api::{Ack, Append, EngineStatus, Item, NewEntry, Phase};
use walstorage_sidecar::engine::{Ended, Engine, Observer, Options};
use walstorage_sidecar::error::ApiError;
use walstorage_sidecar::types::{CollectionName, Lsn};

use super::{DEADLINE, Setup};

struct Silent;

impl Observer for Silent {
    fn committed(&self, _: &WalUrl, _: Duration, _: u64, _: u64) {}
}

/// The effective configuration of a setup.
#[must_use]
pub fn config(setup: &Setup) -> Config {
    Config::parse(&setup.text(), true).expect("a right configuration").config
}

/// Starts an engine; recovery goes on in the background.
#[must_use]
pub fn start(config: Config) -> Engine {
    let options = Options { config, require_mounts: false, grant: None, observer: Arc::new(Silent) };
    Engine::start(options).expect("an engine starts")
}

/// How a start came to rest.
#[derive(Debug)]
pub enum Settled {
    /// It serves.
    Ready(Box<EngineStatus>),
    /// It waits; the status says for what.
    Waiting(Box<EngineStatus>),
    /// It ended by itself.
    Ended(Ended),
}

/// Waits until recovery is done, cannot end, or has ended the engine.
pub async fn settle(engine: &Engine) -> Settled {
    let polling = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        loop {
            ticks.tick().await;
            let status = engine.status();
            match status.phase {
                Phase::Ready => return Settled::Ready(Box::new(status)),
                Phase::Waiting => return Settled::Waiting(Box::new(status)),
                Phase::Recovering | Phase::Draining | Phase::Stopping | Phase::Fenced => {}
            }
        }
    };
    tokio::select! {
        settled = polling => settled,
        ended = engine.ended() => Settled::Ended(ended),
        () = tokio::time::sleep(DEADLINE) => panic!("recovery did not settle: {:?}", engine.status()),
    }
}

/// Starts an engine that must serve.
pub async fn ready(config: Config) -> Engine {
    let engine = start(config);
    match settle(&engine).await {
        Settled::Ready(_) => engine,
        other => panic!("not ready: {other:?}"),
    }
}

/// A valid name.
#[must_use]
pub fn name(text: &str) -> CollectionName {
    CollectionName::new(text).expect("a valid name")
}

/// A request without producer, key and headers.
#[must_use]
pub fn batch(collection: &str, payloads: &[&[u8]]) -> Append {
    let entries =
        payloads.iter().map(|p| NewEntry { payload: Bytes::copy_from_slice(p), ..NewEntry::default() }).collect();
    Append { collection: name(collection), entries, ack: Ack::Durable, producer: None }
}

/// All items of a collection.
///
/// # Errors
/// As the engine answers.
pub async fn read_all(engine: &Engine, collection: &str, from: u64) -> Result<Vec<Item>, ApiError> {
    let mut reader = engine.read(&name(collection), Lsn(from), 0, false)?;
    let mut items = Vec::new();
    while let Some(part) = reader.next().await {
        items.extend(part?);
    }
    Ok(items)
}
