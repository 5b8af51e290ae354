//! `render --part all`: a WalStorage, its ConfigMap and its workloads as they would be in a cluster, for whoever reviews or
//! stores manifests.
//!
//! Only what has a lasting name can be written offline: the pods of a StatefulSet, the one pod of a Deployment that never
//! has two, and a pod of nobody. Everything else is refused with the reason, and is the webhook's.

use serde_json::{Map, Value, json};
use walstorage_crds::config::Config;
use walstorage_crds::names::{
    self, CONFIG_FILE, LABEL_MANAGED_BY, LABEL_STORAGE, LABEL_URL, MANAGED_BY, config_map, volume,
};
use walstorage_crds::walstorage::{AccessMode, Effective, EffectiveUrl, Place, Volume, validate};

use super::Rendered;
use crate::resource;
use crate::webhook::json::{as_object_mut, edit_list, list, meta, name, object_mut, text};
use crate::webhook::patch::{self, Settings, Storage};
use crate::yaml::{self, Ordered};

/// A file that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// How it is called in messages.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// The storage that everything is rendered for.
struct Rendering<'a> {
    storage: &'a str,
    namespace: Option<&'a str>,
    effective: &'a Effective,
    settings: &'a Settings,
    warnings: Vec<String>,
}

/// Where the pod of a document stands.
fn pod_of(document: &Value) -> Option<&'static str> {
    match text(document, "/kind")? {
        "Pod" => Some(""),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "StatefulSet" | "Deployment" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        // A kind of somebody else's: by what it looks like.
        _ => list(document, "/spec/template/spec/containers").first().map(|_| "/spec/template"),
    }
}

