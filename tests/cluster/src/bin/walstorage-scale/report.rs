//! The page with the figures, and what they depend on.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use crate::Cli;

/// What was measured, what came of it, and what is wanted.
pub(crate) type Row = (&'static str, String, &'static str);

/// The figures as a page of the documentation.
pub(crate) fn page(cli: &Cli, load: &str, rows: &[Row]) -> Result<String> {
    let mut page = String::from(
        "# The operator with many pods\n\nWritten by `make scale`, which `make bench` runs too; no figure is typed by hand.\n\n",
    );
    let pods = cli.storages * cli.replicas;
    writeln!(
        page,
        "{pods} pods at once: {} StatefulSets of {} in {} namespaces, each with a WalStorage of its own, created one after the other, the WalStorages first. A real \
         API server with etcd, scheduler and controllers, the operator's real controller and webhook; the nodes are on paper, \
         and this program reports their pods as running and answers as their sidecars. All of that shares the processors of one \
         machine, the webhook ahead of the others. Settled is when every status says that all its pods are ready and hold their writers. The same StatefulSets \
         with a claim of their own for each pod, in a cluster of their own before, say what Kubernetes itself takes.\n",
        cli.storages, cli.replicas, cli.namespaces
    )?;
    writeln!(page, "| | |\n|---|---|")?;
    for (what, is) in machine()? {
        writeln!(page, "| {what} | {is} |")?;
    }
    writeln!(page, "| load average when it began | {load} |\n\n| | found | wanted |\n|---|---:|---:|")?;
    for (what, figure, target) in rows {
        let target = if target.is_empty() { String::new() } else { format!("below {target}") };
        writeln!(page, "| {what} | {figure} | {target} |")?;
    }
    Ok(page)
}

/// The last section of the page that was there: people write it, and it stays.
pub(crate) fn by_people(before: &str) -> String {
    const HEADING: &str = "## What falls short, and why";
    let kept = before.find(HEADING).map_or(HEADING, |at| before[at..].trim_end());
    format!("\n{kept}\n")
}

/// What the figures depend on.
fn machine() -> Result<[(&'static str, String); 5]> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default().trim().to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let processor = format!("{count} x {}", model.trim_start_matches([' ', '\t', ':']));
    Ok([
        ("processor", processor),
        ("memory", memory),
        ("kernel", format!("Linux {kernel}")),
        ("scheduled as", policy()?.to_owned()),
        ("`GOGC` of the programs in Go", std::env::var("GOGC").unwrap_or_else(|_| "100".to_owned())),
    ])
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

pub(crate) fn load() -> Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').take(3).collect::<Vec<_>>().join(", "))
}
