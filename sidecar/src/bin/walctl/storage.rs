//! `walctl verify`, `dump` and `export`: directories without a sidecar. What they do is in the library; here is what they
//! print and how they end.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use walstorage_crds::config::Config;
use walstorage_crds::url::WalUrl;
use walstorage_sidecar::format::record::Kind;
use walstorage_sidecar::offline::dump::{DumpOptions, dump as dump_file, dump_object};
use walstorage_sidecar::offline::export::{ExportOptions, ExportReport, export as export_directories};
use walstorage_sidecar::offline::report::{
    CollectionReport, DirectoryReport, Problem, SegmentReport, TailReport, UnusedReport,
};
use walstorage_sidecar::offline::verify::{VerifyReport, verify as verify_directories};
use walstorage_sidecar::offline::{OfflineError, OnProgress, ReadOptions, Stores};

use crate::Global;
use crate::failure::Failure;
use crate::output::{self, Output, bytes, plain};
use crate::progress::Progress;

/// Which directories, and how.
#[derive(Args, Debug)]
pub(crate) struct Directories {
    /// Directories of one writer: URLs or paths, with the writer's id where there is one
    #[arg(required = true, value_name = "URL", value_parser = parse_url)]
    urls: Vec<WalUrl>,
    /// Read beside a running sidecar: take no lock; what is not proven yet is in progress. A bucket has no lock
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    reach: Reach,
}

/// How buckets are reached.
#[derive(Args, Debug)]
pub(crate) struct Reach {
    /// The sidecar's configuration, for the url_options of buckets; without them the environment is all there is
    #[arg(long, value_name = "FILE", env = "WALSTORAGE_CONFIG")]
    config: Option<PathBuf>,
}

impl Reach {
    /// The buckets that can be reached; none where none is asked for.
    fn stores(&self, bucket: bool) -> Result<Option<Stores>, Failure> {
        if !bucket {
            return Ok(None);
        }
        let config = match &self.config {
            None => None,
            Some(path) => {
                let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
                Some(Config::parse(&text, false).map_err(|error| wrong(error.to_string()))?.config)
            }
        };
        Ok(Some(Stores::new(config, tokio::runtime::Handle::current())))
    }
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    directories: Directories,
}

#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// A file of a journal, or a segment; of a bucket the URL of an object
    file: PathBuf,
    /// Only records of this kind, for example DATA
    #[arg(long, value_parser = parse_kind)]
    kind: Option<Kind>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    directories: Directories,
    /// The folder for the files; created where it is missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

fn parse_url(text: &str) -> Result<WalUrl, String> {
    if text.contains("://") {
        return WalUrl::parse(text).map_err(|e| e.to_string());
    }
    let path = std::path::absolute(Path::new(text)).map_err(|e| e.to_string())?;
    WalUrl::parse_file_path(&path).map_err(|e| e.to_string())
}

fn any_bucket(urls: &[WalUrl]) -> bool {
    urls.iter().any(|url| url.scheme().is_bucket())
}

fn parse_kind(text: &str) -> Result<Kind, String> {
    Kind::parse(&text.to_ascii_uppercase())
        .ok_or_else(|| format!("{text:?} is not a kind of record, such as DATA or EPOCH"))
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::Locked { .. } => Self::not_ready(error.to_string()),
            OfflineError::Output(error) => Self::from(error),
            other => Self::failed(other.to_string()),
        }
    }
}

/// Runs one of the tools on a thread of its own, with progress.
async fn blocking<T: Send + 'static>(
    unit: &'static str,
    tool: impl FnOnce(OnProgress<'_>) -> Result<T, OfflineError> + Send + 'static,
) -> Result<T, Failure> {
    let run = move || {
        let mut progress = Progress::new(unit, Some(0));
        tool(&mut |at| progress.of(at.done, at.total))
    };
    let ended = tokio::task::spawn_blocking(run).await;
    Ok(ended.map_err(|e| Failure::failed(format!("a bug: {e}")))??)
}

