//! Bugs to plant, one at a time, on one thread. Those of the order of writes and syncs are planted in the simulated disk,
//! which then behaves as if the engine had left the call out; the others stand in the code as `mutant!(Name)`.

use std::cell::Cell;

use walstorage_crds::url::WalUrl;

use crate::api::{Ack, Appended};
use crate::commit::answer::Outbox;
use crate::commit::collection::{Collection, PendingBatch};
use crate::format::record::{self, Fields};
use crate::types::{Epoch, Lsn};

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
    /// A directory is in use only if the EPOCH that can still be read says so.
    InUseByWordOnly,
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
    /// After damage nobody looks into segments for what producers sent last.
    StampsLost,
    /// A directory without space for facts is not emptied.
    FullIsNotEmptied,
    /// One segment that cannot be read keeps all others where they are.
    OneUnreadableKeepsAll,
    /// A segment may have LSNs in it that were truncated while it was written, and are not there.
    TruncatedFlushedOver,
    /// A segment counts though it was removed for a younger one, which is lost.
    RewrittenCounts,
    /// Files are removed by the word of a frame that does not count.
    FreedByATornFrame,
    /// LSNs are given again that only a lost checkpoint spoke of.
    LostHeadsGivenAgain,
    /// After damage nobody looks for segments of which the lost frames spoke.
    ReplacedUnnamed,
    /// What a segment has in gaps keeps it where it is.
    GapsKeepSegments,
    /// A change of the configuration ends what a call began to empty.
    DrainEndsWithAnEdit,
    /// That a collection has moved is said while its last entries are on their way to its old home.
    MoveSaidEarly,
    /// While directories are emptied nobody looks again where segments may go.
    EmptyingForgotten,
    /// A directory that is empty and closes is said to be in use by those that close later.
    EmptiedAgainInUse,
    /// A directory that was emptied and comes back at a stop is said to be in use.
    EmptiedBackInUse,
    /// A directory that came back is not told what it missed when the process stops.
    StoppedUntold,
    /// What was saved of damaged frames is left behind when a directory is emptied.
    SavedLeftBehind,
    /// Copied entries come without the head of their collection.
    CopiesWithoutHeads,
    /// Of the deletions of a name the one that is durable last counts, not that of the latest life.
    TombstonesOverwritten,
    /// What is flushed is said in the journal of its collection only, not in the directory of the segment.
    FlushedSaidElsewhere,
    /// A start that gives up a directory takes the next epoch, which that directory may have had.
    EpochsOfTheLostAgain,
    /// Facts state requests of producers that are not durable.
    ProducersStatedEarly,
    /// Readers see what is not durable.
    ReadsUndurable,
    /// A truncation frees no memory.
    MemoryNotFreed,
    /// What recovery left in the journals is not in segments when the log serves.
    ShelvesNotAwaited,
    /// A committer is not woken.
    NoWakeUp,
    /// FLUSHED is written before the segment is synced.
    SegmentNotSynced,
    /// FLUSHED is written before the name of a new segment is synced.
    SegmentNameNotSynced,
    /// A segment is written over below its valid length.
    SegmentOverwritten,
    /// A segment is sealed before its new name is synced.
    SealNotSynced,
    /// A segment is removed before the truncation is durable.
    SegmentGoneBeforeTruncation,
    /// A segment is removed of which a part is needed.
    SegmentGoneWhileNeeded,
    /// Memory is freed before FLUSHED is durable.
    MemoryFreedBeforeFlushed,
    /// A file of the journal goes before FLUSHED is durable.
    SlotFreedBeforeFlushed,
    /// A segment whose header could not be read is replaced by the next one.
    UnreadableSegmentReplaced,
    /// A flush jumps over what only a segment holds.
    HolesFlushedOver,
    /// A collection whose own path cannot be written goes nowhere else.
    OwnPathOnly,
    /// What a directory could not write gets new LSNs.
    ReroutedWithNewLsns,
    /// What a directory could not write is acknowledged before another one has synced it.
    ReroutedAckedEarly,
    /// A start does not say where a collection lives to a directory that knows an earlier home of it.
    OldHomesKept,
    /// A collection that has moved does not say so.
    MoveNotAnnounced,
    /// A spare keeps the first page that it had.
    SpareNotStamped,
    /// The first page of a spare is not synced.
    StampNotSynced,
    /// The name of a spare is not synced.
    StampNameNotSynced,
    /// A checkpoint leaves out collections.
    CheckpointWithoutCollections,
    /// A directory counts as emptied although entries are only there.
    EvacuatedWithoutEntries,
    /// What a directory holds that is being emptied is copied into that directory itself, and counts as copied.
    CopiedBack,
    /// What is copied into a directory that is being emptied, too, does not go on from there.
    CopiesStay,
    /// What is copied there while newer entries are copied from there counts as copied with these.
    CopiesOvertaken,
    /// A move is said in one frame of the new home and in no second one.
    MovesSaidOnce,
    /// Who waits for room in a journal does not look again when a file of it is kept to be used again.
    KeptFilesUnsaid,
    /// A directory counts as emptied before the others have said all facts.
    EvacuatedWithoutFacts,
    /// A directory counts as emptied although it took facts after the others had begun to say all.
    EvacuatedWithoutLastFacts,
    /// That a directory is emptied is said only in one that has left the members.
    TheLeftAreWitnesses,
    /// A directory leaves the members with segments in it that are needed.
    EvacuatedWithSegments,
    /// A full directory begins a session although no file that is there may become its first one.
    SessionsWithoutFiles,
    /// Between the marks a full directory takes no segments either.
    FullDisksTakeNoSegments,
    /// A start puts no fence into the streams before it.
    NoFence,
    /// A start does not look again whether the writer has passed its fence.
    FenceNotVerified,
    /// A start does not look again for claims above its own.
    NoSecondList,
    /// Whatever is at the key of a create is taken for ours.
    AnyObjectIsOurs,
    /// Fences are deleted with the streams that they end.
    FencesCollected,
    /// An object that a later start has deleted is taken for damage.
    OwnCloseNotLookedAt,
    /// Older streams are deleted before a frame says that they may be gone.
    OldestNotSaid,
    /// What a segment gives is not held to its checksums.
    SegmentReadUnchecked,
    /// A member that left the configuration is not looked for.
    RemovedMemberNotOpened,
    /// A start does not wait for members that are missing or came up empty.
    MembersNotAwaited,
    /// A first start that was cut short is begun anew by what is there of its members.
    BegunWithoutTheOthers,
    /// A log is begun anew beside a directory that may hold one and cannot be looked at.
    BegunUnseen,
    /// What a directory held that is given up does not become gaps.
    ForgottenWithoutGaps,
    /// A directory that was given up is read when it returns.
    ForgottenIsRead,
    /// What the other journals hold is left out where a segment in a directory that was given up holds it too.
    ForgottenSegmentsCount,
    /// What lies in a directory that was emptied is read when it is used again.
    EmptiedIsRead,
    /// A directory that returns takes entries before the others say that it is in use.
    ReturnedUnannounced,
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

