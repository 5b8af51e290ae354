//! `render`: what would be applied, printed. Text in, text out; the program reads and writes the files.

mod drain;
mod workload;

use std::path::{Path, PathBuf};

use walstorage_crds::config::{Config, SOCKET_PATH_MAX, SidecarConfig, UrlOptions, WalConfig};
use walstorage_crds::url::WalUrl;
use walstorage_crds::walstorage::{from_config, validate};

pub use self::drain::drain;
pub use self::workload::{File, all};
use crate::resource;

/// What was rendered, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// For standard output.
    pub text: String,
    /// For standard error, a sentence each.
    pub warnings: Vec<String>,
}

/// The `config.toml` of a WalStorage, byte for byte as in its ConfigMap. With `root`, an absolute path, all paths lie below
/// it, so that a resource written for a cluster runs on a laptop.
///
/// # Errors
/// Everything that is wrong with the resource, a sentence each.
pub fn config(text: &str, root: Option<&Path>) -> Result<Rendered, Vec<String>> {
    let storage = resource::read(text)?;
    let name = storage.metadata.name.as_deref().unwrap_or_default();
    let sentences = |refusals: Vec<_>| refusals.iter().map(ToString::to_string).collect::<Vec<_>>();
    let mut config = validate(name, &storage.spec, &[]).map_err(sentences)?.config();
    if let Some(root) = root {
        config = below(&config, root).map_err(|error| vec![error])?;
    }
    let text = config.rendered_toml();
    // What a sidecar would say about the file, its maker should hear first.
    let loaded = Config::parse(&text, true)
        .map_err(|errors| errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
    Ok(Rendered { text, warnings })
}

/// The WalStorage of a `config.toml`. What a resource has no field for is refused, or with `drop` left out with a warning.
///
/// # Errors
/// Everything that is wrong with the file or cannot be said by a resource, a sentence each.
pub fn resource(text: &str, name: &str, drop: bool) -> Result<Rendered, Vec<String>> {
    let loaded = Config::parse(text, false)
        .map_err(|errors| errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let sentences = |refusals: Vec<_>| refusals.iter().map(ToString::to_string).collect::<Vec<_>>();
    let made = from_config(&loaded.config, name).map_err(sentences)?;
    let mut warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let left_out = made.not_carried.iter();
    if drop {
        warnings.extend(left_out.map(|setting| format!("left out: {setting}")));
    } else if !made.not_carried.is_empty() {
        return Err(left_out.map(|setting| format!("{setting}; remove it, or leave it out with --drop")).collect());
    }
    warnings.extend(made.to_create);
    let text = resource::print(&made.resource).map_err(|error| vec![error])?;
    Ok(Rendered { text, warnings })
}

/// The same configuration with every path below a folder.
fn below(config: &Config, root: &Path) -> Result<Config, String> {
    let Config { wal, sidecar, legacy_wal_dir } = config;
    let path = |path: &PathBuf| root.join(path.strip_prefix("/").unwrap_or(path));
    let url = |url: &WalUrl| match url.file_path() {
        None => Ok(url.clone()),
        Some(file) => WalUrl::parse_file_path(&path(&file))
            .map_err(|error| format!("--root {}: {error}; allowed: {}", root.display(), error.allowed())),
    };
    let options = |options: &UrlOptions| UrlOptions {
        ca_file: options.ca_file.as_ref().map(path),
        credentials_dir: options.credentials_dir.as_ref().map(path),
        token_file: options.token_file.as_ref().map(path),
        ..options.clone()
    };
    let all = wal.url_options.iter();
    let socket = root.join("wal.sock");
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        let allowed = format!("a folder whose path with /wal.sock has at most {SOCKET_PATH_MAX} bytes");
        return Err(format!("--root {}: too long for a unix socket; allowed: {allowed}", root.display()));
    }
    Ok(Config {
        wal: WalConfig {
            wal_urls: wal.wal_urls.iter().map(url).collect::<Result<_, _>>()?,
            journal_url: wal.journal_url.as_ref().map(url).transpose()?,
            url_options: all.map(|(at, given)| Ok((url(at)?, options(given)))).collect::<Result<_, String>>()?,
            ..wal.clone()
        },
        sidecar: SidecarConfig { socket, ..sidecar.clone() },
        legacy_wal_dir: legacy_wal_dir.as_ref().map(url).transpose()?,
    })
}
