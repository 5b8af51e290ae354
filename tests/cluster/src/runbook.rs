//! The commands of docs/runbooks, as they stand there. Somebody who is called at night pastes them.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::binaries::repository;
use crate::charts::RELEASE;
use crate::connection::Connection;

/// A page's text.
///
/// # Panics
/// When there is none of this name.
#[must_use]
pub fn page(name: &str) -> String {
    std::fs::read_to_string(repository().join("docs/runbooks").join(name)).expect("a page")
}

/// The commands of a page: lines of its blocks, without comments, and what stands in backticks in its text.
#[must_use]
pub fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 1 {
            let lines = part.lines().map(|line| line.split("  #").next().unwrap_or_default().trim().to_owned());
            found.extend(lines.filter(|line| line.starts_with("kubectl ")));
        } else {
            let spans = part.split('`').skip(1).step_by(2);
            let words = |span: &str| span.split_whitespace().collect::<Vec<_>>().join(" ");
            found.extend(spans.map(words).filter(|span| span.starts_with("kubectl ")));
        }
    }
    found
}

/// The command of a page that begins so.
///
/// # Panics
/// When the page has none.
#[must_use]
pub fn command_of(name: &str, begins: &str) -> String {
    let found = commands(&page(name)).into_iter().find(|command| command.starts_with(begins));
    found.unwrap_or_else(|| panic!("{name} has no {begins}"))
}

/// A command about a pod of WalStorage `log`, for a shell.
#[must_use]
pub fn filled(command: &str, namespace: &str, pod: &str) -> String {
    let writer = format!("log.{pod}");
    let names = [
        ("NAMESPACE", namespace),
        ("STORAGE.WRITER", &writer),
        ("STORAGE", "log"),
        ("WRITER", pod),
        ("POD", pod),
        ("NODE", "node1"),
        ("RELEASE", RELEASE),
    ];
    names.iter().fold(command.to_owned(), |command, (name, value)| command.replace(name, value))
}

/// Runs a command line as somebody does who has pasted it.
///
/// # Errors
/// With what it says when it fails.
pub fn paste(connection: &Connection, line: &str) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-o", "pipefail", "-ec", line])
        .env("PATH", format!("{}:{path}", connection.tools().display()))
        .env("KUBECONFIG", connection.kubeconfig())
        .env("KUBECACHEDIR", connection.kubeconfig().with_file_name("home").join("kube"))
        .output()?;
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{line}: {}: {complaint}{said}", output.status);
    Ok(said.into_owned())
}
