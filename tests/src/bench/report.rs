//! The report, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hdrhistogram::Histogram;

use super::load::{Over, PAYLOAD, Scenario};
use super::spread::Spread;
use super::{Effort, recovery};

/// All rounds of one load.
#[derive(Debug, Default)]
pub struct Load {
    /// Median latency, µs.
    pub p50: Spread,
    /// The latency that one in a hundred exceeds, µs.
    pub p99: Spread,
    /// Acknowledgements per second.
    pub rate: Spread,
}

impl Load {
    /// Adds a round.
    pub fn add(&mut self, latencies: &Histogram<u64>, rate: f64) {
        self.p50.add(latencies.value_at_quantile(0.5) as f64 / 1000.0);
        self.p99.add(latencies.value_at_quantile(0.99) as f64 / 1000.0);
        self.rate.add(rate);
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// What it was measured on.
    pub machine: Vec<(&'static str, String)>,
    /// The raw floor.
    pub floor: Load,
    /// By scenario.
    pub loads: BTreeMap<Scenario, Load>,
    /// By size in MiB.
    pub recoveries: BTreeMap<u64, Vec<recovery::Measured>>,
    /// Resident memory of an idle sidecar, MiB.
    pub idle: Spread,
}

impl Report {
    fn load(&self, over: Over, clients: usize, collections: usize) -> Option<&Load> {
        self.loads.get(&Scenario { over, clients, collections })
    }

    /// The text.
    ///
    /// # Errors
    /// Never: a string takes everything.
    pub fn markdown(&self, effort: Effort) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let out = &mut text;
        writeln!(out, "# Benchmarks\n")?;
        writeln!(
            out,
            "Written by `make bench`; no figure is typed by hand. Each is the median of {} rounds, with the",
            effort.rounds
        )?;
        writeln!(
            out,
            "lowest and the highest in brackets. Scenarios take turns within a round, the floor is measured in each.\n"
        )?;
        writeln!(out, "| | |\n|---|---|")?;
        for (what, value) in &self.machine {
            writeln!(out, "| {what} | {} |", value.replace('|', "\\|"))?;
        }
        self.loads(out, effort)?;
        self.recovery(out)?;
        writeln!(out, "\n## Memory\n")?;
        writeln!(
            out,
            "Resident memory of a sidecar with one directory that has nothing to do: {} MiB.",
            self.idle.show()
        )?;
        Ok(text)
    }

    fn loads(&self, out: &mut String, effort: Effort) -> std::fmt::Result {
        writeln!(out, "\n## Appends\n")?;
        writeln!(
            out,
            "Closed loops of {:.1} s: each client has one DURABLE append of {PAYLOAD} bytes under way. `socket`: gRPC streams, a \
             connection each, client and sidecar on the same machine. `library`: the engine in the clients' process. \
             `floor`: one thread appends 4 KiB to a file in the same folder and calls fdatasync, {} times a round.\n",
            effort.load.as_secs_f64(),
            effort.floor
        )?;
        writeln!(out, "| | clients | collections | p50 µs | p99 µs | acks/s |\n|---|---:|---:|---:|---:|---:|")?;
        let row = |out: &mut String, what: &str, clients: usize, collections: usize, load: &Load| {
            let (p50, p99, rate) = (load.p50.show(), load.p99.show(), load.rate.show());
            writeln!(out, "| {what} | {clients} | {collections} | {p50} | {p99} | {rate} |")
        };
        row(out, "floor", 1, 0, &self.floor)?;
        for (scenario, load) in &self.loads {
            let what = match scenario.over {
                Over::Socket => "socket",
                Over::Library => "library",
            };
            row(out, what, scenario.clients, scenario.collections, load)?;
        }
        writeln!(out)?;
        for (over, what) in [(Over::Socket, "over the socket"), (Over::Library, "in the library")] {
            if let Some(one) = self.load(over, 1, 1) {
                let more = one.p50.median() - self.floor.p50.median();
                writeln!(out, "- One client {what}: the floor's median and {more:.0} µs.")?;
            }
            let rate = |collections| Some(self.load(over, 32, collections)?.rate.median());
            if let (Some(one), Some(thousand)) = (rate(1), rate(1000)) {
                let percent = 100.0 * thousand / one;
                writeln!(out, "- 32 clients {what}: 1,000 collections reach {percent:.0} % of one collection's rate.")?;
            }
        }
        Ok(())
    }

    fn recovery(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## Recovery\n")?;
        writeln!(
            out,
            "From starting the process to its first answer that it is ready, with the journal's pages dropped from the page \
             cache (POSIX_FADV_DONTNEED), against reading the same files in order with a buffer of 1 MiB.\n"
        )?;
        writeln!(out, "| journal MiB | recovery ms | MiB/s | reading ms | MiB/s | ratio | peak memory MiB |")?;
        writeln!(out, "|---:|---:|---:|---:|---:|---:|---:|")?;
        for rounds in self.recoveries.values() {
            let of = |figure: fn(&recovery::Measured) -> f64| rounds.iter().map(figure).collect::<Spread>().show();
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
}
