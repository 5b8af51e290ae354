//! Every planted bug is caught.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::explore::{Figures, explore};
use super::{races, scenarios, starts};
use crate::grant::mutant::{Mutant, plant};

/// Seeds within which one is found.
const SEEDS: u64 = 600;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `run` panics with, without a word on the terminal.
fn failure(run: impl FnOnce()) -> Option<String> {
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
    let result = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(false);
    let panic = result.err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// What a bug is caught by: a seed, or a scenario where chance alone rarely meets it.
fn caught(mutant: Mutant) -> Option<String> {
    let _planted = plant(mutant);
    match mutant {
        Mutant::InitAlways => return failure(scenarios::i07_a_directory_is_made_once_and_what_comes_up_empty_is_lost),
        Mutant::MessageBeforeLastPhase => {
            return failure(
                scenarios::what_a_container_said_before_it_started_again_is_not_believed_after_a_force_deletion,
            );
        }
        Mutant::LastWordsNotWaitedFor => {
            return failure(scenarios::what_a_pod_said_last_is_waited_for_while_the_watch_is_behind);
        }
        Mutant::CachedReads | Mutant::LedgerNotReadAgain => {
            return failure(races::claims_of_a_writers_next_life_are_not_those_that_were_given_up);
        }
        Mutant::MarkIsNoWord => return failure(starts::a_directory_is_not_made_anew_for_a_ledger_that_is),
        Mutant::StartOfAnyPod => return failure(starts::a_start_that_a_late_watch_shows_is_not_the_next_pods),
        _ => {}
    }
    (1..=SEEDS).find_map(|seed| {
        let why = failure(|| explore(seed, &mut Figures::default()))?;
        Some(format!("seed {seed}: {}", why.lines().next().unwrap_or_default()))
    })
}

/// Some of the bugs, so that the parts run side by side.
fn all_are_caught(part: usize, parts: usize) {
    let mut survived = Vec::new();
    for mutant in Mutant::ALL.iter().copied().skip(part).step_by(parts) {
        match caught(mutant) {
            Some(how) => println!("{mutant:?}: {how}"),
            None => survived.push(mutant),
        }
    }
    assert!(survived.is_empty(), "nothing fails with {survived:?} planted");
}

#[test]
fn planted_bugs_are_caught_1() {
    all_are_caught(0, 2);
}

#[test]
fn planted_bugs_are_caught_2() {
    all_are_caught(1, 2);
}
