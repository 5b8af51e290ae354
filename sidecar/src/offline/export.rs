//! `walctl export`: each collection's entries as one clean Avro object container file: in order, once, without frames,
//! facts and padding, so that every Avro reader gets all of them.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use walstorage_crds::url::WalUrl;

use super::directory::OpenDirectory;
use super::merge::Merged;
use super::pieces::{Failed, Pieces};
use super::place::FileAt;
use super::report::{CollectionReport, Problem, TailReport};
use super::survey::{Journals, problem};
use super::writer::{self, Surveyed};
use super::{OfflineError, OnProgress, Progress, ReadOptions};
use crate::format::Marker;
use crate::format::names::collection_dir;
use crate::format::record::{put_bytes, put_number};
use crate::format::schema::SCHEMA;

/// Plain bytes of a block of an exported file, unless one entry is larger.
const BLOCK: usize = 256 << 10;

/// Beside a running sidecar so many times what cannot be read any more is looked for anew.
const LOOKS: usize = 5;

/// What to export, and where to.
#[derive(Clone, Debug)]
pub struct ExportOptions<'a> {
    /// The folder for the files; created where it is missing.
    pub to: PathBuf,
    /// How the directories are read.
    pub read: ReadOptions<'a>,
}

/// A file written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Its path.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// What is in it.
    pub collection: CollectionReport,
}

/// What `export` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// One per collection, by name; also for those without entries.
    pub files: Vec<Exported>,
    /// What is wrong in the directories: what it says is lost is not in the files.
    pub problems: Vec<Problem>,
    /// Unproven ends, which are not exported.
    pub tails: Vec<TailReport>,
    /// What could not be judged.
    pub notes: Vec<String>,
}

/// Writes one file per collection, `<path form of its name>.avro`. Truncated entries, deleted collections and recorded
/// gaps are left out. Each file appears under its name only when it is complete and synced.
///
/// # Errors
/// When a directory cannot be read, a file exists already, or writing fails.
pub fn export(
    urls: &[WalUrl],
    options: &ExportOptions<'_>,
    progress: OnProgress<'_>,
) -> Result<ExportReport, OfflineError> {
    let Surveyed { mut journals, collections, open } = writer::read(urls, options.read, &mut *progress)?;
    std::fs::create_dir_all(&options.to).map_err(OfflineError::io("creating", &options.to))?;
    let targets: Vec<_> = collections.iter().map(|one| options.to.join(file_name(&one.report.name))).collect();
    if let Some(there) = targets.iter().find(|path| path.exists()) {
        return Err(OfflineError::Exists(there.clone()));
    }
    let total = collections.iter().map(|collection| collection.report.entries).sum();
    let mut done = 0;
    let mut files = Vec::new();
    for (collection, path) in collections.into_iter().zip(targets) {
        progress(Progress { done, total, at: &collection.report.name });
        done += collection.report.entries;
        let mut written = Written::new(&path, &collection, &journals.files)?;
        let collection = if written.problems.is_empty() || !options.read.live {
            collection
        } else {
            match written.look_again(&path, collection, &journals.files, &open, options.read)? {
                Some(collection) => collection,
                // Deleted meanwhile.
                None => continue,
            }
        };
        let Written { bytes, entries, problems } = written;
        let unknown = problems.into_iter().filter(|problem| !journals.problems.contains(problem));
        let unknown: Vec<Problem> = unknown.collect();
        journals.problems.extend(unknown);
        files.push(Exported { file: path, bytes, collection: CollectionReport { entries, ..collection.report } });
    }
    progress(Progress { done, total, at: "" });
    let Journals { problems, tails, notes, .. } = journals;
    Ok(ExportReport { files, problems, tails, notes })
}

fn file_name(collection: &str) -> String {
    format!("{}.avro", collection_dir(collection))
}

/// A file that is written, and what of its collection could not be read again.
struct Written {
    bytes: u64,
    entries: u64,
    problems: Vec<Problem>,
}

