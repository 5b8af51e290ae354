//! The schedules of the design that concern disks, each by its number and name. Some are elsewhere:
//!
//! | schedule | where |
//! |---|---|
//! | 2, torn frames of any length and any subset of sectors | `format::stream::tests`: `a_torn_frame_of_any_length_and_any_subset_of_sectors_is_cut_and_never_damage` |
//! | 12, a directory missing at the start, given up, back | `recovery::tests::attempts`, suite `directories` |
//! | 15, a pipelined stream hits a limit | suite `collections` |
//! | 21, 22, names, mounts, one disk twice | suites `collections` and `directories` |
//! | 27, a panicking committer, a caller that goes away | `engine::fault_tests` |

pub(super) mod clients;
pub(super) mod crashes;
pub(super) mod failing;
pub(super) mod rot;
