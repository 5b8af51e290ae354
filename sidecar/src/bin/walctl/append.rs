//! `walctl append`: standard input into a collection, pipelined.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use walstorage_sidecar::proto::{AppendReply, AppendRequest, Entry, Header};

use crate::Global;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output::{self, Output};
use crate::progress::Progress;

/// Requests read ahead of what is sent.
const AHEAD: usize = 256;

#[derive(Args, Debug)]
pub(crate) struct AppendArgs {
    /// The collection; it comes into being with its first entry
    collection: String,
    /// Lines of one atomic batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// The whole input is one entry
    #[arg(long, conflicts_with = "batch")]
    raw: bool,
    /// Read this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Key of every entry
    #[arg(long)]
    key: Option<String>,
    /// Header of every entry; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What was acknowledged so far.
#[derive(Debug, Default)]
struct Acknowledged {
    entries: u64,
    first_lsn: u64,
    last_lsn: u64,
}

impl Acknowledged {
    fn add(&mut self, reply: &AppendReply) {
        if self.entries == 0 {
            self.first_lsn = reply.first_lsn;
        }
        self.entries += (reply.last_lsn + 1).saturating_sub(reply.first_lsn);
        self.last_lsn = reply.last_lsn;
    }
}

pub(crate) async fn run(global: &Global, args: AppendArgs) -> Result<(), Failure> {
    let mut client = connect(&global.socket).await?;
    let input: Box<dyn Read + Send> = match &args.file {
        Some(path) => {
            Box::new(File::open(path).map_err(|e| Failure::failed(format!("cannot read {}: {e}", path.display())))?)
        }
        None => Box::new(std::io::stdin()),
    };
    let raw = args.raw;
    let (requests, received) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || Requests::new(args).send(input, &requests));
    let mut acknowledged = Acknowledged::default();
    let mut progress = Progress::new("entries", None);
    let outcome = async {
        let mut replies = client.append(ReceiverStream::new(received)).await?.into_inner();
        while let Some(reply) = replies.message().await? {
            acknowledged.add(&reply);
            progress.at(acknowledged.entries);
        }
        Ok::<_, tonic::Status>(())
    }
    .await;
    drop(progress);
    let outcome = match outcome {
        // The stream ended because the input did; it may have ended early.
        Ok(()) => reading
            .await
            .unwrap_or_else(|e| Err(std::io::Error::other(e)))
            .map_err(|e| Failure::failed(format!("the input cannot be read: {e}"))),
        Err(status) => Err(Failure::from(status)),
    };
    outcome.map_err(|failure| failure.and(last_line(&acknowledged, raw)))?;
    match global.output {
        Output::Json => output::json(&json!({
            "entries": acknowledged.entries.to_string(),
            "firstLsn": acknowledged.first_lsn.to_string(),
            "lastLsn": acknowledged.last_lsn.to_string(),
        })),
        Output::Table | Output::Raw if acknowledged.entries == 0 => output::line("appended 0 entries"),
        Output::Table | Output::Raw => {
            let Acknowledged { entries, first_lsn, last_lsn } = acknowledged;
            let noun = if entries == 1 { "entry" } else { "entries" };
            output::line(&format!("appended {entries} {noun}, LSN {first_lsn}..{last_lsn}"))
        }
    }
}

fn last_line(acknowledged: &Acknowledged, raw: bool) -> String {
    match acknowledged {
        _ if raw => "\nnothing was acknowledged".into(),
        Acknowledged { entries: 0, .. } => "\nno line was acknowledged".into(),
        Acknowledged { entries, last_lsn, .. } => format!("\nlast acknowledged line: {entries} (LSN {last_lsn})"),
    }
}

/// Turns the input into requests.
struct Requests {
    collection: String,
    batch: usize,
    raw: bool,
    key: Option<Bytes>,
    headers: Vec<Header>,
    next_id: u64,
}

impl Requests {
    fn new(args: AppendArgs) -> Self {
        let headers = args.header.into_iter().map(|(name, value)| Header { name, value: value.into() }).collect();
        Self {
            collection: args.collection,
            batch: args.batch as usize,
            raw: args.raw,
            key: args.key.map(Bytes::from),
            headers,
            next_id: 1,
        }
    }

    /// Sends all of the input; ends early when nobody takes it any more.
    fn send(mut self, input: impl Read, requests: &mpsc::Sender<AppendRequest>) -> std::io::Result<()> {
        let mut input = BufReader::with_capacity(64 << 10, input);
        if self.raw {
            let mut payload = Vec::new();
            input.read_to_end(&mut payload)?;
            let request = self.request(vec![payload]);
            let _ = requests.blocking_send(request);
            return Ok(());
        }
        let mut lines = Vec::with_capacity(self.batch.min(1024));
        loop {
            let mut line = Vec::new();
            let end = input.read_until(b'\n', &mut line)? == 0;
            if !end {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                lines.push(line);
            }
            let full = lines.len() == self.batch || (end && !lines.is_empty());
            if full {
                let request = self.request(std::mem::take(&mut lines));
                if requests.blocking_send(request).is_err() {
                    return Ok(());
                }
            }
            if end {
                return Ok(());
            }
        }
    }

    fn request(&mut self, payloads: Vec<Vec<u8>>) -> AppendRequest {
        let id = self.next_id;
        self.next_id += 1;
        let entry =
            |payload: Vec<u8>| Entry { payload: payload.into(), key: self.key.clone(), headers: self.headers.clone() };
        AppendRequest {
            id,
            collection: self.collection.clone(),
            entries: payloads.into_iter().map(entry).collect(),
            ..AppendRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(input: &'static str, batch: usize, raw: bool) -> Vec<Vec<String>> {
        let (sender, mut receiver) = mpsc::channel(100);
        let requests = Requests { collection: "c".into(), batch, raw, key: None, headers: vec![], next_id: 1 };
        requests.send(input.as_bytes(), &sender).unwrap();
        drop(sender);
        let mut sent = Vec::new();
        while let Ok(request) = receiver.try_recv() {
            assert_eq!(request.id, sent.len() as u64 + 1);
            sent.push(request.entries.iter().map(|e| String::from_utf8(e.payload.to_vec()).unwrap()).collect());
        }
        sent
    }

    #[test]
    fn lines_become_requests() {
        assert_eq!(requests("a\nb\n", 1, false), [["a"], ["b"]]);
        assert_eq!(requests("a\n\r\nb", 2, false), [vec!["a", "\r"], vec!["b"]]);
        assert_eq!(requests("\n", 1, false), [[""]]);
        assert!(requests("", 1, false).is_empty());
        assert_eq!(requests("a\nb\n", 1, true), [["a\nb\n"]]);
        assert_eq!(requests("", 1, true), [[""]]);
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        assert_eq!(parse_header("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_header("a").is_err());
    }
}
