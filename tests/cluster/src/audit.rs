//! The invariants of the grant, held against what controllers wrote to a real API server and against what stands there.
//!
//! Numbers are those of the operator's own invariants. 1 is watched all the time ([`watch`]), 9 when everything has come to
//! rest ([`at_rest`]), the others in the log of a [`crate::gateway::Gateway`] ([`log`]): an answer has the version in which
//! the API server made the change, which puts the changes of several controllers in their order. Each write names besides
//! what it rests on, or two leaders could undo each other's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use kube_runtime::watcher;
use serde_json::Value;
use tokio::task::AbortHandle;
use walstorage_crds::names;
use walstorage_crds::walwriter::{Phase, WalWriter};

use crate::gateway::{Written, resource_of};
use crate::mirror;

/// Namespace and name of a WalWriter.
type Of = (String, String);

/// Checks invariants 2 and 4 to 7 over everything that was written.
///
/// # Errors
/// With the call that breaks one.
pub fn log(written: &[Written]) -> Result<Counts> {
    let mut audit = Audit::default();
    let mut done: Vec<&Written> = written.iter().filter(|call| call.is_done()).collect();
    // What is deleted keeps its version, so that deletions stay where the log has them.
    let mut newest = 0;
    let mut keys: BTreeMap<usize, u64> = BTreeMap::new();
    for (at, call) in done.iter().enumerate() {
        let version = version(&call.answer).filter(|_| call.method != Method::DELETE);
        newest = version.unwrap_or(newest).max(newest);
        keys.insert(at, version.unwrap_or(newest));
    }
    let mut order: Vec<usize> = (0..done.len()).collect();
    order.sort_by_key(|at| keys[at]);
    done = order.into_iter().map(|at| done[at]).collect();
    for call in done {
        audit.take(call).with_context(|| format!("{} {}: {}", call.method, call.path, call.sent))?;
    }
    Ok(audit.counts)
}

/// How often something was done; a check of nothing shows nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pods that were let go.
    pub ungated: usize,
    /// Swaps that made a pod the holder.
    pub grants: usize,
    /// Pods that were deleted.
    pub deleted_pods: usize,
    /// Claims that were deleted.
    pub deleted_claims: usize,
}

#[derive(Default)]
struct Audit {
    grants: BTreeMap<Of, Grants>,
    phases: BTreeMap<Of, String>,
    /// Uids of claims on which a directory was made.
    initialized: BTreeSet<String>,
    counts: Counts,
}

/// Whom a writer was granted to.
#[derive(Debug, Default)]
struct Grants {
    /// Every pod, with the epoch. One pod can be here twice: a gated one whose grant was taken back.
    all: Vec<(String, i64)>,
    /// The last of them is the holder.
    held: bool,
}

impl Audit {
    fn take(&mut self, call: &Written) -> Result<()> {
        rests(call)?;
        if call.is(&Method::PUT, "walwriters/status") {
            self.swapped(&call.answer)
        } else if call.is(&Method::PATCH, "pods") {
            self.patched(call)
        } else if call.is(&Method::DELETE, "pods") {
            self.counts.deleted_pods += 1;
            let node = &call.answer["spec"]["nodeName"];
            ensure!(call.answer["kind"] == "Pod" && node.is_null(), "I4: it was scheduled: {}", call.answer);
            Ok(())
        } else if call.is(&Method::PATCH, "persistentvolumeclaims") {
            let annotations = &call.answer["metadata"]["annotations"];
            if annotations[names::ANNOTATION_INITIALIZED] == "true" {
                self.initialized.insert(text(&call.answer["metadata"]["uid"]));
            }
            Ok(())
        } else if call.is(&Method::DELETE, "persistentvolumeclaims") {
            self.counts.deleted_claims += 1;
            let labels = &call.answer["metadata"]["labels"];
            let (storage, writer) = (text(&labels[names::LABEL_STORAGE]), text(&labels[names::LABEL_WRITER]));
            let of = (text(&call.answer["metadata"]["namespace"]), names::wal_writer(&storage, &writer));
            let phase = self.phases.get(&of);
            ensure!(phase.is_some_and(|phase| phase == "Reclaiming"), "I5: its writer {of:?} is {phase:?}");
            Ok(())
        } else {
            Ok(())
        }
    }

