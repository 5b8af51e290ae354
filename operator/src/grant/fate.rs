//! Whether the pod that holds a writer is gone. The one place that decides it.

use crate::identity::PodFacts;
use crate::planted::mutant;

/// What became of a holder, by an uncached read of its name.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It has stopped for good; with the pod, if it is still there to be read.
    Gone(Option<PodFacts>),
    /// It is being deleted, or its phase says that it ended and its containers do not.
    Ending(PodFacts),
    /// Neither. A Running or Pending pod is never gone.
    Live(PodFacts),
}

/// Judges the holder of this uid by what an uncached GET of its name gave. A name with another uid, or without a pod, is
/// proof: whoever deletes a pod by force gives their word that its process is dead.
#[must_use]
pub fn fate(uid: &str, read: Option<PodFacts>) -> Fate {
    match read {
        None => Fate::Gone(None),
        Some(pod) if pod.uid != uid => Fate::Gone(None),
        Some(pod) if pod.has_ended() && pod.all_terminated() => Fate::Gone(Some(pod)),
        Some(pod) if mutant!(GoneByRunningPod) && pod.deletion.is_some() => Fate::Gone(Some(pod)),
        Some(pod) if pod.is_ending() => Fate::Ending(pod),
        Some(pod) => Fate::Live(pod),
    }
}
