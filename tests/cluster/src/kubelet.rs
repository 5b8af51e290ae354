//! Kubelets of nodes on paper: bound pods run, deleted ones end, with the last words that their annotations ask for.
//!
//! Beside the supervisor's own ([`crate::control_plane::Builder::run_pods`]), which lets pods vanish, this one reports what a
//! sidecar leaves in its termination log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt as _};
use kube_runtime::watcher;
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use walstorage_crds::names;

use crate::mirror::{self, Pods};

/// Entries that the pod's sidecar leaves; without it, it says nothing at its end.
pub const LEAVES: &str = "paper.example.com/leaves";
/// The pod does not end when it is deleted.
pub const HANGS: &str = "paper.example.com/hangs";
/// The pod ends by itself, once it has run.
pub const ENDS: &str = "paper.example.com/ends";
/// The pod's address, instead of one that nobody has.
pub const ADDRESS: &str = "paper.example.com/address";

/// Kubelets at work, until this is dropped.
#[derive(Debug)]
pub struct Kubelets(AbortHandle);

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the kubelets of all nodes.
#[must_use]
pub fn start(client: Client) -> Kubelets {
    Kubelets(tokio::spawn(run(client)).abort_handle())
}

async fn run(client: Client) {
    let bound: Mutex<Pods> = Mutex::default();
    let selection = watcher::Config::default().fields("spec.nodeName!=");
    let watch = mirror::follow(client.clone(), selection, |pods| lock(&bound).clone_from(pods));
    let work = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // By uid the version that was seen to: what the watch does not show yet is not done twice.
        let mut seen_to: BTreeMap<String, String> = BTreeMap::new();
        loop {
            ticks.tick().await;
            let pods: Vec<Arc<Pod>> = lock(&bound).values().cloned().collect();
            let version = |pod: &Pod| Some((pod.uid()?, pod.resource_version()?));
            let done = |pod: &Pod| version(pod).is_some_and(|(uid, version)| seen_to.get(&uid) == Some(&version));
            let steps = pods.into_iter().filter(|pod| !done(pod)).map(|pod| {
                let client = client.clone();
                async move {
                    // What fails was changed meanwhile: the next tick sees it as it is then.
                    see_to(client, &pod).await.ok().and_then(|()| version(&pod))
                }
            });
            let done = futures_util::future::join_all(steps).await;
            seen_to.extend(done.into_iter().flatten());
        }
    };
    tokio::join!(watch, work);
}

fn lock(pods: &Mutex<Pods>) -> MutexGuard<'_, Pods> {
    pods.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn see_to(client: Client, pod: &Pod) -> kube::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let (name, plain) = (pod.name_any(), PatchParams::default());
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let deleted = pod.metadata.deletion_timestamp.is_some() && !pod.annotations().contains_key(HANGS);
    // Not before its sidecar was seen at work: what ended before that knows of nothing.
    let ends = pod.annotations().contains_key(ENDS) && is_idle(pod);
    match phase {
        Some("Pending") | None if !deleted => {
            pods.patch_status(&name, &plain, &Patch::Merge(running(pod))).await?;
        }
        Some("Succeeded" | "Failed") if deleted => {
            let own = Preconditions { uid: pod.uid(), resource_version: None };
            pods.delete(&name, &DeleteParams::default().grace_period(0).preconditions(own)).await?;
        }
        Some("Running") if ends => {
            pods.patch_status(&name, &plain, &Patch::Merge(ended(pod))).await?;
        }
        _ if deleted => {
            pods.patch_status(&name, &plain, &Patch::Merge(ended(pod))).await?;
        }
        _ => {}
    }
    Ok(())
}

/// Whether a grant says that nothing is to be begun any more, which the controller writes when it has seen the sidecar serve.
fn is_idle(pod: &Pod) -> bool {
    let grant = pod.annotations().get(names::ANNOTATION_GRANT);
    let grant: Option<Value> = grant.and_then(|grant| serde_json::from_str(grant).ok());
    grant.is_some_and(|grant| grant["init"] == json!([]) && grant["forget"] == json!([]))
}

/// The status of a pod whose containers all run.
#[must_use]
pub fn running(pod: &Pod) -> Value {
    let now = Timestamp::now();
    let (containers, sidecars) = statuses(pod, |_| json!({"running": {"startedAt": now}}), true);
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    let address = pod.annotations().get(ADDRESS).map_or("192.0.2.1", String::as_str);
    json!({"metadata": {"uid": pod.metadata.uid}, "status": {
        "phase": "Running",
        "startTime": now,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": conditions,
        "containerStatuses": containers,
        "initContainerStatuses": sidecars,
    }})
}

/// The status of a pod whose containers have all ended.
fn ended(pod: &Pod) -> Value {
    let now = Timestamp::now();
    let words = last_words(pod);
    let state = |name: &str| {
        let message = words.as_ref().filter(|_| name == names::CONTAINER);
        json!({"running": null, "terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now,
            "message": message}})
    };
    let (containers, sidecars) = statuses(pod, state, false);
    json!({"metadata": {"uid": pod.metadata.uid}, "status": {
        "phase": "Succeeded",
        "containerStatuses": containers,
        "initContainerStatuses": sidecars,
    }})
}

fn statuses(pod: &Pod, state: impl Fn(&str) -> Value, runs: bool) -> (Vec<Value>, Vec<Value>) {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = |name: &String| {
        json!({"name": name, "image": "paper", "imageID": "paper", "containerID": format!("paper://{name}"), "ready": runs,
            "started": runs, "restartCount": 0, "state": state(name)})
    };
    let containers = spec.containers.iter().map(|one| status(&one.name)).collect();
    let sidecars = spec.init_containers.iter().flatten().map(|one| status(&one.name)).collect();
    (containers, sidecars)
}

/// What the sidecar says when it ends well.
fn last_words(pod: &Pod) -> Option<String> {
    let left: u64 = pod.annotations().get(LEAVES)?.parse().ok()?;
    let grant: Value = serde_json::from_str(pod.annotations().get(names::ANNOTATION_GRANT)?).ok()?;
    let urls = grant["urls"].as_array().into_iter().flatten();
    let empty: Vec<&Value> = urls.map(|url| &url["name"]).filter(|_| left == 0).collect();
    let words = json!({"v": 1, "writerUid": grant["writerUid"], "granted": grant["epoch"], "exit": "clean",
        "unappliedEntries": left, "unappliedBytes": left * 100, "empty": empty});
    Some(words.to_string())
}
