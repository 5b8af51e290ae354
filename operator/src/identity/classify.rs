//! The table that says who a pod is.

use walstorage_crds::names;
use walstorage_crds::walwriter::{Identity, Workload};

use super::owner::{Above, Owner};
use super::pod::PodFacts;

/// Kubernetes' annotation of an indexed Job's pods.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It names its writer.
    Named {
        /// The writer.
        writer: String,
        /// Whose pods may hold it.
        workload: Workload,
    },
    /// Its writer is chosen among those of the workload.
    Pooled {
        /// Whose pods may hold it.
        workload: Workload,
    },
    /// A Job's pod that empties the writer of this uid.
    Drains {
        /// Of the writer.
        writer_uid: String,
        /// The Job.
        workload: Workload,
    },
    /// It cannot have a log.
    Refused(Refused),
}

/// Why a pod cannot have a log, and what to do about it: one sentence for its user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

fn refused(sentence: impl Into<String>) -> Verdict {
    Verdict::Refused(Refused(sentence.into()))
}

/// Whether the pod's name names the writer: what a stored pod shows without its owners.
#[must_use]
pub fn identity(pod: &PodFacts) -> Identity {
    let pooling = [("apps", "ReplicaSet"), ("", "ReplicationController")];
    match &pod.controller {
        _ if pod.is_rendered() => Identity::Named,
        Some(owner) if owner.is("batch", "Job") => {
            if pod.annotation(COMPLETION_INDEX).is_some() {
                Identity::Named
            } else {
                Identity::Pooled
            }
        }
        // Its pods have a name and a generateName.
        Some(owner) if owner.is("apps", "StatefulSet") => Identity::Named,
        Some(owner) if pooling.iter().any(|(group, kind)| owner.is(group, kind)) => Identity::Pooled,
        Some(_) if pod.generate_name.is_empty() => Identity::Named,
        Some(_) => Identity::Pooled,
        None => Identity::Named,
    }
}

/// Classifies a pod; `above` is what [`super::Lookups`] found.
#[must_use]
pub fn classify(pod: &PodFacts, above: &Above) -> Verdict {
    if let Some(refusal) = refusal(pod, above) {
        return refused(refusal);
    }
    let workload = workload(pod, above);
    if let Some(writer_uid) = pod.annotation(names::ANNOTATION_DRAIN) {
        if !pod.controller.as_ref().is_some_and(|owner| owner.is("batch", "Job")) {
            return refused(format!(
                "{} is for the pods of a Job: walstorage-operator render drain prints one",
                names::ANNOTATION_DRAIN
            ));
        }
        return Verdict::Drains { writer_uid: writer_uid.to_owned(), workload };
    }
    match identity(pod) {
        Identity::Named => match named(pod, &workload) {
            Ok(writer) => Verdict::Named { writer, workload },
            Err(sentence) => refused(sentence),
        },
        Identity::Pooled => Verdict::Pooled { workload },
    }
}

/// The writer of a pod that names it.
fn named(pod: &PodFacts, workload: &Workload) -> Result<String, String> {
    if let (Some(index), Some(job)) = (pod.annotation(COMPLETION_INDEX), &pod.controller)
        && job.is("batch", "Job")
    {
        let digits = (1..=10).contains(&index.len()) && index.bytes().all(|byte| byte.is_ascii_digit());
        return if digits {
            Ok(names::short(&format!("{}-{index}", job.name)))
        } else {
            Err(format!("{COMPLETION_INDEX} = {index:?} is not a number: leave it to the Job controller"))
        };
    }
    let of_set = pod.controller.as_ref().is_some_and(|owner| owner.is("apps", "StatefulSet"));
    if !pod.name.is_empty() && (of_set || pod.generate_name.is_empty()) {
        return Ok(names::short(&pod.name));
    }
    if workload.kind == "Deployment" {
        return Ok(names::short(&workload.name));
    }
    Err(format!(
        "a rendered pod needs a name of its own, which one of a {} has not: leave out the annotation {}, \
         and the webhook does the rest",
        workload.kind,
        names::ANNOTATION_RENDERED
    ))
}

/// Whose pods may hold the writer: the controller's controller, the controller, or the pod itself.
fn workload(pod: &PodFacts, above: &Above) -> Workload {
    let of = |owner: &Owner| {
        let Owner { group, kind, name, uid: _ } = owner.clone();
        Workload { group, kind, name }
    };
    match (&pod.controller, &above.owner) {
        // Each Job of a CronJob counts from 0 anew: an index names a writer within its Job only.
        (Some(job), Some(_)) if job.is("batch", "Job") && identity(pod) == Identity::Named => of(job),
        (Some(_), Some(owner)) | (Some(owner), None) => of(owner),
        (None, _) => Workload { group: String::new(), kind: "Pod".to_owned(), name: pod.name.clone() },
    }
}

