//! A disk that dies under load. Three directories on loop-mounted file systems of their own; one of them is shut down by
//! the kernel (`FS_IOC_SHUTDOWN`: from then on every call on it is EIO), while clients append. How long was nobody answered?

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio_stream::wrappers::ReceiverStream;
use walstorage_tests::harness::calls::request;
use walstorage_tests::harness::{Setup, Sidecar, grpc};

/// Clients, each with collections on every directory in turn.
const CLIENTS: usize = 8;
const COLLECTIONS: usize = 12;

/// What a round gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// The longest time that any client waited for one answer after the disk died, ms.
    pub(crate) longest_ms: f64,
    /// Appends acknowledged in the second after.
    pub(crate) after: u64,
}

/// A loop-mounted file system, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(image: &Path, at: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(at)?;
        std::fs::File::create(image)?.set_len(256 << 20)?;
        tool("mkfs.ext4", &["-q", "-F"], &[image])?;
        tool("mount", &["-o", "loop"], &[image, at])?;
        Ok(Self(at.to_owned()))
    }

    /// Every call on it fails from now on.
    fn shut_down(&self) -> anyhow::Result<()> {
        let script = "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        tool("python3", &["-c", script], &[&self.0])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = tool("umount", &["--lazy"], &[&self.0]);
    }
}

fn tool(program: &str, words: &[&str], paths: &[&Path]) -> anyhow::Result<()> {
    let output = Command::new(program).args(words).args(paths).output().with_context(|| format!("no {program}"))?;
    anyhow::ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// One round; an error names what the machine lacks or what went wrong.
pub(crate) async fn measure(folder: &Path) -> anyhow::Result<Measured> {
    let disks: Vec<_> = (1..=3)
        .map(|n| Mounted::new(&folder.join(format!("image{n}")), &folder.join(format!("disk{n}"))))
        .collect::<Result<_, _>>()
        .context("loop-mounted file systems are needed")?;
    let mut setup = Setup::below(folder, 0);
    let urls: Vec<_> = disks.iter().map(|disk| format!("file://{}/wal", disk.0.display())).collect();
    setup.urls(&urls);
    setup.environment.push(("WALSTORAGE_LOG".into(), "error".into()));
    let mut sidecar = Sidecar::ready(setup).await;
    let socket = sidecar.setup.socket();
    let died = std::sync::Arc::new(std::sync::OnceLock::<Instant>::new());
    let begun = Instant::now();
    let (healthy, after) = (Duration::from_millis(500), Duration::from_secs(2));
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (mut grpc, died) = (grpc::connect(&socket), died.clone());
            tokio::spawn(async move {
                let payload = vec![b'x'; crate::PAYLOAD];
                let (mut longest, mut acked) = (Duration::ZERO, 0);
                let (sender, requests) = tokio::sync::mpsc::channel(1);
                let mut replies = grpc.append(ReceiverStream::new(requests)).await?.into_inner();
                for id in 1.. {
                    let handed_in = Instant::now();
                    if died.get().is_some_and(|at| handed_in > *at + after) {
                        break;
                    }
                    let mut message = request(&format!("failing-{}", (client + id) % COLLECTIONS), &[&payload]);
                    message.id = id as u64;
                    sender.send(message).await?;
                    anyhow::ensure!(replies.message().await?.is_some(), "a stream ended");
                    if let Some(at) = died.get() {
                        let now = Instant::now();
                        longest = longest.max(now - handed_in.max(*at));
                        acked += u64::from(now < *at + Duration::from_secs(1));
                    }
                }
                anyhow::Ok((longest, acked))
            })
        })
        .collect();
    tokio::time::sleep_until((begun + healthy).into()).await;
    let _ = died.set(Instant::now());
    tokio::task::block_in_place(|| disks[0].shut_down())?;
    let (mut longest, mut acked) = (Duration::ZERO, 0);
    for task in tasks {
        let (waited, count) = task.await?.context("appends did not go on")?;
        longest = longest.max(waited);
        acked += count;
    }
    sidecar.kill();
    Ok(Measured { longest_ms: longest.as_secs_f64() * 1000.0, after: acked })
}
