//! Clients that append while a sidecar is being killed and its disks fail, and the ledger that says afterwards what must be there.

pub mod churn;
pub mod client;
pub mod kill_loop;
pub mod ledger;
pub mod many;
pub mod shape;
mod transport;
pub mod trouble;
pub mod verify;

pub use client::{Client, Kind};
pub use ledger::{Ledger, Seen};
pub use shape::Shape;
pub use trouble::Trouble;