pub(crate) async fn verify(global: &Global, args: VerifyArgs) -> Result<(), Failure> {
    let Directories { urls, live, reach } = args.directories;
    let stores = reach.stores(any_bucket(&urls))?;
    let started = Instant::now();
    let verify = move |progress: OnProgress<'_>| {
        verify_directories(&urls, ReadOptions { live, stores: stores.as_ref() }, progress)
    };
    let report = blocking("bytes", verify).await?;
    let wrong = report.problems.len();
    match global.output {
        Output::Json => output::json(&report)?,
        Output::Table | Output::Raw => show_verified(report, started.elapsed())?,
    }
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::failed("1 thing is wrong")),
        n => Err(Failure::failed(format!("{n} things are wrong"))),
    }
}

fn show_verified(report: VerifyReport, took: Duration) -> Result<(), Failure> {
    let VerifyReport { directories, collections, segments, unused, problems, tails, notes } = report;
    let summary = summary(&directories, &collections, &segments, took);
    let mut table =
        output::table(&["DIRECTORY", "UUID", "WRITER", ">STREAMS", ">ENTRIES", ">JOURNAL", ">SEGMENTS", ">SIZE"]);
    for DirectoryReport { url, uuid, writer, writer_id, bytes: size, streams } in directories {
        let unknown = || "unknown".to_owned();
        let mine = || segments.iter().filter(|segment| segment.directory == url);
        let (count, stored) = (mine().count(), mine().map(|segment| segment.bytes).sum());
        table.add_row([
            url,
            uuid.map_or_else(unknown, |uuid| uuid.to_string()),
            writer_id.filter(|id| !id.is_empty()).or(writer.map(|uid| uid.to_string())).unwrap_or_else(unknown),
            streams.len().to_string(),
            streams.iter().map(|stream| stream.entries).sum::<u64>().to_string(),
            bytes(size),
            count.to_string(),
            bytes(stored),
        ]);
    }
    output::print_table(&table)?;
    output::line("")?;
    let mut table =
        output::table(&["COLLECTION", ">TRUNCATED TO", ">FLUSHED TO", ">HEAD", ">ENTRIES", ">SEGMENTS", "GAPS"]);
    for collection in collections {
        let CollectionReport { name, incarnation: _, truncated_to, head, flushed_to, segments, entries, gaps } =
            collection;
        let gaps: Vec<String> = gaps.iter().map(|gap| format!("{}..{} {}", gap.first, gap.last, gap.reason)).collect();
        table.add_row([
            plain(&name).into_owned(),
            truncated_to.to_string(),
            flushed_to.to_string(),
            head.to_string(),
            entries.to_string(),
            segments.to_string(),
            gaps.join(", "),
        ]);
    }
    output::print_table(&table)?;
    show_unused(&unused)?;
    let all_is_well = problems.is_empty();
    remarks(&problems, &tails, &notes)?;
    output::line("")?;
    output::line(&summary)?;
    if all_is_well { output::line("all is well") } else { Ok(()) }
}

/// What was read, in a line.
fn summary(
    directories: &[DirectoryReport],
    collections: &[CollectionReport],
    segments: &[SegmentReport],
    took: Duration,
) -> String {
    let files: u64 = directories.iter().flat_map(|one| &one.streams).map(|stream| stream.files).sum();
    let journals: u64 = directories.iter().map(|one| one.bytes).sum();
    let stored: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let entries: u64 = collections.iter().map(|collection| collection.entries).sum();
    let count = |n: u64, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    format!(
        "read {} ({}) and {} ({}) of {} in {:.1} s: {} of {} can be read",
        count(files, "journal file", "journal files"),
        bytes(journals),
        count(segments.len() as u64, "segment", "segments"),
        bytes(stored),
        count(directories.len() as u64, "directory", "directories"),
        took.as_secs_f64(),
        count(entries, "entry", "entries"),
        count(collections.len() as u64, "collection", "collections"),
    )
}

