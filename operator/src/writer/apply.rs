//! The calls of a run, on a real API server. Reads name no version, so that no cache of the server answers them.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use walstorage_crds::names;
use walstorage_crds::walstorage::AccessMode;
use walstorage_crds::walwriter::{WalWriter, WalWriterStatus, Workload};

use super::dereference::{claim_facts, facts};
use crate::grant::{Answer, Call, ClaimFacts, Failure, Key, NewClaim};
use crate::identity::PodFacts;
use crate::process::cache::Kind;

/// Carries out the calls of one run.
pub(super) struct Calls {
    key: Key,
    client: Client,
    writers: Api<WalWriter>,
    pods: Api<Pod>,
    claims: Api<PersistentVolumeClaim>,
    /// The ledger as it was read or written last, at first as the cache has it.
    pub(super) writer: Option<WalWriter>,
    /// The gates of the pods that were read, in their order.
    gates: HashMap<String, Vec<String>>,
    /// The workloads of the pods that were read, by name of the pod.
    pub(super) workloads: HashMap<String, String>,
    /// Ledgers and pods that were written over a version that was read, each with its new one, and not told yet.
    pub(super) written: Vec<(Kind, String)>,
    /// Claims that were created and not told yet.
    pub(super) created: Vec<ClaimFacts>,
}

impl Calls {
    pub(super) fn new(client: Client, key: Key, writer: Option<WalWriter>) -> Self {
        Self {
            writers: Api::namespaced(client.clone(), &key.namespace),
            pods: Api::namespaced(client.clone(), &key.namespace),
            claims: Api::namespaced(client.clone(), &key.namespace),
            client,
            key,
            writer,
            gates: HashMap::new(),
            workloads: HashMap::new(),
            written: Vec::new(),
            created: Vec::new(),
        }
    }

    pub(super) async fn make(&mut self, call: Call) -> Answer {
        self.attempt(call).await.unwrap_or_else(|error| Answer::Failed(failure(&error)))
    }

