//! Every planted bug is caught: by the explorer within so many seeds, or by a test of its own.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::count::Sum;
use super::explore::explore;
use super::mutant::{Mutant, plant};
use super::schedules::{clients, crashes, evacuating, failing, forgetting, opening, replay, rot, segments, stamping};
use crate::commit::tests::{detour, draining, durability, evacuating as commits, facts, pressure, slots, space};
use crate::engine::bucket_tests;
use crate::fencing::model;
use crate::format::{record, stream};

/// Seeds within which the explorer finds a bug that it can find.
const SEEDS: u64 = 400;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether `run` panics, without a word on the terminal.
fn fails(run: impl FnOnce()) -> bool {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let shown = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                shown(panic);
            }
        }));
    });
    QUIET.set(true);
    let failed = catch_unwind(AssertUnwindSafe(run)).is_err();
    QUIET.set(false);
    failed
}

/// What catches a bug.
fn catches(mutant: Mutant) -> bool {
    let _planted = plant(mutant);
    match mutant {
        // No engine makes the frames or copies that these would let through.
        Mutant::NoPrevCrc => fails(stream::tests::a_frame_that_does_not_follow_is_not_accepted),
        Mutant::EpochInsideCrc => fails(record::tests::the_epoch_is_outside_the_crc_and_all_else_inside),
        // Rare by chance.
        Mutant::NoCloses | Mutant::ClosesIgnored | Mutant::DecisionsNotWritten | Mutant::CheckpointWithoutGaps => {
            fails(rot::schedule_04_rot_in_the_last_frame_of_a_stream_that_a_later_one_closed)
        }
        Mutant::LossesNotReported => fails(rot::schedule_04_rot_in_the_last_frame_of_a_stream_that_a_later_one_closed),
        Mutant::ReadUnsynced => {
            fails(failing::schedule_05_a_write_that_was_killed_before_its_sync_is_not_read_and_then_gone)
        }
        Mutant::ReadFromCache => {
            fails(failing::schedule_05_a_failed_sync_whose_pages_stay_readable_is_not_read_and_then_gone)
        }
        Mutant::ProducersNotStated => {
            fails(clients::schedule_14_a_retry_after_a_restart_truncation_and_removal_of_its_files_is_stored_once)
        }
        Mutant::FloorBeforeCheckpoint => {
            fails(crashes::schedule_01_a_crash_at_every_effect_of_a_life_that_lets_an_earlier_one_go)
        }
        Mutant::CheckpointWithoutCollections => {
            fails(crashes::schedule_01_a_crash_at_every_effect_of_a_life_that_lets_an_earlier_one_go)
        }
        Mutant::SpareNotStamped | Mutant::StampNotSynced | Mutant::StampNameNotSynced => {
            fails(stamping::schedule_06_a_crash_at_every_effect_of_stamping_twice_in_a_row)
        }
        Mutant::SegmentNotSynced
        | Mutant::SegmentNameNotSynced
        | Mutant::SegmentOverwritten
        | Mutant::SealNotSynced => {
            fails(segments::schedule_17_a_crash_at_every_effect_of_flushes_seals_and_removals_twice_in_a_row)
        }
        Mutant::SegmentGoneWhileNeeded => {
            fails(segments::schedule_17_a_crash_at_every_effect_of_shared_segments_and_their_rewriting_twice_in_a_row)
        }
        Mutant::SegmentGoneBeforeTruncation => {
            fails(segments::schedule_17_no_segment_goes_before_the_truncation_is_durable)
        }
        Mutant::MemoryFreedBeforeFlushed => fails(segments::schedule_17_what_is_being_flushed_is_read_after_every_step),
        Mutant::SlotFreedBeforeFlushed => {
            fails(segments::schedule_17_no_file_of_the_journal_goes_before_the_flush_is_said_durably)
        }
        Mutant::ReroutedWithNewLsns => fails(failing::schedule_11_a_failed_write_that_landed_is_there_once),
        Mutant::ReroutedAckedEarly => {
            fails(failing::schedule_13_a_crash_at_every_effect_of_a_group_that_goes_elsewhere_twice_in_a_row)
        }
        Mutant::MoveNotAnnounced => {
            fails(failing::schedule_13_a_collection_that_has_moved_is_where_its_acknowledged_entries_are_after_a_crash)
        }
        Mutant::EvacuatedWithoutEntries => {
            fails(evacuating::schedule_09_a_crash_at_every_effect_of_the_evacuation_of_a_dead_disk_twice_in_a_row)
        }
        Mutant::CopiedBack => fails(
            commits::schedule_24_what_has_no_room_elsewhere_waits_in_a_draining_directory_and_is_not_copied_back_into_it,
        ),
        Mutant::TheLeftAreWitnesses => {
            fails(commits::schedule_24_who_has_left_is_no_witness_that_another_directory_is_empty)
        }
        Mutant::EvacuatedWithoutLastFacts => {
            fails(commits::schedule_24_a_fact_that_a_draining_directory_takes_at_last_is_durable_elsewhere_before_it_leaves)
        }
        Mutant::CopiesStay => fails(
            commits::schedule_24_copies_on_their_way_into_a_directory_that_is_drained_meanwhile_go_on_from_there,
        ),
        Mutant::CopiesOvertaken => {
            fails(commits::schedule_24_copies_that_come_while_what_is_newer_is_copied_go_on_from_there)
        }
        Mutant::MovesSaidOnce => fails(rot::schedule_04_a_move_in_a_lost_frame_is_known_from_the_next_one),
        Mutant::KeptFilesUnsaid => fails(slots::whoever_waits_for_room_looks_again_when_a_file_is_kept_to_be_used_again),
        Mutant::EvacuatedWithoutFacts => {
            fails(commits::schedule_9_the_members_change_only_when_every_fact_is_durable_elsewhere)
        }
        Mutant::EvacuatedWithSegments => {
            fails(evacuating::schedule_24_a_directory_is_not_removed_while_segments_in_it_are_needed)
        }
        Mutant::OldHomesKept => {
            fails(forgetting::schedule_12_who_slept_through_a_move_is_told_of_it_by_the_next_start)
        }
        Mutant::ForgottenSegmentsCount => fails(
            forgetting::schedule_12_what_the_journal_for_all_holds_stays_when_a_directory_that_was_given_up_returns,
        ),
        Mutant::TruncateNotAwaited => {
            fails(facts::invariant_4_a_truncation_is_written_only_when_what_it_names_is_durable)
        }
        Mutant::FullIsNotEmptied => {
            fails(draining::schedule_24_a_disk_without_space_for_facts_is_drained_from_memory)
        }
        Mutant::OneUnreadableKeepsAll => {
            fails(draining::schedule_24_a_segment_that_cannot_be_read_keeps_no_other_where_it_is)
        }
        Mutant::TruncatedFlushedOver => {
            fails(pressure::schedule_17_a_truncation_that_comes_before_a_flush_is_written_leaves_no_hole_in_its_segment)
        }
        Mutant::RewrittenCounts => {
            fails(forgetting::schedule_12_what_was_moved_to_a_directory_that_is_given_up_is_lost_with_it)
        }
        Mutant::FreedByATornFrame => {
            fails(opening::schedule_07_what_a_torn_frame_says_is_freed_is_not_removed_by_that)
        }
        Mutant::LostHeadsGivenAgain => {
            fails(rot::schedule_04_an_lsn_that_only_a_lost_checkpoint_spoke_of_is_not_given_again)
        }
        Mutant::ReplacedUnnamed => {
            fails(rot::schedule_04_what_a_lost_frame_said_of_a_segment_is_read_in_the_segment)
        }
        Mutant::GapsKeepSegments => {
            fails(draining::schedule_24_what_a_segment_has_in_gaps_does_not_keep_it_where_it_is)
        }
        Mutant::DrainEndsWithAnEdit => {
            fails(draining::schedule_24_what_a_call_drains_stays_empty_whatever_the_configuration_says)
        }
        Mutant::MoveSaidEarly => {
            fails(evacuating::schedule_24_entries_under_way_to_a_directory_that_is_emptied_are_lost_with_it_by_name)
        }
        Mutant::EmptyingForgotten => {
            fails(evacuating::schedule_24_emptying_goes_on_when_the_directory_that_was_to_take_it_fails)
        }
        Mutant::EmptiedAgainInUse => fails(
            commits::schedule_24_an_emptied_directory_that_closes_with_the_process_is_not_said_to_be_in_use_again,
        ),
        Mutant::EmptiedBackInUse => {
            fails(evacuating::schedule_24_who_was_emptied_and_comes_back_at_a_stop_may_be_taken_away)
        }
        Mutant::StoppedUntold => {
            fails(forgetting::schedule_12_who_comes_back_at_a_stop_is_told_of_what_it_missed)
        }
        Mutant::SavedLeftBehind => fails(
            rot::schedule_04_what_was_saved_of_a_damaged_frame_is_committed_elsewhere_when_its_directory_fails,
        ),
        Mutant::CopiesWithoutHeads => {
            fails(rot::schedule_04_copies_behind_a_lost_frame_do_not_hide_what_it_held)
        }
        Mutant::TombstonesOverwritten => fails(
            durability::a_deletion_that_is_durable_after_that_of_a_later_life_does_not_bring_that_back,
        ),
        Mutant::FlushedSaidElsewhere => {
            fails(forgetting::schedule_12_what_was_flushed_outlives_the_journal_for_all)
        }
        Mutant::EpochsOfTheLostAgain => {
            fails(forgetting::schedule_12_what_a_lost_directory_has_numbered_is_not_numbered_again)
        }
        Mutant::StampsLost => {
            fails(rot::schedule_14_a_retry_of_what_a_damaged_frame_and_a_segment_held_is_stored_once)
        }
        Mutant::HolesFlushedOver => {
            fails(rot::what_only_a_segment_holds_between_entries_in_the_journal_is_kept_by_the_next_flush)
        }
        Mutant::UnreadableSegmentReplaced => {
            fails(rot::a_segment_whose_header_cannot_be_read_is_left_alone_and_read_when_it_can_be)
        }
        Mutant::ShelvesNotAwaited => {
            fails(replay::schedule_23_three_times_the_bound_of_one_collection_with_a_crash_at_every_effect_of_the_start)
        }
        Mutant::SessionsWithoutFiles => {
            fails(space::a_free_file_that_was_the_first_of_a_session_begins_no_other_on_a_full_disk)
        }
        Mutant::FullDisksTakeNoSegments => fails(space::between_the_marks_a_full_disk_empties_its_journal_into_segments),
        Mutant::BegunUnseen => {
            fails(opening::no_log_is_begun_beside_one_that_cannot_be_looked_at_wherever_the_last_start_was_cut)
        }
        Mutant::BegunWithoutTheOthers => {
            fails(opening::a_log_whose_first_start_one_directory_did_not_follow_is_not_begun_anew_without_the_other)
        }
        Mutant::InUseByWordOnly => fails(opening::a_start_cut_short_at_any_effect_leaves_what_was_used_in_use),
        Mutant::OwnPathOnly => {
            fails(detour::a_collection_whose_own_path_cannot_be_written_goes_to_shared_segments_until_it_can_be)
        }
        Mutant::NoAnnouncement => fails(crashes::a_new_collection_stays_where_its_first_entries_went),
        Mutant::NoFence
        | Mutant::FenceNotVerified
        | Mutant::NoSecondList
        | Mutant::AnyObjectIsOurs
        | Mutant::FencesCollected
        | Mutant::OwnCloseNotLookedAt
        | Mutant::OldestNotSaid => {
            (1..=SEEDS).any(|seed| fails(|| model::run(seed, model::WRITERS, &mut model::Sum::default())))
        }
        _ => (1..=SEEDS).any(|seed| {
            let caught = fails(|| explore(seed, &mut Sum::default()));
            if caught {
                println!("caught {mutant:?} with seed {seed}");
            }
            caught
        }),
    }
}

/// Some of the bugs, so that the parts run side by side.
fn all_are_caught(part: usize, parts: usize) {
    let mutants = Mutant::ALL.iter().copied().skip(part).step_by(parts);
    let survived: Vec<Mutant> = mutants.filter(|mutant| !catches(*mutant)).collect();
    assert!(survived.is_empty(), "nothing fails with {survived:?} planted");
}

#[test]
fn planted_bugs_are_caught_1() {
    all_are_caught(0, 4);
}

#[test]
fn planted_bugs_are_caught_2() {
    all_are_caught(1, 4);
}

#[test]
fn planted_bugs_are_caught_3() {
    all_are_caught(2, 4);
}

#[test]
fn planted_bugs_are_caught_4() {
    all_are_caught(3, 4);
}

/// In the engine's own buckets too, not only in the model's.
#[test]
fn a_missing_fence_is_caught_in_a_bucket_of_the_engine() {
    assert!(!fails(bucket_tests::a_zombie_is_never_answered_after_a_takeover));
    let _planted = plant(Mutant::NoFence);
    assert!(fails(bucket_tests::a_zombie_is_never_answered_after_a_takeover));
}
