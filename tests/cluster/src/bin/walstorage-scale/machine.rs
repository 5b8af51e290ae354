//! What the figures depend on, as it was before anything began.

use anyhow::{Context as _, Result};

/// A machine, and what else is going on there.
pub(crate) struct Machine(Vec<(&'static str, String)>);

impl Machine {
    /// Looks at this one.
    pub(crate) fn look() -> Result<Self> {
        let info = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let count = std::thread::available_parallelism()?;
        let memory = std::fs::read_to_string("/proc/meminfo")?;
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').take(3).collect::<Vec<_>>().join(", ");
        Ok(Self(vec![
            ("processor", format!("{count} x {}", model.trim_start_matches([' ', '\t', ':']))),
            ("memory", memory.trim().to_owned()),
            ("kernel", format!("Linux {kernel}")),
            ("scheduled as", policy()?.to_owned()),
            ("`GOGC` of the programs in Go", std::env::var("GOGC").unwrap_or_else(|_| "100".to_owned())),
            ("load average when it began", load),
        ]))
    }

    /// What it is, in the words of a table.
    pub(crate) fn rows(&self) -> &[(&'static str, String)] {
        &self.0
    }
}

/// The kernel's policy for this program and all that it starts (field 41 of proc_pid_stat(5), numbers of sched(7)).
fn policy() -> Result<&'static str> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/self/stat")?;
    Ok(match fields.split_whitespace().nth(38) {
        Some("0") => "SCHED_OTHER",
        Some("3") => "SCHED_BATCH",
        _ => "another policy",
    })
}
