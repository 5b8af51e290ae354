//! Memory and time of a process, as the kernel counts them.

use std::time::Duration;

pub(crate) use walstorage_tests::harness::memory::mib;

/// What a process has used of its processors, its own calls of the kernel included.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in brackets, may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}