/// Everything of these files, the WalStorage and its ConfigMap first; documents that have nothing to do with it come out as
/// they went in.
///
/// # Errors
/// Everything that is wrong, each with the name of its file.
pub fn all(files: &[File], settings: &Settings) -> Result<Rendered, Vec<String>> {
    let with_storage: Vec<&File> = files.iter().filter(|file| resource::has_storage(&file.text)).collect();
    let [holder] = with_storage.as_slice() else {
        return Err(match files {
            [one] => vec![format!("{}: {}", one.name, "no document of kind WalStorage; allowed: exactly one")],
            _ => vec![format!("render: {} files with a WalStorage; allowed: exactly one", with_storage.len())],
        });
    };
    let in_file = |name: &str, error: &dyn std::fmt::Display| format!("{name}: {error}");
    let storage = resource::read(&holder.text)
        .map_err(|errors| errors.iter().map(|error| in_file(&holder.name, error)).collect::<Vec<_>>())?;
    let storage_name = storage.metadata.name.clone().unwrap_or_default();
    let effective = validate(&storage_name, &storage.spec, [])
        .map_err(|errors| errors.iter().map(|error| in_file(&holder.name, error)).collect::<Vec<_>>())?;
    let mut rendering = Rendering {
        storage: &storage_name,
        namespace: storage.metadata.namespace.as_deref(),
        effective: &effective,
        settings,
        warnings: Vec::new(),
    };

    let (mut first, mut others, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pods, mut ours) = (0, 0);
    for file in files {
        let documents =
            yaml::ordered(&file.text).map_err(|error| vec![in_file(&file.name, &format!("not YAML: {error}"))])?;
        for document in documents {
            let value = document.json().map_err(|error| vec![in_file(&file.name, &error)])?;
            if text(&value, "/kind") == Some("WalStorage") {
                first.push(document.print_as(&value));
                continue;
            }
            if rendering.made(&value) {
                continue;
            }
            let label = pod_of(&value).map(|at| value.pointer(at).and_then(|pod| meta(pod, "labels", LABEL_STORAGE)));
            pods += u32::from(label.is_some());
            match label.flatten() {
                Some(label) if label == storage_name => {
                    ours += 1;
                    match rendering.workload(&document, value) {
                        Ok(documents) => others.extend(documents),
                        Err(error) => errors.push(in_file(&file.name, &error)),
                    }
                }
                Some(label) => {
                    let what = described(&value);
                    rendering.warnings.push(format!("{what} is of WalStorage {label} and is left as it is"));
                    others.push(document.print_as(&value));
                }
                None => others.push(document.print_as(&value)),
            }
        }
    }
    if pods > 0 && ours == 0 {
        let label = format!("{LABEL_STORAGE}: {storage_name}");
        errors
            .push(format!("render: no pod has the label {label}: add it to the labels of the pod, or of its template"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    first.push(rendering.config_map());
    let documents: Result<Vec<String>, String> = first.into_iter().chain(others).collect();
    Ok(Rendered { text: documents.map_err(|error| vec![error])?.join("---\n"), warnings: rendering.warnings })
}

/// `StatefulSet orders`.
fn described(document: &Value) -> String {
    format!(
        "{} {}",
        text(document, "/kind").unwrap_or("document"),
        text(document, "/metadata/name").unwrap_or("without a name")
    )
}

impl Rendering<'_> {
    /// Whether a document came out of an earlier rendering, and is made anew.
    fn made(&self, document: &Value) -> bool {
        let kind = matches!(text(document, "/kind"), Some("ConfigMap" | "PersistentVolumeClaim"));
        let label = |key| meta(document, "labels", key);
        kind && label(LABEL_MANAGED_BY) == Some(MANAGED_BY) && label(LABEL_STORAGE) == Some(self.storage)
    }

    fn config_map(&self) -> Result<String, String> {
        let config = self.effective.config().rendered_toml();
        // What a sidecar would say about the file, its maker should hear first.
        Config::parse(&config, true)
            .map_err(|errors| errors.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
        yaml::print_sorted(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self.metadata(&config_map(self.storage), json!({})),
            "data": {CONFIG_FILE: config},
        }))
    }

    fn metadata(&self, name: &str, more: Value) -> Value {
        let mut labels = json!({LABEL_MANAGED_BY: MANAGED_BY, LABEL_STORAGE: self.storage});
        if let (Value::Object(labels), Value::Object(more)) = (&mut labels, more) {
            labels.extend(more);
        }
        let mut metadata = json!({"name": name, "labels": labels});
        if let Some(namespace) = self.namespace {
            metadata["namespace"] = namespace.into();
        }
        metadata
    }

    /// A workload with its claims, in the order in which they are applied.
    fn workload(&mut self, document: &Ordered, mut value: Value) -> Result<Vec<Result<String, String>>, String> {
        let what = described(&value);
        let namespace = text(&value, "/metadata/namespace");
        if namespace != self.namespace {
            let (own, storages) = (namespace.unwrap_or("none"), self.namespace.unwrap_or("none"));
            return Err(format!("{what} has namespace {own} and the WalStorage {storages}: write the same in both"));
        }
        let refuse = |why: &str| Err(format!("{what} {why}"));
        let own = text(&value, "/metadata/name").unwrap_or_default().to_owned();
        let claims = match text(&value, "/kind").unwrap_or_default() {
            "StatefulSet" => {
                self.stateful_set(&what, &mut value)?;
                self.warnings.push(format!(
                    "{what}: an existing StatefulSet does not take other volumeClaimTemplates: delete it with --cascade=orphan, then apply this one"
                ));
                Vec::new()
            }
            "Deployment" => {
                if value.pointer("/spec/replicas").is_some_and(|replicas| *replicas != 1) {
                    return refuse(
                        "has not one replica, and claims that are written offline are for one pod: use a StatefulSet, set replicas: 1, or leave it \
                         as it is, and the webhook gives every pod a log",
                    );
                }
                if text(&value, "/spec/strategy/type") != Some("Recreate") {
                    return refuse(
                        "starts a new pod before the old one has ended, and its claims are for one pod: set spec.strategy.type: Recreate, or leave it \
                         as it is, and the webhook gives every pod a log",
                    );
                }
                self.fixed(&what, &own, &mut value, "/spec/template")?
            }
            "Pod" if !own.is_empty() => self.fixed(&what, &own, &mut value, "")?,
            "Pod" => return refuse("would get another log each time: give it metadata.name"),
            "DaemonSet" => {
                return refuse(
                    "has a pod on each node and none with a lasting name: use a StatefulSet, or a Deployment",
                );
            }
            "Job" | "CronJob" => {
                return refuse(
                    "makes pods without lasting names: leave it as it is, and the webhook gives every pod a log",
                );
            }
            _ => {
                return refuse(
                    "is of a kind whose pods have no names that are known offline: leave it as it is, and the webhook gives every pod a log",
                );
            }
        };
        let claims = claims.iter().map(yaml::print_sorted);
        Ok(claims.chain(std::iter::once(document.print_as(&value))).collect())
    }

    /// The template is patched; the set's controller makes the claims, named as the operator would name them.
    fn stateful_set(&self, what: &str, value: &mut Value) -> Result<(), String> {
        let retention = |field: &str| text(value, &format!("/spec/persistentVolumeClaimRetentionPolicy/{field}"));
        if let Some(field) = ["whenDeleted", "whenScaled"].into_iter().find(|field| retention(field) == Some("Delete"))
        {
            return Err(format!(
                "{what} has persistentVolumeClaimRetentionPolicy.{field}: Delete, which would delete the claims of the log with their entries: set Retain"
            ));
        }
        let own: Vec<String> = list(value, "/spec/volumeClaimTemplates")
            .iter()
            .filter_map(|claim| text(claim, "/metadata/name"))
            .filter(|own| !own.starts_with(&volume(self.storage, "")))
            .map(str::to_owned)
            .collect();
        let mut template = value.pointer("/spec/template").cloned().unwrap_or_default();
        // The claims of the set are volumes of its pods, and their data is the user's.
        with_volumes(&mut template, |volumes| {
            volumes.extend(own.iter().map(|own| json!({"name": own, "persistentVolumeClaim": {"claimName": own}})));
        });
        let mut template = self.inject(what, &template, None)?;
        with_volumes(&mut template, |volumes| volumes.retain(|volume| !own.iter().any(|own| own == name(volume))));
        let spec = object_mut(as_object_mut(value), "spec");
        spec.insert("template".to_owned(), template);
        edit_list(spec, "volumeClaimTemplates", |claims| {
            claims
                .retain(|claim| text(claim, "/metadata/name").is_some_and(|claim| own.iter().any(|own| own == claim)));
            claims.extend(self.disks().map(|(url, disk)| {
                let labels = json!({LABEL_MANAGED_BY: MANAGED_BY, LABEL_STORAGE: self.storage, LABEL_URL: url.name});
                json!({"metadata": {"name": volume(self.storage, &url.name), "labels": labels}, "spec": claim_spec(disk)})
            }));
        });
        let retain = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
        spec.insert("persistentVolumeClaimRetentionPolicy".to_owned(), retain);
        Ok(())
    }

    /// The one pod is patched; its claims come with it.
    fn fixed(&self, what: &str, own: &str, value: &mut Value, at: &str) -> Result<Vec<Value>, String> {
        let writer = names::short(own);
        let pod = value.pointer(at).cloned().unwrap_or_default();
        let pod = self.inject(what, &pod, Some(&writer))?;
        if let Some(place) = value.pointer_mut(at) {
            *place = pod;
        }
        // Without the writer's label: the controller takes over claims that are nobody's yet.
        let claim = |(url, disk): (&EffectiveUrl, &Volume)| {
            let name = names::claim(self.storage, &url.name, &writer);
            json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": self.metadata(&name, json!({LABEL_URL: url.name})),
                "spec": claim_spec(disk),
            })
        };
        Ok(self.disks().map(claim).collect())
    }

    fn inject(&self, what: &str, pod: &Value, writer: Option<&str>) -> Result<Value, String> {
        let storage = Storage { name: self.storage, effective: self.effective };
        patch::render(pod, storage, writer, self.settings).map_err(|refusal| format!("{what}: {refusal}"))
    }

    fn disks(&self) -> impl Iterator<Item = (&EffectiveUrl, &Volume)> {
        let urls = self.effective.urls.iter().chain(&self.effective.journal);
        urls.filter_map(|url| match &url.place {
            Place::Disk(disk) => Some((url, disk)),
            Place::Bucket(_) => None,
        })
    }
}

fn with_volumes(template: &mut Value, edit: impl FnOnce(&mut Vec<Value>)) {
    edit_list(object_mut(as_object_mut(template), "spec"), "volumes", edit);
}

fn claim_spec(disk: &Volume) -> Value {
    let Volume { size, size_bytes: _, storage_class_name, access_mode } = disk;
    let mode = match access_mode {
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
    };
    let mut spec = Map::from_iter([
        ("accessModes".to_owned(), json!([mode])),
        ("resources".to_owned(), json!({"requests": {"storage": size}})),
    ]);
    if let Some(class) = storage_class_name {
        spec.insert("storageClassName".to_owned(), class.as_str().into());
    }
    Value::Object(spec)
}