    async fn attempt(&mut self, call: Call) -> Result<Answer, Error> {
        let name = self.key.name();
        let by_us = PostParams { field_manager: Some(names::CONTROLLER.to_owned()), ..PostParams::default() };
        let patches = PatchParams { field_manager: Some(names::CONTROLLER.to_owned()), ..PatchParams::default() };
        Ok(match call {
            Call::GetWriter => self.read(self.writers.get_opt(&name).await?),
            Call::GetPod { name } => {
                let pod = self.pods.get_opt(&name).await?.map(|pod| facts(&pod, &self.key.namespace));
                self.remember(pod.as_slice());
                Answer::Pod(pod.map(Box::new))
            }
            Call::GetClaim { name } => {
                Answer::Claim(self.claims.get_opt(&name).await?.map(|claim| Box::new(claim_facts(&claim))))
            }
            Call::ListClaims => {
                Answer::Claims(self.claims.list(&self.labelled()).await?.iter().map(claim_facts).collect())
            }
            Call::ListPods => {
                let pods = self.pods.list(&self.labelled()).await?;
                let pods: Vec<PodFacts> = pods.iter().map(|pod| facts(pod, &self.key.namespace)).collect();
                self.remember(&pods);
                Answer::Pods(pods)
            }
            Call::CreateWriter(spec) => {
                let created = self.writers.create(&by_us, &WalWriter::new(&name, *spec)).await?;
                self.wrote(created)
            }
            Call::SwapStatus { resource_version, status } => {
                let Some(writer) = self.with_status(resource_version, *status) else {
                    return Ok(Answer::Failed(Failure::Unknown("a status of a ledger that was not read".to_owned())));
                };
                let written = self.writers.replace_status(&name, &by_us, &writer).await?;
                self.wrote(written)
            }
            Call::DropAnnotation { resource_version, name: annotation } => {
                let patch =
                    json!({"metadata": {"resourceVersion": resource_version, "annotations": {annotation: null}}});
                let written = self.writers.patch(&name, &patches, &Patch::Merge(patch)).await?;
                self.wrote(written)
            }
            Call::DeleteWriter { uid, resource_version } => {
                self.writers.delete(&name, &only(uid, resource_version)).await?;
                Answer::Done
            }
            Call::CreateClaim(claim) => {
                let created = claim_facts(&self.claims.create(&by_us, &persistent_volume_claim(*claim)).await?);
                self.created.push(created.clone());
                Answer::Claim(Some(Box::new(created)))
            }
            Call::MarkClaim { name, uid, labels, annotations } => {
                let patch = json!({"metadata": {"uid": uid, "labels": labels, "annotations": annotations}});
                let marked = self.claims.patch(&name, &patches, &Patch::Merge(patch)).await?;
                Answer::Claim(Some(Box::new(claim_facts(&marked))))
            }
            Call::GrowClaim { name, uid, size } => {
                let patch = json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "uid": uid},
                    "spec": {"resources": {"requests": {"storage": size}}},
                });
                self.claims.patch(&name, &PatchParams::apply(names::CONTROLLER).force(), &Patch::Apply(patch)).await?;
                Answer::Done
            }
            Call::DeleteClaim { name, uid, resource_version } => {
                self.claims.delete(&name, &only(uid, resource_version)).await?;
                Answer::Done
            }
            Call::PatchPod { name, uid, resource_version, grant, ungate } => {
                let gates = self.gates.get(&name).map(Vec::as_slice).unwrap_or_default();
                let patch = pod_patch(&uid, &resource_version, &grant, ungate.then_some(gates));
                let Ok(patch) = serde_json::from_value(patch) else {
                    return Ok(Answer::Failed(Failure::Unknown("the patch of the pod is none".to_owned())));
                };
                let patched = self.pods.patch_metadata(&name, &patches, &Patch::Json::<()>(patch)).await?;
                self.written.extend(patched.metadata.resource_version.map(|version| (Kind::Pod, version)));
                Answer::Done
            }
            Call::DeletePod { name, uid, resource_version } => {
                self.pods.delete(&name, &only(uid, resource_version)).await?;
                Answer::Done
            }
        })
    }

    /// What is written to pods later, or counted for them, rests on what was read.
    fn remember(&mut self, pods: &[PodFacts]) {
        for pod in pods {
            self.gates.insert(pod.name.clone(), pod.gates.clone());
            let workload = pod.annotation(names::ANNOTATION_WORKLOAD).unwrap_or_default();
            self.workloads.insert(pod.name.clone(), workload.to_owned());
        }
    }

    /// The uid of a workload, where it can be read.
    pub(super) async fn uid_of(&self, workload: &Workload) -> Option<String> {
        let Workload { group, kind, name } = workload;
        let version = GroupVersionKind::gvk(group, "v1", kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.key.namespace, &ApiResource::from_gvk(&version));
        api.get_metadata_opt(name).await.ok()??.metadata.uid
    }

    fn read(&mut self, writer: Option<WalWriter>) -> Answer {
        self.writer.clone_from(&writer);
        Answer::Writer(writer.map(Box::new))
    }

    fn wrote(&mut self, writer: WalWriter) -> Answer {
        self.written.extend(writer.metadata.resource_version.clone().map(|version| (Kind::Writer, version)));
        self.read(Some(writer))
    }

    fn labelled(&self) -> ListParams {
        let Key { namespace: _, storage, writer } = &self.key;
        ListParams::default().labels(&format!("{}={storage},{}={writer}", names::LABEL_STORAGE, names::LABEL_WRITER))
    }

    fn with_status(&self, resource_version: String, status: WalWriterStatus) -> Option<WalWriter> {
        let mut writer = self.writer.clone()?;
        let ObjectMeta { name, namespace, uid, .. } = writer.metadata;
        writer.metadata =
            ObjectMeta { name, namespace, uid, resource_version: Some(resource_version), ..ObjectMeta::default() };
        writer.status = Some(status);
        Some(writer)
    }
}