/// Files that nothing needs: the first few, since there may be thousands.
fn show_unused(unused: &[UnusedReport]) -> Result<(), Failure> {
    const SHOWN: usize = 5;
    for UnusedReport { file, bytes: size, what } in unused.iter().take(SHOWN) {
        output::line(&format!("unused: {} ({}): {}", plain(file), bytes(*size), plain(what)))?;
    }
    match unused.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => output::line(&format!("unused: and {more} more files; --output json names them all")),
    }
}

fn remarks(problems: &[Problem], tails: &[TailReport], notes: &[String]) -> Result<(), Failure> {
    for TailReport { file, offset, in_progress, entries } in tails {
        let what = if *in_progress { "in progress" } else { "an unproven tail, not acknowledged" };
        let entries = entries.map(|n| format!(" ({n} entries)")).unwrap_or_default();
        output::line(&format!("{file}: offset {offset}: {what}{entries}"))?;
    }
    for note in notes {
        output::line(&format!("note: {}", plain(note)))?;
    }
    for problem in problems {
        output::line(&format!("WRONG: {}", plain(&problem.to_string())))?;
    }
    Ok(())
}

pub(crate) async fn dump(args: DumpArgs) -> Result<(), Failure> {
    let DumpArgs { file, kind, reach } = args;
    let object = file.to_str().filter(|text| text.contains("://") && !text.starts_with("file://")).map(str::to_owned);
    let stores = reach.stores(object.is_some())?;
    let report = blocking("records", move |_| {
        let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout());
        match (object, &stores) {
            (Some(url), Some(stores)) => dump_object(&url, stores, DumpOptions { kind }, &mut out),
            _ => dump_file(&file, DumpOptions { kind }, &mut out),
        }
    })
    .await?;
    let mut errors = std::io::stderr();
    for note in &report.notes {
        let _ = writeln!(errors, "{note}");
    }
    if report.whole { Ok(()) } else { Err(Failure::failed("the file is not whole")) }
}

pub(crate) async fn export(global: &Global, args: ExportArgs) -> Result<(), Failure> {
    let ExportArgs { directories: Directories { urls, live, reach }, to } = args;
    let stores = reach.stores(any_bucket(&urls))?;
    let export = move |progress: OnProgress<'_>| {
        let options = ExportOptions { to, read: ReadOptions { live, stores: stores.as_ref() } };
        export_directories(&urls, &options, progress)
    };
    let report = blocking("done", export).await?;
    let wrong = report.problems.len();
    match global.output {
        Output::Json => output::json(&report)?,
        Output::Table | Output::Raw => show_exported(report)?,
    }
    match wrong {
        0 => Ok(()),
        n => Err(Failure::failed(format!("exported what can be read; {n} things are wrong in the directories"))),
    }
}

fn show_exported(report: ExportReport) -> Result<(), Failure> {
    let ExportReport { files, problems, tails, notes } = report;
    let mut table = output::table(&["COLLECTION", ">ENTRIES", ">BYTES", "FILE"]);
    for exported in files {
        table.add_row([
            plain(&exported.collection.name).into_owned(),
            exported.collection.entries.to_string(),
            bytes(exported.bytes),
            exported.file.display().to_string(),
        ]);
    }
    output::print_table(&table)?;
    remarks(&problems, &tails, &notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_url_or_a_path() {
        assert_eq!(parse_url("file:///a/b/").unwrap().as_str(), "file:///a/b");
        assert_eq!(parse_url("/a b").unwrap().as_str(), "file:///a%20b");
        let relative = parse_url("x").unwrap();
        assert!(relative.as_str().starts_with("file:///") && relative.as_str().ends_with("/x"));
        assert!(parse_url("ftp://x").is_err());
    }

    #[test]
    fn a_kind_is_found_in_any_case() {
        assert_eq!(parse_kind("data"), Ok(Kind::Data));
        assert!(parse_kind("DATUM").is_err());
    }
}
