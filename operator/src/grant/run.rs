//! A run as a state machine: `step(answer) -> call`. The protocol is written down as it reads, one call after the other; the
//! compiler makes the states of it.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use walstorage_crds::names;
use walstorage_crds::walwriter::{Phase, Workload};

use super::call::{Answer, Call};
use super::protocol;
use super::view::View;

/// Which writer a run is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace.
    pub namespace: String,
    /// The storage.
    pub storage: String,
    /// The writer.
    pub writer: String,
}

impl Key {
    /// Of a WalWriter's name.
    #[must_use]
    pub fn of(namespace: &str, wal_writer: &str) -> Option<Self> {
        let (storage, writer) = wal_writer.split_once('.')?;
        let whole = !storage.is_empty() && !writer.is_empty();
        whole.then(|| Self { namespace: namespace.into(), storage: storage.into(), writer: writer.into() })
    }

    /// The WalWriter's name.
    #[must_use]
    pub fn name(&self) -> String {
        names::wal_writer(&self.storage, &self.writer)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes, or until so many milliseconds have passed.
    Settled(Option<i64>),
    /// What is left has time: again when no other writer is due, at the latest in so many milliseconds.
    WhenIdle(i64),
    /// Somebody else was faster: again, at once.
    Again,
    /// A call failed: again, later.
    Failed(String),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make this call, then [`Run::step`] with its answer.
    Call(Call),
    /// The run is over.
    Done(Outcome),
}

/// What a note is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A pod.
    Pod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// The run's WalWriter.
    Writer,
    /// Its WalStorage.
    Storage,
    /// A workload.
    Workload(Workload),
}

/// The reason of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoteReason {
    /// Pod: another pod holds the writer.
    WaitingForWriter,
    /// Pod: a claim is not as it must be.
    WaitingForClaim,
    /// Pod: the storage is not there, or not accepted.
    WaitingForStorage,
    /// Pod: it holds the writer now.
    Granted,
    /// Pod: another one was faster.
    LostWriterRace,
    /// Pod: the writer is of another workload.
    WriterBelongsToAnother,
    /// Pod: what stands in it was not written for it.
    SealMismatch,
    /// Writer: its pod is gone.
    Released,
    /// Writer: nobody took it over.
    Orphaned,
    /// Writer: a claim is missing, or another one.
    Lost,
    /// Writer: the user gave up what was lost.
    LossAccepted,
    /// Writer: the user gave it up.
    Abandoned,
    /// Writer: its claims are deleted.
    Reclaimed,
    /// Writer: its pod does not end.
    Stuck,
    /// Writer: no node can have its pod.
    Unplaceable,
    /// Storage: a claim was grown.
    ClaimGrown,
    /// Workload: a pod starts with an empty log while others have entries.
    FreshWriterWhileOthersHoldData,
}

impl NoteReason {
    /// The name in the Event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForWriter => "WaitingForWriter",
            Self::WaitingForClaim => "WaitingForClaim",
            Self::WaitingForStorage => "WaitingForStorage",
            Self::Granted => "Granted",
            Self::LostWriterRace => "LostWriterRace",
            Self::WriterBelongsToAnother => "WriterBelongsToAnother",
            Self::SealMismatch => "SealMismatch",
            Self::Released => "Released",
            Self::Orphaned => "Orphaned",
            Self::Lost => "Lost",
            Self::LossAccepted => "LossAccepted",
            Self::Abandoned => "Abandoned",
            Self::Reclaimed => "Reclaimed",
            Self::Stuck => "Stuck",
            Self::Unplaceable => "Unplaceable",
            Self::ClaimGrown => "ClaimGrown",
            Self::FreshWriterWhileOthersHoldData => "FreshWriterWhileOthersHoldData",
        }
    }

    /// Whether somebody should look at it.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        match self {
            Self::Granted
            | Self::Released
            | Self::LossAccepted
            | Self::Abandoned
            | Self::Reclaimed
            | Self::ClaimGrown
            | Self::LostWriterRace
            | Self::WaitingForWriter => false,
            Self::WaitingForClaim
            | Self::WaitingForStorage
            | Self::WriterBelongsToAnother
            | Self::SealMismatch
            | Self::Orphaned
            | Self::Lost
            | Self::Stuck
            | Self::Unplaceable
            | Self::FreshWriterWhileOthersHoldData => true,
        }
    }
}

/// Something to tell: an Event, and a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub about: About,
    /// What happened.
    pub reason: NoteReason,
    /// A sentence.
    pub message: String,
}

/// One attempt to bring one writer further.
pub struct Run {
    protocol: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    seam: Seam,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

impl Run {
    /// Begins; [`Run::step`] with `None` gives the first call.
    #[must_use]
    pub fn new(key: Key, view: View) -> Self {
        let seam = Seam::default();
        let protocol = Box::pin(protocol::run(seam.clone(), key, view));
        Self { protocol, seam }
    }

    /// Goes on with the answer to the call before.
    pub fn step(&mut self, answer: Option<Answer>) -> Step {
        self.seam.lock().answer = answer;
        match self.protocol.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Step::Done(outcome),
            Poll::Pending => match self.seam.lock().call.take() {
                Some(call) => Step::Call(call),
                // The protocol waits for answers only, and asks before it waits.
                None => Step::Done(Outcome::Failed("the protocol waits for nothing".to_owned())),
            },
        }
    }

    /// What is to be told since the last time.
    pub fn notes(&mut self) -> Vec<Note> {
        self.seam.lock().notes.drain(..).collect()
    }

    /// The phase that the ledger has, as far as the run knows.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.seam.lock().phase
    }
}

/// Where the protocol meets whoever carries out its calls.
#[derive(Clone, Default)]
pub(super) struct Seam(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    call: Option<Call>,
    answer: Option<Answer>,
    notes: VecDeque<Note>,
    phase: Option<Phase>,
}

impl Seam {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        // Nothing is done under the lock that could leave it half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a call and waits for its answer.
    pub(super) async fn ask(&self, call: Call) -> Answer {
        self.lock().call = Some(call);
        let mut asked = false;
        poll_fn(move |_| {
            if !std::mem::replace(&mut asked, true) {
                return Poll::Pending;
            }
            self.lock().answer.take().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    pub(super) fn note(&self, note: Note) {
        self.lock().notes.push_back(note);
    }

    pub(super) fn is_at(&self, phase: Option<Phase>) {
        self.lock().phase = phase;
    }
}
