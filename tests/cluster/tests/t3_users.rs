//! What users do with WalStorage, as it is installed by the charts, and what they see: one cluster for all of it, a
//! namespace for each story.

#![cfg(feature = "suites")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "users/deletions.rs"]
mod deletions;
#[path = "users/edits.rs"]
mod edits;
#[path = "users/mistakes.rs"]
mod mistakes;
#[path = "users/runbooks.rs"]
mod runbooks;
