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
        segments,
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
    field("segments", segments.to_string())?;
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
        ">SEGMENTS",
        ">PENDING",
        ">COMMIT",
        ">ACKS/SYNC",
        "IO",
    ]);
    let mut notes = Vec::new();
    for d in directories {
        notes.extend(directory_notes(&d));
        table.add_row([
            d.url.clone(),
            d.uuid.clone(),
            shown_state(&d),
            bytes(d.free_bytes),
            bytes(d.capacity_bytes),
            format!("{} of {}", bytes(d.journal_bytes), bytes(d.journal_max_bytes)),
            d.segments.to_string(),
            bytes(d.pending_bytes),
            format!("{:.0} µs", d.commit_latency_us),
            format!("{:.1}", d.acks_per_sync),
            d.io.clone(),
        ]);
    }
    output::print_table(&table)?;
    for note in notes {
        output::line(&note)?;
    }
    Ok(())
}

/// A directory's state, and that it is being emptied where the state says something worse.
pub(crate) fn shown_state(directory: &Directory) -> String {
    let Directory { state, draining, .. } = directory;
    if *draining && state != "draining" { format!("{state}, draining") } else { state.clone() }
}

/// What is wrong with a directory, what to do about it, what is still to be moved off it, and when it may go.
pub(crate) fn directory_notes(directory: &Directory) -> Vec<String> {
    let Directory { uuid, url, state, reason, remedy, in_use, draining, evacuation_bytes_left: left, .. } = directory;
    let mut notes = Vec::new();
    if state == "healthy" && !draining && !directory.io.is_empty() && directory.reserve_bytes == 0 {
        notes.push(format!("{url}: no reserve: while its file system is completely full, truncation waits for room"));
    }
    match (reason.is_empty(), remedy.is_empty()) {
        (true, true) => {}
        (false, true) => notes.push(format!("{url}: {}", plain(reason))),
        (true, false) => notes.push(format!("{url}: {}", plain(remedy))),
        (false, false) => notes.push(format!("{url}: {}; {}", plain(reason), plain(remedy))),
    }
    // One that could not be looked at may hold anything.
    let known = !uuid.is_empty();
    let leaving = *draining || state == "draining" || (state == "failed" && known);
    if *left > 0 {
        notes.push(format!("{url}: {} still to be moved", bytes(*left)));
    } else if leaving && !in_use {
        notes.push(format!("{url}: nothing in it is needed any more; it may be removed"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_says_what_is_wrong_what_is_left_to_move_and_when_it_may_go() {
        let directory = |state: &str, draining, in_use, left| Directory {
            uuid: "known".into(),
            url: "u".into(),
            state: state.into(),
            draining,
            in_use,
            evacuation_bytes_left: left,
            ..Directory::default()
        };
        let may_go = "u: nothing in it is needed any more; it may be removed";
        for (directory, state, notes) in [
            (directory("healthy", false, true, 0), "healthy", vec![]),
            (directory("healthy", false, false, 0), "healthy", vec![]),
            (directory("failed", false, true, 2048), "failed", vec!["u: 2.0 KiB still to be moved"]),
            (directory("failed", false, true, 0), "failed", vec![]),
            (directory("failed", false, false, 0), "failed", vec![may_go]),
            (directory("draining", true, true, 1), "draining", vec!["u: 1 B still to be moved"]),
            (directory("full", true, false, 0), "full, draining", vec![may_go]),
        ] {
            assert_eq!(
                (shown_state(&directory).as_str(), directory_notes(&directory)),
                (state, notes.iter().map(|n| (*n).to_owned()).collect())
            );
        }
        let unseen = Directory { uuid: String::new(), ..directory("failed", false, false, 0) };
        assert!(directory_notes(&unseen).is_empty(), "nobody could look at it");
        let directory =
            Directory { url: "u".into(), reason: "a\u{1b}".into(), remedy: "b".into(), ..Directory::default() };
        assert_eq!(directory_notes(&directory), ["u: a\\u{1b}; b"]);
        let directory = Directory { url: "u".into(), remedy: "b".into(), ..Directory::default() };
        assert_eq!(directory_notes(&directory), ["u: b"]);
        let healthy = |reserve_bytes| {
            let (url, state, io) = ("u".into(), "healthy".into(), "buffered".into());
            directory_notes(&Directory { url, state, io, reserve_bytes, ..Directory::default() }).len()
        };
        assert_eq!((healthy(0), healthy(1)), (1, 0));
    }
}
