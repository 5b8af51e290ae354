//! Recovery over journals made by hand. Tests named after a numbered claim of [`super`] or [`super::merge`] say so.

mod attempts;
mod merging;
mod reading;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use walstorage_crds::config::{Config, IoMode};

use super::budget::Budget;
use super::load::{self, LoadedJournal};
use super::merge::Input;
use super::{Context, Outcome, Progress, attempt, open};
use crate::commit::log::Log;
use crate::directory::identity::{self, Identity, JOURNAL};
use crate::directory::real_disk::RealDisk;
use crate::fencing::directory::Buckets;
use crate::format::facts::{DeleteFact, Fact, GapCause, GapFact, Member, Subject};
use crate::format::fixture::{DIRECTORY, Stream, WRITER};
use crate::types::{Epoch, Incarnation, Lsn};

const OTHER: Uuid = Uuid::from_u128(0x4444_4444_4444_4444_8444_4444_4444_4444);

/// The first collection of epoch 1.
const C: Incarnation = Incarnation::new(Epoch(1), 0);

fn subject(name: &str, incarnation: Incarnation, lsn: u64) -> Subject<'_> {
    Subject { collection_id: name, incarnation, lsn: Lsn(lsn) }
}

fn gap(name: &str, incarnation: Incarnation, first: u64, last: u64) -> Vec<u8> {
    let mut buf = Vec::new();
    let fact = GapFact { last: Lsn(last), reason: GapCause::Damage };
    fact.encode(&mut buf, subject(name, incarnation, first), Epoch(2));
    buf
}

fn delete(name: &str, incarnation: Incarnation) -> Vec<u8> {
    let mut buf = Vec::new();
    DeleteFact.encode(&mut buf, subject(name, incarnation, 0), Epoch(2));
    buf
}

/// Writes streams into the directory at `root` as a process would have left them.
fn lay(root: &Path, directory: Uuid, streams: &[&Stream]) {
    let disk = RealDisk::new(root.to_owned(), IoMode::Auto);
    std::fs::create_dir_all(root.join(JOURNAL)).unwrap();
    if identity::read(&disk).unwrap().is_none() {
        let identity = Identity::new(directory, WRITER, String::new());
        identity::publish(&disk, &identity).unwrap();
    }
    for stream in streams {
        for (number, bytes) in (1..).zip(&stream.files) {
            if let Some(bytes) = bytes {
                std::fs::write(root.join(JOURNAL).join(stream.name(number).to_string()), bytes).unwrap();
            }
        }
    }
}

fn read(root: &Path, directory: Uuid) -> LoadedJournal {
    let budget = Arc::new(Budget::keeping(u64::MAX));
    let disk = RealDisk::new(root.to_owned(), IoMode::Auto);
    load::load(&disk, directory, &Default::default(), &budget, &|_| {}, &|_| {}).unwrap()
}

fn loaded(streams: &[&Stream]) -> LoadedJournal {
    let root = tempfile::tempdir().unwrap();
    lay(root.path(), streams[0].directory, streams);
    read(root.path(), streams[0].directory)
}

fn input(streams: &[&Stream]) -> Input {
    Input { directory: streams[0].directory, journal: loaded(streams) }
}

/// A stream of `OTHER`.
fn other(epoch: u64) -> Stream {
    let mut stream = Stream::new(epoch, 0);
    // Header and heads of the same stream id in two directories would be a misplaced file.
    stream.directory = OTHER;
    stream.id.0[15] ^= 0xFF;
    stream.next.stream = stream.id;
    stream.files.clear();
    stream.rotate();
    stream
}

/// Begins a stream whose EPOCH names both directories, in use.
fn begin_both(stream: &mut Stream, root: &Path) {
    let url = |name: &str| format!("file://{}/{name}", root.display());
    let mut fact = stream.epoch_fact(Vec::new());
    fact.members = vec![
        Member { uuid: DIRECTORY, url: url("a"), in_use: true },
        Member { uuid: OTHER, url: url("b"), in_use: true },
    ];
    fact.version = 1;
    let mut buf = Vec::new();
    fact.encode_record(&mut buf);
    stream.frame(&[buf]);
}

fn context(root: &Path, names: &[&str], more: &str) -> Context {
    let urls: Vec<String> = names.iter().map(|name| format!("\"file://{}/{name}\"", root.display())).collect();
    let text = format!("[storage.wal_config]\nallow_ephemeral = true\nwal_urls = [{}]\n{more}\n", urls.join(", "));
    Context {
        config: Config::parse(&text, true).unwrap().config,
        require_mounts: false,
        grant: None,
        disks: open::real_disks(IoMode::Auto),
        buckets: Arc::new(Buckets::none()),
        forget: std::collections::BTreeSet::new(),
        memory_limit: 1 << 29,
    }
}

fn run(context: &Context) -> Outcome {
    attempt(context, &Progress::default())
}

fn ready(context: &Context) -> Log {
    match run(context) {
        Outcome::Ready(ready) => Log::new(ready.start),
        Outcome::Waiting(waiting) => panic!("{:?}", waiting.reasons),
        Outcome::Ended(ended) => panic!("{ended:?}"),
    }
}

fn waits(context: &Context) -> Vec<String> {
    match run(context) {
        Outcome::Waiting(waiting) => waiting.reasons,
        Outcome::Ready(ready) => panic!("{:?}", ready.damage),
        Outcome::Ended(ended) => panic!("{ended:?}"),
    }
}

/// Every file below `root` with its bytes.
fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") {
                files.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}
