//! Black-box suites of WalStorage and what they need: an oracle of the format, a harness for real processes, load
//! drivers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "this whole crate is tests")]

pub mod emulators;
pub mod harness;
pub mod load;
pub mod oracle;
pub mod segments;
pub mod twin;
