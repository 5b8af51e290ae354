//! `config.toml`: what the sidecar reads.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::quantity::ByteSize;
use crate::url::WalUrl;

/// The effective configuration: every default filled in, migration done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The log.
    pub wal: WalConfig,
    /// The process around it.
    pub sidecar: SidecarConfig,
    /// `wal_dir` where WAL URLs are present too: ignored unless it holds data of this writer, then opened draining.
    pub legacy_wal_dir: Option<WalUrl>,
}

/// `[storage.wal_config]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Where segments (and without `journal_url` commits) go; never empty.
    pub wal_urls: Vec<WalUrl>,
    /// How collections are placed.
    pub distribution_strategy: DistributionStrategy,
    /// A collection stays on one directory.
    pub collection_affinity: bool,
    /// Per collection.
    pub memory_flush_size: ByteSize,
    /// All collections.
    pub global_flush_threshold: ByteSize,
    /// Commit here.
    pub journal_url: Option<WalUrl>,
    /// Size at which a segment is sealed.
    pub segment_size: ByteSize,
    /// Of segments.
    pub compression: Compression,
    /// Per directory; `None` = the default, which depends on the volume.
    pub journal_max: Option<ByteSize>,
    /// Least time between starts of bucket commits.
    pub bucket_commit_interval: Duration,
    /// BUFFERED entries are durable at most this much later.
    pub buffered_commit_interval: Duration,
    /// What to do about damage found at start.
    pub on_damage: OnDamage,
    /// What to do about a known directory that is not there.
    pub on_missing_directory: OnMissingDirectory,
    /// Accept overlay and tmpfs.
    pub allow_ephemeral: bool,
    /// How journal files are written.
    pub io: IoMode,
    /// The path below every URL.
    pub writer_id: Option<String>,
    /// By URL; only for URLs in `wal_urls` and `journal_url`.
    pub url_options: BTreeMap<WalUrl, UrlOptions>,
}

/// `[storage.wal_config.url_options."<url>"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlOptions {
    /// Take no new collections and empty it.
    pub drain: bool,
}

/// `[sidecar]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarConfig {
    /// The unix socket's path.
    pub socket: std::path::PathBuf,
    /// `None` = off.
    pub admin_address: Option<std::net::SocketAddr>,
}

/// How collections are placed on directories.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DistributionStrategy {
    /// In turn.
    RoundRobin,
    /// Rendezvous hashing.
    Hash,
    /// By measurement.
    #[default]
    LoadBalanced,
}

/// Codec of segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// None.
    Null,
    /// Snappy.
    #[default]
    Snappy,
    /// Zstandard.
    Zstandard,
}

/// What to do about damage found at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDamage {
    /// Stay not ready and name it.
    #[default]
    Fail,
    /// Record it as gaps and serve.
    Gap,
}

/// What to do about a known directory that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnMissingDirectory {
    /// Stay not ready until it returns or is forgotten.
    #[default]
    Wait,
}

/// How journal files are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IoMode {
    /// Direct where the file system allows it.
    #[default]
    Auto,
    /// O_DIRECT.
    Direct,
    /// Through the page cache.
    Buffered,
}