/// A batch that a directory could not write, as bugs of re-routing would leave it.
pub(crate) fn taken_back(mut batch: PendingBatch, collection: &mut Collection, outbox: &mut Outbox) -> PendingBatch {
    if is_planted(Mutant::ReroutedAckedEarly)
        && let Some(waiter) = batch.waiter.take()
        && let Ok(directory) = WalUrl::parse("file:///m/a")
    {
        let (first_lsn, last_lsn, ack, duplicate) = (batch.first, batch.last, Ack::Durable, false);
        let answer = Appended { first_lsn, last_lsn, ack, epoch: Epoch(1), duplicate, directory };
        outbox.append(waiter, Ok(answer));
    }
    if is_planted(Mutant::ReroutedWithNewLsns) {
        let by = collection.assigned_head.0 + 1 - batch.first.0;
        let mut records = Vec::new();
        collection.buffer.copy(batch.first, batch.last, &mut records);
        let mut rest = records.as_slice();
        while let Ok((record, len)) = record::decode(rest) {
            rest = &rest[len..];
            let lsn = Lsn(record.lsn.0 + by);
            let fields = Fields {
                collection_id: record.collection_id,
                incarnation: record.incarnation,
                lsn,
                timestamp: record.timestamp,
                producer_id: record.producer_id,
                producer_seq: record.producer_seq,
                batch_end: if record.batch_end == Lsn::ZERO { Lsn::ZERO } else { Lsn(record.batch_end.0 + by) },
                epoch: record.epoch,
                payload: record.payload,
                ..Fields::default()
            };
            let len = record::encoded_len(&fields, []);
            collection.buffer.push(lsn, len, |out| {
                record::encode(out, &fields, []);
            });
            collection.assigned_head = lsn;
        }
        (batch.first, batch.last) = (Lsn(batch.first.0 + by), Lsn(batch.last.0 + by));
    }
    batch
}