/// What stands against a log for this pod, whoever it is.
fn refusal(pod: &PodFacts, above: &Above) -> Option<String> {
    let storage = pod.storage().unwrap_or_default();
    if !names::is_dns_label(storage) || storage.len() > names::STORAGE_NAME_MAX || storage.contains("--") {
        return Some(format!(
            "{} = {storage:?} cannot be the name of a WalStorage: write the name of one in this namespace",
            names::LABEL_STORAGE
        ));
    }
    if !pod.node_name.is_empty() {
        return Some(
            "spec.nodeName is set, and a pod that is on its node cannot be held until its log is free: use nodeSelector \
             or affinity instead"
                .to_owned(),
        );
    }
    // A StatefulSet's pod has both.
    let named = pod.name.is_empty() || is_name(&pod.name);
    let own = if named { &pod.generate_name } else { &pod.name };
    let bad = if named && is_prefix(own) { None } else { Some(("pod", own)) };
    let owners = pod.controller.iter().chain(&above.owner);
    let bad = bad.or_else(|| owners.clone().find(|owner| !is_name(&owner.name)).map(|owner| ("owner", &owner.name)));
    if let Some((what, name)) = bad {
        return Some(format!(
            "the {what}'s name {name:?} cannot name a log: use lower-case letters, digits, - and . only"
        ));
    }
    if let Some(owner) = owners.clone().find(|owner| !is_kind(&owner.kind) || !is_group(&owner.group)) {
        return Some(format!(
            "the owner {:?} of kind {:?} is none that Kubernetes has: correct ownerReferences",
            owner.name, owner.kind
        ));
    }
    let Some(controller) = &pod.controller else {
        return pod.name.is_empty().then(|| {
            "a pod with generateName and without a controller would get another log each time: give it metadata.name, \
             or use a StatefulSet or a Deployment"
                .to_owned()
        });
    };
    if controller.is("apps", "DaemonSet") {
        return Some(format!(
            "DaemonSet {} has a pod on each node and none with a lasting name: use a StatefulSet, or a Deployment",
            controller.name
        ));
    }
    if above.gone {
        return Some(format!(
            "{} {} is gone, or another one has its name: its successor makes a new pod",
            controller.kind, controller.name
        ));
    }
    surge(pod, controller, above)
}

/// A surge pod would start with an empty log while the old one still has entries.
fn surge(pod: &PodFacts, controller: &Owner, above: &Above) -> Option<String> {
    let accepted = pod.annotation(names::ANNOTATION_ALLOW_SURGE) == Some("true");
    if accepted || identity(pod) != Identity::Pooled {
        return None;
    }
    let native = controller.is("batch", "Job") || controller.is("", "ReplicationController");
    let (kind, name) =
        above.owner.as_ref().map_or((&controller.kind, &controller.name), |owner| (&owner.kind, &owner.name));
    match &above.owner {
        _ if native => None,
        None if controller.is("apps", "ReplicaSet") => None,
        Some(owner) if owner.is("apps", "Deployment") => above.surges.then(|| {
            format!(
                "Deployment {name} starts new pods before old ones end (maxSurge is not 0), and such a pod has an empty \
                 log while the old one still holds entries: add \"strategy: {{type: RollingUpdate, rollingUpdate: \
                 {{maxSurge: 0, maxUnavailable: 1}}}}\" to its spec, or the annotation {}: \"true\" to its pods",
                names::ANNOTATION_ALLOW_SURGE
            )
        }),
        _ => Some(format!(
            "{kind} {name} may start new pods before old ones end, and such a pod has an empty log while the old one \
             still holds entries: if it does not, or if that is as meant, add the annotation {}: \"true\" to its pods",
            names::ANNOTATION_ALLOW_SURGE
        )),
    }
}

/// Whether a text is the name of an object: letters that its writer's name and its claims' names can have.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.split('.').all(|part| !part.is_empty() && is_part(part))
}

/// Lower-case letters, digits and inner dashes; of any length.
fn is_part(part: &str) -> bool {
    let plain = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    plain && !part.starts_with('-') && !part.ends_with('-')
}

/// A name, or the beginning of one; empty where both are absent, which is refused elsewhere.
fn is_prefix(name: &str) -> bool {
    name.is_empty() || is_name(name.trim_end_matches(['-', '.']))
}

fn is_kind(kind: &str) -> bool {
    (1..=63).contains(&kind.len()) && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn is_group(group: &str) -> bool {
    group.is_empty() || is_name(group)
}
