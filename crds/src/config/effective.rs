//! A configuration as TOML: the effective one, which `config check` prints, and the rendered one of a ConfigMap. Both parse
//! to the same [`Config`].
//!
//! Nothing secret can be in it: user info is refused in URLs and endpoints, credentials live in files.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::{Config, SidecarConfig, UrlOptions, WalConfig, hash_line};
use crate::quantity::ByteSize;
use crate::url::WalUrl;

/// Which settings are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// All of them: for people who ask what is in force.
    All,
    /// `wal_urls` and what is not the default: so that a new default reaches old resources.
    Changed,
}

impl Config {
    /// Every setting with the value in force. The same configuration always gives the same bytes.
    #[must_use]
    pub fn effective_toml(&self) -> String {
        write(self, Which::All)
    }

    /// The same configuration with as few words as possible: `wal_urls` and what differs from the default, below the
    /// [hash line](hash_line). What a ConfigMap holds.
    #[must_use]
    pub fn rendered_toml(&self) -> String {
        let body = write(self, Which::Changed);
        hash_line(&body) + &body
    }
}

fn write(config: &Config, which: Which) -> String {
    let Config { wal, sidecar, legacy_wal_dir } = config;
    let mut out = Writer { out: String::new(), which, header: None };
    if let Some(url) = legacy_wal_dir {
        out.table("[storage]");
        out.always("wal_dir", &toml_string(url.as_str()));
    }
    wal_config(&mut out, wal);
    for (url, options) in &wal.url_options {
        url_options(&mut out, url, options);
    }
    let SidecarConfig { socket, admin_address } = sidecar;
    let default = SidecarConfig::default();
    out.table("[sidecar]");
    out.setting("socket", &toml_string(&socket.to_string_lossy()), *socket == default.socket);
    let off_or = admin_address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    out.setting("admin_address", &toml_string(&off_or), *admin_address == default.admin_address);
    out.out
}

/// Writes settings; the header of a table only once something stands below it.
struct Writer {
    out: String,
    which: Which,
    header: Option<String>,
}

impl Writer {
    fn table(&mut self, header: &str) {
        self.header = Some(header.to_owned());
    }

    fn line(&mut self, line: &str) {
        if let Some(header) = self.header.take() {
            let gap = if self.out.is_empty() { "" } else { "\n" };
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(self.out, "{gap}{header}");
        }
        let _ = writeln!(self.out, "{line}");
    }

    fn always(&mut self, key: &str, value: &dyn fmt::Display) {
        self.line(&format!("{key} = {value}"));
    }

    fn setting(&mut self, key: &str, value: &dyn fmt::Display, is_default: bool) {
        if self.which == Which::All || !is_default {
            self.always(key, value);
        }
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.always(key, &toml_string(value));
        }
    }

    fn path(&mut self, key: &str, value: Option<&Path>) {
        self.text(key, value.map(Path::to_string_lossy).as_deref());
    }
}

fn wal_config(out: &mut Writer, wal: &WalConfig) {
    let WalConfig {
        wal_urls,
        distribution_strategy,
        collection_affinity,
        memory_flush_size,
        global_flush_threshold,
        journal_url,
        segment_size,
        compression,
        journal_max,
        bucket_commit_interval,
        buffered_commit_interval,
        on_damage,
        on_missing_directory,
        allow_ephemeral,
        io,
        writer_id,
        url_options: _,
    } = wal;
    let default = WalConfig::default();
    let size = |out: &mut Writer, key, size: ByteSize, default: ByteSize| out.setting(key, &size.0, size == default);
    let time = |out: &mut Writer, key, time: Duration, default: Duration| {
        out.setting(key, &time.as_millis(), time == default);
    };
    let name = |out: &mut Writer, key, name: &str, default: &str| out.setting(key, &toml_string(name), name == default);
    let affinity = *collection_affinity == default.collection_affinity;

    out.table("[storage.wal_config]");
    out.always("wal_urls", &toml_urls(wal_urls));
    name(out, "distribution_strategy", distribution_strategy.as_str(), default.distribution_strategy.as_str());
    out.setting("collection_affinity", collection_affinity, affinity);
    size(out, "memory_flush_size_bytes", *memory_flush_size, default.memory_flush_size);
    size(out, "global_flush_threshold", *global_flush_threshold, default.global_flush_threshold);
    out.text("journal_url", journal_url.as_ref().map(WalUrl::as_str));
    size(out, "segment_size_bytes", *segment_size, default.segment_size);
    name(out, "compression", compression.as_str(), default.compression.as_str());
    match journal_max {
        Some(size) => out.always("journal_max_bytes", &size.0),
        None if out.which == Which::All => {
            out.line("# journal_max_bytes: by default, from global_flush_threshold and the volume");
        }
        None => {}
    }
    time(out, "bucket_commit_interval_ms", *bucket_commit_interval, default.bucket_commit_interval);
    time(out, "buffered_commit_interval_ms", *buffered_commit_interval, default.buffered_commit_interval);
    name(out, "on_damage", on_damage.as_str(), default.on_damage.as_str());
    name(out, "on_missing_directory", on_missing_directory.as_str(), default.on_missing_directory.as_str());
    out.setting("allow_ephemeral", allow_ephemeral, *allow_ephemeral == default.allow_ephemeral);
    name(out, "io", io.as_str(), default.io.as_str());
    out.text("writer_id", writer_id.as_deref());
}

fn url_options(out: &mut Writer, url: &WalUrl, options: &UrlOptions) {
    let UrlOptions {
        endpoint,
        region,
        path_style,
        allow_http,
        ca_file,
        credentials_dir,
        token_file,
        role_arn,
        audience,
        unsafe_conditional,
        drain,
    } = options;
    out.table(&format!("[storage.wal_config.url_options.{}]", toml_string(url.as_str())));
    if url.scheme().is_bucket() {
        out.text("endpoint", endpoint.as_deref());
        out.text("region", region.as_deref());
        out.setting("path_style", path_style, *path_style == endpoint.is_some());
        out.setting("allow_http", allow_http, !*allow_http);
        out.path("ca_file", ca_file.as_deref());
        out.path("credentials_dir", credentials_dir.as_deref());
        out.path("token_file", token_file.as_deref());
        out.text("role_arn", role_arn.as_deref());
        out.text("audience", audience.as_deref());
        out.setting("unsafe_conditional", unsafe_conditional, !*unsafe_conditional);
    }
    out.setting("drain", drain, !*drain);
}

/// One URL on one line, several on a line each.
fn toml_urls(urls: &[WalUrl]) -> String {
    match urls {
        [url] => format!("[{}]", toml_string(url.as_str())),
        _ => {
            let lines: String = urls.iter().map(|url| format!("    {},\n", toml_string(url.as_str()))).collect();
            format!("[\n{lines}]")
        }
    }
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            character if character.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(character));
            }
            character => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
