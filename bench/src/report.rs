//! The report, as Markdown.

use std::fmt::{self, Write as _};

use crate::figures::{Figures, Load, Rounds, Who};
use crate::rounds::{CLIENTS, MANY, OURS_256, REDIS_256};
use crate::{PAYLOAD, failure, recovery, server, subject, targets};

/// The heading of the section that is written by people.
const LAST_SECTION: &str = "## What falls short, and why";

/// `report` with the last section of what was there before.
pub(crate) fn with_last_section(report: &str, before: &str) -> String {
    match before.find(LAST_SECTION) {
        Some(at) => format!("{report}\n{}", &before[at..]),
        None => format!("{report}\n{LAST_SECTION}\n"),
    }
}

/// The text.
///
/// # Errors
/// Never: a string takes everything.
pub(crate) fn markdown(figures: &Figures) -> Result<String, fmt::Error> {
    let mut text = String::new();
    let out = &mut text;
    head(out, figures)?;
    writeln!(out, "\n## What is promised\n")?;
    writeln!(out, "Ratios are of medians of this run. Where Redis is compared, its better client counts.\n")?;
    out.push_str(&targets::table(figures)?);
    if !figures.loads.is_empty() {
        in_process(out, figures)?;
        over_sockets(out, figures)?;
        under_way(out, figures)?;
        collections(out, figures)?;
        losses(out, figures)?;
        devices(out, figures)?;
    }
    if !figures.only_appends {
        recoveries(out, figures)?;
        starts(out, figures)?;
        failures(out, figures)?;
        let idle = figures.idle.show();
        writeln!(out, "\n## Memory\n")?;
        writeln!(out, "Resident memory of a sidecar with one directory that has nothing to do: {idle} MiB.")?;
    }
    Ok(text)
}

fn head(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "# Benchmarks\n")?;
    writeln!(
        out,
        "Written by `make bench`; no figure is typed by hand. Each is the median of {} rounds, with the\n\
         lowest and the highest in brackets. All take turns within a round, the floor is measured in each.\n",
        figures.effort.rounds
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    for (what, value) in &figures.machine {
        writeln!(out, "| {what} | {} |", value.replace('|', "\\|"))?;
    }
    for kind in server::Kind::ALL.into_iter().skip(1) {
        let version = figures.versions.get(&kind).map_or("not on this machine: absent below", String::as_str);
        writeln!(out, "| {} | {version} |", kind.name())?;
    }
    Ok(())
}

/// `0.87×`, or nothing.
fn times(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => format!("{:.2}×", ours / theirs),
        _ => String::new(),
    }
}

fn rate(rounds: Option<&Rounds>) -> Option<f64> {
    rounds.map(|rounds| rounds.rate.median())
}

fn syncs(figures: &Figures, name: &str) -> String {
    match &figures.syncs {
        Some(syncs) => syncs.get(name).map(|syncs| syncs.show()).unwrap_or_default(),
        None => "not looked at: no strace".into(),
    }
}

fn appends(out: &mut String, figures: &Figures, rows: &[Who], base: Who, label: &str) -> fmt::Result {
    for clients in CLIENTS {
        writeln!(
            out,
            "\n| {clients} {label} | p50 µs | p99 µs | acks/s | ÷ {} | processor µs/ack |",
            base.name().replace("**", "")
        )?;
        writeln!(out, "|---|---:|---:|---:|---:|---:|")?;
        let base = rate(figures.get(Load::plain(base, clients)));
        for who in rows {
            let Some(rounds) = figures.get(Load::plain(*who, clients)) else { continue };
            let ratio = times(rate(Some(rounds)), base);
            let (p50, p99, shown) = (rounds.p50.show(), rounds.p99.show(), rounds.rate.show());
            let cpu = if rounds.cpu.median() > 0.0 { rounds.cpu.show() } else { String::new() };
            writeln!(out, "| {} | {p50} | {p99} | {shown} | {ratio} | {cpu} |", who.name())?;
        }
    }
    Ok(())
}

