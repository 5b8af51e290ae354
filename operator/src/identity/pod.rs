//! What of a pod concerns a writer, read from its JSON: an admission request has no typed pod, and what a newer API server
//! adds must not be in the way.

use std::collections::BTreeMap;

use serde_json::Value;
use walstorage_crds::names;

use super::owner::Owner;

/// A pod. Fields that were absent are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    /// Its namespace; from the admission request, where the object has none yet.
    pub namespace: String,
    /// Its name; empty while the API server has not made one of `generate_name`.
    pub name: String,
    /// The prefix of its name.
    pub generate_name: String,
    /// Its uid; empty before it is stored.
    pub uid: String,
    /// Of this copy.
    pub resource_version: String,
    /// When it was stored, in milliseconds.
    pub created: Option<i64>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// The owner that controls it.
    pub controller: Option<Owner>,
    /// Where it runs, or was told to.
    pub node_name: String,
    /// Its scheduling gates.
    pub gates: Vec<String>,
    /// Volumes with a claim: name of the volume, name of the claim.
    pub claims: Vec<(String, String)>,
    /// When it will be killed, in milliseconds, if it is being deleted.
    pub deletion: Option<i64>,
    /// The seconds that it was given for that.
    pub grace_seconds: i64,
    /// Where it is in its life.
    pub phase: PodPhase,
    /// Init containers, then the others, each with what is reported about it.
    pub containers: Vec<ContainerFacts>,
    /// Our container passed its startup probe.
    pub sidecar_started: bool,
    /// Its address; empty before it has one.
    pub ip: String,
    /// The scheduler's sentence, where it finds no node.
    pub unschedulable: Option<String>,
}

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have run. Also what was never reported.
    #[default]
    Pending,
    /// On its node.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one badly; or its node is lost.
    Failed,
    /// The node does not say.
    Unknown,
}

/// A container of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// Whether it stands among the init containers.
    pub init: bool,
    /// What is reported about it.
    pub state: ContainerState,
}

/// What is reported about a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Nothing yet.
    #[default]
    Unreported,
    /// Not running, and not ended for good.
    Waiting,
    /// It runs.
    Running,
    /// It ended.
    Terminated {
        /// Why; `ContainerStatusUnknown` is a guess and no proof.
        reason: String,
        /// What it left in its termination log.
        message: String,
    },
}

impl PodFacts {
    /// Reads a pod's JSON. What is absent or of another type stays empty: the API server judges the object, not we.
    #[must_use]
    pub fn of(pod: &Value, namespace: &str) -> Self {
        let meta = &pod["metadata"];
        let (spec, status) = (&pod["spec"], &pod["status"]);
        let own = text(&meta["namespace"]);
        let statuses = [("initContainers", "initContainerStatuses", true), ("containers", "containerStatuses", false)];
        let containers = statuses.into_iter().flat_map(|(listed, reported, init)| {
            list(&spec[listed]).iter().map(move |container| {
                let name = text(&container["name"]);
                let state = list(&status[reported]).iter().find(|one| text(&one["name"]) == name);
                ContainerFacts { name, init, state: state.map_or(ContainerState::Unreported, container_state) }
            })
        });
        let sidecar = list(&status["initContainerStatuses"]).iter().find(|one| one["name"] == names::CONTAINER);
        let scheduled = list(&status["conditions"]).iter().find(|one| one["type"] == "PodScheduled");
        Self {
            namespace: if namespace.is_empty() { own } else { namespace.to_owned() },
            name: text(&meta["name"]),
            generate_name: text(&meta["generateName"]),
            uid: text(&meta["uid"]),
            resource_version: text(&meta["resourceVersion"]),
            created: millis(&meta["creationTimestamp"]),
            labels: texts(&meta["labels"]),
            annotations: texts(&meta["annotations"]),
            controller: list(&meta["ownerReferences"])
                .iter()
                .find(|owner| owner["controller"] == true)
                .map(Owner::of_reference),
            node_name: text(&spec["nodeName"]),
            gates: list(&spec["schedulingGates"]).iter().map(|gate| text(&gate["name"])).collect(),
            claims: list(&spec["volumes"])
                .iter()
                .filter_map(|volume| {
                    let claim = volume["persistentVolumeClaim"]["claimName"].as_str()?;
                    Some((text(&volume["name"]), claim.to_owned()))
                })
                .collect(),
            deletion: millis(&meta["deletionTimestamp"]),
            grace_seconds: meta["deletionGracePeriodSeconds"].as_i64().unwrap_or_default(),
            phase: match status["phase"].as_str() {
                Some("Running") => PodPhase::Running,
                Some("Succeeded") => PodPhase::Succeeded,
                Some("Failed") => PodPhase::Failed,
                Some("Unknown") => PodPhase::Unknown,
                _ => PodPhase::Pending,
            },
            containers: containers.collect(),
            sidecar_started: sidecar.is_some_and(|one| one["started"] == true),
            ip: text(&status["podIP"]),
            unschedulable: scheduled
                .filter(|one| one["status"] == "False" && one["reason"] == "Unschedulable")
                .map(|one| text(&one["message"])),
        }
    }

