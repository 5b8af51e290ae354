//! `walctl status`: is my data safe, and what is it waiting for.

use walstorage_sidecar::proto::{ConfigState, Damage, Directory, GetStatusRequest, Memory, Replay, Status, Writer};

use crate::Global;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{self, Output, bytes, plain};

pub(crate) async fn run(global: &Global) -> Result<(), Failure> {
    let mut client = connect(&global.socket).await?;
    let status = client.get_status(GetStatusRequest {}).await?.into_inner();
    if global.output == Output::Json {
        return output::json(&status);
    }
    show(status)
}

fn show(status: Status) -> Result<(), Failure> {
    let Status {
        writer,
        phase,
        waiting_for,
        replay,
        directories,
        memory,
        collections,
        unapplied_entries,
        unapplied_bytes,
        damage,
        config,
        version,
    } = status;
    let field = |name: &str, value: String| output::line(&format!("{name:12} {value}"));
    field("phase", phase.clone())?;
    for what in waiting_for {
        field("waiting for", what)?;
    }
    let Replay { done_bytes, total_bytes } = replay.unwrap_or_default();
    if matches!(phase.as_str(), "recovering" | "waiting") {
        field("replay", format!("{} of {}", bytes(done_bytes), bytes(total_bytes)))?;
    }
    let Writer { uid, id, epoch, grant, holder } = writer.unwrap_or_default();
    let named = if id.is_empty() { uid } else { format!("{id} ({uid})") };
    let granted = if grant == 0 { String::new() } else { format!(", grant {grant} of {holder}") };
    field("writer", format!("{named}, epoch {epoch}{granted}"))?;
    field("collections", collections.to_string())?;
    field("unapplied", format!("{unapplied_entries} entries, {}", bytes(unapplied_bytes)))?;
    let Memory { used_bytes, limit_bytes } = memory.unwrap_or_default();
    field("memory", format!("{} of {}", bytes(used_bytes), bytes(limit_bytes)))?;
    let ConfigState { hash, error, pending_restart, warnings } = config.unwrap_or_default();
    field("config", hash)?;
    for error in error.lines() {
        field("  refused", error.to_owned())?;
    }
    if !pending_restart.is_empty() {
        field("  at restart", pending_restart.join(", "))?;
    }
    for warning in warnings {
        field("  warning", warning)?;
    }
    field("version", version)?;
    for Damage { file, offset, directory: _, what, lost } in damage {
        let lost: Vec<String> = lost
            .iter()
            .map(|range| match (range.collection.as_str(), range.last) {
                ("", _) => "unknown".into(),
                (name, 0) => format!("{} unknown LSNs", plain(name)),
                (name, last) => format!("{} {}..{last}", plain(name), range.first),
            })
            .collect();
        field("damage", format!("{file} at {offset}: {what}; lost: {}", lost.join(", ")))?;
    }
    output::line("")?;
    show_directories(directories)
}

/// A table of directories, with what is wrong and what to do below.
pub(crate) fn show_directories(directories: Vec<Directory>) -> Result<(), Failure> {
    let mut table = output::table(&[
        "DIRECTORY",
        "UUID",
        "STATE",
        ">FREE",
        ">SIZE",
        ">JOURNAL",
        ">PENDING",
        ">COMMIT",
        ">ACKS/SYNC",
    ]);
    let mut notes = Vec::new();
    for d in directories {
        if !d.reason.is_empty() || !d.remedy.is_empty() {
            let remedy = if d.remedy.is_empty() { String::new() } else { format!("; {}", d.remedy) };
            notes.push(format!("{}: {}{remedy}", d.url, d.reason));
        }
        if d.evacuation_bytes_left > 0 {
            notes.push(format!("{}: {} still to be moved", d.url, bytes(d.evacuation_bytes_left)));
        }
        table.add_row([
            d.url,
            d.uuid,
            if d.draining && d.state != "draining" { format!("{}, draining", d.state) } else { d.state },
            bytes(d.free_bytes),
            bytes(d.capacity_bytes),
            format!("{} of {}", bytes(d.journal_bytes), bytes(d.journal_max_bytes)),
            bytes(d.pending_bytes),
            format!("{:.0} µs", d.commit_latency_us),
            format!("{:.1}", d.acks_per_sync),
        ]);
    }
    output::print_table(&table)?;
    for note in notes {
        output::line(&note)?;
    }
    Ok(())
}
