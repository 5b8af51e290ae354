//! A cluster of plain values, for the protocol to be tried in: an API server with versions, preconditions and graceful
//! deletion; controllers and webhooks whose caches lag; workloads that make and delete pods; a kubelet; sidecars that hold
//! what was acknowledged. A seed decides who acts next and what fails; after each step the invariants are checked.
//!
//! Stricter than a cluster is: any actor may pause for ever between any two calls, a cache may stand still, a call may be
//! done without an answer, and a process may live on long after its pod is gone.

mod api;
mod cache;
mod caught;
mod control;
mod drain;
mod explore;
mod growth;
mod kubelet;
mod races;
mod scenarios;
mod stage;
mod starts;
mod truth;
mod user;
mod world;

/// A sequence of numbers that a seed decides.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `n`; 0 where `n` is 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { usize::try_from(self.next() % n as u64).unwrap_or(0) }
    }

    /// Once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}