    /// The storage that its user asks for.
    #[must_use]
    pub fn storage(&self) -> Option<&str> {
        self.labels.get(names::LABEL_STORAGE).map(String::as_str)
    }

    /// An annotation's value.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// The writer that it names, without the storage; nothing when the annotation speaks of another storage.
    #[must_use]
    pub fn writer(&self) -> Option<&str> {
        let (storage, writer) = self.annotation(names::ANNOTATION_WRITER)?.split_once('.')?;
        (Some(storage) == self.storage() && !writer.is_empty()).then_some(writer)
    }

    /// Whether our gate still holds it.
    #[must_use]
    pub fn is_gated(&self) -> bool {
        self.gates.iter().any(|gate| gate == names::GATE)
    }

    /// Whether it was written by `render`.
    #[must_use]
    pub fn is_rendered(&self) -> bool {
        self.annotation(names::ANNOTATION_RENDERED) == Some("v1")
    }

    /// Whether its life ended, as far as its phase says.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }

    /// Whether it is on its way out: being deleted, or ended.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.deletion.is_some() || self.has_ended()
    }

    /// Whether every container is known to have ended, our sidecar included. For a pod that no node ever had, and that
    /// can get none any more, that is so from the start.
    #[must_use]
    pub fn all_terminated(&self) -> bool {
        self.containers.iter().all(|container| match &container.state {
            ContainerState::Terminated { reason, .. } => reason != "ContainerStatusUnknown",
            ContainerState::Unreported => self.node_name.is_empty(),
            ContainerState::Waiting | ContainerState::Running => false,
        })
    }

    /// Whether something of it shows that our sidecar has served: an application's container starts only after that.
    #[must_use]
    pub fn has_served(&self) -> bool {
        let ran = |container: &ContainerFacts| match &container.state {
            ContainerState::Running => true,
            // The kubelet guesses this of containers that never started.
            ContainerState::Terminated { reason, .. } => reason != "ContainerStatusUnknown",
            ContainerState::Unreported | ContainerState::Waiting => false,
        };
        self.sidecar_started || self.containers.iter().any(|container| !container.init && ran(container))
    }

    /// What our sidecar left in its termination log, if it is terminated in this copy.
    #[must_use]
    pub fn termination_message(&self) -> Option<&str> {
        let sidecar = self.containers.iter().find(|container| container.init && container.name == names::CONTAINER);
        match &sidecar?.state {
            ContainerState::Terminated { message, .. } => Some(message),
            ContainerState::Unreported | ContainerState::Waiting | ContainerState::Running => None,
        }
    }
}

fn container_state(status: &Value) -> ContainerState {
    let state = &status["state"];
    if let Some(terminated) = state.get("terminated").filter(|one| !one.is_null()) {
        return ContainerState::Terminated {
            reason: text(&terminated["reason"]),
            message: text(&terminated["message"]),
        };
    }
    if state.get("running").is_some_and(|one| !one.is_null()) {
        return ContainerState::Running;
    }
    ContainerState::Waiting
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Milliseconds of an RFC 3339 text.
fn millis(value: &Value) -> Option<i64> {
    let time: jiff::Timestamp = value.as_str()?.parse().ok()?;
    Some(time.as_millisecond())
}
