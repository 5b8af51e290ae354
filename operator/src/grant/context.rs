//! What every part of the protocol has at hand: the key, the view, and calls that end the run when they fail.

use walstorage_crds::names;
use walstorage_crds::walstorage::{Effective, EffectiveUrl, Place};
use walstorage_crds::walwriter::{WalWriter, WalWriterSpec};

use super::call::{Answer, Call, ClaimFacts, Failure};
use super::run::{About, Key, Note, NoteReason, Outcome, Seam};
use super::view::View;
use crate::identity::PodFacts;

/// A part of the protocol: a value, or the end of the run.
pub(super) type Flow<T> = Result<T, Outcome>;

pub(super) struct Cx {
    pub(super) seam: Seam,
    pub(super) key: Key,
    pub(super) view: View,
}

/// A failed call ends the run: at once again where somebody was faster, later where nobody knows.
pub(super) fn failed(failure: &Failure) -> Outcome {
    match failure {
        Failure::Conflict | Failure::Exists | Failure::NotFound => Outcome::Again,
        Failure::NamespaceEnds => Outcome::Settled(None),
        Failure::Quota(why) | Failure::Refused(why) | Failure::Unknown(why) => Outcome::Failed(why.clone()),
    }
}

/// An answer to another question; the caller's mistake.
fn unexpected() -> Outcome {
    Outcome::Failed("an answer to another call".to_owned())
}

impl Cx {
    pub(super) async fn get_writer(&self) -> Flow<Option<WalWriter>> {
        match self.seam.ask(Call::GetWriter).await {
            Answer::Writer(writer) => Ok(writer.map(|writer| *writer)),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn get_pod(&self, name: &str) -> Flow<Option<PodFacts>> {
        match self.seam.ask(Call::GetPod { name: name.to_owned() }).await {
            Answer::Pod(pod) => Ok(pod.map(|pod| *pod)),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn get_claim(&self, name: &str) -> Flow<Option<ClaimFacts>> {
        match self.seam.ask(Call::GetClaim { name: name.to_owned() }).await {
            Answer::Claim(claim) => Ok(claim.map(|claim| *claim)),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn list_claims(&self) -> Flow<Vec<ClaimFacts>> {
        match self.seam.ask(Call::ListClaims).await {
            Answer::Claims(claims) => Ok(claims),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    pub(super) async fn list_pods(&self) -> Flow<Vec<PodFacts>> {
        match self.seam.ask(Call::ListPods).await {
            Answer::Pods(pods) => Ok(pods),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    /// Creates the WalWriter; nothing where there is one.
    pub(super) async fn create_writer(&self, spec: WalWriterSpec) -> Flow<Option<WalWriter>> {
        match self.seam.ask(Call::CreateWriter(Box::new(spec))).await {
            Answer::Writer(Some(writer)) => Ok(Some(*writer)),
            Answer::Failed(Failure::Exists) => Ok(None),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    /// A call that gives the WalWriter as it is after it.
    pub(super) async fn write_writer(&self, call: Call) -> Flow<WalWriter> {
        match self.seam.ask(call).await {
            Answer::Writer(Some(writer)) => Ok(*writer),
            Answer::Failed(failure) => Err(failed(&failure)),
            _ => Err(unexpected()),
        }
    }

    /// A call whose failure the caller judges.
    pub(super) async fn attempt(&self, call: Call) -> Result<Option<ClaimFacts>, Failure> {
        match self.seam.ask(call).await {
            Answer::Done => Ok(None),
            Answer::Claim(claim) => Ok(claim.map(|claim| *claim)),
            Answer::Failed(failure) => Err(failure),
            _ => Err(Failure::Unknown("an answer to another call".to_owned())),
        }
    }

    /// A call that either is done or ends the run.
    pub(super) async fn done(&self, call: Call) -> Flow<()> {
        self.attempt(call).await.map(drop).map_err(|failure| failed(&failure))
    }

    pub(super) fn note(&self, reason: NoteReason, message: impl Into<String>) {
        self.seam.note(Note { about: About::Writer, reason, message: message.into() });
    }

    pub(super) fn note_storage(&self, reason: NoteReason, message: impl Into<String>) {
        self.seam.note(Note { about: About::Storage, reason, message: message.into() });
    }

    pub(super) fn note_pod(&self, pod: &PodFacts, reason: NoteReason, message: impl Into<String>) {
        let about = About::Pod { name: pod.name.clone(), uid: pod.uid.clone() };
        self.seam.note(Note { about, reason, message: message.into() });
    }

    /// The storage, if it is accepted and stays.
    pub(super) fn accepted(&self) -> Option<&Effective> {
        let storage = self.view.storage.as_ref().filter(|storage| !storage.deleting)?;
        storage.effective.as_ref().ok()
    }

    /// All URLs of the storage, the journal's included.
    pub(super) fn urls(&self) -> impl Iterator<Item = &EffectiveUrl> {
        self.accepted().into_iter().flat_map(|effective| effective.urls.iter().chain(&effective.journal))
    }

    /// The volume that a URL of the storage asks for, if it is a disk.
    pub(super) fn disk(&self, url: &str) -> Option<&walstorage_crds::walstorage::Volume> {
        self.urls().find(|known| known.name == url).and_then(|known| match &known.place {
            Place::Disk(volume) => Some(volume),
            Place::Bucket(_) => None,
        })
    }

    pub(super) fn claim_name(&self, url: &str) -> String {
        names::claim(&self.key.storage, url, &self.key.writer)
    }

    /// Whether a pod that could still be granted, or was, names the writer.
    pub(super) fn is_named(&self) -> bool {
        self.view.pods.iter().any(|pod| !pod.is_ending())
    }
}