/// Deletes this object in this version, and no other of its name.
fn only(uid: String, resource_version: String) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid), resource_version: Some(resource_version) };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

fn persistent_volume_claim(claim: NewClaim) -> PersistentVolumeClaim {
    use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, VolumeResourceRequirements};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    let NewClaim { name, labels, annotations, size, storage_class_name, access_mode } = claim;
    let mode = match access_mode {
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
    };
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(size))].into()),
                ..VolumeResourceRequirements::default()
            }),
            storage_class_name,
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// Tests uid and version, sets the grant and, given the gates, removes ours.
fn pod_patch(uid: &str, resource_version: &str, grant: &str, gates: Option<&[String]>) -> Value {
    let annotation = format!("/metadata/annotations/{}", names::ANNOTATION_GRANT.replace('/', "~1"));
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": resource_version}),
        json!({"op": "add", "path": annotation, "value": grant}),
    ];
    if let Some(at) = gates.and_then(|gates| gates.iter().position(|gate| gate == names::GATE)) {
        let path = format!("/spec/schedulingGates/{at}");
        patch.push(json!({"op": "test", "path": format!("{path}/name"), "value": names::GATE}));
        patch.push(json!({"op": "remove", "path": path}));
    }
    Value::Array(patch)
}

/// What a refusal of the API server means to the protocol.
fn failure(error: &Error) -> Failure {
    let Error::Api(status) = error else { return Failure::Unknown(error.to_string()) };
    let message = status.message.clone();
    match status.code {
        404 => Failure::NotFound,
        409 if status.reason == "AlreadyExists" => Failure::Exists,
        409 => Failure::Conflict,
        403 if message.contains("exceeded quota") => Failure::Quota(message),
        403 if message.contains("being terminated") => Failure::NamespaceEnds,
        // A test of a patch that does not hold, and a uid that is another one.
        422 if message.contains("metadata.uid")
            || message.contains("error in our request")
            || message.contains("test") =>
        {
            Failure::Conflict
        }
        400 | 403 | 413 | 422 => Failure::Refused(message),
        _ => Failure::Unknown(message),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_pod_is_let_go_by_a_patch_that_tests_what_it_rests_on() {
        let gates = ["other".to_owned(), names::GATE.to_owned()];
        assert_eq!(
            pod_patch("u", "7", "{}", Some(&gates)),
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "add", "path": "/metadata/annotations/walstorage.dev~1grant", "value": "{}"},
                {"op": "test", "path": "/spec/schedulingGates/1/name", "value": "walstorage.dev/writer"},
                {"op": "remove", "path": "/spec/schedulingGates/1"},
            ])
        );
        assert_eq!(pod_patch("u", "7", "{}", None).as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn refusals_are_told_apart() {
        for (code, reason, message, expected) in [
            (404, "NotFound", "", Failure::NotFound),
            (409, "AlreadyExists", "", Failure::Exists),
            (409, "Conflict", "the object has been modified", Failure::Conflict),
            (422, "Invalid", "metadata.uid: Invalid value: field is immutable", Failure::Conflict),
            (422, "Invalid", "the server rejected our request due to an error in our request", Failure::Conflict),
            (422, "Invalid", "spec.resources: too small", Failure::Refused("spec.resources: too small".into())),
            (403, "Forbidden", "exceeded quota: q", Failure::Quota("exceeded quota: q".into())),
            (403, "Forbidden", "unable to create: namespace is being terminated", Failure::NamespaceEnds),
            (403, "Forbidden", "no right", Failure::Refused("no right".into())),
            (503, "ServiceUnavailable", "later", Failure::Unknown("later".into())),
        ] {
            let status = Status { code, reason: reason.into(), message: message.into(), ..Status::default() };
            assert_eq!(failure(&Error::Api(Box::new(status))), expected);
        }
    }
}
