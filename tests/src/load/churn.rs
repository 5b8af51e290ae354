//! A client that appends to, truncates, deletes and makes anew collections of its own, one call after the other, and so
//! knows what each must hold whenever its sidecar dies: what was acknowledged, with or without the call under way.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walstorage_sidecar::proto::{DeleteCollectionRequest, TruncateRequest, item};

use crate::harness::calls::request;
use crate::harness::grpc;

/// The names of its collections begin so.
pub const PREFIX: &str = "churn-";

const COLLECTIONS: usize = 6;

/// LSN and serial number of each entry; none for a collection that does not exist.
type Held = Vec<(u64, u64)>;

#[derive(Clone, Debug)]
enum Call {
    Append(u64),
    Truncate(u64),
    Delete,
}

/// The client and what it knows.
pub struct Churn {
    rng: StdRng,
    held: BTreeMap<String, Held>,
    under_way: Option<(String, Call)>,
    next: u64,
}

fn payload(serial: u64) -> Vec<u8> {
    let size = 8 + (serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % 6000;
    serial.to_le_bytes().into_iter().cycle().take(size).collect()
}

impl Churn {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let held = (0..COLLECTIONS).map(|n| (format!("{PREFIX}{n}"), Vec::new())).collect();
        Self { rng: StdRng::seed_from_u64(seed), held, under_way: None, next: 1 }
    }

    /// Works until `over`, or until it cannot know what became of a call.
    pub async fn run(&mut self, socket: &Path, over: &AtomicBool) {
        let mut client = grpc::connect(socket);
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        while !over.load(Ordering::Relaxed) {
            ticks.tick().await;
            let name = format!("{PREFIX}{}", self.rng.random_range(0..COLLECTIONS));
            let held = &self.held[&name];
            let call = match self.rng.random_range(0..10) {
                0 => Call::Delete,
                1 | 2 if !held.is_empty() => Call::Truncate(held[self.rng.random_range(0..held.len())].0),
                _ => Call::Append(self.next),
            };
            self.under_way = Some((name.clone(), call.clone()));
            let done = match &call {
                Call::Append(serial) => {
                    self.next += 1;
                    let reply = client.append_batch(request(&name, &[&payload(*serial)])).await;
                    reply.map(|reply| reply.into_inner().first_lsn)
                }
                Call::Truncate(up_to) => {
                    let request = TruncateRequest { collection: name.clone(), up_to: *up_to };
                    client.truncate(request).await.map(|_| *up_to)
                }
                Call::Delete => {
                    let request = DeleteCollectionRequest { collection: name.clone() };
                    client.delete_collection(request).await.map(|_| 0)
                }
            };
            let held = self.held.get_mut(&name).expect("one of ours");
            match (done, call) {
                (Ok(lsn), Call::Append(serial)) => held.push((lsn, serial)),
                (Ok(_), Call::Truncate(up_to)) => held.retain(|(lsn, _)| *lsn > up_to),
                (Ok(_), Call::Delete) => held.clear(),
                (Err(status), _) => {
                    let written_not = grpc::typed(&status).durability == "not_written";
                    if !written_not && status.code() != tonic::Code::NotFound {
                        return;
                    }
                }
            }
            self.under_way = None;
        }
    }

    /// Reads everything after a start and answers what is wrong.
    pub async fn check(&mut self, client: &mut grpc::Client) -> Vec<String> {
        let mut wrong = Vec::new();
        let under_way = self.under_way.take();
        for (name, held) in &mut self.held {
            let found = match read(client, name).await {
                Ok(found) => found,
                Err(what) => {
                    wrong.push(format!("{name}: {what}"));
                    continue;
                }
            };
            let mut either = vec![held.clone()];
            match under_way.as_ref().filter(|(of, _)| of == name) {
                Some((_, Call::Append(serial))) => {
                    let lsn = found.last().map_or(0, |(lsn, _)| *lsn);
                    either.push(held.iter().copied().chain([(lsn, *serial)]).collect());
                }
                Some((_, Call::Truncate(up_to))) => {
                    either.push(held.iter().copied().filter(|(lsn, _)| lsn > up_to).collect());
                }
                Some((_, Call::Delete)) => either.push(Vec::new()),
                None => {}
            }
            if !either.contains(&found) {
                wrong.push(format!("{name}: {found:?} instead of one of {either:?}"));
            }
            *held = found;
        }
        wrong
    }
}

async fn read(client: &mut grpc::Client, name: &str) -> Result<Held, String> {
    let items = match grpc::read(client, name, 0, 0).await {
        Ok(items) => items,
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(Vec::new()),
        Err(status) => return Err(status.to_string()),
    };
    let mut held = Vec::new();
    for item in items {
        let Some(item::Item::Entry(entry)) = item.item else { return Err(format!("{item:?} instead of an entry")) };
        let serial = entry.payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if entry.payload != payload(serial) {
            return Err(format!("LSN {} is altered", entry.lsn));
        }
        held.push((entry.lsn, serial));
    }
    Ok(held)
}
