//! Reading the file again while running: watched and polled, refused whole when anything is wrong with it, applied
//! setting by setting when not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use walstorage_crds::config::{Applies, Config, Loaded};

use super::options::ConfigFile;
use super::watch::Watch;
use crate::engine::Engine;
use crate::server::status::ConfigReport;

/// How often the file is read even if nobody said that it changed.
const POLL: Duration = Duration::from_secs(10);

/// The file, the configuration that the process was started with, and the one in force.
pub(crate) struct Reload {
    file: ConfigFile,
    started: Config,
    in_force: Config,
    engine: Engine,
    report: Arc<Mutex<ConfigReport>>,
    /// What was read last, good or not.
    seen: Option<Result<String, String>>,
}

impl Reload {
    pub(crate) fn new(file: ConfigFile, config: Config, engine: Engine, report: Arc<Mutex<ConfigReport>>) -> Self {
        Self { file, started: config.clone(), in_force: config, engine, report, seen: None }
    }

    /// Watches until it is dropped.
    pub(crate) async fn run(mut self) {
        let watch = Watch::new(&folder(&self.file.path));
        loop {
            self.look();
            tokio::select! {
                () = watch.changed() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn look(&mut self) {
        let read = self.file.read();
        if self.seen.as_ref() == Some(&read) {
            return;
        }
        let loaded = match &read {
            Ok(text) => self.file.load(text).map_err(|errors| errors.to_string()),
            Err(message) => Err(message.clone()),
        };
        self.seen = Some(read);
        match loaded {
            Ok(loaded) => self.apply(loaded),
            Err(error) => {
                tracing::error!(file = %self.file.path.display(), %error, "the configuration is refused; the last good one stays");
                self.report.lock().error = error;
            }
        }
    }

    fn apply(&mut self, loaded: Loaded) {
        let Loaded { config, warnings, hash } = loaded;
        let (at_once, pending) = plan(&self.started, &self.in_force, &config);
        if !at_once.is_empty() {
            self.engine.reconfigure(&config);
        }
        if self.in_force != config {
            tracing::info!(
                applied = at_once.join(" "),
                pending_restart = pending.join(" "),
                "the configuration changed"
            );
        }
        *self.report.lock() = ConfigReport {
            hash,
            error: String::new(),
            pending_restart: pending,
            warnings: warnings.iter().map(ToString::to_string).collect(),
        };
        self.in_force = config;
    }
}

/// The settings that a new file changes at once, and those that wait for a start. Pure.
fn plan(started: &Config, in_force: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let of = |old: &Config, applies: Applies| {
        let changes = old.changes(new).into_iter().filter(move |change| change.applies == applies);
        changes.map(|change| change.key).collect()
    };
    (of(in_force, Applies::AtOnce), of(started, Applies::AtRestart))
}

/// The folder of a path.
fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(&format!("[storage.wal_config]\n{text}"), false).unwrap().config
    }

    #[test]
    fn hot_settings_apply_once_and_others_stay_pending_until_taken_back() {
        let started = config("");
        let new = config("segment_size_bytes = 1048576\nio = \"buffered\"\n");
        let segment_size = "storage.wal_config.segment_size_bytes".to_owned();
        let io = "storage.wal_config.io".to_owned();
        assert_eq!(plan(&started, &started, &new), (vec![segment_size.clone()], vec![io.clone()]));
        assert_eq!(plan(&started, &new, &new), (vec![], vec![io]));
        assert_eq!(plan(&started, &new, &started), (vec![segment_size], vec![]));
    }

    #[test]
    fn a_bare_file_name_lies_in_the_current_folder() {
        assert_eq!(folder(Path::new("config.toml")), PathBuf::from("."));
        assert_eq!(folder(Path::new("/etc/walstorage/config.toml")), PathBuf::from("/etc/walstorage"));
    }
}
