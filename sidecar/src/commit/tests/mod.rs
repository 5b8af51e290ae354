//! Tests of the log, by topic. Those named after a numbered invariant of [`super::log`] say so with its number.

mod balance;
mod closing;
pub(crate) mod detour;
pub(crate) mod draining;
pub(crate) mod durability;
pub(crate) mod evacuating;
pub(crate) mod facts;
mod flush;
mod freeing;
mod objects;
pub(crate) mod pressure;
mod rerouting;
mod reserve;
mod rig;
mod segments;
mod sessions;
pub(crate) mod slots;
pub(crate) mod space;
mod stalls;
mod waiting;
