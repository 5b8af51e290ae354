//! WalStorage's operator. What it renders offline and what it applies in a cluster come from the same code.
//!
//! Everything but the program itself is pure: text in, text out.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod identity;
pub mod manifests;
pub mod render;
pub mod resource;
pub mod webhook;
mod yaml;
