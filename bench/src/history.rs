//! Whether a start costs the same however much was written in its life: entries flushed into segments and never truncated.

use std::path::Path;
use std::time::{Duration, Instant};

use walstorage_sidecar::engine::Engine;
use walstorage_tests::harness::{Sidecar, library};

/// Entries in one batch, and the bytes of each.
const BATCH: u64 = 500;
const BYTES: usize = 100;

/// A sidecar that serves has long rid itself of the streams before its own by then.
const RID: Duration = Duration::from_secs(2);

/// A stopped sidecar with `entries` entries in segments.
pub(crate) async fn write(folder: &Path, entries: u64) -> anyhow::Result<Sidecar> {
    let setup = crate::setup(folder);
    let engine = library::ready(library::config(&setup)).await;
    let payload = vec![b'x'; BYTES];
    for n in 0..entries.div_ceil(BATCH) {
        let count = BATCH.min(entries - n * BATCH) as usize;
        let payloads = vec![payload.as_slice(); count];
        engine.append(library::batch(&format!("c{}", n % 8), &payloads), None).await?;
        if n % 200 == 199 {
            flush(&engine).await?;
        }
    }
    flush(&engine).await?;
    engine.shutdown().await;
    let mut sidecar = Sidecar::new(setup);
    // The first start reads the last of the journal that was written, which is bounded, and rids itself of it.
    sidecar.start();
    sidecar.wait_ready().await;
    tokio::time::sleep(RID).await;
    sidecar.stop().await;
    Ok(sidecar)
}

async fn flush(engine: &Engine) -> anyhow::Result<()> {
    for info in engine.list(None, usize::MAX)? {
        engine.flush(&info.name).await?;
    }
    Ok(())
}

/// From starting the process to its first answer that it is ready, ms.
pub(crate) async fn start(sidecar: &mut Sidecar) -> f64 {
    let begun = Instant::now();
    sidecar.start();
    sidecar.wait_ready().await;
    let took = begun.elapsed();
    // A clean stop: every start finds what the one before it found.
    sidecar.stop().await;
    took.as_secs_f64() * 1000.0
}
