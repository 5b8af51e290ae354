//! The command line of `walstorage-sidecar`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{Method, StatusCode};
use walstorage_crds::config::{Config, DEFAULT_SOCKET};

use super::exit::Exit;
use super::{ServeArgs, client, logs};
use crate::format::schema::SCHEMA;

/// A write-ahead log for one pod: applications append entries over a unix socket, the sidecar makes them durable on
/// several disks and gives them back after any crash.
#[derive(Debug, Parser)]
#[command(
    name = "walstorage-sidecar",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    after_help = "Without a command: serve.\n\n\
    Try it:\n  \
    walstorage-sidecar config check config.toml\n  \
    walstorage-sidecar serve --config config.toml\n  \
    curl --unix-socket /run/walstorage/wal.sock http://wal/v1/status\n\n\
    Environment of serve, besides the flags': WALSTORAGE_LOG (a filter such as debug), WALSTORAGE_LOG_FORMAT\n\
    (text or json), WALSTORAGE_REQUIRE_MOUNTS, WALSTORAGE_REQUIRE_GRANT, WALSTORAGE_GRANT, WALSTORAGE_POD_UID.\n\n\
    Exit codes of serve: 0 clean, 1 other, 2 configuration, 3 fenced, 4 no valid grant."
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the log (the default command)
    Serve(ServeArgs),
    /// Look at configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running sidecar, for exec probes: exit 0 if so, 1 with the reason if not
    Check(CheckArgs),
    /// Prepare a running sidecar for the end of its pod; returns at once, appends go on
    Prestop(SocketArgs),
    /// Print the Avro schema of everything on storage
    Schema,
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective configuration; warnings on standard error; exit 2 with every error
    Check {
        /// The file
        file: PathBuf,
        /// Make an error of every unknown key in the sections that are ours
        #[arg(long)]
        strict: bool,
    },
}

#[derive(Args, Debug)]
struct CheckArgs {
    /// started: recovery is complete and reads are answered; ready: and a directory is writable; live: it answers
    #[arg(value_enum)]
    what: Probe,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Probe {
    Started,
    Ready,
    Live,
}

#[derive(Args, Debug)]
struct SocketArgs {
    /// The sidecar's unix socket
    #[arg(long, value_name = "PATH", env = "WALSTORAGE_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Runs the command line of the process.
#[must_use]
pub fn run(command_line: CommandLine) -> ExitCode {
    match command_line.command.unwrap_or(Command::Serve(command_line.serve)) {
        Command::Serve(args) => serve(&args),
        Command::Config(ConfigCommand::Check { file, strict }) => config_check(&file, strict),
        Command::Check(CheckArgs { what, socket }) => check(what, &socket.socket),
        Command::Prestop(SocketArgs { socket }) => prestop(&socket),
        Command::Schema => print(SCHEMA.trim_end()),
        Command::Version => print(concat!("walstorage-sidecar ", env!("CARGO_PKG_VERSION"))),
    }
}

/// Prints a line; a reader that went away is no error.
fn print(text: &str) -> ExitCode {
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn fail(code: u8, message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(code)
}

fn serve(args: &ServeArgs) -> ExitCode {
    let format = match logs::start() {
        Ok(format) => format,
        Err(message) => return fail(2, &format!("error: {message}")),
    };
    let exit: Exit = super::run(args);
    logs::report(&exit, format);
    ExitCode::from(&exit)
}

fn config_check(file: &Path, strict: bool) -> ExitCode {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) => return fail(2, &format!("cannot read {}: {e}", file.display())),
    };
    let (outcome, warnings) = match Config::parse(&text, strict) {
        Ok(loaded) => (Ok(loaded.config), loaded.warnings),
        Err(errors) => (Err(errors.to_string()), errors.warnings),
    };
    for warning in warnings {
        let _ = writeln!(std::io::stderr(), "warning: {}: {warning}", file.display());
    }
    match outcome {
        Ok(config) => print(config.effective_toml().trim_end()),
        Err(errors) => {
            for error in errors.lines() {
                let _ = writeln!(std::io::stderr(), "error: {}: {error}", file.display());
            }
            ExitCode::from(2)
        }
    }
}

fn ask(socket: &Path, method: Method, path: &str) -> Result<(StatusCode, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(client::request(socket, method, path))
}

fn check(what: Probe, socket: &Path) -> ExitCode {
    let path = match what {
        Probe::Started => "/startedz",
        Probe::Ready => "/readyz",
        Probe::Live => "/livez",
    };
    match ask(socket, Method::GET, path) {
        Ok((StatusCode::OK, answer)) => print(&answer),
        Ok((_, answer)) => fail(1, &answer),
        Err(message) => fail(1, &message),
    }
}

fn prestop(socket: &Path) -> ExitCode {
    match ask(socket, Method::POST, "/v1/prestop") {
        Ok((StatusCode::OK, _)) => ExitCode::SUCCESS,
        Ok((_, answer)) => fail(1, &answer),
        Err(message) => fail(1, &message),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        let line = CommandLine::try_parse_from(["walstorage-sidecar", "--config", "f", "--admin", "off"]).unwrap();
        assert!(line.command.is_none());
        assert_eq!(line.serve.config, Some("f".into()));
        let line = CommandLine::try_parse_from(["walstorage-sidecar", "serve", "--config", "f"]).unwrap();
        assert!(matches!(line.command, Some(Command::Serve(ServeArgs { config: Some(_), .. }))));
    }
}
