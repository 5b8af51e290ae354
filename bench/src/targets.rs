//! What this project promises of its speed, beside what was measured.

use std::fmt::{self, Write as _};

use crate::figures::{Figures, Load, Who};
use crate::rounds::{MANY, OURS_256, REDIS_256};
use crate::{server, subject};

const LIBRARY: Who = Who::InProcess(subject::Kind::Library);
const FLOOR: Who = Who::InProcess(subject::Kind::Floor);
const OURS: Who = Who::Server(server::Kind::Ours);
const REDIS: Who = Who::Server(server::Kind::Redis);

/// One promise.
struct Target {
    what: &'static str,
    wanted: String,
    /// What was measured and whether that is enough; `None`: it was not.
    found: Option<(String, bool)>,
}

fn at_least(what: &'static str, least: f64, found: Option<f64>) -> Target {
    let found = found.filter(|found| found.is_finite()).map(|found| (format!("{found:.2}"), found >= least));
    Target { what, wanted: format!("≥ {least:.2}"), found }
}

fn at_most(what: &'static str, most: f64, unit: &str, found: Option<f64>) -> Target {
    let found = found.filter(|found| found.is_finite()).map(|found| (format!("{found:.1} {unit}"), found <= most));
    Target { what, wanted: format!("≤ {most:.0} {unit}"), found }
}

fn all(figures: &Figures) -> Vec<Target> {
    let rate = |who, clients| figures.rate(who, clients);
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let rate_of = |load: Load| Some(figures.get(load)?.rate.median());
    let in_process = [subject::Kind::Okaywal, subject::Kind::RaftEngine, subject::Kind::Walrus];
    let best = |clients| in_process.iter().filter_map(|kind| rate(Who::InProcess(*kind), clients)).reduce(f64::max);
    let many = |who| rate_of(Load { collections: MANY, ..Load::plain(who, 32) });
    let pipelined = |who, (clients, in_flight)| rate_of(Load { in_flight, ..Load::plain(who, clients) });
    // Whichever client makes Redis look better.
    let redis = [rate(REDIS, 32), rate(Who::RedisBenchmark, 32)].into_iter().flatten().reduce(f64::max);
    let redis_256 = [pipelined(REDIS, REDIS_256), pipelined(Who::RedisBenchmark, REDIS_256)];
    let redis_256 = redis_256.into_iter().flatten().reduce(f64::max);
    let p50 = |who| Some(figures.get(Load::plain(who, 1))?.p50.median());
    let above = |who| Some(p50(who)? - p50(FLOOR)?);
    let recovery = figures.recoveries.values().map(|rounds| {
        let ratios = rounds.iter().map(|round| round.reading.as_secs_f64() / round.recovery.as_secs_f64());
        ratios.collect::<crate::spread::Spread>().median()
    });
    let starts = figures.starts.as_ref().ok().and_then(|starts| {
        let (first, last) = (starts.first_key_value()?.1.median(), starts.last_key_value()?.1.median());
        Some(last / first)
    });
    let two: crate::spread::Spread = figures.two_devices.iter().map(|(one, two)| two / one).collect();
    let dies = figures
        .failures
        .as_ref()
        .ok()
        .map(|rounds| rounds.iter().map(|round| round.longest_ms).collect::<crate::spread::Spread>().median());
    vec![
        at_least("library ÷ floor, 32 threads", 0.85, ratio(rate(LIBRARY, 32), rate(FLOOR, 32))),
        at_least("library ÷ best library of others, 32 threads", 1.1, ratio(rate(LIBRARY, 32), best(32))),
        at_least("sidecar ÷ Redis, 32 clients", 1.0, ratio(rate(OURS, 32), redis)),
        at_least("sidecar ÷ Redis, 256 in flight", 1.5, ratio(pipelined(OURS, OURS_256), redis_256)),
        at_most("sidecar, one client: p50 above the floor's", 110.0, "µs", above(OURS)),
        at_least("1,000 collections ÷ one, library", 0.9, ratio(many(LIBRARY), rate(LIBRARY, 32))),
        at_least("1,000 collections ÷ one, sidecar", 0.9, ratio(many(OURS), rate(OURS, 32))),
        at_least("two devices ÷ one", 1.6, Some(two.median())),
        at_least("recovery ÷ sequential read, the worst size", 0.7, recovery.reduce(f64::min)),
        at_most("start with the longest history ÷ with the shortest", 2.0, "times", starts),
        at_most("nobody answered after a disk died", 1000.0, "ms", dies),
        at_most("idle memory", 15.0, "MiB", Some(figures.idle.median())),
    ]
}

/// The promises as a table.
pub(crate) fn table(figures: &Figures) -> Result<String, fmt::Error> {
    let mut out = String::from("| promise | wanted | found | |\n|---|---:|---:|---|\n");
    for Target { what, wanted, found } in all(figures) {
        match found {
            Some((found, met)) => {
                writeln!(out, "| {what} | {wanted} | {found} | {} |", if met { "met" } else { "**missed**" })?
            }
            None => writeln!(out, "| {what} | {wanted} | not measured | |")?,
        }
    }
    Ok(out)
}
