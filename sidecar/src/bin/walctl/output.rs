//! Tables for people, JSON for programs.

use std::borrow::Cow;
use std::io::Write as _;

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::failure::Failure;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// Payloads, one a line (read only)
    Raw,
}

/// Prints a line.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Prints a value as one line of JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|e| Failure::failed(format!("cannot print: {e}")))?;
    line(&text)
}

/// An empty table without lines; columns whose title begins with `>` are aligned to the right.
pub(crate) fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    for (column, title) in table.column_iter_mut().zip(titles) {
        column.set_padding((0, 2));
        if title.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a table without trailing blanks.
pub(crate) fn print_table(table: &Table) -> Result<(), Failure> {
    for row in table.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// Bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A name or text as it can be shown on a terminal: control characters are escaped.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

/// Bytes as they can be shown on a terminal: text as it is, anything else in hexadecimal digits.
pub(crate) fn payload(bytes: &[u8]) -> String {
    const SHOWN: usize = 32;
    match std::str::from_utf8(bytes) {
        Ok(text) => plain(text).into_owned(),
        Err(_) => {
            let digits: String = bytes.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
            let more = if bytes.len() > SHOWN { "…" } else { "" };
            format!("0x{digits}{more} ({} bytes)", bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_their_largest_unit() {
        let table = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (512 << 20, "512.0 MiB")];
        for (n, text) in table {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }

    #[test]
    fn what_could_garble_a_terminal_is_escaped() {
        assert_eq!(plain("a/b 🦀"), "a/b 🦀");
        assert_eq!(plain("a\0\x1b[1m"), "a\\u{0}\\u{1b}[1m");
        assert_eq!(payload(b"{\"a\":1}\t"), "{\"a\":1}\\t");
        assert_eq!(payload(&[0xff, 0x00]), "0xff00 (2 bytes)");
    }
}
