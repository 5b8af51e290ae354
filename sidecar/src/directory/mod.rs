//! Directories: the storage behind one URL of one writer, reached through one seam per kind of storage.

pub(crate) mod aligned;
pub mod bucket;
pub mod disk;
pub mod identity;
pub mod io;
#[cfg(test)]
pub(crate) mod mem_disk;
pub mod mounts;
pub mod real_disk;
pub mod store;
pub mod trouble;
