//! Clients that append while a sidecar is being killed, and the ledger that says afterwards what must be there.

pub mod client;
pub mod kill_loop;
pub mod ledger;
mod transport;
pub mod verify;

pub use client::{Client, Kind};
pub use ledger::{Ledger, Seen};
