//! The main job of the product, as `make demo` shows it.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use anyhow::ensure;
use walstorage_cluster_tests::{Cluster, charts, demo, eventually};

#[tokio::test]
async fn three_pods_lose_nothing_when_one_is_killed_their_disks_grow_and_their_number_changes() {
    let test = "three_pods_lose_nothing_when_one_is_killed_their_disks_grow_and_their_number_changes";
    let Some(cluster) = Cluster::shared_or_skip(test).await else { return };
    charts::install(cluster, &[]).unwrap();
    demo::main_job(cluster).await.unwrap();

    // What `make cluster` names as the next commands.
    for command in demo::next_commands() {
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        cluster.kubectl(&words).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
    eventually("the first pod has tested its log", || async {
        let phase = cluster.kubectl(&["get", "pod", "first", "--output", "jsonpath={.status.phase}"])?;
        ensure!(phase == "Succeeded", "{phase}");
        Ok(())
    })
    .await;
}