fn in_process(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## Appends in the process of the clients\n")?;
    writeln!(
        out,
        "Closed loops of {:.1} s: each of so many threads has one append of {PAYLOAD} bytes under way, and goes on when it is \
         synced. Every log runs in a process of its own. The floor is no log: the waiting threads commit in groups, one \
         leads, to a file that was written before, page-aligned, with O_DIRECT and RWF_DSYNC. okaywal has files of 16 MiB \
         like ours (its default is 1 MiB), raft-engine recycles files that were prepared before its start, walrus has a topic \
         for each thread. Ours is truncated behind the appends, 20 times a second; raft-engine is purged as often.\n",
        figures.effort.load.as_secs_f64()
    )?;
    writeln!(
        out,
        "Whether a log syncs before it acknowledges was looked up in the kernel's record of its calls (`strace`): so many of \
         one client's appends had a write become durable between being handed in and being acknowledged.\n"
    )?;
    writeln!(out, "| | synced before acknowledged |\n|---|---:|")?;
    for kind in subject::Kind::ALL {
        writeln!(out, "| {} | {} |", kind.name(), syncs(figures, kind.name()))?;
    }
    for kind in server::Kind::ALL.into_iter().filter(|kind| figures.versions.contains_key(kind)) {
        writeln!(out, "| {} | {} |", kind.name(), syncs(figures, kind.name()))?;
    }
    let rows = subject::Kind::ALL.map(Who::InProcess);
    appends(out, figures, &rows, Who::InProcess(subject::Kind::Floor), "threads")
}

fn over_sockets(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## Appends to a server on the same machine\n")?;
    writeln!(
        out,
        "A connection for each client, one append under way on each. Ours and Redis listen on unix sockets, etcd and NATS on \
         the loopback interface. One thread drives all connections of a server, as `redis-benchmark` does, through clients \
         of this program that are as thin as each protocol allows and share everything else, so that clients cost alike and \
         little. Redis is asked to RPUSH to one list, its cheapest append; etcd to Put, a key for each client; JetStream to \
         publish to one stream. The last rows are the stock clients: tonic, and `redis-benchmark`.\n"
    )?;
    for kind in server::Kind::ALL {
        if !figures.versions.contains_key(&kind) {
            writeln!(out, "{} is absent: it is not on this machine.\n", kind.name())?;
        }
    }
    let rows: Vec<_> =
        server::Kind::ALL.map(Who::Server).into_iter().chain([Who::StockClient, Who::RedisBenchmark]).collect();
    appends(out, figures, &rows, Who::Server(server::Kind::Redis), "clients")
}

fn under_way(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## 256 appends under way\n")?;
    writeln!(out, "| | p50 µs | p99 µs | acks/s | ÷ Redis |\n|---|---:|---:|---:|---:|")?;
    let load = |who, (clients, in_flight)| Load { in_flight, ..Load::plain(who, clients) };
    let redis = rate(figures.get(load(Who::Server(server::Kind::Redis), REDIS_256)));
    let rows = [
        (Who::Server(server::Kind::Ours), OURS_256),
        (Who::Server(server::Kind::Redis), REDIS_256),
        (Who::RedisBenchmark, REDIS_256),
    ];
    for (who, (clients, in_flight)) in rows {
        let Some(rounds) = figures.get(load(who, (clients, in_flight))) else { continue };
        let (p50, p99, shown) = (rounds.p50.show(), rounds.p99.show(), rounds.rate.show());
        let ratio = times(rate(Some(rounds)), redis);
        let name = who.name();
        writeln!(out, "| {name}, {clients} connections × {in_flight} | {p50} | {p99} | {shown} | {ratio} |")?;
    }
    Ok(())
}

fn collections(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## 1,000 collections\n")?;
    writeln!(out, "32 clients, each goes through all collections in turn.\n")?;
    writeln!(out, "| | p50 µs | p99 µs | acks/s | ÷ one collection |\n|---|---:|---:|---:|---:|")?;
    for who in [Who::InProcess(subject::Kind::Library), Who::Server(server::Kind::Ours)] {
        let one = Load::plain(who, 32);
        let Some(rounds) = figures.get(Load { collections: MANY, ..one }) else { continue };
        let (p50, p99, shown) = (rounds.p50.show(), rounds.p99.show(), rounds.rate.show());
        let ratio = times(rate(Some(rounds)), rate(figures.get(one)));
        writeln!(out, "| {} | {p50} | {p99} | {shown} | {ratio} |", who.name())?;
    }
    Ok(())
}

