//! The four example configurations load, print what is in effect, and serve: the buckets at emulators.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use walstorage_crds::config::Config;
use walstorage_crds::url::Scheme;
use walstorage_tests::emulators::Emulated;
use walstorage_tests::harness::binaries::{repository, sidecar};
use walstorage_tests::harness::calls::{append, payloads, truncate};
use walstorage_tests::harness::{Setup, Sidecar, run};

fn check(file: &str) -> String {
    let path = repository().join("examples").join(file);
    run(sidecar(), ["config", "check", path.to_str().expect("text")], b"").ok()
}

#[test]
fn every_example_loads_and_prints_what_is_in_effect() {
    for (file, lines) in [
        (
            "one-directory.toml",
            &["wal_urls = [\"file:///workspace/data/wal\"]", "memory_flush_size_bytes = 1048576"][..],
        ),
        (
            "three-nvme.toml",
            &[
                "file:///mnt/nvme3/wal",
                "distribution_strategy = \"LoadBalanced\"",
                "global_flush_threshold = 536870912",
            ],
        ),
        (
            "multi-region.toml",
            &[
                "s3://my-wal-bucket-us-east/wal",
                "adls://myaccount.dfs.core.windows.net/wal-container/wal",
                "distribution_strategy = \"Hash\"",
                "collection_affinity = true",
            ],
        ),
        ("serverless.toml", &["s3://serverless-wal-bucket/proximadb/wal", "memory_flush_size_bytes = 2097152"]),
    ] {
        let effective = check(file);
        for line in lines {
            assert!(effective.contains(line), "{file}: {line}\n{effective}");
        }
    }
}

/// Serves an example; in its URLs `below` stands before the path of a folder. Appends, kills, recovers, reads, truncates.
async fn serves(test: &str, file: &str, below: &str) {
    let text = std::fs::read_to_string(repository().join("examples").join(file)).unwrap();
    let config = Config::parse(&text, true).unwrap().config;
    let mut setup = Setup::new(0);
    let mut urls = Vec::new();
    // They serve as long as these are held.
    let mut emulators = Vec::new();
    for url in &config.wal.wal_urls {
        if url.scheme() == Scheme::File {
            let path = url.file_path().unwrap();
            urls.push(setup.url(&format!("{below}{}", path.display())));
            continue;
        }
        let Some(emulated) = Emulated::of_url(test, url).await else { return };
        setup.table(&emulated.options(url, &emulated.address));
        urls.push(url.to_string());
        emulators.push(emulated);
    }
    setup.urls(&urls);
    for line in
        text.lines().filter(|line| line.contains(" = ") && !line.starts_with("wal_urls") && !line.starts_with('#'))
    {
        setup.add(line);
    }
    let mut sidecar = Sidecar::ready(setup).await;
    let status = sidecar.status().await;
    assert_eq!(status.directories.len(), urls.len(), "{status:#?}");
    let collections: Vec<String> = (0..12).map(|n| format!("collection {n}")).collect();
    for n in 0..3 {
        for collection in &collections {
            append(&mut sidecar.grpc(), collection, &[format!("{n} of {collection}").as_bytes()]).await;
        }
    }
    sidecar.kill_and_restart().await;
    for collection in &collections {
        let expected = [0, 1, 2].map(|n| format!("{n} of {collection}").into_bytes());
        assert_eq!(payloads(&mut sidecar.grpc(), collection).await, expected, "{file}");
        assert_eq!(truncate(&mut sidecar.grpc(), collection, 2).await, 2);
    }
    sidecar.restart().await;
    for collection in &collections {
        assert_eq!(payloads(&mut sidecar.grpc(), collection).await, [format!("2 of {collection}").into_bytes()]);
    }
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_directory_serves() {
    serves("one_directory_serves", "one-directory.toml", "root").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nvme_serve() {
    serves("three_nvme_serve", "three-nvme.toml", "root").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_buckets_serve() {
    serves("three_buckets_serve", "multi-region.toml", "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bucket_serves_without_a_disk() {
    serves("one_bucket_serves_without_a_disk", "serverless.toml", "").await;
}
