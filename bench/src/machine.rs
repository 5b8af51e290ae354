//! What the figures were measured on.

use std::path::Path;

use walstorage_tests::harness::{binaries, run};

fn first_line(path: &str, prefix: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(prefix)).unwrap_or_default();
    line.split_once(':').map_or(line, |(_, value)| value).trim().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Lines of `what: value`.
pub(crate) fn describe(folder: &Path) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let folder = folder.to_string_lossy();
    let mount = output("findmnt", &["--noheadings", "--output", "FSTYPE,SOURCE,OPTIONS", "--target", &folder]);
    let version = run(binaries::sidecar(), ["--version"], b"").stdout;
    vec![
        ("program", format!("{}, {}", version.trim(), output("git", &["describe", "--always", "--dirty"]))),
        ("processor", format!("{cores} x {}", first_line("/proc/cpuinfo", "model name"))),
        ("memory", first_line("/proc/meminfo", "MemTotal")),
        ("kernel", output("uname", &["-sr"])),
        ("file system", mount.split_whitespace().collect::<Vec<_>>().join(" ")),
        ("date", output("date", &["--utc", "+%Y-%m-%d"])),
    ]
}

/// Whether two folders lie on different block devices, as far as the kernel tells.
pub(crate) fn on_another_device(first: &Path, second: &Path) -> bool {
    let device = |folder: &Path| rustix::fs::stat(folder).map(|stat| stat.st_dev).ok();
    device(second).is_some_and(|second| device(first) != Some(second))
}
