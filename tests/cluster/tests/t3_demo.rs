//! The main job of the product, as `make demo` shows it.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use walstorage_cluster_tests::{Cluster, charts, demo};

#[tokio::test]
async fn three_pods_lose_nothing_when_one_is_killed_their_disks_grow_and_their_number_changes() {
    let test = "three_pods_lose_nothing_when_one_is_killed_their_disks_grow_and_their_number_changes";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    charts::install(cluster, &[]).unwrap();
    demo::main_job(cluster).await.unwrap();
}
