//! A disk under a real process: mounted, broken, cut off, and mounted again.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::faults::{Faults, Rule};
use super::files::Files;
use super::serve::{Server, Shared, State};
use crate::harness::{DEADLINE, Namespace};

/// A file system of this process, mounted in a namespace; ended by error for all who use it when it is dropped.
pub struct TwinDisk {
    namespace: Namespace,
    point: PathBuf,
    shared: Arc<Shared>,
    server: Option<Server>,
}

impl TwinDisk {
    /// Mounts an empty disk of `capacity` bytes at `point`, which is created where it is missing.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn mount(namespace: &Namespace, point: &Path, capacity: u64) -> Result<Self, String> {
        std::fs::create_dir_all(point).map_err(|error| format!("{}: {error}", point.display()))?;
        let state = State {
            files: Files::new(capacity),
            faults: Faults::default(),
            frozen: false,
            waiting: std::collections::VecDeque::new(),
            calls: 0,
            syncs: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), stalled: Condvar::new() });
        let mut disk = Self { namespace: namespace.clone(), point: point.to_owned(), shared, server: None };
        disk.power_on()?;
        Ok(disk)
    }

    /// Mounts what is there.
    ///
    /// # Errors
    /// The reason, where this machine does not allow it.
    pub fn power_on(&mut self) -> Result<(), String> {
        assert!(self.server.is_none(), "it is mounted");
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
        let input: File = device.try_clone().map_err(|error| error.to_string())?;
        let output = self
            .namespace
            .command(Path::new("mount"))
            .args(["--internal-only", "--types", "fuse", "--options"])
            .arg("fd=0,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions")
            .arg("twin")
            .arg(&self.point)
            .stdin(Stdio::from(input))
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !output.status.success() {
            return Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        self.shared.state.lock().frozen = false;
        self.server = Some(Server::start(device, &self.shared));
        Ok(())
    }

    /// The power is gone at this moment: no call is answered any more, and `seed` decides what is left of all that was
    /// not synced. Kill whoever uses it, then [`Self::power_off`]; several disks of one machine are cut one after the
    /// other before either.
    pub fn cut(&self, seed: u64) {
        let mut state = self.shared.state.lock();
        state.frozen = true;
        state.files.cut(seed);
        state.faults.clear();
    }

    /// Unmounts; whoever still waits for an answer gets an error.
    pub fn power_off(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // By force, so that it does not wait for the calls that are never answered; lazily, so that open files do not
        // keep it.
        let unmounted = self.namespace.command(Path::new("umount")).args(["-f", "-l"]).arg(&self.point).output();
        if unmounted.is_ok_and(|output| output.status.success()) {
            server.join();
        }
        // Only now has every call that had arrived been put there.
        self.shared.state.lock().waiting.clear();
    }

    /// Adds a fault to those in force.
    pub fn inject(&self, rule: Rule) {
        self.shared.state.lock().faults.add(rule);
    }

    /// Ends all faults; what was stalled is done and answered now.
    pub fn heal(&self) {
        self.shared.state.lock().faults.clear();
        if let Some(server) = &self.server {
            server.resume(&self.shared);
        }
    }

    /// How many calls were struck by a fault.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.shared.state.lock().faults.struck
    }

    /// The same, counted from zero again.
    #[must_use]
    pub fn take_struck(&self) -> u64 {
        std::mem::take(&mut self.shared.state.lock().faults.struck)
    }

    /// Calls done, and syncs of files among them.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.shared.state.lock();
        (state.calls, state.syncs)
    }

    /// Waits until a call stalls.
    ///
    /// # Panics
    /// When none does before the deadline.
    pub fn wait_stalled(&self) {
        let mut state = self.shared.state.lock();
        while state.waiting.is_empty() {
            let late = self.shared.stalled.wait_for(&mut state, DEADLINE).timed_out();
            assert!(!late || !state.waiting.is_empty(), "nothing stalled");
        }
    }

    /// Changes the capacity, bytes.
    pub fn set_capacity(&self, capacity: u64) {
        self.shared.state.lock().files.set_capacity(capacity);
    }

    /// Capacity and what is free of it, bytes.
    #[must_use]
    pub fn space(&self) -> (u64, u64) {
        self.shared.state.lock().files.space()
    }

    /// Where the disk can be reached from outside of the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.namespace.path(&self.point)
    }
}

impl Drop for TwinDisk {
    fn drop(&mut self) {
        self.power_off();
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
