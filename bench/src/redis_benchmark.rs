//! Redis measured by its own client, so that nobody has to believe ours.

use std::path::Path;
use std::process::Command;

use crate::PAYLOAD;
use crate::measured::Measured;

/// RPUSH of 1 KiB; `None`: it is not on this machine.
pub(crate) fn measure(
    socket: &Path,
    clients: usize,
    in_flight: usize,
    requests: usize,
) -> anyhow::Result<Option<Measured>> {
    let output = Command::new("redis-benchmark")
        .arg("-s")
        .arg(socket)
        .args(["-c", &clients.to_string(), "-P", &in_flight.to_string(), "-n", &requests.to_string()])
        .args(["-d", &PAYLOAD.to_string(), "--csv", "-t", "rpush"])
        .output();
    let Ok(output) = output else { return Ok(None) };
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(parse(&text))
}

/// Lines of `"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95…","p99…","max…"`.
fn parse(text: &str) -> Option<Measured> {
    let line = text.lines().find(|line| line.starts_with("\"RPUSH"))?;
    let figures: Vec<f64> = line.split(',').skip(1).filter_map(|cell| cell.trim_matches('"').parse().ok()).collect();
    let (rate, p50, p99) = (*figures.first()?, *figures.get(3)?, *figures.get(5)?);
    Some(Measured { p50: p50 * 1000.0, p99: p99 * 1000.0, rate, cpu: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_csv_is_understood() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"RPUSH\",\"42194.09\",\"0.735\",\"0.208\",\"0.647\",\"1.143\",\"2.287\",\"9.871\"\n";
        assert_eq!(parse(text), Some(Measured { p50: 647.0, p99: 2287.0, rate: 42194.09, cpu: 0.0 }));
    }
}
