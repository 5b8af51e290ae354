use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn directory(n: usize) -> Candidate {
    Candidate {
        id: DirectoryId(Uuid::from_u128(n as u128 * 0x1234_5678_9abc_def0 + 7)),
        position: n,
        healthy: true,
        tier: 0,
        device: n as u64,
        queued_bytes: 0,
        latency_us: 500.0,
        free_bytes: 50 << 30,
        capacity_bytes: 100 << 30,
        used_bytes: 0,
    }
}

fn name(text: &str) -> CollectionName {
    CollectionName::new(text).unwrap()
}

fn place(strategy: DistributionStrategy, candidates: &[Candidate], turn: u64) -> Option<usize> {
    let id = choose(strategy, candidates, &name("c"), turn, None, |n| turn as usize % n)?;
    candidates.iter().position(|candidate| candidate.id == id)
}

#[test]
fn round_robin_takes_the_list_in_turn_and_skips_the_unhealthy() {
    let mut three: Vec<_> = (0..3).map(directory).collect();
    let turns = |candidates: &[Candidate]| {
        (1..=6).map(|turn| place(DistributionStrategy::RoundRobin, candidates, turn).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(turns(&three), [1, 2, 0, 1, 2, 0]);
    three[1].healthy = false;
    assert_eq!(turns(&three), [2, 2, 0, 2, 2, 0]);
    three.iter_mut().for_each(|candidate| candidate.healthy = false);
    assert_eq!(place(DistributionStrategy::RoundRobin, &three, 1), None);
}

#[test]
fn the_rendezvous_hash_is_version_1_for_ever() {
    let id = DirectoryId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff));
    // Computed by the reference implementation of XXH3-64 (python-xxhash 4.1) over the same bytes.
    assert_eq!(rendezvous_v1(&name("orders"), id), 0x9197_318b_80b2_de9e);
    assert_eq!(rendezvous_v1(&name("ü/x"), id), 0x542e_78fd_5498_150a);
}

#[test]
fn a_directory_added_to_n_takes_one_share_of_new_placements_and_moves_nothing_else() {
    let four: Vec<_> = (0..4).map(directory).collect();
    let five: Vec<_> = (0..5).map(directory).collect();
    let total = 5000;
    let mut moved = 0;
    for n in 0..total {
        let name = name(&format!("collection-{n}"));
        let on = |candidates: &[Candidate]| choose(DistributionStrategy::Hash, candidates, &name, 1, None, |_| 0);
        if on(&four) != on(&five) {
            assert_eq!(on(&five), Some(five[4].id), "what moves, moves to the new one");
            moved += 1;
        }
    }
    assert!((total / 5 - total / 25..total / 5 + total / 25).contains(&moved), "{moved} of {total}");
}

#[test]
fn load_balanced_prefers_the_idle_the_empty_and_the_fast() {
    let strategy = DistributionStrategy::LoadBalanced;
    let two = || vec![directory(0), directory(1)];
    for worsen in [
        |candidate: &mut Candidate| candidate.queued_bytes = 64 << 20,
        |candidate: &mut Candidate| candidate.free_bytes = 1 << 30,
        |candidate: &mut Candidate| candidate.latency_us = 5000.0,
        |candidate: &mut Candidate| candidate.healthy = false,
        |candidate: &mut Candidate| candidate.tier = 1,
    ] {
        for worse in 0..2 {
            let mut candidates = two();
            worsen(&mut candidates[worse]);
            for turn in 0..8 {
                assert_eq!(place(strategy, &candidates, turn), Some(1 - worse));
            }
        }
    }
}

#[test]
fn directories_on_one_device_count_as_one() {
    let mut candidates: Vec<_> = (0..4).map(directory).collect();
    for candidate in &mut candidates[1..] {
        candidate.device = 1;
        candidate.used_bytes = 100;
    }
    candidates[2].used_bytes = 5;
    let mut seen = HashMap::<usize, u32>::new();
    for turn in 0..100 {
        *seen.entry(place(DistributionStrategy::LoadBalanced, &candidates, turn).unwrap()).or_default() += 1;
    }
    assert_eq!(seen.get(&1), None);
    assert_eq!(seen.get(&3), None);
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[test]
fn without_affinity_a_collection_moves_only_for_a_fifth_less() {
    let mut candidates: Vec<_> = (0..2).map(directory).collect();
    let now = Some(candidates[0].id);
    let chosen = |candidates: &[Candidate]| {
        choose(DistributionStrategy::LoadBalanced, candidates, &name("c"), 1, now, |_| 0).unwrap()
    };
    candidates[1].latency_us = 410.0;
    assert_eq!(chosen(&candidates), candidates[0].id);
    candidates[1].latency_us = 390.0;
    assert_eq!(chosen(&candidates), candidates[1].id);
    candidates[0].healthy = false;
    candidates[1].latency_us = 9e9;
    assert_eq!(chosen(&candidates), candidates[1].id);
}

proptest! {
    #[test]
    fn only_healthy_directories_are_chosen_and_one_always_is(
        healthy in proptest::collection::vec(any::<bool>(), 1..8),
        turn in 0_u64..100,
        strategy in prop_oneof![
            Just(DistributionStrategy::RoundRobin), Just(DistributionStrategy::Hash),
            Just(DistributionStrategy::LoadBalanced)
        ],
        seed in any::<usize>(),
    ) {
        let candidates: Vec<_> =
            healthy.iter().enumerate().map(|(n, &healthy)| Candidate { healthy, ..directory(n) }).collect();
        let chosen = choose(strategy, &candidates, &name("c"), turn, None, |n| seed % n);
        prop_assert_eq!(chosen.is_some(), healthy.contains(&true));
        if let Some(id) = chosen {
            prop_assert!(candidates.iter().any(|candidate| candidate.id == id && candidate.healthy));
        }
    }
}
