//! What the figures were measured on.

use std::path::Path;

use walstorage_tests::harness::{binaries, machine, run};

fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Lines of `what: value`.
pub(crate) fn describe(folder: &Path) -> Vec<(&'static str, String)> {
    let folder = folder.to_string_lossy();
    let mount = output("findmnt", &["--noheadings", "--output", "FSTYPE,SOURCE,OPTIONS", "--target", &folder]);
    let version = run(binaries::sidecar(), ["--version"], b"").stdout;
    let [processor, memory, kernel] = machine::describe();
    vec![
        ("program", format!("{}, {}", version.trim(), output("git", &["describe", "--always", "--dirty"]))),
        processor,
        memory,
        kernel,
        ("file system", mount.split_whitespace().collect::<Vec<_>>().join(" ")),
        ("date", output("date", &["--utc", "+%Y-%m-%d"])),
    ]
}

/// Whether two folders lie on different block devices, as far as the kernel tells.
pub(crate) fn on_another_device(first: &Path, second: &Path) -> bool {
    let device = |folder: &Path| rustix::fs::stat(folder).map(|stat| stat.st_dev).ok();
    device(second).is_some_and(|second| device(first) != Some(second))
}
