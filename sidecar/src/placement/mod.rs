//! Which directory takes a new collection (or, without affinity, the next group of one): a pure function of what is
//! known about the directories. Where data already lies always wins; nobody asks here again after a restart, a changed
//! strategy or a re-ordered list.

use walstorage_crds::config::DistributionStrategy;
use xxhash_rust::xxh3::Xxh3;

use crate::types::{CollectionName, DirectoryId};

/// Moving without affinity needs a score this much lower than the present one's.
const HYSTERESIS: f64 = 0.8;

/// What placement knows about a directory.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Who it is.
    pub id: DirectoryId,
    /// Its place in the configured list; draining directories are not in it and are no candidates.
    pub position: usize,
    /// Whether it may be chosen.
    pub healthy: bool,
    /// Disks are 0, buckets 1: LoadBalanced uses the lowest tier that has a healthy directory.
    pub tier: u8,
    /// Directories with the same device count as one.
    pub device: u64,
    /// Encoded bytes waiting to be committed there.
    pub queued_bytes: u64,
    /// EWMA of commit latency, microseconds.
    pub latency_us: f64,
    /// Free bytes of the volume.
    pub free_bytes: u64,
    /// Size of the volume.
    pub capacity_bytes: u64,
    /// Bytes of ours there: within a device the directory with the fewest is chosen.
    pub used_bytes: u64,
}

impl Candidate {
    /// The lower the better: latency, times the queue, over the share that stays free.
    fn score(&self) -> f64 {
        let queue = 1.0 + self.queued_bytes as f64 / f64::from(1 << 20);
        let free = self.free_bytes.saturating_sub(self.queued_bytes) as f64 / self.capacity_bytes.max(1) as f64;
        self.latency_us.max(1.0) * queue / free.max(0.01)
    }
}

/// Rendezvous hash version 1: XXH3-64, seed 0, of name, a zero byte and the directory's uuid.
#[must_use]
pub fn rendezvous_v1(name: &CollectionName, directory: DirectoryId) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(name.as_str().as_bytes());
    hash.update(&[0]);
    hash.update(directory.0.as_bytes());
    hash.digest()
}

/// Chooses a directory; `None` when none is healthy.
///
/// `turn` is the number of this placement, from 1 (RoundRobin): it goes to position `turn mod places` of the list, from 0,
/// then forward to a healthy one. `current` is where the collection is, without affinity. `draw(n)` is a random number below n.
pub fn choose(
    strategy: DistributionStrategy,
    candidates: &[Candidate],
    name: &CollectionName,
    turn: u64,
    current: Option<DirectoryId>,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<DirectoryId> {
    let healthy = || candidates.iter().filter(|candidate| candidate.healthy);
    match strategy {
        DistributionStrategy::RoundRobin => {
            let places = candidates.iter().map(|candidate| candidate.position + 1).max()?;
            let wanted = (turn % places as u64) as usize;
            healthy().min_by_key(|candidate| (candidate.position + places - wanted) % places).map(|chosen| chosen.id)
        }
        DistributionStrategy::Hash => {
            healthy().max_by_key(|candidate| (rendezvous_v1(name, candidate.id), candidate.id)).map(|chosen| chosen.id)
        }
        DistributionStrategy::LoadBalanced => {
            let tier = healthy().map(|candidate| candidate.tier).min()?;
            let mut best_of_device: Vec<&Candidate> = Vec::new();
            for candidate in healthy().filter(|candidate| candidate.tier == tier) {
                match best_of_device.iter_mut().find(|best| best.device == candidate.device) {
                    Some(best) if (candidate.used_bytes, candidate.position) < (best.used_bytes, best.position) => {
                        *best = candidate;
                    }
                    Some(_) => {}
                    None => best_of_device.push(candidate),
                }
            }
            let devices = best_of_device.len();
            let one = draw(devices);
            let chosen = if devices > 1 {
                // A second, different one, each equally likely.
                let other = (one + 1 + draw(devices - 1)) % devices;
                let (a, b) = (best_of_device[one], best_of_device[other]);
                if b.score() < a.score() { b } else { a }
            } else {
                best_of_device[one]
            };
            let stays = current
                .and_then(|id| healthy().find(|candidate| candidate.id == id && candidate.tier == tier))
                .filter(|now| chosen.score() > HYSTERESIS * now.score());
            Some(stays.unwrap_or(chosen).id)
        }
    }
}

#[cfg(test)]
mod tests;
