//! What the figures depend on, as it was before anything began.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Where reads are measured: more than a processor has to itself, and less than what it shares with others.
const READS_IN: usize = 16 << 20;
/// Reads that are measured.
const READS: u32 = 2_000_000;

/// A machine, and what else is going on there.
pub(crate) struct Machine(Vec<(&'static str, String)>);

impl Machine {
    /// Looks at this one. Takes a second.
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
            ("a read at random in 16 MiB", format!("{:.0} ns", random_read_ns())),
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

/// Nanoseconds until a read is done that the next one depends on. On a machine that others share it says how much of the cache
/// is left to us: programs as large as an API server run at its pace.
fn random_read_ns() -> f64 {
    /// One line of the cache.
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line(usize);

    let mut lines: Vec<Line> = (0..READS_IN / size_of::<Line>()).map(Line).collect();
    // One way through all of them (Sattolo's algorithm).
    for last in (1..lines.len()).rev() {
        lines.swap(last, rand::random_range(0..last));
    }
    let walk = |steps: u32| (0..steps).fold(0, |at: usize, _| lines[at].0);
    black_box(walk(READS / 4));
    let began = Instant::now();
    black_box(walk(READS));
    began.elapsed().as_secs_f64() * 1e9 / f64::from(READS)
}
