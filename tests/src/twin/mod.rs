//! Disks that can be cut off, filled, slowed and broken under a real sidecar process: a file system in user space, served
//! by the test itself through `/dev/fuse`, and small ext4 file systems on loop devices. They are the real-world twins of
//! the simulated disk.
//!
//! 1. On a cut, of everything that was not synced any part may be there and any part not: data by sectors of 512 bytes,
//!    lengths, and names whose folder was not synced. The seed decides.
//! 2. A sync that failed leaves its pages readable until the page cache is dropped, and no later sync makes them durable.
//! 3. Mounts are made in a mount namespace that ends with the test process, however that ends: nothing stale is left.
//! 4. A disk that is dropped answers whoever still waits for it, by error; drop it before the sidecar that uses it.

mod faults;
mod files;
mod folder;
mod loop_disk;
mod rig;
mod serve;
mod twin_disk;
mod wire;

pub use faults::{Op, Rule, What};
pub use loop_disk::{FileSystem, LoopDisk};
pub use rig::Rig;
pub use twin_disk::TwinDisk;
