//! What controls a pod, and what controls that: a ReplicaSet's pods belong to its Deployment, a Job's to its CronJob.

use serde_json::Value;

use super::pod::PodFacts;

/// An owner that is a controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// API group, without the version; empty for the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Owner {
    /// Of an entry in `ownerReferences`.
    #[must_use]
    pub fn of_reference(reference: &Value) -> Self {
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let version = text("apiVersion");
        let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
        Self { group, kind: text("kind"), name: text("name"), uid: text("uid") }
    }

    /// The controller of an object.
    #[must_use]
    pub fn of_object(object: &Value) -> Option<Self> {
        let references = object["metadata"]["ownerReferences"].as_array()?;
        references.iter().find(|reference| reference["controller"] == true).map(Self::of_reference)
    }

    /// Whether it is of this group and kind.
    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

/// An object to read, uncached, before a pod can be classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name in the API's paths.
    pub plural: &'static str,
    /// Which one.
    pub name: String,
}

/// What stands above a pod's controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Above {
    /// The pod's controller was not there, or another one of its name.
    pub gone: bool,
    /// What controls the pod's controller.
    pub owner: Option<Owner>,
    /// A rollout of this Deployment makes a new pod before it ends an old one.
    pub surges: bool,
    /// So many pods this Deployment has at most, if it is one that does not surge.
    pub most: Option<usize>,
}

/// The reads of one pod, one after the other: [`Lookups::next`] says what to read, [`Lookups::answer`] takes it.
#[derive(Clone, Debug)]
pub struct Lookups {
    controller: Option<Owner>,
    above: Above,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Controller,
    Deployment,
    Done,
}

impl Lookups {
    /// The reads that this pod needs; mostly none or two.
    #[must_use]
    pub fn of(pod: &PodFacts) -> Self {
        let controller = pod.controller.clone();
        let readable = controller.as_ref().is_some_and(|owner| readable(owner).is_some());
        let state = if readable { State::Controller } else { State::Done };
        Self { controller, above: Above::default(), state }
    }

    /// What to read now; nothing when all is known.
    #[must_use]
    pub fn next(&self) -> Option<Lookup> {
        let owner = match self.state {
            State::Controller => self.controller.as_ref(),
            State::Deployment => self.above.owner.as_ref(),
            State::Done => None,
        }?;
        let (group, kind, plural) = readable(owner)?;
        Some(Lookup { group, kind, plural, name: owner.name.clone() })
    }

    /// What was read; `None` when there is no such object.
    pub fn answer(&mut self, object: Option<&Value>) {
        let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        match self.state {
            State::Controller => {
                let expected = self.controller.as_ref().map(|owner| owner.uid.as_str());
                let found = object.filter(|object| Some(uid(object).as_str()) == expected);
                self.above.gone = found.is_none();
                self.above.owner = found.and_then(Owner::of_object);
                let deployment = self.above.owner.as_ref().is_some_and(|owner| owner.is("apps", "Deployment"));
                self.state = if deployment { State::Deployment } else { State::Done };
            }
            State::Deployment => {
                // A Deployment that is gone rolls nothing out.
                self.above.surges = object.is_some_and(surges);
                self.above.most = object.filter(|_| !self.above.surges).map(replicas);
                self.state = State::Done;
            }
            State::Done => {}
        }
    }

    /// What is above the pod's controller, as far as it was read.
    #[must_use]
    pub fn above(&self) -> &Above {
        &self.above
    }
}

/// The controllers that have controllers themselves, and that the webhook may read.
fn readable(owner: &Owner) -> Option<(&'static str, &'static str, &'static str)> {
    let known =
        [("apps", "ReplicaSet", "replicasets"), ("batch", "Job", "jobs"), ("apps", "Deployment", "deployments")];
    known.into_iter().find(|(group, kind, _)| owner.is(group, kind))
}

/// The pods that a Deployment asks for; the API's default is one.
fn replicas(deployment: &Value) -> usize {
    deployment["spec"]["replicas"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(1)
}

/// Whether a Deployment's rollout has more pods than replicas for a while. Absent fields have the API's defaults.
fn surges(deployment: &Value) -> bool {
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] == "Recreate" {
        return false;
    }
    match &strategy["rollingUpdate"]["maxSurge"] {
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => text != "0%" && text != "0",
        _ => true,
    }
}