impl Written {
    fn new(path: &Path, collection: &Merged, files: &[FileAt]) -> Result<Self, OfflineError> {
        // No collection's path form starts with a dot.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        let open = OpenOptions::new().write(true).create(true).truncate(true).open(&partial);
        let file = open.map_err(OfflineError::io("creating", &partial))?;
        let mut out = Ocf::new(BufWriter::new(file));
        let mut pieces = Pieces::new(files);
        let written = out.header().and_then(|()| {
            let entries = pieces.each(collection, |record| out.record(record))?;
            Ok((out.finish()?, entries))
        });
        let (bytes, entries) = written.map_err(OfflineError::io("writing", &partial))?;
        std::fs::rename(&partial, path).map_err(OfflineError::io("renaming", &partial))?;
        let failed = pieces.failed.into_iter().map(|Failed { file, offset, what }| {
            let file = files[file as usize].display().to_string();
            Problem { file, offset: Some(offset), ..problem(what) }
        });
        Ok(Self { bytes, entries, problems: failed.collect() })
    }

    /// Beside a running sidecar what cannot be read any more may be truncated, or be elsewhere: the file is written anew
    /// by what the journals say now. The collection as it is in the file; none: it was deleted, and so is the file.
    fn look_again(
        &mut self,
        path: &Path,
        mut collection: Merged,
        files: &[FileAt],
        open: &[OpenDirectory],
        options: ReadOptions<'_>,
    ) -> Result<Option<Merged>, OfflineError> {
        let mut files = files.to_vec();
        for _ in 0..LOOKS {
            let mut wrong = Vec::new();
            let is = |one: &Merged| one.report.name == collection.report.name;
            let now = writer::facts(open, options)?.into_iter().find(is);
            let same = now.filter(|now| now.report.incarnation == collection.report.incarnation);
            match same.map(|now| now.report.truncated_to) {
                Some(to) if to > collection.report.truncated_to => collection.truncate_to(to),
                _ => {
                    let (journals, all) = writer::again(open, options)?;
                    let Some(moved) = all.into_iter().find(is) else {
                        std::fs::remove_file(path).map_err(OfflineError::io("removing", path))?;
                        return Ok(None);
                    };
                    let name = Some(moved.report.name.as_str());
                    let about = |problem: &Problem| problem.lost.iter().any(|lost| lost.collection.as_deref() == name);
                    wrong = journals.problems.into_iter().filter(about).collect();
                    (collection, files) = (moved, journals.files);
                }
            }
            *self = Self::new(path, &collection, &files)?;
            self.problems.extend(wrong);
            if self.problems.is_empty() {
                break;
            }
        }
        Ok(Some(collection))
    }
}

/// An object container file being written, not compressed.
struct Ocf<W: Write> {
    out: W,
    marker: Marker,
    count: u64,
    block: Vec<u8>,
    written: u64,
}

impl Ocf<BufWriter<File>> {
    fn new(out: BufWriter<File>) -> Self {
        Self { out, marker: uuid::Uuid::new_v4().into_bytes(), count: 0, block: Vec::new(), written: 0 }
    }

    fn header(&mut self) -> std::io::Result<()> {
        let mut header = b"Obj\x01".to_vec();
        put_number(&mut header, 2);
        for (key, value) in [("avro.schema", SCHEMA), ("avro.codec", "null")] {
            put_bytes(&mut header, key.as_bytes());
            put_bytes(&mut header, value.as_bytes());
        }
        header.push(0);
        header.extend_from_slice(&self.marker);
        self.put(&header)
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn record(&mut self, record: &[u8]) -> std::io::Result<()> {
        self.block.extend_from_slice(record);
        self.count += 1;
        if self.block.len() >= BLOCK { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> std::io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let mut head = Vec::new();
        put_number(&mut head, self.count);
        put_number(&mut head, self.block.len() as u64);
        self.put(&head)?;
        let block = std::mem::take(&mut self.block);
        self.put(&block)?;
        let marker = self.marker;
        self.put(&marker)?;
        self.block = block;
        self.block.clear();
        self.count = 0;
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<u64> {
        self.end_block()?;
        self.out.flush()?;
        self.out.get_ref().sync_data()?;
        Ok(self.written)
    }
}
