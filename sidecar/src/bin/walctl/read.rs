//! `walctl read`: entries as a list, as JSON lines, or raw.

use std::io::Write as _;

use clap::Args;
use walstorage_sidecar::proto::json::format_timestamp;
use walstorage_sidecar::proto::{Gap, Item, ReadRequest, Reason, StoredEntry, item};

use crate::Global;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{Output, payload, plain};
use crate::progress::Progress;

#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// The collection
    collection: String,
    /// First LSN; 0: the earliest readable
    #[arg(long, value_name = "LSN", default_value_t = 0)]
    from: u64,
    /// Most entries; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: u64,
    /// Wait for more
    #[arg(long, short)]
    follow: bool,
}

pub(crate) async fn run(global: &Global, args: ReadArgs) -> Result<(), Failure> {
    let mut client = connect(&global.socket).await?;
    let ReadArgs { collection, from, limit, follow } = args;
    let mut parts = client.read(ReadRequest { collection, from, limit, follow }).await?.into_inner();
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout());
    let mut progress = Progress::new("items", None);
    let mut items = 0;
    let mut titles = global.output == Output::Table;
    while let Some(part) = parts.message().await? {
        for item in part.items {
            let Some(item) = item.item else { continue };
            items += 1;
            match global.output {
                Output::Json => {
                    let item = Item { item: Some(item) };
                    serde_json::to_writer(&mut out, &item).map_err(std::io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                Output::Raw => match item {
                    item::Item::Entry(entry) => {
                        out.write_all(&entry.payload)?;
                        out.write_all(b"\n")?;
                    }
                    item::Item::Gap(Gap { first, last, reason }) => {
                        out.flush()?;
                        let reason = reason_name(reason);
                        return Err(Failure::failed(format!("LSN {first}..{last} are lost: {reason}")));
                    }
                },
                Output::Table => {
                    if std::mem::take(&mut titles) {
                        writeln!(out, "{:>10}  {:27}  {:12}  PAYLOAD", "LSN", "TIMESTAMP", "KEY")?;
                    }
                    write_row(&mut out, item)?;
                }
            }
        }
        if follow {
            out.flush()?;
        } else {
            progress.at(items);
        }
    }
    Ok(out.flush()?)
}

fn reason_name(reason: i32) -> &'static str {
    Reason::try_from(reason).unwrap_or(Reason::Unspecified).as_str_name()
}

fn write_row(out: &mut impl std::io::Write, item: item::Item) -> std::io::Result<()> {
    match item {
        item::Item::Entry(StoredEntry { lsn, timestamp, key, headers, payload: bytes }) => {
            let timestamp = timestamp.as_ref().and_then(format_timestamp).unwrap_or_default();
            let key = key.map(|key| payload(&key)).unwrap_or_else(|| "-".into());
            write!(out, "{lsn:>10}  {timestamp:27}  {key:12}  {}", payload(&bytes))?;
            for header in headers {
                write!(out, "  [{}={}]", plain(&header.name), payload(&header.value))?;
            }
            writeln!(out)
        }
        item::Item::Gap(Gap { first, last, reason }) => {
            writeln!(out, "{first:>10}  GAP to {last}: {}", reason_name(reason))
        }
    }
}
