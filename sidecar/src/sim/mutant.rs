//! Bugs to plant, one at a time, on one thread. Those of the order of writes and syncs are planted in the simulated disk,
//! which then behaves as if the engine had left the call out; the others stand in the code as `mutant!(Name)`.

use std::cell::Cell;

macro_rules! mutants {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant {
            $($(#[$doc])+ $name,)+
        }

        impl Mutant {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];
        }
    };
}

mutants! {
    /// Frames are not synced.
    NoSync,
    /// A frame is acknowledged, then synced.
    AckBeforeSync,
    /// A sync that failed is done again, and believed.
    FailedSyncRetried,
    /// A short write counts as a whole one.
    ShortWriteTaken,
    /// The name of a new file is not synced.
    FolderNotSynced,
    /// The header of a file is not synced.
    HeaderNotSynced,
    /// A start reads files without syncing them first.
    ReadUnsynced,
    /// A start reads pages of the cache that the device does not have.
    ReadFromCache,
    /// A frame whose crc does not hold counts.
    TornFrameTaken,
    /// A frame need not follow the one before it.
    NoPrevCrc,
    /// The epoch is covered by the crc of a record.
    EpochInsideCrc,
    /// Damage is taken for a torn tail.
    DamageTakenForTail,
    /// A frame says of itself that it is durable.
    FrameProvesItself,
    /// What a start found lost is not made a gap.
    LossesNotReported,
    /// Gaps are not written.
    DecisionsNotWritten,
    /// A new stream does not say where the ones before it ended.
    NoCloses,
    /// Where a stream was closed is not looked at.
    ClosesIgnored,
    /// A collection has two groups in flight, so that acknowledgements come out of order.
    TwoGroupsInFlight,
    /// A frame with the first entries of a collection does not announce it.
    NoAnnouncement,
    /// The floor rises before the checkpoint is durable.
    FloorBeforeCheckpoint,
    /// Files go before a durable frame has said so.
    FreedBeforeFloor,
    /// Files go that hold what is needed.
    AliveIsFreed,
    /// A checkpoint leaves out how far collections are truncated.
    CheckpointWithoutTruncates,
    /// A checkpoint leaves out gaps.
    CheckpointWithoutGaps,
    /// Deletions are forgotten while files are there that contradict them.
    TombstonesDropped,
    /// A truncation does not wait until what it truncates is durable.
    TruncateNotAwaited,
    /// A retry is stored again.
    RetryStoredTwice,
    /// A retry is acknowledged before the original is durable.
    DuplicateAnsweredEarly,
    /// Facts leave out producers.
    ProducersNotStated,
    /// Facts state requests of producers that are not durable.
    ProducersStatedEarly,
    /// Readers see what is not durable.
    ReadsUndurable,
    /// A truncation frees no memory.
    MemoryNotFreed,
    /// A committer is not woken.
    NoWakeUp,
}

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether it is planted on this thread.
pub(crate) fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Whether one is planted on this thread.
pub(super) fn any_is_planted() -> bool {
    PLANTED.get().is_some()
}

/// A bug in the ground until this is dropped.
pub(super) struct Planted(());

pub(super) fn plant(mutant: Mutant) -> Planted {
    PLANTED.set(Some(mutant));
    Planted(())
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.set(None);
    }
}
