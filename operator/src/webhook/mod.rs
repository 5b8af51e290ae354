//! The admission webhook. It proposes a writer for every labelled pod and writes nothing itself: what it answers is a patch
//! of the pod, and a scheduling gate in it holds the pod until the controller has granted the writer.
//!
//! `patch` is a pure function of raw JSON; `admission` decides from what a [`admission::Cluster`] knows; `live` is that
//! cluster, `server` the port and `command` the process.

pub mod admission;
pub mod cache;
pub mod command;
pub(crate) mod json;
pub mod live;
pub mod patch;
pub mod refusal;
pub mod review;
pub mod server;
