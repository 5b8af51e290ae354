//! Whether a log really syncs before it acknowledges: counted in the kernel's own record (`strace`), not believed.
//!
//! One client appends, one after the other. Within the time from handing an append in to its acknowledgement a write must
//! have become durable: fsync, fdatasync, a synchronous msync, or a write with RWF_DSYNC or to a file opened with O_SYNC or
//! O_DSYNC. Every append whose time holds none is one that was acknowledged without.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::server::{self, Server};
use crate::subject::{self, Order, Setting, Subject};

/// Appends looked at for each log.
const APPENDS: usize = 40;

/// What was seen of one log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Syncs {
    /// Appends.
    pub(crate) appends: usize,
    /// Those in whose time a write became durable.
    pub(crate) synced: usize,
}

impl Syncs {
    /// As the report shows it.
    pub(crate) fn show(self) -> String {
        format!("{} of {}", self.synced, self.appends)
    }
}

/// Whether calls can be recorded on this machine.
pub(crate) fn possible() -> bool {
    std::process::Command::new("strace").arg("--version").output().is_ok()
}

fn prefix(record: &Path) -> Vec<String> {
    let calls = "trace=openat,fsync,fdatasync,msync,pwritev2,pwrite64,pwritev,getppid,recvfrom,read,sendto,sendmsg,write,writev";
    let record = record.to_string_lossy();
    ["strace", "-f", "-ttt", "-T", "-s", "0", "-e", calls, "-e", "signal=none", "-o", &record].map(str::to_owned).into()
}

/// Looks at a log in a process of ours.
pub(crate) fn of_subject(setting: &Setting) -> anyhow::Result<Syncs> {
    let record = setting.folder.join("calls");
    std::fs::create_dir_all(&setting.folder)?;
    let mut subject = Subject::start(setting, &prefix(&record))?;
    subject.order(Order::Ticks(APPENDS))?;
    drop(subject);
    let trace = Trace::read(&record)?;
    let marks = &trace.marks;
    let windows: Vec<_> = marks.windows(2).map(|pair| (pair[0], pair[1])).collect();
    anyhow::ensure!(windows.len() == APPENDS, "{}: {} of {APPENDS} appends seen", setting.kind.name(), windows.len());
    Ok(trace.judge(&windows))
}

/// Looks at a server.
pub(crate) async fn of_server(kind: server::Kind, folder: &Path, peers: &Path) -> anyhow::Result<Syncs> {
    std::fs::create_dir_all(folder)?;
    let record: PathBuf = folder.join("calls");
    let server = Server::start(kind, folder, peers, &prefix(&record)).await?;
    let windows = server.windows(APPENDS)?;
    drop(server);
    Ok(Trace::read(&record)?.judge(&windows))
}

/// The kernel's record, as times in seconds since 1970.
#[derive(Debug, Default, PartialEq)]
struct Trace {
    /// When writes became durable.
    durable: Vec<f64>,
    /// Calls of getppid.
    marks: Vec<f64>,
}

impl Trace {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("no record at {}", path.display()))?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    /// From lines like `17 1700000000.123456 fdatasync(7) = 0 <0.000123>`.
    fn parse(text: &str) -> Self {
        let mut trace = Self::default();
        // Descriptors opened for synchronous writing; a process has one table of them.
        let mut synchronous: HashSet<String> = HashSet::new();
        // What a thread was in the middle of.
        let mut unfinished: HashMap<&str, &str> = HashMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let Some((at, call)) = rest.trim_start().split_once(' ') else { continue };
            let Ok(at) = at.parse::<f64>() else { continue };
            if call.starts_with("getppid") {
                trace.marks.push(at);
            }
            let (begin, end) = if let Some(begin) = call.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, begin);
                continue;
            } else if call.starts_with("<... ") {
                (unfinished.remove(thread).unwrap_or_default(), at)
            } else {
                let took = call.rsplit_once('<').and_then(|(_, took)| took.strip_suffix('>')?.parse::<f64>().ok());
                (call, at + took.unwrap_or_default())
            };
            let Some((name, arguments)) = begin.split_once('(') else { continue };
            let file = arguments.split([',', ')']).next().unwrap_or_default();
            let succeeded = call.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-'));
            if !succeeded {
                continue;
            }
            match name {
                "openat" => {
                    let opened = call.rsplit_once(" = ").and_then(|(_, result)| result.split([' ', '<']).next());
                    let opened = opened.unwrap_or_default().to_owned();
                    if begin.contains("O_SYNC") || begin.contains("O_DSYNC") {
                        synchronous.insert(opened);
                    } else {
                        synchronous.remove(&opened);
                    }
                }
                "fsync" | "fdatasync" => trace.durable.push(end),
                "msync" if begin.contains("MS_SYNC") => trace.durable.push(end),
                "pwritev2" if begin.contains("RWF_DSYNC") || begin.contains("RWF_SYNC") => trace.durable.push(end),
                "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" if synchronous.contains(file) => {
                    trace.durable.push(end);
                }
                _ => {}
            }
        }
        trace
    }

    fn judge(&self, windows: &[(f64, f64)]) -> Syncs {
        let synced = windows.iter().filter(|(from, to)| self.durable.iter().any(|at| from <= at && at <= to)).count();
        Syncs { appends: windows.len(), synced }
    }
}

/// All logs of this process and all servers that are there, by name.
pub(crate) async fn of_all(
    folder: &Path,
    peers: &Path,
    servers: &[server::Kind],
) -> anyhow::Result<HashMap<&'static str, Syncs>> {
    let mut syncs = HashMap::new();
    for kind in subject::Kind::ALL {
        let setting = Setting::new(kind, &folder.join(format!("syncs-{kind:?}")));
        syncs.insert(kind.name(), of_subject(&setting)?);
    }
    for kind in servers {
        syncs.insert(kind.name(), of_server(*kind, &folder.join(format!("syncs-{kind:?}")), peers).await?);
    }
    Ok(syncs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_counts_when_it_is_synced_and_has_ended() {
        let text = "\
7 10.0 getppid() = 1 <0.000010>
7 10.1 pwrite64(4, \"\"..., 1024, 0) = 1024 <0.1>
8 10.3 fdatasync(4 <unfinished ...>
7 10.4 getppid() = 1 <0.000010>
8 10.5 <... fdatasync resumed>) = 0 <0.2>
7 10.6 getppid() = 1 <0.000010>
7 10.7 pwritev2(5, [{iov_base=\"\"..., iov_len=4096}], 1, 0, RWF_DSYNC) = 4096 <0.05>
7 10.8 getppid() = 1 <0.000010>
7 10.81 openat(AT_FDCWD, \"\"..., O_WRONLY|O_SYNC) = 9 <0.000010>
7 10.82 pwrite64(9, \"\"..., 1024, 0) = 1024 <0.01>
7 10.9 getppid() = 1 <0.000010>
7 11.0 fsync(4) = -1 EIO (Input/output error) <0.000010>
7 11.1 getppid() = 1 <0.000010>
";
        let trace = Trace::parse(text);
        let marks = trace.marks.clone();
        let windows: Vec<_> = marks.windows(2).map(|pair| (pair[0], pair[1])).collect();
        let synced: Vec<bool> = windows.iter().map(|window| trace.judge(&[*window]).synced == 1).collect();
        assert_eq!(synced, [false, true, true, true, false]);
    }
}
