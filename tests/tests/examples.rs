//! The four example configurations load and print what is in effect; those on buckets then say that this build has none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use walstorage_tests::harness::binaries::{repository, sidecar};
use walstorage_tests::harness::run;

fn check(file: &str) -> String {
    let path = repository().join("examples").join(file);
    run(sidecar(), ["config", "check", path.to_str().expect("text")], b"").ok()
}

fn serve(file: &str) -> walstorage_tests::harness::Output {
    let path = repository().join("examples").join(file);
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let socket = socket.to_str().expect("text");
    run(sidecar(), ["serve", "--config", path.to_str().expect("text"), "--socket", socket, "--admin", "off"], b"")
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

#[test]
fn a_bucket_ends_serve_with_exit_2_and_its_url() {
    for (file, url) in [
        ("multi-region.toml", "s3://my-wal-bucket-us-west/wal"),
        ("serverless.toml", "s3://serverless-wal-bucket/proximadb/wal"),
    ] {
        let output = serve(file);
        assert_eq!(output.code, 2, "{file}: {output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains(url) && said.contains("bucket"), "{file}: {said}");
    }
}
