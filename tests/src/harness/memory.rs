//! Memory of a process, as the kernel counts it.

/// A line of `/proc/<pid>/status` that counts kB, in MiB.
///
/// # Errors
/// When there is no such process or line.
pub fn mib(pid: u32, line: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0).ok_or_else(|| anyhow::anyhow!("no {line} of process {pid}"))
}
