//! The configurations in `examples/` mean what their comments say, and so does a file of the original application.

#![allow(clippy::unwrap_used, clippy::panic)]

use walstorage_crds::config::{Config, DistributionStrategy, Loaded, WalConfig};
use walstorage_crds::quantity::ByteSize;
use walstorage_crds::url::WalUrl;

/// Loads under `--strict`: an example has no unknown key and no warning.
fn example(text: &str) -> Config {
    let Loaded { config, warnings, .. } = Config::parse(text, true).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warnings, []);
    let printed = config.effective_toml();
    assert_eq!(Config::parse(&printed, true).unwrap().config, config, "{printed}");
    config
}

/// The defaults, with these URLs.
fn with_urls(urls: &[&str]) -> WalConfig {
    let wal_urls = urls.iter().map(|url| WalUrl::parse(url).unwrap()).collect();
    WalConfig { wal_urls, ..WalConfig::default() }
}

#[test]
fn one_directory() {
    let config = example(include_str!("../../examples/one-directory.toml"));
    assert_eq!(config, Config { wal: with_urls(&["file:///workspace/data/wal"]), ..Config::default() });
    assert_eq!(config, Config::default());
}

#[test]
fn three_nvme_disks_balanced_by_load() {
    let config = example(include_str!("../../examples/three-nvme.toml"));
    let wal = with_urls(&["file:///mnt/nvme1/wal", "file:///mnt/nvme2/wal", "file:///mnt/nvme3/wal"]);
    assert_eq!(config.wal, wal);
    assert_eq!(config.wal.distribution_strategy, DistributionStrategy::LoadBalanced);
    assert!(config.wal.collection_affinity);
    assert_eq!(config.wal.memory_flush_size, ByteSize(1 << 20));
    assert_eq!(config.wal.global_flush_threshold, ByteSize(512 << 20));
}

#[test]
fn several_regions_by_hash() {
    let config = example(include_str!("../../examples/multi-region.toml"));
    let wal = with_urls(&[
        "s3://my-wal-bucket-us-west/wal",
        "s3://my-wal-bucket-us-east/wal",
        "adls://myaccount.dfs.core.windows.net/wal-container/wal",
    ]);
    assert_eq!(config.wal, WalConfig { distribution_strategy: DistributionStrategy::Hash, ..wal });
    assert!(config.wal.wal_urls.iter().all(|url| url.scheme().is_bucket()));
}

#[test]
fn serverless_with_two_mebibytes_of_memory() {
    let config = example(include_str!("../../examples/serverless.toml"));
    let expected = WalConfig {
        distribution_strategy: DistributionStrategy::Hash,
        memory_flush_size: ByteSize(2 << 20),
        ..with_urls(&["s3://serverless-wal-bucket/proximadb/wal"])
    };
    assert_eq!(config.wal, expected);
}

#[test]
fn a_file_of_the_original_application_loads_with_warnings_only() {
    let text = r#"
[server]
node_id = "node-1"
port = 5678

[storage]
data_dirs = ["/workspace/data/storage"]
wal_dir = "/workspace/data/wal"
mmap_enabled = true

[storage.wal_config]
strategy_type = "Avro"
memtable_type = "BTree"
sync_mode = "PerBatch"
memory_flush_size_bytes = 2097152
batch_threshold = 100
write_buffer_size_mb = 8
concurrent_flushes = 2

[api]
grpc_port = 5679
"#;
    let loaded = Config::parse(text, false).unwrap();
    let wal = WalConfig { memory_flush_size: ByteSize(2 << 20), ..with_urls(&["file:///workspace/data/wal"]) };
    assert_eq!(loaded.config, Config { wal, ..Config::default() });
    let warned: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warned,
        [
            "line 8: storage.wal_dir: the old setting, read as wal_urls = [\"file:///workspace/data/wal\"] of [storage.wal_config]; write that",
            "line 12: storage.wal_config.strategy_type: unknown key, ignored",
            "line 13: storage.wal_config.memtable_type: unknown key, ignored",
            "line 14: storage.wal_config.sync_mode: unknown key, ignored",
            "line 16: storage.wal_config.batch_threshold: unknown key, ignored",
            "line 17: storage.wal_config.write_buffer_size_mb: unknown key, ignored",
            "line 18: storage.wal_config.concurrent_flushes: unknown key, ignored",
        ]
    );
}
