//! What runs in the clients' own process: the raw floor, our library, other libraries. Each has a process of its own, which
//! this program starts from itself: nothing of one reaches another, and its system calls can be counted.

mod floor;
mod library;
mod peers;
mod run;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

pub(crate) use self::run::run;
use crate::measured::Measured;

/// A log that threads append to.
trait Log: Send + Sync {
    /// Appends one entry of client `client`, whose `turn`-th it is; durable on return.
    fn append(&self, client: usize, turn: u64, payload: &[u8]) -> anyhow::Result<()>;

    /// Gives back space that is not needed; called now and then while appends go on. `all`: a load has ended.
    fn tidy(&self, all: bool) -> anyhow::Result<()> {
        let _ = all;
        Ok(())
    }
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// One file, no log at all.
    Floor,
    /// The engine of this repository.
    Library,
    /// okaywal.
    Okaywal,
    /// raft-engine of TiKV.
    RaftEngine,
    /// walrus-rust.
    Walrus,
}

impl Kind {
    /// In the order of the report.
    pub(crate) const ALL: [Self; 5] = [Self::Floor, Self::Library, Self::Okaywal, Self::RaftEngine, Self::Walrus];

    /// As the report shows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Floor => "raw floor",
            Self::Library => "**our library**",
            Self::Okaywal => "okaywal 0.3.1",
            Self::RaftEngine => "raft-engine 0.4.2",
            Self::Walrus => "walrus-rust 0.2.0",
        }
    }

    /// The same as a word on the command line.
    fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// What a subject is asked, a line each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    /// A closed loop: every client has one append under way.
    Load { clients: usize, time: Duration },
    /// So many appends, one after the other, each announced by a system call of its own.
    Ticks(usize),
}

impl Order {
    fn line(self) -> String {
        match self {
            Self::Load { clients, time } => format!("load {clients} {}", time.as_millis()),
            Self::Ticks(count) => format!("ticks {count}"),
        }
    }

    fn parse(line: &str) -> anyhow::Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["load", clients, millis] => {
                Self::Load { clients: clients.parse()?, time: Duration::from_millis(millis.parse()?) }
            }
            ["ticks", count] => Self::Ticks(count.parse()?),
            _ => anyhow::bail!("not an order: {line:?}"),
        })
    }
}

/// A running process with one log.
pub(crate) struct Subject {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// How to start one.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) kind: Kind,
    pub(crate) folder: PathBuf,
    /// Of our library.
    pub(crate) collections: usize,
    /// A folder on a second device, for a second directory of our library.
    pub(crate) second: Option<PathBuf>,
}

impl Setting {
    pub(crate) fn new(kind: Kind, folder: &Path) -> Self {
        Self { kind, folder: folder.to_owned(), collections: 1, second: None }
    }
}

impl Subject {
    /// Starts a process, and waits until its log is open. `prefix`: the program that runs it.
    pub(crate) fn start(setting: &Setting, prefix: &[String]) -> anyhow::Result<Self> {
        let me = std::env::current_exe()?.to_string_lossy().into_owned();
        let words: Vec<String> = prefix.iter().cloned().chain([me]).collect();
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .arg("subject")
            .arg(setting.kind.word())
            .arg(&setting.folder)
            .args(["--collections", &setting.collections.to_string()])
            .args(setting.second.iter().flat_map(|second| ["--second".as_ref(), second.as_os_str()]))
            .env("WALRUS_DATA_DIR", setting.folder.join("walrus"))
            .env("WALRUS_QUIET", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        let mut subject = Self { child, orders, answers };
        subject.answer()?;
        Ok(subject)
    }

    fn answer(&mut self) -> anyhow::Result<Measured> {
        let mut line = String::new();
        loop {
            line.clear();
            anyhow::ensure!(self.answers.read_line(&mut line)? > 0, "the subject ended");
            // Libraries may print too.
            if let Some(words) = line.strip_prefix("measured ") {
                return Measured::parse(words);
            }
        }
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) fn order(&mut self, order: Order) -> anyhow::Result<Measured> {
        let orders = self.orders.as_mut().context("it was told to end")?;
        writeln!(orders, "{}", order.line())?;
        orders.flush()?;
        self.answer()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The end of its orders is the end of it.
        self.orders = None;
        let _ = self.child.wait();
    }
}
