//! The admission webhook. It proposes a writer for every labelled pod and writes nothing itself: what it answers is a patch
//! of the pod, and a scheduling gate in it holds the pod until the controller has granted the writer.
//!
//! `patch` is a pure function of raw JSON.

mod json;
pub mod patch;
pub mod refusal;