    fn swapped(&mut self, writer: &Value) -> Result<()> {
        let of = (text(&writer["metadata"]["namespace"]), text(&writer["metadata"]["name"]));
        let status = &writer["status"];
        self.phases.insert(of.clone(), text(&status["phase"]));
        let made = status["volumes"].as_array().into_iter().flatten().filter(|volume| volume["initialized"] == true);
        self.initialized.extend(made.map(|volume| text(&volume["claimUid"])));
        let grants = self.grants.entry(of).or_default();
        let Some(uid) = status["holder"]["podUid"].as_str() else {
            grants.held = false;
            return Ok(());
        };
        let epoch = status["epoch"].as_i64().context("a holder without an epoch")?;
        match grants.all.last() {
            Some((last, same)) if last == uid && grants.held => {
                ensure!(*same == epoch, "I6: another epoch for the same holder");
            }
            last => {
                let newest = grants.all.iter().map(|(_, epoch)| *epoch).max();
                ensure!(newest.is_none_or(|newest| epoch > newest), "I6: {epoch} after {last:?}");
                grants.all.push((uid.to_owned(), epoch));
                grants.held = true;
                self.counts.grants += 1;
            }
        }
        Ok(())
    }

    fn patched(&mut self, call: &Written) -> Result<()> {
        let ungates = call.sent.as_array().into_iter().flatten().any(|step| step["op"] == "remove");
        if !ungates {
            return Ok(());
        }
        let pod = &call.answer["metadata"];
        let grant: Value =
            serde_json::from_str(pod["annotations"][names::ANNOTATION_GRANT].as_str().context("no grant")?)?;
        let of = (text(&pod["namespace"]), text(&pod["annotations"][names::ANNOTATION_WRITER]));
        let holder = (text(&pod["uid"]), grant["epoch"].as_i64().context("no epoch")?);
        let grants = self.grants.get(&of).with_context(|| format!("I2: {of:?} was granted to nobody"))?;
        let holds = grants.held && grants.all.last() == Some(&holder);
        ensure!(holds, "I2: {holder:?} was let go, and {of:?} was granted so: {grants:?}");
        for url in grant["urls"].as_array().into_iter().flatten() {
            let made = url["claim"].as_str().is_some_and(|claim| self.initialized.contains(claim));
            let init = grant["init"].as_array().into_iter().flatten().any(|name| *name == url["name"]);
            ensure!(!(made && init), "I7: {url} is to be made anew");
        }
        self.counts.ungated += 1;
        Ok(())
    }
}

