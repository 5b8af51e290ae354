//! Bugs to plant, one at a time, on one thread.

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
    /// The status is written whatever its version is.
    NoCompareAndSwap,
    /// The ledger and the holder are read from the cache.
    CachedReads,
    /// A Running pod that is being deleted counts as gone.
    GoneByRunningPod,
    /// Every directory may be made with every grant.
    InitAlways,
    /// Claims go before their writer is Reclaiming.
    ClaimsOfReleasedGo,
    /// Pods are patched and deleted by name.
    NoUidPrecondition,
    /// Claims are deleted that were listed after the writer had left Reclaiming.
    LedgerNotReadAgain,
    /// A new grant has the epoch of the one before.
    EpochNotRaised,
    /// What stands in a pod is believed.
    SealNotChecked,
    /// Whoever was proposed a writer gets it.
    ReservationOnly,
    /// A message counts although the containers may be started again.
    MessageBeforeLastPhase,
    /// A cached copy of the holder counts as its last words.
    LastWordsFromCache,
    /// A holder is released before the watch has said how it ended.
    LastWordsNotWaitedFor,
    /// A claim that was given to a ledger that is gone counts as new.
    MarkIsNoWord,
    /// A start that the caches show is the holder's, whoever it was that started.
    StartOfAnyPod,
}

thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether it is planted on this thread.
pub(crate) fn is_planted(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
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
