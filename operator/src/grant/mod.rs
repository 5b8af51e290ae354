//! The grant: which pod may be a writer's holder. A protocol of API calls, each with its preconditions, without a client.
//!
//! [`Run`] is one attempt to bring one writer further. It asks for one [`Call`] at a time and takes the [`Answer`]; it may
//! be dropped between any two, and the next run goes on from what the API server has. What a run is given besides, its
//! [`View`], comes from caches and clocks: it says what to look at, never what is true. That a holder has started it may say:
//! whatever happened since, it has.
//!
//! Invariants, each held by a test of its name in `sim`:
//!
//! 1. A writer has at most one ungated pod that is not proven to have stopped.
//! 2. No pod is let go without the compare-and-swap that made it the holder.
//! 3. The webhook writes nothing.
//! 4. Only pods that are gated or were never scheduled are deleted, with preconditions on uid and version.
//! 5. A claim is deleted only while its writer is Reclaiming, after a list that no cache answered.
//! 6. The epoch rises with every grant.
//! 7. A directory is initialised only where the grant says so.
//! 8. Two controllers at once break nothing.
//! 9. Every labelled live pod is held by exactly one WalWriter, or gated.
//! 10. A crash between any two calls is repaired.
//!
//! ```text
//! G0 judge the pod      G1 read or create the ledger      G2 look at the holder
//! G3 swap the holder    G4 see to the claims              G5 let the pod go
//! ```

mod annotation;
mod call;
mod candidates;
mod claims;
mod context;
mod fate;
mod holder;
mod ledger;
mod losers;
mod message;
mod mint;
mod protocol;
mod reclaim;
mod run;
mod start;
mod verbs;
mod view;

pub use self::annotation::{Grant, GrantedUrl};
pub use self::call::{Answer, Call, ClaimFacts, Failure, NewClaim};
pub use self::fate::{Fate, fate};
pub use self::losers::LoserDelays;
pub use self::message::TerminationMessage;
pub use self::run::{About, Key, Note, NoteReason, Outcome, Run, Step};
pub use self::view::{StorageView, Timing, View};

#[cfg(test)]
pub(crate) mod mutant;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
