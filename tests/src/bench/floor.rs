//! What the disk itself can do: append 4 KiB to a file and sync it, again and again, nothing else.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;

/// Latencies of `count` synced appends, in nanoseconds.
///
/// # Errors
/// When the disk fails.
pub fn measure(folder: &Path, count: usize) -> anyhow::Result<Histogram<u64>> {
    let path = folder.join("floor");
    let mut file = File::create_new(&path)?;
    let page = [0xa5; 4096];
    let mut latencies = Histogram::new(3)?;
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        latencies.record(begun.elapsed().as_nanos() as u64)?;
    }
    std::fs::remove_file(path)?;
    Ok(latencies)
}
