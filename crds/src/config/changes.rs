//! What a reload changes: which settings differ between two configurations, and which of them apply at once.

use super::{Config, SidecarConfig, UrlOptions, WalConfig};

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Applies {
    /// As soon as the file is read again.
    AtOnce,
    /// At the next start; reported as pending until then.
    AtRestart,
}

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The whole path of the key.
    pub key: String,
    /// When it takes effect.
    pub applies: Applies,
}

/// Collects the differences of one table.
struct Differences {
    changes: Vec<Change>,
}

impl Differences {
    fn compare<T: PartialEq>(&mut self, key: &str, applies: Applies, old: &T, new: &T) {
        if old != new {
            self.changes.push(Change { key: key.to_owned(), applies });
        }
    }
}

impl Config {
    /// The settings that differ in `new`, in the order of the documentation.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let mut differences = Differences { changes: Vec::new() };
        let Self { wal, sidecar, legacy_wal_dir } = new;
        differences.compare("storage.wal_dir", Applies::AtRestart, &self.legacy_wal_dir, legacy_wal_dir);
        wal_changes(&mut differences, &self.wal, wal);
        let SidecarConfig { socket, admin_address } = sidecar;
        differences.compare("sidecar.socket", Applies::AtRestart, &self.sidecar.socket, socket);
        let old = &self.sidecar.admin_address;
        differences.compare("sidecar.admin_address", Applies::AtRestart, old, admin_address);
        differences.changes
    }
}

fn wal_changes(differences: &mut Differences, old: &WalConfig, new: &WalConfig) {
    use Applies::{AtOnce, AtRestart};
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
    } = new;
    macro_rules! compare {
        ($($key:literal $applies:ident $field:ident;)*) => {
            $(differences.compare(concat!("storage.wal_config.", $key), $applies, &old.$field, $field);)*
        };
    }
    compare! {
        "wal_urls" AtRestart wal_urls;
        "distribution_strategy" AtOnce distribution_strategy;
        "collection_affinity" AtOnce collection_affinity;
        "memory_flush_size_bytes" AtOnce memory_flush_size;
        "global_flush_threshold" AtOnce global_flush_threshold;
        "journal_url" AtRestart journal_url;
        "segment_size_bytes" AtOnce segment_size;
        "compression" AtOnce compression;
        "journal_max_bytes" AtOnce journal_max;
        "bucket_commit_interval_ms" AtOnce bucket_commit_interval;
        "buffered_commit_interval_ms" AtOnce buffered_commit_interval;
        "on_damage" AtOnce on_damage;
        "on_missing_directory" AtRestart on_missing_directory;
        "allow_ephemeral" AtRestart allow_ephemeral;
        "io" AtRestart io;
        "writer_id" AtRestart writer_id;
    }
    option_changes(differences, old, new);
}

/// An absent table equals the defaults, so adding an empty one changes nothing.
fn option_changes(differences: &mut Differences, old: &WalConfig, new: &WalConfig) {
    use Applies::{AtOnce, AtRestart};
    let none = UrlOptions::default();
    let urls: std::collections::BTreeSet<_> = old.url_options.keys().chain(new.url_options.keys()).collect();
    for url in urls {
        let old = old.url_options.get(url).unwrap_or(&none);
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
        } = new.url_options.get(url).unwrap_or(&none);
        let path = |key: &str| format!("storage.wal_config.url_options.\"{url}\".{key}");
        macro_rules! compare {
            ($($applies:ident $field:ident;)*) => {
                $(differences.compare(&path(stringify!($field)), $applies, &old.$field, $field);)*
            };
        }
        compare! {
            AtRestart endpoint;
            AtRestart region;
            AtRestart path_style;
            AtRestart allow_http;
            AtRestart ca_file;
            AtOnce credentials_dir;
            AtOnce token_file;
            AtRestart role_arn;
            AtRestart audience;
            AtRestart unsafe_conditional;
            AtOnce drain;
        }
    }
}
