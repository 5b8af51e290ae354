//! The calls of the protocol. Reads are never answered by a cache; writes carry what they rest on.

use std::collections::BTreeMap;

use walstorage_crds::walstorage::AccessMode;
use walstorage_crds::walwriter::{WalWriter, WalWriterSpec, WalWriterStatus};

use crate::identity::PodFacts;

/// One call to the API server, in the namespace of the run's key and, where it says so, for its WalWriter.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// GET the WalWriter. Answer: [`Answer::Writer`].
    GetWriter,
    /// GET a pod. Answer: [`Answer::Pod`].
    GetPod {
        /// Its name.
        name: String,
    },
    /// GET a claim. Answer: [`Answer::Claim`].
    GetClaim {
        /// Its name.
        name: String,
    },
    /// LIST the claims that are labelled with the storage and the writer. Answer: [`Answer::Claims`].
    ListClaims,
    /// LIST the pods that are labelled with the storage and the writer. Answer: [`Answer::Pods`].
    ListPods,
    /// POST the WalWriter, without a status. Answer: [`Answer::Writer`].
    CreateWriter(Box<WalWriterSpec>),
    /// PUT the WalWriter's status, if its version is still this one. Answer: [`Answer::Writer`].
    SwapStatus {
        /// The version that was read.
        resource_version: String,
        /// All of it.
        status: Box<WalWriterStatus>,
    },
    /// Take an annotation off the WalWriter, if its version is still this one. Answer: [`Answer::Writer`].
    DropAnnotation {
        /// The version that was read.
        resource_version: String,
        /// Which one.
        name: &'static str,
    },
    /// DELETE the WalWriter with preconditions. Answer: [`Answer::Done`].
    DeleteWriter {
        /// The uid that was read.
        uid: String,
        /// The version that was read.
        resource_version: String,
    },
    /// POST a claim. Answer: [`Answer::Claim`].
    CreateClaim(Box<NewClaim>),
    /// Put labels and annotations on a claim, if it is still this one. Answer: [`Answer::Claim`].
    MarkClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Labels to set.
        labels: BTreeMap<String, String>,
        /// Annotations to set.
        annotations: BTreeMap<String, String>,
    },
    /// Server-side apply of the claim's size and nothing else, if it is still this one. Answer: [`Answer::Done`].
    GrowClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// As the user wrote it.
        size: String,
    },
    /// DELETE a claim with preconditions. Answer: [`Answer::Done`].
    DeleteClaim {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The version that was read.
        resource_version: String,
    },
    /// Patch a pod that tests uid and version, sets the grant and, if `ungate`, removes our gate. Answer: [`Answer::Done`].
    PatchPod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The version that was read.
        resource_version: String,
        /// Value of the annotation.
        grant: String,
        /// The gate is removed.
        ungate: bool,
    },
    /// DELETE a pod with preconditions. Answer: [`Answer::Done`].
    DeletePod {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The version that was read, in which it was gated or never scheduled.
        resource_version: String,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The WalWriter, if there is one.
    Writer(Option<Box<WalWriter>>),
    /// The pod, if there is one.
    Pod(Option<Box<PodFacts>>),
    /// The claim, if there is one.
    Claim(Option<Box<ClaimFacts>>),
    /// Claims.
    Claims(Vec<ClaimFacts>),
    /// Pods.
    Pods(Vec<PodFacts>),
    /// It is done.
    Done,
    /// It is not, or nobody knows.
    Failed(Failure),
}

/// Why a call was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A precondition did not hold: 409 and a failed test of a patch.
    Conflict,
    /// A POST met an object of its name.
    Exists,
    /// The object is not there.
    NotFound,
    /// A quota is used up.
    Quota(String),
    /// The namespace is being deleted.
    NamespaceEnds,
    /// Admission, validation or rights refuse it.
    Refused(String),
    /// No answer, or one that says that the server could not: it may be done.
    Unknown(String),
}

/// A claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFacts {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Of this copy.
    pub resource_version: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// It is being deleted.
    pub deleting: bool,
    /// The size that it asks for.
    pub size: String,
    /// It has a volume. Before that nothing can be on it.
    pub bound: bool,
}

/// A claim to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClaim {
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// As the user wrote it.
    pub size: String,
    /// `None` = the cluster's default.
    pub storage_class_name: Option<String>,
    /// How many pods may mount it.
    pub access_mode: AccessMode,
}
