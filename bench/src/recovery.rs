//! Recovery of a journal by a new process, against reading the same bytes with nothing else to do.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use walstorage_tests::harness::Sidecar;
use walstorage_tests::harness::calls::request;

use crate::memory;

/// What one round gave.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Bytes of the journal's files.
    pub(crate) bytes: u64,
    /// From starting the process to its first answer that it is ready.
    pub(crate) recovery: Duration,
    /// Reading the same files from the disk, in order.
    pub(crate) reading: Duration,
    /// The most memory that the process ever held, MiB.
    pub(crate) peak: f64,
}

/// A stopped sidecar with a journal of about `mib` MiB, all of it needed: entries of 1 KiB in batches of 256.
pub(crate) async fn write(folder: &Path, mib: u64) -> anyhow::Result<Sidecar> {
    let mut sidecar = Sidecar::ready(crate::setup(folder)).await;
    let mut client = sidecar.grpc();
    let payload = vec![b'x'; crate::PAYLOAD];
    let payloads = vec![payload.as_slice(); 256];
    for n in 0..mib * 4 {
        client.append_batch(request(&format!("c{}", n % 16), &payloads)).await?;
    }
    // A clean stop would move its entries into segments.
    sidecar.kill();
    Ok(sidecar)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files: Vec<_> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}

/// Makes the next read of these files come from the disk.
fn forget_pages(files: &[PathBuf]) -> anyhow::Result<()> {
    for path in files {
        let file = File::open(path)?;
        file.sync_all()?;
        fadvise(file.as_fd(), 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// One round over the journal of a stopped sidecar.
pub(crate) async fn measure(sidecar: &mut Sidecar) -> anyhow::Result<Measured> {
    let files = files(&sidecar.setup.journal(1))?;
    forget_pages(&files)?;
    let begun = Instant::now();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    for path in &files {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => bytes += count as u64,
            }
        }
    }
    let reading = begun.elapsed();
    forget_pages(&files)?;
    let begun = Instant::now();
    sidecar.start();
    sidecar.wait_ready().await;
    let recovery = begun.elapsed();
    let peak = memory::mib(sidecar.pid(), "VmHWM")?;
    sidecar.kill();
    Ok(Measured { bytes, recovery, reading, peak })
}
