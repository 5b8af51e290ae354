//! Conditions of a WalStorage: their names, and how they change. Pure.
//!
//! The time of a condition changes with its status alone; reason and message may change without it. All carry the
//! generation that they speak of, so that a reader knows an old answer.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use walstorage_crds::walstorage::WalStorageStatus;

/// Everything below is in order.
pub const READY: &str = "Ready";
/// The spec is valid, by itself and against what writers have.
pub const ACCEPTED: &str = "Accepted";
/// The ConfigMap says what the spec says.
pub const CONFIG_RENDERED: &str = "ConfigRendered";
/// Claims can be made, are there and are as large as asked for.
pub const CLAIMS_READY: &str = "ClaimsReady";
/// Pods have the sidecar that they would get now.
pub const PODS_UP_TO_DATE: &str = "PodsUpToDate";
/// Directories work, as far as sidecars say.
pub const DIRECTORIES_HEALTHY: &str = "DirectoriesHealthy";
/// Writers without a pod have entries.
pub const UNDRAINED_DATA: &str = "UndrainedData";
/// The operator has something to do or waits for something.
pub const RECONCILING: &str = "Reconciling";
/// Nothing goes on until somebody changes something.
pub const STALLED: &str = "Stalled";

/// Every condition, in the order of the documentation.
pub const ALL: [&str; 9] = [
    READY,
    ACCEPTED,
    CONFIG_RENDERED,
    CLAIMS_READY,
    PODS_UP_TO_DATE,
    DIRECTORIES_HEALTHY,
    UNDRAINED_DATA,
    RECONCILING,
    STALLED,
];

/// Longest message that the API server takes of a condition.
const MESSAGE_MAX: usize = 32_768;

/// A condition of a status.
#[must_use]
pub fn read<'s>(status: Option<&'s WalStorageStatus>, kind: &str) -> Option<&'s Condition> {
    status?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

impl Is {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What is said about one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its status.
    pub is: Is,
    /// One word.
    pub reason: &'static str,
    /// A sentence, with the remedy where there is one.
    pub message: String,
}

impl Said {
    /// It holds.
    #[must_use]
    pub fn yes(reason: &'static str, message: impl Into<String>) -> Self {
        Self { is: Is::True, reason, message: message.into() }
    }

    /// It does not hold.
    #[must_use]
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self { is: Is::False, reason, message: message.into() }
    }

    /// Nobody knows.
    #[must_use]
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { is: Is::Unknown, reason, message: message.into() }
    }
}

/// The conditions of the next status.
#[derive(Debug)]
pub struct Conditions<'b> {
    before: Option<&'b WalStorageStatus>,
    generation: Option<i64>,
    now: Timestamp,
    next: Vec<Condition>,
}

impl<'b> Conditions<'b> {
    /// Begins with what was said before.
    #[must_use]
    pub fn new(before: Option<&'b WalStorageStatus>, generation: Option<i64>, now: Timestamp) -> Self {
        Self { before, generation, now, next: Vec::new() }
    }

    /// Says something about a condition.
    pub fn set(&mut self, kind: &str, said: Said) {
        let Said { is, reason, mut message } = said;
        if message.len() > MESSAGE_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        }
        let before = read(self.before, kind).filter(|before| before.status == is.as_str());
        // Whole seconds, as they are stored.
        let now = Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        let since = before.map_or(Time(now), |before| before.last_transition_time.clone());
        self.next.push(Condition {
            type_: kind.to_owned(),
            status: is.as_str().to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: self.generation,
            last_transition_time: since,
        });
    }

    /// Leaves a condition as it was: what is refused changes nothing.
    pub fn leave(&mut self, kind: &str) {
        self.next.extend(read(self.before, kind).cloned());
    }

    /// All of them, in the order of [`ALL`].
    #[must_use]
    pub fn finish(mut self) -> Vec<Condition> {
        let place = |condition: &Condition| ALL.iter().position(|kind| *kind == condition.type_);
        self.next.sort_by_key(place);
        self.next
    }
}
