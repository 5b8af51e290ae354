//! Where collections go, as seen from outside: by strategy, and never away from where their data lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use walstorage_tests::harness::calls::{append, describe, payloads};
use walstorage_tests::harness::{Setup, Sidecar};
use xxhash_rust::xxh3::xxh3_64;

fn with(strategy: &str, directories: usize) -> Setup {
    Setup::new(directories).set(&format!("distribution_strategy = {strategy:?}"))
}

/// Appends to `count` new collections; answers the home of each.
async fn place(sidecar: &Sidecar, prefix: &str, count: usize) -> BTreeMap<String, String> {
    let mut client = sidecar.grpc();
    let mut homes = BTreeMap::new();
    for n in 0..count {
        let name = format!("{prefix}{n}");
        let directory = append(&mut client, &name, &[name.as_bytes()]).await.directory;
        homes.insert(name, directory);
    }
    homes
}

async fn assert_unmoved(sidecar: &Sidecar, homes: &BTreeMap<String, String>) {
    let mut client = sidecar.grpc();
    for (name, home) in homes {
        assert_eq!(&describe(&mut client, name).await.directory, home, "{name}");
        assert_eq!(&append(&mut client, name, &[b"more"]).await.directory, home, "{name}");
        assert_eq!(payloads(&mut client, name).await[0], name.as_bytes());
    }
}

#[tokio::test]
async fn round_robin_takes_turns_also_over_a_restart() {
    let mut sidecar = Sidecar::ready(with("RoundRobin", 3)).await;
    let first = place(&sidecar, "a", 4).await;
    sidecar.kill_and_restart().await;
    let second = place(&sidecar, "b", 5).await;
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    first.values().chain(second.values()).for_each(|home| *counts.entry(home).or_default() += 1);
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{counts:?}");
}

#[tokio::test]
async fn hash_is_rendezvous_hashing_of_name_and_directory() {
    let sidecar = Sidecar::ready(with("Hash", 3)).await;
    let directories: Vec<(Uuid, String)> = sidecar
        .status()
        .await
        .directories
        .into_iter()
        .map(|directory| (directory.uuid.parse().expect("a uuid"), directory.url))
        .collect();
    let homes = place(&sidecar, "collection-", 30).await;
    for (name, home) in &homes {
        let score = |uuid: &Uuid| xxh3_64(&[name.as_bytes(), &[0], uuid.as_bytes()].concat());
        let (_, highest) = directories.iter().max_by_key(|(uuid, _)| score(uuid)).expect("three");
        assert_eq!(home, highest, "{name}");
    }
    assert_eq!(homes.values().collect::<BTreeSet<_>>().len(), 3, "30 names reach all three");
}

#[tokio::test]
async fn load_balanced_places_every_collection_and_keeps_it_there() {
    let mut sidecar = Sidecar::ready(with("LoadBalanced", 3)).await;
    let homes = place(&sidecar, "c", 20).await;
    assert_unmoved(&sidecar, &homes).await;
    sidecar.kill_and_restart().await;
    assert_unmoved(&sidecar, &homes).await;
}

#[tokio::test]
async fn a_changed_strategy_a_reordered_list_and_a_new_directory_move_nothing() {
    let mut sidecar = Sidecar::ready(with("RoundRobin", 2)).await;
    let homes = place(&sidecar, "c", 6).await;
    sidecar.stop().await;
    let urls = ["d3", "d2", "d1"].map(|name| sidecar.setup.url(name));
    sidecar.setup.urls(&urls);
    sidecar.setup.add(r#"distribution_strategy = "Hash""#);
    sidecar.start();
    sidecar.wait_ready().await;
    assert_unmoved(&sidecar, &homes).await;
    let new = place(&sidecar, "new", 30).await;
    assert!(new.values().any(|home| *home == urls[0]), "the new directory is used: {new:?}");
    sidecar.kill_and_restart().await;
    assert_unmoved(&sidecar, &homes).await;
    assert_unmoved(&sidecar, &new).await;
}

#[tokio::test]
async fn without_affinity_groups_of_one_collection_go_to_several_directories_and_are_read_in_order() {
    let mut sidecar = Sidecar::ready(with("RoundRobin", 3).set("collection_affinity = false")).await;
    let mut client = sidecar.grpc();
    let mut used = BTreeSet::new();
    for n in 0..30u32 {
        let reply = append(&mut client, "c", &[&n.to_le_bytes()]).await;
        assert_eq!(reply.first_lsn, u64::from(n) + 1);
        used.insert(reply.directory);
    }
    assert_eq!(used.len(), 3);
    let expected: Vec<_> = (0..30u32).map(|n| n.to_le_bytes().to_vec()).collect();
    for _ in 0..2 {
        assert_eq!(payloads(&mut sidecar.grpc(), "c").await, expected);
        sidecar.kill_and_restart().await;
    }
}
