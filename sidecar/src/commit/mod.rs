//! Commit: appends become LSNs, LSNs become frames, frames become acknowledgements. A state machine ([`log::Log`])
//! without I/O, clock or threads; the engine drives it with real disks, tests with whatever they like.

pub(crate) mod answer;
pub(crate) mod append;
pub(crate) mod buffer;
mod change;
mod checkpoint;
pub(crate) mod collection;
pub(crate) mod copies;
mod doomed;
mod drain;
pub(crate) mod evacuate;
pub(crate) mod flush;
pub(crate) mod flush_jobs;
pub(crate) mod flush_plan;
pub(crate) mod flushed;
pub(crate) mod frames;
pub(crate) mod journal;
pub(crate) mod log;
mod names;
pub(crate) mod outcome;
pub(crate) mod pace;
pub mod producers;
pub(crate) mod read;
mod reroute;
pub(crate) mod reserve;
mod restate;
pub(crate) mod revival;
pub(crate) mod rewrite;
pub(crate) mod segments;
mod session;
pub(crate) mod shelf;
pub(crate) mod slots;
pub(crate) mod space;
pub(crate) mod stream;
pub(crate) mod sweep;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod upkeep;
pub(crate) mod watch;
pub(crate) mod wear;
