//! The page with the figures, and what they depend on.

use std::fmt::Write as _;

use anyhow::Result;

use crate::Cli;
use crate::machine::Machine;

/// What was measured, what came of it, and what is wanted.
pub(crate) type Row = (&'static str, String, &'static str);

/// The figures as a page of the documentation.
pub(crate) fn page(cli: &Cli, machine: &Machine, rows: &[Row]) -> Result<String> {
    let mut page = String::from(
        "# The operator with many pods\n\nWritten by `make scale`, which `make bench` runs too; no figure is typed by hand.\n\n",
    );
    let pods = cli.storages * cli.replicas;
    writeln!(
        page,
        "{pods} pods at once: {} StatefulSets of {} in {} namespaces, each with a WalStorage of its own, created one after the other, the WalStorages first. A real \
         API server with etcd, scheduler and controllers, the operator's real controller and webhook; the nodes are on paper, \
         and this program reports their pods as running and answers as their sidecars. All of that shares the processors of one \
         machine. Settled is when every status says that all its pods are ready and hold their writers. The same StatefulSets \
         with a claim of their own for each pod, in a cluster of their own before, say what Kubernetes itself takes.\n",
        cli.storages, cli.replicas, cli.namespaces
    )?;
    writeln!(page, "| | |\n|---|---|")?;
    for (what, is) in machine.rows() {
        writeln!(page, "| {what} | {is} |")?;
    }
    writeln!(page, "\n| | found | wanted |\n|---|---:|---:|")?;
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
