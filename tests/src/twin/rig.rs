//! A sidecar on disks whose power can be cut.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{LoopDisk, TwinDisk};
use crate::harness::{Namespace, Setup, Sidecar};

/// The process and its disks. A panic drops the disks first, so that no call of the process is left without an answer.
pub struct Rig {
    /// Disk `n` is, or lies below, directory `d<n + 1>`.
    pub disks: Vec<TwinDisk>,
    /// What lies between.
    volumes: Vec<LoopDisk>,
    /// Not started yet.
    pub sidecar: Sidecar,
}

impl Rig {
    /// The directories `d1` to `d<disks>` of a setup on disks of `capacity` bytes each.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn new(setup: Setup, disks: usize, capacity: u64) -> Result<Self, String> {
        let namespace = Namespace::of_root()?;
        let mount = |n| TwinDisk::mount(&namespace, &setup.path(&format!("d{n}")), capacity);
        let disks = (1..=disks).map(mount).collect::<Result<_, _>>()?;
        Ok(Self { disks, volumes: Vec::new(), sidecar: Sidecar::new(setup).within(namespace) })
    }

    /// The same with an ext4 file system of `size` bytes on each disk: the sidecar overwrites in place and around the page
    /// cache, as it does on real disks, and after a cut it is ext4 that puts its own house in order first.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn on_ext4(setup: Setup, disks: usize, size: u64) -> Result<Self, String> {
        let namespace = Namespace::of_root()?;
        let (mut twins, mut volumes) = (Vec::new(), Vec::new());
        for n in 1..=disks {
            let below = setup.path(&format!("disk{n}"));
            twins.push(TwinDisk::mount(&namespace, &below, 2 * size)?);
            volumes.push(LoopDisk::mount(&namespace, &below.join("image"), &setup.path(&format!("d{n}")), size)?);
        }
        Ok(Self { disks: twins, volumes, sidecar: Sidecar::new(setup).within(namespace) })
    }

    /// Nothing but folders: for what runs on either.
    #[must_use]
    pub const fn on_folders(setup: Setup) -> Self {
        Self { disks: Vec::new(), volumes: Vec::new(), sidecar: Sidecar::new(setup) }
    }

    /// Where a path on a disk can be reached from outside of their namespace.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.sidecar.namespace().map_or_else(|| path.to_owned(), |namespace| namespace.path(path))
    }

    /// Kills the process; what it waits for is answered.
    pub fn kill(&mut self) {
        let Self { disks, sidecar, .. } = self;
        sidecar.kill_while(|| disks.iter().for_each(TwinDisk::heal));
    }

    /// Cuts the power of all disks and the process, and brings the disks back; `seed` decides what is left.
    pub fn cut(&mut self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let Self { disks, volumes, sidecar } = self;
        disks.iter().for_each(|disk| disk.cut(rng.random()));
        sidecar.kill_while(|| disks.iter_mut().for_each(TwinDisk::power_off));
        volumes.iter().for_each(LoopDisk::detach);
        disks.iter_mut().for_each(|disk| disk.power_on().expect("mounted again"));
        volumes.iter().for_each(|volume| volume.attach().expect("its file system is whole"));
    }

    /// Starts a process and waits until it serves.
    pub async fn start(&mut self) {
        self.sidecar.start();
        self.sidecar.wait_ready().await;
    }
}
