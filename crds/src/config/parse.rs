//! From the text of a file to the effective configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml_edit::Document;

use super::error::{ConfigErrors, Warning, WarningKind};
use super::read::{At, Findings, Section, shown};
use super::{Config, SidecarConfig, WalConfig, check_writer_id, hash_of, options, urls};
use crate::quantity::ByteSize;

/// Keys of `[storage.wal_config]`.
const WAL_KEYS: [&str; 18] = [
    "wal_urls",
    "wal_url",
    "distribution_strategy",
    "collection_affinity",
    "memory_flush_size_bytes",
    "global_flush_threshold",
    "journal_url",
    "segment_size_bytes",
    "compression",
    "journal_max_bytes",
    "bucket_commit_interval_ms",
    "buffered_commit_interval_ms",
    "on_damage",
    "on_missing_directory",
    "allow_ephemeral",
    "io",
    "writer_id",
    "url_options",
];

/// Keys of `[sidecar]`.
const SIDECAR_KEYS: [&str; 2] = ["socket", "admin_address"];

/// The longest path that a unix socket can have on Linux.
pub const SOCKET_PATH_MAX: usize = 107;

/// A file that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// With every default filled in.
    pub config: Config,
    /// What is worth a word, in the order of the file.
    pub warnings: Vec<Warning>,
    /// See [`hash_of`].
    pub hash: String,
}

impl Config {
    /// Reads the text of a `config.toml`. `strict` makes an error of every unknown key.
    ///
    /// A URL of a scheme that this build cannot open is no error here.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first; TOML that cannot be read at all is one error.
    pub fn parse(text: &str, strict: bool) -> Result<Loaded, ConfigErrors> {
        let mut findings = Findings::new(text, strict);
        let config = match Document::parse(text) {
            Ok(document) => read(&mut findings, &Section::root(document.as_table())),
            Err(error) => {
                let message = error.message().lines().collect::<Vec<_>>().join("; ");
                let line = findings.line(error.span());
                findings.error(line, "", None, format!("not TOML: {message}"), "");
                Self::default()
            }
        };
        let Findings { mut errors, mut warnings, .. } = findings;
        errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        warnings.sort_by_key(|warning| warning.line.unwrap_or(usize::MAX));
        if errors.is_empty() {
            Ok(Loaded { config, warnings, hash: hash_of(text) })
        } else {
            Err(ConfigErrors { errors, warnings })
        }
    }
}

fn read(findings: &mut Findings, root: &Section<'_>) -> Config {
    let storage = root.section(findings, "storage");
    let wal = storage.section(findings, "wal_config");
    let sidecar = root.section(findings, "sidecar");
    wal.warn_of_unknown_keys(findings, &WAL_KEYS);
    sidecar.warn_of_unknown_keys(findings, &SIDECAR_KEYS);

    let places = urls::read(findings, &storage, &wal);
    let url_options = options::read(findings, &wal, &places);
    let default = WalConfig::default();
    let (memory_flush_size, global_flush_threshold) = read_thresholds(findings, &wal, &default);
    let wal = WalConfig {
        distribution_strategy: wal.choice(findings, "distribution_strategy").unwrap_or_default(),
        collection_affinity: wal.boolean(findings, "collection_affinity").unwrap_or(default.collection_affinity),
        memory_flush_size,
        global_flush_threshold,
        segment_size: wal.size(findings, "segment_size_bytes").map_or(default.segment_size, |size| size.value),
        compression: wal.choice(findings, "compression").unwrap_or_default(),
        journal_max: wal.size(findings, "journal_max_bytes").map(|size| size.value),
        bucket_commit_interval: wal
            .milliseconds(findings, "bucket_commit_interval_ms")
            .unwrap_or(default.bucket_commit_interval),
        buffered_commit_interval: wal
            .milliseconds(findings, "buffered_commit_interval_ms")
            .unwrap_or(default.buffered_commit_interval),
        on_damage: wal.choice(findings, "on_damage").unwrap_or_default(),
        on_missing_directory: wal.choice(findings, "on_missing_directory").unwrap_or_default(),
        allow_ephemeral: wal.boolean(findings, "allow_ephemeral").unwrap_or(default.allow_ephemeral),
        io: wal.choice(findings, "io").unwrap_or_default(),
        writer_id: read_writer_id(findings, &wal),
        wal_urls: places.wal_urls,
        journal_url: places.journal_url,
        url_options,
    };
    let drained = |url| wal.url_options.get(url).is_some_and(|options| options.drain);
    if wal.wal_urls.iter().all(drained) {
        let message = "every WAL URL is draining: new collections are refused";
        findings.warn(WarningKind::Doubtful, None, "storage.wal_config.url_options", message);
    }
    Config { wal, sidecar: read_sidecar(findings, &sidecar), legacy_wal_dir: places.legacy_wal_dir }
}