/// That a write names the object that it is meant for, and where it rests on more than that, the version that was read: the
/// API server refuses it once there is another one of that name, or somebody else has written.
fn rests(call: &Written) -> Result<()> {
    let sent = &call.sent;
    let named = |of: &Value, fields: &[&str]| fields.iter().all(|field| of[field].is_string());
    let is_tested = |path: &str| {
        let mut steps = sent.as_array().into_iter().flatten();
        steps.any(|step| step["op"] == "test" && step["path"] == path && step["value"].is_string())
    };
    let rests = match (&call.method, resource_of(&call.path).as_str()) {
        (&Method::DELETE, _) => named(&sent["preconditions"], &["uid", "resourceVersion"]),
        (&Method::PATCH, "pods") => is_tested("/metadata/uid") && is_tested("/metadata/resourceVersion"),
        (&Method::PUT, "walwriters/status" | "walstorages/status") => {
            named(&sent["metadata"], &["uid", "resourceVersion"])
        }
        (&Method::PATCH, "walwriters" | "walstorages") => named(&sent["metadata"], &["resourceVersion"]),
        (&Method::PATCH, "persistentvolumeclaims" | "configmaps") => named(&sent["metadata"], &["uid"]),
        _ => true,
    };
    ensure!(rests, "no preconditions");
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn version(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Watches invariant 1, until it is dropped.
pub struct Watch {
    broken: Arc<Mutex<Vec<String>>>,
    looks: Arc<Mutex<u64>>,
    task: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// # Panics
    /// When a writer ever had two pods that may run.
    pub fn check(&self) {
        let broken = self.broken.lock().expect("no writer panics");
        assert!(broken.is_empty(), "I1: {broken:?}");
        assert!(*self.looks.lock().expect("no writer panics") > 0, "nobody looked");
    }
}

/// Looks at all pods after each change of one: each look is one moment.
#[must_use]
pub fn watch(client: Client) -> Watch {
    let (broken, looks) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let (found, count) = (Arc::clone(&broken), Arc::clone(&looks));
    let labelled = watcher::Config::default().labels(names::LABEL_WRITER);
    let task = tokio::spawn(mirror::follow(client, labelled, move |pods| {
        *count.lock().expect("no writer panics") += 1;
        let mut running: BTreeMap<Of, Vec<String>> = BTreeMap::new();
        for pod in pods.values().filter(|pod| may_run(pod)) {
            running.entry(of_pod(pod)).or_default().push(pod.name_any());
        }
        let twice = running.into_iter().filter(|(_, pods)| pods.len() > 1);
        found.lock().expect("no writer panics").extend(twice.map(|one| format!("{one:?}")));
    }));
    Watch { broken, looks, task: task.abort_handle() }
}

fn of_pod(pod: &Pod) -> Of {
    (pod.namespace().unwrap_or_default(), pod.annotations().get(names::ANNOTATION_WRITER).cloned().unwrap_or_default())
}

fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    gates.into_iter().any(|gate| gate.name == names::GATE)
}

/// Let go, and not proven to have stopped.
fn may_run(pod: &Pod) -> bool {
    !is_gated(pod) && !has_stopped(pod)
}

fn has_stopped(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let reported = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    ended && reported.into_iter().all(|one| one.state.as_ref().is_some_and(|state| state.terminated.is_some()))
}

/// Checks invariants 1, 7 and 9 over a namespace in which nothing happens any more: every labelled live pod is the holder of
/// exactly one writer, which names it with the epoch of its grant, or is gated; and the grant of one that has started lets
/// nothing begin.
///
/// # Errors
/// With what is not so.
pub async fn at_rest(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let writers: Api<WalWriter> = Api::namespaced(client.clone(), namespace);
    let writers = writers.list(&ListParams::default()).await?.items;
    let pods = pods.list(&ListParams::default().labels(names::LABEL_STORAGE)).await?.items;
    for pod in pods.iter().filter(|pod| may_run(pod)) {
        let held: Vec<&WalWriter> = writers
            .iter()
            .filter(|writer| {
                let holder = writer.status.as_ref().and_then(|status| status.holder.as_ref());
                holder.map(|holder| &holder.pod_uid) == pod.metadata.uid.as_ref()
            })
            .collect();
        let names: Vec<String> = held.iter().map(|writer| writer.name_any()).collect();
        ensure!(held.len() == 1, "I9: {} holds {names:?}", pod.name_any());
        ensure!(names[0] == of_pod(pod).1, "I9: {} holds {names:?} and says {:?}", pod.name_any(), of_pod(pod));
        let grant = pod.annotations().get(names::ANNOTATION_GRANT).context("I2: let go without a grant")?;
        let grant: Value = serde_json::from_str(grant)?;
        let status = held[0].status.clone().unwrap_or_default();
        ensure!(grant["epoch"].as_i64() == status.epoch, "I6: {grant}");
        let begins =
            ["init", "forget"].iter().any(|list| grant[list].as_array().is_some_and(|names| !names.is_empty()));
        ensure!(!begins || status.phase != Some(Phase::Active), "I7: {grant} is not taken back");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(method: Method, path: &str, sent: Value, answer: Value) -> Written {
        Written { method, path: path.to_owned(), sent, status: 200, answer }
    }

    fn swap(version: &str, uid: &str, epoch: i64, phase: &str) -> Written {
        let holder = if uid.is_empty() { json!(null) } else { json!({"podUid": uid}) };
        call(
            Method::PUT,
            "/apis/walstorage.dev/v1alpha1/namespaces/n/walwriters/s.w/status",
            json!({"metadata": {"uid": "u", "resourceVersion": "0"}}),
            json!({"metadata": {"namespace": "n", "name": "s.w", "resourceVersion": version},
                "status": {"holder": holder, "epoch": epoch, "phase": phase}}),
        )
    }

    fn ungate(version: &str, uid: &str, epoch: i64, init: Value) -> Written {
        let grant = json!({"epoch": epoch, "urls": [{"name": "a", "claim": "c"}], "init": init}).to_string();
        call(
            Method::PATCH,
            "/api/v1/namespaces/n/pods/p",
            json!([
                {"op": "test", "path": "/metadata/uid", "value": uid},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "0"},
                {"op": "remove", "path": "/spec/schedulingGates/0"},
            ]),
            json!({"metadata": {"namespace": "n", "uid": uid, "resourceVersion": version,
                "annotations": {"walstorage.dev/writer": "s.w", "walstorage.dev/grant": grant}}}),
        )
    }

    fn initialized(version: &str) -> Written {
        let annotations = json!({"walstorage.dev/initialized": "true"});
        let answer = json!({"metadata": {"uid": "c", "resourceVersion": version, "annotations": annotations}});
        let sent = json!({"metadata": {"uid": "c"}});
        call(Method::PATCH, "/api/v1/namespaces/n/persistentvolumeclaims/c", sent, answer)
    }

    /// The same without a step of its patch.
    fn without(path: &str, mut call: Written) -> Written {
        call.sent.as_array_mut().unwrap().retain(|step| step["path"] != path);
        call
    }

    fn delete(kind: &str, answer: Value) -> Written {
        let sent = json!({"preconditions": {"uid": "u", "resourceVersion": "1"}});
        call(Method::DELETE, &format!("/api/v1/namespaces/n/{kind}/x"), sent, answer)
    }

    #[test]
    fn a_log_in_order_is_counted_and_each_wrong_step_is_named() {
        let none = || json!([]);
        let claim = || {
            let labels = json!({"walstorage.dev/storage": "s", "walstorage.dev/writer": "w"});
            delete("persistentvolumeclaims", json!({"metadata": {"namespace": "n", "labels": labels}}))
        };
        let good = [
            swap("1", "a", 5, "Pending"),
            // Answered in another order than it was done.
            ungate("3", "a", 5, json!(["a"])),
            initialized("4"),
            swap("9", "", 5, "Reclaiming"),
            claim(),
            swap("5", "", 5, "Released"),
            swap("6", "b", 6, "Pending"),
            ungate("7", "b", 6, none()),
            // A gated pod whose grant was taken back is granted anew, under a new epoch.
            swap("10", "c", 7, "Pending"),
            swap("11", "", 7, "Lost"),
            swap("12", "c", 8, "Pending"),
            ungate("13", "c", 8, none()),
            delete("pods", json!({"kind": "Pod", "spec": {}})),
        ];
        let counts = log(&good).unwrap();
        assert_eq!(counts, Counts { ungated: 3, grants: 4, deleted_pods: 1, deleted_claims: 1 });
        for (bad, sentence) in [
            (vec![ungate("1", "a", 5, none())], "I2"),
            (vec![swap("1", "a", 5, ""), swap("2", "b", 6, ""), ungate("3", "a", 5, none())], "I2"),
            (vec![swap("1", "a", 5, ""), ungate("2", "a", 4, none())], "I2"),
            (vec![delete("pods", json!({"kind": "Pod", "spec": {"nodeName": "n"}}))], "I4"),
            (vec![swap("1", "", 5, "Released"), claim()], "I5"),
            (vec![swap("1", "a", 5, ""), swap("2", "", 5, ""), ungate("3", "a", 5, none())], "I2"),
            (vec![swap("1", "a", 5, ""), swap("2", "b", 5, "")], "I6"),
            (vec![swap("1", "a", 5, ""), swap("2", "a", 6, "")], "I6"),
            (vec![swap("1", "a", 5, ""), swap("2", "", 5, ""), swap("3", "a", 5, "")], "I6"),
            (vec![initialized("1"), swap("2", "a", 5, ""), ungate("3", "a", 5, json!(["a"]))], "I7"),
            (vec![Written { sent: json!({}), ..delete("pods", json!({"kind": "Pod"})) }], "no preconditions"),
            (vec![Written { sent: json!({}), ..delete("walwriters", json!({})) }], "no preconditions"),
            (vec![Written { sent: json!({"metadata": {"uid": "u"}}), ..swap("1", "a", 5, "") }], "no preconditions"),
            (vec![Written { sent: json!({"metadata": {}}), ..initialized("1") }], "no preconditions"),
            (vec![swap("1", "a", 5, ""), without("/metadata/uid", ungate("2", "a", 5, none()))], "no preconditions"),
            (
                vec![swap("1", "a", 5, ""), without("/metadata/resourceVersion", ungate("2", "a", 5, none()))],
                "no preconditions",
            ),
        ] {
            let error = format!("{:#}", log(&bad).unwrap_err());
            assert!(error.contains(sentence), "{sentence}: {error}");
            // What was refused was not done.
            let refused: Vec<Written> = bad.into_iter().map(|call| Written { status: 409, ..call }).collect();
            assert_eq!(log(&refused).unwrap(), Counts::default());
        }
    }

    #[test]
    fn a_path_says_what_it_is_about() {
        for (path, resource) in [
            ("/api/v1/namespaces/n/pods/p", "pods"),
            ("/api/v1/namespaces/n/pods", "pods"),
            ("/apis/walstorage.dev/v1alpha1/namespaces/n/walwriters/s.w/status", "walwriters/status"),
            ("/api/v1/pods", ""),
        ] {
            assert_eq!(crate::gateway::resource_of(path), resource);
        }
    }
}