/// Where somebody else is faster.
fn losses(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## Where we lose\n")?;
    let mut lost = false;
    let library = Who::InProcess(subject::Kind::Library);
    let libraries = subject::Kind::ALL.into_iter().skip(2).map(Who::InProcess);
    let servers = server::Kind::ALL.into_iter().skip(1).map(Who::Server).chain([Who::RedisBenchmark]);
    let pairs =
        libraries.map(|peer| (library, peer)).chain(servers.map(|peer| (Who::Server(server::Kind::Ours), peer)));
    for (ours, peer) in pairs {
        for clients in CLIENTS {
            let (Some(our_rate), Some(their_rate)) = (figures.rate(ours, clients), figures.rate(peer, clients)) else {
                continue;
            };
            if their_rate > our_rate {
                lost = true;
                let (ours, peer) = (ours.name().replace("**", ""), peer.name());
                writeln!(
                    out,
                    "- {clients} clients: {peer} acknowledges {their_rate:.0} a second, {ours} {our_rate:.0} ({:.2}×).",
                    our_rate / their_rate
                )?;
            }
        }
    }
    if !lost {
        writeln!(out, "Against no peer at 1, 8 or 32 clients in this run.")?;
    }
    Ok(())
}

fn devices(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## Two devices\n")?;
    if figures.two_devices.is_empty() {
        return writeln!(out, "Not measured: one device was given (`--second-folder` names a folder on another one).");
    }
    let of = |figure: fn(&(f64, f64)) -> f64| figures.two_devices.iter().map(figure).collect::<crate::spread::Spread>();
    let (one, two, ratio) = (of(|pair| pair.0), of(|pair| pair.1), of(|pair| pair.1 / pair.0));
    writeln!(
        out,
        "32 threads, 64 collections: {} acks/s on one device, {} on two: {} times.",
        one.show(),
        two.show(),
        ratio.show()
    )
}

fn recoveries(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## Recovery\n")?;
    writeln!(
        out,
        "From starting the process to its first answer that it is ready, with the journal's pages dropped from the page \
         cache (POSIX_FADV_DONTNEED), against reading the same files in order with a buffer of 1 MiB.\n"
    )?;
    writeln!(out, "| journal MiB | recovery ms | MiB/s | reading ms | MiB/s | ratio | peak memory MiB |")?;
    writeln!(out, "|---:|---:|---:|---:|---:|---:|---:|")?;
    for rounds in figures.recoveries.values() {
        let of = |figure: fn(&recovery::Measured) -> f64| {
            rounds.iter().map(figure).collect::<crate::spread::Spread>().show()
        };
        const MIB: f64 = (1 << 20) as f64;
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            of(|m| m.bytes as f64 / MIB),
            of(|m| m.recovery.as_secs_f64() * 1000.0),
            of(|m| m.bytes as f64 / MIB / m.recovery.as_secs_f64()),
            of(|m| m.reading.as_secs_f64() * 1000.0),
            of(|m| m.bytes as f64 / MIB / m.reading.as_secs_f64()),
            of(|m| m.reading.as_secs_f64() / m.recovery.as_secs_f64()),
            of(|m| m.peak),
        )?;
    }
    Ok(())
}

fn starts(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## Start time and history\n")?;
    match &figures.starts {
        Err(why) => writeln!(out, "Not measured: {why}."),
        Ok(starts) => {
            writeln!(
                out,
                "Entries of 100 bytes, all in segments, none truncated; from starting the process to ready.\n"
            )?;
            writeln!(out, "| entries | start ms |\n|---:|---:|")?;
            starts.iter().try_for_each(|(entries, start)| writeln!(out, "| {entries} | {} |", start.show()))
        }
    }
}

fn failures(out: &mut String, figures: &Figures) -> fmt::Result {
    writeln!(out, "\n## A disk that dies\n")?;
    match &figures.failures {
        Err(why) => writeln!(out, "Not measured: {why}."),
        Ok(rounds) => {
            let of = |figure: fn(&failure::Measured) -> f64| {
                rounds.iter().map(figure).collect::<crate::spread::Spread>().show()
            };
            writeln!(
                out,
                "Three directories on file systems of their own, 8 clients; the kernel shuts one down (FS_IOC_SHUTDOWN), every call \
                 on it is EIO from then on. The longest that any client then waited for an answer: {} ms. Acknowledged in the \
                 second after: {}.",
                of(|round| round.longest_ms),
                of(|round| round.after as f64),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_kept() {
        let before = format!("# Old\nfigures\n\n{LAST_SECTION}\n\nBecause.\n");
        assert_eq!(with_last_section("# New\n", &before), format!("# New\n\n{LAST_SECTION}\n\nBecause.\n"));
        assert_eq!(with_last_section("# New\n", ""), format!("# New\n\n{LAST_SECTION}\n"));
    }
}