fn read_thresholds(findings: &mut Findings, wal: &Section<'_>, default: &WalConfig) -> (ByteSize, ByteSize) {
    const MEMORY: &str = "memory_flush_size_bytes";
    const GLOBAL: &str = "global_flush_threshold";
    let memory = wal.size(findings, MEMORY);
    let global = wal.size(findings, GLOBAL);
    let value = |given: &Option<At<ByteSize>>, default| given.as_ref().map_or(default, |size| size.value);
    let sizes = (value(&memory, default.memory_flush_size), value(&global, default.global_flush_threshold));
    let unreadable = [(MEMORY, memory.is_none()), (GLOBAL, global.is_none())];
    if unreadable.into_iter().any(|(key, absent)| absent && wal.get(key).is_some()) || sizes.0 <= sizes.1 {
        return sizes;
    }
    // The line to change is one that was written.
    if let Some(memory) = memory {
        let default = if global.is_none() { ", the default" } else { "" };
        let problem = format!("above {GLOBAL} = {}{default}", sizes.1.0);
        let allowed = format!("at most {}", sizes.1.0);
        findings.error(memory.line, &wal.path(MEMORY), wal.get(MEMORY).and_then(shown), problem, allowed);
    } else {
        let problem = format!("below {MEMORY} = {}, the default", sizes.0.0);
        let allowed = format!("at least {}", sizes.0.0);
        let line = global.and_then(|global| global.line);
        findings.error(line, &wal.path(GLOBAL), wal.get(GLOBAL).and_then(shown), problem, allowed);
    }
    sizes
}

fn read_writer_id(findings: &mut Findings, wal: &Section<'_>) -> Option<String> {
    let id = wal.text(findings, "writer_id", "a writer id like \"shop/orders.orders-0\"")?;
    match check_writer_id(id.value) {
        Ok(()) => Some(id.value.to_owned()),
        Err(error) => {
            let value = wal.get("writer_id").and_then(shown);
            findings.error(id.line, &wal.path("writer_id"), value, error.to_string(), error.allowed());
            None
        }
    }
}

fn read_sidecar(findings: &mut Findings, sidecar: &Section<'_>) -> SidecarConfig {
    let default = SidecarConfig::default();
    let socket = sidecar.absolute_path(findings, "socket").map_or(default.socket, |socket| {
        if socket.value.len() > SOCKET_PATH_MAX {
            let (problem, allowed) = ("too long for a unix socket", format!("at most {SOCKET_PATH_MAX} bytes"));
            let value = sidecar.get("socket").and_then(shown);
            findings.error(socket.line, &sidecar.path("socket"), value, problem, allowed);
        }
        PathBuf::from(socket.value)
    });
    let allowed = "an address and port like \"0.0.0.0:9465\", or \"off\"";
    let admin_address = match sidecar.text(findings, "admin_address", allowed) {
        None => default.admin_address,
        Some(At { value: "off", .. }) => None,
        Some(At { value, line }) => value.parse::<SocketAddr>().ok().or_else(|| {
            let value = Some(format!("{value:?}"));
            findings.error(line, &sidecar.path("admin_address"), value, "not an address and port", allowed);
            None
        }),
    };
    SidecarConfig { socket, admin_address }
}
