//! Pods as a storage sees them.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use walstorage_crds::names::{ANNOTATION_ALLOW_IMMEDIATE_BINDING, ANNOTATION_WORKLOAD, CONTAINER, GATE};

/// What concerns a storage of a pod that asks for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// It has our container.
    pub injected: bool,
    /// It waits for its writer.
    pub gated: bool,
    /// It is not at its end.
    pub live: bool,
    /// It takes traffic.
    pub ready: bool,
    /// What is kept of it.
    pub pod: Option<Arc<Pod>>,
    /// It accepts several claims of a class that binds at once.
    pub allows_immediate: bool,
    /// `<group>/<kind>/<name>` of its workload.
    pub workload: Option<String>,
}

impl PodView {
    /// Of a pod, or of what the cache keeps of one.
    #[must_use]
    pub fn of(pod: &Arc<Pod>) -> Self {
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let inits = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        let gates = spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
        let phase = status.and_then(|status| status.phase.as_deref());
        let conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let annotation = |name: &str| pod.annotations().get(name);
        Self {
            name: pod.name_any(),
            injected: inits.into_iter().any(|container| container.name == CONTAINER),
            gated: gates.into_iter().any(|gate| gate.name == GATE),
            live: !matches!(phase, Some("Succeeded" | "Failed")),
            ready: conditions.into_iter().any(|is| is.type_ == "Ready" && is.status == "True"),
            pod: Some(Arc::clone(pod)),
            allows_immediate: annotation(ANNOTATION_ALLOW_IMMEDIATE_BINDING).is_some_and(|value| value == "true"),
            workload: annotation(ANNOTATION_WORKLOAD).cloned(),
        }
    }
}

/// The live pods with our container.
pub fn injected(pods: &[PodView]) -> impl Iterator<Item = &PodView> {
    pods.iter().filter(|pod| pod.live && pod.injected)
}

/// What brings outdated pods up to date; the operator never does it itself.
#[must_use]
pub fn restart_command(namespace: &str, pods: &[PodView], outdated: &BTreeSet<String>) -> String {
    let outdated = || injected(pods).filter(|pod| outdated.contains(&pod.name));
    let mut workloads: Vec<String> = outdated().filter_map(|pod| restartable(pod.workload.as_deref()?)).collect();
    workloads.sort_unstable();
    workloads.dedup();
    if workloads.is_empty() {
        let names: Vec<&str> = outdated().map(|pod| pod.name.as_str()).collect();
        format!("kubectl delete pod -n {namespace} {}", names.join(" "))
    } else {
        format!("kubectl rollout restart -n {namespace} {}", workloads.join(" "))
    }
}

/// A workload that `kubectl rollout restart` knows.
fn restartable(workload: &str) -> Option<String> {
    let mut parts = workload.splitn(3, '/');
    match (parts.next()?, parts.next()?, parts.next()?) {
        ("apps", kind @ ("Deployment" | "StatefulSet"), name) => Some(format!("{}/{name}", kind.to_lowercase())),
        _ => None,
    }
}
