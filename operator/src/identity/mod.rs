//! Who a pod is: the identity of its writer, the workload whose pods may follow it, and the choice among writers.
//!
//! Functions of plain values. The webhook proposes with them from its caches, the controller judges with them; safety
//! rests on neither, but on the grant's compare-and-swap.
//!
//! 1. A pod's writer is *named* by the pod, or chosen from the *pool* of its workload; one that can be neither is refused
//!    with the remedy.
//! 2. What is written in a pod is believed only under a seal over namespace, owner, name, storage and writer.
//! 3. Entries first: a writer that nobody holds and that has entries goes before one without, and before a fresh one.

mod choose;
mod classify;
mod owner;
mod pod;
mod seal;

pub use self::choose::{Chosen, Class, Pool, Reservations, choose, to_drain};
pub use self::classify::{Refused, Verdict, classify, identity, is_name};
pub use self::owner::{Above, Lookup, Lookups, Owner};
pub use self::pod::{ContainerFacts, ContainerState, PodFacts, PodPhase};
pub use self::seal::{Sealed, kept, seal};

#[cfg(test)]
mod tests;
