//! `config.toml`: what the sidecar reads.
//!
//! [`Config::parse`] takes the text of a file and gives the effective configuration, every default filled in and the old
//! `wal_dir` migrated, or **all** that is wrong with it, each with key, value, what is allowed and line. The file may be
//! shared with the application: unknown sections are none of our business. Nothing here touches a disk.

mod changes;
mod choices;
mod effective;
mod error;
mod hash;
mod options;
mod parse;
mod read;
mod urls;
mod writer_id;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use self::changes::{Applies, Change};
pub use self::choices::{Compression, DistributionStrategy, IoMode, OnDamage, OnMissingDirectory};
pub use self::error::{ConfigError, ConfigErrors, Warning, WarningKind};
#[cfg(feature = "k8s")]
pub(crate) use self::hash::sha256_hex;
pub use self::hash::{HASH_LINE_PREFIX, hash_line, hash_of};
#[cfg(feature = "k8s")]
pub(crate) use self::options::check_endpoint;
pub use self::parse::{Loaded, SOCKET_PATH_MAX};
pub use self::writer_id::{WriterIdError, check_writer_id};
use crate::quantity::ByteSize;
use crate::url::WalUrl;

/// Where the log goes when nothing is said.
pub const DEFAULT_WAL_URL: &str = "file:///workspace/data/wal";
/// The socket's path when nothing is said.
pub const DEFAULT_SOCKET: &str = "/run/walstorage/wal.sock";
/// The admin port when nothing is said.
pub const DEFAULT_ADMIN_PORT: u16 = 9465;

/// The effective configuration: every default filled in, migration done. `default()` is that of an empty file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// Where the store is, when not at its provider's address.
    pub endpoint: Option<String>,
    /// Of the bucket.
    pub region: Option<String>,
    /// The bucket's name stands in the path, not in the host name.
    pub path_style: bool,
    /// Plain HTTP may be spoken.
    pub allow_http: bool,
    /// Certificates (PEM) to trust besides the public ones.
    pub ca_file: Option<PathBuf>,
    /// One file per key, read again when it changes.
    pub credentials_dir: Option<PathBuf>,
    /// The workload's token.
    pub token_file: Option<PathBuf>,
    /// The role that the token is exchanged for.
    pub role_arn: Option<String>,
    /// Whom the token is for.
    pub audience: Option<String>,
    /// The store has no conditional requests; whoever sets this keeps a second writer away by other means.
    pub unsafe_conditional: bool,
    /// Take no new collections and empty it.
    pub drain: bool,
}

/// `[sidecar]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarConfig {
    /// The unix socket's path.
    pub socket: PathBuf,
    /// `None` = off.
    pub admin_address: Option<SocketAddr>,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self {
            wal_urls: WalUrl::parse(DEFAULT_WAL_URL).into_iter().collect(),
            distribution_strategy: DistributionStrategy::default(),
            collection_affinity: true,
            memory_flush_size: ByteSize(1 << 20),
            global_flush_threshold: ByteSize(512 << 20),
            journal_url: None,
            segment_size: ByteSize(64 << 20),
            compression: Compression::default(),
            journal_max: None,
            bucket_commit_interval: Duration::from_millis(250),
            buffered_commit_interval: Duration::from_millis(100),
            on_damage: OnDamage::default(),
            on_missing_directory: OnMissingDirectory::default(),
            allow_ephemeral: false,
            io: IoMode::default(),
            writer_id: None,
            url_options: BTreeMap::new(),
        }
    }
}

impl Default for SidecarConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            admin_address: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), DEFAULT_ADMIN_PORT)),
        }
    }
}

#[cfg(test)]
mod tests;
