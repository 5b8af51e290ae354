//! What a start is told: flags, the `WALSTORAGE_*` variables that mirror them, and the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use walstorage_crds::config::{Config, ConfigErrors, Loaded, check_writer_id};

use super::exit::Exit;
use super::grant::{self, Environment};
use crate::engine::Grant;

/// Flags of `serve`.
#[derive(Args, Clone, Debug, Default)]
pub struct ServeArgs {
    /// The configuration file (config.toml); read again whenever it changes
    #[arg(long, value_name = "FILE", env = "WALSTORAGE_CONFIG")]
    pub config: Option<PathBuf>,
    /// The unix socket to serve, instead of sidecar.socket of the file
    #[arg(long, value_name = "PATH", env = "WALSTORAGE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Where to serve health, metrics and status, instead of sidecar.admin_address of the file
    #[arg(long, value_name = "ADDRESS|off", env = "WALSTORAGE_ADMIN", value_parser = parse_admin)]
    pub admin: Option<Admin>,
    /// The writer's id: the path below every URL, instead of storage.wal_config.writer_id of the file
    #[arg(long, value_name = "ID", env = "WALSTORAGE_WRITER_ID")]
    pub writer_id: Option<String>,
    /// Make an error of every unknown key in the sections that are ours
    #[arg(long, env = "WALSTORAGE_STRICT", value_parser = FalseyValueParser::new())]
    pub strict: bool,
    /// Where to leave a last message, as JSON; without this /dev/termination-log, if it exists
    #[arg(long, value_name = "FILE", env = "WALSTORAGE_TERMINATION_LOG")]
    pub termination_log: Option<PathBuf>,
}

impl ServeArgs {
    /// What decides about directories, from the environment alone: for tools that open them without serving.
    #[must_use]
    pub fn from_environment() -> Self {
        Self { writer_id: std::env::var("WALSTORAGE_WRITER_ID").ok(), ..Self::default() }
    }
}

/// The admin port of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// None.
    Off,
    /// There.
    At(SocketAddr),
}

fn parse_admin(text: &str) -> Result<Admin, String> {
    match text {
        "off" => Ok(Admin::Off),
        address => address
            .parse()
            .map(Admin::At)
            .map_err(|_| format!("{address:?} is neither off nor an address such as 127.0.0.1:9465")),
    }
}

/// The file, and what goes before it.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) strict: bool,
    socket: Option<PathBuf>,
    admin: Option<Admin>,
    writer_id: Option<String>,
}

impl ConfigFile {
    /// The text as it is now.
    pub(crate) fn read(&self) -> Result<String, String> {
        let bytes = std::fs::read(&self.path).map_err(|e| format!("cannot read {}: {e}", self.path.display()))?;
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8", self.path.display()))
    }

    /// A text's configuration, flags and environment applied.
    pub(crate) fn load(&self, text: &str) -> Result<Loaded, ConfigErrors> {
        let mut loaded = Config::parse(text, self.strict)?;
        if let Some(socket) = &self.socket {
            loaded.config.sidecar.socket.clone_from(socket);
        }
        match self.admin {
            None => {}
            Some(Admin::Off) => loaded.config.sidecar.admin_address = None,
            Some(Admin::At(address)) => loaded.config.sidecar.admin_address = Some(address),
        }
        if self.writer_id.is_some() {
            loaded.config.wal.writer_id.clone_from(&self.writer_id);
        }
        Ok(loaded)
    }
}

/// All that a start needs.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) file: ConfigFile,
    pub(crate) loaded: Loaded,
    pub(crate) require_mounts: bool,
    pub(crate) grant: Option<Grant>,
}

impl Resolved {
    /// The names of URLs, where a grant names them.
    pub(crate) fn url_names(&self) -> std::collections::BTreeMap<String, String> {
        let urls = self.grant.iter().flat_map(|grant| &grant.urls);
        urls.map(|granted| (granted.url.as_str().to_owned(), granted.name.clone())).collect()
    }
}

/// Reads everything; what is wrong ends the start.
pub(crate) fn resolve(args: &ServeArgs) -> Result<Resolved, Exit> {
    let configuration = |message: String| Exit::configuration(vec![message]);
    let Some(path) = args.config.clone() else {
        return Err(configuration("which configuration? Name the file with --config FILE or WALSTORAGE_CONFIG".into()));
    };
    let writer_id = args.writer_id.clone().filter(|id| !id.is_empty());
    if let Some(id) = &writer_id {
        check_writer_id(id).map_err(|e| configuration(format!("writer id {id:?} (flag or environment): {e}")))?;
    }
    let file = ConfigFile { path, strict: args.strict, socket: args.socket.clone(), admin: args.admin, writer_id };
    let text = file.read().map_err(configuration)?;
    let loaded = file.load(&text).map_err(|errors| Exit::configuration(lines(&file, &errors)))?;
    for warning in &loaded.warnings {
        tracing::warn!(file = %file.path.display(), "{warning}");
    }
    let require_mounts = switch("WALSTORAGE_REQUIRE_MOUNTS").map_err(configuration)?;
    let environment = Environment {
        required: switch("WALSTORAGE_REQUIRE_GRANT").map_err(configuration)?,
        grant: std::env::var("WALSTORAGE_GRANT").ok(),
        pod_uid: std::env::var("WALSTORAGE_POD_UID").ok(),
    };
    let grant = grant::parse(&environment).map_err(Exit::no_grant)?;
    Ok(Resolved { file, loaded, require_mounts, grant })
}

fn lines(file: &ConfigFile, errors: &ConfigErrors) -> Vec<String> {
    errors.errors.iter().map(|error| format!("{}: {error}", file.path.display())).collect()
}

fn switch(name: &str) -> Result<bool, String> {
    match std::env::var(name).unwrap_or_default().as_str() {
        "" | "false" | "0" => Ok(false),
        "true" | "1" => Ok(true),
        other => Err(format!("{name}={other}: allowed: true, false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(admin: Option<Admin>) -> ConfigFile {
        ConfigFile { path: "f".into(), strict: false, socket: Some("/s".into()), admin, writer_id: Some("w".into()) }
    }

    #[test]
    fn flags_go_before_the_file() {
        let text =
            "[storage.wal_config]\nwriter_id = \"x\"\n[sidecar]\nsocket = \"/t\"\nadmin_address = \"1.2.3.4:5\"\n";
        let config = file(Some(Admin::Off)).load(text).unwrap().config;
        assert_eq!(config.sidecar.socket, PathBuf::from("/s"));
        assert_eq!(config.sidecar.admin_address, None);
        assert_eq!(config.wal.writer_id.as_deref(), Some("w"));
        assert_eq!(file(None).load(text).unwrap().config.sidecar.admin_address, "1.2.3.4:5".parse().ok());
    }

    #[test]
    fn an_admin_address_is_one_or_off() {
        assert_eq!(parse_admin("off"), Ok(Admin::Off));
        assert_eq!(parse_admin("[::1]:0"), Ok(Admin::At("[::1]:0".parse().unwrap())));
        assert!(parse_admin("localhost").unwrap_err().contains("neither off nor an address"));
    }
}
