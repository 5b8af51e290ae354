//! The program `walstorage-operator`. Exit codes: 0 done, 1 failed, 2 wrong usage or wrong input.

mod cli;

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use walstorage_operator::manifests;
use walstorage_operator::process::{self, controller};
use walstorage_operator::render::{self, Rendered};
use walstorage_operator::resource::has_storage;
use walstorage_operator::webhook;
use walstorage_operator::webhook::patch::Settings;

use self::cli::{Cli, Command, CrdsArgs, DrainArgs, Part, RenderArgs, RenderCommand, SidecarArgs};

/// Input that is wrong, as opposed to a machine that does not play along.
const WRONG_INPUT: u8 = 2;

fn main() -> ExitCode {
    // Before any client is made: two TLS providers in one binary, or none, make the client panic.
    process::install_tls();
    let done = match Cli::parse().command {
        Command::Controller(options) => run(controller::run(*options)),
        Command::Webhook(options) => run(webhook::command::run(*options)),
        Command::Render(args) => render(&args),
        Command::Crds(args) => crds(&args),
        Command::Version => {
            print(&format!("walstorage-operator {}\n", env!("CARGO_PKG_VERSION"))).map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        complain(&[format!("{error:#}")]);
        ExitCode::FAILURE
    })
}

/// Runs a command that stays.
fn run(command: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(command).map(|()| ExitCode::SUCCESS)
}

fn render(args: &RenderArgs) -> Result<ExitCode> {
    if let Some(RenderCommand::Drain(args)) = &args.what {
        return render_drain(args);
    }
    let (name, rendered) = if let Some(file) = &args.from_config {
        let name = shown(file);
        match read(file) {
            Ok(text) => (name, render::resource(&text, &args.name, args.drop)),
            Err(error) => (name, Err(vec![error])),
        }
    } else {
        if args.part == Part::All {
            return render_all(args);
        }
        render_config(args)
    };
    match rendered {
        Ok(Rendered { text, warnings }) => {
            complain(&warnings.iter().map(|warning| format!("{name}: warning: {warning}")).collect::<Vec<_>>());
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            complain(&errors.iter().map(|error| format!("{name}: {error}")).collect::<Vec<_>>());
            Ok(ExitCode::from(WRONG_INPUT))
        }
    }
}

/// Every object, of all files.
fn render_all(args: &RenderArgs) -> Result<ExitCode> {
    if args.root.is_some() {
        let why = "--root is for --part config only: a cluster mounts what the resource says";
        return printed(Err(vec![why.to_owned()]));
    }
    printed(files(&args.file).and_then(|files| render::all(&files, &settings(&args.sidecar))))
}

/// The Job that empties a writer.
fn render_drain(args: &DrainArgs) -> Result<ExitCode> {
    let account = args.service_account.as_deref();
    let job = |files: Vec<_>| render::drain(&files, &args.writer, &settings(&args.sidecar), account);
    printed(files(&args.file).and_then(job))
}

fn settings(args: &SidecarArgs) -> Settings {
    Settings { image: args.sidecar_image.clone(), pull_policy: args.sidecar_pull_policy.clone() }
}

fn files(paths: &[PathBuf]) -> Result<Vec<render::File>, Vec<String>> {
    let file = |path: &PathBuf| {
        let name = shown(path);
        let text = read(path).map_err(|error| vec![format!("{name}: {error}")])?;
        Ok(render::File { name, text })
    };
    paths.iter().map(file).collect()
}

/// Prints what was rendered of files that name themselves in what is said about them.
fn printed(rendered: Result<Rendered, Vec<String>>) -> Result<ExitCode> {
    match rendered {
        Ok(Rendered { text, warnings }) => {
            complain(&warnings.iter().map(|warning| format!("warning: {warning}")).collect::<Vec<_>>());
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            complain(&errors);
            Ok(ExitCode::from(WRONG_INPUT))
        }
    }
}

/// The file that holds the WalStorage, and its rendering.
fn render_config(args: &RenderArgs) -> (String, Result<Rendered, Vec<String>>) {
    let mut texts = Vec::new();
    for file in &args.file {
        match read(file) {
            Ok(text) => texts.push((shown(file), text)),
            Err(error) => return (shown(file), Err(vec![error])),
        }
    }
    if texts.len() > 1 {
        texts.retain(|(_, text)| has_storage(text));
    }
    let root = args.root.as_deref().map(absolute).transpose();
    match (texts.as_slice(), root) {
        ([(name, text)], Ok(root)) => (name.clone(), render::config(text, root.as_deref())),
        (_, Err(error)) => ("render".to_owned(), Err(vec![error])),
        (files, Ok(_)) => {
            let error = format!("{} files with a WalStorage; allowed: exactly one", files.len());
            ("render".to_owned(), Err(vec![error]))
        }
    }
}

/// The folder as an absolute path; one that exists without `..` and links.
fn absolute(folder: &Path) -> Result<PathBuf, String> {
    let path = fs::canonicalize(folder).or_else(|_| std::path::absolute(folder));
    path.map_err(|error| format!("--root {}: {error}", folder.display()))
}

fn crds(args: &CrdsArgs) -> Result<ExitCode> {
    let files = manifests::files().map_err(anyhow::Error::msg)?;
    if let Some(folder) = &args.dir {
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    } else {
        let documents: Vec<String> = files.into_iter().map(|(_, text)| text).collect();
        print(&documents.join("---\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A file's text; `-` is standard input.
fn read(file: &Path) -> Result<String, String> {
    if file == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
    }
    fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn complain(lines: &[String]) {
    let mut err = std::io::stderr().lock();
    for line in lines {
        // Where standard error is gone, the exit code is all that is left to say.
        let _ = writeln!(err, "{line}");
    }
}
