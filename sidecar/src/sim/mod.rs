//! The simulator: the real log, the real recovery and the real workers on disks in memory that forget, fail, fill up,
//! rot and stall, stepped on one thread in an order that a seed decides. An oracle knows what was promised.
//!
//! 1. One seed gives the same run every time: `WALSTORAGE_SEED` repeats one, `WALSTORAGE_SEEDS` says how many to run.
//! 2. Nothing is believed of the code under test but what a client or a later start can see.
//! 3. Every bug planted by [`mutant`] makes a run fail.

mod caught;
mod clients;
mod count;
mod disk;
pub(crate) mod explore;
mod file;
mod knowledge;
mod life;
pub(crate) mod mutant;
mod oracle;
mod schedules;
mod shape;
mod trace;
mod world;
