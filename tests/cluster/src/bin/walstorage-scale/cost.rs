//! What it costs: the seconds of a processor that each program used, and the requests that the API server answered.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use anyhow::Result;

use crate::figures::{processor, series};

/// Kinds of requests that are shown; the others are summed.
const SHOWN: usize = 16;

/// From the start of a cluster until all of its pods run.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// By program.
    processors: BTreeMap<String, f64>,
    /// By verb and resource.
    requests: BTreeMap<String, f64>,
}

impl Cost {
    /// Of this program and all that it has started and that runs still, and of the API server with these metrics.
    pub(crate) fn read(metrics: &str) -> Result<Self> {
        let mut cost = Self::default();
        for (id, name) in descendants()? {
            // One may have ended meanwhile.
            let seconds = processor(id).unwrap_or_default();
            *cost.processors.entry(name).or_default() += seconds;
        }
        for (labels, count) in series(metrics, "apiserver_request_total") {
            let label = |name: &str| labels.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            let verb = label(",verb").or_else(|| label("{verb")).unwrap_or_default();
            let (resource, below) = (label(",resource").unwrap_or_default(), label(",subresource").unwrap_or_default());
            let below = if below.is_empty() { String::new() } else { format!("/{below}") };
            *cost.requests.entry(format!("{verb} {resource}{below}")).or_default() += count;
        }
        Ok(cost)
    }

    /// All requests.
    pub(crate) fn requests(&self) -> f64 {
        self.requests.values().sum()
    }

    /// What was used since an earlier look at the same processes, for those that were there then.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, seconds) in &mut self.processors {
            *seconds -= before.processors.get(name).copied().unwrap_or_default();
        }
        self
    }
}

/// Both tables: without WalStorage, and with it.
pub(crate) fn page(alone: &Cost, with: &Cost) -> Result<String> {
    let mut page = String::from(
        "\nSeconds of a processor that each program used until everything had settled:\n\n| program | without WalStorage | with it |\n|---|---:|---:|\n",
    );
    let mut names: Vec<&String> = alone.processors.keys().chain(with.processors.keys()).collect();
    let of = |cost: &BTreeMap<String, f64>, name: &str| cost.get(name).copied().unwrap_or_default();
    names.sort_by(|a, b| of(&with.processors, b).total_cmp(&of(&with.processors, a)).then(a.cmp(b)));
    names.dedup();
    let mut sums = [0.0, 0.0];
    for name in names {
        let used = [of(&alone.processors, name), of(&with.processors, name)];
        sums = [sums[0] + used[0], sums[1] + used[1]];
        writeln!(page, "| {name} | {:.1} | {:.1} |", used[0], used[1])?;
    }
    writeln!(page, "| all | {:.1} | {:.1} |", sums[0], sums[1])?;
    page.push_str("\nRequests that the API server answered, of everybody:\n\n| request | without WalStorage | with it |\n|---|---:|---:|\n");
    let mut kinds: Vec<&String> = alone.requests.keys().chain(with.requests.keys()).collect();
    kinds.sort_by(|a, b| of(&with.requests, b).total_cmp(&of(&with.requests, a)).then(a.cmp(b)));
    kinds.dedup();
    let mut rest = [0.0, 0.0];
    for (at, kind) in kinds.into_iter().enumerate() {
        let count = [of(&alone.requests, kind), of(&with.requests, kind)];
        if at < SHOWN {
            writeln!(page, "| {kind} | {} | {} |", count[0], count[1])?;
        } else {
            rest = [rest[0] + count[0], rest[1] + count[1]];
        }
    }
    writeln!(page, "| others | {} | {} |", rest[0], rest[1])?;
    writeln!(page, "| all | {} | {} |", alone.requests(), with.requests())?;
    Ok(page)
}

/// This process and what it started, by id, with their names.
fn descendants() -> Result<Vec<(u32, String)>> {
    let mut parents: HashMap<u32, u32> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id): Option<u32> = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(1)?.parse().ok());
        parents.extend(parent.map(|parent| (id, parent)));
    }
    let own = std::process::id();
    let is_ours = |id: u32| std::iter::successors(Some(id), |id| parents.get(id).copied()).any(|id| id == own);
    let found = parents.keys().copied().filter(|id| is_ours(*id));
    Ok(found.map(|id| (id, if id == own { "this program".to_owned() } else { name(id) })).collect())
}

fn name(id: u32) -> String {
    let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let mut words = line.split('\0');
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    // The operator's commands and the supervisor's are told apart by their first word.
    if program.starts_with("walstorage-") {
        format!("{program} {}", words.next().unwrap_or_default())
    } else {
        program.to_owned()
    }
}
