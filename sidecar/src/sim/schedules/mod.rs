//! The schedules of the design that concern disks, each by its number and name. Some are elsewhere:
//!
//! | schedule | where |
//! |---|---|
//! | 2, 3, torn frames of any length and any subset of sectors | `format::stream::tests` |
//! | 7, a slot freed by a fact that lies in it | `commit::tests::slots` |
//! | 8, many collections that nobody truncates; 26, a stop with many | suite `bounds` |
//! | 12, a directory missing at the start, given up, back | `recovery::tests::attempts`, suite `directories` |
//! | 21, names | suite `collections` |
//! | 22, mounts, other writers, one disk twice | suites `volumes` and `directories` |
//! | 27, a panicking committer, a sync that never returns, a caller that goes away | `engine::fault_tests`, `engine::failure_tests` |

pub(super) mod clients;
pub(super) mod crashes;
pub(super) mod evacuating;
pub(super) mod failing;
pub(super) mod forgetting;
mod full;
pub(super) mod opening;
pub(super) mod replay;
pub(super) mod rot;
pub(super) mod segments;
pub(super) mod stamping;
mod starters;
mod sweep;
