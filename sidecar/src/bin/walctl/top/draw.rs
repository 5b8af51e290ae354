//! A view as lines of text.

use comfy_table::Table;
use walstorage_sidecar::proto::{Collection, Directory, Memory, Replay, Status, Writer};

use super::sample::{Busy, Sample, View};
use crate::failure::Failure;
use crate::output::{self, bytes, plain};
use crate::status::{directory_notes, shown_state};

/// A view as a table of directories and one of collections below a few lines about all.
pub(super) fn lines(view: &View) -> Vec<String> {
    let View { seconds: _, appended_per_second, truncated_per_second, status, collections } = view;
    let mut lines = head(status);
    let rates = format!("{} appended/s, {} truncated/s", rate(*appended_per_second), rate(*truncated_per_second));
    let unapplied = format!("{} entries unapplied, {}", status.unapplied_entries, bytes(status.unapplied_bytes));
    let Memory { used_bytes, limit_bytes } = status.memory.unwrap_or_default();
    let percent = (used_bytes * 100).checked_div(limit_bytes).unwrap_or(0);
    let memory = format!("memory {} of {} ({percent} %)", bytes(used_bytes), bytes(limit_bytes));
    lines.push(format!("{rates}   {unapplied}   {memory}"));
    lines.push(String::new());
    directories(&status.directories, &mut lines);
    lines.push(String::new());
    let titles = ["COLLECTION", ">APPENDED/S", ">TRUNCATED/S", ">UNAPPLIED", ">BYTES", ">SEGMENTS", "DIRECTORY"];
    let mut table = output::table(&titles);
    for Busy { appended_per_second, truncated_per_second, collection } in collections {
        let Collection { name, truncated_to, durable_head, bytes: size, segments, directory, .. } = collection;
        table.add_row([
            plain(name).into_owned(),
            rate(*appended_per_second),
            rate(*truncated_per_second),
            durable_head.saturating_sub(*truncated_to).to_string(),
            bytes(*size),
            segments.to_string(),
            directory.clone(),
        ]);
    }
    push_table(&table, &mut lines);
    let hidden = status.collections.saturating_sub(collections.len() as u64);
    if hidden > 0 {
        lines.push(format!("and {hidden} more"));
    }
    lines
}

/// What is shown until there are two looks to compare.
pub(super) fn waiting(first: &Sample) -> Vec<String> {
    let mut lines = head(&first.status);
    lines.push(String::new());
    directories(&first.status.directories, &mut lines);
    lines
}

/// What is shown while nobody answers.
pub(super) fn unreachable(failure: &Failure) -> Vec<String> {
    vec![plain(failure.message()).into_owned(), "asking again".to_owned()]
}

fn head(status: &Status) -> Vec<String> {
    let Writer { uid, id, epoch, .. } = status.writer.clone().unwrap_or_default();
    let writer = if id.is_empty() { uid } else { id };
    let mut lines = vec![format!(
        "{}   writer {}, epoch {epoch}   {} collections   {}",
        status.phase,
        plain(&writer),
        status.collections,
        status.version
    )];
    if matches!(status.phase.as_str(), "recovering" | "waiting") {
        let Replay { done_bytes, total_bytes } = status.replay.unwrap_or_default();
        lines.push(format!("replayed {} of {}", bytes(done_bytes), bytes(total_bytes)));
    }
    lines.extend(status.waiting_for.iter().map(|what| format!("waiting for {}", plain(what))));
    if !status.damage.is_empty() {
        lines.push(format!("{} places are damaged: walctl status names them", status.damage.len()));
    }
    lines
}

fn directories(directories: &[Directory], lines: &mut Vec<String>) {
    let titles =
        ["DIRECTORY", "STATE", ">FREE", ">JOURNAL", ">SEGMENTS", ">PENDING", ">COMMIT", ">ACKS/SYNC", ">TO MOVE"];
    let mut table = output::table(&titles);
    let mut notes = Vec::new();
    for directory in directories {
        let Directory { url, free_bytes, capacity_bytes, .. } = directory;
        notes.extend(directory_notes(directory));
        let to_move = match directory.evacuation_bytes_left {
            0 => "-".to_owned(),
            left => bytes(left),
        };
        table.add_row([
            url.clone(),
            shown_state(directory),
            format!("{} of {}", bytes(*free_bytes), bytes(*capacity_bytes)),
            format!("{} of {}", bytes(directory.journal_bytes), bytes(directory.journal_max_bytes)),
            directory.segments.to_string(),
            bytes(directory.pending_bytes),
            format!("{:.0} µs", directory.commit_latency_us),
            format!("{:.1}", directory.acks_per_sync),
            to_move,
        ]);
    }
    push_table(&table, lines);
    lines.extend(notes);
}

fn push_table(table: &Table, lines: &mut Vec<String>) {
    lines.extend(table.lines().map(|line| line.trim_end().to_owned()));
}

/// So many a second: exactly where there are few.
fn rate(per_second: f64) -> String {
    match per_second {
        small if small < 10.0 => format!("{small:.1}"),
        large if large < 100_000.0 => format!("{large:.0}"),
        huge => format!("{:.1}k", huge / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let directory = Directory {
            url: "file:///a".into(),
            state: "failed".into(),
            reason: "a write failed".into(),
            evacuation_bytes_left: 2048,
            ..Directory::default()
        };
        let status = Status {
            phase: "ready".into(),
            writer: Some(Writer { id: "w\x1b".into(), epoch: 7, ..Writer::default() }),
            directories: vec![directory],
            memory: Some(Memory { used_bytes: 1 << 20, limit_bytes: 4 << 20 }),
            collections: 3,
            ..Status::default()
        };
        let collection = Collection { name: "c\n".into(), durable_head: 9, truncated_to: 2, ..Collection::default() };
        let busy = Busy { appended_per_second: 250_000.0, truncated_per_second: 1.25, collection };
        View {
            seconds: 1.0,
            appended_per_second: 250_000.0,
            truncated_per_second: 1.25,
            status,
            collections: vec![busy],
        }
    }

    #[test]
    fn a_view_shows_rates_directories_collections_and_memory() {
        let text = lines(&view()).join("\n");
        for part in [
            "250.0k appended/s, 1.2 truncated/s",
            "memory 1.0 MiB of 4.0 MiB (25 %)",
            "file:///a: a write failed",
            "2.0 KiB",
            "and 2 more",
            "epoch 7",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
    }

    #[test]
    fn what_others_named_cannot_garble_the_terminal() {
        assert!(lines(&view()).iter().all(|line| !line.contains(char::is_control)), "{:?}", lines(&view()));
    }
}
