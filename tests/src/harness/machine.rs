//! What figures depend on.

/// The rest of the line of a file that begins so.
fn line(path: &str, prefix: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    line.trim_start_matches([':', ' ', '\t']).trim().to_owned()
}

/// This machine's processors, memory and kernel, as lines of `what: value`.
#[must_use]
pub fn describe() -> [(&'static str, String); 3] {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    [
        ("processor", format!("{cores} x {}", line("/proc/cpuinfo", "model name"))),
        ("memory", line("/proc/meminfo", "MemTotal")),
        ("kernel", format!("Linux {}", line("/proc/sys/kernel/osrelease", ""))),
    ]
}
