//! The seal: what tells our own work in a pod from a copy of it. It is no secret.

use sha2::{Digest as _, Sha256};
use walstorage_crds::names;

use super::pod::PodFacts;

/// What a seal covers.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// The namespace of the admission request.
    pub namespace: &'a str,
    /// Uid of the pod's controller, or empty.
    pub controller_uid: &'a str,
    /// `generateName`, or the name where that is empty.
    pub name: &'a str,
    /// The storage.
    pub storage: &'a str,
    /// The writer.
    pub writer: &'a str,
}

/// `v1-` and 32 hexadecimal digits.
#[must_use]
pub fn seal(sealed: &Sealed<'_>) -> String {
    let Sealed { namespace, controller_uid, name, storage, writer } = sealed;
    let mut hash = Sha256::new();
    for part in [namespace, controller_uid, name, storage, writer] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits = hash.finalize().into_iter().take(16).flat_map(|byte| [byte >> 4, byte & 15]);
    let hex = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    format!("v1-{}", hex.collect::<String>())
}

impl PodFacts {
    /// The seal of this pod for a writer; nothing without a storage.
    #[must_use]
    pub fn seal_for(&self, writer: &str) -> Option<String> {
        let name = if self.generate_name.is_empty() { &self.name } else { &self.generate_name };
        let controller_uid = self.controller.as_ref().map_or("", |owner| &owner.uid);
        let sealed = Sealed { namespace: &self.namespace, controller_uid, name, storage: self.storage()?, writer };
        Some(seal(&sealed))
    }
}

/// The writer that stands in the pod under a seal that holds: our own work, to be kept.
#[must_use]
pub fn kept(pod: &PodFacts) -> Option<&str> {
    let writer = pod.writer()?;
    let found = pod.annotation(names::ANNOTATION_SEAL)?;
    (pod.seal_for(writer).as_deref() == Some(found)).then_some(writer)
}
