//! A new home for a collection whose own was given up, before anything was measured.

use uuid::Uuid;

use super::Context;
use crate::placement::{self, Candidate};
use crate::types::CollectionName;

/// Chooses among directories; `turn` is the number of the placement, `seed` is drawn from.
pub(super) fn new_home(
    context: &Context,
    candidates: &[Candidate],
    name: &CollectionName,
    turn: u64,
    seed: &mut u64,
) -> Option<Uuid> {
    let draw = |n: usize| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as usize % n
    };
    placement::choose(context.config.wal.distribution_strategy, candidates, name, turn, None, draw).map(|id| id.0)
}
