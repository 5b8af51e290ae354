//! What one round of one load gave.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies from handing in to acknowledgement, and how many there were a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Half are faster, µs.
    pub(crate) p50: f64,
    /// One in a hundred is slower, µs.
    pub(crate) p99: f64,
    /// Acknowledgements per second.
    pub(crate) rate: f64,
    /// Time of processors that the log's process took for each, µs; 0 where nobody looked.
    pub(crate) cpu: f64,
}

impl Measured {
    /// From nanoseconds.
    pub(crate) fn of(latencies: &Histogram<u64>, took: Duration) -> Self {
        let quantile = |q| latencies.value_at_quantile(q) as f64 / 1000.0;
        Self { p50: quantile(0.5), p99: quantile(0.99), rate: latencies.len() as f64 / took.as_secs_f64(), cpu: 0.0 }
    }

    /// With what the process took for all of it, from [`crate::memory::cpu`].
    pub(crate) fn with_cpu(self, cpu: Duration, took: Duration) -> Self {
        let acks = self.rate * took.as_secs_f64();
        Self { cpu: cpu.as_secs_f64() * 1e6 / acks, ..self }
    }

    /// As a line for another process.
    pub(crate) fn line(self) -> String {
        format!("{} {} {} {}", self.p50, self.p99, self.rate, self.cpu)
    }

    /// From such a line.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let figures: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        match figures.as_slice() {
            &[p50, p99, rate, cpu] => Ok(Self { p50, p99, rate, cpu }),
            _ => anyhow::bail!("not four figures: {line:?}"),
        }
    }
}
