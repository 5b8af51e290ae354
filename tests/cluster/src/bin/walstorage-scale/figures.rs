//! Figures of processes, and of metrics.

use anyhow::{Context as _, Result};

/// The most memory that a process ever had, in MiB.
pub(crate) fn most_memory(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.split_whitespace().next().context("no figure")?.parse()?;
    Ok(kib.div_ceil(1024))
}

/// Seconds of a processor that a process used.
pub(crate) fn processor(id: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("too short")?.parse()?) };
    // utime and stime, in hundredths.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The series of a metric: labels and value.
pub(crate) fn series<'m>(metrics: &'m str, name: &'m str) -> impl Iterator<Item = (&'m str, f64)> {
    metrics.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then_some((labels, value.parse().ok()?))
    })
}

/// A histogram of seconds.
pub(crate) struct Histogram {
    pub(crate) count: u64,
    /// Bounds, and how many were within.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Of all series that have these labels.
    pub(crate) fn read(metrics: &str, name: &str, labels: &str) -> Self {
        let bucket = format!("{name}_bucket");
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (found, count) in series(metrics, &bucket).filter(|(found, _)| found.contains(labels)) {
            let bound = found.split("le=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("+Inf");
            let bound = bound.parse().unwrap_or(f64::INFINITY);
            match buckets.iter_mut().find(|(known, _)| *known == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = buckets.last().map_or(0.0, |(_, count)| *count);
        Self { count: count as u64, buckets }
    }

    /// The bound of the bucket that this part of all is within.
    pub(crate) fn quantile(&self, part: f64) -> String {
        let wanted = self.count as f64 * part;
        match self.buckets.iter().find(|(_, count)| *count >= wanted && *count > 0.0) {
            Some((bound, _)) if bound.is_finite() => format!("≤ {} ms", (bound * 1e6).round() / 1000.0),
            Some(_) => "off the scale".to_owned(),
            None => "none".to_owned(),
        }
    }
}
